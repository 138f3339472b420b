"""Two figures a set: accuracy of each class before and after, and the confusions that changed most."""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from .measurement import Measurement
from .names import REFERENCE
from .tables import shortened


MOST_CLASSES = 40  # that stay legible in one figure
MOST_CONFUSIONS = 12  # in each direction
BEFORE, BETTER, WORSE = "#8c8c8c", "#1b7837", "#b2182b"


def write_figures(
    folder: str | os.PathLike, measurements: Sequence[Measurement], class_names: Mapping[str, list[str]]
) -> Iterator[Path]:
    """Write the PNGs of each set under the first protocol it was measured with, and yield their paths.

    Args:
        folder: Made where it is missing.
        measurements: All runs; the seeds of a protocol are counted together.
        class_names: For each set, one name a class.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, names in class_names.items():
        own = [m for m in measurements if m.row["data"]["name"] == name]
        protocol = own[0].row["protocol"]
        before, after = (
            sum(_confusions(m, len(names)) for m in own if m.row["protocol"] == protocol and m.row["method"] == method)
            for method in (REFERENCE, "dkd")
        )
        assert isinstance(before, Tensor)
        assert isinstance(after, Tensor)
        seeds = len({m.row["seed"] for m in own if m.row["protocol"] == protocol})
        title = f"{name}, {protocol}" + (f", {seeds} seeds together" if seeds > 1 else "")
        for kind, figure in (
            ("per_class", per_class_figure(before, after, names, title)),
            ("confusions", confusion_figure(before, after, names, title)),
        ):
            path = folder / f"{name}-{protocol}-{kind}.png"
            save_figure(figure, path)
            yield path


def per_class_figure(before: Tensor, after: Tensor, class_names: list[str], title: str) -> Figure:
    """Accuracy of each class under zero-shot and DKD, largest gain on top.

    Args:
        before: Confusion counts (K, K) of zero-shot, true class by row.
        after: The same of DKD.
        class_names: K names.
        title: What the counts are of.
    """
    counts = before.sum(1)
    accuracy = torch.stack([before.diag(), after.diag()]) / counts.clamp_min(1)
    present = counts.nonzero()[:, 0]
    order = present[(accuracy[1] - accuracy[0])[present].argsort(stable=True)].tolist()
    left_out = max(len(order) - MOST_CLASSES, 0)
    if left_out:
        order = [*order[: MOST_CLASSES // 2], None, *order[-MOST_CLASSES // 2 :]]
    old_mean, new_mean = (100 * float(counted.diag().sum() / counts.sum()) for counted in (before, after))
    title = f"{title}: zero-shot {old_mean:.1f} %, DKD {new_mean:.1f} %"
    figure, axes = _axes(len(order), title, "accuracy of the class, % (brackets: clips)")
    for row, k in enumerate(order):
        if k is None:
            text = f"{left_out} more classes, sorted between these"
            axes.text(50, row, text, ha="center", va="center", fontsize=8, style="italic")
        else:
            old, new = (100 * accuracy[:, k]).tolist()
            dumbbell(axes, row, old, new, more_is_better=True)
    axes.set_xlim(-2, 102)
    name_rows(axes, ["" if k is None else f"{shortened(class_names[k])} ({int(counts[k])})" for k in order], length=40)
    _legend(figure, axes, "better", "worse")
    return figure


def confusion_figure(before: Tensor, after: Tensor, class_names: list[str], title: str) -> Figure:
    """Pairs "true read as predicted" whose count fell or rose most; arguments as of `per_class_figure`."""
    change = (after - before).fill_diagonal_(0)
    flat = change.flatten()
    fallen = [i for i in flat.argsort(stable=True)[:MOST_CONFUSIONS].tolist() if flat[i] < 0]
    risen = [i for i in flat.argsort(descending=True, stable=True)[:MOST_CONFUSIONS].tolist() if flat[i] > 0]
    shown = [*risen, *reversed(fallen)]
    figure, axes = _axes(len(shown), title, "clips with this confusion")
    for row, index in enumerate(shown):
        old, new = float(before.flatten()[index]), float(after.flatten()[index])
        dumbbell(axes, row, old, new, more_is_better=False)
        beside = (max(old, new), row)
        axes.annotate(f"{new - old:+.0f}", beside, (6, 0), textcoords="offset points", va="center", fontsize=8)
    pairs = [divmod(index, len(class_names)) for index in shown]
    name_rows(axes, [f"{shortened(class_names[a])} read as {shortened(class_names[b])}" for a, b in pairs], length=70)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.08)
    axes.set_xlim(left=min(axes.get_xlim()[0], -0.5))
    if not shown:
        axes.text(0.5, 0.5, "no confusion changed", ha="center", va="center", transform=axes.transAxes)
    _legend(figure, axes, "confused less", "confused more")
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG; letters that the font lacks become boxes, without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(path, dpi=120)


def dumbbell(axes: Axes, row: int, old: float, new: float, more_is_better: bool) -> None:
    """A hollow dot at the old value, a filled one at the new, coloured by whether it is better."""
    colour = BEFORE if new == old else BETTER if (new > old) == more_is_better else WORSE
    axes.plot([old, new], [row, row], color=colour, linewidth=2, alpha=0.6, zorder=1)
    axes.scatter(old, row, s=26, facecolor="white", edgecolor=BEFORE, linewidth=1.5, zorder=2)
    axes.scatter(new, row, s=30, color=colour, zorder=3)


def _legend(figure: Figure, axes: Axes, better: str, worse: str) -> None:
    """What the dots mean, below the axes."""
    handles = [
        axes.scatter([], [], s=26, facecolor="white", edgecolor=BEFORE, linewidth=1.5, label="zero-shot"),
        axes.scatter([], [], s=30, color=BETTER, label=f"DKD, {better}"),
        axes.scatter([], [], s=30, color=WORSE, label=f"DKD, {worse}"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)


def _axes(num_rows: int, title: str, x_label: str) -> tuple[Figure, Axes]:
    """A figure with one line of text a row, drawn without a display."""
    figure = Figure(figsize=(8.5, 1.7 + 0.21 * max(num_rows, 4)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    figure.suptitle(title, fontsize=11, parse_math=False)
    axes.set_xlabel(x_label)
    axes.set_ylim(-0.7, max(num_rows, 1) - 0.3)
    axes.tick_params(axis="y", labelsize=8, length=0)
    axes.grid(axis="x", alpha=0.3)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _confusions(measured: Measurement, num_classes: int) -> Tensor:
    """Counts (K, K) float64, true class by row, predicted by column."""
    pairs = measured.labels * num_classes + measured.predictions
    return torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes).double()


def name_rows(axes: Axes, names: Sequence[str], length: int = 28, keep_end: bool = False) -> None:
    """Names beside rows 0, 1, ... of the axes, taken literally: a dollar sign is no formula."""
    labels = [shortened(name, length, keep_end) for name in names]
    axes.set_yticks(range(len(names)), labels, parse_math=False)
    axes.tick_params(axis="y", labelsize=8, length=0)
