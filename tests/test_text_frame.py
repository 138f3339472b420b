from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from modeling_dkd import text_frame
from modeling_dkd.class_mixture import fit_class_mixture
from modeling_dkd.mixture_options import MixtureOptions
from modeling_dkd.text_frame import (
    TextFrame,
    common_norm,
    filled,
    place_fitted_texts,
    place_new_texts,
    without_axis,
)
from modeling_dkd.text_prior import debias_texts, sum_logits
from tests.toy_domain import toy_domain


SCALE = 60.0
OPTIONS = MixtureOptions()


def fit(videos, texts, labels=None):
    labels = torch.full((len(videos),), -1) if labels is None else labels
    prior = debias_texts(texts, sum_logits(videos, texts, SCALE, OPTIONS), OPTIONS)
    mixture, *_ = fit_class_mixture(videos, prior, labels, SCALE, OPTIONS)
    return prior, mixture, place(texts, prior, mixture, SCALE, videos)


def place(texts, prior, mixture, scale, sample):
    """The frame with its common norm; videos are not moved."""
    frame = place_fitted_texts(texts, prior, mixture, scale)
    moved = without_axis(sample, frame.norm_axis)
    norm = common_norm(texts, prior, mixture, frame, scale, OPTIONS, sample, moved)
    return replace(frame, text_norm=norm)


def posterior_texts(mixture, frame):
    """Fitted classes where their product with a video is the log posterior."""
    strength = mixture.class_strength[:, None]
    return (1 - strength) * frame.text_bases + strength * frame.text_targets


def fitted_texts(mixture, frame):
    """What the head makes of fitted classes, before they get unit norm."""
    return filled(posterior_texts(mixture, frame), frame)


def naive_log_posterior(mixture, prior, videos, means=None):
    """Of the module docstring, up to a term per sample, in float64: (N, K)."""
    means = (mixture.means if means is None else means).double()
    log_prior = SCALE * videos.double() @ prior.directions.double().T + mixture.log_frequency - prior.bias
    offsets = videos[:, None].double() - means
    distances = (offsets @ mixture.precision.double() * offsets).sum(-1)
    return log_prior - 0.5 * distances / mixture.temperature


def covariance(mixture):
    """S in float64."""
    return torch.linalg.inv(mixture.precision.double())


def centred(values):
    return values - values.mean(1, keepdim=True)


def make_ideal(videos, frame, mean):
    """The videos with the coordinate 1 along unit_axis and 0 along norm_axis, moved within the span of the two."""
    axes = torch.stack([frame.unit_axis, frame.norm_axis]).double()
    missing = torch.tensor([1.0, 0.0]).double() - videos.double() @ axes.T
    return videos.double() + torch.linalg.solve(axes @ axes.T, missing.T).T @ axes


@pytest.fixture(params=["many", "fewer than classes", "labelled", "one class", "identical texts"])
def domain(request):
    videos, texts, labels = toy_domain(3 if request.param == "fewer than classes" else 120)
    if request.param == "one class":
        texts = texts[:1]
    if request.param == "identical texts":
        texts = torch.cat([texts, texts[:2]])
    return videos, texts, *fit(videos, texts, labels if request.param == "labelled" else None)


def test_a_cosine_with_a_text_is_the_posterior_of_its_class(domain):
    _, _, prior, mixture, frame = domain
    videos = make_ideal(toy_domain(40, seed=7).videos, frame, mixture.domain_mean)
    logits = SCALE * videos @ fitted_texts(mixture, frame).double().T
    expected = naive_log_posterior(mixture, prior, videos)
    torch.testing.assert_close(centred(logits), centred(expected), rtol=1e-4, atol=2e-3)


def test_a_base_carries_the_posterior_as_if_means_were_at_their_anchors(domain):
    """Up to a constant of the class: a mean moves the text along its score."""
    _, _, prior, mixture, frame = domain
    videos = make_ideal(toy_domain(40, seed=7).videos, frame, mixture.domain_mean)
    logits = SCALE * videos @ frame.text_bases.double().T
    expected = naive_log_posterior(mixture, prior, videos, mixture.anchors(prior.directions))
    difference = centred(logits - expected)
    torch.testing.assert_close(difference, difference.mean(0).expand_as(difference), rtol=1e-4, atol=2e-3)


