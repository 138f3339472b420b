"""What the head costs: its forward beside the encoder that makes its input."""

import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from modeling_dkd import DKDCLIPConfig, DKDHead

from .rows import Row, alternate, clustered, compare, milliseconds


VIDEOS, FRAMES, CLASSES, DIM = 8, 8, 101, 512


@torch.inference_mode()
def measure() -> list[Row]:
    """Fitted and plain head for 8 videos x 8 frames and 101 classes; ViT-B/32 for the same 64 frames."""
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, patch_size=32
    )
    encoder = CLIPVisionModelWithProjection(config).eval()
    pixels = torch.randn(VIDEOS * FRAMES, 3, 224, 224)
    domain, texts = clustered(2000, CLASSES, DIM)
    heads = {
        "fitted": DKDHead(DKDCLIPConfig(projection_dim=DIM)).fit(domain, texts),
        "plain": DKDHead(DKDCLIPConfig(projection_dim=DIM)),
    }
    frames = torch.randn(VIDEOS, FRAMES, DIM)
    seconds = alternate(
        5,
        {
            "encoder": lambda: encoder(pixels),
            "fitted": lambda: heads["fitted"](frames, texts),
            "plain": lambda: heads["plain"](frames, texts),
        },
    )
    size = f"{VIDEOS} videos x {FRAMES} frames, {CLASSES} classes, D = {DIM}"
    encoder_times = milliseconds(seconds["encoder"])
    return [
        compare(
            f"{name} head forward, {size}",
            milliseconds(seconds[name]),
            f"ViT-B/32 forward of the same {VIDEOS * FRAMES} frames",
            encoder_times,
            "ms",
        )
        for name in heads
    ]
