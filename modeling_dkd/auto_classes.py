"""Makes the classes known to AutoConfig, AutoModel, AutoImageProcessor and AutoProcessor of `transformers`."""

from transformers import AutoConfig, AutoModel, AutoProcessor

# The name in `transformers` itself is a placeholder that wants torchvision in older releases.
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from .configuration_dkd import DKDCLIPConfig
from .dkd_head import DKDHead, DKDHeadOutput
from .image_processing_dkd import DKDCLIPImageProcessor
from .modeling_dkd import DKDCLIPModel, DKDCLIPOutput
from .processing_dkd import DKDCLIPProcessor
from .video_pipelines import VideoClassificationPipeline, ZeroShotVideoClassificationPipeline


AutoConfig.register(DKDCLIPConfig.model_type, DKDCLIPConfig, exist_ok=True)
AutoModel.register(DKDCLIPConfig, DKDCLIPModel, exist_ok=True)
AutoImageProcessor.register(DKDCLIPConfig, image_processor_classes={"pil": DKDCLIPImageProcessor}, exist_ok=True)
AutoProcessor.register(DKDCLIPConfig, DKDCLIPProcessor, exist_ok=True)
# What is saved carries its own code, so that it loads with trust_remote_code=True where this package is not installed.
DKDCLIPConfig.register_for_auto_class()
DKDCLIPModel.register_for_auto_class("AutoModel")
DKDCLIPImageProcessor.register_for_auto_class("AutoImageProcessor")
DKDCLIPProcessor.register_for_auto_class("AutoProcessor")

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
