"""Class texts as unit vectors whose cosine with a video is the posterior of the class-anchored mixture.

The posterior is linear in the video, so each text can carry its own part of it. All texts get the same norm, along an
axis on which moved videos have no coordinate; it divides the log posterior and so says how sure the texts are. A text
that was not fitted is placed by what is known of the domain, without looking at the others that are asked.

| | shape | |
|---|---|---|
| `text_embeds` | (K, D) | unit class texts |
| `text_bases`, `text_targets` | (K, D) | between them a class's text goes, by `class_strength` (K,) |
| `unit_axis`, `norm_axis`, `text_centre` | (D,) | the axes, and what all texts had in common |
| `text_norm` | () | the common norm |

With one covariance S for all classes,

    log p(k | x) = s x.t~_k + log_prior_k + log N(x; mean_k, S) / T + terms that are the same for all classes
                 = s x.[ t~_k + g_k / (T s) ] + constant_k,      g_k = S^-1 (mean_k - domain_mean),

g_k being the score of component k at the domain's mean: the text moves along it. The constants go along `unit_axis`,
on which all videos of the domain have about the coordinate 1. So the cosine is the log posterior divided by s times
the common norm, and ranks classes for a video and videos for a class alike.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .class_mixture import ClassMixture
from .domain_statistics import AllReduce
from .mixture_options import MixtureOptions
from .text_prior import TextPrior, text_scale


# Squared length that counts as none.
LEAST_FILLING = 1e-6


@dataclass(frozen=True)
class TextFrame:
    """Where texts stand.

    Attributes:
        unit_axis: (D,), videos of the domain have about the coordinate 1, in the sense of least squares.
        norm_axis: (D,), unit, orthogonal to the domain's mean, along the gap between texts and videos; videos lose
            their coordinate on it when they are moved, and everything else here has none.
        text_centre: (D,), mean of the fitted texts before it was taken off.
        text_norm: (), the common norm.
        text_bases: (K, D), fitted texts as the anchors alone would place them.
        text_targets: (K, D), fitted texts as their classes' own samples alone would.
    """

    unit_axis: Tensor
    norm_axis: Tensor
    text_centre: Tensor
    text_norm: Tensor
    text_bases: Tensor
    text_targets: Tensor


def place_fitted_texts(text_embeds: Tensor, prior: TextPrior, mixture: ClassMixture, logit_scale: float) -> TextFrame:
    """The frame of a fitted domain and its class texts in it; `common_norm` gives its `text_norm`, 1 until then.

    A class's text is (1 - strength) base + strength * target, and `filled` to the common norm.

    Args:
        text_embeds: (K, D), unit norm.
        prior: The same debiased.
        mixture: The fitted mixture.
        logit_scale: s.
    """
    mean = mixture.domain_mean
    # Least squares: of all u, the one with the smallest mean of (x.u - 1)^2 for x around the mean with covariance S.
    # Embeddings that were centred have no such axis, and u goes to 0 instead of blowing up.
    unit_axis = mixture.precision_times(mean)
    unit_axis = unit_axis / (1 + unit_axis @ mean)
    norm_axis = _orthogonal_direction(text_embeds.mean(0), mean)
    log_prior = mixture.log_frequency - prior.bias
    placed = _carry_posterior(prior.directions, mixture.means, log_prior, mixture, unit_axis, logit_scale)
    placed = without_axis(placed, norm_axis)
    centre = placed.mean(0)
    # Own samples move the mean from the anchor to mixture.means, and with it the text.
    moved = mixture.precision_times(mixture.means - mixture.anchors(prior.directions))
    moved = without_axis(moved, norm_axis) / (mixture.temperature * logit_scale)
    bases = placed - centre - moved
    targets = bases + moved / mixture.class_strength.clamp_min(1e-4)[:, None]
    return TextFrame(unit_axis, norm_axis, centre, placed.new_ones(()), bases, targets)


def common_norm(
    text_embeds: Tensor,
    prior: TextPrior,
    mixture: ClassMixture,
    frame: TextFrame,
    logit_scale: float,
    options: MixtureOptions,
    sample: Tensor,
    moved_sample: Tensor,
    all_reduce: AllReduce = lambda sums: sums,
) -> Tensor:
    """Norm of all texts, (), which divides the log posterior: how sure they are.

    Args:
        text_embeds: (K, D), unit norm.
        prior: The same debiased.
        mixture: The fitted mixture.
        frame: Where the texts stand.
        logit_scale: s.
        options: Constants.
        sample: Videos of the domain, (n, D), on which confidence is compared; n is 0 where this process has none.
        moved_sample: The same videos as the head moves them, (n, D), which makes it more confident.
        all_reduce: Sums a tensor over processes that each hold a part of the sample.
    """
    placed = frame.text_bases + mixture.class_strength[:, None] * (frame.text_targets - frame.text_bases)
    least = placed.square().sum(1).max().sqrt().clamp_min(1e-6)
    strength = mixture.counts / mixture.counts.sum() @ mixture.class_strength
    most = torch.maximum(least, 1 + options.overconfidence * strength.square())
    plain, logits = logit_scale * sample @ text_embeds.T, logit_scale * moved_sample @ placed.T
    log_prior = mixture.log_frequency - prior.bias
    by_text = torch.addmm(log_prior, sample, (logit_scale * prior.directions).T)
    return _norm_as_confident_as(plain, by_text, logits, least, most, options, all_reduce)


def place_new_texts(
    text_embeds: Tensor,
    fitted_texts: Tensor,
    fitted_scale: Tensor,
    mixture: ClassMixture,
    frame: TextFrame,
    logit_scale: Tensor,
    options: MixtureOptions,
) -> tuple[Tensor, Tensor]:
    """Texts of classes that were not fitted, each by itself.

    Args:
        text_embeds: (J, D), unit norm.
        fitted_texts: (K, D), unit norm.
        fitted_scale: (K,), `TextPrior.scale` of the fitted ones.
        mixture: The fitted mixture.
        frame: The fitted frame.
        logit_scale: ().
        options: Constants.

    Returns:
        The texts in the frame, (J, D), and the scale of their offsets, (J, 1).
    """
    fitted_offsets, share = fitted_texts - fitted_texts.mean(0), options.debiased_share_of(len(fitted_texts))
    offsets = text_embeds - fitted_texts.mean(0)
    scale = text_scale(offsets, fitted_offsets, options)[:, None]
    directions = offsets * scale
    # The mean logit on the domain stands for that on samples of other classes.
    relative = directions - (fitted_offsets * fitted_scale[:, None]).mean(0)
    bias = share * logit_scale * relative @ mixture.domain_mean
    means = mixture.domain_mean + options.new_class_anchor * (mixture.anchors(directions) - mixture.domain_mean)
    log_prior = options.new_class_log_prior - bias
    placed = _carry_posterior(directions, means, log_prior, mixture, frame.unit_axis, logit_scale)
    return without_axis(placed, frame.norm_axis) - frame.text_centre, scale


def without_axis(vectors: Tensor, axis: Tensor) -> Tensor:
    """Vectors (..., D) without their coordinate along a unit axis (D,)."""
    return vectors - (vectors @ axis)[..., None] * axis


def filled(texts: Tensor, frame: TextFrame) -> Tensor:
    """Texts (K, D) with the common norm, by what they get along `norm_axis`; those that are longer stay so long."""
    missing = frame.text_norm.square() - texts.square().sum(1, keepdim=True)
    # The root has no slope at 0, where the longest text is.
    filling = torch.where(missing > LEAST_FILLING, missing.clamp_min(LEAST_FILLING).sqrt(), 0.0)
    return texts + filling * frame.norm_axis


def _norm_as_confident_as(
    plain: Tensor,
    by_text: Tensor,
    logits: Tensor,
    least: Tensor,
    most: Tensor,
    options: MixtureOptions,
    all_reduce: AllReduce,
) -> Tensor:
    """Largest norm, from `least` to `most`, with which the logits (n, K) / norm doubt no more than is allowed.

    Doubt, one minus the confidence, may be that of plain zero-shot, or that of `by_text`, logits of debiased texts and
    class frequencies without the mixture, if it is less: to know that few classes occur removes most doubt. It may not
    be so much less, for some of the predictions changed, and a share of these is expected to be right now. Where more
    changed than one of the two doubted, it was too sure of itself, and the share that changed is allowed. If that is
    plain zero-shot, all that is made of the texts is too sure, and neither `by_text` nor `most` counts.
    """

    def total(per_sample: Tensor) -> Tensor:
        return all_reduce(per_sample.sum(dtype=torch.float64))

    def doubt(logits: Tensor) -> Tensor:
        return total(1 - logits.softmax(1).amax(1))

    def allowed_by(reference: Tensor) -> Tensor:
        doubted, changed = doubt(reference), total(reference.argmax(1) != logits.argmax(1))
        unexplained = doubted - changed
        return doubted - torch.minimum(unexplained, options.expected_gain * torch.minimum(changed, unexplained))

    allowed = allowed_by(plain)
    too_sure = allowed > doubt(plain)
    allowed = torch.where(too_sure, allowed, torch.minimum(allowed, allowed_by(by_text)))
    # With a norm of a thousand times the longest text every class is as likely as another.
    most = torch.where(too_sure, 1000 * least, most)
    low, high = least, most
    for _ in range(30):
        middle = (low + high) / 2
        within = doubt(logits / middle) <= allowed
        low, high = torch.where(within, middle, low), torch.where(within, high, middle)
    return low


def _orthogonal_direction(vector: Tensor, mean: Tensor) -> Tensor:
    """Unit, along the part of `vector` orthogonal to `mean`; along any orthogonal axis where that part is nothing."""
    direction = normalize(mean, dim=0)
    part = vector - (vector @ direction) * direction
    if part.norm() < 1e-4:
        part = torch.eye(len(mean), dtype=mean.dtype, device=mean.device)[mean.abs().argmin()]
        part = part - (part @ direction) * direction
    return normalize(part, dim=0)


def _carry_posterior(
    directions: Tensor,
    means: Tensor,
    log_prior: Tensor,
    mixture: ClassMixture,
    unit_axis: Tensor,
    logit_scale: Tensor | float,
) -> Tensor:
    """Texts (K, D) whose product with s x is the log posterior of the module docstring."""
    slope, intercept = mixture.linear_log_likelihood(means)
    return directions + (slope + (log_prior + intercept)[:, None] * unit_axis) / logit_scale
