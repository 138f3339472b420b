import itertools
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from scipy.optimize import brentq
from torch.nn.functional import normalize

from modeling_dkd import class_mixture, domain_statistics
from modeling_dkd.class_covariance import ROUNDING_VARIANCE
from modeling_dkd.class_mixture import (
    LAST_ROUNDS,
    _anchor_weights,
    _first_look,
    fit_class_mixture,
    gather_statistics,
    maximise,
    text_only_mixture,
)
from modeling_dkd.domain_statistics import DomainStatistics, sum_second_moments
from modeling_dkd.mixture_options import MixtureOptions
from modeling_dkd.text_prior import debias_texts, sum_logits
from tests.toy_domain import toy_domain


SCALE = 60.0
OPTIONS = MixtureOptions()


def unlabelled(videos):
    return torch.full((len(videos),), -1)


def fit(videos, texts, labels=None, num_rounds=OPTIONS.num_rounds):
    prior = debias_texts(texts, sum_logits(videos, texts, SCALE, OPTIONS), OPTIONS)
    labels = unlabelled(videos) if labels is None else labels
    return prior, *fit_class_mixture(videos, prior, labels, SCALE, replace(OPTIONS, num_rounds=num_rounds))


def mahalanobis(differences, mixture):
    """Squared lengths (...,) of differences (..., D) under S, in float64."""
    covariance = torch.linalg.inv(mixture.precision.double())
    return (differences * torch.linalg.solve(covariance, differences.unsqueeze(-1)).squeeze(-1)).sum(-1)


def some_labels(labels):
    """Every third sample keeps its label."""
    return torch.where(torch.arange(len(labels)) % 3 == 0, labels, -1)


def repeated(videos, labels):
    """Every labelled sample as often as it counts."""
    times = torch.where(labels >= 0, int(OPTIONS.labelled_weight), 1)
    return videos.repeat_interleave(times, 0), labels.repeat_interleave(times)


def naive_posteriors(mixture, prior, videos, labels):
    """Responsibilities and the posterior without the mixture, sample by sample in float64, both (N, K)."""
    directions, bias = prior.directions.double(), prior.bias.double()
    means = mixture.means.double()
    assigned, expected = [], []
    for video, label in zip(videos.double(), labels, strict=True):
        prior_logits = SCALE * directions @ video - bias + mixture.log_frequency.double()
        distances = mahalanobis(video - means, mixture)
        posterior = (prior_logits - distances / (2 * mixture.temperature.double())).softmax(0)
        truth = torch.zeros_like(posterior)
        truth[label.clamp_min(0)] = 1
        assigned.append(truth if label >= 0 else posterior)
        expected.append(truth if label >= 0 else prior_logits.softmax(0))
    return torch.stack(assigned), torch.stack(expected)


def naive_log_frequency(before, counts, prior_counts):
    """Where counts - prior_counts exp(w - before) - w / v is zero, class by class, by a bracketing solver."""
    return torch.tensor(
        [
            brentq(
                lambda w, b=b, c=c, e=e: c - e * math.exp(w - b) - w / OPTIONS.frequency_variance, -60, 60, xtol=1e-12
            )
            for b, c, e in zip(before.tolist(), counts.tolist(), prior_counts.tolist(), strict=True)
        ],
        dtype=torch.float64,
    )


def naive_anchor_weights(counts, labelled):
    """As many classes as would, equally frequent, have the entropy of these."""
    total = sum(counts)
    perplexity = math.prod((c / total) ** -(c / total) for c in counts)
    doubtful = OPTIONS.doubtful_size * (len(counts) - perplexity) / perplexity * total / perplexity
    return torch.tensor(
        [
            OPTIONS.anchor_samples
            + (1 - labelled) * doubtful**OPTIONS.doubtful_power / c ** (OPTIONS.doubtful_power - 1)
            for c in counts
        ],
        dtype=torch.float64,
    )


