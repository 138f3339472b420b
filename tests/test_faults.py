"""A small fault campaign; `make faults` runs the whole one."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from faults.__main__ import CLASSES
from faults.report import run_of, write_report
from faults.trials import (
    LOST,
    SURVIVED,
    WRONG_MESSAGE,
    Tally,
    Verdict,
    explained,
    in_child,
    read_or_refused,
    run_trials,
)


ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("fault", CLASSES)
def test_nothing_is_lost_and_every_message_says_where(tmp_path, fault):
    if fault == "readings" and shutil.which("ffmpeg") is None:
        pytest.skip("the ffmpeg program is not installed")
    command = [sys.executable, "-m", "faults", "--only", fault, "--scale", "0.02", "--output", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    written = json.loads((tmp_path / "faults.json").read_text())
    assert written["faults"]
    for tally in written["faults"]:
        assert tally["tried"] == tally["survived"] > 0, tally
        assert tally["fault"] in (tmp_path / "faults.md").read_text()


def crash():
    os.kill(os.getpid(), signal.SIGSEGV)


def hang():
    signal.pause()


def test_crashes_and_hangs_are_counted():
    trials = {
        "good": lambda _: Verdict(SURVIVED),
        "lost": lambda _: Verdict(LOST, "gone"),
        "crash": lambda _: crash(),
        "hang": lambda _: hang(),
        "bug": lambda _: 1 / 0,
    }
    tally = run_trials("of all kinds", trials.items(), len(trials), seconds=3)
    assert (tally.tried, tally.survived, tally.lost, tally.wrong_message) == (5, 1, 1, 3)
    assert any("died (-11)" in failure for failure in tally.failures)
    assert any("hung" in failure for failure in tally.failures)
    assert any("ZeroDivisionError" in failure for failure in tally.failures)


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("a.yaml: no"), SURVIVED),
        (ValueError("no"), WRONG_MESSAGE),
        (KeyError("a.yaml"), WRONG_MESSAGE),
        (UnicodeDecodeError("utf-8", b"a.yaml", 0, 1, "a.yaml"), WRONG_MESSAGE),
        (ValueError("a.yaml" * 1000), WRONG_MESSAGE),
    ],
)
def test_what_counts_as_explained(error, kind):
    assert read_or_refused(lambda: fail(error), "a.yaml").kind == kind
    assert explained(in_child(lambda: fail(error)), "a.yaml").kind == kind


def test_a_row_names_the_run_that_made_it(tmp_path):
    described = {
        "commit": "0123456789abcdef" * 2 + "-dirty",
        "date": "2026-11-28T07:03:50",
        "versions": {"python": "3.11"},
    }
    whole, part = (run_of(f"python -m faults{more}", described) for more in ("", " --only readings --scale 0.3"))
    write_report(tmp_path, [Tally("texts", 9, 9, run=whole), Tally("films", 90, 90, seconds=5, run=whole)])
    write_report(tmp_path, [Tally("films", 30, 30, seconds=2, run=part)])
    page = (tmp_path / "faults.md").read_text()
    assert "- `python -m faults`, 2026-11-28, commit 0123456789ab-dirty, Python 3.11, " in page
    assert page.index("0 seconds: texts.") < page.index("`python -m faults --only readings --scale 0.3`")
    assert "2 seconds: films." in page
