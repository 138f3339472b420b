"""`dkd recognise` and `dkd watch` killed, without room, rights and open files, and on names of all kinds.

What is left is compared with a run that nothing happened to: the table row by row, the domain bit by bit. Watch is
run with --once, a few clips at a time, so that kills fall between what it embeds, learns and writes.
"""

import csv
import os
import random
import resource
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from modeling_dkd.cli import main
from modeling_dkd.domain_file import DOMAIN_FILE
from modeling_dkd.recognition import folder_watch
from modeling_dkd.recognition.saved_domain import load_domain
from tests.recognition.colour_clips import COLOURS, write_clip, write_clips

from .kills import killed_and_resumed, undisturbed
from .resources import can_mount, file_limit, full_disk, read_only
from .runs import Operation, digest
from .trials import LOST, SURVIVED, Trial, Verdict, in_child


ENCODER = Path(__file__).resolve().parents[1] / "tests/recognition/own_encoder.py"
NUM_CLIPS = 24
# Of what names of files are made: letters of several scripts, spaces, line breaks, quotes, what shells and HTML know.
CHARACTERS = [*"aZ9éßя語 \n\t'\"`;&|<>$(){}[]*?#%!=+-,.~\\^@:", "‮", "👍🏽", "é", "\udce9"]


def options_of(clips: Path, folder: Path) -> list[str]:
    """What both commands are given."""
    options = {"--classes": "red,green,blue", "--model": f"{ENCODER}:ColourEncoder", "--cache-dir": folder / "cache"}
    options |= {"--output": folder / "table.csv", "--batch-size": 3, "--num-workers": 0}
    return [str(clips), *(str(part) for option in options.items() for part in option)]


def recognising(clips: Path) -> Operation:
    """Dkd recognise, which saves its domain."""

    def run(folder: Path, again: bool) -> int:
        return main(["recognise", *options_of(clips, folder), "--save-domain", str(folder / "run")])

    def left(folder: Path) -> dict[str, Any]:
        return {name: digest(folder / name) for name in ("table.csv", f"run/{DOMAIN_FILE}")}

    return Operation("recognise", run, left)


def watching(clips: Path) -> Operation:
    """Dkd watch --once, whose domain learns."""

    def run(folder: Path, again: bool) -> int:
        folder_watch.CLIPS_AT_ONCE = 4
        once = ["--once", "--settle", "0", "--interval", "0.01", "--domain", str(folder / "run")]
        return main(["watch", *options_of(clips, folder), *once])

    def left(folder: Path) -> dict[str, Any]:
        if not (folder / "table.csv").is_file() or not (folder / "run" / DOMAIN_FILE).is_file():
            return {"table and domain": "absent"}
        domain = load_domain(folder / "run")
        learned = [len(domain.learned), round(float(domain.head.num_samples), 3)]
        return {"clips": sorted(row["clip"] for row in rows_of(folder / "table.csv")), "learned": learned}

    return Operation("watch", run, left)


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def odd_names(seed: int, scratch: Path) -> Verdict:
    """Clips with names at random: each stands in the table once, as it is, and in watch's table after a second run."""
    rng = random.Random(seed)
    names: set[str] = set()
    while len(names) < 12:
        name = (("".join(rng.choices(CHARACTERS, k=rng.randint(1, 12)))).lstrip(".") or "x") + ".avi"
        names.add(name if len(os.fsencode(name)) < 250 else "long.avi")
    for number, name in enumerate(sorted(names)):
        write_clip(scratch / "clips" / name, list(COLOURS)[number % 3], number)
    expected = sorted(name.encode("utf-8", "backslashreplace").decode() for name in names)
    recognise, watch = recognising(scratch / "clips"), watching(scratch / "clips")
    for operation, prefix in ((recognise, f"{scratch}/clips/"), (watch, ""), (watch, "")):
        ended = in_child(partial(operation.run, scratch / operation.name, False))
        if ended.how != "returned" or ended.value != 0:
            return Verdict(LOST, f"{operation.name} {ended.how} {ended.value}: {ended.shown[-300:]}")
        table = rows_of(scratch / operation.name / "table.csv")
        found = sorted(row["clip"].removeprefix(prefix) for row in table if row["label"])
        if found != expected:
            return Verdict(LOST, f"{operation.name}: {found} instead of {expected}"[:900])
    return Verdict(SURVIVED)