def naive_maximise(mixture, prior, videos, labels, assigned, expected):
    """The M step from the samples themselves instead of their sums."""
    videos, num_samples = videos.double(), len(videos)
    directions, counts = prior.directions.double(), assigned.sum(0)
    frequency = counts / num_samples
    own = torch.stack([(assigned[:, k, None] * videos).sum(0) / counts[k] for k in range(len(counts))])
    domain_mean = videos.mean(0)
    mean_direction = sum(f * d for f, d in zip(frequency, directions, strict=True))
    along = sum(
        f * (o - domain_mean) @ (d - mean_direction) for f, o, d in zip(frequency, own, directions, strict=True)
    )
    length = sum(f * ((d - mean_direction) ** 2).sum() for f, d in zip(frequency, directions, strict=True))
    scale = (along / length).clamp_min(0)
    anchors = domain_mean + scale * (directions - mean_direction)
    anchor_weights = naive_anchor_weights(counts.tolist(), float((labels >= 0).double().mean()))
    held = anchor_weights[:, None]
    means = (counts[:, None] * own + held * anchors) / (counts[:, None] + held)
    residuals = [(assigned[i, k], videos[i] - means[k]) for i in range(num_samples) for k in range(len(counts))]
    covariance = sum(share * torch.outer(residual, residual) for share, residual in residuals) / num_samples
    own, dim = covariance.diagonal(), videos.shape[1]
    apart = (1 - OPTIONS.equal_variance_share) * num_samples / (num_samples + 1)
    held = torch.diag((1 - apart) * own.mean() + apart * own)
    labelled = (labels >= 0).double().mean()
    num_seen = (labels < 0).sum() + (labels >= 0).sum() / OPTIONS.labelled_weight
    eigenvalues = torch.linalg.eigvalsh(covariance)
    dimension = 1 / max(1 / dim, (eigenvalues**2).sum() / eigenvalues.sum() ** 2 - 1 / num_seen)
    dimension += (dim - dimension) / (num_seen + 1)
    trust = num_seen / (num_seen + dim)
    trust = trust * (labelled + (1 - labelled) * OPTIONS.unlabelled_covariance_share)
    covariance = trust * covariance + (1 - trust) * held
    covariance += ROUNDING_VARIANCE * torch.eye(dim)
    prior_counts, log_frequency = expected.sum(0), mixture.log_frequency.double()
    unlabelled_temperature = OPTIONS.temperature + dimension * (len(counts) + OPTIONS.shared_classes) / num_samples
    labelled_temperature = max(1, (OPTIONS.labelled_samples * len(counts) / num_seen) ** 2)
    labelled = (labels >= 0).double().mean()
    return {
        "log_frequency": naive_log_frequency(log_frequency, counts, prior_counts),
        "domain_mean": domain_mean,
        "mean_direction": mean_direction,
        "anchor_scale": scale,
        "means": means,
        "variances": covariance.diagonal(),
        "precision": torch.linalg.inv(covariance),
        "counts": counts,
        "anchor_weights": anchor_weights,
        "temperature": 1 / ((1 - labelled) / unlabelled_temperature + labelled / labelled_temperature),
    }


@pytest.fixture(params=["unlabelled", "partly labelled", "labelled"])
def labelled_domain(request):
    videos, texts, labels = toy_domain(60)
    given = {"unlabelled": unlabelled(videos), "partly labelled": some_labels(labels), "labelled": labels}
    return videos, texts, given[request.param]


