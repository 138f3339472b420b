"""The mixture of a domain whose classes have names: one Gaussian per class text, fitted to its video embeddings.

Videos need no labels; they are shared out among the classes by what the texts say and by where the other videos of a
class lie. All classes have one covariance, so that the posterior is linear in the video. A class without videos stays
where its text is, and the fewer videos there are, the less the mixture is trusted against the texts.

| | shape | |
|---|---|---|
| x, t | (N, D), (K, D) | unit embeddings of videos and of class texts |
| `directions` t~, `bias` b | (K, D), (K,) | the texts debiased, `TextPrior` |
| `log_frequency` w, `counts`, `means` | (K,), (K,), (K, D) | of the classes |
| `whitening` W, `temperature` T | (D, D), () | W W^T = S^-1, shared by the classes |
| `DomainStatistics` | (), (K,), (K, D) | sums over videos, all that a round of EM keeps |

With the logit scale s of the dual encoder,

    p(k | x) proportional to exp(s x.t~_k - b_k + w_k) N(x; mean_k, S)^(1/T)

- t~_k and b_k: texts that lie farther from the mean text have logits that spread wider, and each text's logit has its
  own mean over videos of other classes; a share of both (log scale for the spread), less with few classes, is bias and
  is removed.
- w_k: log frequency of class k beyond what the text prior says, maximum a posteriori under N(0, v).
- mean_k: conjugate prior of `anchor_samples` pseudo-counts at the anchor, the text carried over to the cone of the
  videos by a shift and a scale; of more where few classes occur and class k has few videos, which then are mostly
  those of other classes.
- S: shrunk toward its diagonal. Axes that vary together are thus not counted as so many pieces of evidence.
- T: classes are no Gaussians, responsibilities are no truths, and a mean of few videos is unsure along each of the
  axes on which videos vary.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from .mixture_options import MixtureOptions


# Samples whose N x K matrices are held at once; larger ones cost fresh memory from the system each time.
CHUNK_SIZE = 4096
# Of a far larger domain so many samples, evenly spread, are what all but the last rounds look at.
FIRST_LOOK = 2**16
LAST_ROUNDS = 2
# What rounding of unit vectors may hide, added to all variances so that S can be inverted.
ROUNDING_VARIANCE = 1e-6

AllReduce = Callable[[Tensor], Tensor]
# Embeddings (N, D), or shards of them that can be passed over again and again.
Videos = Tensor | Iterable[Tensor]
# Logits of samples x as x @ slopes.T + intercepts: (K, D) and (K,).
LinearLogits = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class TextPrior:
    """The class texts debiased: prior logits of x are x @ (logit_scale * directions).T - bias.

    Attributes:
        offsets: (K, D), class texts minus their mean.
        scale: (K,), factor that makes an offset t~_k.
        bias: (K,), b_k, nats.
    """

    offsets: Tensor
    scale: Tensor
    bias: Tensor

    @property
    def directions(self) -> Tensor:
        """t~, (K, D)."""
        return self.offsets * self.scale[:, None]

    def trusted(self, trust: float) -> "TextPrior":
        """With offsets that count so many times as much; the bias is of logits that do so already."""
        return replace(self, scale=trust * self.scale)


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
        whitening: (D, D), W with W W^T = S^-1; products with it have unit covariance.
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
    whitening: Tensor
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
        return vectors @ self.whitening @ self.whitening.T

    def squared_distances(self, points: Tensor) -> Tensor:
        """Squared Mahalanobis distance of points (N, D) from each mean, (N, K)."""
        centred = (points - self.domain_mean) @ self.whitening
        means = (self.means - self.domain_mean) @ self.whitening
        distances = torch.addmm(means.square().sum(1), centred, means.T, alpha=-2)
        return distances.add_(centred.square().sum(1, keepdim=True)).clamp_min_(0)

    def linear_log_likelihood(self, means: Tensor) -> LinearLogits:
        """Logarithm of N(x; mean, S)^(1/T) for means (J, D), without the part that is the same for all of them."""
        slope = self.precision_times(means - self.domain_mean) / self.temperature
        return slope, -0.5 * ((means + self.domain_mean) * slope).sum(1)


def fit_class_mixture(
    video_embeds: Videos,
    prior: TextPrior,
    labels: Tensor,
    logit_scale: float,
    options: MixtureOptions,
    all_reduce: AllReduce = lambda sums: sums,
    older: OlderSamples | None = None,
) -> tuple[ClassMixture, DomainStatistics, Tensor]:
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
    held = {} if older is None else {"log_frequency": older.log_frequency}
    mixture = replace(text_only_mixture(prior, options), **held)
    given = labels, logit_scale, options, all_reduce
    sample, num_each = _first_look(video_embeds, labels, all_reduce)
    if sample is not None:
        own_moments = num_each * all_reduce(sum_second_moments(sample, labels, prior.offsets, options))
        for _ in range(options.num_rounds - LAST_ROUNDS):
            statistics = gather_statistics(mixture, prior, sample, *given) * num_each
            mixture = maximise(mixture, prior, statistics, own_moments, options)
    second_moments = all_reduce(sum_second_moments(video_embeds, labels, prior.offsets, options))
    if older is not None:
        second_moments = second_moments + older.second_moments
    for _ in range(options.num_rounds if sample is None else min(options.num_rounds, LAST_ROUNDS)):
        statistics = gather_statistics(mixture, prior, video_embeds, *given)
        if older is not None:
            statistics += older.statistics
        mixture = replace(maximise(mixture, prior, statistics, second_moments, options), **held)
    return mixture, statistics, second_moments


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


def sum_logits(video_embeds: Videos, text_embeds: Tensor, logit_scale: float, options: MixtureOptions) -> Tensor:
    """Sums that tell how the logits of a class look on samples of other classes, (3, K), float64; samples add up.

    Rows: number of samples; weight 1 - p(k | x) under the texts alone; weighted logit.
    """
    offsets = _offsets(text_embeds)
    slope = logit_scale * offsets * text_scale(offsets, offsets, options)[:, None]
    logit_sums = torch.zeros(3, len(offsets), dtype=torch.float64, device=text_embeds.device)
    for chunk in _chunks(video_embeds):
        logits = chunk @ slope.T
        other = 1 - logits.softmax(1)
        sums = (torch.ones_like(other), other, other * logits)
        logit_sums += torch.stack([values.sum(0, dtype=torch.float64) for values in sums])
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
    slope, intercept = mixture.linear_log_likelihood(mixture.means)
    by_text = logit_scale * prior.directions, mixture.log_frequency - prior.bias
    by_both = by_text[0] + slope, by_text[1] + intercept
    for chunk in _chunks(video_embeds):
        own_labels = labels[position : position + len(chunk)]
        statistics += _chunk_statistics(by_text, by_both, chunk, own_labels, options)
        position += len(chunk)
    return DomainStatistics(*(all_reduce(getattr(statistics, f.name)) for f in fields(statistics)))


def sum_second_moments(video_embeds: Videos, labels: Tensor, like: Tensor, options: MixtureOptions) -> Tensor:
    """Weighted sum of x x^T over samples, (D, D), float64, on the device of `like` (K, D); those of samples add up."""
    second_moments, position = like.new_zeros(like.shape[1], like.shape[1], dtype=torch.float64), 0
    for chunk in _chunks(video_embeds):
        weight = torch.where(labels[position : position + len(chunk)] >= 0, options.labelled_weight, 1.0)
        centre, spread = _around_mean(chunk)
        drift = (weight @ spread).double()
        second_moments += (spread.T * weight) @ spread
        cross = torch.outer(drift, centre)
        second_moments += cross + cross.T + weight.sum() * torch.outer(centre, centre)
        position += len(chunk)
    return second_moments


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
    variances, whitening, temperature = mixture.variances, mixture.whitening, mixture.temperature
    if second_moments is not None:
        scatter = _scatter(statistics, second_moments, means, options)
        temperature = _temperature(statistics, scatter, options)
        covariance = _shrunk_covariance(statistics, scatter, options)
        factor = torch.linalg.cholesky(covariance)
        whitening = torch.linalg.solve_triangular(factor, torch.eye(len(factor)).to(factor), upper=False).T
        variances = covariance.diagonal()
    log_frequency = _log_frequency(mixture.log_frequency.double(), counts, statistics.prior_counts, options)
    place = (log_frequency, domain_mean, mean_direction, scale)
    new = (*place, means, variances, whitening, counts, anchor_weights, temperature)
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


def _scatter(statistics: DomainStatistics, second_moments: Tensor, means: Tensor, options: MixtureOptions) -> Tensor:
    """Products of the samples' deviations from their class means, per sample, (D, D)."""
    num_samples = statistics.num_samples
    # Around the domain's mean, from where differences of large numbers lose least.
    centre = statistics.sums.sum(0) / num_samples
    sums, means = statistics.sums - statistics.counts[:, None] * centre, means - centre
    cross = (sums - 0.5 * statistics.counts[:, None] * means).T @ means
    scatter = (second_moments - num_samples * torch.outer(centre, centre) - cross - cross.T) / num_samples
    # Equal samples leave nothing but rounding, which is no covariance.
    return torch.where(scatter.trace() > ROUNDING_VARIANCE * len(scatter), scatter, 0.0)


