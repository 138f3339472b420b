"""DKD: domain-aware knowledge debiasing for CLIP-like dual encoders.

Importing the package makes its classes known to the Auto classes of `transformers`, which takes seconds. A command of
this project that is asked for --help does not wait for that: it imports them when one is used.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .configuration_dkd import DKDCLIPConfig
    from .dkd_head import DKDHead, DKDHeadOutput
    from .image_processing_dkd import DKDCLIPImageProcessor
    from .modeling_dkd import DKDCLIPModel, DKDCLIPOutput
    from .processing_dkd import DKDCLIPProcessor
    from .video_pipelines import VideoClassificationPipeline, ZeroShotVideoClassificationPipeline

__all__ = [
    "DKDCLIPConfig",
    "DKDCLIPImageProcessor",
    "DKDCLIPModel",
    "DKDCLIPOutput",
    "DKDCLIPProcessor",
    "DKDHead",
    "DKDHeadOutput",
    "VideoClassificationPipeline",
    "ZeroShotVideoClassificationPipeline",
]


def __getattr__(name: str) -> Any:
    """A class of `__all__`, imported and registered now (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".auto_classes", __name__), name)


def _is_asked_for_help() -> bool:
    """Whether this process is `python -m modeling_dkd...`, train.py or evaluate.py with --help, and no one else's."""
    if not {"-h", "--help"} & set(sys.argv[1:]):
        return False
    started = getattr(sys.modules.get("__main__"), "__file__", None)
    if started is None or sys.argv[0] == "-m":  # Python has yet to find the module that was asked for
        return any(argument.startswith(__name__) for argument in sys.orig_argv)
    root = Path(__file__).resolve().parents[1]
    return Path(started).resolve() in (root / "train.py", root / "evaluate.py")


if not _is_asked_for_help():
    import_module(".auto_classes", __name__)
