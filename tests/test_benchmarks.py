import json
import subprocess
import sys
from dataclasses import asdict

import pytest

from benchmarks.__main__ import REPOSITORY, SECTIONS, build_parser, main
from benchmarks.recognise_clips import run
from benchmarks.rows import Ratio, Row, compare
from benchmarks.table import table


@pytest.fixture
def results():
    rows = [
        compare("fit, N | K", [2.0, 4.0, 3.0], "peer", [6.0, 4.0, 6.0], "s", "two\nlines"),
        Row("decode", None, "decord2", None, "clips/s", note="not installed"),
    ]
    section = {
        "title": "Fitting a domain",
        "about": "Beside a peer.",
        "command": "python -m benchmarks --sections fit",
        "date": "2020-01-02",
        "commit": "0123456789ab+",
        "seed": 0,
        "minutes": 1.5,
        "machine": {"processor": "P", "cores": 2, "threads": 2, "system": "Linux x86_64", "load_average": 0.1},
        "versions": {"python": "3.11.7"},
        "rows": [asdict(row) for row in rows],
    }
    return {"sections": {"fit": section}}


def test_table_shows_every_row_and_where_it_was_measured(results):
    page = table(results)
    assert "| fit, N \\| K | 3 | peer | 6 | s | 2 (1 to 3) | 3 | two lines |" in page
    assert "| decode | - | decord2 | - | clips/s | - | 1 | not installed |" in page
    assert "`python -m benchmarks --sections fit`, 2020-01-02, commit 0123456789ab+, seed 0" in page


def test_ratio_over_one_is_better_for_times_and_for_rates():
    assert compare("", [1.0], "", [2.0], "s").ratio == Ratio(2.0, 2.0, 2.0)
    assert compare("", [2.0], "", [1.0], "clips/s").ratio == Ratio(2.0, 2.0, 2.0)
    assert compare("", [0.0], "", [1.0], "MiB").ratio is None


def test_table_alone_keeps_the_results(results, tmp_path):
    file, page = tmp_path / "results.json", tmp_path / "page.md"
    file.write_text(json.dumps(results))
    assert main(["--table", "--results", str(file), "--output", str(page)]) == 0
    assert json.loads(file.read_text()) == results
    assert page.read_text() == table(results)


@pytest.mark.parametrize("section", SECTIONS)
def test_command_line_of_every_section_parses_and_its_module_is_there(section):
    assert build_parser().parse_args(["--sections", section]).sections == [section]
    assert "def measure() -> list[Row]:" in (REPOSITORY / f"benchmarks/{section}.py").read_text()


def test_unknown_section_is_refused(capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--sections", "nothing"])
    assert "nothing" in capsys.readouterr().err


@pytest.mark.slow
def test_video_section_without_clips_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("DKD_DATA", str(tmp_path))
    command = [sys.executable, "-m", "benchmarks", "--sections", "video_input"]
    paths = ["--results", str(tmp_path / "results.json"), "--output", str(tmp_path / "page.md")]
    run = subprocess.run([*command, *paths], cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert run.returncode == 1
    assert "error: video_input: no real clips; set DKD_DATA" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are waited for on Linux alone")
def test_processor_time_counts_what_a_command_leaves_running():
    left = "import time\nwhile time.process_time() < 1: pass"
    spent = run(["-c", f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {left!r}])"])
    assert spent.processor > 1 > run(["-c", "pass"]).processor
    with pytest.raises(RuntimeError, match=r"(?s)-c print\(1/0\) ends with 1: .*ZeroDivisionError"):
        run(["-c", "print(1/0)"])
