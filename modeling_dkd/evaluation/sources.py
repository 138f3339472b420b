"""Where evaluate.py takes its sets from: files of embeddings, or videos that it embeds first."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..embedding.cache_arrays import Source, split_pair
from ..embedding.embedding_cache import EmbeddingSet, array_names, read_embeddings, read_with_texts
from .names import DEFAULT_PROTOCOLS
from .videos import embed_for_evaluation


OF_EMBEDDINGS = ("text_embeddings", "domain", "video_key", "label_key", "text_key", "logit_scale")


@dataclass(frozen=True)
class Sources:
    """What is evaluated.

    Attributes:
        sets: Labelled clips with class texts, by the name that rows give them.
        domain: Domain clips of their own; None takes them from each set by the protocols.
        files: The files that all of it was read from.
        protocols: Protocols to run where the user names none.
    """

    sets: dict[str, EmbeddingSet]
    domain: EmbeddingSet | None
    files: list[Path]
    protocols: Sequence[str] = DEFAULT_PROTOCOLS


def load_sources(args: argparse.Namespace) -> Sources | None:
    """Read the files of --embeddings, or embed the videos of --dataset with --model.

    Returns:
        The sets; None on the helping processes of a run shared through accelerate.

    Raises:
        ValueError: Nothing to evaluate, options that exclude each other, or files that do not fit together.
    """
    check_sources(args)
    if args.model:
        return _load_videos(args)
    sets: dict[str, EmbeddingSet] = {}
    files: dict[Path, None] = {}
    for given in args.embeddings:
        clips, texts = split_pair(given, args.text_embeddings)
        name = clips.title or (clips.path.stem if texts is None else f"{clips.path.stem}+{texts.path.stem}")
        if name in sets and clips.title is None:
            name = f"{clips.path.absolute().parent.name}-{name}"
        if name in sets:
            raise ValueError(f"{name} is given twice and its rows would be mixed up: add title=NAME to {given}")
        sets[name] = _with_scale(_read(clips, texts, args), args.logit_scale)
        if sets[name].text_embeds is None:
            held = ", ".join(array_names(clips.path))
            raise ValueError(
                f"{clips.path}: there are no class texts among {held}: name the array with --text_key NAME or "
                "FILE:text_embeds=NAME, or give them with --text_embeddings FILE"
            )
        files |= dict.fromkeys([clips.path] if texts is None else [clips.path, texts.path])
    domain = _load_domain(args)
    return Sources(sets, domain, [*files, *([Source.parse(args.domain).path] if args.domain else [])])


def check_sources(args: argparse.Namespace) -> None:
    """Refuse options that do not go together, before anything is loaded.

    Raises:
        ValueError: Nothing to evaluate, or options that exclude or lack each other.
    """
    if args.embeddings and args.model:
        raise ValueError("--embeddings reads what is embedded and --model embeds videos: leave one out")
    if not args.model and args.embeddings is None:
        raise ValueError(
            "nothing to evaluate: give --embeddings FILE, or --model and --dataset; see dkd evaluate --help"
        )
    if not args.model:
        if args.domain is None:
            return
        if args.protocols:
            raise ValueError("--protocols chooses the domain from --embeddings, and --domain gives it: leave one out")
        if len(args.embeddings) > 1:
            raise ValueError(f"--domain goes with one --embeddings file, and {len(args.embeddings)} are given")
        return
    for name in OF_EMBEDDINGS:
        if getattr(args, name) is not None:
            raise ValueError(f"--{name} belongs to --embeddings, not to --model")
    if args.protocols and not args.transductive:
        raise ValueError("--protocols takes the domain from the test clips: add --transductive, or leave it out")


def _load_videos(args: argparse.Namespace) -> Sources | None:
    embedded = embed_for_evaluation(args)
    if embedded is None:
        return None
    return Sources({embedded.name: embedded.test}, embedded.domain, embedded.files, ("full",))


def _load_domain(args: argparse.Namespace) -> EmbeddingSet | None:
    """The set of --domain, its labels numbered as those of --embeddings."""
    if args.domain is None:
        return None
    clips, texts = Source.parse(args.domain), split_pair(args.embeddings[0], args.text_embeddings)[1]
    if texts is None and "text_embeds" not in clips.arrays and args.text_key not in array_names(clips.path):
        # The domain's own class texts are not used, so it need not have those that the test has.
        return _read(clips, None, argparse.Namespace(**vars(args) | {"text_key": None}))
    return _read(clips, texts, args)


def _read(clips: Source, texts: Source | None, args: argparse.Namespace) -> EmbeddingSet:
    """What --video_key, --label_key and --text_key say holds where a file says nothing itself."""
    options = {"video_embeds": args.video_key, "labels": args.label_key, "text_embeds": args.text_key}
    general = {name: own for name, own in options.items() if own is not None}
    if texts is None:
        return read_embeddings(clips.path, **(general | clips.arrays))
    of_texts = {name: own for name, own in general.items() if name == "text_embeds"}
    of_clips = {name: own for name, own in general.items() if name != "text_embeds"}
    return read_with_texts(clips.path, texts.path, of_clips | clips.arrays, of_texts | texts.arrays)


def _with_scale(found: EmbeddingSet, logit_scale: float | None) -> EmbeddingSet:
    """The set with the factor of --logit_scale, which counts before that of the file."""
    if logit_scale is None:
        return found
    return replace(found, metadata=found.metadata | {"logit_scale": logit_scale})
