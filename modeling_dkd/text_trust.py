"""How far the class texts are trusted while a domain is fitted: less than the encoder says, where that loses little.

The encoder's logit scale s says how sure its texts are. It may be far too sure; then no sample leaves the class that
the texts gave it, whatever the mixture has found. Texts that are too sure say much the same at a fraction of the
scale, and classes that the videos bear out are the same in any part of the domain. So a trust a < 1, which makes s
into a s, is taken where little of what there is to say, log K, is lost by it:

    L(a) = mean over x of [ -log p(y_x | x; a s) / log K + (1 if the halves give x different classes, else 0) ]

with y_x the class that the plain texts name and p their posterior. The halves are those of a sample of the domain; the
mixture of class_mixture.py is fitted under a to either, with the covariance of both. Of the candidates with L(a) below
`trust_loss` the least is taken; without any the encoder's word stands.

Trust is for the fit alone. What is read from the domain then has the encoder's scale (text_frame.py): where a domain
is full of videos of none of its classes, what the texts say keeps these from the classes that took them in.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import log

import torch
from torch import Tensor

from .class_mixture import ClassMixture, fit_class_mixture, gather_statistics, maximise, run_rounds, text_only_mixture
from .domain_statistics import AllReduce, DomainStatistics, Videos, spread_samples
from .mixture_options import MixtureOptions
from .text_prior import TextPrior, debias_texts, sum_logits


# From texts (K, D), `sum_logits` of the domain and the options to the debiased texts.
Debias = Callable[[Tensor, Tensor, MixtureOptions], TextPrior]
# Of the bins that halve a domain: far narrower than any domain, far wider than what rounding moves a sample by.
BIN_WIDTH = 0.01


@dataclass(frozen=True)
class TrustChoice:
    """What was chosen, and why.

    Attributes:
        trust: a, in (0, 1].
        left_open: For each candidate the first term of L(a): share of what there is to say that the texts leave open.
        disagreement: For some the second: share of samples that the halves give different classes. It is not looked
            at where the first is too large already, a lower trust was taken, or there are no two halves.
    """

    trust: float
    left_open: dict[float, float]
    disagreement: dict[float, float]


@dataclass(frozen=True)
class TrustedFit:
    """A domain fitted under the trust that `prior` has.

    Attributes:
        logit_sums: `sum_logits` of its samples, (3, K), float64.
        prior: The texts debiased.
        mixture: Fitted to them.
        statistics: What the mixture was made from.
        second_moments: The same, (D, D), float64.
    """

    logit_sums: Tensor
    prior: TextPrior
    mixture: ClassMixture
    statistics: DomainStatistics
    second_moments: Tensor


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
    """The trust that the domain asks for, and the domain fitted under it.

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
    given = text_embeds, logit_scale, options, debias, all_reduce
    choice, fitted = TrustChoice(1.0, {}, {}), None
    if options.text_trusts:
        sample = spread_samples(video_embeds, options.sample_size, num_samples)
        own_labels = spread_samples(labels, options.sample_size, num_samples)
        if sample is None or own_labels is None:
            sample, own_labels = text_embeds[:0], labels[:0]
        choice, fitted = choose_text_trust(sample, own_labels, *given)
    if fitted is None or num_samples > options.sample_size:
        fitted = fit_under_trust(choice.trust, video_embeds, labels, *given)
    return choice, fitted


def fit_under_trust(
    trust: float,
    video_embeds: Videos,
    labels: Tensor,
    text_embeds: Tensor,
    logit_scale: float,
    options: MixtureOptions,
    debias: Debias,
    all_reduce: AllReduce,
) -> TrustedFit:
    """Debias texts and fit a domain with them under a trust; the rest as in `fit_best_trust`."""
    logit_sums = all_reduce(sum_logits(video_embeds, text_embeds, logit_scale, options, trust))
    prior = debias(text_embeds, logit_sums, options).trusted(trust)
    parts = fit_class_mixture(video_embeds, prior, labels, logit_scale, options, all_reduce)
    return TrustedFit(logit_sums, prior, *parts)


