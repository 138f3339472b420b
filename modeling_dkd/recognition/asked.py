"""What is asked of which encoder: how each of these functions begins."""

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import torch

from ..data.counting import counted
from .classes import read_classes, require_classes
from .doubts import require_different_texts
from .encoder import Encoder, Model, encoder_of
from .predictions import Question
from .saved_domain import SavedDomain, load_domain


PathLike: TypeAlias = str | os.PathLike[str]
Classes: TypeAlias = PathLike | Sequence[str]


class Asked(NamedTuple):
    """Encoder, classes and domain.

    Attributes:
        encoder: What embeds.
        question: The classes and their texts.
        stored: A saved domain; None: none was named.
    """

    encoder: Encoder
    question: Question
    stored: SavedDomain | None


def asked(
    classes: Classes | None,
    model: Model = None,
    *,
    templates: PathLike | None = None,
    descriptions: PathLike | None = None,
    domain: PathLike | None = None,
    device: torch.device | None = None,
) -> Asked:
    """Load what is named; classes that the domain knows are asked with its prompts, unless others are given.

    Args:
        classes: A file with one class a line, names with commas between them, or a list; None: those of the domain.
        model: What embeds, or what `load_encoder` takes for it.
        templates: Prompt templates, as in `load_templates`; None: the domain's or the encoder's own.
        descriptions: JSON file with descriptions of the classes, instead of templates.
        domain: Folder of a saved domain.
        device: Where a checkpoint is put; None: the accelerator that is there.

    Raises:
        ValueError: One of them cannot be read, there are no classes, the domain is of another encoder, or all classes
            have one text.
    """
    require_classes(classes, domain)
    stored = None if domain is None else load_domain(domain)
    names = stored.class_names if classes is None and stored is not None else read_classes(classes or ())
    encoder = encoder_of(model, device)  # the slowest comes last
    if stored is not None:
        stored.require_encoder(encoder)
    is_free = templates is None and descriptions is None
    if is_free and stored is not None and stored.prompts is not None and set(names) <= set(stored.class_names):
        prompts = [stored.prompts[stored.class_names.index(name)] for name in names]
    else:
        prompts = encoder.prompts(names, templates, descriptions)
    question = Question(names, encoder.embed_texts(prompts), prompts)
    require_different_texts(question, encoder.name)
    return Asked(encoder, question, stored)


def none_readable(damaged: Mapping[str, str]) -> ValueError:
    """What to say where nothing can be read, from names and reasons."""
    name, why = next(iter(damaged.items()))
    if len(damaged) == 1:
        return ValueError(f"{name} cannot be read: {why}")
    return ValueError(f"none of the {counted(len(damaged), 'clip')} can be read; the first, {name}: {why}")
