"""`dkd timeline`: what is seen when in long videos."""

import argparse
import os
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.counting import counted
from ..data.whole_files import whole_file
from .classes import require_classes
from .clip_listing import printable
from .command_options import (
    add_class_options,
    add_model_options,
    add_paths,
    add_work_options,
    asked_by,
    command_parser,
    duration,
    ended_at_once,
    run_command,
    share,
    tell,
)
from .output_places import folder_to_fill


if TYPE_CHECKING:  # seconds of imports, which --help need not wait for
    from .timelines import Timeline

# Bytes, of the 255 that a name may have: an ending comes behind it, and perhaps a number.
LONGEST_STEM = 230
FORMATS = ("csv", "json", "vtt", "srt", "png", "html")
DESCRIPTION = """\
What is seen when in long videos: windows of a few seconds are embedded once, the domain is fitted to them, and where
the label changes is decided for a whole video at once. Nothing is trained, no label is needed."""

EPILOG = """\
files, for each video one of each of the --formats
  csv, json   video, start, end, label, confidence of each segment; no label: none of the classes
  vtt, srt    captions
  png, html   a chart; a page with the video and the coloured timeline beneath it

examples
  captions and a page for one video
    dkd timeline monday.mp4 --classes activities.txt --model openai/clip-vit-base-patch16
  all videos of a folder, coarser
    dkd timeline cameras --classes "stacking boxes,sweeping" --window 10 --output timelines
  other classes or penalties take seconds: what is embedded is kept
    dkd timeline monday.mp4 --classes others.txt --switch-penalty 6 --formats csv"""


def build_parser() -> argparse.ArgumentParser:
    """All options, in groups."""
    parser = command_parser("timeline", DESCRIPTION, EPILOG)
    add_paths(parser)
    add_class_options(parser)
    add_model_options(parser)
    windows = parser.add_argument_group("windows")
    windows.add_argument("--window", type=duration, default=4.0, metavar="SECONDS", help="length of each (default: 4)")
    windows.add_argument(
        "--stride", type=duration, metavar="SECONDS", help="from one to the next (default: half of it)"
    )
    windows.add_argument(
        "--switch-penalty",
        type=penalty,
        metavar="NATS",
        help="what a change of label costs: 0 nothing, 4 some, 10 much (default: chosen without labels, so that "
        "windows predict their neighbours best)",
    )
    windows.add_argument(
        "--reject-below",
        type=share,
        metavar="X",
        help="a window whose known is below X counts as none of the classes; 0: each gets one (default: 0.5, and 0 "
        "where there are too few windows to learn what is known)",
    )
    domain = parser.add_argument_group("domain", "by default fitted to the windows, without any label")
    domain.add_argument("--domain", metavar="DIR", help="use a saved domain instead, or OWNER/NAME on the Hub")
    domain.add_argument("--no-adapt", action="store_true", help="use none: plain zero-shot")
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output", type=Path, default=Path("timelines"), metavar="DIR", help="folder (default: timelines)"
    )
    output.add_argument(
        "--formats", metavar="A,B", help=f"which files (default: {','.join(FORMATS)}; png needs matplotlib)"
    )
    add_work_options(parser, batches=False)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run it; the exit code."""
    return run_command(build_parser(), argv, _run)


def _run(args: argparse.Namespace) -> int:
    require_classes(args.classes, args.domain)
    formats, notes = chosen_formats(args.formats)
    folder_to_fill("--output", args.output)
    with ended_at_once():
        from .timelines import timeline

    found = timeline(
        args.paths,
        domain=args.domain,
        adapt=not args.no_adapt,
        window=args.window,
        stride=args.stride,
        switch_penalty=args.switch_penalty,
        reject_below=args.reject_below,
        **asked_by(args),
    )
    taken: set[str] = set()
    notes += found.notes
    for of_video in found.timelines:
        stem = free_stem(Path(of_video.path).stem, taken)
        for name in formats:
            write(of_video, args.output / f"{stem}.{name}")
        print(summary(of_video))
        print(f"  {printable(str(args.output / stem))}.{formats[-1]}")
        notes += [f"{of_video.video}: {of_video.remark}"] if of_video.remark else []
    return tell(found.damaged, notes)


def chosen_formats(given: str | None) -> tuple[list[str], list[str]]:
    """Which files are written, and a word on the chart where it cannot be.

    Raises:
        ValueError: A format that is asked for is none, or cannot be written.
    """
    names = FORMATS if given is None else [name.strip().lower() for name in given.split(",") if name.strip()]
    if not names or set(names) - set(FORMATS):
        raise ValueError(f"--formats {given!r}: choose from {', '.join(FORMATS)}")
    if "png" not in names or find_spec("matplotlib") is not None:
        return list(names), []
    why = 'the chart (png) needs matplotlib, which is not installed; run: pip install "modeling-dkd[eval]"'
    others = [name for name in names if name != "png"]
    if given is not None:
        raise ValueError(f"{why}, or leave it out: --formats {','.join(others) or 'html'}")
    return others, [f"no chart is written: {why}"]


def penalty(text: str) -> float:
    """A number of nats, 0 or more."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0, such as 4")
    return number


def free_stem(stem: str, taken: set[str]) -> str:
    """A name for the files of a video that no other video of the run has, whatever the case of letters."""
    if len(os.fsencode(stem)) > LONGEST_STEM:
        stem = os.fsencode(stem)[:LONGEST_STEM].decode(errors="ignore")
    name, number = stem, 1
    while name.casefold() in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name.casefold())
    return name


def write(found: "Timeline", path: Path) -> None:
    """One file of a timeline, its form by its ending."""
    from . import timeline_files

    if path.suffix == ".png":
        from .timeline_figure import timeline_figure

        figure = timeline_figure(found)
        with whole_file(path) as unfinished, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font")  # of a name, which then has a box in it
            figure.savefig(unfinished, dpi=120)
        return
    if path.suffix == ".html":
        from .timeline_player import player_page

        text = player_page(found, path.parent)
    elif path.suffix in (".vtt", ".srt"):
        text = {".vtt": timeline_files.webvtt, ".srt": timeline_files.srt}[path.suffix](found.segments)
    else:
        text = {".csv": timeline_files.csv_text, ".json": timeline_files.json_text}[path.suffix](found)
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")


def summary(found: "Timeline") -> str:
    """One line on a video."""
    from .timeline_files import clock

    labels = {s.label for s in found.segments} - {None}
    nothing = found.seconds_of(None)
    gaps = f", {clock(round(1000 * nothing))} of none of them" if nothing else ""
    many = f"{counted(len(found.segments), 'segment')} of {counted(len(labels), 'class')}"
    return f"{printable(found.video)}: {clock(round(1000 * found.duration))}, {many}{gaps}"
