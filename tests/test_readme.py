import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from modeling_dkd.synthetic.clips import DEFAULT_TARGET, generate_clips
from modeling_dkd.synthetic.demo import CLIP_SEED, NUM_CLIPS


REPOSITORY = Path(__file__).resolve().parents[1]


METHODS = {"TransCLIP": "transclip", "StatA": "stata", "OGA": "oga", "DKD": "dkd"}


def test_figures_are_those_of_the_measured_rows():
    """Mean and worst row of the gain, mean and worst draw of the calibration error, from the committed JSON."""
    summary = json.loads((REPOSITORY / "docs/development_rows.json").read_text())["summary"]
    table = re.findall(
        r"^\| \**(\w+).*?((?: \| ?\**[+-]\S+)+ / \S+) \|$", (REPOSITORY / "README.md").read_text(), re.M
    )
    assert [name for name, _ in table] == list(METHODS)
    for name, cells in table:
        rows = [line for line in summary if line["method"] == METHODS[name]]
        gains, errors = ([line[key] for line in rows] for key in ("gain", "ece_change"))
        worst = max(line["worst_ece_change"] for line in rows)
        measured = sum(gains) / len(gains), min(gains), sum(errors) / len(errors), worst
        assert re.findall(r"[+-]\d+\.\d", cells) == [f"{100 * value:+.1f}" for value in measured]


def test_it_is_short_and_what_it_links_and_shows_is_there():
    text = (REPOSITORY / "README.md").read_text()
    assert len(text.splitlines()) <= 110
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert {"docs/pictures/demo.webp", "docs/pictures/method.svg"} < set(links)
    assert all((REPOSITORY / link).is_file() for link in links)


@pytest.mark.slow
def test_the_first_example_runs_as_written_and_shows_a_gain(tmp_path):
    """In a folder with what `make demo` leaves, and with the code of the checkpoint instead of this package."""
    (tmp_path / "hub_configs").symlink_to(REPOSITORY / "hub_configs")
    list(generate_clips(tmp_path / "demo" / "clips" / DEFAULT_TARGET, DEFAULT_TARGET, NUM_CLIPS, CLIP_SEED))
    code = re.search(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL).group(1)
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    shown = re.findall(r"^(.*): (\d+) of (\d+) clips right; (\w+) -> (\w+)$", run.stdout, re.MULTILINE)
    assert [step for step, *_ in shown] == ["plain zero-shot", "with the domain"]
    before, after = ((int(right), int(total)) for _, right, total, *_ in shown)
    said = re.search(
        r"prints (\d+) of (\d+) clips right, then (\d+), and that a clip of `(\w+)` was first taken for `(\w+)`",
        (REPOSITORY / "README.md").read_text(),
    ).groups()
    assert [*before, after[0]] == pytest.approx([int(number) for number in said[:3]], abs=3)
    assert [row[-1] for row in shown] == [said[4], said[3]]
    assert {row[-2] for row in shown} == {said[3]}
