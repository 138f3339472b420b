"""Train the tiny embedded checkpoint: a CLIP-architecture dual encoder on the synthetic source domain.

    python -m modeling_dkd.synthetic.tiny_backbone --output hub_configs/dkd-tiny
    python -m modeling_dkd.synthetic.tiny_backbone --output hub_configs/dkd-tiny --refresh

It is CLIP in small: a vision and a text transformer, trained from nothing by the contrastive loss on frames and
captions such as "a red star moving left over the sea". It has seen no real video and no target domain, and knows only
the words of its captions.

Captions of real videos are loose: they tell what one expects of a place as much as what happens, which is how a model
comes to read parachuting as swimming. On true captions alone so small a world is learned almost perfectly and leaves
nothing to correct. So that the checkpoint has the fault that DKD is about, and on purpose, its text encoder is trained
a second time from nothing, against the finished vision encoder, with captions of which a share names an action that
the scene is known for instead of the one in the clip. Nothing of this follows from real data or says anything of it.

With the same configuration, versions, processor and one thread the weights come out the same. `--refresh` trains
nothing: it keeps the weights and writes everything else anew, the copies of the files that ship with a checkpoint
among it.
"""

import argparse
import json
import math
import random
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from ..hub.card_facts import FIGURES_FOLDER, PROMPTS_FILE
from ..hub.eval_results import ENTRIES_FOLDER
from ..hub.measured_rows import RESULTS_FOLDER
from ..image_processing_dkd import DKDCLIPImageProcessor
from ..modeling_dkd import DKDCLIPModel
from ..processing_dkd import DKDCLIPProcessor
from ..video_frames import read_frames
from .clips import ACTIONS, ClipDescription, class_prompts, generate_clips
from .tiny_captions import CONTEXT_LENGTH, build_tokenizer, draw_caption, guess_from_scene, true_pairs


MAX_LOG_SCALE = math.log(100)
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
        num_steps: Optimizer steps of both encoders together, on true captions.
        num_text_steps: Optimizer steps of the text encoder, begun anew, on captions that are guessed in part.
        guessed_share: Share of these captions whose action is guessed from the scene.
        batch_size: Frames in one step, each with its caption.
        learning_rate: Peak of AdamW's one-cycle schedule.
        weight_decay: AdamW's.
        projection_dim: D of the embeddings.
    """

    seed: int = 0
    clip_seed: int = 900
    num_clips: int = 6000
    num_steps: int = 2200
    num_text_steps: int = 500
    guessed_share: float = 0.5
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    projection_dim: int = 64


def build_processor(tokenizer: PreTrainedTokenizerFast) -> DKDCLIPProcessor:
    """CLIP's preprocessing at the side that the encoder takes, `NUM_FRAMES` frames of a video."""
    images = DKDCLIPImageProcessor(
        size={"shortest_edge": IMAGE_SIDE}, crop_size={"height": IMAGE_SIDE, "width": IMAGE_SIDE}
    )
    return DKDCLIPProcessor(images, tokenizer, num_frames=NUM_FRAMES, max_text_length=CONTEXT_LENGTH)


def build_model(config: TinyBackboneConfig) -> CLIPModel:
    """CLIP with random weights and about 0.6 million parameters."""
    torch.manual_seed(config.seed)
    tokenizer = build_tokenizer()
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


def _jittered(pixel_values: Tensor, generator: torch.Generator, processor: DKDCLIPProcessor) -> Tensor:
    """Frames (B, 3, H, W) under random light and noise: the pictures that a CLIP learns from are of many cameras."""
    images = processor.image_processor
    mean, std = (torch.tensor(values)[:, None, None] for values in (images.image_mean, images.image_std))
    size = len(pixel_values)
    gain = 0.6 + 0.6 * torch.rand(size, 3, 1, 1, generator=generator)
    gamma = 0.75 + 0.6 * torch.rand(size, 1, 1, 1, generator=generator)
    noise = 0.1 * torch.rand(size, 1, 1, 1, generator=generator)
    pixels = ((pixel_values * std + mean) * gain).clamp(1e-3, 1) ** gamma
    pixels = (pixels + noise * torch.randn(pixels.shape, generator=generator)).clamp(0, 1)
    return (pixels - mean) / std


