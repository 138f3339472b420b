"""DKD: domain-aware knowledge debiasing for CLIP-like dual encoders.

Importing the package is enough for the Auto classes of `transformers` to find its classes. Nothing slow is imported
until one of them is used (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .auto_classes import watch_imports


if TYPE_CHECKING:
    from .configuration_dkd import DKDCLIPConfig
    from .dkd_head import DKDHead, DKDHeadOutput
    from .image_processing_dkd import DKDCLIPImageProcessor
    from .modeling_dkd import DKDCLIPModel, DKDCLIPOutput
    from .processing_dkd import DKDCLIPProcessor
    from .video_pipelines import VideoClassificationPipeline, ZeroShotVideoClassificationPipeline

MODULES = {
    "DKDCLIPConfig": "configuration_dkd",
    "DKDCLIPImageProcessor": "image_processing_dkd",
    "DKDCLIPModel": "modeling_dkd",
    "DKDCLIPOutput": "modeling_dkd",
    "DKDCLIPProcessor": "processing_dkd",
    "DKDHead": "dkd_head",
    "DKDHeadOutput": "dkd_head",
    "VideoClassificationPipeline": "video_pipelines",
    "ZeroShotVideoClassificationPipeline": "video_pipelines",
}
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

watch_imports()


def __getattr__(name: str) -> Any:
    """A class of `__all__`, imported now."""
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{MODULES[name]}", __name__), name)
