"""The mixture of a domain whose classes have names: one Gaussian per class text, fitted to its video embeddings.

Videos need no labels; they are shared out among the classes by what the texts say and by where the other videos of a
class lie. All classes have one covariance, so that the posterior is linear in the video. A class without videos stays
where its text is, and the fewer videos there are, the less the mixture is trusted against the texts.

| | shape | |
|---|---|---|
| x, t | (N, D), (K, D) | unit embeddings of videos and of class texts |
| `directions` t~, `bias` b | (K, D), (K,) | the texts debiased, `TextPrior` |
| `log_frequency` w, `counts`, `means` | (K,), (K,), (K, D) | of the classes |
| `precision` S^-1, `temperature` T | (D, D), () | shared by the classes |
| `DomainStatistics` | (), (K,), (K, D) | sums over videos (domain_statistics.py) |

With the logit scale s of the dual encoder,

    p(k | x) proportional to exp(s x.t~_k - b_k + w_k) N(x; mean_k, S)^(1/T)

- t~_k and b_k: the texts without their bias (text_prior.py). While the mixture is fitted both may count less
  (text_trust.py).
- w_k: log frequency of class k beyond what the text prior says, maximum a posteriori under N(0, v).
- mean_k: conjugate prior of `anchor_samples` pseudo-counts at the anchor, the text carried over to the cone of the
  videos by a shift and a scale; of more where few classes occur and class k has few videos, which then are mostly
  those of other classes.
- S and T: the covariance, and how far it is believed (class_covariance.py).
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from .class_covariance import scatter_of, shrunk_covariance, temperature_of
from .domain_statistics import (
    AllReduce,
    DomainStatistics,
    LinearLogits,
    OlderSamples,
    Videos,
    chunk_statistics,
    in_chunks,
    spread_samples,
    sum_second_moments,
)
from .mixture_options import MixtureOptions
from .text_prior import TextPrior


# Of a far larger domain so many samples, evenly spread, are what all but the last rounds look at.
FIRST_LOOK = 2**16
LAST_ROUNDS = 2


@dataclass(frozen=True)
class ClassMixture:
    """The mixture of the module docstring, float32.

    Attributes:
        log_frequency: (K,), w_k, nats.
        domain_mean: (D,), mean video embedding.
        mean_direction: (D,), t~ averaged with the class frequencies.
        anchor_scale: (), from t~ offsets to video offsets.
        means: (K, D).
        variances: (D,), the diagonal of S.
        precision: (D, D), S^-1.
        counts: (K,), samples per class, a labelled one counted `labelled_weight` times.
        anchor_weights: (K,), pseudo-samples at the anchor.
        temperature: (), T.
    """

    log_frequency: Tensor
    domain_mean: Tensor
    mean_direction: Tensor
    anchor_scale: Tensor
    means: Tensor
    variances: Tensor
    precision: Tensor
    counts: Tensor
    anchor_weights: Tensor
    temperature: Tensor

    @property
    def class_strength(self) -> Tensor:
        """Weight of a class's own samples in its mean, (K,), 0 (the anchor alone) to 1."""
        return self.counts / (self.counts + self.anchor_weights)

    def anchors(self, directions: Tensor) -> Tensor:
        """Where debiased texts (..., D) stand among the videos, (..., D)."""
        return self.domain_mean + self.anchor_scale * (directions - self.mean_direction)

    def precision_times(self, vectors: Tensor) -> Tensor:
        """S^-1 v of each vector, (..., D): for a difference of means, the direction that tells them apart."""
        return vectors @ self.precision

    def linear_log_likelihood(self, means: Tensor) -> LinearLogits:
        """Logarithm of N(x; mean, S)^(1/T) for means (J, D), without the part that is the same for all of them."""
        slope = self.precision_times(means - self.domain_mean) / self.temperature
        return slope, -0.5 * ((means + self.domain_mean) * slope).sum(1)

    def logits(self, prior: TextPrior, logit_scale: float) -> tuple[LinearLogits, LinearLogits]:
        """Log posterior of the classes by the texts alone, as far as they are trusted, and by texts and mixture.

        Each is up to a constant of x.
        """
        slope, intercept = self.linear_log_likelihood(self.means)
        by_text = prior.trust * logit_scale * prior.directions, self.log_frequency - prior.trust * prior.bias
        return by_text, (by_text[0] + slope, by_text[1] + intercept)


# The mixture, and the statistics and second moments (D, D) it was made from.
MixtureFit = tuple[ClassMixture, DomainStatistics, Tensor]


