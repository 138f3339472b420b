import pytest
import torch

from modeling_dkd import DKDCLIPConfig, DKDHead
from modeling_dkd.class_covariance import ROUNDING_VARIANCE
from modeling_dkd.known_classes import KnownModel, fit_known, known_directions
from modeling_dkd.mixture_options import MixtureOptions
from tests.toy_domain import toy_domain


OPTIONS = MixtureOptions()
VIDEOS, TEXTS, LABELS = toy_domain(600, num_classes=8)


def domain_of(videos):
    """Mean (D,) and second moment (D, D), float64."""
    videos = videos.double()
    return videos.mean(0), videos.T @ videos / len(videos)


def fitted_head(texts=TEXTS, videos=VIDEOS):
    return DKDHead(DKDCLIPConfig(projection_dim=videos.shape[1])).eval().fit(videos, texts)


def test_scores_have_mean_0_and_variance_1_over_the_domain():
    """For any text, whether it was fitted or not; but for what rounding may hide."""
    mean, second_moment = domain_of(VIDEOS)
    texts = torch.cat([TEXTS, toy_domain(seed=3).texts]).double()
    directions = known_directions(texts, TEXTS.double(), mean, second_moment, OPTIONS)
    scores = (VIDEOS.double() - mean) @ directions.T
    torch.testing.assert_close(scores.mean(0), torch.zeros(len(texts)).double(), rtol=0, atol=1e-8)
    along = (VIDEOS.double() - mean) @ (texts - OPTIONS.common_share_of(8) * TEXTS.double().mean(0)).T
    variances = along.square().mean(0)
    expected = variances / (variances + ROUNDING_VARIANCE)
    torch.testing.assert_close(scores.square().mean(0), expected, rtol=1e-6, atol=0)


def planted_scores(share, num_videos=4000, num_classes=12):
    """Scores of which a share is of known videos, which lie along their own text; and which are known."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(num_videos, num_classes, generator=generator)
    known = torch.rand(num_videos, generator=generator) < share
    own = torch.randint(num_classes, (num_videos,), generator=generator)
    scores[known, own[known]] += 5.0
    return scores, known


def probability_of(scores, model):
    return model.probability(scores, torch.ones(scores.shape[1]))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_planted_share_is_found_and_probabilities_are_calibrated(share):
    scores, known = planted_scores(share)
    probability = probability_of(scores, fit_known(scores))
    assert float(probability.mean()) == pytest.approx(float(known.float().mean()), abs=0.03)
    for group in (probability > 0.9, probability <= 0.9):
        assert float(known[group].float().mean()) == pytest.approx(float(probability[group].mean()), abs=0.1)


def test_known_videos_alone_show_what_chance_looks_like():
    """By their second best texts: with all of a domain known, videos of none are told apart all the same."""
    scores, _ = planted_scores(1.0)
    model, others = fit_known(scores), planted_scores(0.0)[0]
    assert float(probability_of(scores, model).mean()) > 0.98
    assert float(probability_of(others, model).mean()) < 0.5


def test_where_texts_are_hard_to_tell_apart_videos_that_stand_out_little_may_be_known_too():
    """A few of many known videos stand out; the more alike the texts, the more others may be known as well."""
    scores, _ = planted_scores(0.2)
    alike = scores[:, :1] + 0.02 * scores
    distinct_floor, alike_floor = float(fit_known(scores).floor), float(fit_known(alike).floor)
    assert distinct_floor < 0.05
    assert alike_floor > 3 * distinct_floor
    model = fit_known(scores)
    assert (probability_of(scores, model) >= model.floor - 1e-6).all()


def test_rivals_that_are_not_asked_take_their_share():
    scores = torch.tensor([[4.0, 1.0, 0.0], [1.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    model = KnownModel(torch.tensor(2.0), torch.tensor(-4.0), torch.tensor(0.2))
    everything = model.probability(scores, torch.ones(3))
    expected = 0.2 + 0.8 * torch.tensor([4.0, 4.0, -4.0]).sigmoid()
    torch.testing.assert_close(everything, expected)
    first = model.probability(scores, torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(first, expected * (2 * scores).softmax(1)[:, 0])


def test_processes_share_the_fit():
    """Of two halves, each process gets what both have; one without videos adds nothing."""
    scores, _ = planted_scores(0.5)
    doubled = fit_known(scores[:2000], lambda sums: 2 * sums)
    whole = fit_known(torch.cat([scores[:2000], scores[:2000]]))
    for one, other in zip(vars(doubled).values(), vars(whole).values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert all(value.isfinite() for value in vars(fit_known(scores[:0])).values())


def test_one_class_has_no_second_best():
    scores, known = planted_scores(0.5, num_classes=1)
    probability = probability_of(scores, fit_known(scores))
    assert float(probability[known].mean()) > 0.8 > 0.2 > float(probability[~known].mean())


def test_known_is_the_share_of_the_classes_asked():
    """Asking more classes never lowers it, and asking one twice changes nothing."""
    head = fitted_head()
    whole = head(VIDEOS, TEXTS).known
    halves = [head(VIDEOS, TEXTS[part]).known for part in (slice(0, 4), slice(4, 8))]
    torch.testing.assert_close(halves[0] + halves[1], whole, rtol=1e-4, atol=1e-5)
    twice = head(VIDEOS, torch.cat([TEXTS[:4], TEXTS[:2]])).known
    torch.testing.assert_close(twice, halves[0], rtol=1e-4, atol=1e-5)
    others = toy_domain(seed=3).texts
    assert (head(VIDEOS, torch.cat([TEXTS, others])).known >= whole - 1e-5).all()
    assert ((whole >= 0) & (whole <= 1)).all()


def test_known_does_not_depend_on_the_batch_or_on_frames_that_repeat():
    head = fitted_head()
    whole = head(VIDEOS, TEXTS).known
    torch.testing.assert_close(head(VIDEOS[7:8], TEXTS.flip(0)).known, whole[7:8], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head(VIDEOS[:, None].expand(-1, 3, -1), TEXTS).known, whole, rtol=1e-4, atol=1e-5)


def share_in_order(known, is_known):
    """Share of pairs of a known and another video in which the known one has the higher value."""
    return float((known[is_known][:, None] > known[~is_known]).float().mean())


def test_videos_of_classes_that_are_not_asked_are_told_apart():
    """Fitted to videos of all classes, with half of the texts; then the other half, which is new, is asked."""
    head = fitted_head(TEXTS[:4])
    asked = LABELS < 4
    by_cosine = (VIDEOS @ TEXTS[:4].T).amax(1)
    assert share_in_order(head(VIDEOS, TEXTS[:4]).known, asked) > share_in_order(by_cosine, asked) + 0.01
    assert share_in_order(head(VIDEOS, TEXTS[4:]).known, ~asked) > 0.6


@pytest.mark.parametrize("how", ["never fitted", "room for a domain", "no texts"])
def test_without_classes_known_follows_the_largest_plain_cosine(how):
    head = DKDHead(DKDCLIPConfig(projection_dim=24, num_components=3 if how == "room for a domain" else 0)).eval()
    if how == "no texts":
        head.fit(VIDEOS)
    expected = (1 + (VIDEOS @ TEXTS.T).amax(1)) / 2
    torch.testing.assert_close(head(VIDEOS, TEXTS).known, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("videos", [VIDEOS[:1], VIDEOS[:1].expand(5, -1)], ids=["one", "equal ones"])
def test_domains_without_spread_stay_finite(videos):
    known = fitted_head(videos=videos)(VIDEOS, TEXTS).known
    assert ((known >= 0) & (known <= 1)).all()
