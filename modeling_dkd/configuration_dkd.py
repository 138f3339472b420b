"""Configuration of DKD: the head's options and, for the whole model, the backbone's own configuration."""

from transformers import PreTrainedConfig


class DKDCLIPConfig(PreTrainedConfig):
    """Options of `DKDHead` and `DKDCLIPModel`."""

    model_type = "dkd_clip"

    backbone_config: dict | PreTrainedConfig | None = None
    projection_dim: int = 512
    logit_scale: float = 100.0
    logit_bias: float = 0.0
    num_components: int = 0