def fit_class_mixture(
    video_embeds: Videos,
    prior: TextPrior,
    labels: Tensor,
    logit_scale: float,
    options: MixtureOptions,
    all_reduce: AllReduce = lambda sums: sums,
    older: OlderSamples | None = None,
) -> MixtureFit:
    """Fit the class-anchored mixture to a domain.

    Of a large unlabelled domain the first rounds look at a sample, whose statistics stand for all: where the classes
    lie is soon known, and only the last rounds need every video to say it exactly.

    Args:
        video_embeds: (N, D), unit norm, float32; or shards of it, passed over once a round.
        prior: The debiased texts of the K classes.
        labels: (N,), int64, class of a sample or -1 for unlabelled.
        logit_scale: s > 0, the factor of cosines that makes logits.
        options: Constants.
        all_reduce: Sums a tensor over processes that each hold a part of the samples.
        older: Further samples of the domain, of which only this is left.

    Returns:
        The mixture, and the statistics and second moments it was made from.
    """
    given = labels, logit_scale, options, all_reduce
    held = {} if older is None else {"log_frequency": older.log_frequency}

    def learn(mixture: ClassMixture, samples: Videos, num_each: float, num_rounds: int) -> MixtureFit:
        """Rounds on samples, each of which stands for so many."""
        second_moments = num_each * all_reduce(sum_second_moments(samples, labels, prior.offsets, options))
        if older is not None:
            second_moments = second_moments + older.second_moments

        def expect(mixture: ClassMixture) -> DomainStatistics:
            statistics = gather_statistics(mixture, prior, samples, *given) * num_each
            return statistics if older is None else statistics + older.statistics

        def update(mixture: ClassMixture, statistics: DomainStatistics) -> ClassMixture:
            return replace(maximise(mixture, prior, statistics, second_moments, options), **held)

        return *run_rounds(mixture, expect, update, num_rounds), second_moments

    mixture, num_rounds = replace(text_only_mixture(prior, options), **held), options.num_rounds
    sample, num_each = _first_look(video_embeds, labels, all_reduce)
    if sample is not None and num_rounds > LAST_ROUNDS:
        mixture, *_ = learn(mixture, sample, num_each, num_rounds - LAST_ROUNDS)
        num_rounds = LAST_ROUNDS
    return learn(mixture, video_embeds, 1.0, num_rounds)


def run_rounds(
    mixture: ClassMixture,
    expect: Callable[[ClassMixture], DomainStatistics],
    update: Callable[[ClassMixture, DomainStatistics], ClassMixture],
    num_rounds: int,
) -> tuple[ClassMixture, DomainStatistics]:
    """E and M steps, at least one round, at most so many, until hardly a sample changes its class."""
    before = None
    for _ in range(num_rounds):
        statistics = expect(mixture)
        mixture = update(mixture, statistics)
        if before is not None and statistics.is_like(before):
            break
        before = statistics
    return mixture, statistics


def _first_look(
    video_embeds: Videos, labels: Tensor, all_reduce: AllReduce
) -> tuple[Tensor | list[Tensor] | None, float]:
    """What the first rounds look at, None where that is all, and how many videos each of it stands for."""
    sizes = torch.stack([labels.new_tensor(len(labels)), (labels >= 0).sum()])
    num_samples, num_labelled = all_reduce(sizes.double()).tolist()
    if num_labelled or num_samples < 2 * FIRST_LOOK:
        return None, 1.0
    sample = spread_samples(video_embeds, FIRST_LOOK, int(num_samples))
    size = all_reduce(labels.new_tensor(0 if sample is None else len(sample)).double())
    return [] if sample is None else sample, num_samples / float(size)


def text_only_mixture(prior: TextPrior, options: MixtureOptions) -> ClassMixture:
    """What is known before any sample: no mixture, which is one at infinite temperature."""
    zeros, origin = torch.zeros_like(prior.bias), torch.zeros_like(prior.offsets[0])
    one, never = zeros.new_ones(()), zeros.new_tensor(float("inf"))
    identity = torch.eye(len(origin), dtype=origin.dtype, device=origin.device)
    means, variances, weights = (
        torch.zeros_like(prior.offsets),
        torch.ones_like(origin),
        zeros + options.anchor_samples,
    )
    return ClassMixture(zeros, origin, origin, one, means, variances, identity, zeros, weights, never)


def gather_statistics(
    mixture: ClassMixture,
    prior: TextPrior,
    video_embeds: Videos,
    labels: Tensor,
    logit_scale: float,
    options: MixtureOptions,
    all_reduce: AllReduce = lambda sums: sums,
) -> DomainStatistics:
    """E step: the statistics of samples (N, D) under the mixture, chunk by chunk, summed over processes."""
    statistics, position = _no_statistics(prior), 0
    by_text, by_both = mixture.logits(prior, logit_scale)
    for chunk in in_chunks(video_embeds):
        own_labels = labels[position : position + len(chunk)]
        statistics += chunk_statistics(by_text, by_both, chunk, own_labels, options)
        position += len(chunk)
    return DomainStatistics(*(all_reduce(getattr(statistics, f.name)) for f in fields(statistics)))