def _temperature(statistics: DomainStatistics, scatter: Tensor, options: MixtureOptions) -> Tensor:
    """T, ().

    The mean of n samples that vary along d axes is off by d / n, as a squared distance in units of the variance per
    axis: with N samples of K classes, by d K / N. What labels leave of T falls faster, with their number squared.
    """
    num_classes, num_samples = len(statistics.counts), statistics.num_samples
    dimension = _effective_dimension(statistics, scatter, options)
    unlabelled = options.temperature + dimension * (num_classes + options.shared_classes) / num_samples
    num_seen = num_samples * statistics.seen_share(options)
    labelled = (options.labelled_samples * num_classes / num_seen).square().clamp_min(1)
    share = statistics.num_labelled / num_samples
    return 1 / ((1 - share) / unlabelled + share / labelled)


def _effective_dimension(statistics: DomainStatistics, scatter: Tensor, options: MixtureOptions) -> Tensor:
    """Number of axes, all with the same variance, that have the participation ratio of the scatter, (), 1 to D.

    That is tr(C)^2 / tr(C^2) of a covariance C, where tr(C^2) is too large by tr(C)^2 / n when it is estimated from n
    samples (Bai and Saranadasa 1996). Few samples, or equal ones, do not show how many axes there are: a pseudo-sample
    says D.
    """
    num_seen = statistics.num_samples * statistics.seen_share(options)
    concentration = scatter.square().sum() / scatter.trace().square().clamp_min(1e-30)
    dimension = 1 / (concentration - 1 / num_seen).clamp(1 / len(scatter), 1)
    return (num_seen * dimension + len(scatter)) / (num_seen + 1)


