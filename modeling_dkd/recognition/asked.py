"""What a command is asked: its common options, and the encoder, classes and domain that they stand for."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from torch import Tensor

    from ..dkd_head import DKDHead
    from .encoder import Encoder


@dataclass(frozen=True)
class Asked:
    """What is asked of which encoder.

    Attributes:
        encoder: What embeds.
        class_names: Names of the K classes; empty where none were given.
        text_embeds: Their embeddings, (K, P, D); None without classes.
        head: A saved domain; None where none was given.
    """

    encoder: "Encoder"
    class_names: list[str]
    text_embeds: "Tensor | None"
    head: "DKDHead | None"


def add_options(parser: argparse.ArgumentParser, classes_required: bool) -> None:
    """The options that `asked` reads."""
    needed = "; or give --domain" if classes_required else "; without any, plain cosines are compared"
    parser.add_argument(
        "--classes",
        metavar="FILE",
        help=f"the activities of the domain: a file with one a line, or names with commas between them{needed}",
    )
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="folder or Hub repository of a dual encoder, or FILE.py:NAME of one of your own, whose code is run "
        "(default: the embedded checkpoint, which knows synthetic clips alone)",
    )
    parser.add_argument("--revision", metavar="COMMIT", help="branch, tag or commit of a repository")
    parser.add_argument("--device", default="cpu", help="where the encoder computes, such as cuda (default: cpu)")
    parser.add_argument("--frames", type=int, metavar="N", help="frames of a clip or window (default: the model's)")
    parser.add_argument(
        "--templates", metavar="FILE", help="prompts with {} for the class: one a line, or single, clip_ucf101 ..."
    )
    parser.add_argument("--descriptions", metavar="FILE", help="JSON with texts of each class, instead of templates")
    parser.add_argument("--domain", metavar="DIR", help="a saved domain (default: fitted to what is given)")
    parser.add_argument("--no-adapt", action="store_true", help="plain zero-shot, no domain")
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="where embeddings are kept (default: DKD_CACHE, or ~/.cache/dkd)"
    )


def asked(options: argparse.Namespace) -> Asked:
    """Encoder, classes and domain of the options.

    Raises:
        ValueError: Options exclude each other, or what they name cannot be read.
    """
    from .classes import read_classes
    from .encoder import load_encoder
    from .saved_domain import load_domain

    if options.domain and options.no_adapt:
        raise ValueError("--domain and --no-adapt exclude each other: a domain is used, or none")
    saved = load_domain(options.domain) if options.domain else None
    class_names = read_classes(options.classes) if options.classes else saved.class_names if saved else []
    encoder = load_encoder(options.model, options.frames, options.revision, device=options.device)
    if saved:
        saved.require_encoder(encoder)
    prompts = None
    if saved and saved.prompts and not options.classes and not options.templates and not options.descriptions:
        prompts = saved.prompts
    elif class_names:
        prompts = encoder.prompts(class_names, options.templates, options.descriptions)
    text_embeds = encoder.embed_texts(prompts) if prompts else None
    return Asked(encoder, class_names, text_embeds, saved.head if saved else None)
