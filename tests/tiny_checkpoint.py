"""A whole tiny CLIP checkpoint in a folder: random weights, image settings and a tokenizer of single letters."""

import string
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModel, CLIPImageProcessorPil, PreTrainedTokenizerFast

from .tiny_backbones import IMAGE_SIZE, tiny_backbone_config


MAX_LETTERS = 77


def save_tiny_clip(folder: Path, seed: int = 0) -> Path:
    """Write the checkpoint; equal seeds give equal files."""
    config = tiny_backbone_config("clip")
    config.text_config.max_position_embeddings = MAX_LETTERS
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        AutoModel.from_config(config).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, crop_size=IMAGE_SIZE).save_pretrained(folder)
    letters = ["<s>", "<pad>", *string.ascii_letters, *" .,'-0123456789"]
    vocabulary = {letter: number for number, letter in enumerate(letters)} | {"</s>": 98}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 98)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=MAX_LETTERS
    ).save_pretrained(folder)
    return folder
