"""A timeline as a picture: when each class is seen, one row a class."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .timeline_files import clock
from .timelines import Timeline


MAX_ROWS = 40
MAX_NAME = 40


def timeline_figure(found: Timeline) -> Figure:
    """Rows of the classes that occur, in the order in which they are seen first; darker is surer."""
    rows = list(dict.fromkeys(s.label for s in found.segments if s.label is not None))
    longest = sorted(rows, key=lambda name: -found.seconds_of(name))[:MAX_ROWS]
    rows = [name for name in rows if name in longest]
    figure = Figure(figsize=(10, 1.4 + 0.3 * max(1, len(rows))), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for row, name in enumerate(rows):
        of_class = [s for s in found.segments if s.label == name]
        axes.broken_barh(
            [(s.start, s.end - s.start) for s in of_class],
            (row - 0.4, 0.8),
            facecolors=[(0.106, 0.471, 0.216, 0.3 + 0.7 * s.confidence) for s in of_class],
        )
    names = [name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…" for name in rows]
    axes.set_yticks(range(len(rows)), [name.replace("$", r"\$") for name in names])
    axes.set_ylim(max(len(rows), 1) - 0.4, -0.6)
    axes.set_xlim(0, found.duration)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 3, 6, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: clock(round(1000 * seconds))))
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if not rows:
        axes.text(0.5, 0.5, "none of the classes", transform=axes.transAxes, ha="center", va="center")
    left_out = len({s.label for s in found.segments} - {None}) - len(rows)
    title = found.video[-80:] + (f" ({left_out} classes that are seen less are left out)" if left_out else "")
    axes.set_title(title.replace("$", r"\$"), fontsize=10, loc="left")
    return figure
