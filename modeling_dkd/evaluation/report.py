"""From measurements to what is read: paired differences, tables, and results.json."""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .measurement import Measurement


REFERENCE = "zero-shot"
VERSIONED = (
    "accelerate",
    "evaluate",
    "huggingface_hub",
    "modeling-dkd",
    "numpy",
    "safetensors",
    "torch",
    "transformers",
)


@dataclass(frozen=True)
class Line:
    """One method under one protocol of one set, over its seeds; accuracies as fractions.

    Attributes:
        top1: Mean over seeds; `spread` is the standard deviation between seeds, 0 for one seed.
        gain: Mean of the paired differences of top-1 to zero-shot, on the same clips.
        gain_error: Standard error of `gain`, clips as the independent units: a clip tested under several seeds
            counts once.
        ece_change: Mean difference of the calibration error to zero-shot; below 0 is better.
        seconds: Mean time of a run, fit and test together.
        peak_memory_mib: Largest growth of the process while it ran; None where the system does not tell.
    """

    data: str
    protocol: str
    method: str
    num_seeds: int
    n: float
    top1: float
    spread: float
    gain: float
    gain_error: float
    top5: float
    mean_class: float
    ece: float
    ece_change: float
    seconds: float
    peak_memory_mib: float | None


def summarise(measurements: Sequence[Measurement]) -> list[Line]:
    """One line for each set, protocol and method, in the order in which they were measured."""
    groups: dict[tuple[str, str, str], list[Measurement]] = {}
    for measured in measurements:
        row = measured.row
        groups.setdefault((row["data"]["name"], row["protocol"], row["method"]), []).append(measured)
    return [_line(key, group, groups[(*key[:2], REFERENCE)]) for key, group in groups.items()]


def _line(key: tuple[str, str, str], group: list[Measurement], reference: list[Measurement]) -> Line:
    def mean(name: str, rows: list[Measurement] = group) -> float:
        return sum(m.row[name] for m in rows) / len(rows)

    top1 = torch.tensor([m.row["top1"] for m in group], dtype=torch.float64)
    gain, gain_error = paired_gain(
        [a.hits - b.hits for a, b in zip(group, reference, strict=True)], [m.clips for m in group]
    )
    peaks = [m.row["peak_memory_mib"] for m in group if m.row["peak_memory_mib"] is not None]
    return Line(
        *key,
        num_seeds=len(group),
        n=mean("n"),
        top1=float(top1.mean()),
        spread=float(top1.std()) if len(group) > 1 else 0.0,
        gain=gain,
        gain_error=gain_error,
        top5=mean("top5"),
        mean_class=mean("mean_class"),
        ece=mean("ece"),
        ece_change=mean("ece") - mean("ece", reference),
        seconds=mean("seconds"),
        peak_memory_mib=max(peaks, default=None),
    )


def paired_gain(differences: Sequence[Tensor], clips: Sequence[Tensor]) -> tuple[float, float]:
    """Mean over seeds of the mean paired difference, and its standard error with clips as clusters.

    error**2 = sum_clip ( sum_seed (d - mean_seed) / n_seed / S )**2, the sum over the seeds in which the clip occurs.
    With one seed this is the ordinary standard error of a mean (divided by n, not n - 1).

    Args:
        differences: For each of S seeds (n_seed,): right or wrong of one method minus that of the other.
        clips: For each seed (n_seed,) int64, which clip each difference belongs to.
    """
    means = [d.mean() for d in differences]
    shares = torch.zeros(int(max(c.max() for c in clips)) + 1, dtype=torch.float64)
    for difference, mean, clip in zip(differences, means, clips, strict=True):
        shares.index_add_(0, clip, (difference - mean) / len(difference) / len(differences))
    return float(torch.stack(means).mean()), float(shares.square().sum().sqrt())


def set_table(lines: Sequence[Line]) -> str:
    """The lines of one set as a table, figures in percent."""
    header = ("protocol", "method", "top-1", "sd", "gain", "SE", "top-5", "class", "ECE", "s", "MiB")
    rows: list[tuple[str, ...]] = []
    protocol = ""
    for line in lines:
        is_first = line.protocol != protocol
        protocol = line.protocol
        memory = "-" if line.peak_memory_mib is None else f"{line.peak_memory_mib:.0f}"
        is_reference = line.method == REFERENCE
        rows.append(
            (
                line.protocol if is_first else "",
                line.method,
                f"{100 * line.top1:.2f}",
                f"{100 * line.spread:.2f}" if line.num_seeds > 1 else "",
                "" if is_reference else f"{100 * line.gain:+.2f}",
                "" if is_reference else f"{100 * line.gain_error:.2f}",
                f"{100 * line.top5:.2f}",
                f"{100 * line.mean_class:.2f}",
                f"{100 * line.ece:.2f}",
                f"{line.seconds:.2f}",
                memory,
            )
        )
    return text_table(header, rows, num_left=2)


