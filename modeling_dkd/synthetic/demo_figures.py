"""Pictures of the demo; they need matplotlib."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..evaluation.figures import write_figures
from ..evaluation.measurement import Measurement
from .clips import ACTIONS, DEFAULT_TARGET, DOMAIN_SUMMARIES
from .shift_results import ShiftResult


def write_demo_figures(output: Path, found: Sequence[ShiftResult], measurements: Sequence[Measurement]) -> None:
    """The gain on every target, and accuracies and confusions of the default one, as PNG below `output`."""
    gain_figure(found).savefig(output / "gain_by_shift.png", dpi=120)
    of_default = [m for m in measurements if m.row["data"]["name"] == DEFAULT_TARGET]
    for _ in write_figures(output / "figures", of_default, {DEFAULT_TARGET: list(ACTIONS)}):
        pass


def gain_figure(found: Sequence[ShiftResult]) -> Figure:
    """Zero-shot and DKD on each target, side by side."""
    figure = Figure(figsize=(8.5, 1.6 + 0.42 * len(found)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for row, result in enumerate(reversed(found)):
        colour = "#1b7837" if result.gain > 0 else "#b2182b"
        axes.plot([100 * result.zero_shot, 100 * result.dkd], [row, row], color=colour, linewidth=2, alpha=0.6)
        axes.scatter(100 * result.zero_shot, row, s=36, facecolor="white", edgecolor="#8c8c8c", zorder=3)
        spread = 100 * result.gain_spread
        axes.errorbar(100 * result.dkd, row, xerr=spread, fmt="o", color=colour, capsize=3, markersize=6, zorder=4)
        right = 100 * max(result.zero_shot, result.dkd) + spread
        axes.annotate(f"{100 * result.gain:+.1f}", (right, row), (8, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(found)), [f"{r.target}: {DOMAIN_SUMMARIES[r.target]}" for r in reversed(found)])
    axes.set_xlabel("top-1, %")
    figure.suptitle("zero-shot (hollow) and DKD (filled; bar: sd of the gain over seeds)", fontsize=11)
    axes.margins(x=0.12, y=0.12)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure
