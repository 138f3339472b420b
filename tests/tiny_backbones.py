"""Tiny dual encoders with random weights, for tests; sizes are odd so that a swapped axis fails."""

from typing import Any

import torch
from transformers import (
    AlignConfig,
    AltCLIPConfig,
    AutoModel,
    BertConfig,
    ChineseCLIPConfig,
    CLIPConfig,
    MetaClip2Config,
    PreTrainedConfig,
    PreTrainedModel,
    Siglip2Config,
    SiglipConfig,
    VisionTextDualEncoderConfig,
    ViTConfig,
)
from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches

from modeling_dkd import DKDCLIPConfig, DKDCLIPModel


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


# One block each: what is needed for joint embeddings as long as the projection.
ALIGN_VISION = {
    "image_size": IMAGE_SIZE,
    "width_coefficient": 1.0,
    "depth_coefficient": 1.0,
    "hidden_dim": PROJECTION_DIM,
    "in_channels": [32],
    "out_channels": [PROJECTION_DIM],
    "kernel_sizes": [3],
    "strides": [2],
    "num_block_repeats": [1],
    "expand_ratios": [1],
}

CONFIGS = {
    "clip": lambda: CLIPConfig(text_config=CLIP_TEXT, vision_config=VISION, projection_dim=PROJECTION_DIM),
    "siglip": lambda: SiglipConfig(text_config=CLIP_TEXT, vision_config=VISION),
    "siglip2": lambda: Siglip2Config(text_config=CLIP_TEXT, vision_config=SIGLIP2_VISION),
    "altclip": lambda: AltCLIPConfig(text_config=ROBERTA_TEXT, vision_config=VISION, projection_dim=PROJECTION_DIM),
    "metaclip_2": lambda: MetaClip2Config(text_config=CLIP_TEXT, vision_config=VISION, projection_dim=PROJECTION_DIM),
    "vision_text_dual_encoder": _vision_text_config,
    "chinese_clip": lambda: ChineseCLIPConfig(
        text_config=CLIP_TEXT, vision_config=VISION, projection_dim=PROJECTION_DIM
    ),
    "align": lambda: AlignConfig(text_config=CLIP_TEXT, vision_config=ALIGN_VISION, projection_dim=PROJECTION_DIM),
}
ALL_KINDS = tuple(CONFIGS)
# The kinds that every test of the model goes through; the others only where they differ.
BACKBONE_KINDS = ALL_KINDS[:6]


def tiny_backbone_config(kind: str) -> PreTrainedConfig:
    """Configuration of a tiny dual encoder; `kind` is one of `ALL_KINDS`."""
    return CONFIGS[kind]()


def tiny_backbone(kind: str, seed: int = 0) -> PreTrainedModel:
    """Tiny dual encoder in evaluation mode, the same weights for the same seed; global random state is untouched."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = tiny_backbone_config(kind)
        backbone = AutoModel.from_config(config)
        # Values that no default has, so that a test sees whether they were copied.
        with torch.no_grad():
            if hasattr(backbone, "temperature"):
                backbone.temperature.fill_(0.2)
            else:
                backbone.logit_scale.fill_(1.7)
            if hasattr(backbone, "logit_bias"):
                backbone.logit_bias.fill_(-2.3)
    return backbone.eval()


def make_videos(num_videos: int = 2, num_frames: int = 3, seed: int = 1) -> torch.Tensor:
    """Frames of random pixels, (num_videos, num_frames, 3, IMAGE_SIZE, IMAGE_SIZE)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_videos, num_frames, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)


def make_texts(*shape: int, seed: int = 2) -> torch.Tensor:
    """Tokens (*shape, L) that begin and end as the text encoders expect, the same length for all: no padding."""
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(3, VOCAB_SIZE - 1, (*shape, MAX_TOKENS), generator=generator)
    input_ids[..., 0], input_ids[..., -1] = TEXT["bos_token_id"], TEXT["eos_token_id"]
    return input_ids


def make_model(kind: str = "clip", **options: Any) -> DKDCLIPModel:
    """An unfitted model with the tiny backbone's weights and similarity, in evaluation mode."""
    backbone: Any = tiny_backbone(kind)
    options.setdefault("logit_scale", backbone.logit_scale.exp().item())
    if hasattr(backbone, "logit_bias"):
        options.setdefault("logit_bias", backbone.logit_bias.item())
    return DKDCLIPModel(DKDCLIPConfig(backbone_config=backbone.config, **options), backbone).eval()


def own_logits(backbone: Any, images: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
    """What it is to be compared with: logits_per_image of the backbone's own forward."""
    if backbone.config.model_type != "siglip2":
        return backbone(pixel_values=images, input_ids=input_ids).logits_per_image
    patches = torch.stack([torch.from_numpy(convert_image_to_patches(image.numpy(), 6)) for image in images])
    shapes = torch.tensor([[IMAGE_SIZE // 6, IMAGE_SIZE // 6]]).expand(len(images), 2)
    mask = torch.ones(patches.shape[:2], dtype=torch.int64)
    return backbone(
        input_ids=input_ids, pixel_values=patches, pixel_attention_mask=mask, spatial_shapes=shapes
    ).logits_per_image
