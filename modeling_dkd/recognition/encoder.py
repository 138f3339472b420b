"""The encoder that clips are recognised with, behind one small interface: a checkpoint, or an encoder of one's own.

    encoder = load_encoder("openai/clip-vit-base-patch16", num_frames=8)
    encoder = load_encoder("my_encoder.py:load")
    frames, remark = encoder.reader("clip.mp4")
    video_embeds = encoder.embed_videos([frames])           # (1, P, D)
    text_embeds = encoder.embed_texts(encoder.prompts(["playing violin"]))      # (1, P, D)

An encoder of one's own is a callable without arguments in a file or an installed module. What it returns has
`embed_videos(list of (T, 3, H, W) uint8 RGB tensors) -> (N, D) or (N, P, D)`, `embed_texts(list of str) -> (K, D) or
(K, P, D)`, `num_frames`, and optionally `logit_scale` (default 100) and `name`, under which its embeddings are kept.
"""

import copy
import hashlib
import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from transformers.utils import cached_file

from ..configuration_dkd import DKDCLIPConfig
from ..data.class_names import name_key
from ..data.plain_files import read_json
from ..data.prompts import class_prompts, description_prompts, load_templates
from ..dkd_head import DKDHead
from ..embedding.clip_embedding import embed_texts
from ..embedding.clip_encoder import ClipEncoder
from ..encoder_identity import EncoderIdentity
from ..image_processing_dkd import DKDCLIPImageProcessor
from ..synthetic.checkpoint import CHECKPOINT
from ..video_frames import read_frames


# Frames for an encoder of one's own are made smaller where their shorter side has more pixels.
MAX_SIDE = 512
# Clips that are decoded and encoded together: frames for an encoder of one's own are large.
BATCH_SIZE, OWN_BATCH_SIZE = 16, 4
MAX_LOGIT_SCALE = 10_000.0
PROMPTS_FILE = "class_prompts.json"


@dataclass(frozen=True)
class CroppedFrames:
    """Frames (T, 3, H, W) uint8 as decoded -> (T, 3, h, w) uint8 as a checkpoint takes them."""

    image_processor: DKDCLIPImageProcessor

    def __call__(self, frames: Tensor) -> Tensor:
        """Resize and crop."""
        return self.image_processor.crop_videos([[frames]], 1).flatten(0, 1)


@dataclass(frozen=True)
class WholeFrames:
    """Frames (T, 3, H, W) uint8 as decoded -> the same, the shorter side at most `MAX_SIDE` pixels."""

    def __call__(self, frames: Tensor) -> Tensor:
        """Make them smaller where they are large."""
        height, width = frames.shape[-2:]
        scale = MAX_SIDE / min(height, width)
        if scale >= 1:
            return frames.contiguous()
        size = (round(height * scale), round(width * scale))
        return interpolate(frames, size, mode="bilinear", antialias=True)


@dataclass(frozen=True)
class FrameReader:
    """Path of a video -> frames (T, 3, H, W) uint8 as the encoder takes them, and what is wrong with the file.

    It goes to worker processes.
    """

    num_frames: int
    prepare: Callable[[Tensor], Tensor]

    def __call__(self, path: str) -> tuple[Tensor, str]:
        """Frames at segment centres, and a remark, "" for a sound file.

        Raises:
            VideoReadError: The file is missing, damaged or no video (the message names it).
        """
        found = read_frames(path, self.num_frames)
        return self.prepare(found.pixels), found.damage


