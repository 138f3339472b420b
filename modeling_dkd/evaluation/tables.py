"""The tables that evaluate.py prints, as text, Markdown or LaTeX; and all their figures as CSV."""

import csv
import io
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from .names import REFERENCE
from .report import Line


STYLES = {"text": "simple", "md": "pipe", "latex": "latex_booktabs"}
SEARCH_MEASURES = {"map": "mAP", "recall_at_1": "R@1", "recall_at_5": "R@5", "recall_at_10": "R@10"}


def text_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], num_left: int, last_left: bool = False, style: str = "text"
) -> str:
    """Columns as wide as their longest cell; the first `num_left` to the left, figures to the right.

    Args:
        header: Names of the columns.
        rows: One cell a column.
        num_left: How many columns hold words.
        last_left: Whether the last one does.
        style: A key of `STYLES`; what Markdown or LaTeX would read as a command is escaped.
    """
    sides = ["left" if i < num_left or (last_left and i == len(header) - 1) else "right" for i in range(len(header))]
    if style == "md":
        rows = [[re.sub(r"([\\|*_<>`\[\]])", r"\\\1", cell) for cell in row] for row in rows]
    return tabulate(rows, header, tablefmt=STYLES[style], disable_numparse=True, colalign=sides if rows else None)


def titled(title: str, table: str, style: str = "text") -> str:
    """A table below one line that says what it is about."""
    marked = {"text": f"{textwrap.fill(title, 119)}\n", "md": f"**{title}**\n\n", "latex": f"% {title}\n"}[style]
    return f"{marked}{table}"


def set_table(lines: Sequence[Line], style: str = "text") -> str:
    """Every protocol and method of one set, figures in percent."""
    header = ("protocol", "method", "top-1", "sd", "gain", "SE", "worst", "top-5", "class", "ECE", "worst", "s", "MiB")
    rows, protocol = [], ""
    for line in lines:
        is_first, protocol = line.protocol != protocol, line.protocol
        is_reference = line.method == REFERENCE
        rows.append(
            (
                line.protocol if is_first else "",
                line.method,
                _percent(line.top1),
                _percent(line.spread) if line.num_seeds > 1 else "",
                "" if is_reference else _points(line.gain),
                "" if is_reference else _percent(line.gain_error),
                "" if is_reference else _points(line.worst_gain),
                _percent(line.top5),
                _percent(line.mean_class),
                _percent(line.ece),
                "" if is_reference else _points(line.worst_ece_change),
                f"{line.seconds:.2f}",
                "-" if line.peak_memory_mib is None else f"{line.peak_memory_mib:.0f}",
            )
        )
    return text_table(header, rows, num_left=2, style=style)


def summary_table(lines: Sequence[Line], style: str = "text") -> str:
    """Mean gain over zero-shot, worst row and draw, calibration and cost of each method over all sets."""
    protocols = list(dict.fromkeys(line.protocol for line in lines))
    header = ("method", "rows", "mean gain", "SE", *protocols, "ECE", "worst ECE", "s", "MiB")
    header = (*header, "worst draw", "worst row", "where")
    rows = []
    for method in dict.fromkeys(line.method for line in lines if line.method != REFERENCE):
        own = [line for line in lines if line.method == method]
        worst = min(own, key=lambda line: line.gain)
        error = sum(line.gain_error**2 for line in own) ** 0.5 / len(own)
        peaks = [line.peak_memory_mib for line in own if line.peak_memory_mib is not None]
        rows.append(
            (
                method,
                str(len(own)),
                _points(mean(line.gain for line in own)),
                _percent(error),
                *(_points(mean(line.gain for line in own if line.protocol == p)) for p in protocols),
                _points(mean(line.ece_change for line in own)),
                _points(
                    max((line.worst_ece_change for line in own if line.worst_ece_change is not None), default=None)
                ),
                f"{mean(line.seconds for line in own):.2f}",
                f"{max(peaks):.0f}" if peaks else "-",
                _points(min((line.worst_gain for line in own if line.worst_gain is not None), default=None)),
                _points(worst.gain),
                f"{worst.data}, {worst.protocol}",
            )
        )
    return text_table(header, rows, num_left=1, last_left=True, style=style)


