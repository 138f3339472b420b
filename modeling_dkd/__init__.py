"""DKD: domain-aware knowledge debiasing for CLIP-like dual encoders."""

from .configuration_dkd import DKDCLIPConfig
from .dkd_head import DKDHead, DKDHeadOutput


__all__ = ["DKDCLIPConfig", "DKDHead", "DKDHeadOutput"]
