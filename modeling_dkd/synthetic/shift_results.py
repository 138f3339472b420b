"""What the demo finds out about each kind of shift, and its table."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ..evaluation.measurement import Measurement
from ..evaluation.names import REFERENCE
from ..evaluation.report import Line
from .clips import DOMAIN_SUMMARIES


@dataclass(frozen=True)
class ShiftResult:
    """What DKD did on one target, accuracies as fractions.

    Attributes:
        target: A key of the synthetic domains.
        num_test: Test clips of each seed.
        zero_shot: Top-1 of plain zero-shot, mean over the seeds.
        dkd: The same of DKD.
        gain: Mean of the paired differences.
        gain_spread: Standard deviation of the paired difference between seeds.
        gain_error: Standard error of the gain, clips as the independent units.
    """

    target: str
    num_test: int
    zero_shot: float
    dkd: float
    gain: float
    gain_spread: float
    gain_error: float

    @property
    def verdict(self) -> str:
        """Whether knowing the domain helps here, beyond two standard errors."""
        if abs(self.gain) <= 2 * self.gain_error:
            return "no clear change"
        return "gains" if self.gain > 0 else "loses"


def shift_result(target: str, measurements: Sequence[Measurement], line: Line) -> ShiftResult:
    """Zero-shot and DKD on one target, with the spread of their paired difference over the seeds."""
    of_line = target, line.protocol
    rows = [m.row for m in measurements if (m.row["data"]["name"], m.row["protocol"]) == of_line]
    before, after = ([row["top1"] for row in rows if row["method"] == method] for method in (REFERENCE, "dkd"))
    gains = [b - a for a, b in zip(before, after, strict=True)]
    return ShiftResult(
        target=target,
        num_test=round(line.n),
        zero_shot=statistics.fmean(before),
        dkd=statistics.fmean(after),
        gain=statistics.fmean(gains),
        gain_spread=statistics.stdev(gains) if len(gains) > 1 else 0.0,
        gain_error=line.gain_error,
    )


def markdown_table(found: Sequence[ShiftResult]) -> str:
    """One line a target, figures in percent."""
    lines = [
        "| target | differs from the source in | test clips | zero-shot | DKD | gain, mean ± sd over seeds | |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    lines += [
        f"| {r.target} | {DOMAIN_SUMMARIES[r.target]} | {r.num_test} | {100 * r.zero_shot:.1f} | {100 * r.dkd:.1f} "
        f"| {100 * r.gain:+.1f} ± {100 * r.gain_spread:.1f} | {r.verdict} |"
        for r in found
    ]
    return "\n".join(lines)