def _shrunk_covariance(statistics: DomainStatistics, scatter: Tensor, options: MixtureOptions) -> Tensor:
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
    return own_share * scatter + torch.diag((1 - own_share) * held + ROUNDING_VARIANCE)


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


def _offsets(text_embeds: Tensor) -> Tensor:
    """Texts minus their mean."""
    return text_embeds - text_embeds.mean(0)


def relative_length(offsets: Tensor, reference: Tensor) -> Tensor:
    """Length of each offset (J, D) relative to the root mean square of the reference's (K, D); 1 where those are 0."""
    lengths = offsets.norm(dim=1)
    typical = reference.square().sum(1).mean().sqrt()
    return torch.where(typical > 1e-6, lengths / typical.clamp_min(1e-6), torch.ones_like(lengths)).clamp_min(1e-3)


def _chunks(video_embeds: Videos) -> Iterator[Tensor]:
    """Pieces of at most CHUNK_SIZE samples, in order."""
    for shard in [video_embeds] if isinstance(video_embeds, Tensor) else video_embeds:
        yield from shard.split(CHUNK_SIZE)


def spread_samples(video_embeds: Videos, num_samples: int, total: int) -> Tensor | None:
    """At most so many of `total` samples (n, D), evenly spread: domains come sorted; None where there are none."""
    step, position, chosen = max(1, -(-total // num_samples)), 0, []
    for chunk in _chunks(video_embeds):
        chosen.append(chunk[-position % step :: step].clone())
        position += len(chunk)
    return torch.cat(chosen) if chosen else None


def _no_statistics(prior: TextPrior) -> DomainStatistics:
    """Of no sample: what a process without shards adds."""
    shapes_of = (prior.bias.sum(), prior.bias, prior.offsets)
    none, per_class, per_class_and_axis = (torch.zeros_like(like, dtype=torch.float64) for like in shapes_of)
    return DomainStatistics(none, none, per_class, per_class, per_class_and_axis)


def _chunk_statistics(
    by_text: LinearLogits, by_both: LinearLogits, video_embeds: Tensor, labels: Tensor, options: MixtureOptions
) -> DomainStatistics:
    """Statistics of one chunk, given the logits of the texts alone and of texts and mixture."""
    expected, assigned = (
        torch.addmm(intercept, video_embeds, slope.T).softmax(1) for slope, intercept in (by_text, by_both)
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


def _around_mean(video_embeds: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of a chunk, (D,), float64, and what is left of each sample, (N, D), float32.

    Where thousands of samples are alike, float32 sums of these round less than the domain varies, sums of samples not.
    """
    centre = video_embeds.sum(0) / max(1, len(video_embeds))
    return centre.double(), video_embeds - centre
