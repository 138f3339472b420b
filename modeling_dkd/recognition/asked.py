"""What is asked of which encoder: the beginning of a timeline, a search and a suggestion alike."""

import argparse
import sys
from dataclasses import dataclass

import torch

from .classes import read_classes
from .clip_recognition import Classes, PathLike, ask
from .doubts import require_different_texts
from .encoder import Encoder, load_encoder
from .predictions import Question
from .saved_domain import SavedDomain, load_domain


@dataclass(frozen=True)
class Asked:
    """Encoder, classes and domain.

    Attributes:
        encoder: What embeds.
        question: The classes and their texts; None: no classes were named.
        stored: A saved domain; None: none was named.
    """

    encoder: Encoder
    question: Question | None
    stored: SavedDomain | None


def asked(
    classes: Classes | None,
    encoder: Encoder | str | None = None,
    *,
    templates: PathLike | None = None,
    descriptions: PathLike | None = None,
    domain: PathLike | None = None,
) -> Asked:
    """Load what is named.

    Args:
        classes: A file with one class a line, names with commas between them, or a list; None: those of the domain.
        encoder: What embeds, or what `load_encoder` takes for it.
        templates: Prompt templates, as in `load_templates`; None: the domain's or the encoder's own.
        descriptions: JSON file with descriptions of the classes, instead of templates.
        domain: Folder of a saved domain.

    Raises:
        ValueError: One of them cannot be read, the domain is of another encoder, or all classes have one text.
    """
    stored = None if domain is None else load_domain(domain)
    if classes is not None:
        classes = read_classes(classes)
    loaded = encoder if isinstance(encoder, Encoder) else load_encoder(encoder)
    if stored is not None:
        stored.require_encoder(loaded)
    if classes is None and stored is None:
        return Asked(loaded, None, None)
    question = ask(loaded, classes, templates, descriptions, stored)
    if len(question.class_names) > 1:
        require_different_texts(question, loaded.name)
    return Asked(loaded, question, stored)


def encoder_of(args: argparse.Namespace) -> Encoder:
    """The encoder that the options of a command name."""
    if args.model is None:
        print(
            "note: the embedded checkpoint knows synthetic clips alone; for real ones give --model, for example "
            "--model openai/clip-vit-base-patch16",
            file=sys.stderr,
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_encoder(args.model, args.frames, args.revision, getattr(torch, args.dtype), device)


def none_readable(damaged: dict[str, str]) -> ValueError:
    """What to say where nothing can be read."""
    return ValueError(f"none of the {len(damaged)} clips can be read; the first: {next(iter(damaged.values()))}")
