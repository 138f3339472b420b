"""A local Hub for every test that needs one, and a small model repository."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import HfApi, constants

from modeling_dkd.embedding.embedded_checkpoint import CHECKPOINT

from ..tiny_checkpoint import save_tiny_clip
from ..training.conftest import write_clip
from .local_hub import WRITER, LocalHub


ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def hub():
    with LocalHub() as running:
        yield running


@pytest.fixture
def api(hub, monkeypatch, tmp_path):
    """Calls the local Hub as somebody who may write, with a cache of its own and without waiting."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
    return HfApi(endpoint=hub.url, token=WRITER)


@pytest.fixture
def pauses(monkeypatch):
    """Seconds that were waited for; nobody waits."""
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    return waited


@pytest.fixture
def folder(tmp_path):
    """A finished model whose card names the repository "owner/tiny"."""
    copy = tmp_path / "tiny"
    shutil.copytree(CHECKPOINT, copy, ignore=shutil.ignore_patterns("__pycache__"))
    card = copy / "README.md"
    card.write_text(card.read_text().replace("hub_configs/dkd-tiny", "owner/tiny"))
    return copy


@dataclass(frozen=True)
class PublishedModel:
    """A model that went the whole way: trained, its domain fitted, evaluated, published to a running local Hub."""

    hub: LocalHub
    repo_id: str
    commit: str
    folder: Path
    clips: Path
    environment: dict[str, str]
    shown: str

    def run(self, *command: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess:
        """A fresh process that knows this Hub and nothing else."""
        return run_python(*command, cwd=cwd, **(self.environment | variables))


def run_python(*command: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess:
    """A fresh Python process in a folder of its own that must succeed; it has these variables alone."""
    cwd.mkdir(parents=True, exist_ok=True)
    bare = {"PATH": os.environ["PATH"], "HOME": str(cwd), "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, env=bare | variables, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """Train 20 steps, fit the domain, evaluate into the card, publish; each by its command line."""
    root = tmp_path_factory.mktemp("published")
    # Colours that vary more within a class than between two of them: figures of 100 % would prove nothing.
    rng = np.random.default_rng(3)
    for part, number in {"train": 6, "test": 10}.items():
        for k, (name, colour) in enumerate(
            {"Red_1": (150, 90, 110), "Grey": (120, 110, 120), "Blue": (90, 90, 160)}.items()
        ):
            for i in range(number):
                shade = tuple(int(c) for c in np.array(colour) + rng.normal(0, 30, 3))
                write_clip(root / "clips" / part / name / f"{name}_{i}.avi", shade, 100 * k + 10 * i + len(part))
    backbone = save_tiny_clip(root / "backbone")
    options = {
        "repo_id": "owner/colours",
        "model": {"backbone": str(backbone)},
        "data": {"dataset": "folder", "data_dir": str(root / "clips"), "num_frames": 2, "num_workers": 0}
        | {"test_views": "2x1x1"},
        "recipe": {"epochs": 5, "batch_size": 4, "learning_rate": 1e-3},
        "run": {"output_dir": str(root / "runs/colours")},
    }
    (root / "config.yaml").write_text(yaml.safe_dump(options))
    with LocalHub() as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": WRITER, "HF_HOME": str(root / "hf_home")}
        run = partial(run_python, cwd=root, **environment)
        run(str(ROOT / "train.py"), "--config", "config.yaml")
        folder = root / "runs/colours"
        evaluate = [
            "--model",
            str(folder),
            "--dataset",
            "folder",
            "--data_dir",
            str(root / "clips"),
            "--frames",
            "2x1x1",
        ]
        run(str(ROOT / "evaluate.py"), *evaluate, "--num_workers", "0", "--update_card", str(folder))
        publish = ["-m", "modeling_dkd", "publish", "--config", "config.yaml"]
        dry = run(*publish).stdout
        assert "dry run, nothing was sent" in dry
        assert not hub.repositories
        shown = run(*publish, "--push", "--private").stdout
        commit = re.search(r"commit to pin: (\w{40})", shown)[1]
        yield PublishedModel(hub, "owner/colours", commit, folder, root / "clips", environment, dry)