def test_all_fitted_texts_have_the_common_norm(domain):
    _, _, _, mixture, frame = domain
    norms = fitted_texts(mixture, frame).norm(dim=1)
    torch.testing.assert_close(norms, frame.text_norm.expand_as(norms), rtol=1e-4, atol=0)
    assert frame.text_norm > 0


def test_the_norm_axis_only_evens_out_norms(domain):
    """No text has a coordinate on it before it is filled, so that none ranks videos by theirs."""
    _, _, _, mixture, frame = domain
    for placed in (frame.text_bases, frame.text_targets):
        torch.testing.assert_close(placed @ frame.norm_axis, torch.zeros(len(placed)), rtol=0, atol=1e-5)
    texts = posterior_texts(mixture, frame)
    along = (texts.norm(dim=1).square() + (fitted_texts(mixture, frame) @ frame.norm_axis).square()).sqrt()
    torch.testing.assert_close(along, frame.text_norm.expand_as(along), rtol=1e-4, atol=0)


def test_a_text_moves_along_the_score_of_its_own_component_at_the_domain_mean(domain):
    _, _, prior, mixture, frame = domain
    moved = posterior_texts(mixture, frame) - frame.text_bases
    precision = torch.linalg.inv(covariance(mixture))
    at_anchors = (mixture.anchors(prior.directions) - mixture.domain_mean).double() @ precision
    score = (mixture.means - mixture.domain_mean).double() @ precision
    expected = without_axis(score - at_anchors, frame.norm_axis.double()) / (mixture.temperature * SCALE)
    torch.testing.assert_close(moved.double(), expected, rtol=1e-3, atol=1e-5)


def test_the_axes(domain):
    videos, _, _, mixture, frame = domain
    mean = mixture.domain_mean.double()
    unit_axis = frame.unit_axis.double()
    # The least-squares solution: (S + mean mean^T) u = mean.
    torch.testing.assert_close(covariance(mixture) @ unit_axis + mean * (mean @ unit_axis), mean, rtol=1e-4, atol=1e-5)
    coordinates = videos @ frame.unit_axis
    assert float(coordinates.mean()) == pytest.approx(1, abs=0.15)
    assert float(frame.norm_axis.norm()) == pytest.approx(1, abs=1e-5)
    assert float(frame.norm_axis.double() @ mean) == pytest.approx(0, abs=1e-5)


def test_embeddings_that_were_centred_have_no_unit_axis_to_blow_up():
    """Divided by its product with the mean, the axis would be so long that constants drown everything else."""
    videos, texts, _ = toy_domain()
    videos = normalize(videos - videos.mean(0), dim=-1)
    *_, frame = fit(videos, normalize(texts - texts.mean(0), dim=-1))
    deviation = (videos @ frame.unit_axis).std()
    assert deviation < 0.5
    assert frame.text_norm < 3


@pytest.mark.parametrize("case", ["text along the mean", "opposite texts", "opposite videos"])
def test_axes_of_degenerate_domains_are_unit_and_orthogonal(case):
    videos, texts, _ = toy_domain()
    if case == "text along the mean":
        texts = normalize(videos.mean(0, keepdim=True), dim=-1)
    elif case == "opposite texts":
        texts = torch.cat([texts, -texts])
    else:
        videos = torch.cat([videos, -videos])
    _, mixture, frame = fit(videos, texts)
    assert all(value.isfinite().all() for value in vars(frame).values())
    assert float(frame.norm_axis.norm()) == pytest.approx(1, abs=1e-5)
    assert float(frame.norm_axis @ normalize(mixture.domain_mean, dim=0)) == pytest.approx(0, abs=1e-4)
    norms = fitted_texts(mixture, frame).norm(dim=1)
    torch.testing.assert_close(norms, frame.text_norm.expand_as(norms), rtol=1e-4, atol=0)


def test_a_class_without_evidence_keeps_its_base_as_text():
    videos, texts, labels = toy_domain(400)
    present = labels != 2
    _, mixture, frame = fit(videos[present], texts, labels[present])
    assert mixture.class_strength[2] == 0
    torch.testing.assert_close(posterior_texts(mixture, frame)[2], frame.text_bases[2])
    # Rounding divided by no evidence; nothing goes there, but it must not be far out.
    torch.testing.assert_close(frame.text_targets[2], frame.text_bases[2], rtol=0, atol=0.01)


