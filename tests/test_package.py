"""What importing the package does, and what its commands do not wait for."""

import os
import subprocess
import sys
import tomllib
from functools import partial
from pathlib import Path

import pytest

import modeling_dkd
from modeling_dkd.cli import COMMANDS, EXTRAS, main
from modeling_dkd.embedding.embedded_checkpoint import CHECKPOINT
from modeling_dkd.evaluation import command as evaluation_command
from modeling_dkd.evaluation import names
from modeling_dkd.evaluation.methods import ablations, peers
from modeling_dkd.recognition import recognise_command
from modeling_dkd.training import command as training_command


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


LONG_OUTPUT = """
import sys, types
from modeling_dkd import cli
cli.import_module = lambda *_: types.SimpleNamespace(main=lambda argv: print("x" * 100_000))
sys.exit(cli.main(["train"]))
"""


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["recognise", "--help"], ["no-command"], ["-c", LONG_OUTPUT]],
    ids=["usage", "help of a command", "error", "while a command works"],
)
def test_a_reader_that_has_gone_is_met_with_silence(arguments):
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = arguments if arguments[0] == "-c" else ["-m", "modeling_dkd", *arguments]
    both = "no-command" in arguments  # As with 2>&1: this one writes to standard error alone.
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        stdout=write_end,
        stderr=write_end if both else subprocess.PIPE,
        text=True,
        timeout=60,
    )
    os.close(write_end)
    assert done.returncode == 141
    assert not done.stderr


def raise_broken_pipe(*_, **options):
    raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize(
    ("works", "command"),
    [
        ("recognition.recognise_command._run", partial(recognise_command.main, [])),
        ("evaluation.evaluate_sets.run", partial(evaluation_command.main, ["--embeddings", "clips.npz"])),
        ("training.loop.train", partial(training_command._run, None, False, [])),
    ],
)
def test_no_command_calls_a_reader_that_has_gone_an_error(monkeypatch, works, command):
    monkeypatch.setattr(f"modeling_dkd.{works}", raise_broken_pipe)
    with pytest.raises(BrokenPipeError):
        command()


def test_a_head_is_imported_with_little_more_than_torch():
    """Transformers, huggingface_hub, av, pillow: for those who make a configuration, share a domain, read a clip."""
    code = """
import sys, torch
before = set(sys.modules)
import modeling_dkd.dkd_head
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""
    assert run(code).split() == ["modeling_dkd", "safetensors"]


def test_names_of_the_parser_are_those_of_the_code():
    assert tuple(peers.BASELINES) == names.BASELINES
    assert tuple(ablations.ABLATIONS) == names.ABLATIONS


ORDERS = [
    "import modeling_dkd; from transformers import AutoModel, AutoProcessor",
    "from transformers import AutoModel, AutoProcessor; import modeling_dkd",
    "from modeling_dkd import DKDCLIPModel; from transformers import AutoModel, AutoProcessor",
    "from modeling_dkd.dkd_head import DKDHead; from transformers import AutoProcessor, AutoModel",
]


@pytest.mark.slow
@pytest.mark.parametrize("imports", ORDERS)
def test_importing_the_package_is_enough_for_the_auto_classes(imports):
    code = f"""
{imports}
for auto in (AutoModel, AutoProcessor):
    print(type(auto.from_pretrained({str(CHECKPOINT)!r})).__module__)
"""
    assert run(code).split() == ["modeling_dkd.modeling_dkd", "modeling_dkd.processing_dkd"]


@pytest.mark.slow
def test_what_is_saved_carries_its_code_without_an_auto_class(tmp_path):
    code = f"""
from modeling_dkd.image_processing_dkd import DKDCLIPImageProcessor
DKDCLIPImageProcessor().save_pretrained({str(tmp_path)!r})
"""
    run(code)
    assert "AutoImageProcessor" in (tmp_path / "preprocessor_config.json").read_text()
    assert (tmp_path / "video_frames.py").is_file()


HEAD_ALONE = """
import sys

class NoVideo:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("av", "PIL"):
            raise ModuleNotFoundError(f"no {name}", name=name)

sys.meta_path.insert(0, NoVideo())
import torch
from modeling_dkd import DKDCLIPConfig, DKDHead
head = DKDHead(DKDCLIPConfig(projection_dim=4)).fit(torch.randn(9, 4), torch.randn(3, 4))
print(tuple(head(torch.randn(2, 4), torch.randn(3, 4)).logits_per_video.shape))
slow = {"modeling_dkd.modeling_dkd", "datasets", "transformers.modeling_utils"}
print("imported:", *sorted(slow & set(sys.modules)))
"""


def test_the_head_needs_no_video_library_and_not_all_of_transformers():
    assert run(HEAD_ALONE).splitlines() == ["(2, 3)", "imported:"]


def test_importing_the_package_imports_nothing_slow():
    code = "import sys, modeling_dkd; print(*sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    assert run(code).strip() == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_library_is_told_with_the_command_that_installs_it(command, monkeypatch, capsys):
    def missing(name, package):
        raise ModuleNotFoundError("No module named 'gone.sub'", name="gone.sub")

    module = COMMANDS[command][0]
    extra = EXTRAS.get(module) or EXTRAS[module.split(".")[0]]
    assert extra in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    monkeypatch.setattr("modeling_dkd.cli.import_module", missing)
    assert main([command]) == 2
    said = f'error: dkd {command} needs gone, which is not installed; run: pip install "modeling-dkd[{extra}]"\n'
    assert capsys.readouterr().err == said


def test_a_module_of_ours_that_is_missing_is_no_users_fault(monkeypatch):
    def missing(name, package):
        raise ModuleNotFoundError("No module named 'modeling_dkd.gone'", name="modeling_dkd.gone")

    monkeypatch.setattr("modeling_dkd.cli.import_module", missing)
    with pytest.raises(ModuleNotFoundError):
        main(["train"])


def test_other_names_are_refused():
    assert all(hasattr(modeling_dkd, name) for name in modeling_dkd.__all__)
    with pytest.raises(AttributeError, match="no attribute 'DKDModel'"):
        _ = modeling_dkd.DKDModel
