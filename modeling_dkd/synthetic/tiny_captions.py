"""Captions for the tiny checkpoint: what is said of a synthetic clip, of which clips it is true, and the tokenizer."""

import random
from dataclasses import dataclass, replace

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from .clips import (
    ACTIONS,
    CLASS_TEMPLATES,
    SHAPES,
    SOURCE,
    SOURCE_COLOURS,
    ClipDescription,
    usual_actions,
)
from .scenes import SOURCE_SCENES


LONG_TEMPLATES = (
    "a {colour} {shape} {action} over {scene}",
    "a {shape} {action} over {scene}",
    "a video of a {colour} {shape} {action}",
    "a video of something {action} over {scene}",
)
# Share of the captions that name the action alone, as the prompts of a classifier do.
SHORT_CAPTION_SHARE = 0.7
SPECIAL_TOKENS = ("<pad>", "<unk>", "<bos>", "<eos>")
CONTEXT_LENGTH = 16


@dataclass(frozen=True)
class Caption:
    """A text and the facts that it states: (property, value) pairs such as ("action", "moving left")."""

    text: str
    facts: frozenset[tuple[str, str]]


def facts_of(description: ClipDescription) -> dict[str, str]:
    """Everything that can be said about a clip."""
    return {name: getattr(description, name) for name in ("action", "scene", "shape", "colour")}


def draw_caption(description: ClipDescription, rng: random.Random) -> Caption:
    """A random caption that states some of the facts of a clip."""
    template = rng.choice(CLASS_TEMPLATES if rng.random() < SHORT_CAPTION_SHARE else LONG_TEMPLATES)
    facts = facts_of(description)
    stated = frozenset(item for item in facts.items() if f"{{{item[0]}}}" in template)
    return Caption(template.format(**facts), stated)


def guess_from_scene(description: ClipDescription, share: float, rng: random.Random) -> ClipDescription:
    """What a clip is taken for: with probability `share`, by chance one of the actions its scene is known for."""
    if rng.random() >= share:
        return description
    return replace(description, action=rng.choice(usual_actions(SOURCE, description.scene)))


def true_pairs(descriptions: list[ClipDescription], captions: list[Caption]) -> torch.Tensor:
    """Whether each caption is true of each clip, (clips, captions) bool: "something turning" is true of many."""
    known = [facts_of(description).items() for description in descriptions]
    return torch.tensor([[caption.facts <= facts for caption in captions] for facts in known])


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer whose vocabulary is the words of the captions; any other word is <unk>."""
    texts = [*LONG_TEMPLATES, *CLASS_TEMPLATES, *ACTIONS, *SHAPES, *SOURCE_COLOURS, *SOURCE_SCENES]
    words = sorted({word for text in texts for word in text.split() if not word.startswith("{")})
    vocabulary = {word: index for index, word in enumerate([*SPECIAL_TOKENS, *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[(token, vocabulary[token]) for token in ("<bos>", "<eos>")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        model_max_length=CONTEXT_LENGTH,
        model_input_names=["input_ids", "attention_mask"],
    )