def _fit(
    config: TinyBackboneConfig,
    model: CLIPModel,
    num_steps: int,
    guessed_share: float,
    clips: tuple[Tensor, list[ClipDescription]],
) -> None:
    """Train whatever of the model has gradients; `guessed_share` of the captions are guessed from the scene."""
    frames, descriptions = clips
    rng, generator = random.Random(config.seed), torch.Generator().manual_seed(config.seed)
    tokenizer = build_tokenizer()
    processor = build_processor(tokenizer)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=num_steps, pct_start=0.1
    )
    progress = tqdm(range(num_steps), unit="step", desc="captions guessed in part" if guessed_share else "training")
    for _ in progress:
        chosen = [rng.randrange(len(frames)) for _ in range(config.batch_size)]
        moments = [rng.randrange(frames.shape[1]) for _ in chosen]
        believed = [guess_from_scene(descriptions[index], guessed_share, rng) for index in chosen]
        captions = [draw_caption(description, rng) for description in believed]
        tokens = tokenizer([caption.text for caption in captions], padding=True, return_tensors="pt")
        pixel_values = _jittered(frames[chosen, moments].float(), generator, processor)
        # bfloat16 with plain attention is 2.6 times faster than float32 on a CPU that has it.
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(pixel_values=pixel_values, **tokens)
        loss = contrastive_loss(output.logits_per_image.float(), true_pairs(believed, captions))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        # CLIP keeps its scale at 100 or below.
        model.logit_scale.data.clamp_(max=MAX_LOG_SCALE)
        progress.set_postfix(loss=f"{loss.item():.2f}", refresh=False)


def train(config: TinyBackboneConfig, frames: Tensor, descriptions: list[ClipDescription]) -> CLIPModel:
    """Train from random weights, then the text encoder once more on captions that are guessed in part.

    Args:
        config: Decides everything but the clips.
        frames: Pixel values (clips, frames, 3, IMAGE_SIDE, IMAGE_SIDE), any float dtype.
        descriptions: What each clip shows.

    Returns:
        The model in evaluation mode.
    """
    model = build_model(config).train()
    _fit(config, model, config.num_steps, 0.0, (frames, descriptions))
    untrained = build_model(config)
    for name in ("text_model", "text_projection"):
        getattr(model, name).load_state_dict(getattr(untrained, name).state_dict())
    model.logit_scale.data.copy_(untrained.logit_scale)
    for part in (model.vision_model, model.visual_projection):
        part.requires_grad_(False)
    _fit(config, model, config.num_text_steps, config.guessed_share, (frames, descriptions))
    return model.requires_grad_(True).eval()


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
    """Save model, processor and the prompts of the actions, and drop copies of files that no longer ship."""
    folder.mkdir(parents=True, exist_ok=True)
    for copied in folder.glob("*.py"):
        copied.unlink()
    # A checkpoint in the repository must not name the temporary folder it was put together in.
    model.config.name_or_path = ""
    model.backbone.config.name_or_path = ""
    model.save_pretrained(folder)
    build_processor(build_tokenizer()).save_pretrained(folder)
    prompts = json.dumps(dict(zip(ACTIONS, class_prompts(), strict=True)), indent=1)
    (folder / PROMPTS_FILE).write_text(prompts + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Command line of the training; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m modeling_dkd.synthetic.tiny_backbone", description="train dkd-tiny"
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
        for measured in (RESULTS_FOLDER, ENTRIES_FOLDER, FIGURES_FOLDER):  # figures of the weights before
            shutil.rmtree(arguments.output / measured, ignore_errors=True)
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
