"""Options of a training run: one YAML file, overridden by `--set section.option=value`, checked before anything loads.

config = load_config("hub_configs/dkd-tiny.yaml", ["recipe.epochs=3"])
"""

import difflib
import math
import types
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from ..data.plain_files import parse_yaml, read_yaml
from ..frame_sampling import Views


Dataset = Literal[
    "ucf101",
    "hmdb51",
    "kinetics400",
    "kinetics600",
    "kinetics700",
    "ssv2",
    "activitynet",
    "diving48",
    "folder",
    "csv",
    "hub",
]


@dataclass(frozen=True)
class ModelOptions:
    """Where the weights come from.

    Attributes:
        backbone: Hub repository or folder of a stock dual encoder or of a DKD checkpoint.
        revision: Branch, tag or commit of the repository.
        attn_implementation: As in transformers ("eager", "sdpa", ...); None is its choice. On a CPU "eager" is faster
            under bf16.
        temporal_layers: Blocks of a transformer over the frames of a clip, which starts as the identity; 0 is none:
            the mean of the frames alone. A checkpoint that has one keeps it.
    """

    backbone: str
    revision: str | None = None
    attn_implementation: str | None = None
    temporal_layers: int = 0

    def __post_init__(self) -> None:
        _require(self.temporal_layers >= 0, "model.temporal_layers", self.temporal_layers, "at least 0")


@dataclass(frozen=True)
class DataOptions:
    """Which clips, and how they are looked at.

    Attributes:
        dataset: How `data_dir` is laid out.
        data_dir: Folder of the videos; csv: the CSV file; hub: the data set.
        annotations: The owners' lists; None: looked for in and beside `data_dir`.
        split: Official split of UCF101 and HMDB51, 1 to 3.
        classes: Only these classes, by their official names; none named means all.
        allow_missing: Go on without missing and damaged clips.
        templates: Prompt templates, as evaluate.py takes them.
        num_frames: Frames a clip while training and validating.
        test_views: "FRAMESxCROPSxCLIPS" of the test at the end.
        num_workers: Decoding processes of each training process; 0 decodes in the process itself.
        clips_per_epoch: Of `dataset: hub`, stream the training clips, so many an epoch, and keep none but those that
            the domain is fitted to (`domain.num_clips`); 0: all are kept on disk.
    """

    dataset: Dataset
    data_dir: str | None = None
    annotations: str | None = None
    split: int = 1
    classes: tuple[str, ...] = ()
    allow_missing: bool = False
    templates: str = "single"
    num_frames: int = 8
    test_views: str = "8x1x1"
    num_workers: int = 2
    clips_per_epoch: int = 0

    def __post_init__(self) -> None:
        _require(self.clips_per_epoch >= 0, "data.clips_per_epoch", self.clips_per_epoch, "at least 0")
        streamed = self.dataset == "hub" and not self.classes
        expected = "0 but for the whole of a data set of the Hub"
        _require(streamed or not self.clips_per_epoch, "data.clips_per_epoch", self.clips_per_epoch, expected)
        _require(self.num_frames >= 1, "data.num_frames", self.num_frames, "at least 1")
        _require(self.num_workers >= 0, "data.num_workers", self.num_workers, "at least 0")
        _require(self.split in (1, 2, 3), "data.split", self.split, "1, 2 or 3")
        try:
            Views.parse(self.test_views)
        except ValueError as error:
            raise ValueError(f"data.test_views: {error}") from error


@dataclass(frozen=True)
class AugmentationOptions:
    """Random changes of a training clip, drawn once a clip and applied to all of its frames alike.

    Attributes:
        min_crop_area: Smallest share of the largest possible crop that is kept; 1 crops at the centre.
        flip_probability: Of mirroring left and right.
        classes_without_flip: Classes that mirroring would change into another.
        colour_jitter: Brightness, contrast and saturation are multiplied by 1 - jitter to 1 + jitter; 0 is off.
    """

    min_crop_area: float = 0.6
    flip_probability: float = 0.5
    classes_without_flip: tuple[str, ...] = ()
    colour_jitter: float = 0.2

    def __post_init__(self) -> None:
        _require(0 < self.min_crop_area <= 1, "augmentation.min_crop_area", self.min_crop_area, "above 0, at most 1")
        _require(0 <= self.flip_probability <= 1, "augmentation.flip_probability", self.flip_probability, "0 to 1")
        _require(0 <= self.colour_jitter < 1, "augmentation.colour_jitter", self.colour_jitter, "0 to below 1")


