"""Prompts of the classes to embeddings: ours beside a loop over the classes with tokenizer and model."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from transformers import AutoTokenizer, CLIPModel

from modeling_dkd.data.prompts import class_prompts, load_templates
from modeling_dkd.embedding.clip_embedding import embed_texts
from modeling_dkd.embedding.clip_encoder import ClipEncoder

from .backbones import save_backbone
from .rows import Row, alternate, compare, digits


CLASSES = {"tiny": 1_000, "ViT-B/32": 4}
ROUNDS = {"tiny": 3, "ViT-B/32": 3}
TOLERANCE = 1e-5
# Synthetic names of one to three words: 10 x 10 x 10 of them.
FIRST = ("throw", "catch", "lift", "push", "pull", "kick", "climb", "carry", "balance", "swing")
SECOND = ("ball", "rope", "box", "bike", "chair", "kayak", "hoop", "drum", "ladder", "sword")
THIRD = ("", "indoors", "outside", "with two hands", "in water", "on ice", "at night", "alone", "fast", "in a team")
NAMES = [f"{a} {b} {c}".strip() for a in FIRST for b in SECOND for c in THIRD]


def measure() -> list[Row]:
    """Both towers; the embeddings of both sides must agree.

    Raises:
        ValueError: They do not.
    """
    return [row for name in CLASSES for row in one_tower(name)]


def one_tower(name: str) -> list[Row]:
    """Seconds of both sides with one text tower."""
    with TemporaryDirectory() as scratch:
        folder = save_backbone(name, Path(scratch))
        encoder = ClipEncoder.load(str(folder), "1x1x1", None, torch.float32, torch.device("cpu"))
        model, tokenizer = CLIPModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    prompts = class_prompts(NAMES[: CLASSES[name]], load_templates("clip_ucf101"))
    limit = model.config.text_config.max_position_embeddings
    found: dict[str, Tensor] = {}

    @torch.inference_mode()
    def loop() -> None:
        rows = []
        for texts in prompts:
            tokens = tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="pt")
            rows.append(model.get_text_features(**tokens).pooler_output)
        found["loop"] = torch.stack(rows)

    def ours() -> None:
        found["ours"] = embed_texts(prompts, encoder.encode)

    seconds = alternate(ROUNDS[name], {"ours": ours, "loop": loop}, warm_up=name == "tiny")
    difference = float((found["ours"] - found["loop"]).abs().max())
    if difference > TOLERANCE:
        raise ValueError(f"text embeddings of both sides differ by {difference:.3g}, more than {TOLERANCE}")
    what = f"{len(prompts):,} classes x {len(prompts[0])} prompts, {name} text tower, random weights"
    note = f"largest difference of the embeddings {digits(difference)}"
    other = "loop over classes: tokenizer(padding=True), CLIPModel.get_text_features"
    return [compare(what, seconds["ours"], other, seconds["loop"], "s", note)]
