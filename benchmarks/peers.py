"""DKD beside transductive peers, TransCLIP and StatA, as the clips grow: seconds and memory, each in a process alone.

python -m benchmarks.peers transclip 1000      # one measurement, as JSON: seconds and MiB that the process grew by
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import torch
from tqdm import tqdm

from modeling_dkd.evaluation.measurement import growth_of_memory
from modeling_dkd.evaluation.methods.dkd import dkd
from modeling_dkd.evaluation.methods.peers import stata, transclip
from modeling_dkd.evaluation.protocols import Method, Task

from .rows import REPOSITORY, Row, clustered, compare


CLASSES, DIM = 100, 512
ROUNDS = {1_000: 5, 10_000: 3, 100_000: 1}
LIMIT_SECONDS = 300
METHODS: dict[str, Method] = {"dkd": dkd, "transclip": transclip, "stata": stata}
NAMES = {"transclip": "TransCLIP", "stata": "StatA"}

Found = dict[str, float] | str  # seconds and mebibytes, or why there are none


def measure() -> list[Row]:
    """All three methods in turn at every size; what does not finish is told as a row."""
    rows = []
    total = sum(ROUNDS.values()) * len(METHODS)
    with tqdm(total=total, desc="DKD / TransCLIP / StatA", unit="run", leave=False) as progress:
        for size, rounds in ROUNDS.items():
            found: dict[str, list[Found]] = {method: [] for method in METHODS}
            for _ in range(rounds):
                for method in METHODS:
                    found[method].append(run_alone(method, size))
                    progress.update()
            rows += rows_of(size, found)
    return rows


def rows_of(size: int, found: dict[str, list[Found]]) -> list[Row]:
    """Time and memory of DKD (fit and predict) against both peers at one size."""
    rows = []
    ours = found["dkd"]
    for peer, name in NAMES.items():
        for figure, unit, what in (("seconds", "s", "fit and predict"), ("mebibytes", "MiB", "memory growth")):
            title = f"DKD {what}, {size:,} x {DIM}, {CLASSES} classes"
            mine = [run[figure] for run in ours if isinstance(run, dict)]
            theirs = [run[figure] for run in found[peer] if isinstance(run, dict)]
            if len(mine) == len(theirs) == len(ours):
                rows.append(compare(title, mine, name, theirs, unit))
            else:
                failed = [run for run in (*ours, *found[peer]) if isinstance(run, str)]
                own = round(statistics.median(mine), 3) if mine else None
                other = round(statistics.median(theirs), 3) if theirs else None
                rows.append(Row(title, own, name, other, unit, rounds=len(ours), note="; ".join(sorted(set(failed)))))
    return rows


def run_alone(method: str, size: int) -> Found:
    """One measurement in a process of its own, so that no allocator hides another's growth."""
    command = [sys.executable, "-m", "benchmarks.peers", method, str(size)]
    try:
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        return f"{method} does not finish within {LIMIT_SECONDS} s"
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"ended by signal {-done.returncode}"])[-1]
        return f"{method} fails: {last[:150]}"
    return json.loads(done.stdout)


def task_of(size: int) -> Task:
    """Clips around 100 texts, which are domain and test at once."""
    videos, texts = clustered(size, CLASSES, DIM)
    return Task(videos, videos, texts)


@torch.no_grad()
def main() -> None:
    """Print seconds and memory of one method at one size."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("clips", type=int)
    options = parser.parse_args()
    method = METHODS[options.method]
    method(task_of(200))  # threads and lazy imports, which are not the method's
    task = task_of(options.clips)
    start = time.perf_counter()
    _, mebibytes = growth_of_memory(lambda: method(task))
    print(json.dumps({"seconds": time.perf_counter() - start, "mebibytes": mebibytes or 0.0}))


if __name__ == "__main__":
    main()
