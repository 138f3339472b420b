"""`dkd recognise`: a folder of unlabelled videos to labels."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .command_options import (
    OWN_ENCODER,
    add_class_options,
    add_model_options,
    add_work_options,
    command_parser,
    ending,
    is_main_process,
    positive,
    printable,
    share,
)


if TYPE_CHECKING:  # seconds of imports, which --help need not wait for
    from .predictions import Recognition


DESCRIPTION = """\
Recognise clips that nobody has labelled: every clip is embedded once, the domain is fitted to the clips themselves,
and a table says for each which of your classes it shows. Nothing is trained, no label is needed."""

EPILOG = (
    """\
a table has the columns
  clip, label, confidence (of the label among your classes, 0 to 1), known (probability that the clip shows one of your
  classes at all), zero_shot_label and zero_shot_confidence (without the domain), label_2 to label_5, error.
  A clip that could not be read has no label and the reason in error; one below --reject-below has no label either.

examples
  a folder, any depth, and a page to look at
    dkd recognise clips --classes classes.txt --model openai/clip-vit-base-patch16 --report report
  two classes, a table for pandas, and the domain for tomorrow
    dkd recognise clips --classes "surfing,playing violin" --output today.parquet --save-domain kitchen
  tomorrow's clips with that domain, which goes on learning
    dkd recognise tomorrow --domain kitchen --update --model openai/clip-vit-base-patch16 --output tomorrow.csv
  some clips labelled, in a CSV with the columns clip and label
    dkd recognise clips --classes classes.txt --labelled labels.csv
  several processes (add --multi_gpu, or ACCELERATE_USE_CPU=true without a GPU)
    accelerate launch --num_processes 4 -m modeling_dkd recognise clips --classes classes.txt
  embeddings that are there already, as evaluate.py takes them
    dkd recognise --embeddings ucf101_val.safetensors --output labels.csv
    dkd recognise --embeddings clips.npz:video_embeds=image_f+texts.npz:text_embeds=text_avg

"""
    + OWN_ENCODER
    + """
exit code 0: all done; 1: done, but clips could not be read; 2: you have to change something."""
)


def build_parser() -> argparse.ArgumentParser:
    """All options, in groups."""
    parser = command_parser("recognise", DESCRIPTION, EPILOG)
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="videos, folders of any depth, lists (.txt, one path a line), tables (.csv with a column path)",
    )
    parser.add_argument("--embeddings", metavar="FILE", help="embeddings with class texts instead of PATH")
    add_class_options(parser)
    add_model_options(parser)
    domain = parser.add_argument_group("domain", "by default fitted to these clips, without any label")
    domain.add_argument(
        "--domain",
        metavar="DIR",
        help="use a saved domain instead, or one of the Hub, as OWNER/NAME or OWNER/NAME@REVISION",
    )
    domain.add_argument("--no-adapt", action="store_true", help="use none: plain zero-shot")
    domain.add_argument(
        "--update", action="store_true", help="have the --domain learn from the new clips, and save it"
    )
    domain.add_argument(
        "--save-domain",
        metavar="DIR",
        help="save the domain that was used; hf://OWNER/NAME sends it to a private repository",
    )
    domain.add_argument(
        "--min-clips",
        type=positive,
        metavar="N",
        help="save it to be shared: with nothing of the clips of classes that fewer than N clips show",
    )
    domain.add_argument("--labelled", metavar="FILE", help="CSV (clip, label) of clips whose class is known")
    domain.add_argument(
        "--reject-below", type=share, default=0.0, metavar="X", help="give clips no label whose known is below X"
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output",
        default="predictions.csv",
        metavar="FILE",
        help="table that ends in .csv, .jsonl or .parquet (default: predictions.csv)",
    )
    output.add_argument("--report", type=Path, metavar="DIR", help="write a page with charts and thumbnails there")
    add_work_options(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run it; the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    args = build_parser().parse_args(argv)
    kept = "what is embedded is kept, run it again to go on"
    return ending(lambda: _run(args, shlex.join(["dkd", "recognise", *argv])), kept)


def _run(args: argparse.Namespace, command: str) -> int:
    if bool(args.paths) == bool(args.embeddings):
        raise ValueError("name clips (PATH ...) or --embeddings; see dkd recognise --help")
    from .prediction_table import check_table, write_table

    table = check_table(args.output)
    inputs = [path for path in (*args.paths, args.classes, args.labelled, args.embeddings) if path]
    if any(Path(path).exists() and table.exists() and table.samefile(path) for path in inputs):
        raise ValueError(f"--output {table} is one of the files that are read; give another name")
    if args.report is not None:
        args.report.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    try:
        found = _recognised(args)
    except (ValueError, OSError):
        if is_main_process():
            raise
        return 2  # the main process says why
    if not is_main_process():
        return 0
    write_table(table, found.predictions)
    print(summary(found))
    print(f"table: {table}")
    if args.report is not None:
        from .report import write_report

        print(f"report: {write_report(args.report, found, command)}")
    for doubt in found.doubts:
        print(f"note: {printable(doubt)}", file=sys.stderr)
    return 1 if found.damaged else 0


def _recognised(args: argparse.Namespace) -> "Recognition":
    """What the options ask for."""
    from .clip_recognition import DomainUse, recognise, recognise_embeddings

    use = DomainUse(
        args.domain, not args.no_adapt, args.update, args.save_domain, args.labelled, args.reject_below, args.min_clips
    )
    if args.embeddings:
        for name in ("model", "frames", "templates", "descriptions"):
            if getattr(args, name) is not None:
                raise ValueError(f"--{name} belongs to clips; with --embeddings clips and texts are embedded already")
        return recognise_embeddings(args.embeddings, args.classes, use=use)
    import torch

    if args.model is None:
        print(
            "note: the embedded checkpoint knows synthetic clips alone; for real ones give --model, for example "
            "--model openai/clip-vit-base-patch16",
            file=sys.stderr,
        )
    return recognise(
        args.paths,
        args.classes,
        model=args.model,
        revision=args.revision,
        frames=args.frames,
        templates=args.templates,
        descriptions=args.descriptions,
        use=use,
        cache_dir=args.cache_dir,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        dtype=getattr(torch, args.dtype),
    )


def summary(found: "Recognition") -> str:
    """How many clips of each class, most first, and what was damaged."""
    read, damaged = found.read, found.damaged
    changed = sum(p.is_changed for p in read)
    rejected = sum(p.is_rejected for p in read)
    lines = [
        f"{len(read)} clips recognised with {found.encoder}, {found.num_embedded} of them embedded now; "
        f"domain: {printable(found.described)}"
    ]
    counts = {name: sum(p.label == name for p in read) for name in found.class_names}
    width = max(len(printable(name)) for name in counts)
    for name, count in sorted(counts.items(), key=lambda item: -item[1]):
        if count:
            mean = sum(p.confidence or 0 for p in read if p.label == name) / count
            lines.append(f"  {printable(name):<{width}}  {count:>6}  mean confidence {mean:.2f}")
    absent = sum(not count for count in counts.values())
    lines += [f"  no clip of the other {absent}" if absent > 1 else "  no clip of the other one"] if absent else []
    lines.append(f"{changed} labels differ from plain zero-shot, {rejected} clips rejected, {len(damaged)} damaged")
    lines += [f"  {printable(p.clip)}: {printable(p.error)}" for p in damaged[:10]]
    lines += [f"  ... and {len(damaged) - 10} more, in the table"] if len(damaged) > 10 else []
    return "\n".join(lines)