def choose_text_trust(
    sample: Tensor,
    labels: Tensor,
    text_embeds: Tensor,
    logit_scale: float,
    options: MixtureOptions,
    debias: Debias,
    all_reduce: AllReduce,
) -> tuple[TrustChoice, TrustedFit | None]:
    """The least of `MixtureOptions.text_trusts` that loses little enough, and the sample under it; 1 if none does.

    Args:
        sample: (n, D), unit norm, float32; those of this process, perhaps none.
        labels: (n,), int64, -1 for unlabelled.
        text_embeds: (K, D), unit norm.
        logit_scale: s.
        options: Constants.
        debias: What makes a prior of the texts.
        all_reduce: Sums a tensor over processes that each hold a part of the sample.
    """
    halves = _halves(sample)
    sizes = all_reduce(torch.stack([half.sum(dtype=torch.float64) for half in halves]))

    def mean(values: Tensor) -> float:
        return float(all_reduce(values.sum(dtype=torch.float64)) / sizes.sum())

    logits = logit_scale * sample @ text_embeds.T
    left_open = {trust: mean(_left_open(logits, trust)) for trust in options.text_trusts}
    disagreement: dict[float, float] = {}
    for trust in sorted(left_open):
        if left_open[trust] < options.trust_loss and bool(sizes.all()):
            whole = fit_under_trust(trust, sample, labels, text_embeds, logit_scale, options, debias, all_reduce)
            parts = [_fit_part(sample[half], labels[half], whole, logit_scale, options, all_reduce) for half in halves]
            classes = [_classes(sample, part, whole.prior, logit_scale) for part in parts]
            disagreement[trust] = mean(classes[0] != classes[1])
            if left_open[trust] + disagreement[trust] < options.trust_loss:
                return TrustChoice(trust, left_open, disagreement), whole
    return TrustChoice(1.0, left_open, disagreement), None


def _left_open(logits: Tensor, trust: float) -> Tensor:
    """Share of what there is to say about each sample that the texts leave open under this trust, (n,)."""
    num_classes = logits.shape[1]
    if num_classes == 1:  # there is nothing to say
        return logits.new_ones(len(logits))
    surprise = -(trust * logits).log_softmax(1).amax(1)
    return surprise / log(num_classes)


def _halves(sample: Tensor) -> list[Tensor]:
    """Masks (n,) of two halves, to which a sample belongs by itself, whatever others there are and in whatever order.

    Its coordinate along an arbitrary axis is cut into many narrow bins, which belong to the one and the other in turn.
    """
    axis = torch.randn(sample.shape[1], generator=torch.Generator().manual_seed(0)).to(sample)
    even = (sample @ axis / BIN_WIDTH).floor().remainder(2) == 0
    return [even, ~even]


def _fit_part(
    part: Tensor,
    labels: Tensor,
    whole: TrustedFit,
    logit_scale: float,
    options: MixtureOptions,
    all_reduce: AllReduce,
) -> ClassMixture:
    """The mixture of samples (n, D) with the prior, S and T of `whole`: no covariance is factorised."""
    held = {name: getattr(whole.mixture, name) for name in ("variances", "precision", "temperature")}

    def expect(mixture: ClassMixture) -> DomainStatistics:
        return gather_statistics(mixture, whole.prior, part, labels, logit_scale, options, all_reduce)

    def update(mixture: ClassMixture, statistics: DomainStatistics) -> ClassMixture:
        return replace(maximise(mixture, whole.prior, statistics, None, options), **held)

    return run_rounds(text_only_mixture(whole.prior, options), expect, update, options.num_rounds)[0]


def _classes(sample: Tensor, mixture: ClassMixture, prior: TextPrior, logit_scale: float) -> Tensor:
    """Classes that texts and mixture give to samples (n, D), (n,)."""
    _, (slopes, intercepts) = mixture.logits(prior, logit_scale)
    return torch.addmm(intercepts, sample, slopes.T).argmax(1)
