import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.image import imread

from modeling_dkd import dkd_head


BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import growth  # noqa: E402 (a script beside the package)
import growth_report  # noqa: E402


SIZES = [1, 10, 100, 1000, 10_000]
ROW = {
    "work": "a fit with a $ in its name",
    "varied": "videos",
    "sizes": SIZES,
    "seconds": [0.001, 0.01, 0.1, 1.0, 10.0],
    "seconds_spread": [0.0] * 5,
    "mib": [0.0, 0.0, 0.5, 1.0, 1.5],
    "repeats": [3] * 5,
    "time_exponent": 1.0,
    "memory_exponent": None,
    "time_limit": 1,
    "memory_limit": 1,
    "reason": "one pass",
}
ENVIRONMENT = {"python": "3.11", "torch": "2.13.0", "cores": 2, "load_average": 0.1}


@pytest.mark.parametrize("power", [0.0, 1.0, 2.5])
def test_exponent_is_that_of_a_power_of_the_size(power):
    assert growth.exponent(SIZES, [3 * size**power for size in SIZES]) == pytest.approx(power)


def test_exponent_is_fitted_on_the_upper_half():
    """A constant cost hides how the small sizes grow."""
    assert growth.exponent(SIZES, [7.0, 7.0, 100.0, 1000.0, 10_000.0]) == pytest.approx(1)
    assert growth.exponent(SIZES[:3], [1.0, 10.0, 100.0]) == pytest.approx(1)


def test_costs_below_what_is_known_have_no_exponent():
    assert growth.exponent(SIZES, [0.0, 0.0, 2.0, 5.0, 9.0], least=2.0) is None
    assert growth.exponent(SIZES, [0.0, 0.0, 2.1, 21.0, 210.0], least=2.0) == pytest.approx(1)


@pytest.mark.parametrize(("kind", "found"), [("time", 1.16), ("memory", 1.3)])
def test_what_grows_faster_than_it_may_is_named(kind, found):
    row = {**ROW, f"{kind}_exponent": found}
    assert growth_report.too_fast(ROW) == []
    assert growth_report.too_fast(row) == [kind]
    page = growth_report.markdown({"environment": ENVIRONMENT, "curves": {"a": ROW, "b": row}})
    assert page.count("in order |") == 1
    assert f"**{kind} too fast**" in page


def test_report_is_written_and_drawn_anew(tmp_path):
    without_memory = {**copy.deepcopy(ROW), "mib": None}
    growth_report.write_report({"environment": ENVIRONMENT, "curves": {"a": ROW, "b": without_memory}}, tmp_path)
    page = (tmp_path / "growth.md").read_text()
    assert "| 1, 10,000 | 0.001, 10 | 1.00 (1) | 0, 1.5 | - (1) | one pass | in order |" in page
    assert "not known" in page
    picture = imread(tmp_path / "growth.png")
    assert picture.shape[1] > picture.shape[0] > 300
    (tmp_path / "growth.md").unlink()
    assert growth.main(["--redraw", "--output", str(tmp_path)]) == 0
    assert (tmp_path / "growth.md").read_text() == page


def test_every_curve_has_enough_ascending_sizes():
    for curve in growth.CURVES.values():
        assert len(curve.sizes) >= 6
        assert list(curve.sizes) == sorted(set(curve.sizes))


def test_a_stream_is_measured_just_before_and_at_a_new_look(monkeypatch):
    """The two curves of `update` differ in whether the measured batch is due for a fit."""
    fits = []
    fit = dkd_head.fit_best_trust
    monkeypatch.setattr(dkd_head, "fit_best_trust", lambda *a, **k: fits.append(1) or fit(*a, **k))
    for refit in (False, True):
        work = growth.updating(1024, refit)
        fits.clear()
        work()
        assert len(fits) == refit


@pytest.mark.slow
def test_benchmark_measures_time_and_memory(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "growth.py"), "--curves", "forward_videos", "--most", "256"]
    run = subprocess.run([*command, "--output", str(tmp_path)], capture_output=True, text=True, timeout=300)
    report = json.loads((tmp_path / "growth.json").read_text())
    row = report["curves"]["forward_videos"]
    assert run.returncode == bool(growth_report.too_fast(row)), run.stderr
    assert row["sizes"] == [16, 64, 256]
    assert min(row["seconds"]) > 0
    if row["mib"]:
        assert row["mib"][-1] > 256 * 8 * 512 * 4 / 2**20
    assert "forward_videos" in run.stdout


@pytest.mark.slow
def test_too_few_sizes_are_refused_in_one_sentence(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "growth.py"), "--curves", "update", "--most", "2048"]
    run = subprocess.run([*command, "--output", str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert run.returncode == 2
    assert "leaves fewer than three" in run.stderr
    assert "Traceback" not in run.stderr
