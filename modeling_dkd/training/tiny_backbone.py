"""Train the tiny embedded checkpoint: a CLIP-architecture dual encoder on the synthetic source domain.

    python -m modeling_dkd.training.tiny_backbone --output hub_configs/dkd-tiny
    python -m modeling_dkd.training.tiny_backbone --output hub_configs/dkd-tiny --refresh

It is CLIP in small: a vision and a text transformer, trained from nothing by the contrastive loss on frames and
captions such as "a red star moving left over the sea". It has seen no real video and no target domain, and knows only
the words of its captions. With the same configuration, versions, processor and one thread the weights come out the
same. `--refresh` trains nothing: it keeps the weights and writes everything else anew, the copies of the files that
ship with a checkpoint among it.
"""

import argparse
import json
import math
import random
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from modeling_dkd.data.synthetic_clips import (
    ACTIONS,
    CLASS_TEMPLATES,
    SHAPES,
    SOURCE_COLOURS,
    ClipDescription,
    generate_clips,
)
from modeling_dkd.data.synthetic_scenes import SOURCE_SCENES
from modeling_dkd.image_processing_dkd import DKDCLIPImageProcessor
from modeling_dkd.modeling_dkd import DKDCLIPModel
from modeling_dkd.processing_dkd import DKDCLIPProcessor
from modeling_dkd.video_frames import read_frames


CAPTION_TEMPLATES = (
    "a {colour} {shape} {action} over {scene}",
    "a {shape} {action} over {scene}",
    "a video of a {colour} {shape} {action}",
    "a video of something {action} over {scene}",
    *CLASS_TEMPLATES,
)
# Share of the captions that name the action alone, as the prompts of a classifier do.
SHORT_CAPTION_SHARE = 0.7
MAX_LOG_SCALE = math.log(100)
SPECIAL_TOKENS = ("<pad>", "<unk>", "<bos>", "<eos>")
CONTEXT_LENGTH = 16
IMAGE_SIDE = 48
NUM_FRAMES = 4
FRAMES_FOR_TRAINING = 8


@dataclass(frozen=True)
class TinyBackboneConfig:
    """What decides the weights.

    Attributes:
        seed: Of the weights and the order of samples.
        clip_seed: Of the source clips; the demo's clips have other seeds.
        num_clips: Source clips to learn from.
        num_steps: Optimizer steps.
        batch_size: Frames in one step, each with its caption.
        learning_rate: Peak of AdamW's one-cycle schedule.
        weight_decay: AdamW's.
        projection_dim: D of the embeddings.
    """

    seed: int = 0
    clip_seed: int = 900
    num_clips: int = 6000
    num_steps: int = 2500
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    projection_dim: int = 64


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer whose vocabulary is the words of the captions; any other word is <unk>."""
    texts = [*CAPTION_TEMPLATES, *ACTIONS, *SHAPES, *SOURCE_COLOURS, *SOURCE_SCENES]
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


def build_processor(tokenizer: PreTrainedTokenizerFast) -> DKDCLIPProcessor:
    """CLIP's preprocessing at the side that the encoder takes, `NUM_FRAMES` frames of a video."""
    images = DKDCLIPImageProcessor(
        size={"shortest_edge": IMAGE_SIDE}, crop_size={"height": IMAGE_SIDE, "width": IMAGE_SIDE}
    )
    return DKDCLIPProcessor(images, tokenizer, num_frames=NUM_FRAMES, max_text_length=CONTEXT_LENGTH)


def build_model(config: TinyBackboneConfig, tokenizer: PreTrainedTokenizerFast) -> CLIPModel:
    """CLIP with random weights and about 0.6 million parameters."""
    torch.manual_seed(config.seed)
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": CONTEXT_LENGTH,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    vision = {
        "hidden_size": 96,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "image_size": IMAGE_SIDE,
        "patch_size": 8,
    }
    settings = CLIPConfig(text_config=text, vision_config=vision, projection_dim=config.projection_dim)
    return CLIPModel._from_config(settings, attn_implementation="eager")


def source_frames(config: TinyBackboneConfig, processor: DKDCLIPProcessor) -> tuple[Tensor, list[ClipDescription]]:
    """Frames of the source clips, taken from encoded files by the same path as any video.

    Returns:
        Pixel values (clips, frames, 3, IMAGE_SIDE, IMAGE_SIDE) float16, and what each clip shows.
    """
    frames, descriptions = [], []
    with tempfile.TemporaryDirectory() as folder:
        clips = generate_clips(Path(folder), "source", config.num_clips, config.clip_seed)
        for path, description in tqdm(clips, total=config.num_clips, unit="clip", desc="source clips"):
            pixels = read_frames(path, FRAMES_FOR_TRAINING).pixels
            frames.append(processor.image_processor.preprocess_videos([[pixels]])[0].half())
            descriptions.append(description)
            path.unlink()
    return torch.stack(frames), descriptions


@dataclass(frozen=True)
class Caption:
    """A text and the facts that it states: (property, value) pairs such as ("action", "moving left")."""

    text: str
    facts: frozenset[tuple[str, str]]


def _facts(description: ClipDescription) -> dict[str, str]:
    """Everything that can be said about a clip."""
    return {name: getattr(description, name) for name in ("action", "scene", "shape", "colour")}


