"""Where evaluate.py takes its sets from: files of embeddings, or videos that it embeds first."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..embedding.embedding_cache import EmbeddingSet, array_names, read_embeddings, read_with_texts
from .names import PROTOCOLS
from .videos import embed_for_evaluation


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
    protocols: Sequence[str] = tuple(PROTOCOLS)


def load_sources(args: argparse.Namespace) -> Sources | None:
    """Read the files of --embeddings, or embed the videos of --dataset with --model.

    Returns:
        The sets; None on the helping processes of a run shared through accelerate.

    Raises:
        ValueError: Nothing to evaluate, options that exclude each other, or files that do not fit together.
    """
    if args.embeddings and args.model:
        raise ValueError("--embeddings reads what is embedded and --model embeds videos: leave one out")
    if args.model:
        return _load_videos(args)
    if args.embeddings is None:
        raise ValueError(
            "nothing to evaluate: give --embeddings FILE, or --model and --dataset; see evaluate.py --help"
        )
    sets: dict[str, EmbeddingSet] = {}
    files: dict[Path, None] = {}
    for given in args.embeddings:
        path, text_path = _split_pair(given, args.text_embeddings)
        name = path.stem if text_path is None else f"{path.stem}+{text_path.stem}"
        if name in sets:
            name = f"{path.absolute().parent.name}-{name}"
        if name in sets:
            raise ValueError(f"{given} is given twice: its rows would be mixed up")
        found = _read(path, text_path, args.text_key, args.video_key, args.label_key)
        if args.logit_scale is not None:
            found = replace(found, metadata=found.metadata | {"logit_scale": args.logit_scale})
        sets[name] = found
        files |= dict.fromkeys([path] if text_path is None else [path, text_path])
    domain = _load_domain(args)
    return Sources(sets, domain, [*files, *([Path(args.domain)] if args.domain else [])])


def _load_videos(args: argparse.Namespace) -> Sources | None:
    unused = (
        "text_embeddings",
        "domain",
        "video_key",
        "label_key",
        "text_key",
        "domain_video_key",
        "domain_label_key",
        "logit_scale",
    )
    for name in unused:
        if getattr(args, name):
            raise ValueError(f"--{name} belongs to --embeddings, not to --model")
    if args.protocols and not args.transductive:
        raise ValueError("--protocols takes the domain from the test clips: add --transductive, or leave it out")
    embedded = embed_for_evaluation(args)
    if embedded is None:
        return None
    return Sources({embedded.name: embedded.test}, embedded.domain, embedded.files, ("full",))


def _load_domain(args: argparse.Namespace) -> EmbeddingSet | None:
    """The set of --domain, its labels numbered as those of --embeddings."""
    if args.domain is None:
        if args.domain_video_key or args.domain_label_key:
            raise ValueError("--domain_video_key and --domain_label_key need --domain FILE")
        return None
    if args.protocols:
        raise ValueError("--protocols chooses the domain from --embeddings, and --domain gives it: leave one out")
    if len(args.embeddings) > 1:
        raise ValueError(f"--domain goes with one --embeddings file, and {len(args.embeddings)} are given")
    text_path = _split_pair(args.embeddings[0], args.text_embeddings)[1]
    path = Path(args.domain)
    # The domain's own class texts are not used, but where it has those of the test its labels are guessed with them.
    text_key = args.text_key if text_path or args.text_key in array_names(path) else None
    return _read(path, text_path, text_key, args.domain_video_key, args.domain_label_key)


def _read(
    path: Path, text_path: Path | None, text_key: str | None, video_key: str | None, label_key: str | None
) -> EmbeddingSet:
    if text_path is None:
        return read_embeddings(path, text_key=text_key, video_key=video_key, label_key=label_key)
    return read_with_texts(path, text_path, text_key=text_key, video_key=video_key, label_key=label_key)


def _split_pair(given: str, text_embeddings: str | None) -> tuple[Path, Path | None]:
    """FILE+TEXTFILE into both, FILE alone with --text_embeddings; a plus in the name of an existing file is kept."""
    everywhere = None if text_embeddings is None else Path(text_embeddings)
    if Path(given).is_file() or "+" not in given:
        return Path(given), everywhere
    cuts = [i for i, letter in enumerate(given) if letter == "+"]
    fitting = [i for i in cuts if Path(given[:i]).is_file() and Path(given[i + 1 :]).is_file()]
    cut = fitting[0] if fitting else cuts[0]
    return Path(given[:cut]), Path(given[cut + 1 :])
