"""evaluate.py on videos: find the clips, embed each once, hand domain and test sets to the evaluation.

python evaluate.py --model openai/clip-vit-base-patch16 --dataset ucf101 --data_dir UCF-101 --split 1
"""

import argparse
import hashlib
import json
import math
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..data.prompts import class_prompts, description_prompts, load_templates
from ..embedding.embedding_cache import EmbeddingSet, write_embeddings
from ..embedding.tensor_files import write_tensors
from ..embedding.worker_processes import shared_accelerator
from ..frame_sampling import Views
from .measurement import Measurement
from .names import DIVIDED, LISTED


if TYPE_CHECKING:  # these take seconds to import, which --help need not wait for
    from accelerate import Accelerator

    from ..data.hub_stream import StreamPiece
    from ..data.video_index import VideoIndex
    from ..embedding.clip_embedding import EmbeddingRun
    from ..embedding.clip_encoder import ClipEncoder
    from ..embedding.clip_shards import ClipShards
    from ..embedding.own_encoder import OwnEncoder

    Source = ClipEncoder | OwnEncoder


@dataclass(frozen=True)
class VideoSets:
    """What was embedded for one evaluation.

    Attributes:
        name: Data set, as rows call it.
        test: The clips to test, with the class texts.
        domain: The training clips; None when the test clips themselves are the domain (transductive).
        files: The finished caches.
    """

    name: str
    test: EmbeddingSet
    domain: EmbeddingSet | None
    files: list[Path]


def embed_for_evaluation(args: argparse.Namespace) -> VideoSets | None:
    """Embed what the options name; None on the helping processes of a run shared through accelerate.

    Raises:
        ValueError: Anything the user has to change: clips missing or damaged without --allow_missing, no such model,
            folder, split lists or templates.
    """
    check_video_options(args)
    accelerator = shared_accelerator()
    try:
        return _embed(args, accelerator)
    except ValueError:
        if accelerator.is_main_process:
            raise
        sys.exit(2)  # the main process says why
    finally:
        accelerator.end_training()


def chance_notes(measurements: Sequence[Measurement]) -> list[str]:
    """A sentence for every plain zero-shot row whose accuracy is near chance, so that nobody reads a gain into it.

    Near chance is what blind guessing can reach: within three standard errors of 1 / K, or of the share of the most
    frequent class, which a model that always gives one answer may happen to name.
    """
    notes = []
    for measured in measurements:
        row = measured.row
        if row["method"] != "zero-shot":
            continue
        chance = 1 / row["data"]["classes"]
        blind = max(chance, measured.labels.bincount().max().item() / row["n"])
        if row["top1"] <= blind + 3 * math.sqrt(blind * (1 - blind) / row["n"]):
            data = row["data"]
            notes.append(
                f"{data['name']}, {row['protocol']}, seed {row['seed']}: zero-shot top-1 of {row['top1']:.2%} is near "
                f"chance (1 of {data['classes']} classes: {chance:.2%}, always the most frequent one: {blind:.2%}, "
                f"N = {row['n']}); the model does not know these classes, or labels and class texts are not those "
                "of one list, and its figures say nothing about DKD"
            )
    return notes


def check_video_options(args: argparse.Namespace) -> None:
    """Refuse options that do not go together, before anything is loaded."""
    for name in ("dataset", "data_dir"):
        if getattr(args, name) is None:
            raise ValueError(f"--model needs --{name}; see dkd evaluate --help")
    if args.dataset not in DIVIDED and args.split != "1":
        raise ValueError(f"--split belongs to {' and '.join(DIVIDED)}, not to --dataset {args.dataset}")
    if args.dataset not in (*DIVIDED, *LISTED) and args.annotations:
        raise ValueError(f"--annotations are the lists of a data set's owners; --dataset {args.dataset} has none")
    if args.split == "all" and not args.transductive:
        raise ValueError("--split all tests every clip and leaves no training clips: add --transductive")
    if args.frames is not None:
        Views.parse(args.frames)
    if args.batch_size < 1 or args.num_workers < 0:
        raise ValueError("--batch_size must be at least 1 and --num_workers at least 0")


