"""The encoder that clips are recognised with, behind one small interface: a checkpoint, or an encoder of one's own.

    encoder = load_encoder("openai/clip-vit-base-patch16", num_frames=8)
    encoder = load_encoder("open_clip:hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K")
    encoder = load_encoder("my_encoder.py:load")
    frames, remark = encoder.reader("clip.mp4")
    video_embeds = encoder.embed_videos([frames])           # (1, P, D)
    text_embeds = encoder.embed_texts(encoder.prompts(["playing violin"]))      # (1, P, D)

What can be named, and what an encoder of one's own has to be: see `embedding.encoder_sources`.
"""

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from transformers.utils import cached_file, logging

from ..configuration_dkd import DKDCLIPConfig
from ..data.class_names import name_key
from ..data.plain_files import read_json
from ..data.prompts import class_prompts, description_prompts, load_templates
from ..dkd_head import DKDHead
from ..embedding.clip_embedding import embed_texts
from ..embedding.clip_encoder import ClipEncoder
from ..embedding.embedded_checkpoint import CHECKPOINT
from ..embedding.encoder_sources import load_source
from ..embedding.own_encoder import FrameReader, OwnEncoder, WholeFrames
from ..encoder_identity import EncoderIdentity
from ..frame_sampling import Views
from ..image_processing_dkd import DKDCLIPImageProcessor
from ..open_clip_backbone import PREFIX as OPEN_CLIP


# Clips that are decoded and encoded together: frames for an encoder of one's own are large.
BATCH_SIZE, OWN_BATCH_SIZE = 16, 4
PROMPTS_FILE = "class_prompts.json"


@dataclass(frozen=True)
class CroppedFrames:
    """Frames (T, 3, H, W) uint8 as decoded -> (T, 3, h, w) uint8 as a checkpoint takes them."""

    image_processor: DKDCLIPImageProcessor

    def __call__(self, frames: Tensor) -> Tensor:
        """Resize and crop."""
        return self.image_processor.crop_videos([[frames]], 1).flatten(0, 1)


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


class ModelChoice(NamedTuple):
    """What `load_encoder` takes, for those who load it only once they have looked at everything else."""

    model: str | None = None
    num_frames: int | None = None
    revision: str | None = None
    dtype: torch.dtype = torch.float32


Model: TypeAlias = Encoder | ModelChoice | str | None


def encoder_of(model: Model, device: torch.device | str | None = None) -> Encoder:
    """The encoder itself, loaded if need be onto a device; None: the accelerator that is there, else the CPU."""
    if isinstance(model, Encoder):
        return model
    choice = model if isinstance(model, ModelChoice) else ModelChoice(model)
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return load_encoder(*choice, device=device or found or "cpu")


def load_encoder(
    model: str | None = None,
    num_frames: int | None = None,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Encoder:
    """The encoder that `model` names.

    Args:
        model: What `load_source` takes. None: the embedded checkpoint, which knows synthetic clips alone.
        num_frames: Frames a clip; None: as many as the encoder says.
        revision: Branch, tag or commit of a repository.
        dtype: What a checkpoint's image encoder multiplies in.
        device: Where a checkpoint is put.

    Raises:
        ValueError: There is no such model or no such callable, or it cannot be loaded or is no encoder.
    """
    if num_frames is not None and num_frames < 1:
        raise ValueError(f"{num_frames} frames a clip: give at least 1")
    name = str(model or CHECKPOINT)
    views = None if num_frames is None else f"{num_frames}x1x1"
    with without_bars_of_loading():
        source = load_source(name, views, revision, dtype, torch.device(device))
    is_own = isinstance(source, OwnEncoder)
    prepare: Callable[[Tensor], Tensor] = (
        WholeFrames() if isinstance(source, OwnEncoder) else CroppedFrames(source.processor.image_processor)
    )
    return Encoder(
        name=source.name,
        key=source.key(),
        num_frames=Views.parse(source.views).num_frames,
        prepare=prepare,
        templates=("{}",) if is_own else tuple(load_templates("single")),
        trained_prompts=None if is_own else _trained_prompts(name, revision),
        head_config=_head_config(source),
        batch_size=OWN_BATCH_SIZE if is_own else BATCH_SIZE,
        videos=source.embed_clips,
        texts=source.encode,
        num_cut=source.num_cut,
        identity=None if isinstance(source, OwnEncoder) else source.model.encoder_identity(source.processor),
    )


def _head_config(source: ClipEncoder | OwnEncoder) -> DKDCLIPConfig:
    """Options of a head for the embeddings of this encoder that knows no domain."""
    if isinstance(source, OwnEncoder):
        return DKDCLIPConfig(projection_dim=source.dim, logit_scale=source.logit_scale)
    config = copy.deepcopy(source.model.config)
    config.num_components = 0
    config.logit_scale = source.logit_scale
    return config


def _trained_prompts(name: str, revision: str | None) -> Path | None:
    """The file of a checkpoint's prompts, where there is one."""
    if Path(name).is_dir():
        file = Path(name) / PROMPTS_FILE
        return file if file.is_file() else None
    if name.startswith(OPEN_CLIP):
        return None
    missing: dict[str, bool] = {
        f"_raise_exceptions_for_{kind}": False for kind in ("gated_repo", "missing_entries", "connection_errors")
    }
    found = cached_file(name, PROMPTS_FILE, revision=revision, **missing)
    return None if found is None else Path(found)


@contextmanager
def without_bars_of_loading() -> Iterator[None]:
    """Weights are loaded without the bars of transformers, which tell the user nothing; downloads keep theirs."""

    def plain(make: Callable[..., Any], args: Any, options: dict[str, Any]) -> Any:
        return (
            make(*args, **options, disable=True)
            if options.get("desc") == "Loading weights"
            else make(*args, **options)
        )

    before = logging.set_tqdm_hook(plain)
    try:
        yield
    finally:
        logging.set_tqdm_hook(before)
