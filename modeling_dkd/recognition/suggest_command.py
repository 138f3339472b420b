"""`dkd suggest`: which clips to label next."""

import argparse
import csv
from pathlib import Path

from ..data.counting import counted
from ..data.whole_files import whole_file
from .classes import require_classes
from .command_options import (
    add_class_options,
    add_model_options,
    add_paths,
    add_work_options,
    asked_by,
    batches_of,
    command_parser,
    ended_at_once,
    positive,
    run_command,
    tell,
)
from .output_places import SHEET_ENDINGS, file_to_write


COLUMNS = ("clip", "label", "guess", "confidence")
DESCRIPTION = """\
Which clips to label next: those that stand for most of what the model is not sure of, no two of one kind. They come as
a table to fill in, the most helpful first; a few labels are worth more than many drawn at random."""

EPILOG = """\
examples
  twenty clips, and a page to look at while labelling
    dkd suggest archive --classes activities.txt --model openai/clip-vit-base-patch16 --sheet look.html
  fill in the column label of labels.csv, then
    dkd recognise archive --classes activities.txt --model openai/clip-vit-base-patch16 --labelled labels.csv
  twenty more
    dkd suggest archive --classes activities.txt --labelled labels.csv --output more.csv"""


def build_parser() -> argparse.ArgumentParser:
    """All options, in groups."""
    parser = command_parser("suggest", DESCRIPTION, EPILOG)
    add_paths(parser)
    parser.add_argument("--count", type=positive, default=20, metavar="N", help="clips to label (default: 20)")
    parser.add_argument("--labelled", metavar="FILE", help="CSV (clip, label) of what is labelled already")
    add_class_options(parser)
    add_model_options(parser)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output",
        type=Path,
        default=Path("labels.csv"),
        metavar="FILE",
        help=f"CSV with the columns {', '.join(COLUMNS)}, no label yet (default: labels.csv)",
    )
    output.add_argument("--overwrite", action="store_true", help="replace a table that is there")
    output.add_argument("--sheet", type=Path, metavar="FILE", help="the clips as pictures: a .png or a .html file")
    add_work_options(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run it; the exit code."""
    return run_command(build_parser(), argv, _run)


def _run(args: argparse.Namespace) -> int:
    require_classes(args.classes, None)
    file_to_write("--output", args.output, (".csv",))
    if args.output.exists() and not args.overwrite:
        raise ValueError(f"{args.output} is there, perhaps with labels in it; name another or add --overwrite")
    if args.sheet is not None:
        file_to_write("--sheet", args.sheet, SHEET_ENDINGS)
    with ended_at_once():
        from .label_suggestions import suggest

    found = suggest(args.paths, count=args.count, labelled=args.labelled, **asked_by(args), **batches_of(args))
    with whole_file(args.output) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([s.clip, "", s.guess, f"{s.confidence:.4f}"] for s in found.suggestions)
    many = counted(len(found.suggestions), "clip")
    if args.sheet is not None:
        from .thumbnails import Picture, write_sheet

        pictures = [
            Picture(s.path, None, s.clip, f"{s.guess}? ({100 * s.confidence:.0f} %)") for s in found.suggestions
        ]
        write_sheet(pictures, args.sheet, f"{many} to label")
    print(f"{many} to label: fill in the column label of {args.output}, then give it as --labelled")
    return tell(found.damaged, found.notes)