def maximise(
    mixture: ClassMixture,
    prior: TextPrior,
    statistics: DomainStatistics,
    second_moments: Tensor | None,
    options: MixtureOptions,
) -> ClassMixture:
    """M step: the mixture that the statistics and second moments ask for, given the one they were gathered under.

    Without second moments S and T stay what they are.
    """
    num_samples, counts = statistics.num_samples, statistics.counts
    directions = prior.directions.double()
    # Anchors: the texts, shifted and scaled into the cone of the videos as the classes with samples ask for.
    own_means = statistics.sums / counts.clamp_min(1e-8)[:, None]
    frequency = counts / num_samples
    domain_mean, mean_direction = frequency @ own_means, frequency @ directions
    video_spread, text_spread = own_means - domain_mean, directions - mean_direction
    scale = (
        frequency @ (video_spread * text_spread).sum(1) / (frequency @ text_spread.square().sum(1)).clamp_min(1e-12)
    )
    scale = scale.clamp_min(0)
    anchors = domain_mean + scale * text_spread
    # Means and their common covariance.
    labelled = statistics.num_labelled / num_samples
    anchor_weights = _anchor_weights(counts, labelled, options)
    means = anchors + (counts / (counts + anchor_weights))[:, None] * (own_means - anchors)
    variances, precision, temperature = mixture.variances, mixture.precision, mixture.temperature
    if second_moments is not None:
        scatter = scatter_of(statistics, second_moments, means)
        temperature = temperature_of(statistics, scatter, options)
        covariance = shrunk_covariance(statistics, scatter, options)
        # It comes column by column; symmetric as it is, it is itself row by row.
        precision = torch.cholesky_inverse(torch.linalg.cholesky(covariance)).T
        variances = covariance.diagonal()
    log_frequency = _log_frequency(mixture.log_frequency.double(), counts, statistics.prior_counts, options)
    place = (log_frequency, domain_mean, mean_direction, scale)
    new = (*place, means, variances, precision, counts, anchor_weights, temperature)
    return ClassMixture(*(value.float() for value in new))


def _anchor_weights(counts: Tensor, labelled: Tensor, options: MixtureOptions) -> Tensor:
    """Pseudo-samples that hold each mean at its anchor, (K,), given the share of the samples that is labelled, ().

    The perplexity of the class frequencies is the number of classes that occur, if they were equally frequent.
    """
    perplexity = torch.special.entr(counts / counts.sum()).sum().exp()
    typical_size = counts.sum() / perplexity
    doubtful = options.doubtful_size * (len(counts) / perplexity - 1).clamp_min(0) * typical_size
    counts = counts.clamp_min(1e-3)
    return options.anchor_samples + (1 - labelled) * counts * (doubtful / counts).pow(options.doubtful_power)


def _log_frequency(before: Tensor, counts: Tensor, prior_counts: Tensor, options: MixtureOptions) -> Tensor:
    """Frequencies w (K,) that raise the posterior, given w before and the counts it led to.

    The prior's logarithm of a sum over classes is bounded by the sum itself, which leaves of sum_i log p(x_i) and of
    w ~ N(0, v) one term for each class: counts * w - prior_counts * exp(w - before) - w^2 / (2 v). Its derivative is
    zero where y = w + shift, with shift = log(v prior_counts) - before, solves y + exp(y) = v counts + shift (Wright's
    omega function). The left side is convex, so Newton's steps go down to y from a start above, which is near.
    """
    # Nothing in an empty class: its logarithm stays finite.
    counts, prior_counts = counts.clamp_min(1e-8), prior_counts.clamp_min(1e-8)
    shift = (options.frequency_variance * prior_counts).log() - before
    total = options.frequency_variance * counts + shift
    y = torch.where(total > 1, total.clamp_min(1).log(), total)
    for _ in range(5):
        exp_y = y.exp()
        y = y - (y + exp_y - total) / (1 + exp_y)
    return y - shift


def _no_statistics(prior: TextPrior) -> DomainStatistics:
    """Of no sample: what a process without shards adds."""
    shapes_of = (prior.bias.sum(), prior.bias, prior.offsets)
    none, per_class, per_class_and_axis = (torch.zeros_like(like, dtype=torch.float64) for like in shapes_of)
    return DomainStatistics(none, none, per_class, per_class, per_class_and_axis)
