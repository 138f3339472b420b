"""What class texts say of a video before any mixture: their logits, a share of the bias removed.

Texts that lie farther from the mean text have logits that spread wider, and each text's logit has its own mean over
videos of other classes. A share of both (log scale for the spread), less with few classes, is bias of the encoder.

| | shape | |
|---|---|---|
| x, t | (N, D), (K, D) | unit embeddings of videos and of class texts |
| `directions` t~, `bias` b | (K, D), (K,) | with the logit scale s the logits of x are s x.t~_k - b_k |
| `sum_logits` | (3, K) | sums over videos, all that the bias is made from |
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .domain_statistics import Videos, in_chunks
from .mixture_options import MixtureOptions


@dataclass(frozen=True)
class TextPrior:
    """The class texts debiased: prior logits of x are x @ (logit_scale * directions).T - bias.

    Attributes:
        offsets: (K, D), class texts minus their mean.
        scale: (K,), factor that makes an offset t~_k.
        bias: (K,), b_k, nats.
        trust: Factor of the prior logits while a mixture is fitted, in (0, 1], see text_trust.py.
    """

    offsets: Tensor
    scale: Tensor
    bias: Tensor
    trust: float = 1.0

    @property
    def directions(self) -> Tensor:
        """t~, (K, D)."""
        return self.offsets * self.scale[:, None]

    def trusted(self, trust: float) -> "TextPrior":
        """The same with another trust."""
        return replace(self, trust=trust)


def sum_logits(
    video_embeds: Videos, text_embeds: Tensor, logit_scale: float, options: MixtureOptions, trust: float = 1.0
) -> Tensor:
    """Sums that tell how the logits of a class look on samples of other classes, (3, K), float64; samples add up.

    Rows: number of samples; weight 1 - p(k | x) under the texts alone, as far as they are trusted; weighted logit.
    """
    offsets = _offsets(text_embeds)
    slope = logit_scale * offsets * text_scale(offsets, offsets, options)[:, None]
    logit_sums = torch.zeros(3, len(offsets), dtype=torch.float64, device=text_embeds.device)
    for chunk in in_chunks(video_embeds):
        logits = chunk @ slope.T
        other = 1 - (trust * logits).softmax(1)
        number = other.new_full((other.shape[1],), len(chunk))
        logit_sums += torch.stack([number, other.sum(0), (other * logits).sum(0)])
    return logit_sums


def debias_texts(text_embeds: Tensor, logit_sums: Tensor, options: MixtureOptions) -> TextPrior:
    """Unit texts (K, D) with a share of their bias removed, given `sum_logits` of the domain."""
    offsets = _offsets(text_embeds)
    _, weight, total = logit_sums
    bias = options.debiased_share_of(len(text_embeds)) * total / weight.clamp_min(1e-6)
    return TextPrior(offsets, text_scale(offsets, offsets, options), (bias - bias.mean()).float())


def text_scale(offsets: Tensor, fitted: Tensor, options: MixtureOptions) -> Tensor:
    """Factor of offsets (J, D) among the fitted ones (K, D), (J,): the longer, the wider its logits spread."""
    return relative_length(offsets, fitted).pow(-options.debiased_share_of(len(fitted)))


def relative_length(offsets: Tensor, reference: Tensor) -> Tensor:
    """Length of each offset (J, D) relative to the root mean square of the reference's (K, D); 1 where those are 0."""
    lengths = offsets.norm(dim=1)
    typical = reference.square().sum(1).mean().sqrt()
    return torch.where(typical > 1e-6, lengths / typical.clamp_min(1e-6), torch.ones_like(lengths)).clamp_min(1e-3)


def _offsets(text_embeds: Tensor) -> Tensor:
    """Texts minus their mean."""
    return text_embeds - text_embeds.mean(0)