def few_open_files(num_clips: int, command: Callable[[Path], Operation], scratch: Path) -> Verdict:
    """Recognise many clips, links to one file, with 64 open files allowed."""
    clips = scratch / "clips"
    clips.mkdir()
    write_clip(scratch / "red.avi", "red", frames=3)
    for number in range(num_clips):
        os.link(scratch / "red.avi", clips / f"{number:05d}.avi")
    operation = command(clips)

    def limited() -> int:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        return operation.run(scratch, False)

    ended = in_child(limited, seconds=1500)
    if ended.how != "returned" or ended.value != 0:
        return Verdict(LOST, f"{operation.name} {ended.how} {ended.value}: {ended.shown[-300:]}")
    clips_in = {row["clip"] for row in rows_of(scratch / "table.csv") if row["label"] == "red"}
    return Verdict(SURVIVED) if len(clips_in) == num_clips else Verdict(LOST, f"{len(clips_in)} of {num_clips} clips")


def kill_trials(scale: float, seed: int, scratch: Path) -> dict[str, list[tuple[str, Trial]]]:
    """50 kills of each command."""
    rng = random.Random(seed)
    return {
        f"killed: {operation.name}": [
            _kill(operation, expected, seconds, number, rng) for number in range(_count(50, scale))
        ]
        for operation, expected, seconds in _undisturbed(scratch)
    }


def place_trials(scale: float, seed: int, scratch: Path) -> dict[str, list[tuple[str, Trial]]]:
    """Full disks, folders that cannot be written to, and names at random."""
    rng, mounts = random.Random(seed), can_mount(scratch)
    trials: dict[str, list[tuple[str, Trial]]] = {"disk full": [], "read-only folders": []}
    for operation, expected, _ in _undisturbed(scratch):
        largest = max(p.stat().st_size for p in (scratch / operation.name).rglob("*") if p.is_file())
        for number in range(_count(10, scale)):
            size = int(rng.uniform(0.02, 1.2) * largest)
            trial = partial(full_disk, operation, expected, max(16384, 3 * size // 4096 * 4096))
            if not mounts or number % 2:
                trial = partial(file_limit, operation, expected, size)
            trials["disk full"].append((f"{operation.name} {number}, {size} bytes", trial))
        trials["read-only folders"].append((operation.name, partial(read_only, operation, expected)))
    trials["odd names"] = [(str(number), partial(odd_names, seed + number)) for number in range(_count(50, scale))]
    return trials


def many_trials(scale: float, seed: int, scratch: Path) -> dict[str, list[tuple[str, Trial]]]:
    """10,000 clips with 64 open files, for each command."""
    many = max(50, round(10_000 * scale))
    trials: list[tuple[str, Trial]] = [
        (f"{make.__name__} {many} clips", partial(few_open_files, many, make)) for make in (recognising, watching)
    ]
    return {"10,000 clips, 64 open files": trials}


def _undisturbed(scratch: Path) -> Iterator[tuple[Operation, dict[str, Any], float]]:
    """Each command, what it leaves when nothing happens to it, and the seconds that it takes."""
    write_clips(scratch / "clips", NUM_CLIPS)
    for make in (recognising, watching):
        operation = make(scratch / "clips")
        yield operation, *undisturbed(operation, scratch / operation.name)


def _kill(
    operation: Operation, expected: dict[str, Any], seconds: float, number: int, rng: random.Random
) -> tuple[str, Trial]:
    """One kill, of every third trial two."""
    moments = tuple(seconds * rng.random() for _ in range(1 + (number % 3 == 2)))
    name = f"{number} after {', '.join(f'{moment:.3f}' for moment in moments)} of {seconds:.3f} s"
    return name, partial(killed_and_resumed, operation, expected, moments)


def _count(whole: int, scale: float) -> int:
    return max(1, round(whole * scale))
