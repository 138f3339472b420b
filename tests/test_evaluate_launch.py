"""`import evaluate` means the library and `python evaluate.py` the script, however Python was started."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[1]
SHOW = "import evaluate; print('library', evaluate.__version__, evaluate.Metric.__name__)"
TEST = f"def test_it(capsys):\n    {SHOW}\n    assert capsys.readouterr().out.startswith('library')\n"
SPAWN = f"""
import multiprocessing

def child():
    {SHOW}

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=child)
    process.start()
    process.join()
    raise SystemExit(process.exitcode)
"""


@pytest.fixture
def root(tmp_path):
    """A folder like the repository's root, with our evaluate.py and scripts beside it."""
    folder = tmp_path / "root"
    folder.mkdir()
    shutil.copy(ROOT / "evaluate.py", folder)
    (folder / "script.py").write_text(SHOW)
    (folder / "spawn.py").write_text(SPAWN)
    (folder / "test_it.py").write_text(TEST)
    (folder / "pytest.ini").write_text("[pytest]\n")
    return folder


def launch(arguments, folder, **variables):
    """Output of `python ARGUMENTS` in a folder, without a PYTHONPATH of the outside."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"} | variables
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def test_our_script_hands_over_in_this_very_process():
    import evaluate

    assert Path(evaluate.__file__).parent != ROOT
    assert issubclass(evaluate.Metric, object)


def test_a_missing_library_is_said_plainly(root):
    done = launch(["-S", "-c", "import evaluate"], root)
    assert done.returncode == 1
    assert done.stderr.endswith("ModuleNotFoundError: the library 'evaluate' is not installed: pip install evaluate\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", SHOW],
        ["script.py"],
        ["-m", "script"],
        ["spawn.py"],
        ["-m", "accelerate.commands.launch", "--cpu", "script.py"],
        ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1", "script.py"],
    ],
    ids=lambda a: " ".join(a)[:40],
)
def test_import_finds_the_library(root, arguments):
    done = launch([a.replace("{root}", str(root)) for a in arguments], root)
    assert done.returncode == 0, done.stderr
    assert "library 0.4" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("path", ["{link}", ".:{root}/../root"])
def test_import_finds_the_library_by_any_path(root, tmp_path, path):
    (tmp_path / "link").symlink_to(root)
    filled = path.replace("{root}", str(root)).replace("{link}", str(tmp_path / "link"))
    done = launch(["-c", SHOW], tmp_path, PYTHONPATH=filled)
    assert done.returncode == 0, done.stderr
    assert "library 0.4" in done.stdout


@pytest.mark.slow
def test_import_finds_the_library_under_pytest(root):
    done = launch(["-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"], root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        (["evaluate.py"], ROOT),
        ([str(ROOT / "evaluate.py")], Path("/")),
        (["-m", "evaluate"], ROOT),
        (["-m", "accelerate.commands.launch", "--cpu", "evaluate.py"], ROOT),
    ],
    ids=["script", "other folder", "module", "accelerate"],
)
def test_the_script_runs(arguments, folder):
    done = launch([*arguments, "--help"], folder)
    assert done.returncode == 0, done.stderr
    assert "Measure DKD against plain zero-shot CLIP" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_script_measures_with_the_library(tmp_path):
    import torch

    from modeling_dkd.embedding.embedding_cache import EmbeddingSet, write_embeddings

    generator = torch.Generator().manual_seed(0)
    videos, texts = torch.randn(40, 8, generator=generator), torch.randn(3, 8, generator=generator)
    write_embeddings(tmp_path / "toy.safetensors", EmbeddingSet(videos, torch.arange(40) % 3, texts))
    done = launch(["evaluate.py", "--embeddings", str(tmp_path / "toy.safetensors"), "--protocols", "full"], ROOT)
    assert done.returncode == 0, done.stderr
    assert "zero-shot" in done.stdout
    failed = launch(["evaluate.py", "--embeddings", "absent.npz"], ROOT)
    assert (failed.returncode, failed.stdout, failed.stderr) == (2, "", "error: absent.npz: no such file\n")
