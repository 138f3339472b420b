"""What is seen when in long videos: segments as tables, captions, pictures and a page with the video.

    dkd timeline monday.mp4 --classes activities.txt --output timelines
    dkd timeline cameras/ --classes "stacking boxes,driving a forklift,sweeping" --window 6 --stride 3

Windows are embedded once and kept, so other classes or penalties take seconds. The domain is fitted to the windows of
all videos, without labels; where the label changes is decided for a whole video at once.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .asked import add_options, asked


if TYPE_CHECKING:
    from .timelines import Timeline

FORMATS = ("csv", "json", "vtt", "srt", "png", "html")


def build_parser() -> argparse.ArgumentParser:
    """All options."""
    parser = argparse.ArgumentParser(
        prog="dkd timeline", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="files, folders, lists (.txt) or tables (.csv)")
    parser.add_argument(
        "--output", type=Path, default=Path("timelines"), metavar="DIR", help="where files go (default: timelines)"
    )
    parser.add_argument(
        "--formats", default=",".join(FORMATS), help=f"which, with commas between them (default: {','.join(FORMATS)})"
    )
    parser.add_argument("--window", type=float, default=4.0, metavar="SECONDS", help="of a window (default: 4)")
    parser.add_argument(
        "--stride", type=float, default=2.0, metavar="SECONDS", help="from one to the next (default: 2)"
    )
    parser.add_argument(
        "--switch-penalty",
        type=float,
        metavar="NATS",
        help="what a change of label costs: 0 none, 2 to 6 some, 20 much (default: chosen so that windows predict "
        "their neighbours best, without labels)",
    )
    parser.add_argument(
        "--reject-below",
        type=float,
        default=0.5,
        metavar="P",
        help="none of the classes where a window is known less than this; 0: every window gets a class (default: 0.5)",
    )
    add_options(parser, classes_required=True)
    return parser


def main(argv: list[str] | None = None) -> int:
    """The command; its exit code: 0 all done, 1 some videos could not be read, 2 something is to be changed."""
    options = build_parser().parse_args(argv)
    try:
        return run(options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def run(options: argparse.Namespace) -> int:
    """Timelines of all videos, written and told."""
    formats = [name.strip().lower() for name in options.formats.split(",") if name.strip()]
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown or not formats:
        raise ValueError(f"--formats {options.formats!r}: choose from {', '.join(FORMATS)}")
    if not options.classes and not options.domain:
        raise ValueError("which activities? give --classes FILE with one a line, or names with commas between them")
    from .timelines import timeline

    question = asked(options)
    found = timeline(
        options.videos,
        question.encoder,
        question.class_names,
        question.text_embeds,
        window=options.window,
        stride=options.stride,
        head=question.head,
        adapt=not options.no_adapt,
        switch_penalty=options.switch_penalty,
        reject_below=options.reject_below,
        cache_folder=options.cache,
    )
    options.output.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    for of_video in found.timelines:
        stem = free_stem(Path(of_video.path).stem, taken)
        for name in formats:
            write(of_video, options.output / f"{stem}.{name}")
        shown = options.output / f"{stem}.{'html' if 'html' in formats else formats[0]}"
        print(summary(of_video), f"-> {shown}")
        if of_video.remark:
            print(f"note: {of_video.video}: {of_video.remark}", file=sys.stderr)
    for name, reason in found.damaged.items():
        print(f"not read: {name}: {reason}", file=sys.stderr)
    return 1 if found.damaged else 0


def free_stem(stem: str, taken: set[str]) -> str:
    """A name for the files of a video that no other video of the run has, whatever the case of letters."""
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

        timeline_figure(found).savefig(path, dpi=120)
        return
    if path.suffix == ".html":
        from .timeline_player import player_page

        text = player_page(found, path.parent)
    elif path.suffix in (".vtt", ".srt"):
        text = {".vtt": timeline_files.webvtt, ".srt": timeline_files.srt}[path.suffix](found.segments)
    else:
        text = {".csv": timeline_files.csv_text, ".json": timeline_files.json_text}[path.suffix](found)
    path.write_text(text, encoding="utf-8", newline="\n")


def summary(found: "Timeline") -> str:
    """One line on a video."""
    from .timeline_files import clock

    labels = {s.label for s in found.segments} - {None}
    nothing = found.seconds_of(None)
    gaps = f", {clock(round(1000 * nothing))} of none of them" if nothing else ""
    many = f"{len(found.segments)} segments of {len(labels)} classes"
    return f"{found.video}: {clock(round(1000 * found.duration))}, {many}{gaps}"


if __name__ == "__main__":
    sys.exit(main())
