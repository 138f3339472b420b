"""A small domain with what makes real ones hard: two cones, class texts that are off, videos that vary per axis."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from modeling_dkd import dkd_head, recent_samples


class ToyDomain(NamedTuple):
    videos: Tensor
    texts: Tensor
    labels: Tensor


def toy_domain(
    num_videos: int = 150, num_classes: int = 6, dim: int = 24, seed: int = 0, noise: float = 1.2
) -> ToyDomain:
    """Unit videos (N, D) and class texts (K, D), float32, and labels (N,); zero-shot is right on about two thirds."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    classes, widths = normal(num_classes, dim), torch.rand(dim, generator=generator) + 0.5
    video_centre, text_centre = 4 * normalize(normal(dim), dim=0), 4 * normalize(normal(dim), dim=0)
    labels = torch.randint(num_classes, (num_videos,), generator=generator)
    videos = video_centre + classes[labels] + noise * widths * normal(num_videos, dim)
    texts = text_centre + 0.5 * (classes + noise * normal(num_classes, dim))
    return ToyDomain(normalize(videos, dim=-1), normalize(texts, dim=-1), labels)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of samples whose best class is right."""
    return float((logits.argmax(1) == labels).float().mean())


def keep_recent(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep so few of the last samples of a stream."""
    for module in (dkd_head, recent_samples):
        monkeypatch.setattr(module, "RECENT_SAMPLES", number)
