"""A domain to share in which no class speaks of a few clips alone.

The mean of a class with one clip is this clip's embedding, and whoever has the file has it: `means`, `sums` and
`class_strength` give it exactly. So classes of few clips can be withheld: their clips are left out and the domain is
fitted again without them, until no clip that is left is of such a class. Then

- a withheld class takes no part in any clip, not even by a small responsibility: it is back at its text,
- where fewer clips are left than the space has axes, of the scatter within classes one number is kept instead of a
  matrix, for that matrix and the means would give single clips of small classes away.

What the clips that were left out were, nothing in the head depends on.
"""

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .class_mixture import ClassMixture, gather_statistics, maximise
from .domain_statistics import DomainStatistics, spread_samples, sum_second_moments
from .precision import posterior_of
from .text_prior import TextPrior
from .text_trust import TrustedFit


# Log frequency of a class that no clip may belong to: its responsibility is zero in float32.
NEVER = -1e4


@torch.no_grad()
def without_small_classes(
    head: Any, min_clips: int, video_embeds: Tensor | None = None, labels: Tensor | None = None
) -> Any:
    """A copy of a fitted head in which classes of fewer clips are back at their text.

    Args:
        head: A `DKDHead`, which imports this file, fitted with class texts; it stays what it is.
        min_clips: Clips that a class needs, by its responsibilities, >= 2.
        video_embeds: All clips that it was fitted to, (N, D) or (N, T, D); None: those that it still holds.
        labels: Their labels, as `DKDHead.fit` was given them.

    Returns:
        The head to share; its `min_clips` says what it is.

    Raises:
        ValueError: Nothing is fitted, the clips are not at hand, or no class has so many.
    """
    if min_clips < 2:
        raise ValueError(f"min_clips is {min_clips}, but must be at least 2: the mean of one clip is that clip.")
    if not head.is_fitted or not bool(head.anchored):
        raise ValueError("classes can be withheld from a domain that was fitted with class texts; there is none.")
    if video_embeds is None:
        video_embeds, labels = head.recent_clips()
    videos = head._pooled(video_embeds, "video_embeds")
    labels = torch.full((len(videos),), -1) if labels is None else labels
    kept = copy.deepcopy(head)
    while True:
        kept.fit(videos, head.fitted_texts, labels, class_names=head.class_names)
        prior, mixture = kept._prior(), kept._mixture()
        posterior = _posterior(prior, mixture, videos, labels.to(videos.device), float(kept.logit_scale))
        small = posterior.sum(0) < min_clips
        stays = ~small[posterior.argmax(1)]
        if bool(stays.all()):
            break
        videos, labels = videos[stays], labels[stays.to(labels.device)]
        if not len(videos):
            raise ValueError(f"no class has {min_clips} clips, so that nothing is left to share; ask for fewer.")
    _store_without(kept, small, prior, mixture, videos, labels.to(videos.device))
    kept.min_clips = min_clips
    return kept


def _posterior(prior: TextPrior, mixture: ClassMixture, videos: Tensor, labels: Tensor, logit_scale: float) -> Tensor:
    """Share of each class in each clip, (N, K), rows sum to 1."""
    _, (slope, intercept) = mixture.logits(prior, logit_scale)
    posterior = posterior_of(videos @ slope.T + intercept)
    known = labels >= 0
    posterior[known] = torch.nn.functional.one_hot(labels[known], posterior.shape[1]).to(posterior.dtype)
    return posterior


def _store_without(
    head: Any, small: Tensor, prior: TextPrior, mixture: ClassMixture, videos: Tensor, labels: Tensor
) -> None:
    """Write the statistics of the clips that are left, of which none belongs to a small class."""
    scale, options = float(head.logit_scale), head.options
    closed = replace(mixture, log_frequency=mixture.log_frequency.masked_fill(small, NEVER))
    statistics = gather_statistics(closed, prior, videos, labels, scale, options)
    second_moments = sum_second_moments(videos, labels, prior.offsets, options)
    if len(videos) - int((~small).sum()) < videos.shape[1]:
        second_moments = _coarse(statistics, second_moments)
    mixture = maximise(mixture, prior, statistics, second_moments, options)
    sample = spread_samples(videos, options.sample_size, len(videos))
    names = head.class_names
    fitted = TrustedFit(head.logit_sums.double(), prior, mixture, statistics, second_moments)
    head._store(head.fitted_texts, fitted, sample)
    head.class_names = names


def _coarse(statistics: DomainStatistics, second_moments: Tensor) -> Tensor:
    """Second moments (D, D) of the class means, and the scatter within classes as if it were alike on all axes."""
    between = (statistics.sums.T / statistics.counts.clamp_min(1e-8)) @ statistics.sums
    within = (second_moments.trace() - between.trace()).clamp_min(0) / len(between)
    return between + within * torch.eye(len(between)).to(between)
