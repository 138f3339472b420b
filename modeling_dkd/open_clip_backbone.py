"""Dual encoders of open_clip as backbones: "open_clip:hf-hub:OWNER/NAME" or "open_clip:local-dir:FOLDER".

open_clip (https://github.com/mlfoundations/open_clip) builds and runs the model; it is imported where one is used.
"""

import json
import logging
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import transformers
from huggingface_hub import snapshot_download
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BatchEncoding,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizer,
)
from transformers import initialization as init


PREFIX = "open_clip:"
CONFIG_FILE, WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"
TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "*.model")
RESAMPLE = {"bilinear": 2, "bicubic": 3, "random": 3}


class OpenClipConfig(PreTrainedConfig):
    """What open_clip builds a model from.

    Args:
        model_cfg: Its `model_cfg`: `embed_dim`, `vision_cfg`, `text_cfg` ...
        preprocess_cfg: Its `preprocess_cfg`: `size`, `mean`, `std`, `interpolation`, `resize_mode`, `fill_color`.
    """

    model_type = "open_clip"
    model_cfg: dict | None = None
    preprocess_cfg: dict | None = None

    @property
    def projection_dim(self) -> int:
        """Length of its embeddings."""
        return int((self.model_cfg or {})["embed_dim"])

    @property
    def image_size(self) -> Any:
        """Pixels of the images that it takes: a side, or height and width."""
        return (self.model_cfg or {})["vision_cfg"].get("image_size", 224)


class OpenClipBackbone(PreTrainedModel):
    """A model of open_clip with the methods of transformers' dual encoders.

    Args:
        config: What it is built from.
        model: The model with its weights; None builds one with random weights.
    """

    config: OpenClipConfig
    config_class = OpenClipConfig
    main_input_name = "pixel_values"
    base_model_prefix = "open_clip"

    def __init__(self, config: OpenClipConfig, model: Any = None) -> None:
        super().__init__(config)
        self.model = _new_model(config.model_cfg) if model is None else model
        # Loading a checkpoint leaves buffers that none holds without a value: attention masks, positions.
        held = self.state_dict().keys()
        self._computed = {name: buffer.clone() for name, buffer in self.named_buffers() if name not in held}
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: Any) -> None:
        """open_clip has initialised its weights; what a checkpoint does not hold gets its value back."""
        for name, value in self._computed.items():
            owner, _, buffer = name.rpartition(".")
            if self.get_submodule(owner) is module:
                init.copy_(module.get_buffer(buffer), value)

    @property
    def logit_scale(self) -> Tensor:
        """Logarithm of the factor on the cosine."""
        return self.model.logit_scale

    @property
    def logit_bias(self) -> Tensor | None:
        """Constant added to the logits, where it has one."""
        return getattr(self.model, "logit_bias", None)

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, D), not normalised."""
        return self.model.encode_image(pixel_values)

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Tokens (N, L) of `OpenClipTokenizer`, shorter ones are filled with its padding -> (N, D), not normalised."""
        text_cfg = (self.config.model_cfg or {})["text_cfg"]
        length, padding = text_cfg.get("context_length", 77), text_cfg.get("pad_id", 0)
        if attention_mask is not None:
            input_ids = input_ids.masked_fill(attention_mask == 0, padding)
        input_ids = torch.nn.functional.pad(input_ids, (0, length - input_ids.shape[1]), value=padding)
        return self.model.encode_text(input_ids)


