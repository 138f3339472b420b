"""Configuration of DKD: the head's options and, for the whole model, the backbone's own configuration."""

import copy
import math
from dataclasses import fields
from typing import Any

import transformers
from packaging.version import Version


# A checkpoint's requirements.txt is not enforced when its code is loaded, so the code says it itself, and before it
# imports what an older release does not have.
if not Version("5.13.1") <= Version(transformers.__version__) < Version("6"):
    raise ImportError(
        f"DKD needs transformers 5.13.1 or newer and below 6, but {transformers.__version__} is installed; "
        'run: pip install "transformers>=5.13.1,<6"'
    )

from transformers import AutoConfig, PreTrainedConfig
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from .svgd import KERNELS


DEFAULT_PROJECTION_DIM = 512
DEFAULT_LOGIT_SCALE = 100.0
# Where transformers puts code that came with a checkpoint.
REMOTE_CODE = "transformers_modules."
# Dual encoders that AutoModel does not choose, though it is they that the checkpoint holds.
RETRIEVAL_CLASSES = ("BlipForImageTextRetrieval",)


class DKDCLIPConfig(PreTrainedConfig):
    """Options of `DKDHead` and `DKDCLIPModel`.

    `DKDCLIPConfig(projection_dim=D)` is enough for a head alone; a model needs `backbone_config` too. What is
    not given is read from the backbone's configuration where that has it, else it is CLIP's value.

    Args:
        backbone_config: Configuration of any transformers dual encoder, as an object or as a dict with `model_type`;
            copied. None for a head alone.
        projection_dim: Length D of the embeddings that video and text share, >= 1. Default: the backbone's, or 512.
        logit_scale: Factor on the cosine in the logits (not its logarithm), > 0. Default: the value the backbone
            starts training from, or 100; `DKDCLIPModel.from_backbone` puts the trained one here.
        logit_bias: Constant added to every logit (SigLIP's bias). Default: 0.
        num_components: Components of the fitted mixture, which size the head's buffers; 0 means never fitted. Written
            by `DKDHead.fit`.
        video_strength: Strength with which a well-supported, typical video is moved, 0 (videos stay) to 1.
        num_svgd_steps: SVGD steps in which particles go their way, >= 1.
        svgd_kernel: Kernel between the frames of a clip and between the prompts of a class: "rbf", "imq", or "none"
            (every particle by itself).
        num_temporal_layers: Blocks of a transformer over the frames of a clip, which is trained, never zero-shot; 0
            is none: the mean of the frames is the clip's embedding.
        num_temporal_frames: Frames of one view that this transformer was trained with, >= 1.

    Raises:
        ValueError: A value has the wrong type or lies outside its range, `projection_dim` contradicts the backbone, or
            `backbone_config` is no configuration that transformers knows (the message names the option and value).
    """

    model_type = "dkd_clip"
    # What Trainer leaves out of its predictions: rows of a batch's classes, and what is no prediction.
    keys_to_ignore_at_inference = [  # noqa: RUF012 (the base class reads it from the class)
        "logits_per_text",
        "video_embeds",
        "text_embeds",
        "strength",
        "known",
    ]
    sub_configs = {"backbone_config": AutoConfig}  # noqa: RUF012 (the base class reads it from the class)

    backbone_config: dict | PreTrainedConfig | None = None
    # None means "not given" and lasts only until __post_init__, so readers may rely on the annotated types.
    projection_dim: int = None  # type: ignore[assignment]
    logit_scale: float = None  # type: ignore[assignment]
    logit_bias: float = 0.0
    num_components: int = 0
    video_strength: float = 0.3
    num_svgd_steps: int = 1
    svgd_kernel: str = "rbf"
    num_temporal_layers: int = 0
    num_temporal_frames: int = 8

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in what was not given and check every value."""
        if "num_frames" in kwargs:
            raise ValueError("num_frames is no option of the model; give it to DKDCLIPProcessor")
        backbone = self.backbone_config = _as_config(self.backbone_config)
        if self.projection_dim is None:
            self.projection_dim = _projection_dim(backbone) or _common_width(backbone) or DEFAULT_PROJECTION_DIM
        if self.logit_scale is None:
            self.logit_scale = _initial_logit_scale(backbone) or DEFAULT_LOGIT_SCALE
        self.check()
        self.logit_scale, self.logit_bias = float(self.logit_scale), float(self.logit_bias)
        if backbone is not None and kwargs.get("attn_implementation") is None:
            # The base class hands its own setting down; without this it would wipe out the backbone's.
            kwargs["attn_implementation"] = backbone._attn_implementation
        super().__post_init__(**kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As in `PreTrainedConfig`.

        Args:
            pretrained_model_name_or_path: Folder or repository.
            *args: As there.
            **kwargs: As there, and `trust_backbone_code`: run the code of a backbone that comes with its own.
        """
        where = ("revision", "token", "cache_dir", "local_files_only")
        kwargs = {"name_or_path": str(pretrained_model_name_or_path)} | kwargs
        kwargs["backbone_code_options"] = {name: kwargs[name] for name in where if name in kwargs}
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in `PreTrainedConfig`; `name_or_path` says where the code of the backbone is, if it has code of its own.

        Raises:
            ValueError: The backbone's code would have to be run, but nobody said that it is trusted.
        """
        trusted = kwargs.pop("trust_backbone_code", False) or __name__.startswith(REMOTE_CODE)
        options = kwargs.pop("backbone_code_options", {})
        backbone = config_dict.get("backbone_config")
        if (
            isinstance(backbone, dict)
            and backbone.get("model_type") not in CONFIG_MAPPING
            and backbone.get("auto_map")
        ):
            config = _config_with_code(backbone, str(kwargs.get("name_or_path", "")), trusted, options)
            config_dict = config_dict | {"backbone_config": config}
        return super().from_dict(config_dict, **kwargs)

    @property
    def num_frames(self) -> int:
        """Not here, but in the processor: only the library's own video pipeline asks a configuration for it."""
        raise AttributeError(
            "the library's video-classification pipeline cannot run this model; for a model in memory give "
            'pipeline("video-classification", model=model, processor=processor, '
            "pipeline_class=VideoClassificationPipeline), and num_frames to the processor"
        )

    @classmethod
    def head_options(cls) -> list[str]:
        """Names of the options that are kept with a domain: all but the encoder's and what is fitted."""
        own = {field.name for field in fields(cls)} - {field.name for field in fields(PreTrainedConfig)}
        return sorted(own - {"backbone_config", "num_temporal_layers", "num_temporal_frames", "num_components"})

    def check(self) -> None:
        """Check the values against their ranges and the backbone; options may also be set after construction.

        Raises:
            ValueError: As in the class description.
        """
        _require(_is_int(self.projection_dim) and self.projection_dim >= 1, "projection_dim", self, "an integer >= 1")
        _require(_is_int(self.num_components) and self.num_components >= 0, "num_components", self, "an integer >= 0")
        _require(_is_finite(self.logit_scale) and self.logit_scale > 0, "logit_scale", self, "a finite number > 0")
        _require(_is_finite(self.logit_bias), "logit_bias", self, "a finite number")
        strength = self.video_strength
        _require(_is_finite(strength) and 0 <= strength <= 1, "video_strength", self, "a number from 0 to 1")
        _require(_is_int(self.num_svgd_steps) and self.num_svgd_steps >= 1, "num_svgd_steps", self, "an integer >= 1")
        for name, least in {"num_temporal_layers": 0, "num_temporal_frames": 1}.items():
            value = getattr(self, name)
            _require(_is_int(value) and value >= least, name, self, f"an integer >= {least}")
        _require(self.svgd_kernel in KERNELS, "svgd_kernel", self, f"one of {', '.join(KERNELS)}")
        # What an entry of a configuration with its own code means is not known.
        known = not type(self.backbone_config).__module__.startswith(REMOTE_CODE)
        expected = _projection_dim(self.backbone_config) if known else None
        if expected is not None and expected != self.projection_dim:
            raise ValueError(
                f"projection_dim is {self.projection_dim}, but the backbone's embeddings have {expected} dimensions; "
                "leave projection_dim out"
            )