def summary_table(lines: Sequence[Line]) -> str:
    """Mean gain over zero-shot, worst row, calibration and cost of each method over all sets and protocols."""
    protocols = list(dict.fromkeys(line.protocol for line in lines))
    header = ("method", "rows", "mean gain", "SE", *protocols, "ECE", "worst ECE", "s", "MiB", "worst row", "where")
    rows = []
    for method in dict.fromkeys(line.method for line in lines):
        own = [line for line in lines if line.method == method]
        if method == REFERENCE:
            continue
        worst = min(own, key=lambda line: line.gain)
        error = sum(line.gain_error**2 for line in own) ** 0.5 / len(own)
        peaks = [line.peak_memory_mib for line in own if line.peak_memory_mib is not None]
        rows.append(
            (
                method,
                str(len(own)),
                f"{100 * _mean(line.gain for line in own):+.2f}",
                f"{100 * error:.2f}",
                *(f"{100 * _mean(line.gain for line in own if line.protocol == p):+.2f}" for p in protocols),
                f"{100 * _mean(line.ece_change for line in own):+.2f}",
                f"{100 * max(line.ece_change for line in own):+.2f}",
                f"{_mean(line.seconds for line in own):.2f}",
                f"{max(peaks):.0f}" if peaks else "-",
                f"{100 * worst.gain:+.2f}",
                f"{worst.data}, {worst.protocol}",
            )
        )
    return text_table(header, rows, num_left=1, last_left=True)


def against_best(lines: Sequence[Line], method: str, peers: Sequence[str]) -> str | None:
    """How far `method` is from the best of `peers` in each row, once more without `few`; None where one was not run.

    `few` stands apart: there peers that are fitted on the test see all of it, and `method` 64 clips.
    """
    top1 = {(line.data, line.protocol, line.method): line.top1 for line in lines}
    places = [(line.data, line.protocol) for line in lines if line.method == method]
    if not places or any((*place, peer) not in top1 for place in places for peer in peers):
        return None
    gaps = {place: top1[*place, method] - max(top1[*place, peer] for peer in peers) for place in places}
    said = [f"{method} against the better of {' and '.join(peers)}, row by row:"]
    others = {place: gap for place, gap in gaps.items() if place[1] != "few"}
    for title, chosen in (("all rows", gaps), ("without few", others if others != gaps else {})):
        if chosen:
            worst = min(chosen, key=lambda place: chosen[place])
            mean = 100 * _mean(chosen.values())
            said.append(f"  {title}: mean {mean:+.2f}, worst {100 * chosen[worst]:+.2f} ({', '.join(worst)})")
    return "\n".join(said)


def results(measurements: Sequence[Measurement], lines: Sequence[Line], described: dict[str, Any]) -> dict[str, Any]:
    """The contents of results.json: environment, one row a run, and the summary that the tables print."""
    return {
        "environment": described,
        "rows": [m.row for m in measurements],
        "summary": [{key: _rounded(value) for key, value in vars(line).items()} for line in lines],
    }


def write_results(path: str | os.PathLike, contents: dict[str, Any]) -> None:
    """Write JSON in one go: a reader sees the old file or the whole new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        unfinished.write_text(json.dumps(contents, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def environment(command: Sequence[str], inputs: Iterable[Path]) -> dict[str, Any]:
    """Everything needed to run this again: code, versions, machine, command and the inputs' SHA-256."""
    return {
        "commit": _commit(),
        "command": list(command),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in VERSIONED},
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "inputs": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in inputs},
    }


def _commit() -> str | None:
    """Commit of the code that runs, with `-dirty` when it was changed since; None outside a repository."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values) if values else float("nan")


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], num_left: int, last_left: bool = False) -> str:
    """Columns as wide as their longest cell; the first `num_left` to the left, figures to the right."""
    widths = [max(len(cells[i]) for cells in (header, *rows)) for i in range(len(header))]
    lines = []
    for cells in (header, ["-" * width for width in widths], *rows):
        left = [*range(num_left), *([len(header) - 1] if last_left else [])]
        padded = [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def shortened(name: str, length: int = 28, keep_end: bool = False) -> str:
    """At most `length` letters of a name, the last ones with `keep_end`, and a sign where some are left out."""
    if len(name) <= length:
        return name
    return f"…{name[1 - length :].lstrip(' ,')}" if keep_end else f"{name[: length - 1].rstrip(' ,')}…"
