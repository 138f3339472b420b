"""What people install: the wheel, built from the source distribution, in an environment without the repository."""

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

from modeling_dkd.embedding.embedded_checkpoint import HUB_CONFIGS, shipped_code


ROOT = HUB_CONFIGS.parent
pytestmark = pytest.mark.slow


def run(*command, cwd, **variables):
    """Output of a command that must succeed, in a process that has no variables but these."""
    bare = {"PATH": os.environ["PATH"], "HOME": str(cwd), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=bare | variables, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    source = folder / sdist.name.removesuffix(".tar.gz")
    assert not list(source.glob("hub_configs/dkd-tiny/*.py"))
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=source)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A fresh environment with the wheel; the libraries are those of the tests, our package is not."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    with ZipFile(wheel) as archive:
        archive.extractall(site)
    # A path in a .pth file is searched, but the .pth files in it, that of the editable installation too, are not read.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    script = folder / "bin" / "dkd"
    # As pip writes it: worker processes import it again.
    code = 'import sys\nfrom modeling_dkd.cli import main\nif __name__ == "__main__":\n    sys.exit(main())\n'
    script.write_text(f"#!{folder}/bin/python\n{code}")
    script.chmod(0o755)
    return folder


def test_the_wheel_carries_the_checkpoint_with_its_code_and_no_script(wheel):
    names = set(ZipFile(wheel).namelist())
    checkpoint = "modeling_dkd/hub_configs/dkd-tiny/"
    assert {f"{checkpoint}{path.name}" for path in shipped_code()} | {f"{checkpoint}model.safetensors"} <= names
    assert "modeling_dkd/hub_configs/space/app.py" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"modeling_dkd"}
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".npz"))]
    assert wheel.stat().st_size < 4_000_000
    (entry,) = [name for name in names if name.endswith("entry_points.txt")]
    assert "dkd = modeling_dkd.cli:main" in ZipFile(wheel).read(entry).decode()


LOAD = """
from transformers import AutoModel, AutoProcessor
processor = AutoProcessor.from_pretrained("demo/dkd-tiny", trust_remote_code=True)
model = AutoModel.from_pretrained("demo/dkd-tiny", trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules."), type(model)
from glob import glob
inputs = processor(videos=sorted(glob("demo/clips/combined/*/*.mp4"))[:2], text=["something turning"])
print(tuple(model.fit_domain(**inputs) and model(**inputs).logits_per_video.shape))
"""


@pytest.fixture(scope="module")
def demo(environment, tmp_path_factory):
    """The environment's commands, a folder in which the demo has run, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    dkd, python = environment / "bin" / "dkd", environment / "bin" / "python"
    return dkd, python, folder, run(dkd, "demo", "--quick", "--clips", "20", cwd=folder)


def test_the_command_and_its_checkpoint_work_from_the_wheel(environment, demo):
    dkd, python, folder, shown = demo
    where = run(python, "-c", "import modeling_dkd; print(modeling_dkd.__file__)", cwd=folder).strip()
    assert Path(where).is_relative_to(environment)
    assert "dkd demo" in run(dkd, "--help", cwd=folder)
    assert "| combined |" in shown
    run(dkd, "recognise", "demo/clips/combined", "--classes", "turning,growing", "--output", "out.csv", cwd=folder)
    assert (folder / "out.csv").read_text().count("demo/clips/combined/") == 20
    run(dkd, "space", "--export", "exported", cwd=folder)
    assert (folder / "exported" / "hub_configs" / "dkd-tiny" / "dkd_head.py").is_file()
    # Where the package is not installed, the code in the folder has to do.
    assert run(sys.executable, "-I", "-c", LOAD, cwd=folder, HF_HOME=str(folder / "hf")).strip() == "(2, 1)"


PIPELINE = """
import json, sys
from glob import glob
from transformers import AutoModel, AutoProcessor, pipeline
model = AutoModel.from_pretrained("demo/dkd-tiny", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("demo/dkd-tiny", trust_remote_code=True)
clips = sorted(glob("demo/clips/combined/*/*.mp4"))
names = ["turning", "growing", "shrinking", "bouncing"]
model.fit_domain(**processor(videos=clips, text=[f"something {name}" for name in names]), class_names=names)
model.save_pretrained("fitted")
processor.save_pretrained("fitted")
pipe = pipeline("video-classification", model="fitted", trust_remote_code=True)
print(json.dumps([[clip, *found[0].values()] for clip, found in zip(clips, pipe(clips, top_k=1))]))
"""


def test_exported_graphs_give_the_answers_of_the_pipeline(demo):
    if not all(map(importlib.util.find_spec, ("onnxscript", "onnxruntime", "openvino"))):
        pytest.skip("needs the extra export")
    dkd, python, folder, _ = demo
    expected = json.loads(run(python, "-c", PIPELINE, cwd=folder, HF_HOME=str(folder / "hf")).splitlines()[-1])
    clips = [clip for clip, *_ in expected]
    for runtime in ("onnx", "openvino"):
        assert f"written: {runtime}" in run(dkd, "export", "fitted", "--to", runtime, runtime, cwd=folder)
        shown = run(python, f"{runtime}/run_graphs.py", *clips, cwd=folder)
        found = [line.split("\t") for line in shown.splitlines()]
        assert [line[:2] for line in found] == [[clip, label] for clip, label, _ in expected]
        # The runner resizes frames with Pillow: a pixel may be 2 of 255 off.
        assert [float(line[2]) for line in found] == pytest.approx([score for *_, score in expected], abs=0.01)