def _as_config(backbone_config: Any) -> PreTrainedConfig | None:
    """Own copy of the backbone's configuration as an object of its own class."""
    if backbone_config is None or isinstance(backbone_config, PreTrainedConfig):
        return copy.deepcopy(backbone_config)
    if not isinstance(backbone_config, dict):
        raise ValueError(
            f"backbone_config must be a dict or a PreTrainedConfig, not {type(backbone_config).__name__}; "
            "for example CLIPConfig()"
        )
    options = copy.deepcopy(backbone_config)
    model_type = options.pop("model_type", None)
    if model_type == "open_clip":
        # Its file makes it known to transformers, but a checkpoint's configuration is loaded before its model.
        from .open_clip_backbone import OpenClipConfig

        return OpenClipConfig(**options)
    if model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"backbone_config has model_type {model_type!r}, which transformers {transformers.__version__} does not "
            "know; give a dual encoder's, for example 'clip' or 'siglip'"
        )
    return AutoConfig.for_model(model_type, **options)


def _config_with_code(
    backbone_config: dict[str, Any], source: str, trusted: bool, options: dict[str, Any]
) -> PreTrainedConfig:
    """Configuration of a backbone whose classes are in the checkpoint's own folder or repository."""
    references = [backbone_config["auto_map"][name] for name in ("AutoConfig", "AutoModel")]
    if not trusted or any("--" in reference for reference in references):
        raise ValueError(
            f"{source} has a backbone with code of its own ({references[0]}); if you trust that code, load it with "
            "DKDCLIPModel.from_pretrained(..., trust_remote_code=True)"
        )
    classes: list[Any] = [get_class_from_dynamic_module(name, source, **options) for name in references]
    config_class, model_class = classes
    config_class.register_for_auto_class()
    model_class.register_for_auto_class("AutoModel")
    config_class.model_class = model_class
    return config_class.from_dict(copy.deepcopy(backbone_config))


