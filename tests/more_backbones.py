"""More tiny dual encoders with random weights: of clips, and of images with methods of their own."""

from typing import Any

import pytest
import torch
import transformers
from transformers import (
    AutoModel,
    BlipConfig,
    BlipForImageTextRetrieval,
    FlavaConfig,
    Owlv2Config,
    PreTrainedModel,
    XCLIPConfig,
)

from tests.tiny_backbones import CLIP_TEXT, IMAGE_SIZE, MAX_TOKENS, PROJECTION_DIM, TEXT, TRUNK, VISION, VOCAB_SIZE


NUM_FRAMES = 4
GOOGLE_TEXT = TRUNK | {"vocab_size": VOCAB_SIZE, "max_position_embeddings": MAX_TOKENS}
XCLIP_VISION = VISION | {
    "num_frames": NUM_FRAMES,
    "mit_hidden_size": PROJECTION_DIM,
    "mit_intermediate_size": 37,
    "mit_num_hidden_layers": 1,
    "mit_num_attention_heads": 4,
}
VIDEOPRISM_VISION = TRUNK | {
    "image_size": IMAGE_SIZE,
    "num_frames": NUM_FRAMES,
    "tubelet_size": [1, 6, 6],
    "num_spatial_layers": 1,
    "num_temporal_layers": 1,
    "num_auxiliary_layers": 1,
}
VIDEOPRISM_VISION.pop("num_hidden_layers")
TIPSV2_VISION = {name: value for name, value in VISION.items() if name != "intermediate_size"}

CONFIGS = {
    "xclip": lambda: XCLIPConfig(
        text_config=CLIP_TEXT,
        vision_config=XCLIP_VISION,
        projection_dim=PROJECTION_DIM,
        prompt_layers=1,
        prompt_num_attention_heads=4,
    ),
    "videoprism": lambda: _newer("VideoPrismConfig")(text_config=GOOGLE_TEXT, vision_config=VIDEOPRISM_VISION),
    "tipsv2": lambda: _newer("Tipsv2Config")(text_config=GOOGLE_TEXT, vision_config=TIPSV2_VISION),
    "flava": lambda: FlavaConfig(
        image_config=VISION,
        text_config=TEXT | {"max_position_embeddings": MAX_TOKENS},
        multimodal_config=TRUNK,
        hidden_size=TRUNK["hidden_size"],
        projection_dim=PROJECTION_DIM,
    ),
    "blip": lambda: BlipConfig(
        text_config=CLIP_TEXT | {"sep_token_id": 2},
        vision_config=VISION,
        projection_dim=PROJECTION_DIM,
        image_text_hidden_size=20,
    ),
    "owlv2": lambda: Owlv2Config(text_config=CLIP_TEXT, vision_config=VISION, projection_dim=PROJECTION_DIM),
}


def _newer(name: str) -> Any:
    """A class that the oldest release of transformers that is allowed does not have."""
    if not hasattr(transformers, name):
        pytest.skip(f"transformers {transformers.__version__} has no {name}")
    return getattr(transformers, name)


def more_backbone(kind: str, seed: int = 0) -> PreTrainedModel:
    """Tiny dual encoder in evaluation mode; `kind` is one of `CONFIGS`, or "blip_retrieval"."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind == "blip_retrieval":
            backbone: Any = BlipForImageTextRetrieval(CONFIGS["blip"]())
        else:
            backbone = AutoModel.from_config(CONFIGS[kind]())
        with torch.no_grad():
            for parameter in backbone.parameters():  # some start so small, or at zero, that nothing would be seen
                parameter.add_(0.05 * torch.randn_like(parameter))
            if hasattr(backbone, "temperature"):
                backbone.temperature.fill_(0.2)
            if hasattr(backbone, "logit_scale"):
                backbone.logit_scale.fill_(1.7)
    return backbone.eval()


def make_clips(num_clips: int = 3, num_frames: int = NUM_FRAMES, seed: int = 1) -> torch.Tensor:
    """Clips of random pixels, (num_clips, num_frames, 3, IMAGE_SIZE, IMAGE_SIZE)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_clips, num_frames, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)