class OpenClipTokenizer(PreTrainedTokenizer):
    """open_clip's own tokenizer, with its cleaning of texts and its padding, behind a call like transformers'.

    Args:
        model_cfg: Its `model_cfg`, which names the tokenizer.
        source: "hf-hub:..." or "local-dir:..." whose tokenizer it is; None: the one of `model_cfg` alone, which brings
            its vocabulary with open_clip.
        **kwargs: As in the base class.

    Raises:
        ValueError: open_clip is not installed, or without `source` the vocabulary is not open_clip's own.
    """

    model_input_names = ["input_ids"]  # noqa: RUF012 (transformers reads it from the class)

    def __init__(self, model_cfg: dict[str, Any], source: str | None = None, **kwargs: Any) -> None:
        open_clip = import_open_clip()
        text_cfg = model_cfg["text_cfg"]
        if source is None and text_cfg.get("hf_tokenizer_name"):
            raise ValueError(
                f"the tokenizer {text_cfg['hf_tokenizer_name']} of this open_clip model is not kept in a DKD "
                "checkpoint; load the encoder where it is, as open_clip:hf-hub:OWNER/NAME"
            )
        if source is None:
            with tempfile.TemporaryDirectory() as folder:
                _write_config(Path(folder), model_cfg)
                self.tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        else:
            self.tokenizer = open_clip.get_tokenizer(source)
        self.context_length = int(text_cfg.get("context_length", 77))
        kwargs["model_max_length"] = self.context_length
        super().__init__(model_cfg=model_cfg, **kwargs)

    def __call__(self, text: Any, truncation: bool = True, **_: Any) -> BatchEncoding:
        """`input_ids` (N, L) int64, always as long as the encoder's context; lists as long as they are, uncut."""
        texts = [text] if isinstance(text, str) else list(text)
        if truncation:
            return BatchEncoding({"input_ids": self.tokenizer(texts)})
        if hasattr(self.tokenizer, "encode"):  # with a token for the start and one for the end
            return BatchEncoding({"input_ids": [[0, *self.tokenizer.encode(one), 0] for one in texts]})
        return BatchEncoding({"input_ids": self.tokenizer.tokenizer(texts)["input_ids"]})

    def get_vocab(self) -> dict[str, int]:
        """Token -> number."""
        vocabulary = getattr(self.tokenizer, "encoder", None)
        return dict(vocabulary if vocabulary is not None else self.tokenizer.tokenizer.get_vocab())

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return len(self.get_vocab())

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Nothing to write: the vocabulary is open_clip's."""
        return ()

    def _convert_token_to_id(self, token: str) -> int | None:
        return self.get_vocab().get(token)


def import_open_clip() -> ModuleType:
    """The package.

    Raises:
        ValueError: It is not installed, or what it needs does not work.
    """
    try:
        import open_clip
    except (ImportError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"open_clip cannot be imported ({reason}); pip install open_clip_torch, with the build of torchvision "
            "that belongs to the installed torch"
        ) from error
    return open_clip


def load_open_clip(name: str, revision: str | None = None, dtype: Any = torch.float32, **options: Any) -> Any:
    """A model of open_clip with its weights.

    Args:
        name: "open_clip:hf-hub:OWNER/NAME" or "open_clip:local-dir:FOLDER", a folder with `open_clip_config.json` and
            `open_clip_model.safetensors`.
        revision: Branch, tag or commit of the repository.
        dtype: Of the weights.
        **options: Others of `from_pretrained`: `token`, `cache_dir`, `local_files_only`; any else is refused.

    Returns:
        `OpenClipBackbone` in evaluation mode.

    Raises:
        ValueError: The name has another form, an option is unknown, or a file is missing or of another kind.
        OSError: The repository cannot be reached.
    """
    if unknown := sorted(options.keys() - {"token", "cache_dir", "local_files_only", "trust_remote_code"}):
        raise ValueError(f"{name}: open_clip knows no option {unknown[0]}")
    open_clip = import_open_clip()
    options.pop("trust_remote_code", None)
    folder = open_clip_folder(name, revision, **options)
    config = open_clip_config(folder)
    if not (folder / WEIGHTS_FILE).is_file():
        raise ValueError(
            f"{name} has no {WEIGHTS_FILE}; other kinds of weights are not loaded, for they can hold code"
        )
    model = open_clip.create_model(f"local-dir:{folder}", precision="fp32", pretrained_text=False)
    config._commit_hash = folder.name if "hf-hub:" in name else None
    return OpenClipBackbone(config, model).to(dtype).eval()


