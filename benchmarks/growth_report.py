"""The page and the picture of growth.py, from what it measured."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from modeling_dkd.evaluation.figures import save_figure


# By how much an exponent may exceed what is allowed: caches that overflow, and noise.
TOLERANCE = 0.15
# Less growth of memory than this, MiB, is not counted exactly by the system.
LEAST_MEMORY = 2.0
SECONDS, MEMORY = "seconds", "mib"
COLOURS = {SECONDS: "#1b7837", MEMORY: "#762a83"}


def too_fast(row: Mapping[str, Any]) -> list[str]:
    """Which of time and memory grow faster than they may."""
    return [
        kind
        for kind in ("time", "memory")
        if row[f"{kind}_exponent"] is not None and row[f"{kind}_exponent"] > row[f"{kind}_limit"] + TOLERANCE
    ]


def markdown(report: Mapping[str, Any]) -> str:
    """The page of the report."""
    environment = report["environment"]
    lines = [
        "# How time and memory grow",
        "",
        f"`make growth` (`python benchmarks/growth.py`), one thread, "
        f"torch {environment['torch']}. An exponent is the slope of log cost over log size in the upper half "
        "of the range: 1 grows like the input, 0 not at all. Constant costs pull it down, so it is compared with "
        "the most that is in order, in brackets. Memory is the growth of the process at its peak; below "
        f"{LEAST_MEMORY:g} MiB it has no exponent. The figures are in [growth.json](growth.json).",
        "",
        "![curves](growth.png)",
        "",
        "| work | varied | from, to | seconds | exponent | MiB | exponent | why | |",
        "|---|---|---:|---:|---:|---:|---:|---|---|",
    ]
    for row in report["curves"].values():
        faster = too_fast(row)
        lines.append(
            f"| {row['work']} | {row['varied']} | {row['sizes'][0]:,}, {row['sizes'][-1]:,} "
            f"| {_ends(row['seconds'])} | {compared(row, 'time')} | {_ends(row['mib'])} | {compared(row, 'memory')} "
            f"| {row['reason']} | {'**' + ' and '.join(faster) + ' too fast**' if faster else 'in order'} |"
        )
    return "\n".join(lines) + "\n"


def _ends(values: Sequence[float] | None) -> str:
    """First and last value, two digits that count."""
    return "not known" if not values else ", ".join(f"{float(f'{v:.2g}'):g}" for v in (values[0], values[-1]))


def compared(row: Mapping[str, Any], kind: str) -> str:
    """An exponent with its limit."""
    found = row[f"{kind}_exponent"]
    return f"{'-' if found is None else f'{found:.2f}'} ({row[f'{kind}_limit']:g})"


def growth_figure(report: Mapping[str, Any]) -> Figure:
    """Small multiples: seconds and MiB over the size, both logarithmic, with the fitted slope over the upper half."""
    rows = list(report["curves"].values())
    columns = min(3, len(rows))
    height = -(-len(rows) // columns)
    figure = Figure(figsize=(4.4 * columns, 0.4 + 3.0 * height), layout="constrained")
    FigureCanvasAgg(figure)
    for place, row in enumerate(rows):
        axes = figure.add_subplot(height, columns, place + 1)
        axes.set_title(_wrapped(row["work"]), fontsize=8.5, parse_math=False)
        axes.set_xlabel(row["varied"], fontsize=8.5)
        _draw(axes, row, SECONDS, row["time_exponent"])
        if row["mib"]:
            _draw(axes.twinx(), row, MEMORY, row["memory_exponent"])
    return figure


def _draw(axes: Axes, row: Mapping[str, Any], kind: str, slope: float | None) -> None:
    """One of the two curves on axes of its own, which span at least two decades so that noise looks like noise."""
    sizes, costs, colour = row["sizes"], [max(value, 1e-9) for value in row[kind]], COLOURS[kind]
    label = {SECONDS: "seconds", MEMORY: "MiB at the peak"}[kind]
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.plot(sizes, costs, color=colour, marker="o", markersize=3.5, linewidth=1.5)
    middle = (min(costs) * max(costs)) ** 0.5
    axes.set_ylim(min(min(costs) / 1.5, middle / 10), max(max(costs) * 1.5, middle * 10))
    told = "no exponent" if slope is None else f"exponent {slope:.2f}"
    axes.set_ylabel(f"{label}, {told}", fontsize=8.5, color=colour)
    axes.tick_params(axis="both", labelsize=8)
    axes.tick_params(axis="y", colors=colour)
    axes.grid(axis="both", alpha=0.25 if kind == SECONDS else 0)
    axes.spines["top"].set_visible(False)


def _wrapped(text: str) -> str:
    """In lines of about 45 letters."""
    lines = [""]
    for word in text.split():
        lines[-1:] = [f"{lines[-1]} {word}".strip()] if len(lines[-1]) + len(word) < 48 else [lines[-1], word]
    return "\n".join(lines)


def write_report(report: Mapping[str, Any], folder: Path) -> None:
    """JSON, page and figure."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "growth.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (folder / "growth.md").write_text(markdown(report), encoding="utf-8")
    save_figure(growth_figure(report), folder / "growth.png")
