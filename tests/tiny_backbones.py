"""Tiny dual encoders with random weights, for tests; sizes are odd so that a swapped axis fails."""

from typing import Any

import torch
from transformers import (
    AltCLIPConfig,
    AutoModel,
    BertConfig,
    CLIPConfig,
    MetaClip2Config,
    PreTrainedConfig,
    PreTrainedModel,
    Siglip2Config,
    SiglipConfig,
    VisionTextDualEncoderConfig,
    ViTConfig,
)


IMAGE_SIZE = 30
MAX_TOKENS = 11
VOCAB_SIZE = 99
PROJECTION_DIM = 24
SIGLIP_DIM = 32

TRUNK: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = TRUNK | {"image_size": IMAGE_SIZE, "patch_size": 6}
TEXT = TRUNK | {"vocab_size": VOCAB_SIZE, "bos_token_id": 0, "eos_token_id": 98, "pad_token_id": 1}
CLIP_TEXT = TEXT | {"max_position_embeddings": MAX_TOKENS}
ROBERTA_TEXT = TEXT | {"max_position_embeddings": MAX_TOKENS + 2, "project_dim": 32}  # its positions start at pad + 1
SIGLIP2_VISION = TRUNK | {"num_patches": (IMAGE_SIZE // 6) ** 2, "patch_size": 6}


def _vision_text_config() -> PreTrainedConfig:
    return VisionTextDualEncoderConfig.from_vision_text_configs(
        ViTConfig(**VISION), BertConfig(**CLIP_TEXT), projection_dim=PROJECTION_DIM
    )


CONFIGS = {
    "clip": lambda: CLIPConfig(text_config=CLIP_TEXT, vision_config=VISION, projection_dim=PROJECTION_DIM),
    "siglip": lambda: SiglipConfig(text_config=CLIP_TEXT, vision_config=VISION),
    "siglip2": lambda: Siglip2Config(text_config=CLIP_TEXT, vision_config=SIGLIP2_VISION),
    "altclip": lambda: AltCLIPConfig(text_config=ROBERTA_TEXT, vision_config=VISION, projection_dim=PROJECTION_DIM),
    "metaclip_2": lambda: MetaClip2Config(text_config=CLIP_TEXT, vision_config=VISION, projection_dim=PROJECTION_DIM),
    "vision_text_dual_encoder": _vision_text_config,
}
BACKBONE_KINDS = tuple(CONFIGS)


def tiny_backbone_config(kind: str) -> PreTrainedConfig:
    """Configuration of a tiny dual encoder; `kind` is one of `BACKBONE_KINDS`."""
    return CONFIGS[kind]()


def tiny_backbone(kind: str, seed: int = 0) -> PreTrainedModel:
    """Tiny dual encoder in evaluation mode, the same weights for the same seed; global random state is untouched."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = tiny_backbone_config(kind)
        backbone = AutoModel.from_config(config)
        # Values that no default has, so that a test sees whether they were copied.
        with torch.no_grad():
            backbone.logit_scale.fill_(1.7)
            if hasattr(backbone, "logit_bias"):
                backbone.logit_bias.fill_(-2.3)
    return backbone.eval()