@pytest.mark.parametrize("num_rounds", [1, 3])
def test_statistics_equal_a_loop_over_samples(labelled_domain, num_rounds):
    videos, texts, labels = labelled_domain
    prior, mixture, *_ = fit(videos, texts, labels, num_rounds)
    statistics = gather_statistics(mixture, prior, videos, labels, SCALE, OPTIONS)
    videos, labels = repeated(videos, labels)
    assigned, expected = naive_posteriors(mixture, prior, videos, labels)
    tolerance = {"rtol": 1e-4, "atol": 1e-4}
    assert statistics.num_samples == len(videos)
    assert statistics.num_labelled == (labels >= 0).sum()
    torch.testing.assert_close(statistics.counts, assigned.sum(0), **tolerance)
    torch.testing.assert_close(statistics.prior_counts, expected.sum(0), **tolerance)
    torch.testing.assert_close(statistics.sums, assigned.T @ videos.double(), **tolerance)
    assert all(value.dtype == torch.float64 for value in vars(statistics).values())


def test_the_m_step_equals_a_loop_over_samples(labelled_domain):
    videos, texts, labels = labelled_domain
    prior, mixture, *_ = fit(videos, texts, labels, 2)
    statistics = gather_statistics(mixture, prior, videos, labels, SCALE, OPTIONS)
    updated = vars(maximise(mixture, prior, statistics, sum_second_moments(videos, labels, texts, OPTIONS), OPTIONS))
    videos, labels = repeated(videos, labels)
    expected = naive_maximise(mixture, prior, videos, labels, *naive_posteriors(mixture, prior, videos, labels))
    for name, value in updated.items():
        assert value.dtype == torch.float32
        # Precisions are large numbers.
        scale = expected[name].abs().max() if name == "precision" else 1
        torch.testing.assert_close(
            value.double() / scale, expected[name].double() / scale, rtol=2e-4, atol=2e-5, msg=name
        )


def test_a_class_the_texts_hardly_expect_gets_no_frequency_that_overshoots():
    """A thousand samples of a class that got ten from the texts: e^4.6 as many, and not a Newton step of 66 nats."""
    before = torch.tensor([0, 0, 0, 0, -9.0], dtype=torch.float64)
    counts = torch.tensor([1000.0, 10.0, 0.0, 1e6, 1e6], dtype=torch.float64)
    prior_counts = torch.tensor([10.0, 500.0, 500.0, 0.0, 1e6], dtype=torch.float64)
    now = class_mixture._log_frequency(before, counts, prior_counts, OPTIONS)
    expected = naive_log_frequency(before, counts.clamp_min(1e-8), prior_counts.clamp_min(1e-8))
    torch.testing.assert_close(now, expected, rtol=1e-9, atol=1e-9)
    assert 0 < now[0] < math.log(100)
    assert now[2] < now[1] < 0


def test_the_first_round_knows_the_texts_only():
    videos, texts, _ = toy_domain(60)
    prior, *_ = fit(videos, texts)
    statistics = gather_statistics(
        text_only_mixture(prior, OPTIONS), prior, videos, unlabelled(videos), SCALE, OPTIONS
    )
    posterior = (SCALE * videos @ prior.directions.T - prior.bias).softmax(1)
    torch.testing.assert_close(statistics.counts.float(), posterior.sum(0))
    torch.testing.assert_close(statistics.prior_counts, statistics.counts)


