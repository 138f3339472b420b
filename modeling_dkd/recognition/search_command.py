"""The clips, or the moments of long videos, that match a text best.

    dkd search "playing violin" archive/ --classes activities.txt --sheet found.html
    dkd search "somebody falls" cameras/ --window 4
    dkd search - archive/ --classes activities.txt          # one query a line, typed or piped in

Clips are embedded once and kept. With the classes of the domain, clips and texts are moved toward it, which finds other
texts better too; without them plain cosines are compared.
"""

import argparse
import csv
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .asked import add_options, asked


if TYPE_CHECKING:
    from .clip_search import Match, SearchIndex

COLUMNS = ("text", "rank", "score", "clip", "start", "end")


def build_parser() -> argparse.ArgumentParser:
    """All options."""
    parser = argparse.ArgumentParser(
        prog="dkd search", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", metavar="TEXT", help="what is to be seen; - reads one query a line from the input")
    parser.add_argument("paths", nargs="+", metavar="PATH", help="files, folders, lists (.txt) or tables (.csv)")
    parser.add_argument("--count", type=int, default=10, metavar="N", help="matches to show (default: 10)")
    parser.add_argument(
        "--window", type=float, metavar="SECONDS", help="search moments of this length in long videos, not clips"
    )
    parser.add_argument(
        "--stride", type=float, metavar="SECONDS", help="from moment to moment (default: half of --window)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help=f"matches as CSV: {', '.join(COLUMNS)}")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="matches as pictures: a .png or a .html file")
    parser.add_argument("--num-workers", type=int, default=2, metavar="N", help="decoding processes (default: 2)")
    add_options(parser, classes_required=False)
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
    """All queries answered."""
    check(options)
    from .clip_search import search_index

    question = asked(options)
    if not question.class_names and not options.no_adapt:
        print(
            "note: no --classes, so plain cosines are compared; the activities of the domain make search better",
            file=sys.stderr,
        )
    index = search_index(
        options.paths,
        question.encoder,
        question.class_names,
        None if options.no_adapt else question.text_embeds,
        head=question.encoder.new_head() if options.no_adapt else question.head,
        templates=templates(options),
        window=options.window,
        stride=options.stride,
        cache_folder=options.cache,
        num_workers=options.num_workers,
    )
    for name, reason in index.damaged.items():
        print(f"not read: {name}: {reason}", file=sys.stderr)
    found: list[tuple[str, Match]] = []
    for text in [options.text] if options.text != "-" else (line.strip() for line in sys.stdin):
        if not text and options.text == "-":
            continue
        start = time.perf_counter()
        matches = index.search(text, options.count)
        seconds = time.perf_counter() - start
        print(f"{text!r} in {kind(index)}, {seconds:.2f} s")
        for rank, match in enumerate(matches, start=1):
            print(f"{rank:3}  {match.score:6.3f}  {place(match)}", flush=True)
        found += [(text, match) for match in matches]
    write(options, found)
    return 1 if index.damaged else 0


def check(options: argparse.Namespace) -> None:
    """Refuse what would only show after the work.

    Raises:
        ValueError: A number or an ending makes no sense.
    """
    if options.count < 1:
        raise ValueError(f"--count {options.count}: ask for at least 1 match")
    if options.sheet and options.sheet.suffix.lower() not in (".png", ".html", ".htm"):
        raise ValueError(f"--sheet {options.sheet}: a sheet is a .png or a .html file")
    if options.stride is not None and options.window is None:
        raise ValueError("--stride goes with --window, which says how long a moment is")
    if not options.text.strip():
        raise ValueError("the text to search for is empty; say what is to be seen")


def templates(options: argparse.Namespace) -> list[str] | None:
    """Templates of queries, where the user gives some."""
    from ..data.prompts import load_templates

    return load_templates(options.templates) if options.templates else None


def kind(index: "SearchIndex") -> str:
    """What was searched."""
    what = "clips" if index.rows[0].start is None else "moments"
    return f"{len(index.rows)} {what}, {'adapted to the domain' if index.head.is_fitted else 'plain cosines'}"


def place(match: "Match") -> str:
    """Where a match is."""
    if match.start is None or match.end is None:
        return match.clip
    from .timeline_files import clock

    return f"{match.clip}  {clock(round(1000 * match.start))} - {clock(round(1000 * match.end))}"


def write(options: argparse.Namespace, found: list[tuple[str, "Match"]]) -> None:
    """The files that were asked for."""
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        with options.output.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(COLUMNS)
            ranks: dict[str, int] = {}
            for text, match in found:
                ranks[text] = ranks.get(text, 0) + 1
                times = ["" if t is None else f"{t:.3f}" for t in (match.start, match.end)]
                writer.writerow([text, ranks[text], f"{match.score:.4f}", match.clip, *times])
    if options.sheet:
        from .thumbnails import Picture, write_sheet

        options.sheet.parent.mkdir(parents=True, exist_ok=True)
        pictures = [
            Picture(
                match.path,
                None if match.start is None or match.end is None else (match.start + match.end) / 2,
                place(match),
                f"{match.score:.3f}" + (f"  {text}" if options.text == "-" else ""),
            )
            for text, match in found
        ]
        write_sheet(pictures, options.sheet, "all queries" if options.text == "-" else options.text)


if __name__ == "__main__":
    sys.exit(main())
