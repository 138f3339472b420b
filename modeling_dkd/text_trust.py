"""How far a domain's class texts are trusted, chosen by what each trust makes of samples that it has not seen.

The encoder's logit scale s says how sure its texts are. It may be far too sure; then no sample leaves the class that
the texts gave it, whatever the mixture has found. A trust a, at most 1, makes s into a s. Candidates are compared by
cross-validation: the domain is halved, the mixture of class_mixture.py is fitted to each half, and each half's fit has
to foretell the samples of the other one, together with the classes that the other half's fit gives them:

    C(a) = mean over x of sum_k r_own(k | x) log [ p(k | x; a s) N(x; mean_k, S)^(1/T) ]

with text prior p, mean_k and S of the half that x is not of, responsibilities r_own of the half that it is of, and T
the same for all a. It is the held-out classification likelihood: where weak texts let the classes of the halves drift
apart, or absent classes take a share of those that occur, density rises, but the halves no longer agree about which
class is which. A labelled sample brings its own class.

The encoder's word stands unless another is better beyond doubt: C(a) - C(1) has to exceed `trust_errors` times its
standard error over the samples. Of those that do, the largest difference less so many errors wins. A half may fall
into a worse optimum than the domain does, so that the median of what three ways to halve it choose is taken, unless
the first one leaves no doubt that the encoder is right.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from .class_mixture import (
    AllReduce,
    ClassMixture,
    DomainStatistics,
    TextPrior,
    Videos,
    debias_texts,
    fit_class_mixture,
    spread_samples,
    sum_logits,
)
from .mixture_options import MixtureOptions


# From texts (K, D), `sum_logits` of the domain and the options to the debiased texts.
Debias = Callable[[Tensor, Tensor, MixtureOptions], TextPrior]
# Of the bins that halve a domain: far narrower than any domain, far wider than what rounding moves a sample by.
BIN_WIDTH = 0.01
# Nats a sample that are worth a change: where classes lie far apart, all candidates are equal but for rounding.
LEAST_GAIN = 0.01


@dataclass(frozen=True)
class TextTrust:
    """What was chosen, and why; C candidates, those of `MixtureOptions.text_trusts`.

    Attributes:
        text_trust: (), a, in (0, 1].
        trust_gain: (C,), C(a) - C(1), nats a sample; 0 where the domain cannot be halved.
        trust_error: (C,), its standard error.
    """

    text_trust: Tensor
    trust_gain: Tensor
    trust_error: Tensor


@dataclass(frozen=True)
class TrustedFit:
    """A domain as it is under a certain trust.

    Attributes:
        logit_sums: `sum_logits` of its samples under this trust, (4, K), float64.
        prior: The texts debiased, with the trust in them.
        mixture: Fitted to them.
        statistics: What the mixture was made from.
        second_moments: The same, (D, D), float64.
    """

    logit_sums: Tensor
    prior: TextPrior
    mixture: ClassMixture
    statistics: DomainStatistics
    second_moments: Tensor


def fit_under_trust(
    video_embeds: Videos,
    labels: Tensor,
    text_embeds: Tensor,
    trust: float,
    logit_scale: float,
    options: MixtureOptions,
    debias: Debias = debias_texts,
    all_reduce: AllReduce = lambda sums: sums,
) -> TrustedFit:
    """Debias unit texts (K, D) and fit a domain with them, both under this trust; the rest as in `fit_best_trust`."""
    logit_sums = all_reduce(sum_logits(video_embeds, text_embeds, trust * logit_scale, options))
    prior = debias(text_embeds, logit_sums, options).trusted(trust)
    fitted = fit_class_mixture(video_embeds, prior, labels, logit_scale, options, all_reduce)
    return TrustedFit(logit_sums, prior, *fitted)


def fit_best_trust(
    video_embeds: Videos,
    labels: Tensor,
    text_embeds: Tensor,
    num_samples: int,
    logit_scale: float,
    options: MixtureOptions,
    debias: Debias = debias_texts,
    all_reduce: AllReduce = lambda sums: sums,
) -> tuple[TextTrust, TrustedFit]:
    """The trust that the domain asks for, and the domain as it is under this.

    Args:
        video_embeds: (N, D), unit norm, float32; or shards of it, passed over once a round.
        labels: (N,), int64, class of a sample or -1 for unlabelled.
        text_embeds: (K, D), unit norm.
        num_samples: Of all processes.
        logit_scale: s.
        options: Constants.
        debias: What makes a prior of the texts, as `DKDHead.prior`.
        all_reduce: Sums a tensor over processes that each hold a part of the samples.
    """
    fitted = fit_under_trust(video_embeds, labels, text_embeds, 1.0, logit_scale, options, debias, all_reduce)
    sample = spread_samples(video_embeds, options.trust_samples, num_samples)
    own_labels = spread_samples(labels, options.trust_samples, num_samples)
    if sample is None or own_labels is None:
        sample, own_labels = text_embeds[:0], labels[:0]
    temperature = fitted.mixture.temperature
    trust = choose_text_trust(sample, own_labels, text_embeds, temperature, logit_scale, options, debias, all_reduce)
    if trust.text_trust < 1:
        chosen = float(trust.text_trust)
        fitted = fit_under_trust(video_embeds, labels, text_embeds, chosen, logit_scale, options, debias, all_reduce)
    return trust, fitted


def choose_text_trust(
    sample: Tensor,
    labels: Tensor,
    text_embeds: Tensor,
    temperature: Tensor,
    logit_scale: float,
    options: MixtureOptions,
    debias: Debias = debias_texts,
    all_reduce: AllReduce = lambda sums: sums,
) -> TextTrust:
    """The median of what up to three ways to halve a sample of the domain choose.

    Two that agree are enough, and one is that finds all candidates worse than full trust beyond doubt.

    Args:
        sample: (n, D), unit norm, float32; those of this process, perhaps none.
        labels: (n,), int64, -1 for unlabelled.
        text_embeds: (K, D), unit norm.
        temperature: T, of a fit to the whole domain under full trust.
        logit_scale: s.
        options: Constants.
        debias: What makes a prior of the texts, as `DKDHead.prior`.
        all_reduce: Sums a tensor over processes that each hold a part of the sample.
    """
    options = replace(options, num_rounds=min(options.num_rounds, options.trust_rounds))
    chosen: list[TextTrust] = []
    for way in range(3):
        halves = _halves(sample, way)
        fixed = text_embeds, temperature, logit_scale, options, debias, all_reduce
        scores = partial(_held_out_scores, sample, labels, halves, *fixed)
        chosen.append(_choose(scores, halves, options, all_reduce))
        highest = chosen[-1].trust_gain + options.trust_errors * chosen[-1].trust_error
        if bool((highest <= 0).all()):
            return chosen[-1]
        chosen.sort(key=lambda trust: float(trust.text_trust))
        if way and chosen[0].text_trust == chosen[1].text_trust:
            break
    return chosen[len(chosen) // 2]


def _choose(
    scores: Callable[[float], Tensor], halves: list[Tensor], options: MixtureOptions, all_reduce: AllReduce
) -> TextTrust:
    """The best trust by its `scores` (n,), if it is better than full trust beyond doubt."""
    sizes = all_reduce(torch.stack([half.sum(dtype=torch.float64) for half in halves]))
    none = sizes.new_zeros(len(options.text_trusts))
    if not len(none) or not bool(sizes.all()):
        return TextTrust(sizes.new_ones(()), none, none)
    full, num_samples = scores(1.0), sizes.sum()
    gains = torch.stack([scores(trust) - full for trust in options.text_trusts])
    gain = all_reduce(gains.sum(1)) / num_samples
    error = (all_reduce((gains - gain[:, None]).square().sum(1)) / (num_samples - 1) / num_samples).sqrt()
    sure = gain - options.trust_errors * error
    best = options.text_trusts[int(sure.argmax())] if bool((sure > LEAST_GAIN).any()) else 1.0
    return TextTrust(sizes.new_tensor(best), gain, error)


def _halves(sample: Tensor, way: int) -> list[Tensor]:
    """Masks (n,) of two halves, to which a sample belongs by itself, whatever others there are and in whatever order.

    Its coordinate along an arbitrary axis, another for each way, is cut into many narrow bins, which belong to the one
    and the other in turn.
    """
    axis = torch.randn(sample.shape[1], generator=torch.Generator().manual_seed(way)).to(sample)
    even = (sample @ axis / BIN_WIDTH).floor().remainder(2) == 0
    return [even, ~even]


def _held_out_scores(
    sample: Tensor,
    labels: Tensor,
    halves: list[Tensor],
    text_embeds: Tensor,
    temperature: Tensor,
    logit_scale: float,
    options: MixtureOptions,
    debias: Debias,
    all_reduce: AllReduce,
    trust: float,
) -> Tensor:
    """What C is the mean of, (n,), float64."""
    fits = [
        fit_under_trust(sample[half], labels[half], text_embeds, trust, logit_scale, options, debias, all_reduce)
        for half in halves
    ]
    joints = [_joint_log_density(sample, fit, temperature, logit_scale) for fit in fits]
    scores = sample.new_zeros(len(sample), dtype=torch.float64)
    for half, own, other in zip(halves, joints, joints[::-1], strict=True):
        assigned, known = own[half].softmax(1), labels[half] >= 0
        assigned[known] = one_hot(labels[half][known], assigned.shape[1]).to(assigned.dtype)
        scores[half] = (assigned * other[half]).sum(1)
    return scores


def _joint_log_density(sample: Tensor, fit: TrustedFit, temperature: Tensor, logit_scale: float) -> Tensor:
    """Logarithm of p(k | x) N(x; mean_k, S)^(1/T), (n, K), float64, up to a constant of D and T."""
    prior, mixture = fit.prior, fit.mixture
    by_text = torch.addmm(mixture.log_frequency - prior.bias, sample, (logit_scale * prior.directions).T)
    # W is triangular, and its diagonal has the determinant.
    log_density = mixture.whitening.diagonal().log().sum() - 0.5 * mixture.squared_distances(sample)
    return by_text.double().log_softmax(1) + log_density.double() / temperature
