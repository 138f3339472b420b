"""Labels for a folder of clips, end to end: the command dkd recognise beside evaluate.py and beside the plain loop.

Each side is a command in a fresh process that keeps nothing of a former run: imports, loading, decoding in as many
processes as it takes by default, writing. Processor seconds are those of all processes that it starts.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tqdm import tqdm

from .backbones import save_backbone
from .plain_loop import FRAMES
from .raw_clips import CLIPS, copied_clips
from .rows import REPOSITORY, Row, compare


ROUNDS = 3
OURS, AGAIN = "dkd recognise", "dkd recognise, clips embedded before"
OTHERS = {
    "evaluate.py": "evaluate.py, which also measures four methods",
    "loop": "load_video + CLIPImageProcessor + CLIPModel, clip by clip, zero-shot labels alone",
}


class Spent(NamedTuple):
    """What a command took, seconds."""

    wall: float
    processor: float


def measure() -> list[Row]:
    """Clips a second and processor seconds."""
    num_clips = CLIPS["tiny"]
    with TemporaryDirectory() as scratch:
        spent = in_turn(commands(Path(scratch), num_clips), Path(scratch))
    size = f"{num_clips} clips x {FRAMES} frames, tiny"
    rates = {side: [num_clips / one.wall for one in rounds] for side, rounds in spent.items()}
    processor = {side: [one.processor for one in rounds] for side, rounds in spent.items()}
    rows = []
    for side, name in OTHERS.items():
        rows.append(compare(f"{OURS}, {size}", rates[OURS], name, rates[side], "clips/s"))
        rows.append(compare(f"{OURS}, {size}, processor time", processor[OURS], name, processor[side], "s"))
    rows.append(compare(f"{AGAIN}, {size}", rates[AGAIN], OURS, rates[OURS], "clips/s"))
    return rows


def commands(folder: Path, num_clips: int) -> dict[str, list[str]]:
    """What each side runs; ours writes its table and saves the domain."""
    model, clips = save_backbone("tiny", folder / "model"), folder / "clips"
    copied = copied_clips(clips, num_clips)
    classes = folder / "classes.txt"
    classes.write_text("".join(f"{name}\n" for name in sorted({name for _, name in copied})), encoding="utf-8")
    views = [f"--frames={FRAMES}x1x1", f"--cache_dir={folder / 'evaluate'}"]
    ours = ["-m", "modeling_dkd", "recognise", f"{clips}", f"--classes={classes}", f"--model={model}"]
    ours += [f"--frames={FRAMES}", f"--cache-dir={folder / 'recognise'}", f"--output={folder / 'table.csv'}"]
    ours += [f"--save-domain={folder / 'domain'}"]
    evaluate = ["evaluate.py", f"--model={model}", "--dataset=csv", f"--data_dir={clips / 'clips.csv'}"]
    evaluate += ["--transductive", "--protocols=full", *views]
    loop = ["-m", "benchmarks.plain_loop", f"{model}", f"{clips / 'clips.csv'}"]
    return {OURS: ours, "evaluate.py": evaluate, "loop": loop, AGAIN: ours}


def in_turn(sides: Mapping[str, list[str]], folder: Path) -> dict[str, list[Spent]]:
    """Each side in each round, another one first each time; ours again right after ours, with its cache."""
    spent: dict[str, list[Spent]] = {name: [] for name in sides}
    names = [name for name in sides if name != AGAIN]
    for index in tqdm(range(ROUNDS), desc=" / ".join(names), unit="round", leave=False):
        for name in names[index % len(names) :] + names[: index % len(names)]:
            for cache in ("recognise", "evaluate", "domain"):
                shutil.rmtree(folder / cache, ignore_errors=True)
            spent[name].append(run(sides[name]))
            if name == OURS:
                spent[AGAIN].append(run(sides[AGAIN]))
    return spent


def run(arguments: list[str]) -> Spent:
    """Run a command with this Python.

    Raises:
        RuntimeError: It ends with another code than 0.
    """
    command = [sys.executable, "-m", f"{__package__}.spent", sys.executable, *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    spent = json.loads(done.stdout)
    if spent["code"]:
        raise RuntimeError(f"{' '.join(arguments[:3])} ends with {spent['code']}: {done.stderr[-500:]}")
    return Spent(spent["wall"], spent["processor"])
