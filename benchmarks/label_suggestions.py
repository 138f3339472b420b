"""Top-1 on the clips left over, with labels of clips that were chosen beside as many drawn at random (five draws).

The head is fitted to all clips of a set, some of them labelled: five sets of real CLIP embeddings, two of real videos.
The choice itself draws nothing and sees no label. Features of DKD_DATA.
"""

import os
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

from modeling_dkd import DKDCLIPConfig, DKDHead
from modeling_dkd.recognition.label_suggestions import most_helpful

from .rows import REPOSITORY, Row, digits


SEEDS = range(5)
COUNTS = (20, 50, 100)
UCF101 = "ucf101_openai_vitb32_dev"
# Name: file, arrays of videos and labels, file and array of the class texts.
SETS = {
    "WHU-RS19, RN50": ("whurs19_clip_rn50", "image_f", "labels", "whurs19_clip_rn50", "text_avg"),
    "WHU-RS19, ViT-B/32": ("whurs19_clip_vit-b-32", "image_f", "labels", "whurs19_clip_vit-b-32", "text_avg"),
    "UCF101 frames, 67 classes": (UCF101, "val_f", "val_l", "ucf101_object_prompts_vitb32", "text"),
    "UCF101 frames, 101 classes": (UCF101, "val_f", "val_l", UCF101, "text_mapped_from_minilm"),
    "ImageNet, 500 classes": ("imagenet500a_openai_vitb32", "image_f", "labels", "imagenet500a_openai_vitb32", "text"),
    "UCF101 clips, 14 classes": ("ucf101_14_movinet_conse", "clip_f", "labels", "ucf101_14_movinet_conse", "text"),
    "J-HMDB clips, 21 classes": ("jhmdb21_movinet_conse", "clip_f", "labels", "jhmdb21_movinet_conse", "text"),
}


def measure() -> list[Row]:
    folder = Path(os.environ.get("DKD_DATA", REPOSITORY.parent / "shared/data")) / "features"
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}; say with DKD_DATA where the features are")
    rows = []
    for name in tqdm(SETS, desc="sets"):
        rows += rows_of(name, *read_set(folder, name))
    return rows


def read_set(folder: Path, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Unit embeddings of clips (N, D), labels (N,) and unit class texts (K, D)."""
    video_file, video_key, label_key, text_file, text_key = SETS[name]
    with (
        np.load(folder / f"{video_file}.npz", allow_pickle=False) as videos,
        np.load(folder / f"{text_file}.npz", allow_pickle=False) as texts,
    ):
        embeds, labels, text_embeds = (
            a.astype(np.float32) for a in (videos[video_key], videos[label_key], texts[text_key])
        )
        if text_file != video_file:  # its texts are of some of the classes
            position = {int(number): i for i, number in enumerate(texts["class_id"])}
            kept = np.isin(labels, list(position))
            embeds, labels = embeds[kept], np.array([position[int(label)] for label in labels[kept]])
    unit = [normalize(torch.from_numpy(a), dim=-1) for a in (embeds, text_embeds)]
    return unit[0], torch.from_numpy(labels).long(), unit[1]


@torch.inference_mode()
def logits(video_embeds: Tensor, text_embeds: Tensor, labels: Tensor | None) -> Tensor:
    """Of a head fitted to all clips, some of them labelled."""
    head = DKDHead(DKDCLIPConfig(projection_dim=video_embeds.shape[1])).eval()
    return head.fit(video_embeds, text_embeds, labels)(video_embeds, text_embeds).logits_per_video


def rows_of(name: str, video_embeds: Tensor, labels: Tensor, text_embeds: Tensor) -> list[Row]:
    unlabelled = logits(video_embeds, text_embeds, None)
    order = most_helpful(video_embeds, unlabelled.softmax(1), max(COUNTS))
    before = top1(unlabelled, labels, torch.ones(len(labels), dtype=torch.bool))
    plain = top1(video_embeds @ text_embeds.T, labels, torch.ones(len(labels), dtype=torch.bool))
    rows = []
    for count in COUNTS:
        ours, others = [], []
        chosen = logits(video_embeds, text_embeds, only(labels, order[:count]))
        for seed in SEEDS:
            drawn = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))[:count]
            rest = torch.ones(len(labels), dtype=torch.bool)
            rest[order[:count]] = rest[drawn] = False
            ours.append(top1(chosen, labels, rest))
            others.append(top1(logits(video_embeds, text_embeds, only(labels, drawn)), labels, rest))
        worst = min(a - b for a, b in zip(ours, others, strict=True))
        note = f"smallest gain {worst:+.1f}; N = {len(labels)}; without labels {before:.1f}, zero-shot {plain:.1f}"
        what = f"{name}: {count} labels, chosen"
        rows.append(
            Row(what, digits(fmean(ours)), "drawn at random", digits(fmean(others)), "%", None, len(SEEDS), note)
        )
    return rows


def only(labels: Tensor, shown: Tensor) -> Tensor:
    """The labels of some clips, -1 for the others."""
    some = torch.full_like(labels, -1)
    some[shown] = labels[shown]
    return some


def top1(scores: Tensor, labels: Tensor, rest: Tensor) -> float:
    """Share of the rest that is right, percent."""
    return 100 * float((scores[rest].argmax(1) == labels[rest]).float().mean())
