"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

from modeling_dkd.synthetic.checkpoint import CHECKPOINT, copy_code


DATA = Path(os.environ.get("DKD_DATA", Path(__file__).resolve().parents[2] / "shared/data"))


def pytest_sessionstart() -> None:
    """Tests run on the code as it is now, also where they load it from the embedded checkpoint."""
    copy_code(CHECKPOINT)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real clips, splits and features; tests that need it skip where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"no data at {DATA}; set DKD_DATA to run the tests on real data")
    return DATA
