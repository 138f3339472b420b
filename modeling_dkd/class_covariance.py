"""S and T: the covariance that the classes of a domain share, and the temperature of the densities that it makes.

S is shrunk toward its diagonal. Axes that vary together are thus not counted as so many pieces of evidence. T is there
because classes are no Gaussians, responsibilities are no truths, and a mean of few videos is unsure along each of the
axes on which videos vary.

| | shape | |
|---|---|---|
| `statistics` | (), (K,), (K, D) | sums over videos, domain_statistics.py |
| `scatter` | (D, D) | products of the videos' deviations from their class means, per video |
| `shrunk_covariance` S | (D, D) | the scatter held near its diagonal |
| `temperature` T | () | of N(x; mean_k, S)^(1/T) |
"""

import torch
from torch import Tensor

from .domain_statistics import DomainStatistics
from .mixture_options import MixtureOptions


# What rounding of unit vectors may hide, added to all variances so that S can be inverted.
ROUNDING_VARIANCE = 1e-6


def scatter_of(statistics: DomainStatistics, second_moments: Tensor, means: Tensor) -> Tensor:
    """Products of the samples' deviations from their class means, per sample, (D, D), float32."""
    num_samples = statistics.num_samples
    # Around the domain's mean, from where differences of large numbers lose least; S hides what float32 still loses.
    centre = statistics.sums.sum(0) / num_samples
    sums, means = statistics.sums - statistics.counts[:, None] * centre, means - centre
    cross = (sums - 0.5 * statistics.counts[:, None] * means).float().T @ means.float()
    scatter = torch.addr(second_moments, centre, num_samples * centre, alpha=-1).float()
    # In place: a pass over D x D numbers costs as much as some of these products.
    scatter.sub_(cross).sub_(cross.T)
    # Equal samples leave nothing but rounding, which is no covariance.
    is_more = scatter.trace() > num_samples * ROUNDING_VARIANCE * len(scatter)
    return scatter.mul_((is_more / num_samples).float())


def temperature_of(statistics: DomainStatistics, scatter: Tensor, options: MixtureOptions) -> Tensor:
    """T, ().

    The mean of n samples that vary along d axes is off by d / n, as a squared distance in units of the variance per
    axis: with N samples of K classes, by d K / N. What labels leave of T falls faster, with their number squared.
    """
    num_classes, num_samples = len(statistics.counts), statistics.num_samples
    dimension = effective_dimension(statistics, scatter, options)
    unlabelled = options.temperature + dimension * (num_classes + options.shared_classes) / num_samples
    num_seen = num_samples * statistics.seen_share(options)
    labelled = (options.labelled_samples * num_classes / num_seen).square().clamp_min(1)
    share = statistics.num_labelled / num_samples
    return 1 / ((1 - share) / unlabelled + share / labelled)


def effective_dimension(statistics: DomainStatistics, scatter: Tensor, options: MixtureOptions) -> Tensor:
    """Number of axes, all with the same variance, that have the participation ratio of the scatter, (), 1 to D.

    That is tr(C)^2 / tr(C^2) of a covariance C, where tr(C^2) is too large by tr(C)^2 / n when it is estimated from n
    samples (Bai and Saranadasa 1996). Few samples, or equal ones, do not show how many axes there are: a pseudo-sample
    says D.
    """
    num_seen = statistics.num_samples * statistics.seen_share(options)
    concentration = scatter.norm().square() / scatter.trace().square().clamp_min(1e-30)
    dimension = 1 / (concentration - 1 / num_seen).clamp(1 / len(scatter), 1)
    return (num_seen * dimension + len(scatter)) / (num_seen + 1)


def shrunk_covariance(statistics: DomainStatistics, scatter: Tensor, options: MixtureOptions) -> Tensor:
    """S, (D, D): the scatter held near its diagonal by a pseudo-sample per axis, and that near equal ones by one."""
    num_samples, num_axes = statistics.num_samples, len(scatter)
    variances = scatter.diagonal().clamp_min(0)
    mean_variance = variances.mean()
    trust = (1 - options.equal_variance_share) * num_samples / (num_samples + 1)
    held = trust * variances + (1 - trust) * mean_variance
    labelled = statistics.num_labelled / num_samples
    num_seen = num_samples * statistics.seen_share(options)
    own_share = num_seen / (num_seen + num_axes)
    own_share = own_share * (labelled + (1 - labelled) * options.unlabelled_covariance_share)
    covariance = own_share.float() * scatter
    covariance.diagonal().add_((1 - own_share) * held + ROUNDING_VARIANCE)
    return covariance
