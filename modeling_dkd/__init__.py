"""DKD: domain-aware knowledge debiasing for CLIP-like dual encoders."""

from transformers import AutoConfig, AutoModel

from .configuration_dkd import DKDCLIPConfig
from .dkd_head import DKDHead, DKDHeadOutput
from .modeling_dkd import DKDCLIPModel, DKDCLIPOutput


AutoConfig.register(DKDCLIPConfig.model_type, DKDCLIPConfig, exist_ok=True)
AutoModel.register(DKDCLIPConfig, DKDCLIPModel, exist_ok=True)
# What is saved carries its own code, so that it loads with trust_remote_code=True where this package is not installed.
DKDCLIPConfig.register_for_auto_class()
DKDCLIPModel.register_for_auto_class("AutoModel")

__all__ = ["DKDCLIPConfig", "DKDCLIPModel", "DKDCLIPOutput", "DKDHead", "DKDHeadOutput"]
