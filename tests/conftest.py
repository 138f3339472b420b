"""Fixtures shared by all tests."""

import gc
import importlib.util
import os
import signal
from pathlib import Path
from types import ModuleType

import pytest

from tests.torchvision_operators import declare_missing_operators


declare_missing_operators()  # before transformers imports torchvision, if it is there

from modeling_dkd import video_decoding  # noqa: E402
from modeling_dkd.embedding.embedded_checkpoint import CHECKPOINT, copy_code  # noqa: E402
from modeling_dkd.interop import run_graphs  # noqa: E402, F401, before a test imports a runtime that it silences


DATA = Path(os.environ.get("DKD_DATA", Path(__file__).resolve().parents[2] / "shared/data"))


# Of the common tests of transformers, see test_common_of_transformers.py.
MARKERS_OF_TRANSFORMERS = (
    "accelerate_tests",
    "torch_compile_test",
    *(f"flash_attn{n}_test" for n in ("", "_3", "_4")),
)


def pytest_configure(config: pytest.Config) -> None:
    """Markers must be known."""
    for name in MARKERS_OF_TRANSFORMERS:
        config.addinivalue_line("markers", f"{name}: a common test of transformers")
    # A command in the background of a script is started with Ctrl-C ignored, and so would be all that tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionstart() -> None:
    """Tests run on the code as it is now, also where they load it from the embedded checkpoint."""
    copy_code(CHECKPOINT)


def pytest_collection_finish() -> None:
    """What the imports have made stays to the end; the garbage collector need not look through it every time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real clips, splits and features; tests that need it skip where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"no data at {DATA}; set DKD_DATA to run the tests on real data")
    return DATA


@pytest.fixture(scope="session")
def protocols(data_dir) -> ModuleType:
    """The module beside the real data that knows the development sets and how they are split and scored."""
    path = data_dir.parent / "protocols.py"
    if not path.is_file():
        pytest.skip(f"no {path} beside the data")
    spec = importlib.util.spec_from_file_location("shared_protocols", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def decoded_stamps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Timestamps of the frames that come out of decoders, one after the other."""
    stamps: list[int] = []
    frames = video_decoding.OpenVideo._frames

    def listed(self, *arguments):
        for frame in frames(self, *arguments):
            stamps.append(frame.pts)
            yield frame

    monkeypatch.setattr(video_decoding.OpenVideo, "_frames", listed)
    return stamps
