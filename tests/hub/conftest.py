"""A local Hub for every test that needs one, and a small model repository."""

import shutil
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from .local_hub import WRITER, LocalHub


CHECKPOINT = Path(__file__).resolve().parents[2] / "hub_configs" / "dkd-tiny"


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