@dataclass(frozen=True)
class Encoder:
    """What clips and texts are embedded with.

    Attributes:
        name: What tables and reports call it.
        key: All that an embedding of a clip depends on besides the clip, as JSON values.
        num_frames: Frames that are taken from each clip.
        prepare: Decoded frames (T, 3, H, W) uint8 RGB -> as `embed_videos` takes them; goes to worker processes.
        templates: Templates for class names where the user gives none, one {} in each.
        trained_prompts: File with the prompts of the classes that a checkpoint was trained on, None without one.
        head_config: Logit scale, bias and options of a head; its `projection_dim` is the D of all embeddings.
        batch_size: Clips to embed together where the user does not say.
        videos: Prepared clips -> embeddings (N, P, D) or (N, D).
        texts: Texts -> embeddings (N, D) or (N, P, D).
        num_cut: Texts -> how many of them are longer than the encoder takes.
        identity: By which a domain that is shared knows it; None where it has no weights that are known.
    """

    name: str
    key: dict[str, Any]
    num_frames: int
    prepare: Callable[[Tensor], Tensor]
    templates: tuple[str, ...]
    trained_prompts: Path | None
    head_config: DKDCLIPConfig
    batch_size: int
    videos: Callable[[list[Tensor]], Tensor]
    texts: Callable[[list[str]], Tensor]
    num_cut: Callable[[list[str]], int]
    identity: EncoderIdentity | None = None

    @property
    def dim(self) -> int:
        """D of all embeddings."""
        return self.head_config.projection_dim

    @property
    def logit_scale(self) -> float:
        """Factor of cosines."""
        return float(self.head_config.logit_scale)

    @cached_property
    def reader(self) -> FrameReader:
        """What turns files into prepared frames."""
        return FrameReader(self.num_frames, self.prepare)

    def new_head(self) -> DKDHead:
        """A head for these embeddings that knows no domain yet."""
        head = DKDHead(copy.deepcopy(self.head_config)).eval()
        head.encoder = self.identity
        return head

    @torch.inference_mode()
    def embed_videos(self, clips: list[Tensor]) -> Tensor:
        """Prepared frames (T, 3, h, w) uint8 of each clip -> embeddings (N, P, D) float32, on the CPU.

        Raises:
            ValueError: The encoder fails, or gives something else than embeddings of as many clips.
        """
        return self._checked(self.videos(clips), len(clips), "embed_videos", "clips")

    def embed_texts(self, prompts: Sequence[Sequence[str]]) -> Tensor:
        """P prompts of each of K classes -> embeddings (K, P', D) float32, P' a multiple of P, on the CPU.

        Raises:
            ValueError: The encoder fails, or gives something else than embeddings of as many texts.
        """

        def encode(texts: list[str]) -> Tensor:
            return self._checked(self.texts(texts), len(texts), "embed_texts", "texts")

        return embed_texts(prompts, encode).flatten(1, 2)

    def prompts(
        self,
        class_names: Sequence[str],
        templates: str | os.PathLike[str] | None = None,
        descriptions: str | os.PathLike[str] | None = None,
    ) -> list[list[str]]:
        """P prompts of each of K classes.

        Args:
            class_names: Names of the classes.
            templates: As in `load_templates`; None: the prompts that the checkpoint was trained with, where it names
                them for all these classes, else `templates` of this encoder.
            descriptions: JSON file with texts of the classes, instead of templates.

        Raises:
            ValueError: Both are given, or a file cannot be read or lacks a class.
        """
        if templates is not None and descriptions is not None:
            raise ValueError("give --templates or --descriptions, not both")
        if descriptions is not None:
            return description_prompts(class_names, os.fspath(descriptions))
        if templates is not None:
            return class_prompts(class_names, load_templates(os.fspath(templates)))
        if self.trained_prompts is not None:
            described = {name_key(name) for name in read_json(self.trained_prompts)}
            if {name_key(name) for name in class_names} <= described:
                return description_prompts(class_names, self.trained_prompts)
        return class_prompts(class_names, self.templates)

    def _checked(self, embeds: Any, count: int, method: str, what: str) -> Tensor:
        """Embeddings (N, P, D) float32, once it is certain that they are such."""
        try:
            embeds = torch.as_tensor(embeds).detach().float().cpu()
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{method} of {self.name} gave no array of numbers: {error}") from error
        embeds = embeds[:, None] if embeds.dim() == 2 else embeds
        if embeds.dim() != 3 or len(embeds) != count or embeds.shape[-1] != self.dim or not embeds.shape[1]:
            raise ValueError(
                f"{method} of {self.name} gave {tuple(embeds.shape)} for {count} {what}; "
                f"it must be ({count}, {self.dim}) or ({count}, P, {self.dim})"
            )
        usable = embeds.isfinite().all(-1) & (embeds.norm(dim=-1) > 0)
        if not usable.all():
            index = int((~usable).nonzero()[0, 0])
            raise ValueError(f"{method} of {self.name} gave zeros, NaN or infinity for number {index} of {what}")
        return embeds


