"""The loop that one would write with transformers to label clips: texts once, one clip after the other.

python -m benchmarks.plain_loop MODEL CLIPS.csv             # columns path and label; prints path,label
"""

import csv
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel
from transformers.video_utils import load_video

from modeling_dkd.data.prompts import class_prompts, load_templates
from modeling_dkd.frame_sampling import segment_indices


FRAMES = 8


@torch.inference_mode()
def predictions_of_the_loop(folder: Path, root: Path, clips: list[tuple[str, str]]) -> dict[str, int]:
    """Clip -> class number, by plain zero-shot.

    It takes the frames that evaluate.py takes, the middles of equal segments: else predictions would differ by them.

    Args:
        folder: Of the checkpoint.
        root: What paths are relative to.
        clips: Path and class of each.
    """
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    names = sorted({label for _, label in clips})
    prompts = [row[0] for row in class_prompts(names, load_templates("single"))]
    limit = model.config.text_config.max_position_embeddings
    tokens = tokenizer(prompts, padding=True, truncation=True, max_length=limit, return_tensors="pt")
    texts = normalize(model.get_text_features(**tokens).pooler_output, dim=-1)
    predictions = {}
    for path, _ in clips:
        video: Any = str(root / path)
        pixels = processor(list(load_video(video, sample_indices_fn=middles)[0]), return_tensors="pt")["pixel_values"]
        embeds = mean_direction(model.get_image_features(pixel_values=pixels).pooler_output[None])
        predictions[path] = int((embeds @ texts.T).argmax())
    return predictions


def middles(metadata: Any, **_: object) -> list[int]:
    """Frame indices in the middles of equal segments."""
    return segment_indices(metadata.total_num_frames, FRAMES)[0].tolist()


def mean_direction(embeds: Tensor) -> Tensor:
    """Unit mean of unit embeddings: (n, T, D) or (n, D) to (n, D)."""
    embeds = normalize(embeds.float(), dim=-1)
    return normalize(embeds.mean(1), dim=-1) if embeds.dim() == 3 else embeds


def main(model: str, table: str) -> None:
    """Print the label of each clip of a table."""
    with open(table, newline="", encoding="utf-8") as file:
        clips = [(row["path"], row["label"]) for row in csv.DictReader(file)]
    names = sorted({label for _, label in clips})
    for path, number in predictions_of_the_loop(Path(model), Path(table).parent, clips).items():
        print(f"{path},{names[number]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
