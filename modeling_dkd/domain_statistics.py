"""Sums over the videos of a domain, all that a round of EM keeps of them.

Videos come as one tensor or as shards that are passed over again and again; what is held besides them does not grow
with their number. Sums of disjoint sets of videos add up: over shards, processes and time.

| | shape | |
|---|---|---|
| `video_embeds`, `labels` | (N, D), (N,) | unit embeddings, class or -1 |
| `counts`, `prior_counts`, `sums` | (K,), (K,), (K, D) | `DomainStatistics` |
| `sum_second_moments` | (D, D) | x x^T |
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from .mixture_options import MixtureOptions
from .precision import posterior_of


# Samples whose N x K matrices are held at once; larger ones cost fresh memory from the system each time.
CHUNK_SIZE = 4096
# Share of the samples: a round of EM that gives no more of them to other classes is the last.
SETTLED = 1e-3

AllReduce = Callable[[Tensor], Tensor]
# Embeddings (N, D), or shards of them that can be passed over again and again.
Videos = Tensor | Iterable[Tensor]
# Logits of samples x as x @ slopes.T + intercepts: (K, D) and (K,).
LinearLogits = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class DomainStatistics:
    """Sums over domain samples, float64, labelled ones `labelled_weight` times; those of disjoint samples add up.

    Attributes:
        num_samples: (), n.
        num_labelled: (), what of them came with its class.
        counts: (K,), responsibilities summed.
        prior_counts: (K,), the same for the posterior without the mixture.
        sums: (K, D), embeddings weighted by responsibilities.
    """

    num_samples: Tensor
    num_labelled: Tensor
    counts: Tensor
    prior_counts: Tensor
    sums: Tensor

    def seen_share(self, options: MixtureOptions) -> Tensor:
        """Samples per unit of weight, (): 1 where none is labelled."""
        return 1 - self.num_labelled / self.num_samples * (1 - 1 / options.labelled_weight)

    def is_like(self, before: "DomainStatistics") -> bool:
        """Whether no more than SETTLED of the samples have gone to other classes since."""
        moved = torch.stack([self.counts - before.counts, self.prior_counts - before.prior_counts]).abs().sum(1)
        return bool((moved <= SETTLED * self.num_samples).all())

    def __add__(self, other: "DomainStatistics") -> "DomainStatistics":
        """Of both sets of samples."""
        return DomainStatistics(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __mul__(self, factor: float) -> "DomainStatistics":
        """Of so many times as many samples that are alike."""
        return DomainStatistics(*(getattr(self, f.name) * factor for f in fields(self)))


@dataclass(frozen=True)
class OlderSamples:
    """What remains of samples that cannot be looked at again.

    Attributes:
        statistics: Theirs.
        second_moments: Theirs, (D, D), float64.
        log_frequency: (K,), w_k they were gathered under. It stays: updates from counts that do not answer to it
            would run away.
    """

    statistics: DomainStatistics
    second_moments: Tensor
    log_frequency: Tensor


def in_chunks(video_embeds: Videos) -> Iterator[Tensor]:
    """Pieces of at most CHUNK_SIZE samples, in order."""
    for shard in [video_embeds] if isinstance(video_embeds, Tensor) else video_embeds:
        yield from shard.split(CHUNK_SIZE)


def spread_samples(video_embeds: Videos, num_samples: int, total: int) -> Tensor | None:
    """At most so many of `total` samples (n, D), evenly spread: domains come sorted; None where there are none."""
    step, position, sample, num_chosen = max(1, -(-total // num_samples)), 0, None, 0
    for chunk in in_chunks(video_embeds):
        chosen = chunk[-position % step :: step]
        if sample is None:
            # Room for all at once: small copies between chunks that come and go leave holes where no chunk fits.
            sample = chunk.new_empty(min(num_samples, total), *chunk.shape[1:])
        sample[num_chosen : num_chosen + len(chosen)] = chosen
        position, num_chosen = position + len(chunk), num_chosen + len(chosen)
    return None if sample is None else sample[:num_chosen]


def chunk_statistics(
    by_text: LinearLogits, by_both: LinearLogits, video_embeds: Tensor, labels: Tensor, options: MixtureOptions
) -> DomainStatistics:
    """Statistics of one chunk, given the logits of the texts alone and of texts and mixture."""
    expected, assigned = (
        posterior_of(torch.addmm(intercept, video_embeds, slope.T)) for slope, intercept in (by_text, by_both)
    )
    known = labels >= 0
    weight = torch.where(known, options.labelled_weight, 1.0)
    if known.any():
        truth = options.labelled_weight * one_hot(labels[known], assigned.shape[1]).to(assigned.dtype)
        assigned[known] = expected[known] = truth
    centre, spread = _around_mean(video_embeds)
    counts = assigned.sum(0)
    sums = (assigned.T @ spread).double() + torch.outer(counts.double(), centre)
    values = (weight.sum(), weight[known].sum(), counts, expected.sum(0), sums)
    return DomainStatistics(*(value.double() for value in values))


def sum_second_moments(video_embeds: Videos, labels: Tensor, like: Tensor, options: MixtureOptions) -> Tensor:
    """Weighted sum of x x^T over samples, (D, D), float64, on the device of `like` (K, D); those of samples add up."""
    second_moments, position = like.new_zeros(like.shape[1], like.shape[1], dtype=torch.float64), 0
    for chunk in in_chunks(video_embeds):
        weight = torch.where(labels[position : position + len(chunk)] >= 0, options.labelled_weight, 1.0)
        centre, spread = _around_mean(chunk)
        drift = (weight @ spread).double()
        second_moments += (spread.T * weight) @ spread
        cross = torch.outer(drift, centre)
        second_moments += cross + cross.T + weight.sum() * torch.outer(centre, centre)
        position += len(chunk)
    return second_moments


def _around_mean(video_embeds: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of a chunk, (D,), float64, and what is left of each sample, (N, D), float32.

    Where thousands of samples are alike, float32 sums of these round less than the domain varies, sums of samples not.
    """
    centre = video_embeds.sum(0) / max(1, len(video_embeds))
    return centre.double(), video_embeds - centre
