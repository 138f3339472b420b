"""Figures in docs/recognise.md are those that the benchmarks left in benchmarks/results.json."""

import json
import re
from pathlib import Path


REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs/recognise.md").read_text(encoding="utf-8")
SECTIONS = json.loads((REPOSITORY / "benchmarks/results.json").read_text(encoding="utf-8"))["sections"]
MEASURES = ("windows right", "F1 of segments, overlap 0.5")


def rows_of(section):
    return SECTIONS[section]["rows"]


def timeline_lines():
    """One line a way of labelling windows of 4 s: both measures in percent."""
    lines = {}
    for measure in MEASURES:
        rows = [row for row in rows_of("timeline") if row["what"] == f"{measure}, 4 s every 2 s, DKD smoothed"]
        for row in rows:
            lines.setdefault(row["other"], []).append(row["others"])
        lines.setdefault("DKD, smoothed", []).append(rows[0]["ours"])
    return [f"| {name} | {' | '.join(f'{value:.1f}' for value in values)} |" for name, values in lines.items()]


def test_the_table_of_timeline_is_that_of_the_benchmark():
    expected = timeline_lines()
    assert len(expected) == 4
    assert not [line for line in expected if line not in PAGE.splitlines()]


def test_smoothing_raises_what_is_right_and_how_well_segments_fit():
    rows = rows_of("timeline")
    for measure in MEASURES:
        chosen = [row for row in rows if row["what"].startswith(measure)]
        assert len(chosen) == 6
        assert all(row["ours"] > row["others"] for row in chosen)
        assert all(float(re.search(r"smallest gain ([+-][\d.]+)", row["note"]).group(1)) > 0 for row in chosen)
