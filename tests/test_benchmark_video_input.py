import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


BENCHMARK = Path(__file__).resolve().parents[1] / "benchmarks/video_input.py"


def run_benchmark(*arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, str(BENCHMARK), *arguments], capture_output=True, text=True, timeout=300, env=environment
    )


@pytest.mark.slow
def test_benchmark_prints_ratios_and_writes_json(data_dir, tmp_path):
    arguments = ["--clips", "4", "--rounds", "1", "--backbone", "tiny", "--backbone_clips", "2"]
    run = run_benchmark("--data_dir", str(data_dir), *arguments, "--json", str(tmp_path / "figures.json"))
    assert run.returncode == 0, run.stderr
    report = json.loads((tmp_path / "figures.json").read_text())
    assert [row["data"] for row in report["speed"]] == ["originals", "ucf101"]
    assert report["speed"][0]["clips"] == 23
    assert len(report["speed"][0]["unreadable_by_the_loop"]) == 2
    for row in report["speed"]:
        names = [stage["stage"] for stage in row["stages"]]
        assert len(names) == 8
        assert [name.endswith(" + tiny") for name in names] == [False] * 5 + [True] * 3
        for stage in row["stages"]:
            assert f"| {row['data']} | {stage['stage']} |" in run.stdout
            assert stage["loop_clips_per_second"] > 0
        assert row["stages"][0]["loop_time_over_ours"]["median"] > 1.5
    assert report["pixels"]
    assert all(row["max"] <= 2 and row["mean"] <= 0.1 for row in report["pixels"])


@pytest.mark.slow
def test_benchmark_without_data_says_so(tmp_path):
    run = run_benchmark("--data_dir", str(tmp_path))
    assert run.returncode == 2
    assert run.stderr.startswith("error: no clips under")
    assert "Traceback" not in run.stderr
