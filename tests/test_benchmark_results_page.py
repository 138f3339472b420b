import json
import re
import shutil

import pytest
import yaml

from benchmarks.results_page import write_results_page

from .hub.conftest import ROOT


MEASURED = ("development_rows.json", "real_video_rows.json", "search_open_rows.json")
KEPT = ("published_figures.json", "real_clips.json", *MEASURED)


@pytest.fixture
def docs(tmp_path):
    (tmp_path / "docs").mkdir()
    for name in KEPT:
        shutil.copy(ROOT / "docs" / name, tmp_path / "docs")
    shutil.copytree(ROOT / "hub_configs", tmp_path / "hub_configs")
    return tmp_path / "docs"


def test_the_committed_page_is_what_the_json_files_give(docs):
    assert write_results_page(docs).read_text() == (ROOT / "docs/results.md").read_text()


def test_figures_are_those_of_the_json_files(docs):
    page = write_results_page(docs).read_text()
    for figure in ("67.64", "45.34", "96.96", "76.26"):
        assert f"| {figure} |" in page
    lines = json.loads((docs / "development_rows.json").read_text())["summary"]
    dkd = [line for line in lines if line["method"] == "dkd"]
    rows = re.findall(r"^\| \S+ \| (?:full|induct|quarter|few|imbal) \| .*$", page, re.MULTILINE)
    assert len([row for row in rows if "\\_" in row]) == len(dkd) == 25
    for line, row in zip(dkd, rows, strict=False):
        assert f"**{100 * line['top1']:.2f}" in row
        assert f"{100 * line['gain']:+.2f} ± {100 * line['gain_error']:.2f}" in row
        assert f"| {line['n']:g} | {line['num_seeds']} |" in row


def test_real_video_search_and_rejection_stand_on_the_page(docs):
    page = write_results_page(docs).read_text()
    real = json.loads((docs / "real_video_rows.json").read_text())["summary"]
    dkd = [line for line in real if line["method"] == "dkd"]
    assert len(dkd) == 40
    for line in dkd:
        figures = f"{line['protocol']} | {line['n']:g} | {line['num_seeds']} |"
        row = next(r for r in page.splitlines() if r.startswith(f"| {line['data']} | {figures}"))
        assert f"**{100 * line['top1']:.2f}" in row
        assert f"| {100 * line['ece']:.2f} | {100 * line['worst_ece_change']:+.2f} |" in row
    whole = [line["gain"] for line in dkd if not line["data"].endswith("by quarters")]
    assert (
        f"over the 20 rows of whole clips: {100 * sum(whole) / 20:+.2f} points, worst row {100 * min(whole):+.2f}"
        in page
    )
    found = json.loads((docs / "search_open_rows.json").read_text())
    assert {row["texts"] for row in found["search"]} == {"fitted", "new"}
    for row in found["search"]:
        assert f" {100 * row['map']:.2f} |" in page
    for line in found["summary"]:
        assert f" {100 * line['auroc']:.2f} |" in page


def test_the_nearest_measured_set_stands_beside_the_papers_table(docs):
    beside = write_results_page(docs).read_text().split("### Zero-shot")[1].split("### Fine-tuned")[0]
    lines = json.loads((docs / "development_rows.json").read_text())["summary"]
    for line in lines:
        if "object_prompts" in line["data"] and line["protocol"] in ("full", "induct"):
            figure = f"{100 * line['top1']:.2f}"
            assert (figure in beside) == (line["method"] in ("zero-shot", "dkd")), line


def test_changed_figures_change_the_page(docs):
    before = write_results_page(docs).read_text()
    contents = json.loads((docs / "development_rows.json").read_text())
    next(line for line in contents["summary"] if line["method"] == "dkd")["top1"] = 0.123456
    (docs / "development_rows.json").write_text(json.dumps(contents))
    after = write_results_page(docs).read_text()
    assert "**12.35**" in after
    assert before != after


def test_every_config_of_a_public_data_set_has_its_command(docs):
    page = write_results_page(docs).read_text()
    for path in (ROOT / "hub_configs").glob("*.yaml"):
        options = yaml.safe_load(path.read_text())
        public = options["data"]["dataset"] in ("ucf101", "hmdb51", "kinetics400")
        assert (f"--config hub_configs/{path.name} " in page) == public


def test_a_missing_file_is_named(docs):
    (docs / "real_clips.json").unlink()
    with pytest.raises(ValueError, match=r"cannot read .*real_clips\.json"):
        write_results_page(docs)


def test_the_citation_is_one():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "license", "references"} <= citation.keys()
    assert citation["version"] in (ROOT / "pyproject.toml").read_text()
