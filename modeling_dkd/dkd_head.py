"""DKDHead: the plug-and-play part that moves video and text embeddings toward the domain's mixture."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers.utils import ModelOutput

from .configuration_dkd import DKDCLIPConfig


@dataclass
class DKDHeadOutput(ModelOutput):
    """What `DKDHead` returns."""

    logits_per_video: Tensor | None = None
    video_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    strength: Tensor | None = None


class DKDHead(nn.Module):
    """Plain CLIP until a domain is fitted."""

    def __init__(self, config: DKDCLIPConfig) -> None:
        super().__init__()
        self.config = config
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale)).log())
        self.register_buffer("logit_bias", torch.tensor(float(config.logit_bias), dtype=torch.float32))

    def unfitted_values(self) -> dict[str, float]:
        """Constant that each fitted buffer holds before `fit`."""
        return {}

    def fit(
        self,
        video_embeds: Tensor,
        text_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        num_components: int | None = None,
    ) -> "DKDHead":
        """Learn the domain."""
        return self

    def forward(self, video_embeds: Tensor, text_embeds: Tensor) -> DKDHeadOutput:
        """Compare normalised mean embeddings."""
        videos, texts = (
            normalize(normalize(e.float(), dim=-1).mean(1) if e.dim() == 3 else e.float(), dim=-1)
            for e in (video_embeds, text_embeds)
        )
        logits = self.logit_scale.exp() * videos @ texts.T + self.logit_bias
        return DKDHeadOutput(logits, videos, texts, torch.zeros(len(videos)))