@dataclass(frozen=True)
class RecipeOptions:
    """What is optimised and how.

    Attributes:
        trainable: Of the video encoder: "all", "last_blocks" (the last `num_blocks` and what follows), "lora"
            (adapters on every linear layer of the blocks, needs peft) or "head" (what follows the blocks). The logit
            scale is always trained.
        num_blocks: See `trainable`.
        lora_rank: Rank of the adapters.
        train_text_encoder: Train the text encoder too; else its outputs are computed once.
        epochs: Passes over the training clips; 0 fits the domain alone.
        batch_size: Clips in one forward pass of one process.
        accumulation_steps: Forward passes in one optimizer step.
        learning_rate: Peak, AdamW.
        layer_decay: Factor on the learning rate from each block to the one below it, 0 to 1.
        weight_decay: AdamW's; not on biases, norms, embeddings and the logit scale.
        warmup_share: Share of the steps in which the learning rate rises, before it falls like a cosine to 0.
        max_grad_norm: Gradients are clipped to this norm; 0 is off.
        label_smoothing: Share of the target spread over all classes.
        mixup_alpha: Parameter of the Beta distribution of mixup between the clips of a batch; 0 is off.
        cutmix_alpha: The same of cutmix, one box for all frames of a clip; with both, each batch takes one by chance.
        ema_decay: Of an exponential moving average of the weights, which is then tested and saved; 0 is off.
        mixed_precision: "no", "bf16" or "fp16".
        activation_checkpointing: Recompute activations in the backward pass: less memory, more time.
    """

    trainable: Literal["all", "last_blocks", "lora", "head"] = "all"
    num_blocks: int = 4
    lora_rank: int = 8
    train_text_encoder: bool = False
    epochs: int = 20
    batch_size: int = 16
    accumulation_steps: int = 1
    learning_rate: float = 1e-5
    layer_decay: float = 1.0
    weight_decay: float = 0.05
    warmup_share: float = 0.1
    max_grad_norm: float = 1.0
    label_smoothing: float = 0.1
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    ema_decay: float = 0.0
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        for name in ("num_blocks", "lora_rank", "batch_size", "accumulation_steps"):
            _require(getattr(self, name) >= 1, f"recipe.{name}", getattr(self, name), "at least 1")
        for name in ("epochs", "weight_decay", "max_grad_norm", "mixup_alpha", "cutmix_alpha"):
            _require(getattr(self, name) >= 0, f"recipe.{name}", getattr(self, name), "at least 0")
        for name in ("warmup_share", "label_smoothing", "ema_decay"):
            _require(0 <= getattr(self, name) < 1, f"recipe.{name}", getattr(self, name), "0 to below 1")
        _require(self.learning_rate > 0, "recipe.learning_rate", self.learning_rate, "above 0")
        _require(0 < self.layer_decay <= 1, "recipe.layer_decay", self.layer_decay, "above 0, at most 1")

    def effective_batch(self, num_processes: int) -> int:
        """Clips of one optimizer step."""
        return self.batch_size * self.accumulation_steps * num_processes


@dataclass(frozen=True)
class DomainOptions:
    """The mixture while training and after it.

    Attributes:
        loss_weight: Share of the loss that goes through the domain's movement of the embeddings, 0 (trained as plain
            CLIP) to 1; the rest is the loss of the embeddings as they are.
        num_clips: Fit to so many training clips, drawn with the run's seed; 0: all of them. Each fit embeds them anew.
        use_labels: Fit with the labels of the training clips, else without.
        refit_steps: Refit every so many optimizer steps, besides each validation; 0 is then alone.
        video_strength: As in `DKDCLIPConfig`; None leaves what the checkpoint has.
    """

    loss_weight: float = 0.5
    num_clips: int = 0
    use_labels: bool = True
    refit_steps: int = 0
    video_strength: float | None = None

    def __post_init__(self) -> None:
        _require(0 <= self.loss_weight <= 1, "domain.loss_weight", self.loss_weight, "0 to 1")
        for name in ("num_clips", "refit_steps"):
            _require(getattr(self, name) >= 0, f"domain.{name}", getattr(self, name), "at least 0")


@dataclass(frozen=True)
class RunOptions:
    """Where the run goes and how it is watched.

    Attributes:
        output_dir: The Hub repository that comes out, with best/ and checkpoints/ in it.
        seed: Of everything random.
        checkpoint_minutes: A checkpoint is written at least so often, besides each epoch's end and when stopped.
        validation_epochs: Refit the domain and validate after every so many epochs, and after the last.
        interpolation: Share of the fine-tuned weights in what is saved; the rest are the weights it started from.
        trackers: Names of accelerate's trackers, such as "tensorboard".
    """

    output_dir: str
    seed: int = 0
    checkpoint_minutes: float = 15.0
    validation_epochs: int = 1
    interpolation: float = 1.0
    trackers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require(self.checkpoint_minutes >= 0, "run.checkpoint_minutes", self.checkpoint_minutes, "at least 0")
        _require(self.validation_epochs >= 1, "run.validation_epochs", self.validation_epochs, "at least 1")
        _require(0 <= self.interpolation <= 1, "run.interpolation", self.interpolation, "0 to 1")
        _require(self.seed >= 0, "run.seed", self.seed, "at least 0")