def place_others(videos, texts, others):
    prior, mixture, frame = fit(videos, texts)
    scale = torch.tensor(SCALE)
    return frame, *place_new_texts(others, texts, prior.scale, mixture, frame, scale, OPTIONS)


def test_new_texts_have_the_common_norm_and_do_not_see_each_other():
    videos, texts, _ = toy_domain()
    others = toy_domain(seed=5).texts
    frame, placed, scales = place_others(videos, texts, others)
    assert isinstance(frame, TextFrame)
    assert placed.shape == others.shape
    assert scales.shape == (len(others), 1)
    longer = placed.norm(dim=1) > frame.text_norm
    norms = filled(placed, frame).norm(dim=1)
    torch.testing.assert_close(norms[~longer], frame.text_norm.expand(int((~longer).sum())))
    torch.testing.assert_close(norms[longer], placed[longer].norm(dim=1))
    order = torch.tensor([3, 1, 4])
    _, alone, alone_scales = place_others(videos, texts, others[order])
    torch.testing.assert_close(alone, placed[order], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(alone_scales, scales[order])


def test_a_new_text_stands_near_where_its_class_would_have_been_fitted():
    """Leave one class out of the fit: its text, new, is nearer to the fitted one than any other is."""
    videos, texts, _ = toy_domain(400, num_classes=8, dim=48)
    _, mixture, frame = fit(videos, texts)
    whole = normalize(fitted_texts(mixture, frame), dim=1)
    nearest = 0
    for k in range(8):
        others = torch.arange(8) != k
        _, placed, _ = place_others(videos, texts[others], texts[k : k + 1])
        nearest += int((normalize(placed, dim=1) @ whole.T).argmax() == k)
    assert nearest >= 7


def fit_confidence(videos, texts, scale):
    """Frame, logits of the videos (fitted texts before their norm, plain texts, no mixture), and mixture."""
    prior = debias_texts(texts, sum_logits(videos, texts, scale, OPTIONS), OPTIONS)
    mixture, *_ = fit_class_mixture(videos, prior, torch.full((len(videos),), -1), scale, OPTIONS)
    frame = place(texts, prior, mixture, scale, videos)
    by_text = scale * videos @ prior.directions.T - prior.bias + mixture.log_frequency
    return frame, scale * videos @ fitted_texts(mixture, frame).T, scale * videos @ texts.T, by_text, mixture


def mean_confidence(logits):
    return logits.softmax(1).amax(1).mean()


def share_changed(before, after):
    return (before.argmax(1) != after.argmax(1)).float().mean()


@pytest.mark.parametrize("scale", [5.0, 10.0, 20.0])
def test_fitted_texts_are_less_sure_than_the_evidence_adds_up_to_but_surer_than_plain_texts(scale):
    frame, logits, plain, by_text, _ = fit_confidence(*toy_domain(300)[:2], scale)
    moved, changed = mean_confidence(logits / frame.text_norm), share_changed(plain, logits)
    assert 1 < float(frame.text_norm) < 1 + OPTIONS.overconfidence
    assert mean_confidence(logits) > moved + 0.01
    assert 0.02 < changed < (1 - mean_confidence(plain)) / 2
    changed_by_text = share_changed(by_text, logits)
    expected = mean_confidence(plain) + OPTIONS.expected_gain * changed
    expected = max(expected, mean_confidence(by_text) + OPTIONS.expected_gain * changed_by_text)
    torch.testing.assert_close(moved, expected, rtol=0, atol=0.01)


def test_plain_texts_that_are_surer_than_the_changed_predictions_allow_are_not_believed():
    """At a scale of 120 plain texts claim to be certain of what they take for another class than the fitted ones."""
    videos, texts, _ = toy_domain(300)
    noise = 1.7 * torch.randn(texts.shape, generator=torch.Generator().manual_seed(2)) / texts.shape[1] ** 0.5
    frame, logits, plain, *_ = fit_confidence(videos, normalize(texts + noise, dim=1), 120.0)
    changed = share_changed(plain, logits)
    assert changed > 1 - mean_confidence(plain) + 0.03
    moved = mean_confidence(logits / frame.text_norm)
    assert moved < mean_confidence(plain)
    torch.testing.assert_close(moved, 1 - changed, rtol=0, atol=0.01)


def test_to_know_that_few_classes_occur_removes_doubt():
    """Two of six classes occur: fitted texts are as sure as debiased ones that know it, and right."""
    videos, texts, labels = toy_domain(1200, noise=0.8)
    present = labels < 2
    frame, logits, plain, by_text, _ = fit_confidence(videos[present], texts, 10.0)
    allowed_by_plain = mean_confidence(plain) + OPTIONS.expected_gain * share_changed(plain, logits)
    assert mean_confidence(by_text) > allowed_by_plain + 0.1
    moved = mean_confidence(logits / frame.text_norm)
    torch.testing.assert_close(moved, mean_confidence(by_text), rtol=0, atol=0.01)
    assert (logits.argmax(1) == labels[present]).float().mean() > moved


def sure_of(classes, confidence, num_classes=4):
    """Logits (n, K) that give these classes this confidence."""
    logits = torch.zeros(len(classes), num_classes)
    odds = confidence / (1 - confidence) * (num_classes - 1)
    logits[torch.arange(len(classes)), classes] = torch.tensor(odds).log()
    return logits


@pytest.mark.parametrize(
    ("plain", "by_text", "changed", "changed_by_text", "expected"),
    [
        pytest.param(0.6, 0.6, 20, 20, 0.7, id="half of the changed ones are expected to be gained"),
        pytest.param(0.6, 0.3, 20, 20, 0.7, id="texts without the mixture know less"),
        pytest.param(0.6, 0.8, 20, 6, 0.83, id="few classes occur"),
        pytest.param(0.6, 0.95, 20, 10, 0.9, id="texts without the mixture are too sure"),
        pytest.param(0.6, 0.3, 30, 30, 0.65, id="half of what the changed ones leave unexplained"),
        pytest.param(0.9, 0.3, 25, 25, 0.75, id="plain texts are too sure"),
        pytest.param(0.9, 0.95, 25, 2, 0.75, id="plain texts are too sure, and so are debiased ones"),
    ],
)
def test_doubt_is_held_to_what_plain_texts_and_class_frequencies_allow(
    plain, by_text, changed, changed_by_text, expected
):
    """100 videos, so many of which are taken for another class than by fitted texts, which are sure of all."""
    new, other = torch.zeros(100, dtype=torch.long), torch.ones(100, dtype=torch.long)

    def reference(confidence, changed):
        return sure_of(torch.cat([other[:changed], new[changed:]]), confidence)

    logits = sure_of(new, 1 - 1e-6)
    given = reference(plain, changed), reference(by_text, changed_by_text), logits
    norm = text_frame._norm_as_confident_as(*given, torch.tensor(0.5), torch.tensor(50.0), OPTIONS, lambda sums: sums)
    torch.testing.assert_close(mean_confidence(logits / norm), torch.tensor(expected), rtol=0, atol=1e-4)
    # The cap does not count where plain texts are too sure.
    highest = norm if changed > 100 * (1 - plain) else norm / 2
    for least, most, end in ((1.5 * norm, 2 * norm, 1.5 * norm), (norm / 4, norm / 2, highest)):
        held = text_frame._norm_as_confident_as(*given, least, most, OPTIONS, lambda sums: sums)
        torch.testing.assert_close(held, end, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_videos", [24, 300])
def test_without_videos_to_compare_on_the_norm_is_the_cap_which_rises_with_the_strength_of_classes(num_videos):
    videos, texts, _ = toy_domain(num_videos)
    prior, mixture, frame = fit(videos, texts)
    norm = common_norm(texts, prior, mixture, frame, SCALE, OPTIONS, videos[:0], videos[:0])
    strength = float(mixture.counts / mixture.counts.sum() @ mixture.class_strength)
    longest = float(posterior_texts(mixture, frame).norm(dim=1).max())
    assert float(norm) == pytest.approx(max(longest, 1 + OPTIONS.overconfidence * strength**2), rel=1e-5)
