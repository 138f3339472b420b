"""The page of ablation.py: what a section keeps in docs/ablation.json, and its table."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from modeling_dkd.evaluation.names import DEFAULT_PROTOCOLS, REFERENCE
from modeling_dkd.evaluation.report import Line


class Section(NamedTuple):
    """A part of the page.

    Attributes:
        title: Its heading.
        figure: The field of `Line` that it shows, a difference to plain zero-shot.
        said: What that is, as a sentence.
    """

    title: str
    figure: str
    said: str


class Change(NamedTuple):
    """By how much a variant differs from zero-shot on one row, as a fraction."""

    method: str
    protocol: str
    data: str
    change: float


# Variant -> protocol -> set -> change.
Changes = dict[str, dict[str, dict[str, float]]]

TOP1 = "Gain in top-1."
SECTIONS = {
    "parts": Section("Parts", "gain", f"{TOP1} 25 rows."),
    "constants": Section("Constants of the mixture, halved and doubled", "gain", f"{TOP1} 25 rows."),
    "trust": Section(
        "Constants of the trust in the texts",
        "gain",
        f"{TOP1} The 20 rows of real clips of [results.md](results.md): on the 25 rows no text is trusted less.",
    ),
    "confidence": Section(
        "Constants of confidence, halved and doubled",
        "ece_change",
        "Calibration error minus that of plain zero-shot, 25 rows; below 0 is better. Top-1 is the same for all.",
    ),
    "labels": Section(
        "Constants of labels, halved and doubled",
        "gain",
        f"{TOP1} UCF101, 101 texts of MiniLM; so many labels a class, the other clips of the domain unlabelled.",
    ),
    "new_classes": Section(
        "Constants of classes that were not fitted, halved and doubled",
        "gain",
        "Every other class is fitted, all are asked. Gain in top-1 among all classes, of clips of the new ones among "
        "the new ones, and in mean average precision of search for the new ones.",
    ),
    "particles": Section("Frames as particles, 4 frames a clip", "gain", TOP1),
}


def changes_of(lines: Sequence[Line], figure: str) -> Changes:
    """What docs/ablation.json keeps of the rows of a section."""
    changes: Changes = {}
    for line in lines:
        if line.method != REFERENCE:
            by_protocol = changes.setdefault(line.method, {}).setdefault(line.protocol, {})
            by_protocol[line.data] = round(getattr(line, figure), 6)
    return changes


def rows_of(changes: Changes) -> list[Change]:
    """The same as a list."""
    return [
        Change(method, protocol, data, change)
        for method, by_protocol in changes.items()
        for protocol, by_data in by_protocol.items()
        for data, change in by_data.items()
    ]


def as_json(sections: Mapping[str, Any]) -> str:
    """Text of docs/ablation.json, a line for each variant."""
    texts = []
    for name, section in sections.items():
        kept = {key: value for key, value in section.items() if key != "changes"}
        variants = ",\n".join(f"{json.dumps(method)}: {json.dumps(row)}" for method, row in section["changes"].items())
        texts.append(f'{json.dumps(name)}: {json.dumps(kept)[:-1]}, "changes": {{\n{variants}\n}}}}')
    return '{"sections": {\n' + ",\n".join(texts) + "\n}}\n"


def table(rows: list[Change], lower_is_better: bool) -> str:
    """Mean change by protocol, over all rows, and the worst row, as Markdown."""
    protocols = list(dict.fromkeys(row.protocol for row in rows))
    text = f"| variant | {' | '.join(protocols)} | mean | worst row |\n"
    text += f"|---|{'---:|' * (len(protocols) + 1)}---|\n"
    for method in dict.fromkeys(row.method for row in rows):
        own = [row for row in rows if row.method == method]
        worst = (max if lower_is_better else min)(own, key=lambda row: row.change)
        cells = [f"{100 * _mean([r for r in own if r.protocol == protocol]):+.1f}" for protocol in protocols]
        lowest = f"{100 * worst.change:+.1f}, {worst.data}, {worst.protocol}"
        text += f"| {method} | {' | '.join(cells)} | {100 * _mean(own):+.2f} | {lowest} |\n"
    return text


def _mean(rows: Sequence[Change]) -> float:
    return sum(row.change for row in rows) / len(rows)


def sensitive(rows: list[Change], limit: float = 1.0) -> str:
    """The variants whose mean is more than `limit` points from DKD's, in words."""
    means = {
        method: 100 * _mean([row for row in rows if row.method == method])
        for method in dict.fromkeys(row.method for row in rows)
    }
    beyond = [f"{m} ({mean - means['DKD']:+.2f})" for m, mean in means.items() if abs(mean - means["DKD"]) > limit]
    return f"Means that differ from DKD's by more than {limit:g} point: {', '.join(beyond) or 'none'}."


def averaging_table(compared: list[dict[str, Any]]) -> str:
    """The comparison with averaging as Markdown."""
    text = "\nTop-1 with frames as particles minus top-1 with frames averaged first, in points, ± standard error:\n\n"
    text += f"| set | {' | '.join(DEFAULT_PROTOCOLS)} | mean |\n|---|{'---:|' * (len(DEFAULT_PROTOCOLS) + 1)}\n"
    for name in dict.fromkeys(row["data"] for row in compared):
        rows = [row for row in compared if row["data"] == name]
        cells = [f"{100 * row['gain']:+.2f} ± {100 * row['gain_error']:.2f}" for row in rows]
        mean = 100 * sum(row["gain"] for row in rows) / len(rows)
        text += f"| {name} | {' | '.join(cells)} | {mean:+.2f} |\n"
    return text


def markdown(introduction: str, sections: Mapping[str, Any]) -> str:
    """The whole document."""
    text = f"# Ablation\n\n{introduction}"
    text += "\nWritten by `python -m benchmarks.ablation FEATURES`; docs/ablation.json has every row.\n"
    for name, section in SECTIONS.items():
        if name in sections:
            rows, made_with = rows_of(sections[name]["changes"]), sections[name]["environment"]
            seeds = sections[name]["num_seeds"]
            text += f"\n## {section.title}\n\n{section.said} {seeds} seed{'s' * (seeds > 1)}, measured "
            text += f"{made_with['date'][:10]} at commit {made_with['commit'][:7]}.\n\n"
            text += table(rows, section.figure == "ece_change")
            text += f"\n{sensitive(rows)}\n" if name not in ("parts", "particles") else ""
    return text + (averaging_table(sections["particles"]["against_averaging"]) if "particles" in sections else "")
