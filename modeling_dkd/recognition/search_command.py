"""`dkd search`: the clips, or the moments of long videos, that match a text best."""

import argparse
import csv
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.counting import counted
from ..data.whole_files import whole_file
from .clip_listing import printable
from .command_options import (
    add_class_options,
    add_model_options,
    add_paths,
    add_work_options,
    asked_by,
    batches_of,
    command_parser,
    duration,
    ended_at_once,
    positive,
    run_command,
    tell,
)
from .output_places import SHEET_ENDINGS, file_to_write


if TYPE_CHECKING:  # seconds of imports, which --help need not wait for
    from .clip_search import Match, SearchIndex

COLUMNS = ("text", "rank", "score", "clip", "start", "end")
DESCRIPTION = """\
The clips, or the moments of long videos, that match a text best. Clips are embedded once and kept. Where the classes
of the domain are named, clips and texts are moved toward it, texts that name none of these classes too; without
classes plain cosines are compared, which is the best that can be done then."""

EPILOG = """\
score: cosine of the embeddings of text and clip, -1 to 1; it ranks what one text finds, and says nothing across texts

examples
  clips of a folder, with a page to look at
    dkd search "playing violin" archive --classes activities.txt --model openai/clip-vit-base-patch16 --sheet s.html
  moments of long videos
    dkd search "somebody falls" cameras --window 4
  one query a line, typed or piped in
    dkd search - archive --classes activities.txt"""


def build_parser() -> argparse.ArgumentParser:
    """All options, in groups."""
    parser = command_parser("search", DESCRIPTION, EPILOG)
    parser.add_argument("text", metavar="TEXT", help="what is to be seen; - reads one query a line from the input")
    add_paths(parser)
    parser.add_argument("--count", type=positive, default=10, metavar="N", help="matches to show (default: 10)")
    parser.add_argument("--window", type=duration, metavar="SECONDS", help="search moments of this length, not clips")
    parser.add_argument(
        "--stride", type=duration, metavar="SECONDS", help="from one to the next (default: half of it)"
    )
    add_class_options(parser)
    add_model_options(parser)
    parser.add_argument(
        "--domain", metavar="DIR", help="a saved domain, or OWNER/NAME on the Hub (default: fitted to these clips)"
    )
    output = parser.add_argument_group("output")
    output.add_argument("--output", type=Path, metavar="FILE", help=f"CSV with the columns {', '.join(COLUMNS)}")
    output.add_argument("--sheet", type=Path, metavar="FILE", help="matches as pictures: a .png or a .html file")
    add_work_options(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run it; the exit code."""
    return run_command(build_parser(), argv, _run)


def _run(args: argparse.Namespace) -> int:
    if args.stride is not None and args.window is None:
        raise ValueError("--stride goes with --window, which says how long a moment is")
    if not args.text.strip():
        raise ValueError("the text to search for is empty; say what is to be seen")
    if args.output is not None:
        file_to_write("--output", args.output, (".csv",))
    if args.sheet is not None:
        file_to_write("--sheet", args.sheet, SHEET_ENDINGS)
    with ended_at_once():
        from .clip_search import search_index

    index = search_index(
        args.paths, domain=args.domain, window=args.window, stride=args.stride, **asked_by(args), **batches_of(args)
    )
    plain = "no --classes, so plain cosines are compared; with the classes of the domain more is found"
    code = tell(index.damaged, [*index.notes, *([] if index.head.is_fitted else [plain])])
    found: list[tuple[str, Match]] = []
    for text in [args.text] if args.text != "-" else filter(None, map(str.strip, sys.stdin)):
        start = time.perf_counter()
        matches = index.search(text, args.count)
        print(f"{printable(text)}: {kind(index)}, {time.perf_counter() - start:.2f} s")
        for rank, match in enumerate(matches, start=1):
            print(f"{rank:3}  {match.score:6.3f}  {printable(place(match))}", flush=True)
        found += [(text, match) for match in matches]
    write(args, found)
    return code


def kind(index: "SearchIndex") -> str:
    """What was searched."""
    what = counted(len(index.rows), "clip" if index.rows[0].start is None else "moment")
    return f"{what}, {'adapted to the domain' if index.head.is_fitted else 'plain cosines'}"


def place(match: "Match") -> str:
    """Where a match is."""
    if match.start is None or match.end is None:
        return match.clip
    from .timeline_files import clock

    start, end = (f"{clock(t)}.{t // 100 % 10}" for t in (round(1000 * match.start), round(1000 * match.end)))
    return f"{match.clip}  {start} - {end}"


def write(args: argparse.Namespace, found: list[tuple[str, "Match"]]) -> None:
    """The files that were asked for."""
    if args.output:
        with whole_file(args.output) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(COLUMNS)
            ranks: dict[str, int] = {}
            for text, match in found:
                ranks[text] = ranks.get(text, 0) + 1
                times = ["" if t is None else f"{t:.3f}" for t in (match.start, match.end)]
                writer.writerow([text, ranks[text], f"{match.score:.4f}", match.clip, *times])
    if args.sheet:
        from .thumbnails import Picture, write_sheet

        pictures = [
            Picture(
                match.path,
                None if match.start is None or match.end is None else (match.start + match.end) / 2,
                place(match),
                f"{match.score:.3f}" + (f"  {text}" if args.text == "-" else ""),
            )
            for text, match in found
        ]
        write_sheet(pictures, args.sheet, "all queries" if args.text == "-" else args.text)
