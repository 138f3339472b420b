"""What was recognised as a page to look at, which opens without a network: charts, thumbnails, what is doubtful."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from tqdm.auto import tqdm

from ..data.counting import counted
from ..data.whole_files import whole_file
from .clip_listing import shown
from .predictions import Prediction, Recognition
from .thumbnails import data_address, thumbnail
from .timeline_player import file_address


TEMPLATE = Path(__file__).with_name("report.html.jinja")
THUMBNAIL_SIZE = (176, 132)
# Clips of a class that are shown, and of each list of remarkable ones; of all classes together about MAX_GALLERY.
PER_CLASS, PER_LIST, MAX_GALLERY, LEAST_KNOWN = 12, 24, 400, 12
THRESHOLDS = tuple(step / 10 for step in range(1, 10))
MAX_DAMAGED = 500


@dataclass(frozen=True)
class ClassSummary:
    """What the clips of one class look like as a whole.

    Attributes:
        name: The class.
        count: Clips with this label.
        share: `count` over that of the most frequent class, 0 to 1.
        confidence: Mean over its clips; None without any.
        known: The same; None where the head does not tell.
        clips: Those to show, surest first.
    """

    name: str
    count: int
    share: float
    confidence: float | None
    known: float | None
    clips: list[Prediction]


@dataclass(frozen=True)
class Report:
    """What the page tells.

    Attributes:
        classes: Those with clips, most first.
        absent: Names of those without.
        changed: Clips whose label the domain changed, surest first.
        unsure: Clips with a label, least sure first.
        rejected: Clips without one, least known first.
        rejected_below: Thresholds of `known`, and how many clips each leaves without a label.
        sections: What of these is shown: heading, all clips of it, what it means.
    """

    classes: list[ClassSummary]
    absent: list[str]
    changed: list[Prediction]
    unsure: list[Prediction]
    rejected: list[Prediction]
    rejected_below: list[tuple[float, int]]
    sections: list[tuple[str, list[Prediction], str]] = field(default_factory=list)


def summarise(found: Recognition) -> Report:
    """Sort the predictions into what the page shows."""
    labelled = [p for p in found.read if p.label is not None]
    by_class: dict[str, list[Prediction]] = {name: [] for name in found.class_names}
    for prediction in sorted(labelled, key=lambda p: -(p.confidence or 0)):
        by_class[str(prediction.label)].append(prediction)
    most = max((len(clips) for clips in by_class.values()), default=0)
    per_class = max(3, min(PER_CLASS, MAX_GALLERY // len(by_class)))
    classes = [
        ClassSummary(
            name,
            len(clips),
            len(clips) / most,
            _mean([p.confidence for p in clips]),
            _mean([p.known for p in clips]),
            _spread(clips, per_class),
        )
        for name, clips in by_class.items()
        if clips
    ]
    classes.sort(key=lambda summary: -summary.count)
    changed = sorted((p for p in labelled if p.is_changed), key=lambda p: -(p.confidence or 0))
    unsure = sorted(labelled, key=lambda p: p.confidence or 0)
    rejected = sorted((p for p in found.read if p.is_rejected), key=lambda p: p.known or 0)
    least_known = sorted((p for p in labelled if p.known is not None), key=lambda p: p.known or 0)
    sections = [
        ("Changed by the domain", changed, "Plain zero-shot says what is struck out. Surest first."),
        ("Least sure", unsure[: min(PER_LIST, len(unsure) // 2)], "Look at these first."),
        ("Rejected", rejected, "Taken for none of the classes; in brackets the likeliest one."),
        ("Least known", least_known[:LEAST_KNOWN], "Of those with a label: do they show one of the classes at all?"),
    ]
    absent = [name for name, clips in by_class.items() if not clips]
    return Report(classes, absent, changed, unsure, rejected, rejected_below(found.read), sections)


def rejected_below(predictions: Sequence[Prediction]) -> list[tuple[float, int]]:
    """How many clips thresholds of `known` leave without a label; nothing where it is not told."""
    known = [p.known for p in predictions if p.known is not None]
    return [(threshold, sum(value < threshold for value in known)) for threshold in THRESHOLDS] if known else []


def write_report(folder: str | os.PathLike[str], found: Recognition, command: str) -> Path:
    """Write the page into a folder, which is made if need be.

    Args:
        folder: Where index.html goes.
        found: What was recognised.
        command: What made it, as one would type it.

    Returns:
        The page.

    Raises:
        OSError: The disk refuses.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "index.html"
    text = report_page(found, command, folder)
    with whole_file(page) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return page


def report_page(found: Recognition, command: str, folder: Path) -> str:
    """The page, from where links lead to the clips where they lie. Names stand in it as text, whatever they hold."""
    report = summarise(found)
    sections = [(heading, clips[:PER_LIST], len(clips), told) for heading, clips, told in report.sections if clips]
    wanted = [p for summary in report.classes for p in summary.clips] + [p for s in sections for p in s[1]]
    pictures = _pictures(wanted)

    def card(prediction: Prediction) -> dict[str, Any]:
        return {
            "image": pictures.get(prediction.path, ""),
            "href": file_address(prediction.path, folder) if prediction.path else "",
            "name": os.path.basename(prediction.clip) or prediction.clip,
            "clip": prediction.clip,
            "p": prediction,
        }

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    environment.filters |= {"percent": _percent, "counted": counted}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        found=found,
        report=report,
        galleries=[(summary, [card(p) for p in summary.clips]) for summary in report.classes],
        sections=[(heading, [card(p) for p in clips], count, told) for heading, clips, count, told in sections],
        damaged=found.damaged[:MAX_DAMAGED],
        remarked=[p for p in found.read if p.remark][:MAX_DAMAGED],
        tells_known=any(p.known is not None for p in found.read),
        command=shown(command),
    )


def _pictures(predictions: Sequence[Prediction]) -> dict[str, str]:
    """Address of a thumbnail for each path."""
    paths = list(dict.fromkeys(p.path for p in predictions if p.path))
    pictures = {}
    with tqdm(paths, unit="clip", desc="thumbnails", leave=False, disable=True if len(paths) < 20 else None) as bar:
        for path in bar:
            image = thumbnail(path)
            image.thumbnail(THUMBNAIL_SIZE)
            pictures[path] = data_address(image)
    return pictures


def _spread(clips: list[Prediction], count: int) -> list[Prediction]:
    """So many of the clips, evenly from first to last."""
    if len(clips) <= count:
        return clips
    return [clips[round(place * (len(clips) - 1) / (count - 1))] for place in range(count)]


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f}\u00a0%"
