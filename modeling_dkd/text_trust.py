"""How far a domain's class texts are trusted, chosen by what each trust makes of samples that it has not seen.

The encoder's logit scale s says how sure its texts are. It may be far too sure; then no sample leaves the class that
the texts gave it, whatever the mixture has found. A trust a, at most 1, makes s into a s. Candidates are compared by
cross-validation: the mixture of class_mixture.py is fitted to a sample of the domain under each of them; then, with
covariance S_a and prior held, to each half of the sample, and each half has to foretell the samples of the other one,
together with the classes that the other half's fit gives them:

    C(a) = mean over x of sum_k r_own(k | x) log [ p(k | x; a s) N(x; mean_k, S_a)^(1/T) ]

with text prior p and mean_k of the half that x is not of, responsibilities r_own of the half that it is of, and T the
same for all a. It is the held-out classification likelihood: where weak texts let the classes of the halves drift
apart, density rises, but the halves no longer agree about which class is which. A labelled sample brings its class.

The encoder's word stands unless another is better beyond doubt: C(a) - C(1) has to exceed `trust_margin`; the largest
difference wins. A half may fall into a worse optimum than the domain does, with two classes exchanged, so that each
sample's part of a difference counts up to `trust_limit` nats either way.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from .class_mixture import ClassMixture, fit_class_mixture, gather_statistics, maximise, text_only_mixture
from .domain_statistics import AllReduce, DomainStatistics, Videos, spread_samples
from .mixture_options import MixtureOptions
from .text_prior import TextPrior, debias_texts, sum_logits


# From texts (K, D), `sum_logits` of the domain and the options to the debiased texts.
Debias = Callable[[Tensor, Tensor, MixtureOptions], TextPrior]
# Of the bins that halve a domain: far narrower than any domain, far wider than what rounding moves a sample by.
BIN_WIDTH = 0.01


@dataclass(frozen=True)
class TrustChoice:
    """What was chosen, and why; C candidates, those of `MixtureOptions.text_trusts`.

    Attributes:
        trust: a, in (0, 1].
        candidates: Those that were compared with 1.
        gain: (C,), C(a) - C(1), limited, nats a sample; 0 where the domain cannot be halved.
        error: (C,), its standard error, for reports.
    """

    trust: float
    candidates: tuple[float, ...]
    gain: Tensor
    error: Tensor


@dataclass(frozen=True)
class TrustedFit:
    """A domain as it is under a certain trust.

    Attributes:
        trust: a, in (0, 1].
        logit_sums: `sum_logits` of its samples under this trust, (3, K), float64.
        prior: The texts debiased, with the trust in them.
        mixture: Fitted to them.
        statistics: What the mixture was made from.
        second_moments: The same, (D, D), float64.
    """

    trust: float
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
    return TrustedFit(trust, logit_sums, prior, *fitted)


def fit_best_trust(
    video_embeds: Videos,
    labels: Tensor,
    text_embeds: Tensor,
    num_samples: int,
    logit_scale: float,
    options: MixtureOptions,
    debias: Debias = debias_texts,
    all_reduce: AllReduce = lambda sums: sums,
) -> tuple[TrustChoice, TrustedFit]:
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
    under = partial(
        fit_under_trust, text_embeds=text_embeds, logit_scale=logit_scale, debias=debias, all_reduce=all_reduce
    )
    fitted = under(video_embeds, labels, trust=1.0, options=options)
    if not options.text_trusts:
        none = fitted.logit_sums.new_zeros(0)
        return TrustChoice(1.0, (), none, none), fitted
    sample = spread_samples(video_embeds, options.sample_size, num_samples)
    own_labels = spread_samples(labels, options.sample_size, num_samples)
    if sample is None or own_labels is None:
        sample, own_labels = text_embeds[:0], labels[:0]
    candidates = [under(sample, own_labels, trust=trust, options=options) for trust in options.text_trusts]
    choice = choose_text_trust(sample, own_labels, fitted, candidates, logit_scale, options, all_reduce)
    if choice.trust < 1:
        fitted = under(video_embeds, labels, trust=choice.trust, options=options)
    return choice, fitted


def choose_text_trust(
    sample: Tensor,
    labels: Tensor,
    full: TrustedFit,
    candidates: list[TrustedFit],
    logit_scale: float,
    options: MixtureOptions,
    all_reduce: AllReduce = lambda sums: sums,
) -> TrustChoice:
    """Which of `MixtureOptions.text_trusts` is better than full trust beyond doubt, if any is.

    Args:
        sample: (n, D), unit norm, float32; those of this process, perhaps none.
        labels: (n,), int64, -1 for unlabelled.
        full: The domain under full trust, whose T is taken for all.
        candidates: The sample under each of the others.
        logit_scale: s.
        options: Constants.
        all_reduce: Sums a tensor over processes that each hold a part of the sample.
    """
    halves = _halves(sample)
    sizes = all_reduce(torch.stack([half.sum(dtype=torch.float64) for half in halves]))
    if not sizes.all():
        none = sizes.new_zeros(len(candidates))
        return TrustChoice(1.0, options.text_trusts, none, none)
    scores = [
        _held_out_scores(sample, labels, halves, fit, full.mixture.temperature, logit_scale, options, all_reduce)
        for fit in (full, *candidates)
    ]
    gains = (torch.stack(scores[1:]) - scores[0]).clamp(-options.trust_limit, options.trust_limit)
    gain, error = _mean_and_error(gains, sizes.sum(), all_reduce)
    best = options.text_trusts[int(gain.argmax())] if bool(gain.max() > options.trust_margin) else 1.0
    return TrustChoice(best, options.text_trusts, gain, error)


def _mean_and_error(gains: Tensor, num_samples: Tensor, all_reduce: AllReduce) -> tuple[Tensor, Tensor]:
    """Mean of (C, n) over the samples of all processes, and its standard error, both (C,)."""
    gain = all_reduce(gains.sum(1)) / num_samples
    variance = all_reduce((gains - gain[:, None]).square().sum(1)) / (num_samples - 1)
    return gain, (variance / num_samples).sqrt()


def _halves(sample: Tensor) -> list[Tensor]:
    """Masks (n,) of two halves, to which a sample belongs by itself, whatever others there are and in whatever order.

    Its coordinate along an arbitrary axis is cut into many narrow bins, which belong to the one and the other in turn.
    """
    axis = torch.randn(sample.shape[1], generator=torch.Generator().manual_seed(0)).to(sample)
    even = (sample @ axis / BIN_WIDTH).floor().remainder(2) == 0
    return [even, ~even]


def _held_out_scores(
    sample: Tensor,
    labels: Tensor,
    halves: list[Tensor],
    whole: TrustedFit,
    temperature: Tensor,
    logit_scale: float,
    options: MixtureOptions,
    all_reduce: AllReduce,
) -> Tensor:
    """What C is the mean of, (n,), float64."""
    given = whole, temperature, logit_scale
    fits = [_fit_half(sample[half], labels[half], *given, options, all_reduce) for half in halves]
    joints = [_joint_log_density(sample, fit, *given) for fit in fits]
    scores = sample.new_zeros(len(sample), dtype=torch.float64)
    for half, own, other in zip(halves, joints, joints[::-1], strict=True):
        assigned, known = own[half].softmax(1), labels[half] >= 0
        assigned[known] = one_hot(labels[half][known], assigned.shape[1]).to(assigned.dtype)
        scores[half] = (assigned * other[half]).sum(1)
    return scores


def _fit_half(
    half: Tensor,
    labels: Tensor,
    whole: TrustedFit,
    temperature: Tensor,
    logit_scale: float,
    options: MixtureOptions,
    all_reduce: AllReduce,
) -> ClassMixture:
    """The mixture of samples (n, D) with the prior and S of `whole`, and this T: no covariance is factorised."""
    mixture, held = text_only_mixture(whole.prior, options), {"temperature": temperature}
    held |= {name: getattr(whole.mixture, name) for name in ("variances", "whitening")}
    for _ in range(options.num_rounds):
        statistics = gather_statistics(mixture, whole.prior, half, labels, logit_scale, options, all_reduce)
        mixture = replace(maximise(mixture, whole.prior, statistics, None, options), **held)
    return mixture


def _joint_log_density(
    sample: Tensor, mixture: ClassMixture, whole: TrustedFit, temperature: Tensor, logit_scale: float
) -> Tensor:
    """Logarithm of p(k | x) N(x; mean_k, S)^(1/T), (n, K), float64, up to a constant of D and T."""
    prior = whole.prior
    by_text = torch.addmm(mixture.log_frequency - prior.bias, sample, (logit_scale * prior.directions).T)
    # W is triangular, and its diagonal has the determinant.
    log_density = mixture.whitening.diagonal().log().sum() - 0.5 * mixture.squared_distances(sample)
    return by_text.double().log_softmax(1) + log_density.double() / temperature