def open_table(lines: Sequence[Line], style: str = "text") -> str:
    """How well clips of none of the classes are told from the others, a row for each set and method, then the means.

    "over plain" is against the better of plain zero-shot's largest softmax and largest cosine on the same set.
    """
    lines = [line for line in lines if line.auroc is not None]
    plain = {line.data: max(line.auroc or 0, line.auroc_cosine or 0) for line in lines if line.method == REFERENCE}
    over = {(line.data, line.method): (line.auroc or 0) - plain[line.data] for line in lines}
    rejection = ("known ECE", "unknown rejected", "known rejected")
    header = ("set", "method", "top-1", "gain", "AUROC", "over plain", "cosine", *rejection)
    rows: list[tuple[str, ...]] = [
        (
            line.data,
            line.method,
            _percent(line.top1),
            "" if line.method == REFERENCE else _points(line.gain),
            _percent(line.auroc),
            _points(over[line.data, line.method]),
            _percent(line.auroc_cosine),
            _percent(line.known_ece),
            _percent(line.rejected_unknown),
            _percent(line.rejected_known),
        )
        for line in lines
    ]
    for method in dict.fromkeys(line.method for line in lines if len(plain) > 1):
        own = [line for line in lines if line.method == method]
        gains = "" if method == REFERENCE else _points(mean(line.gain for line in own))
        aurocs = _percent(mean(line.auroc or 0 for line in own))
        differences = [over[line.data, method] for line in own]
        row = ("mean of sets", method, _percent(mean(line.top1 for line in own)), gains, aurocs)
        found = ("known_ece", "rejected_unknown", "rejected_known")
        rejected = [mean(getattr(line, name) or 0 for line in own) for name in found]
        rows.append((*row, _points(mean(differences)), "", *map(_percent, rejected)))
        largest = _percent(max(line.known_ece or 0 for line in own))
        rows.append(("worst set", method, "", "", "", _points(min(differences)), "", largest, "", ""))
    return text_table(header, rows, num_left=2, style=style)


def search_table(searches: Sequence[Mapping[str, Any]], style: str = "text") -> str:
    """Mean average precision and recall of every set, kind of texts and method, then mean and worst gain in mAP."""
    plain = {_asked(row): row["map"] for row in searches if row["method"] == REFERENCE}
    header = ("set", "texts", "method", "asked", "mAP", "gain", *list(SEARCH_MEASURES.values())[1:])
    rows = []
    for row in searches:
        gain = "" if row["method"] == REFERENCE else _points(row["map"] - plain[_asked(row)])
        recalls = [_percent(row[name]) for name in list(SEARCH_MEASURES)[1:]]
        place = row["data"]["name"], row["texts"], row["method"], str(row["queries"])
        rows.append((*place, _percent(row["map"]), gain, *recalls))
    several = len({row["data"]["name"] for row in searches}) > 1
    for texts in dict.fromkeys(row["texts"] for row in searches if several):
        for method in dict.fromkeys(row["method"] for row in searches if row["method"] != REFERENCE):
            gains = [
                row["map"] - plain[_asked(row)] for row in searches if (row["texts"], row["method"]) == (texts, method)
            ]
            rows.append(("mean of sets", texts, method, "", "", _points(mean(gains)), "", "", ""))
            rows.append(("worst set", texts, method, "", "", _points(min(gains)), "", "", ""))
    return text_table(header, rows, num_left=3, style=style)


def csv_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """All figures as they stand in results.json, with a header; accuracies as fractions."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().rstrip("\n")


def against_best(lines: Sequence[Line], method: str, peers: Sequence[str]) -> str | None:
    """How far `method` is from the best of `peers` in each row, once more without `few`; None without rows.

    `few` stands apart: there peers that are fitted on the test see all of it, and `method` 64 clips.
    """
    top1 = {(line.data, line.protocol, line.method): line.top1 for line in lines}
    places = [(line.data, line.protocol) for line in lines if line.method == method]
    if not peers or not places or any((*place, peer) not in top1 for place in places for peer in peers):
        return None
    gaps = {place: top1[*place, method] - max(top1[*place, peer] for peer in peers) for place in places}
    said = [f"{method} against the best of {', '.join(peers)}, row by row:"]
    others = {place: gap for place, gap in gaps.items() if place[1] != "few"}
    for title, chosen in (("all rows", gaps), ("without few", others if others != gaps else {})):
        if chosen:
            worst = min(chosen, key=lambda place: chosen[place])
            said.append(f"  {title}: mean {_points(mean(chosen.values()))}, worst {_points(chosen[worst])}")
            said[-1] += f" ({', '.join(worst)})"
    return "\n".join(said)


def shortened(name: str, length: int = 28, keep_end: bool = False) -> str:
    """At most `length` letters of a name, the last ones with `keep_end`, and a sign where some are left out."""
    if len(name) <= length:
        return name
    return f"…{name[1 - length :].lstrip(' ,')}" if keep_end else f"{name[: length - 1].rstrip(' ,')}…"


def mean(values: Iterable[float]) -> float:
    """Mean; NaN of nothing."""
    values = list(values)
    return sum(values) / len(values) if values else float("nan")


def _asked(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["data"]["name"], row["texts"]


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.2f}"


def _points(difference: float | None) -> str:
    return "" if difference is None else f"{100 * difference:+.2f}"
