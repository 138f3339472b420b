import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from modeling_dkd.synthetic.checkpoint import CHECKPOINT
from modeling_dkd.synthetic.clips import DEFAULT_TARGET, generate_clips


REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_first_example_runs_as_written(tmp_path):
    """In a folder with what `make demo` leaves, and with the code of the checkpoint instead of this package."""
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "dkd-tiny").symlink_to(CHECKPOINT)
    list(generate_clips(tmp_path / "demo" / "clips" / DEFAULT_TARGET, DEFAULT_TARGET, 30, seed=0))
    code = re.search(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL).group(1)
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    rows = re.findall(r"\[\s*\d\.\d+, +\d\.\d+, +\d\.\d+\]", run.stdout)
    assert rows, run.stdout
    assert all(abs(sum(map(float, row.strip("[]").split(","))) - 1) < 1e-3 for row in rows)
