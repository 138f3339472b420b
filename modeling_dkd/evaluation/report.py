"""From measurements to what is kept: paired differences over the seeds of a row, and results.json."""

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

from ..data.whole_files import whole_file
from .measurement import Measurement
from .names import REFERENCE


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
        worst_gain: Least gain of a single seed: what one user with one domain may get.
        worst_ece_change: Largest difference of the calibration error to zero-shot of a single seed.
        seconds: Mean time of a run, fit and test together.
        peak_memory_mib: Largest growth of the process while it ran; None where the system does not tell.
        auroc: Of telling clips of the classes asked from others, mean over seeds, as `auroc_cosine`,
            `known_ece`, `rejected_unknown` and `rejected_known`; see `ranking.rejection`. None in other protocols than
            `open`.
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
    peak_memory_mib: float | None = None
    worst_gain: float | None = None
    worst_ece_change: float | None = None
    auroc: float | None = None
    auroc_cosine: float | None = None
    known_ece: float | None = None
    rejected_unknown: float | None = None
    rejected_known: float | None = None


def summarise(measurements: Sequence[Measurement]) -> list[Line]:
    """One line for each set, protocol and method, in the order in which they were measured."""
    groups: dict[tuple[str, str, str], list[Measurement]] = {}
    for measured in measurements:
        row = measured.row
        groups.setdefault((row["data"]["name"], row["protocol"], row["method"]), []).append(measured)
    for data, protocol, _ in groups:
        if (data, protocol, REFERENCE) not in groups:
            raise ValueError(f"{data}, protocol {protocol}: there is no row {REFERENCE!r} to compare the others with")
    return [_line(key, group, groups[(*key[:2], REFERENCE)]) for key, group in groups.items()]


def _line(key: tuple[str, str, str], group: list[Measurement], reference: list[Measurement]) -> Line:
    def mean(name: str, rows: list[Measurement] = group) -> float:
        return sum(m.row[name] for m in rows) / len(rows)

    top1 = torch.tensor([m.row["top1"] for m in group], dtype=torch.float64)
    gain, gain_error = paired_gain(
        [a.hits - b.hits for a, b in zip(group, reference, strict=True)], [m.clips for m in group]
    )

    def mean_if_there(name: str) -> float | None:
        return None if group[0].row.get(name) is None else mean(name)

    pairs = list(zip((m.row for m in group), (m.row for m in reference), strict=True))
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
        worst_gain=min(own["top1"] - plain["top1"] for own, plain in pairs),
        worst_ece_change=max(own["ece"] - plain["ece"] for own, plain in pairs),
        auroc=mean_if_there("auroc"),
        auroc_cosine=mean_if_there("auroc_cosine"),
        known_ece=mean_if_there("known_ece"),
        rejected_unknown=mean_if_there("rejected_unknown"),
        rejected_known=mean_if_there("rejected_known"),
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


def results(
    measurements: Sequence[Measurement],
    lines: Sequence[Line],
    described: dict[str, Any],
    searches: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """The contents of results.json: environment, one row a run, those of search, and the summary that tables print."""
    return summary(lines, described, searches) | {"rows": [m.row for m in measurements]}


def summary(
    lines: Sequence[Line], described: dict[str, Any], searches: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Results without the single runs: small enough to be kept under version control."""
    kept = [{key: _rounded(value) for key, value in vars(line).items() if value is not None} for line in lines]
    found = {"environment": described, "summary": kept}
    return found | {"search": list(searches)} if searches else found


def write_results(path: str | os.PathLike, contents: dict[str, Any]) -> None:
    """Write JSON in one go: a reader sees the old file or the whole new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(contents, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


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


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value
