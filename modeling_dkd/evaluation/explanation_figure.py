"""One picture of an explanation: classes, confusions, clips, and how well the domain's mixture fits."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .explanation import EVIDENCE, READERS, ClassExplanation, Explanation
from .figures import BEFORE, BETTER, WORSE, dumbbell, name_rows
from .tables import shortened


MOST_CLASSES, MOST_CONFUSIONS, MOST_CHANGES, MOST_CLIPS = 30, 9, 18, 12
NEUTRAL = "#4575b4"


def explanation_figure(explanation: Explanation) -> Figure:
    """Six panels, drawn without a display; of long lists the top."""
    figure = Figure(figsize=(15, 11), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(6, 6)
    _draw_classes(figure.add_subplot(grid[:4, :3]), explanation.classes)
    confusions = figure.add_subplot(grid[:3, 3:])
    if explanation.accuracy_before is None:
        _draw_changes(confusions, explanation)
    else:
        _draw_confusions(confusions, explanation)
    _draw_clips(figure.add_subplot(grid[3:, 3:]), explanation)
    _draw_log_density(figure.add_subplot(grid[4:, 0]), explanation)
    _draw_movement(figure.add_subplot(grid[4:, 1]), explanation)
    _draw_trust(figure.add_subplot(grid[4:, 2]), explanation)
    figure.suptitle(_headline(explanation), fontsize=13, parse_math=False)
    return figure


def _headline(e: Explanation) -> str:
    top1 = ""
    if e.accuracy_before is not None and e.accuracy_after is not None:
        top1 = f"top-1: plain zero-shot {100 * e.accuracy_before:.1f} %, DKD {100 * e.accuracy_after:.1f} %; "
    title = shortened(e.title, 90)
    return (
        f"{title}\n{top1}{e.num_changed} of {e.num_clips} clips read as another class; "
        f"{len(e.without_evidence)} of {len(e.classes)} classes without evidence in the domain"
    )


def _draw_classes(axes: Axes, classes: Sequence[ClassExplanation]) -> None:
    """Support as bars, strength at their ends; most support on top, of many classes both ends."""
    shown: list[ClassExplanation | None] = list(reversed(classes))
    left_out = len(classes) - MOST_CLASSES
    if left_out > 0:
        shown = [*shown[: MOST_CLASSES // 2], None, *shown[-MOST_CLASSES // 2 :]]
    largest = max(c.support for c in classes)
    for row, of_class in enumerate(shown):
        if of_class is None:
            note = f"{left_out} more classes between these"
            axes.text(largest / 2, row, note, ha="center", va="center", fontsize=8, style="italic")
            continue
        colour = WORSE if of_class.support < EVIDENCE else NEUTRAL
        axes.barh(row, of_class.support, color=colour, height=0.7, alpha=0.8)
        label = f"{of_class.support:.1f}, strength {of_class.strength:.2f}"
        axes.annotate(label, (of_class.support, row), (4, 0), textcoords="offset points", va="center", fontsize=7)
    name_rows(axes, ["" if c is None else c.name for c in shown])
    axes.set_xlim(0, 1.25 * max(largest, EVIDENCE))
    _finish(axes, "classes: support in the domain (red: below one sample, no evidence)", "domain samples")


def _draw_confusions(axes: Axes, e: Explanation) -> None:
    """Confusions that became rarer above those that became more frequent."""
    shown = [*e.created[:MOST_CONFUSIONS], *reversed(e.resolved[:MOST_CONFUSIONS])]
    for row, confusion in enumerate(shown):
        dumbbell(axes, row, confusion.before, confusion.after, more_is_better=False)
        place = (max(confusion.before, confusion.after), row)
        label = f"{confusion.after - confusion.before:+d}"
        axes.annotate(label, place, (6, 0), textcoords="offset points", va="center", fontsize=8)
    name_rows(axes, [f"{shortened(c.label, 24)} read as {shortened(c.read_as, 24)}" for c in shown], length=60)
    axes.margins(x=0.1)
    if not shown:
        _say(axes, "no confusion changed")
    title = "confusions that changed most\nhollow: plain zero-shot, green: fewer with DKD, red: more with DKD"
    _finish(axes, title, "clips with this confusion")


def _draw_changes(axes: Axes, e: Explanation) -> None:
    """Changes of the predicted class, which may be right or wrong."""
    shown = list(reversed(e.changes[:MOST_CHANGES]))
    for row, change in enumerate(shown):
        axes.barh(row, change.num_clips, color=NEUTRAL, height=0.7, alpha=0.8)
        label = str(change.num_clips)
        axes.annotate(label, (change.num_clips, row), (4, 0), textcoords="offset points", va="center", fontsize=8)
    name_rows(axes, [f"{shortened(c.before, 24)} → {shortened(c.after, 24)}" for c in shown], length=60)
    if not shown:
        _say(axes, "no clip is read as another class")
    title = "changes of the predicted class, plain zero-shot → DKD\nwhether right or wrong is unknown: no labels"
    _finish(axes, title, "clips")


def _draw_clips(axes: Axes, e: Explanation) -> None:
    """The clips whose class distribution changed most, with what they were read as."""
    shown = list(reversed(e.clips[:MOST_CLIPS]))
    for row, clip in enumerate(shown):
        if clip.label is None or clip.before == clip.after:
            colour = NEUTRAL if clip.label is None else BEFORE
        else:
            colour = BETTER if clip.after == clip.label else WORSE if clip.before == clip.label else BEFORE
        axes.barh(row, clip.change, color=colour, height=0.8, alpha=0.3)
        read = " → ".join(
            f"{shortened(name, 18)} {confidence:.2f}"
            for name, confidence in ((clip.before, clip.confidence_before), (clip.after, clip.confidence_after))
        )
        truth = (
            "" if clip.label is None or clip.label in (clip.before, clip.after) else f"  ({shortened(clip.label, 18)})"
        )
        axes.text(0.01, row, read + truth, va="center", fontsize=8, parse_math=False)
    # The end of a clip's name says more than the folders it is in.
    name_rows(axes, [clip.name for clip in shown], length=30, keep_end=True)
    axes.set_xlim(0, 1)
    title = "clips that changed most: class and probability, plain zero-shot → DKD"
    if e.accuracy_before is not None:
        title += "\ngreen: now right, red: now wrong, in brackets: the true class"
    _finish(axes, title, "total variation between both distributions over the classes")


def _draw_log_density(axes: Axes, e: Explanation) -> None:
    """How likely the clips are under the domain's mixture, before and after they were moved."""
    for key, values, colour in zip(READERS, e.log_densities, (BEFORE, NEUTRAL), strict=True):
        axes.hist(values.numpy(), bins=40, color=colour, alpha=0.6, label=f"{key}: mean {float(values.mean()):.0f}")
    axes.margins(y=0.3)  # room for the legend
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    _finish(axes, "log density under the mixture", "nats")
    axes.set_ylabel("clips", fontsize=8)


