"""The benchmark of a million clips: it runs, and docs/cost.md rounds what it wrote."""

import json
from pathlib import Path

import pytest

from benchmarks.clip_index import ARCHIVES, LAYOUTS, main, make_clips, measure_layout


ROOT = Path(__file__).resolve().parents[1]
COST = " ".join((ROOT / "docs/cost.md").read_text().split())
MILLION = json.loads((ROOT / "docs/clip_index.json").read_text())


def figures(layout):
    """Seconds and MiB of each step."""
    rows = [row for row in MILLION["rows"] if row["layout"] == layout]
    return {row["what"]: (row["seconds"], row["peak_bytes"] / 2**20) for row in rows}


def test_every_layout_is_read_and_planned(tmp_path):
    make_clips(tmp_path, 300)
    assert len(list((tmp_path / "archives").glob("*.tar"))) == ARCHIVES
    rows = [row for layout in LAYOUTS for row in measure_layout(tmp_path, layout)]
    assert [row["layout"] for row in rows[::6]] == list(LAYOUTS)
    assert {row["what"] for row in rows} == set(figures("files"))
    assert all(row["processor_seconds"] > 0 for row in rows)


@pytest.mark.slow
def test_the_command_writes_what_it_prints(tmp_path, capsys):
    main(["--clips", "300", "--json", str(tmp_path / "out.json")])
    contents = json.loads((tmp_path / "out.json").read_text())
    assert contents["clips"] == 300
    assert len(contents["rows"]) == len(capsys.readouterr().out.splitlines()) == 6 * len(LAYOUTS)


def test_the_figures_of_the_page_are_of_a_million_clips():
    assert MILLION["clips"] == 1_000_000
