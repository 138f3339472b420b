"""What is exported: a model, and the classes whose texts are frozen into it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.prompts import class_prompts, load_templates
from ..embedding.clip_embedding import embed_texts
from ..embedding.clip_encoder import ClipEncoder
from ..modeling_dkd import DKDCLIPModel
from ..processing_dkd import DKDCLIPProcessor
from ..recognition.classes import read_classes
from ..recognition.saved_domain import load_domain


@dataclass(frozen=True)
class FrozenClasses:
    """A model with its classes.

    Attributes:
        model: In evaluation mode, on the CPU, float32.
        processor: Its processor.
        name: What files call it.
        class_names: Of the K classes.
        text_embeds: Theirs, (K, P, D), as they were fitted or, without a domain, as the encoder gives them.
        num_frames: Frames of each clip.
    """

    model: DKDCLIPModel
    processor: DKDCLIPProcessor
    name: str
    class_names: list[str]
    text_embeds: Tensor
    num_frames: int


def freeze_classes(
    name: str,
    revision: str | None = None,
    domain: Path | None = None,
    classes: str | None = None,
    templates: str | None = None,
    num_frames: int | None = None,
) -> FrozenClasses:
    """Load a model with the classes of its domain, or of one in a folder; or with any classes where there is none.

    Args:
        name: Folder or Hub repository of a DKD checkpoint or of a stock dual encoder.
        revision: Branch, tag or commit of a repository.
        domain: Folder of a domain that was fitted with this encoder, in place of the model's own.
        classes: A file with one class a line, or names with commas between them.
        templates: As in `load_templates`; None: "single".
        num_frames: None: as many as the domain was fitted with, or else as the processor says.

    Raises:
        ValueError: There is no such model or domain, they do not belong together, or there are no classes, or two
            sets of them.
    """
    encoder = ClipEncoder.load(name, "1x1x1", revision, torch.float32, torch.device("cpu"))
    model, frames = encoder.model, num_frames or encoder.processor.num_frames
    if domain is not None:
        frames = _take_domain(encoder, domain, num_frames)
    if bool(model.head.anchored):
        if classes is not None or templates is not None:
            option = "--classes" if classes is not None else "--templates"
            raise ValueError(f"the domain of {domain or name} has classes with texts of its own; leave {option} out")
        id2label: dict[Any, str] = dict(model.config.id2label or {})
        names = model.head.class_names or [id2label[index] for index in sorted(id2label)]
        texts = model.head.fitted_texts[:, None]
    elif classes is None:
        raise ValueError(f"{name} has no domain with classes; give --domain DIR, or --classes for plain zero-shot")
    else:
        names = read_classes(classes)
        texts = embed_texts(class_prompts(names, load_templates(templates or "single")), encoder.encode).flatten(1, 2)
    return FrozenClasses(model, encoder.processor, encoder.name, list(names), texts.detach().clone(), frames)


def _take_domain(encoder: ClipEncoder, folder: Path, num_frames: int | None) -> int:
    """Load a domain into the encoder's model; how many frames a clip it was fitted with, if it says so."""
    saved = load_domain(folder)
    fitted_with = str(saved.encoder_key.get("frames", "")).partition("x")[0]
    frames = num_frames or (int(fitted_with) if fitted_with.isdigit() else encoder.processor.num_frames)
    encoder.views = f"{frames}x1x1"
    own = {key: value for key, value in encoder.key().items() if key != "dtype"}
    if saved.encoder_key and {key: value for key, value in saved.encoder_key.items() if key != "dtype"} != own:
        if fitted_with != str(frames) and saved.encoder == encoder.name:
            raise ValueError(f"the domain was fitted with {fitted_with} frames a clip; give --frames {fitted_with}")
        raise ValueError(
            f"the domain in {folder} was fitted with another encoder than {encoder.name} is now: {saved.encoder}, "
            "with other weights, preprocessing or frames; export that one, or fit the domain anew"
        )
    encoder.model.load_domain(folder)
    return frames