def _draw_movement(axes: Axes, e: Explanation) -> None:
    """How far clips and class texts were moved, as 1 - cosine on a logarithmic axis."""
    rows: dict[str, Any] = {
        "clips": 1 - e.video_cosines,
        "texts": [1 - c.cosine for c in e.classes],
        "texts,\nmean off": [1 - c.offset_cosine for c in e.classes],
    }
    values = [[max(float(v), 1e-6) for v in values] for values in rows.values()]
    axes.boxplot(values, orientation="horizontal", tick_labels=list(rows), whis=(0, 100), widths=0.5)
    axes.set_xscale("log")
    axes.tick_params(labelsize=8)
    _finish(axes, "how far moved", "1 - cosine of moved and plain (box: quartiles)")


def _draw_trust(axes: Axes, e: Explanation) -> None:
    """What is lost by less trust in the texts, and how much would be too much."""
    title = f"trust in texts, in the fit: {e.text_trust:g}"
    if not e.trust_curve:
        axes.set_axis_off()
        axes.set_title(title, fontsize=9, loc="left")
        _say(axes, "nothing else was tried,\nor the domain was loaded")
        return
    names = [f"{c.trust:g}" for c in e.trust_curve]
    left_open = [100 * c.left_open for c in e.trust_curve]
    axes.barh(names, left_open, 0.5, color=BEFORE, label="by the texts")
    disagreement = [100 * (c.disagreement or 0) for c in e.trust_curve]
    axes.barh(names, disagreement, 0.5, left=left_open, color=WORSE, label="between halves")
    axes.axvline(100 * e.trust_loss, color=NEUTRAL, linestyle="--", linewidth=0.8, label="too much")
    axes.set_xlim(0, 100)
    axes.set_ylim(-1, max(1, len(names)))
    axes.tick_params(axis="y", labelsize=8)
    axes.legend(fontsize=7, frameon=False, loc="upper right")
    _finish(axes, title, "undecided with less, %")


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)


def _finish(axes: Axes, title: str, x_label: str) -> None:
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xlabel(x_label, fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
