"""The notebooks, run as a reader would run them: cell after cell, without a network."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from modeling_dkd.synthetic.clips import DEFAULT_TARGET, generate_clips

from .tiny_checkpoint import save_tiny_clip


NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
BACKBONE = "openai/clip-vit-base-patch16"


def cells(path, kind="code"):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def run(name, folder, replaced=()):
    """Output of all code cells in one namespace, in a process whose folder is `folder`."""
    (path,) = (path for path in NOTEBOOKS if path.name == name)
    code = "\n".join("".join(cell["source"]) for cell in cells(path))
    for old, new in replaced:
        assert code.count(old) == 1
        code = code.replace(old, new)
    variables = {"MPLBACKEND": "agg", "HF_HUB_OFFLINE": "1", "TMPDIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore:FigureCanvasAgg", "-c", code],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_two():
    assert [path.name for path in NOTEBOOKS] == ["openai_clip.ipynb", "quickstart.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_cells_are_stored_without_outputs_and_install_only_what_is_missing(path):
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells(path))
    first = "".join(cells(path)[0]["source"])
    assert 'if importlib.util.find_spec("modeling_dkd") is None:' in first
    ran = []
    exec(first, {"__name__": "cell"})  # the package is here: a process that pip ran in would take seconds
    exec(
        first.replace("import subprocess\n", "").replace("is None", "is not None"),
        {"subprocess": type("Pip", (), {"run": staticmethod(lambda command, check: ran.append((command, check)))})},
    )
    assert ran == [([sys.executable, "-m", "pip", "install", "-q", "modeling-dkd[eval]"], True)]


@pytest.mark.slow
def test_quickstart_shows_a_gain_in_recognition_and_in_search(tmp_path):
    shown = run("quickstart.ipynb", tmp_path)
    for line in (
        r"zero-shot ([\d.]+)% -> with the domain ([\d.]+)% of",
        r"best clips: zero-shot (.*)% -> .* ([\d.]+)%",
    ):
        before, after = map(float, re.search(line, shown).groups())
        assert before + 3 < after


@pytest.mark.slow
def test_openai_clip_runs_on_a_small_stand_in(tmp_path):
    list(generate_clips(tmp_path / "clips", DEFAULT_TARGET, 24, 1))
    shown = run("openai_clip.ipynb", tmp_path, [(BACKBONE, str(save_tiny_clip(tmp_path / "tiny")))])
    assert "24 clips, 3 classes" in shown
    assert re.search(r"^\d+ of 24 clips got another label$", shown, re.MULTILINE)
    assert shown.count("a person opening a window: clips/") == 5
    assert (tmp_path / "clip-in-my-domain/modeling_dkd.py").is_file()
    assert list((tmp_path / "my-domain").glob("*.safetensors"))
