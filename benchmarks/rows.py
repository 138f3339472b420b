"""Rows of the benchmark table, and how two sides are timed in turn."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm


REPOSITORY = Path(__file__).resolve().parents[1]
RATES = ("clips/s", "texts/s")  # units of which more is better


@dataclass(frozen=True)
class Ratio:
    """How many times better ours is, over the rounds; under 1 it is worse."""

    median: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: What is done, with its size.
        ours: Our figure, the median of the rounds; None where there is none.
        other: What ours is measured against.
        others: Its figure; None where it could not be measured (the note says why).
        unit: Of both figures; less is better but for rates.
        ratio: None where a side is missing or a ratio says nothing.
        rounds: How often it was measured.
        note: What a reader must know.
    """

    what: str
    ours: float | None
    other: str
    others: float | None
    unit: str
    ratio: Ratio | None = None
    rounds: int = 1
    note: str = ""


def compare(what: str, ours: Sequence[float], other: str, others: Sequence[float], unit: str, note: str = "") -> Row:
    """A row of two sides that were measured in the same rounds."""
    pairs = list(zip(ours, others, strict=True))
    ratios = [a / b if unit in RATES else b / a for a, b in pairs if a > 0 and b > 0]
    ratio = Ratio(*(digits(f(ratios)) for f in (statistics.median, min, max))) if len(ratios) == len(pairs) else None
    return Row(
        what, digits(statistics.median(ours)), other, digits(statistics.median(others)), unit, ratio, len(pairs), note
    )


def digits(value: float) -> float:
    """The value to four significant digits."""
    return float(f"{value:.4g}")


def alternate(
    rounds: int,
    sides: Mapping[str, Callable[[], object]],
    warm_up: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each side in each round; a round runs all of them, another one first each time."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    uncounted = int(warm_up)
    for index in tqdm(range(rounds + uncounted), desc=" / ".join(sides), unit="round", leave=False):
        for name in names[index % len(names) :] + names[: index % len(names)]:
            start = clock()
            sides[name]()
            if index >= uncounted:
                seconds[name].append(clock() - start)
    return seconds


def milliseconds(seconds: Sequence[float]) -> list[float]:
    """Seconds as milliseconds."""
    return [1000 * value for value in seconds]


def clustered(num_samples: int, num_classes: int, dim: int) -> tuple[Tensor, Tensor]:
    """Unit embeddings around unit texts, (N, D) and (K, D), as far apart as CLIP's are; seed 0."""
    generator = torch.Generator().manual_seed(0)
    texts = torch.randn(num_classes, dim, generator=generator) / dim**0.5 + torch.ones(dim) / dim**0.5
    chosen = torch.randint(num_classes, (num_samples,), generator=generator)
    videos = texts[chosen] + torch.randn(num_samples, dim, generator=generator) / dim**0.5
    return normalize(videos, dim=1), normalize(texts, dim=1)


def peak_memory() -> int:
    """Largest resident memory of this process so far, bytes (Linux); what getrusage tells knows the parent's too."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])
