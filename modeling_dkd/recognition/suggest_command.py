"""Which clips to label next: a table to fill in.

    dkd suggest archive/ --classes activities.txt --count 20 --output labels.csv --sheet look.html
    # fill in the column label of labels.csv, then
    dkd recognise archive/ --classes activities.txt --labelled labels.csv --output recognised.csv

Chosen are the clips that stand for most of what the model is not sure of, no two of one kind. Clips that --labelled
names already are not chosen again.
"""

import argparse
import csv
import sys
from pathlib import Path

from .asked import add_options, asked


COLUMNS = ("clip", "label", "guess", "confidence")


def build_parser() -> argparse.ArgumentParser:
    """All options."""
    parser = argparse.ArgumentParser(
        prog="dkd suggest", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="files, folders, lists (.txt) or tables (.csv)")
    parser.add_argument("--count", type=int, default=20, metavar="N", help="clips to label (default: 20)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("labels.csv"),
        metavar="FILE",
        help=f"CSV with the columns {', '.join(COLUMNS)}, label empty (default: labels.csv)",
    )
    parser.add_argument("--labelled", type=Path, metavar="FILE", help="CSV (clip,label) of what is labelled already")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="the clips as pictures: a .png or a .html file")
    parser.add_argument("--force", action="store_true", help="write over a table that is there")
    parser.add_argument("--num-workers", type=int, default=2, metavar="N", help="decoding processes (default: 2)")
    add_options(parser, classes_required=True)
    return parser


def main(argv: list[str] | None = None) -> int:
    """The command; its exit code: 0 all done, 1 some clips could not be read, 2 something is to be changed."""
    options = build_parser().parse_args(argv)
    try:
        return run(options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def run(options: argparse.Namespace) -> int:
    """The table written, and what to do with it told."""
    if not options.classes and not options.domain:
        raise ValueError("which activities? give --classes FILE with one a line, or names with commas between them")
    if options.output.exists() and not options.force:
        raise ValueError(f"{options.output} is there already, perhaps with labels in it; name another or add --force")
    if options.sheet and options.sheet.suffix.lower() not in (".png", ".html", ".htm"):
        raise ValueError(f"--sheet {options.sheet}: a sheet is a .png or a .html file")
    from .classes import read_labels
    from .clip_listing import list_clips
    from .label_suggestions import suggest

    question = asked(options)
    labels = (
        read_labels(options.labelled, list_clips(options.paths), question.class_names) if options.labelled else None
    )
    found = suggest(
        options.paths,
        question.encoder,
        question.class_names,
        question.text_embeds,
        count=options.count,
        labels=labels,
        cache_folder=options.cache,
        num_workers=options.num_workers,
    )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([s.clip, "", s.guess, f"{s.confidence:.4f}"] for s in found.suggestions)
    if options.sheet:
        from .thumbnails import Picture, write_sheet

        options.sheet.parent.mkdir(parents=True, exist_ok=True)
        pictures = [
            Picture(s.path, None, s.clip, f"{s.guess}? ({100 * s.confidence:.0f} %)") for s in found.suggestions
        ]
        write_sheet(pictures, options.sheet, f"{len(pictures)} clips to label")
    for name, reason in found.damaged.items():
        print(f"not read: {name}: {reason}", file=sys.stderr)
    print(
        f"{len(found.suggestions)} clips to label in {options.output}: fill in the column label, and hand it to "
        f"dkd recognise --labelled {options.output}"
    )
    return 1 if found.damaged else 0


if __name__ == "__main__":
    sys.exit(main())
