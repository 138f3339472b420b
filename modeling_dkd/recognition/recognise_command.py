"""`dkd recognise`: a folder of unlabelled videos to labels."""

import argparse
import os
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.counting import counted
from ..embedding.worker_processes import start_server
from .classes import require_classes
from .clip_listing import printable
from .command_options import (
    add_class_options,
    add_model_options,
    add_paths,
    add_reject_below,
    add_work_options,
    asked_by,
    batches_of,
    command_parser,
    ended_at_once,
    is_main_process,
    positive,
    run_command,
    tell,
)
from .output_places import folder_to_fill, table_to_write


if TYPE_CHECKING:  # seconds of imports, which --help need not wait for
    from .predictions import Recognition


DESCRIPTION = """\
Recognise clips that nobody has labelled: every clip is embedded once, the domain is fitted to the clips themselves,
and a table says for each which of your classes it shows. Nothing is trained, no label is needed."""

EPILOG = """\
a table has the columns
  clip, label, confidence (of the label among your classes, 0 to 1), known (probability that the clip shows one of your
  classes at all), zero_shot_label and zero_shot_confidence (without the domain), label_2 to label_5, error.
  A clip that could not be read has no label and the reason in error; one below --reject-below has no label either.

--reject-below
  known compares a clip with all clips of the domain, without any label. How high it is for clips of your classes
  depends on the encoder, so look before you reject: run without it, open the --report, whose chart shows how many
  clips each threshold rejects and the pictures of the least known ones, and take the value below which most of these
  show none of your classes. A run with another threshold takes seconds.

examples
  a folder, any depth, and a page to look at
    dkd recognise clips --classes classes.txt --model openai/clip-vit-base-patch16 --report report
  two classes, a table for pandas, and the domain for tomorrow
    dkd recognise clips --classes "surfing,playing violin" --output today.parquet --save-domain kitchen
  tomorrow's clips with that domain, which goes on learning
    dkd recognise tomorrow --domain kitchen --update --model openai/clip-vit-base-patch16 --output tomorrow.csv
  some clips labelled, in a CSV with the columns clip and label
    dkd recognise clips --classes classes.txt --labelled labels.csv
  several processes (add --multi_gpu, or ACCELERATE_USE_CPU=true without a GPU); the launcher has exit code 0 then also
  where clips could not be read, and puts a traceback of its own beneath the line that says what you have to change
    accelerate launch --num_processes 4 -m modeling_dkd recognise clips --classes classes.txt
  embeddings that are there already, as evaluate.py takes them
    dkd recognise --embeddings ucf101_val.safetensors --output labels.csv
    dkd recognise --embeddings clips.npz:video_embeds=image_f+texts.npz:text_embeds=text_avg"""


def build_parser() -> argparse.ArgumentParser:
    """All options, in groups."""
    parser = command_parser("recognise", DESCRIPTION, EPILOG)
    add_paths(parser, needed=False)
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
    add_reject_below(domain)
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
    return run_command(build_parser(), argv, partial(_run, command=shlex.join(["dkd", "recognise", *argv])))


def _run(args: argparse.Namespace, command: str) -> int:
    if bool(args.paths) == bool(args.embeddings):
        raise ValueError("name clips (PATH ...) or --embeddings, one of both; see dkd recognise --help")
    if args.paths:
        require_classes(args.classes, args.domain)
    table = table_to_write(args.output)
    inputs = [path for path in (*args.paths, args.classes, args.labelled, args.embeddings) if path]
    if any(Path(path).exists() and table.exists() and table.samefile(path) for path in inputs):
        raise ValueError(f"--output {table} is one of the files that are read; give another name")
    if args.report is not None:
        folder_to_fill("--report", args.report)
    if args.paths:
        start_server(args.num_workers)  # which imports for seconds, beside this process, what it imports too
    found = _recognised(args)
    if not is_main_process():
        return 0
    from .prediction_table import write_table

    write_table(table, found.predictions)
    print(summary(found))
    print(f"table: {printable(str(table))}")
    if args.report is not None:
        from .report import write_report

        print(f"report: {printable(str(write_report(args.report, found, command)))}")
    tell({}, found.doubts)
    # A launcher of several processes shows a traceback for any other code.
    return 1 if found.damaged and os.environ.get("WORLD_SIZE", "1") == "1" else 0


def _recognised(args: argparse.Namespace) -> "Recognition":
    """What the options ask for."""
    with ended_at_once():
        from .clip_recognition import DomainUse, recognise, recognise_embeddings

    use = DomainUse(
        args.domain, not args.no_adapt, args.update, args.save_domain, args.labelled, args.reject_below, args.min_clips
    )
    if not args.embeddings:
        return recognise(args.paths, use=use, **asked_by(args), **batches_of(args))
    for name in ("model", "revision", "frames", "templates", "descriptions"):
        if getattr(args, name) is not None:
            raise ValueError(f"--{name} belongs to clips; with --embeddings clips and texts are embedded already")
    return recognise_embeddings(args.embeddings, args.classes, use=use)


def summary(found: "Recognition") -> str:
    """How many clips of each class, most first, and what was damaged."""
    read, damaged = found.read, found.damaged
    changed = sum(p.is_changed for p in read)
    rejected = sum(p.is_rejected for p in read)
    lines = [
        f"{counted(len(read), 'clip')} recognised with {found.encoder}, {found.num_embedded} of them embedded now; "
        f"domain: {printable(found.described)}"
    ]
    counts = {name: sum(p.label == name for p in read) for name in found.class_names}
    width = max(len(printable(name)) for name in counts)
    for name, count in sorted(counts.items(), key=lambda item: -item[1]):
        if count:
            mean = sum(p.confidence or 0 for p in read if p.label == name) / count
            lines.append(f"  {printable(name):<{width}}  {count:>6}  mean confidence {mean:.2f}")
    absent = sum(not count for count in counts.values())
    others = "a class" if absent == len(counts) else "the other one" if absent == 1 else f"the other {absent}"
    lines += [f"  no clip of {others}"] if absent else []
    differ = f"{counted(changed, 'label')} {'differs' if changed == 1 else 'differ'} from plain zero-shot"
    lines.append(f"{differ}, {counted(rejected, 'clip')} rejected, {len(damaged)} could not be read")
    lines += [f"  {printable(p.clip)}: {printable(p.error)}" for p in damaged[:10]]
    lines += [f"  ... and {len(damaged) - 10} more, in the table"] if len(damaged) > 10 else []
    return "\n".join(lines)
