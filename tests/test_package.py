"""What importing the package does, and what its commands do not wait for."""

import subprocess
import sys
from pathlib import Path

import pytest

import modeling_dkd
from modeling_dkd.cli import COMMANDS
from modeling_dkd.evaluation import names
from modeling_dkd.evaluation.methods import ablations, peers
from modeling_dkd.synthetic.checkpoint import CHECKPOINT


ROOT = Path(__file__).resolve().parents[1]
# Runs a command as `python ARGUMENTS` would, and says which of the slow libraries it has imported.
IMPORTED = """
import runpy, sys
command, sys.argv = sys.argv[1:], sys.argv[1:]
try:
    if command[0] == "-m":
        sys.argv = command[1:]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(command[0], run_name="__main__")
except SystemExit as left:
    assert left.code in (0, None), left.code
print("imported:", *sorted({"torch", "transformers", "numpy", "datasets", "huggingface_hub"} & set(sys.modules)))
"""


def run(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "command",
    [
        ["train.py", "--help"],
        ["evaluate.py", "--help"],
        ["-m", "modeling_dkd", "--help"],
        *(["-m", "modeling_dkd", command, "--help"] for command in COMMANDS),
    ],
    ids=" ".join,
)
def test_help_waits_for_no_slow_library(command):
    shown = run(IMPORTED, *command)
    assert "usage:" in shown
    assert shown.splitlines()[-1] == "imported:"


def test_names_of_the_parser_are_those_of_the_code():
    assert tuple(peers.BASELINES) == names.BASELINES
    assert tuple(ablations.ABLATIONS) == names.ABLATIONS


@pytest.mark.slow
def test_importing_the_package_is_enough_for_the_auto_classes():
    code = f"""
import modeling_dkd
from transformers import AutoModel, AutoProcessor
for auto in (AutoModel, AutoProcessor):
    print(type(auto.from_pretrained({str(CHECKPOINT)!r})).__module__)
"""
    assert run(code).split() == ["modeling_dkd.modeling_dkd", "modeling_dkd.processing_dkd"]


@pytest.mark.slow
def test_an_option_of_somebody_elses_script_takes_nothing_away(tmp_path):
    """There -h may be anything, and is none of our business."""
    script = tmp_path / "theirs.py"
    script.write_text(
        "import modeling_dkd\nfrom transformers import AutoModel\n"
        f"print(type(AutoModel.from_pretrained({str(CHECKPOINT)!r})).__module__)"
    )
    done = subprocess.run(
        [sys.executable, script, "-h", "5"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout.split() == ["modeling_dkd.modeling_dkd"]


@pytest.mark.slow
def test_classes_are_there_in_a_command_that_was_asked_for_help(tmp_path):
    code = f"""
import runpy, sys
sys.argv = ["train.py", "--help"]
try:
    runpy.run_path("train.py", run_name="__main__")
except SystemExit:
    pass
assert "torch" not in sys.modules
from modeling_dkd import DKDCLIPModel, DKDHead
DKDCLIPModel.from_pretrained({str(CHECKPOINT)!r}).save_pretrained({str(tmp_path)!r})
"""
    run(code)
    assert (tmp_path / "svgd.py").is_file()


def test_other_names_are_refused():
    assert all(hasattr(modeling_dkd, name) for name in modeling_dkd.__all__)
    with pytest.raises(AttributeError, match="no attribute 'DKDModel'"):
        _ = modeling_dkd.DKDModel
