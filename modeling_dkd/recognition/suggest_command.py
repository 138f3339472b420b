"""`dkd suggest`: which clips to label next."""

import argparse
import csv
import sys
from pathlib import Path

from .command_options import (
    OWN_ENCODER,
    add_class_options,
    add_model_options,
    add_work_options,
    command_parser,
    ending,
    positive,
    printable,
)
from .search_command import check_sheet


COLUMNS = ("clip", "label", "guess", "confidence")
DESCRIPTION = """\
Which clips to label next: those that stand for most of what the model is not sure of, no two of one kind. They come as
a table to fill in, the most helpful first; a few labels are worth more than many drawn at random."""

EPILOG = (
    """\
examples
  twenty clips, and a page to look at while labelling
    dkd suggest archive --classes activities.txt --model openai/clip-vit-base-patch16 --sheet look.html
  fill in the column label of labels.csv, then
    dkd recognise archive --classes activities.txt --model openai/clip-vit-base-patch16 --labelled labels.csv
  twenty more
    dkd suggest archive --classes activities.txt --labelled labels.csv --output more.csv

"""
    + OWN_ENCODER
    + """
exit code 0: all done; 1: done, but clips could not be read; 2: you have to change something."""
)


def build_parser() -> argparse.ArgumentParser:
    """All options, in groups."""
    parser = command_parser("suggest", DESCRIPTION, EPILOG)
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="videos, folders of any depth, lists (.txt), tables (.csv)"
    )
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
    args = build_parser().parse_args(argv)
    return ending(lambda: _run(args), "what is embedded is kept, run it again to go on")


def _run(args: argparse.Namespace) -> int:
    check_sheet(args.sheet)
    if args.classes is None:
        raise ValueError("no classes: give --classes, a file with one a line, or names with commas between them")
    if args.output.exists() and not args.overwrite:
        raise ValueError(f"{args.output} is there, perhaps with labels in it; name another or add --overwrite")
    from .asked import encoder_of
    from .label_suggestions import suggest

    found = suggest(
        args.paths,
        args.classes,
        encoder_of(args),
        count=args.count,
        labelled=args.labelled,
        templates=args.templates,
        descriptions=args.descriptions,
        cache_dir=args.cache_dir,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
    )
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with args.output.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([s.clip, "", s.guess, f"{s.confidence:.4f}"] for s in found.suggestions)
    if args.sheet:
        from .thumbnails import Picture, write_sheet

        args.sheet.parent.mkdir(parents=True, exist_ok=True)
        pictures = [
            Picture(s.path, None, s.clip, f"{s.guess}? ({100 * s.confidence:.0f} %)") for s in found.suggestions
        ]
        write_sheet(pictures, args.sheet, f"{len(pictures)} clips to label")
    for name, reason in found.damaged.items():
        print(f"not read: {printable(name)}: {printable(reason)}", file=sys.stderr)
    print(f"{len(found.suggestions)} clips: fill in the column label of {args.output}, then give it as --labelled")
    return 1 if found.damaged else 0