def test_statistics_of_shards_add_up(labelled_domain, monkeypatch):
    videos, texts, labels = labelled_domain
    prior, mixture, *_ = fit(videos, texts, labels, 2)
    whole = gather_statistics(mixture, prior, videos, labels, SCALE, OPTIONS)
    parts = [
        gather_statistics(mixture, prior, videos[p], labels[p], SCALE, OPTIONS) for p in (slice(25), slice(25, None))
    ]
    logit_sums = sum_logits(videos, texts, SCALE, OPTIONS)
    summed = sum_logits(videos[:25], texts, SCALE, OPTIONS) + sum_logits(videos[25:], texts, SCALE, OPTIONS)
    monkeypatch.setattr(domain_statistics, "CHUNK_SIZE", 7)
    chunked = gather_statistics(mixture, prior, videos, labels, SCALE, OPTIONS)
    assert isinstance(parts[0] + parts[1], DomainStatistics)
    for name, value in vars(whole).items():
        torch.testing.assert_close(getattr(parts[0] + parts[1], name), value, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(getattr(chunked, name), value, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(summed, logit_sums, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sum_logits(videos, texts, SCALE, OPTIONS), logit_sums, rtol=1e-5, atol=1e-5)
    outer = sum(
        (OPTIONS.labelled_weight if label >= 0 else 1) * torch.outer(video, video)
        for video, label in zip(videos.double(), labels, strict=True)
    )
    torch.testing.assert_close(sum_second_moments(videos, labels, texts, OPTIONS), outer, rtol=1e-5, atol=1e-5)


def test_processes_that_hold_a_part_each_get_the_fit_of_the_whole(labelled_domain, monkeypatch):
    """Three processes in lockstep, one of them without samples; what one sends is what the others add."""
    monkeypatch.setattr(domain_statistics, "SETTLED", -1.0)
    videos, texts, labels = labelled_domain
    prior, expected, statistics, moments = fit(videos, texts, labels)
    shards = [slice(0, 20), slice(20, 20), slice(20, None)]
    mixture = text_only_mixture(prior, OPTIONS)
    for _ in range(OPTIONS.num_rounds):
        parts = [gather_statistics(mixture, prior, videos[s], labels[s], SCALE, OPTIONS) for s in shards]
        sent = [list(vars(part).values()) for part in parts]
        summed = [torch.stack(values).sum(0) for values in zip(*sent, strict=True)]
        receive = partial(next, iter(summed))
        shared = gather_statistics(
            mixture, prior, videos[shards[0]], labels[shards[0]], SCALE, OPTIONS, lambda _, receive=receive: receive()
        )
        mixture = maximise(mixture, prior, shared, moments, OPTIONS)
    for name, value in vars(expected).items():
        torch.testing.assert_close(getattr(mixture, name), value, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(shared.counts, statistics.counts, rtol=1e-3, atol=1e-3)


def test_all_reduce_sees_every_statistic_of_every_round():
    videos, texts, _ = toy_domain(60)
    prior, *_ = fit(videos, texts)
    _, doubled, outer = fit_class_mixture(
        videos, prior, unlabelled(videos), SCALE, OPTIONS, all_reduce=lambda sums: 2 * sums
    )
    twice = fit_class_mixture(torch.cat([videos, videos]), prior, unlabelled(videos).repeat(2), SCALE, OPTIONS)
    for name, value in vars(twice[1]).items():
        torch.testing.assert_close(getattr(doubled, name), value, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(outer, twice[2], rtol=1e-5, atol=1e-5)
    assert doubled.num_samples == 2 * len(videos)


def test_small_classes_are_held_where_few_of_the_classes_occur():
    """Two of ten classes occur; a sixth of the samples of one were taken for a third."""
    counts = torch.tensor([50.0, 40.0, 10.0, 1.0, *6 * [0.0]], dtype=torch.float64)
    held = _anchor_weights(counts, torch.zeros(()), OPTIONS)
    torch.testing.assert_close(held[:4], naive_anchor_weights(counts[:4].tolist() + 6 * [1e-30], 0)[:4])
    evidence = counts / (counts + held)
    assert evidence[:2].min() > 0.7
    assert evidence[2] < 0.25
    assert evidence[3] < 0.01
    assert held.isfinite().all()
    # The same ten times as large: the pseudo-samples of the texts count less, the rest stays.
    tenfold = _anchor_weights(10 * counts, torch.zeros(()), OPTIONS)
    torch.testing.assert_close(
        (tenfold - OPTIONS.anchor_samples)[:4], 10 * (held - OPTIONS.anchor_samples)[:4], rtol=0.05, atol=0
    )
    # Labels are no guess.
    torch.testing.assert_close(
        _anchor_weights(counts, torch.ones(()), OPTIONS), torch.full_like(counts, OPTIONS.anchor_samples)
    )


def test_classes_that_are_equally_frequent_are_held_alike():
    """A domain of as many samples of each class."""
    counts = torch.full((10,), 20.0)
    torch.testing.assert_close(
        _anchor_weights(counts, torch.zeros(()), OPTIONS), torch.full_like(counts, OPTIONS.anchor_samples)
    )


def test_single_samples_of_a_few_classes_are_hardly_doubted():
    counts = torch.tensor([1.0, 1.0, 1.0, *7 * [0.0]])
    assert _anchor_weights(counts, torch.zeros(()), OPTIONS)[:3].max() < 1.1 * OPTIONS.anchor_samples


def test_all_labelled_means_lie_between_their_anchor_and_the_class_mean():
    videos, texts, labels = toy_domain()
    prior, mixture, *_ = fit(videos, texts, labels)
    anchors = mixture.anchors(prior.directions)
    for k in range(len(texts)):
        own, count = videos[labels == k].mean(0), OPTIONS.labelled_weight * (labels == k).sum()
        assert mixture.counts[k] == count
        torch.testing.assert_close(
            mixture.means[k], (count * own + OPTIONS.anchor_samples * anchors[k]) / (count + OPTIONS.anchor_samples)
        )
        torch.testing.assert_close(mixture.class_strength[k], count / (count + OPTIONS.anchor_samples))
        assert (mixture.means[k] - own).norm() < 0.2 * (anchors[k] - own).norm()


def test_labels_move_means_toward_the_class_means():
    videos, texts, labels = toy_domain(seed=1)
    own = torch.stack([videos[labels == k].mean(0) for k in range(len(texts))])
    errors = [(fit(videos, texts, given)[1].means - own).norm() for given in (None, some_labels(labels), labels)]
    assert errors[0] > 1.1 * errors[1] > 1.1 * errors[2]


def test_a_wrong_text_is_overruled_by_labels():
    videos, texts, labels = toy_domain()
    swapped = texts.clone()
    swapped[[0, 1]] = texts[[1, 0]]
    _, mixture, *_ = fit(videos, swapped, labels)
    own = torch.stack([videos[labels == k].mean(0) for k in range(len(texts))])
    nearest = torch.cdist(mixture.means, own).argmin(1)
    assert torch.equal(nearest, torch.arange(len(texts)))


def test_a_class_without_samples_stays_at_its_anchor():
    videos, texts, labels = toy_domain(400, dim=64, noise=0.9)
    present = labels != 2
    prior, mixture, *_ = fit(videos[present], texts, labels[present])
    torch.testing.assert_close(mixture.means[2], mixture.anchors(prior.directions)[2])
    assert mixture.class_strength[2] == 0
    prior, mixture, *_ = fit(videos[present], texts)
    assert mixture.counts[2] < 0.1
    torch.testing.assert_close(mixture.means[2], mixture.anchors(prior.directions)[2], rtol=0, atol=1e-2)


def test_classes_that_the_mixture_finds_less_of_than_the_texts_lose_weight():
    videos, texts, _ = toy_domain(400)
    _, mixture, statistics, _ = fit(videos, texts)
    surplus = statistics.counts - statistics.prior_counts
    assert mixture.log_frequency[surplus.argmin()] < 0 < mixture.log_frequency[surplus.argmax()]
    _, rarer, *_ = fit(videos[torch.arange(400) % 10 == 0], texts)
    assert rarer.log_frequency.abs().max() < 1


def test_the_temperature_grows_with_classes_per_sample():
    few, many = toy_domain(12), toy_domain(600)
    assert fit(*few[:2])[1].temperature > fit(*many[:2])[1].temperature > OPTIONS.temperature


def test_the_temperature_grows_with_the_axes_along_which_samples_vary():
    """The same domain in a space of 48 more axes is as sure of its means; with samples that vary there, it is not."""
    videos, texts, _ = toy_domain(600)
    wider, wider_texts = (torch.nn.functional.pad(embeds, (0, 48)) for embeds in (videos, texts))
    noise = torch.randn(wider.shape, generator=torch.Generator().manual_seed(0))
    spread = torch.nn.functional.normalize(wider + 0.1 * noise, dim=1)
    temperature, same, higher = (
        float(fit(v, t)[1].temperature) for v, t in ((videos, texts), (wider, wider_texts), (spread, wider_texts))
    )
    assert same - OPTIONS.temperature == pytest.approx(temperature - OPTIONS.temperature, rel=0.03)
    assert higher > OPTIONS.temperature + 2 * (temperature - OPTIONS.temperature)


def test_without_second_moments_covariance_and_temperature_stay():
    videos, texts, _ = toy_domain(60)
    prior, mixture, statistics, _ = fit(videos, texts)
    moved = maximise(mixture, prior, statistics + statistics, None, OPTIONS)
    assert torch.equal(moved.counts, 2 * mixture.counts)
    assert torch.equal(moved.precision, mixture.precision)
    assert torch.equal(moved.variances, mixture.variances)
    assert moved.temperature == mixture.temperature


@pytest.mark.parametrize(("per_class", "expected"), [(1, 100.0), (2, 25.0), (5, 4.0), (10, 1.0), (20, 1.0)])
def test_with_labels_the_temperature_falls_with_the_square_of_the_samples(per_class, expected):
    texts = toy_domain().texts
    labels = torch.arange(len(texts)).repeat(per_class)
    videos = toy_domain(len(labels), seed=2).videos
    _, mixture, *_ = fit(videos, texts, labels)
    assert float(mixture.temperature) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("num_videos", [1, 2, 4])
def test_fewer_samples_than_classes(num_videos):
    videos, texts, _ = toy_domain(num_videos)
    prior, mixture, statistics, _ = fit(videos, texts)
    for value in (*vars(mixture).values(), *vars(statistics).values(), prior.scale, prior.bias):
        assert value.isfinite().all()
    assert float(mixture.counts.sum()) == pytest.approx(num_videos, rel=1e-4)
    assert (mixture.variances > 0).all()


def test_one_class():
    videos, texts, _ = toy_domain()
    prior, mixture, *_ = fit(videos, texts[:1])
    assert float(mixture.counts) == pytest.approx(len(videos), rel=1e-5)
    torch.testing.assert_close(mixture.means[0], videos.mean(0))
    own, (num_videos, dim) = videos.var(0, correction=0), videos.shape
    held = 1 - OPTIONS.unlabelled_covariance_share * num_videos / (num_videos + dim)
    equal = 1 - (1 - OPTIONS.equal_variance_share) * num_videos / (num_videos + 1)
    expected = own + held * equal * (own.mean() - own) + ROUNDING_VARIANCE
    torch.testing.assert_close(mixture.variances, expected, rtol=1e-4, atol=1e-6)
    assert float(prior.scale) == 1
    assert float(mixture.log_frequency) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("num_classes", [1, 2])
@pytest.mark.parametrize("spread", [0.0, 1e-4, 1e-3])
def test_thousands_of_like_videos_leave_a_covariance_that_can_be_inverted(num_classes, spread):
    generator = torch.Generator().manual_seed(0)
    video = 3 + torch.randn(64, generator=generator)
    videos = torch.nn.functional.normalize(video + spread * torch.randn(9000, 64, generator=generator), dim=1)
    texts = torch.nn.functional.normalize(torch.randn(num_classes, 64, generator=generator), dim=1)
    mixture = fit(videos, texts)[1]
    assert torch.isfinite(mixture.precision).all()
    dimension = (float(mixture.temperature) - OPTIONS.temperature) * 9000 / (num_classes + OPTIONS.shared_classes)
    assert dimension == pytest.approx(64, rel=0.05)


def test_identical_texts_share_their_samples():
    videos, texts, _ = toy_domain()
    texts = torch.cat([texts, texts[:1]])
    prior, mixture, *_ = fit(videos, texts)
    torch.testing.assert_close(mixture.means[0], mixture.means[-1])
    torch.testing.assert_close(mixture.counts[0], mixture.counts[-1])
    same = texts[:1].expand(4, -1)
    prior, mixture, *_ = fit(videos, same)
    torch.testing.assert_close(mixture.counts, torch.full((4,), len(videos) / 4))
    assert all(value.isfinite().all() for value in (*vars(mixture).values(), prior.scale, prior.bias))


@pytest.mark.parametrize("spread", [0, 1e-3])
def test_videos_that_hardly_differ(spread):
    """S is at its floor: slopes of the logits in x are large, and rounding must not show."""
    videos, texts, _ = toy_domain(20)
    videos = normalize(videos[:1] + spread * (videos - videos[:1]), dim=1)
    prior, mixture, *_ = fit(videos, texts)
    assert mixture.precision.isfinite().all()
    statistics = gather_statistics(mixture, prior, videos, unlabelled(videos), SCALE, OPTIONS)
    assigned, _ = naive_posteriors(mixture, prior, videos, unlabelled(videos))
    torch.testing.assert_close(statistics.counts, assigned.sum(0), rtol=1e-3, atol=1e-3)


def test_orders_of_samples_classes_and_axes_and_flips_of_axes_go_along():
    videos, texts, labels = toy_domain()
    generator = torch.Generator().manual_seed(0)
    samples, classes, axes = (torch.randperm(n, generator=generator) for n in (len(videos), *texts.shape))
    signs = torch.randint(2, (texts.shape[1],), generator=generator) * 2.0 - 1
    _, mixture, *_ = fit(videos, texts, some_labels(labels))
    place = torch.empty_like(classes)
    place[classes] = torch.arange(len(classes))
    given = some_labels(labels)[samples]
    given = torch.where(given >= 0, place[given.clamp_min(0)], -1)
    _, other, *_ = fit((videos * signs)[samples][:, axes], (texts * signs)[classes][:, axes], given)
    tolerance = {"rtol": 1e-3, "atol": 1e-4}
    torch.testing.assert_close(other.means, (mixture.means * signs)[classes][:, axes], **tolerance)
    torch.testing.assert_close(other.variances, mixture.variances[axes], **tolerance)
    points = toy_domain(40, seed=7).videos
    near = mahalanobis(points[:, None].double() - mixture.means.double(), mixture)
    moved = mahalanobis((points * signs)[:, axes][:, None].double() - other.means.double(), other)
    torch.testing.assert_close(moved, near[:, classes], **tolerance)
    torch.testing.assert_close(other.counts, mixture.counts[classes], **tolerance)
    torch.testing.assert_close(other.log_frequency, mixture.log_frequency[classes], **tolerance)


def test_a_shift_of_all_texts_changes_nothing():
    """Only how texts differ counts: where the cone of texts lies does not."""
    videos, texts, _ = toy_domain()
    _, mixture, *_ = fit(videos, texts)
    _, shifted, *_ = fit(videos, texts + 3 * normalize(torch.ones(texts.shape[1]), dim=0))
    torch.testing.assert_close(shifted.means, mixture.means, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(shifted.counts, mixture.counts, rtol=1e-3, atol=1e-3)


def test_the_first_rounds_of_a_large_domain_look_at_a_sample(monkeypatch):
    videos, texts, labels = toy_domain(3000)
    prior, whole, *_ = fit(videos, texts)
    looked_at = []
    chunk_statistics = class_mixture.chunk_statistics

    def counting(by_text, by_both, chunk, *rest):
        looked_at.append(len(chunk))
        return chunk_statistics(by_text, by_both, chunk, *rest)

    monkeypatch.setattr(class_mixture, "chunk_statistics", counting)
    monkeypatch.setattr(class_mixture, "FIRST_LOOK", 500)
    _, sampled, statistics, moments = fit(videos, texts)
    assert looked_at == (OPTIONS.num_rounds - LAST_ROUNDS) * [500] + LAST_ROUNDS * [3000]
    assert float(statistics.num_samples) == 3000
    torch.testing.assert_close(moments, (videos.T @ videos).double(), rtol=1e-4, atol=1e-3)

    def posterior(mixture):
        slope, intercept = mixture.linear_log_likelihood(mixture.means)
        return (videos @ (SCALE * prior.directions + slope).T + intercept + mixture.log_frequency).softmax(1)

    assert (posterior(sampled).argmax(1) == posterior(whole).argmax(1)).float().mean() > 0.995
    # Shards and processes, of which one has nothing, make the same of it.
    shards = [videos[:700], videos[700:1900], videos[1900:]]
    in_shards, *_ = fit_class_mixture(shards, prior, unlabelled(videos), SCALE, OPTIONS)
    for name, value in vars(sampled).items():
        torch.testing.assert_close(getattr(in_shards, name), value, rtol=1e-3, atol=1e-3)
    # A label counts wherever it is, so that labelled domains are looked at as a whole.
    looked_at.clear()
    few = unlabelled(videos)
    few[7] = labels[7]
    fit(videos, texts, few)
    assert set(looked_at) == {3000}


def test_processes_share_the_first_look(monkeypatch):
    monkeypatch.setattr(class_mixture, "FIRST_LOOK", 60)
    videos, texts, _ = toy_domain(120)
    prior, *_ = fit(videos, texts)
    shared, statistics, _ = fit_class_mixture(
        videos, prior, unlabelled(videos), SCALE, OPTIONS, all_reduce=lambda sums: 2 * sums
    )
    assert float(statistics.num_samples) == 240
    both, *_ = fit_class_mixture(videos.repeat(2, 1), prior, unlabelled(videos).repeat(2), SCALE, OPTIONS)
    for name, value in vars(both).items():
        torch.testing.assert_close(getattr(shared, name), value, rtol=1e-3, atol=1e-3)
    # One that has no video looks at none.
    sizes = iter([torch.tensor([240.0, 0.0]), torch.tensor(60.0)])
    assert _first_look([], unlabelled(videos)[:0], lambda _: next(sizes)) == ([], 4.0)


def test_rounds_end_once_hardly_a_sample_changes_its_class(monkeypatch):
    """What ten times as many rounds find is found by a few, on a domain whose classes are easy to tell."""
    videos, texts, _ = toy_domain(300, noise=0.2)
    rounds, gather = [], class_mixture.gather_statistics
    monkeypatch.setattr(class_mixture, "gather_statistics", lambda *given: rounds.append(gather(*given)) or rounds[-1])
    _, settled, *_ = fit(videos, texts, num_rounds=100)
    assert 2 <= len(rounds) < 20
    moved = [(now.counts - before.counts).abs().sum() / 300 for before, now in itertools.pairwise(rounds)]
    assert moved[-1] <= domain_statistics.SETTLED
    monkeypatch.setattr(domain_statistics, "SETTLED", -1.0)
    prior, mixture, *_ = fit(videos, texts, num_rounds=100)

    def posterior(mixture):
        _, (slope, intercept) = mixture.logits(prior, SCALE)
        return torch.addmm(intercept, videos, slope.T).softmax(1)

    torch.testing.assert_close(posterior(settled), posterior(mixture), rtol=0, atol=0.01)


def test_a_round_is_like_another_by_both_of_its_counts():
    """Counts may stand still while the frequencies of the classes, for which the others count, still move."""
    counts = torch.tensor([600.0, 400.0], dtype=torch.float64)
    sums, none = torch.zeros(2, 3, dtype=torch.float64), torch.zeros(())
    before = DomainStatistics(counts.sum(), none, counts, counts, sums)
    for moved, is_like in ((0.0, True), (0.4, True), (1.0, False)):
        change = torch.tensor([moved, -moved])
        assert replace(before, counts=counts + change).is_like(before) == is_like
        assert replace(before, prior_counts=counts + change).is_like(before) == is_like
