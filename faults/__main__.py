"""The command: run the campaign, print the table, write docs/faults.json and docs/faults.md."""

import argparse
import shlex
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from modeling_dkd.evaluation.report import environment

from .report import run_of, table, write_report
from .trials import Tally, Trial, run_trials


Run = Callable[[float, int, Path], list[Tally]]


def build_parser() -> argparse.ArgumentParser:
    """All options."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=sys.modules["faults"].__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", nargs="+", choices=CLASSES, metavar="CLASS", help=f"of {', '.join(CLASSES)}")
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="share of the counts (default: 1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of everything random (default: 0)")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="write faults.json and .md here; of what is left out, rows stay",
    )
    return parser


def videos(scale: float, seed: int, scratch: Path) -> list[Tally]:
    """1,000 damaged videos."""
    from .videos import damaged_videos

    count = max(1, round(1000 * scale))
    return [run_trials("damaged videos", damaged_videos(count, seed, scratch), count, seconds=60)]


def readings(scale: float, seed: int, scratch: Path) -> list[Tally]:
    """1,500 films of all containers and codecs, read beside the ffmpeg program."""
    from .readings import has_ffmpeg, readings

    if not has_ffmpeg():
        return [Tally("films beside ffmpeg", note="not tried, because the ffmpeg program is not installed")]
    trials = readings(max(1, round(1500 * scale)), seed, scratch)
    return [run_trials("films beside ffmpeg", trials, len(trials), seconds=60)]


def texts(scale: float, seed: int, scratch: Path) -> list[Tally]:
    """1,000 malformed configs, YAML, JSON, split lists, CSV files and prompts; and all of them sound."""
    from .texts import malformed_texts, sound_texts

    count, sound = max(1, round(1000 * scale)), list(sound_texts())
    return [
        run_trials("sound texts", sound, len(sound)),
        run_trials("malformed texts", malformed_texts(count, seed), count, seconds=60),
    ]


def caches(scale: float, seed: int, scratch: Path) -> list[Tally]:
    """500 bad embedding caches, shards and domains; and all of them sound."""
    from .caches import bad_caches, sound_caches

    count, sound = max(1, round(500 * scale)), list(sound_caches())
    return [
        run_trials("sound caches", sound, len(sound)),
        run_trials("bad embedding caches", bad_caches(count, seed), count, seconds=60),
    ]


def kills(scale: float, seed: int, scratch: Path) -> list[Tally]:
    """50 kills of each of embed, fit, train and publish."""
    from .kills import kill_trials

    trials = kill_trials(max(1, round(50 * scale)), seed, scratch)
    return [run_trials(f"killed: {name}", chosen, len(chosen)) for name, chosen in trials.items()]


def resources(scale: float, seed: int, scratch: Path) -> list[Tally]:
    """Full disks, read-only folders, no memory, two runs at once, a clock that goes back, few open files."""
    from .resources import Resources

    faults = Resources(scale, seed, scratch)
    classes = {
        "disk full": faults.disk_full,
        "read-only folders": faults.folders,
        "no memory for a batch": faults.memory,
        "two runs on one folder": faults.pairs,
        "clock going back": faults.clock,
        "10,000 clips, 64 open files": faults.open_files,
    }
    tallies = []
    for title, make in classes.items():
        trials = list(make())
        tallies.append(run_trials(title, trials, len(trials), seconds=1600))
        if title == "disk full" and not faults.mounts:
            tallies[-1].note = "no tmpfs could be mounted, so only limits on the size of files were tried"
    return tallies


def recognition_kills(scale: float, seed: int, scratch: Path) -> list[Tally]:
    """50 kills of each of recognise and watch."""
    from .recognition import kill_trials

    return _of_recognition(kill_trials(scale, seed, scratch))


def recognition_places(scale: float, seed: int, scratch: Path) -> list[Tally]:
    """Recognise and watch with full disks, read-only folders, odd names."""
    from .recognition import place_trials

    return _of_recognition(place_trials(scale, seed, scratch))


def recognition_many(scale: float, seed: int, scratch: Path) -> list[Tally]:
    """Recognise and watch on 10,000 clips with 64 open files."""
    from .recognition import many_trials

    return _of_recognition(many_trials(scale, seed, scratch))


def _of_recognition(trials: Mapping[str, Sequence[tuple[str, Trial]]]) -> list[Tally]:
    """Run trials of recognise and watch, in rows that say so."""
    return [
        run_trials(
            title if title.startswith("killed") else f"recognise and watch: {title}",
            chosen,
            len(chosen),
            seconds=1600,
        )
        for title, chosen in trials.items()
    ]


CLASSES: dict[str, Run] = {
    "videos": videos,
    "readings": readings,
    "texts": texts,
    "caches": caches,
    "kills": kills,
    "resources": resources,
    "recognition_kills": recognition_kills,
    "recognition_places": recognition_places,
    "recognition_many": recognition_many,
}


def main(argv: list[str] | None = None) -> int:
    """Run the campaign; 0 when nothing was lost and no message was wrong."""
    argv = sys.argv[1:] if argv is None else argv
    args = build_parser().parse_args(argv)
    torch.set_num_threads(1)  # no thread of torch may be running where children are forked
    tqdm.monitor_interval = 0
    tqdm.set_lock(threading.RLock())  # its own is shared with the children, which are killed while they hold it
    tallies: list[Tally] = []
    # Before the first report is written: the folder may be under git.
    run = run_of(shlex.join(["python", "-m", "faults", *argv]), environment(["faults"], []))
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        for name in args.only or CLASSES:
            folder = Path(scratch) / name
            folder.mkdir()
            tallies += [replace(tally, run=run) for tally in CLASSES[name](args.scale, args.seed, folder)]
            if args.output:  # of what is done so far: the whole may take long
                write_report(args.output, tallies)
    print(table(tallies))
    return int(any(tally.lost or tally.wrong_message for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