def _projection_dim(backbone: Any) -> int | None:
    """Dimensions of the backbone's joint embedding space, where its configuration tells."""
    if backbone is None:
        return None
    text_config = getattr(backbone, "text_config", None)
    # SigLIP has no common entry: its text head ends in projection_size, which equals the vision width.
    named = getattr(backbone, "projection_dim", None) or getattr(text_config, "projection_size", None)
    if set(RETRIEVAL_CLASSES) & set(getattr(backbone, "architectures", None) or ()):
        named = backbone.image_text_hidden_size
    return named


def _common_width(backbone: Any) -> int | None:
    """Width of both towers, whose embeddings are as long where nothing projects them (TIPSv2, VideoPrism)."""
    widths = {getattr(getattr(backbone, part, None), "hidden_size", None) for part in ("text_config", "vision_config")}
    return widths.pop() if len(widths) == 1 else None


def _initial_logit_scale(backbone: Any) -> float | None:
    """Factor on the cosine that the backbone starts training from, where its configuration tells."""
    log_scale = getattr(backbone, "logit_scale_init_value", None)
    if log_scale is not None:
        return math.exp(log_scale)
    temperature = getattr(backbone, "temperature_init_value", None)  # ALIGN divides by it
    return 1.0 / temperature if temperature else None


def _is_int(value: Any) -> bool:
    """Whether this is a whole number; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    """Whether this is a real number that is neither infinite nor NaN."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _require(condition: bool, name: str, config: DKDCLIPConfig, expected: str) -> None:
    """Raise the sentence that names the option, its value and what it must be."""
    if not condition:
        raise ValueError(f"{name} is {getattr(config, name)!r}, but must be {expected}")
