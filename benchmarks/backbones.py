"""CLIP checkpoints to measure with: random weights in the shape of ViT-B/32, and the embedded tiny one."""

from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

from modeling_dkd import DKDCLIPModel, DKDCLIPProcessor

from .rows import REPOSITORY


TINY = REPOSITORY / "hub_configs/dkd-tiny"


def save_backbone(name: str, folder: Path) -> Path:
    """A folder that CLIPModel, AutoTokenizer and CLIPImageProcessorPil load; both have the tiny one's tokenizer."""
    processor = DKDCLIPProcessor.from_pretrained(TINY)
    if name == "tiny":
        model = DKDCLIPModel.from_pretrained(TINY).backbone
    else:
        torch.manual_seed(0)
        tokens = {key: getattr(processor.tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
        tokens["vocab_size"] = len(processor.tokenizer)
        model = CLIPModel(CLIPConfig(vision_config={"patch_size": 32}, text_config=tokens))
    size = model.config.vision_config.image_size
    model.save_pretrained(folder)
    processor.tokenizer.model_max_length = model.config.text_config.max_position_embeddings
    processor.tokenizer.save_pretrained(folder)
    images = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    images.save_pretrained(folder)
    return folder
