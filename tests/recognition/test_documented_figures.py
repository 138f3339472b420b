"""Figures in docs/recognise.md are those that the benchmarks left in benchmarks/results.json."""

import json
import re
from pathlib import Path

import pytest


REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs/recognise.md").read_text(encoding="utf-8")
SECTIONS = json.loads((REPOSITORY / "benchmarks/results.json").read_text(encoding="utf-8"))["sections"]
MEASURES = ("windows right", "F1 of segments, overlap 0.5", "calibration error of windows, the lower the better")


def rows_of(section):
    return SECTIONS[section]["rows"]


def timeline_lines():
    """One line a way of labelling windows of 4 s: the three measures in percent."""
    lines = {}
    for measure in MEASURES:
        rows = [row for row in rows_of("timeline") if row["what"] == f"{measure}, 4 s every 2 s, DKD smoothed"]
        for row in rows:
            lines.setdefault(row["other"], []).append(row["others"])
        lines.setdefault("DKD, smoothed", []).append(rows[0]["ours"])
    return [f"| {name} | {' | '.join(f'{value:.1f}' for value in values)} |" for name, values in lines.items()]


def suggestion_lines():
    """One line a set: without labels, then chosen / drawn at random for 20, 50, 100 labels, in percent."""
    lines = {}
    for row in rows_of("label_suggestions"):
        name = row["what"].rpartition(": ")[0]
        without = re.search(r"without labels ([\d.]+)", row["note"]).group(1)
        lines.setdefault(name, [without]).append(f"{row['ours']:.1f} / {row['others']:.1f}")
    return [f"| {name} | {' | '.join(cells)} |" for name, cells in lines.items()]


def speed_lines():
    """Clips a second and processor seconds of each command."""
    rows = rows_of("recognise_clips")
    lines = {}
    for row in rows:
        lines.setdefault("dkd recognise", {})[row["unit"]] = row["ours"]
        lines.setdefault(row["other"], {})[row["unit"]] = row["others"]
    again = next(row for row in rows if row["what"].startswith("dkd recognise, clips embedded before"))
    lines["dkd recognise"] = {row["unit"]: row["ours"] for row in rows if row is not again}
    return [f"| {name} | {cells['clips/s']:.1f} | {cells['s']:.0f} |" for name, cells in lines.items()]


@pytest.mark.parametrize("lines", [timeline_lines, suggestion_lines, speed_lines])
def test_the_tables_are_those_of_the_benchmarks(lines):
    expected = lines()
    assert len(expected) >= 3
    assert not [line for line in expected if line not in PAGE.splitlines()]


def test_smoothing_raises_what_is_right_and_how_well_segments_fit():
    rows = rows_of("timeline")
    for measure in MEASURES[:2]:
        chosen = [row for row in rows if row["what"].startswith(measure)]
        assert len(chosen) == 6
        assert all(row["ours"] > row["others"] for row in chosen)
        assert all(float(re.search(r"smallest gain ([+-][\d.]+)", row["note"]).group(1)) > 0 for row in chosen)