def _caption(description: ClipDescription, rng: random.Random) -> Caption:
    short = rng.random() < SHORT_CAPTION_SHARE
    template = rng.choice([t for t in CAPTION_TEMPLATES if (t in CLASS_TEMPLATES) == short])
    facts = _facts(description)
    stated = frozenset(item for item in facts.items() if f"{{{item[0]}}}" in template)
    return Caption(template.format(**facts), stated)


def true_pairs(descriptions: list[ClipDescription], captions: list[Caption]) -> Tensor:
    """Whether each caption is true of each clip, (clips, captions) bool: "something turning" is true of many."""
    known = [_facts(description).items() for description in descriptions]
    return torch.tensor([[caption.facts <= facts for caption in captions] for facts in known])


def contrastive_loss(logits_per_image: Tensor, is_true: Tensor) -> Tensor:
    """CLIP's symmetric loss, the target shared by all captions that are true of an image, and the other way round.

    Args:
        logits_per_image: (images, captions) float.
        is_true: (images, captions) bool, from `true_pairs`.
    """
    loss = torch.zeros(())
    for logits, matches in ((logits_per_image, is_true), (logits_per_image.T, is_true.T)):
        targets = matches / matches.sum(1, keepdim=True)
        loss = loss - (targets * logits.log_softmax(1)).sum(1).mean()
    return loss / 2


def _batches(
    config: TinyBackboneConfig, frames: Tensor, descriptions: list[ClipDescription]
) -> Iterator[tuple[Tensor, list[str], Tensor]]:
    """Random frames (B, 3, H, W) float32, B captions, and which captions are true of which frames, (B, B)."""
    rng = random.Random(config.seed)
    for _ in range(config.num_steps):
        chosen = [rng.randrange(len(frames)) for _ in range(config.batch_size)]
        moments = [rng.randrange(frames.shape[1]) for _ in chosen]
        shown = [descriptions[index] for index in chosen]
        captions = [_caption(description, rng) for description in shown]
        yield frames[chosen, moments].float(), [caption.text for caption in captions], true_pairs(shown, captions)


def train(config: TinyBackboneConfig, frames: Tensor, descriptions: list[ClipDescription]) -> CLIPModel:
    """Train from random weights.

    Args:
        config: Decides everything but the clips.
        frames: Pixel values (clips, frames, 3, IMAGE_SIDE, IMAGE_SIDE), any float dtype.
        descriptions: What each clip shows.

    Returns:
        The model in evaluation mode.
    """
    tokenizer = build_tokenizer()
    model = build_model(config, tokenizer).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.num_steps, pct_start=0.1
    )
    progress = tqdm(_batches(config, frames, descriptions), total=config.num_steps, unit="step", desc="training")
    for pixel_values, captions, is_true in progress:
        tokens = tokenizer(captions, padding=True, return_tensors="pt")
        # bfloat16 with plain attention is 2.6 times faster than float32 on a CPU that has it.
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(pixel_values=pixel_values, **tokens)
        loss = contrastive_loss(output.logits_per_image.float(), is_true)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        # CLIP keeps its scale at 100 or below.
        model.logit_scale.data.clamp_(max=MAX_LOG_SCALE)
        progress.set_postfix(loss=f"{loss.item():.2f}", refresh=False)
    return model.eval()


def save_checkpoint(backbone: CLIPModel, folder: Path) -> None:
    """Write a complete DKD repository with an unfitted head: weights, configuration, processor, tokenizer and code."""
    with tempfile.TemporaryDirectory() as stock:
        backbone.save_pretrained(stock)
        model = DKDCLIPModel.from_backbone(stock)
    _write_repository(model, folder)


def refresh_checkpoint(folder: Path) -> None:
    """Write the repository anew around its present encoders.

    Raises:
        ValueError: There is no checkpoint in the folder.
    """
    if not (folder / "model.safetensors").is_file():
        raise ValueError(f"no model.safetensors in {folder}; train one first, without --refresh")
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    backbone = CLIPModel(CLIPConfig.from_dict(stored["backbone_config"]))
    prefix = "backbone."
    weights = {
        name.removeprefix(prefix): value
        for name, value in load_file(folder / "model.safetensors").items()
        if name.startswith(prefix)
    }
    backbone.load_state_dict(weights)
    save_checkpoint(backbone, folder)


def _write_repository(model: DKDCLIPModel, folder: Path) -> None:
    """Save model and processor, and drop copies of files that no longer ship."""
    folder.mkdir(parents=True, exist_ok=True)
    for copied in folder.glob("*.py"):
        copied.unlink()
    # A checkpoint in the repository must not name the temporary folder it was put together in.
    model.config.name_or_path = ""
    model.backbone.config.name_or_path = ""
    model.save_pretrained(folder)
    build_processor(build_tokenizer()).save_pretrained(folder)


def main(argv: list[str] | None = None) -> int:
    """Command line of the training; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m modeling_dkd.training.tiny_backbone", description="train dkd-tiny"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--refresh", action="store_true", help="keep the weights, write everything else anew")
    arguments = parser.parse_args(argv)
    try:
        if arguments.refresh:
            refresh_checkpoint(arguments.output)
            return 0
        # More threads would add up sums in another order and give other weights.
        torch.set_num_threads(1)
        config = TinyBackboneConfig()
        backbone = train(config, *source_frames(config, build_processor(build_tokenizer())))
        save_checkpoint(backbone, arguments.output)
        record = json.dumps(asdict(config), indent=2) + "\n"
        (arguments.output / "training_config.json").write_text(record, encoding="utf-8")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