def _embed(args: argparse.Namespace, accelerator: "Accelerator") -> VideoSets | None:
    """Index, embed, account for what is missing, and write the finished caches."""
    from ..embedding.worker_processes import start_server

    start_server(args.num_workers)
    from ..data.clip_table import ClipTable
    from ..embedding.clip_embedding import embed_clips
    from ..embedding.clip_shards import ClipShards
    from ..embedding.encoder_sources import load_source
    from ..embedding.streamed_embedding import embed_stream

    pieces = _pieces(args)
    if not pieces:  # what is wrong with clips that lie here is told before a model is loaded
        index = _index(args)
        wanted = _wanted(args, index)
    encoder = load_source(args.model, args.frames, args.revision, getattr(torch, args.dtype), accelerator.device)
    folder = args.cache_dir / _folder_name(encoder)
    shards = ClipShards(folder / "shards")
    with_what = encoder.reader, encoder.embed_clips, shards, accelerator, args.batch_size, args.num_workers
    if pieces:
        index, run = embed_stream(pieces, *with_what)
        _tell(index)
        wanted = _wanted(args, index)
        names = {record.name for _, part in wanted.parts for record in part.records}
        run = replace(run, damaged={name: reason for name, reason in run.damaged.items() if name in names})
    else:
        clips = ClipTable.of(record for _, part in wanted.parts for record in part.records)
        run = embed_clips(index.records, clips, *with_what)
    asked, parts, prompts, prompt_name = wanted
    if accelerator.is_main_process:
        _report(run, asked, folder, args.allow_missing)
    if run.damaged and not args.allow_missing:
        raise ValueError(
            f"{len(run.damaged)} of {len(run.identities)} clips cannot be read: {', '.join(list(run.damaged)[:5])}"
            f"{' ...' if len(run.damaged) > 5 else ''}; all are in {folder / 'damaged.json'}; the others are "
            "embedded, pass --allow_missing to go on with them"
        )
    if not accelerator.is_main_process:
        return None
    (folder / "key.json").write_text(json.dumps(encoder.key(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    texts = _texts(encoder, prompts, folder)
    sets = [_embedding_set(part, name, index.split, run, shards, encoder, texts, prompt_name) for name, part in parts]
    classes = re.sub(r"[^\w.]+", "-", asked.split.removeprefix(index.split))
    files = [folder / f"{asked.dataset}-{args.split}-{name}{classes}.safetensors" for name, _ in parts]
    for file, embedding_set in zip(files, sets, strict=True):
        write_embeddings(file, embedding_set)
    return VideoSets(asked.dataset, sets[0], None if args.transductive else sets[1], files)


class _Wanted(NamedTuple):
    """The clips of the classes asked, the parts that are tested and learned from, the prompts and their name."""

    asked: "VideoIndex"
    parts: list[tuple[str, "VideoIndex"]]
    prompts: list[list[str]]
    prompt_name: str


def _wanted(args: argparse.Namespace, index: "VideoIndex") -> _Wanted:
    """What the options ask of the clips that there are."""
    asked = _asked(args, index)
    return _Wanted(asked, _parts(args, asked, index.split), *_prompts(args, asked))


def asked_parts(args: argparse.Namespace) -> list[tuple[str, "VideoIndex"]]:
    """The parts that are tested and learned from, with the clips of the classes asked."""
    index = _index(args)
    return _parts(args, _asked(args, index), index.split)


def _pieces(args: argparse.Namespace) -> list["StreamPiece"]:
    """What is streamed of a Hub data set for the parts that are used; nothing where the clips lie here."""
    if args.dataset != "hub":
        return []
    from ..data.hub_stream import is_read_in_place, stream_pieces

    if is_read_in_place(args.data_dir):
        return []
    if not args.descriptions:
        load_templates(args.templates)  # a wrong name is told before all is streamed
    pieces = stream_pieces(args.data_dir)
    if not args.transductive:
        _require_parts(args, any(piece.part for piece in pieces))
    return [piece for piece in pieces if not args.transductive or piece.part != "train"]


def _require_parts(args: argparse.Namespace, are_there: bool) -> None:
    if not are_there:
        raise ValueError(
            f"{args.data_dir} has no train and test parts to take domain and test from: add --transductive"
        )


def _parts(args: argparse.Namespace, asked: "VideoIndex", split: str) -> list[tuple[str, "VideoIndex"]]:
    """Names and clips of the part to test and, unless the test clips are the domain, of the one to learn it from."""
    whole = args.split == "all" or split == "all"
    _require_parts(args, args.transductive or not whole)
    names = ["all" if whole else "test"] if args.transductive else ["test", "train"]
    parts = [(name, asked.part(name).require_complete(args.allow_missing)) for name in names]
    empty = [name for name, part in parts if not part.records]
    if empty:
        hint = "; --transductive takes the test clips as the domain" if empty == ["train"] else ""
        raise ValueError(f"{args.data_dir} has no {empty[0]} clips of the classes asked{hint}")
    for name, part in parts:
        if part.missing:
            print(f"note: {name}: {part.told_missing()}; left out", file=sys.stderr)
    return parts


def _index(args: argparse.Namespace) -> "VideoIndex":
    """All clips of the data set; what is missing is judged later, for the parts that are used."""
    from ..data.named_index import named_index

    split = 1 if args.split == "all" else int(args.split)
    index = named_index(args.dataset, args.data_dir, args.annotations, split, args.cache_dir / "hub_clips")
    if index.ignored:
        named = ", ".join(index.ignored[:5]) + (" ..." if len(index.ignored) > 5 else "")
        print(f"note: {len(index.ignored)} files without a video extension left out: {named}", file=sys.stderr)
    _tell(index)
    return index


def _tell(index: "VideoIndex") -> None:
    """Say how the clips were found."""
    for note in index.notes:
        print(f"note: {note}", file=sys.stderr)


def _asked(args: argparse.Namespace, index: "VideoIndex") -> "VideoIndex":
    """The clips of the classes that are asked."""
    from ..data.asked_classes import drawn_classes, new_classes, only_classes

    asked = index if args.classes is None else only_classes(index, args.classes)
    asked = asked if args.known_classes is None else new_classes(asked, args.known_classes)
    asked = asked if args.draw_classes is None else drawn_classes(asked, *args.draw_classes)
    return asked if args.half_split is None else asked.half_classes(args.half_split)


def _prompts(args: argparse.Namespace, index: "VideoIndex") -> tuple[list[list[str]], str]:
    """Prompts of the classes (K, P) and what results call them."""
    if args.descriptions:
        return description_prompts(index.class_names, args.descriptions, index.dataset), Path(args.descriptions).name
    templates = load_templates(args.templates)
    called = templates[0] if len(templates) == 1 else f"{Path(args.templates).name} ({len(templates)} templates)"
    return class_prompts(index.class_names, templates), called


def _folder_name(encoder: "Source") -> str:
    """Model name and the hash of all that its embeddings depend on."""
    key = hashlib.sha256(json.dumps(encoder.key(), sort_keys=True).encode()).hexdigest()
    name = re.sub(r"[^\w.-]", "--", encoder.name)
    return f"{name}-{encoder.views}-{key[:12]}"


def _report(run: "EmbeddingRun", index: "VideoIndex", folder: Path, allow_missing: bool) -> None:
    """Say what was embedded; name every damaged clip in a file."""
    print(
        f"{index.dataset}: {run.num_embedded} clips embedded, {run.num_known} known from before, "
        f"{len(run.damaged)} damaged",
        file=sys.stderr,
    )
    report = folder / "damaged.json"
    if not run.damaged and not run.remarks:
        report.unlink(missing_ok=True)
        return
    lists = {"left_out": run.damaged, "used_in_part": run.remarks}
    report.write_text(json.dumps(lists, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if run.damaged and allow_missing:
        print(f"note: {len(run.damaged)} clips could not be read and are left out; see {report}", file=sys.stderr)
    if run.remarks:
        print(f"note: {len(run.remarks)} clips have damaged frames and are used; see {report}", file=sys.stderr)


def _texts(encoder: "Source", prompts: list[list[str]], folder: Path) -> Tensor:
    """Embeddings (K, P, D) of the prompts, encoded once for this model and kept beside the shards."""
    from ..embedding.clip_embedding import embed_texts

    digest = hashlib.sha256(json.dumps(prompts).encode()).hexdigest()
    path = folder / "texts" / f"{digest[:24]}.safetensors"
    with suppress(SafetensorError, OSError, KeyError):  # absent or torn
        found = load_file(path)["text_embeds"]
        if len(found) == len(prompts) and found.shape[1] % len(prompts[0]) == 0:
            return found
    distinct = sorted({prompt for row in prompts for prompt in row})
    num_cut = encoder.num_cut(distinct)
    if num_cut:
        print(f"note: {num_cut} of {len(distinct)} prompts are too long for the text encoder and cut", file=sys.stderr)
    embeds = embed_texts(prompts, lambda texts: torch.as_tensor(encoder.encode(texts))).flatten(1, -2)
    write_tensors(path, {"text_embeds": embeds})
    return embeds


def _embedding_set(
    part: "VideoIndex",
    part_name: str,
    official: str,
    run: "EmbeddingRun",
    shards: "ClipShards",
    encoder: "Source",
    texts: Tensor,
    prompt_name: str,
) -> EmbeddingSet:
    """Embeddings of one part with what results have to say about them."""
    records = [record for record in part.records if record.name not in run.damaged]
    total = len(part.records) + len(part.missing)
    if not records:
        raise ValueError(f"none of the {total} {part.dataset} clips of {part.split} {part_name} can be used")
    split = f"all clips{part.split.removeprefix(official)}" if part_name == "all" else f"{part.split} {part_name}"
    if len(records) < total:
        # Stands in every row and title: a figure on part of a split must not pass for one on the whole.
        split += f" ({len(records)} of {total} clips)"
    metadata: dict[str, Any] = {
        "names": [record.name for record in records],
        "class_names": list(part.class_names),
        "prompts": prompt_name,
        "backbone": encoder.name,
        "revision": encoder.revision,
        "dataset": part.dataset,
        "split": split,
        "frames": encoder.views,
        "preprocessing": encoder.preprocessing,
        "logit_scale": encoder.logit_scale,
        "num_missing": len(part.missing),
        "damaged": [record.name for record in part.records if record.name in run.damaged],
    }
    embeds = shards.gather([run.identities[record.name] for record in records])
    labels = torch.tensor([record.label for record in records], dtype=torch.int64)
    return EmbeddingSet(embeds, labels, texts, metadata)