def open_clip_folder(name: str, revision: str | None = None, **options: Any) -> Path:
    """Where the files of "open_clip:hf-hub:OWNER/NAME" or "open_clip:local-dir:FOLDER" are, fetched if need be."""
    kind, _, place = name.removeprefix(PREFIX).partition(":")
    if kind not in ("hf-hub", "local-dir") or not place:
        raise ValueError(f"{name}: write open_clip:hf-hub:OWNER/NAME or open_clip:local-dir:FOLDER")
    if kind == "hf-hub":
        wanted = [CONFIG_FILE, WEIGHTS_FILE, *TOKENIZER_FILES]
        return Path(snapshot_download(place, revision=revision, allow_patterns=wanted, **options))
    if not (Path(place) / CONFIG_FILE).is_file():
        raise ValueError(f"{name}: the folder has no {CONFIG_FILE}")
    return Path(place).resolve()


def open_clip_config(folder: Path) -> OpenClipConfig:
    """Configuration of the model in a folder."""
    try:
        found = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        return OpenClipConfig(model_cfg=found["model_cfg"], preprocess_cfg=found.get("preprocess_cfg") or {})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / CONFIG_FILE} is no configuration of open_clip: {error}") from error


def open_clip_image_settings(config: OpenClipConfig) -> dict[str, Any]:
    """Its `preprocess_cfg` as options of `DKDCLIPImageProcessor`.

    Raises:
        ValueError: A way of resizing that is not known here.
    """
    given = config.preprocess_cfg or {}
    size: Any = given.get("size", config.image_size)
    height, width = size if isinstance(size, list | tuple) else (size, size)
    mode = given.get("resize_mode") or "shortest"
    sizes = {
        "shortest": {"shortest_edge": height},
        "squash": {"height": height, "width": width},
        "longest": {"max_height": height, "max_width": width},
    }
    if mode not in sizes or (mode == "shortest" and height != width):
        raise ValueError(f"open_clip's resize_mode {mode!r} to {height} x {width} is not supported")
    settings: dict[str, Any] = {
        "size": sizes[mode],
        "crop_size": {"height": height, "width": width},
        "do_center_crop": mode != "squash",
        "resample": RESAMPLE[given.get("interpolation") or "bicubic"],
        "fill_color": int(given.get("fill_color") or 0),
    }
    for name, ours in (("mean", "image_mean"), ("std", "image_std")):
        if given.get(name):
            values = given[name]
            settings[ours] = list(values) if isinstance(values, list | tuple) else [values] * 3
    return settings


def open_clip_tokenizer(name: str, folder: Path, config: OpenClipConfig) -> OpenClipTokenizer:
    """The tokenizer of a model: of its folder where that has one, else the one that its configuration names."""
    own = (folder / "tokenizer_config.json").is_file() or (folder / "tokenizer.json").is_file()
    hf_name = (config.model_cfg or {})["text_cfg"].get("hf_tokenizer_name")
    if not hf_name:
        return OpenClipTokenizer(config.model_cfg or {})
    return OpenClipTokenizer(config.model_cfg or {}, f"local-dir:{folder}" if own else name.removeprefix(PREFIX))


def _new_model(model_cfg: dict[str, Any] | None) -> Any:
    """A model with random weights, on the CPU in any case: buffers that no checkpoint holds have their values then."""
    if not model_cfg:
        raise ValueError("an open_clip backbone needs model_cfg in its configuration")
    open_clip = import_open_clip()
    disabled = logging.root.manager.disable
    with tempfile.TemporaryDirectory() as folder, torch.device("cpu"):
        _write_config(Path(folder), model_cfg)
        logging.disable(logging.WARNING)  # it would say that the weights are random, before they are loaded
        try:
            return open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
        finally:
            logging.disable(disabled)


def _write_config(folder: Path, model_cfg: dict[str, Any]) -> None:
    (folder / CONFIG_FILE).write_text(json.dumps({"model_cfg": model_cfg, "preprocess_cfg": {}}), encoding="utf-8")


AutoConfig.register(OpenClipConfig.model_type, OpenClipConfig, exist_ok=True)
transformers.AutoModel.register(OpenClipConfig, OpenClipBackbone, exist_ok=True)
AutoTokenizer.register(OpenClipConfig, slow_tokenizer_class=OpenClipTokenizer, exist_ok=True)
OpenClipTokenizer.register_for_auto_class("AutoTokenizer")
