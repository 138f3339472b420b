"""A set of small clips, a tiny checkpoint, and runs of train.py on them."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
import yaml
from accelerate.state import AcceleratorState, GradientState

from ..tiny_checkpoint import save_tiny_clip


ROOT = Path(__file__).resolve().parents[2]
COLOURS = {"Red": (200, 40, 40), "Green": (40, 200, 40), "Blue": (40, 40, 200)}
PER_CLASS = {"train": 6, "test": 3}


def write_clip(path: Path, colour: tuple[int, int, int], seed: int) -> None:
    """Six frames of 40 x 34 pixels of about one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 40, 34, "yuv420p"
        for _ in range(6):
            pixels = np.clip(np.array(colour) + rng.normal(0, 25, (34, 40, 3)), 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def forget_processes():
    """Accelerate keeps one state a process; what follows starts as a new process would."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    forget_processes()


@pytest.fixture(scope="session")
def clips_dir(tmp_path_factory):
    """train/ and test/ with three classes each."""
    folder = tmp_path_factory.mktemp("clips")
    for part, number in PER_CLASS.items():
        for k, (name, colour) in enumerate(COLOURS.items()):
            for i in range(number):
                write_clip(folder / part / name / f"{name}_{i}.avi", colour, 100 * k + 10 * i + len(part))
    return folder


@pytest.fixture(scope="session")
def backbone_dir(tmp_path_factory):
    return save_tiny_clip(tmp_path_factory.mktemp("tiny"))


def run_options(clips_dir: Path, backbone_dir: Path, output: Path) -> dict[str, dict]:
    """Options of a run of 2 epochs of 3 steps."""
    return {
        "model": {"backbone": str(backbone_dir)},
        "data": {"dataset": "folder", "data_dir": str(clips_dir), "num_frames": 2, "num_workers": 0}
        | {"test_views": "2x1x1"},
        "recipe": {"epochs": 2, "batch_size": 6, "learning_rate": 1e-3},
        "run": {"output_dir": str(output)},
    }


@pytest.fixture
def options(clips_dir, backbone_dir, tmp_path):
    """Options of a short run; tests change them before they are used."""
    return run_options(clips_dir, backbone_dir, tmp_path / "out")


@pytest.fixture
def config_file(options, tmp_path):
    """Writes the options as they are when it is called."""

    def write() -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(options))
        return path

    return write


@pytest.fixture
def start():
    """Starts train.py in a process of its own as a user would; whatever still runs at the end is killed."""
    started: list[subprocess.Popen] = []

    def run(config: Path, *arguments: str, launcher: tuple[str, ...] = (), **variables: str) -> subprocess.Popen:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | variables
        command = [sys.executable, *launcher, str(ROOT / "train.py"), "--config", str(config), *arguments]
        pipe = subprocess.PIPE
        started.append(
            subprocess.Popen(
                command,
                env=environment,
                cwd=config.parent,
                stdout=pipe,
                stderr=pipe,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    yield run
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
