"""The benchmark of a million clips, on a few hundred."""

import json

import pytest

from benchmarks.clip_index import ARCHIVES, LAYOUTS, main, make_clips, measure_layout


STEPS = {
    "reading the index",
    "half of the classes",
    "handing the clips to a worker",
    "the order of an epoch",
    "the plan of embedding",
    "a run with nothing left to embed",
}


def test_every_layout_is_read_and_planned(tmp_path):
    make_clips(tmp_path, 300)
    assert len(list((tmp_path / "archives").glob("*.tar"))) == ARCHIVES
    rows = [row for layout in LAYOUTS for row in measure_layout(tmp_path, layout)]
    assert [row["layout"] for row in rows[::6]] == list(LAYOUTS)
    assert {row["what"] for row in rows} == STEPS
    assert all(row["processor_seconds"] > 0 for row in rows)


@pytest.mark.slow
def test_the_command_writes_what_it_prints(tmp_path, capsys):
    main(["--clips", "300", "--json", str(tmp_path / "out.json")])
    contents = json.loads((tmp_path / "out.json").read_text())
    assert contents["clips"] == 300
    assert len(contents["rows"]) == len(capsys.readouterr().out.splitlines()) == 6 * len(LAYOUTS)