def load_encoder(
    model: str | None = None,
    num_frames: int | None = None,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Encoder:
    """The encoder that `model` names.

    Args:
        model: Folder or Hub repository of a DKD checkpoint or of a stock dual encoder, or `FILE.py:NAME` or
            `module:NAME` for an encoder of one's own, whose code is run. None: the embedded checkpoint, which knows
            synthetic clips alone.
        num_frames: Frames a clip; None: as many as the encoder says.
        revision: Branch, tag or commit of a repository.
        dtype: What a checkpoint's image encoder multiplies in.
        device: Where a checkpoint is put.

    Raises:
        ValueError: There is no such model or no such callable, or it cannot be loaded or is no encoder.
    """
    if num_frames is not None and num_frames < 1:
        raise ValueError(f"{num_frames} frames a clip: give at least 1")
    if model is not None and ":" in model and not Path(model).exists():
        return _own_encoder(model, num_frames)
    return _checkpoint_encoder(str(model or CHECKPOINT), num_frames, revision, dtype, torch.device(device))


def _checkpoint_encoder(
    name: str, num_frames: int | None, revision: str | None, dtype: torch.dtype, device: torch.device
) -> Encoder:
    if name.endswith(".py"):
        raise ValueError(f"--model {name} names a file; add what to call in it, as in {name}:load")
    clip_encoder = ClipEncoder.load(name, f"{num_frames or 8}x1x1", revision, dtype, device)
    if num_frames is None:
        num_frames = int(clip_encoder.processor.num_frames)
        clip_encoder.views = f"{num_frames}x1x1"
    config = copy.deepcopy(clip_encoder.model.config)
    config.num_components = 0
    config.logit_scale = float(clip_encoder.model.head.logit_scale.detach())
    return Encoder(
        name=clip_encoder.name,
        key=clip_encoder.key(),
        num_frames=num_frames,
        prepare=CroppedFrames(clip_encoder.processor.image_processor),
        templates=tuple(load_templates("single")),
        trained_prompts=_trained_prompts(name, revision),
        head_config=config,
        batch_size=BATCH_SIZE,
        videos=clip_encoder.embed_clips,
        texts=clip_encoder.encode,
        num_cut=clip_encoder.num_cut,
        identity=clip_encoder.model.encoder_identity(clip_encoder.processor),
    )


def _trained_prompts(name: str, revision: str | None) -> Path | None:
    """The file of a checkpoint's prompts, where there is one."""
    if Path(name).is_dir():
        file = Path(name) / PROMPTS_FILE
        return file if file.is_file() else None
    missing: dict[str, bool] = {
        f"_raise_exceptions_for_{kind}": False for kind in ("gated_repo", "missing_entries", "connection_errors")
    }
    found = cached_file(name, PROMPTS_FILE, revision=revision, **missing)
    return None if found is None else Path(found)


def _own_encoder(spec: str, num_frames: int | None) -> Encoder:
    """An encoder of one's own; its texts are probed once, which tells D and whether it works at all."""
    place, _, attribute = spec.rpartition(":")
    source = _imported(spec, place)
    factory = getattr(source, attribute, None)
    if not callable(factory):
        there = [name for name, value in vars(source).items() if callable(value) and not name.startswith("_")]
        raise ValueError(f"{place} has no callable {attribute!r}; it has {', '.join(there[:10]) or 'none'}")
    embedder = _calling(factory, f"{spec}()")()
    lacking = [n for n in ("embed_videos", "embed_texts") if not callable(getattr(embedder, n, None))]
    if lacking:
        raise ValueError(f"what {spec} returns has no {' and no '.join(lacking)}; see dkd recognise --help")
    frames = num_frames or getattr(embedder, "num_frames", None)
    if not isinstance(frames, int) or frames < 1:
        raise ValueError(f"num_frames of {spec} is {frames!r}; it must be a whole number above 0, or give --frames")
    scale = getattr(embedder, "logit_scale", 100.0)
    scale = scale.item() if isinstance(scale, Tensor) and scale.numel() == 1 else scale
    if not isinstance(scale, int | float) or not 0 < scale <= MAX_LOGIT_SCALE:
        raise ValueError(f"logit_scale of {spec} is {scale!r}; it must be a factor of cosines, such as 100")
    texts = _calling(embedder.embed_texts, f"embed_texts of {spec}")
    probe = torch.as_tensor(texts(["a video"]))
    if probe.dim() not in (2, 3) or len(probe) != 1:
        raise ValueError(f"embed_texts of {spec} gave {tuple(probe.shape)} for one text; it must be (1, D)")
    name = getattr(embedder, "name", None)
    name = str(name) if name else f"{Path(place).stem}:{attribute}"
    return Encoder(
        name=name,
        key={"encoder": name, "source": _hash_of_source(source), "frames": frames, "max_side": MAX_SIDE},
        num_frames=frames,
        prepare=WholeFrames(),
        templates=("{}",),
        trained_prompts=None,
        head_config=DKDCLIPConfig(projection_dim=probe.shape[-1], logit_scale=float(scale)),
        batch_size=OWN_BATCH_SIZE,
        videos=_calling(embedder.embed_videos, f"embed_videos of {spec}"),
        texts=texts,
        num_cut=lambda texts: 0,
    )


def _imported(spec: str, place: str) -> ModuleType:
    """The file or module that the user named, its code run."""
    if not place.endswith(".py"):
        if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", place):
            raise ValueError(f"--model {spec}: no folder, no FILE.py:NAME and no module:NAME")
        return _calling(lambda: importlib.import_module(place), f"import of {place}")()
    path = Path(place).resolve()
    if not path.is_file():
        raise ValueError(f"--model {spec}: there is no file {place}")
    name = f"dkd_encoder_{hashlib.sha256(str(path).encode(errors='surrogatepass')).hexdigest()[:12]}"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # its neighbours, as where Python runs the file
    _calling(lambda: found.loader.exec_module(module), f"import of {place}")()  # type: ignore[union-attr]
    return module


def _calling(function: Callable[..., Any], called: str) -> Callable[..., Any]:
    """The function, whose failures become one sentence that names the line of the user's code."""

    def call(*args: Any) -> Any:
        try:
            return function(*args)
        except Exception as error:
            if isinstance(error, RuntimeError) and "out of memory" in str(error):
                raise  # smaller batches are tried
            frames = traceback.extract_tb(error.__traceback__)[1:]
            own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
            line = f"{own[-1].filename}, line {own[-1].lineno}" if own else called
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"{called} failed: {type(error).__name__}: {reason} ({line})") from error

    return call


def _hash_of_source(module: ModuleType) -> str:
    """SHA-256 of the file that defines an encoder: changed code may embed otherwise."""
    file = getattr(module, "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file and Path(file).is_file() else ""