@dataclass(frozen=True)
class TrainingConfig:
    """A whole run.

    Attributes:
        repo_id: Hub repository that the result is meant for.
        expected: The figure that comes out, or "not yet measured".
    """

    model: ModelOptions
    data: DataOptions
    run: RunOptions
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)
    recipe: RecipeOptions = field(default_factory=RecipeOptions)
    domain: DomainOptions = field(default_factory=DomainOptions)
    repo_id: str = ""
    expected: str = "not yet measured"

    def __post_init__(self) -> None:
        if self.recipe.epochs == 0:
            layers = self.model.temporal_layers
            _require(layers == 0, "model.temporal_layers", layers, "0 with recipe.epochs=0, which trains nothing")
        if self.data.clips_per_epoch:
            kept = self.domain.num_clips
            _require(kept > 0, "domain.num_clips", kept, "above 0 with data.clips_per_epoch: so many clips are kept")
        if self.recipe.train_text_encoder:
            # A fitted class has its own place in the head, through which no gradient reaches its text.
            _require(
                self.domain.loss_weight < 1,
                "domain.loss_weight",
                self.domain.loss_weight,
                "below 1 with recipe.train_text_encoder, which learns from the loss without the domain",
            )


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainingConfig:
    """The options of a YAML file with overrides in their places.

    Args:
        path: YAML file; paths in it are relative to the working folder.
        overrides: "section.option=value", the value in YAML.

    Raises:
        ValueError: The file cannot be read, an option is unknown (the nearest known one is named) or lacking, or a
            value has the wrong type or range.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ValueError(f"the config {path} must hold sections such as model: and data:")
    for override in overrides:
        _override(content, override)
    config: TrainingConfig = _build(TrainingConfig, content, "")
    return config


def save_config(config: TrainingConfig, path: str | Path) -> None:
    """Write every option with the value it had, as YAML that `load_config` reads."""
    Path(path).write_text(yaml.safe_dump(as_plain(config), sort_keys=False, allow_unicode=True), encoding="utf-8")


def as_plain(config: TrainingConfig) -> dict[str, Any]:
    """The options as nested dicts of JSON and YAML values."""
    sections = asdict(config)
    for section in sections.values():
        if isinstance(section, dict):
            section.update({name: list(value) for name, value in section.items() if isinstance(value, tuple)})
    return sections


def _override(content: dict[str, Any], override: str) -> None:
    """Put one "section.option=value" into the nested dicts: a dozen lines, where OmegaConf would be a dependency."""
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise ValueError(f"--set {override!r} must read section.option=value, for example recipe.epochs=5")
    try:
        value = parse_yaml(text)
    except ValueError as error:
        raise ValueError(f"--set {name}: {text[:100]!r} is not a YAML value") from error
    *sections, option = name.split(".")
    for section in sections:
        inner = content.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ValueError(f"--set {name}: {section} holds no options")
        content = inner
    content[option] = value


def _build(kind: Any, content: Any, prefix: str) -> Any:
    """An options object from a dict, every key and type checked."""
    if not isinstance(content, dict):
        raise ValueError(f"{prefix.rstrip('.')} must be a section with options below it, not {content!r}")
    hints = get_type_hints(kind)
    for name in content:
        if name not in hints:
            near = difflib.get_close_matches(str(name), hints, n=1, cutoff=0.0)[0]
            raise ValueError(f"unknown option {prefix}{name}; did you mean {prefix}{near}?")
    values = {}
    for option in fields(kind):
        hint = hints[option.name]
        if option.name in content:
            values[option.name] = (
                _build(hint, content[option.name], f"{prefix}{option.name}.")
                if is_dataclass(hint)
                else _typed(hint, content[option.name], prefix + option.name)
            )
        elif option.default is option.default_factory:  # both are MISSING
            raise ValueError(f"option {prefix}{option.name} is lacking; put it into the config or give it with --set")
    return kind(**values)


def _typed(hint: Any, value: Any, name: str) -> Any:
    """The value as what its annotation says."""
    origin, choices = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return None if value is None else _typed(next(c for c in choices if c is not type(None)), value, name)
    if origin is Literal:
        # YAML reads a bare no as False, and one of the choices is called so.
        value = "no" if value is False and "no" in choices else value
        _require(value in choices, name, value, f"one of {', '.join(choices)}")
        return value
    if origin is tuple:
        _require(isinstance(value, list | tuple), name, value, "a list")
        return tuple(_typed(choices[0], item, name) for item in value)
    if hint is float and isinstance(value, int | str) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            value = float(value)  # YAML reads 1e-4 without a point as text
    expected = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}[hint]
    _require(isinstance(value, hint) and not (hint is int and isinstance(value, bool)), name, value, expected)
    _require(hint is not float or math.isfinite(value), name, value, "a finite number")
    return value


def _require(condition: bool, name: str, value: Any, expected: str) -> None:
    """Raise the sentence that names the option, its value and what it must be."""
    if not condition:
        shown = repr(value)
        raise ValueError(f"{name} is {shown if len(shown) < 200 else shown[:200] + ' ...'}, but must be {expected}")
