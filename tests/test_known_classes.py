import pytest
import torch
from torch.distributions import MultivariateNormal

from modeling_dkd import DKDCLIPConfig, DKDHead
from modeling_dkd.known_classes import background_and_classes, class_log_odds, fit_background, known_directions
from modeling_dkd.mixture_options import MixtureOptions
from tests.toy_domain import toy_domain


OPTIONS = MixtureOptions(rounding_variance=0.0)
VIDEOS, TEXTS, LABELS = toy_domain(600, num_classes=8)


def domain_of(videos):
    """Mean (D,) and second moment (D, D), float64."""
    videos = videos.double()
    return videos.mean(0), videos.T @ videos / len(videos)


def fitted_head(texts=TEXTS, videos=VIDEOS):
    return DKDHead(DKDCLIPConfig(projection_dim=videos.shape[1])).eval().fit(videos, texts)


def test_scores_have_mean_0_and_variance_1_over_the_domain():
    """For any text, whether it was fitted or not."""
    mean, second_moment = domain_of(VIDEOS)
    texts = torch.cat([TEXTS, toy_domain(seed=3).texts]).double()
    directions = known_directions(texts, TEXTS.double(), mean, second_moment, OPTIONS)
    scores = (VIDEOS.double() - mean) @ directions.T
    torch.testing.assert_close(scores.mean(0), torch.zeros(len(texts)).double(), rtol=0, atol=1e-8)
    torch.testing.assert_close(scores.square().mean(0), torch.ones(len(texts)).double(), rtol=1e-6, atol=0)


def test_log_odds_are_those_of_shifted_gaussians():
    mean, second_moment = domain_of(VIDEOS)
    covariance = second_moment - torch.outer(mean, mean)
    directions = known_directions(TEXTS.double(), TEXTS.double(), mean, second_moment, OPTIONS)
    background, separation = torch.tensor(0.3).double(), torch.tensor(2.5).double()
    points = toy_domain(40, seed=9).videos.double()
    log_odds = class_log_odds((points - mean) @ directions.T, background, separation, len(TEXTS))
    of_background = MultivariateNormal(mean, covariance).log_prob(points) + background.log()
    for k, direction in enumerate(directions):
        shifted = MultivariateNormal(mean + separation * covariance @ direction, covariance)
        expected = shifted.log_prob(points) + ((1 - background) / len(TEXTS)).log() - of_background
        torch.testing.assert_close(log_odds[:, k], expected, rtol=1e-5, atol=1e-5)


def planted_scores(background=0.4, separation=3.5, num_videos=4000, num_classes=12):
    """Scores of which a share is of no class."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(num_videos, num_classes, generator=generator)
    known = torch.rand(num_videos, generator=generator) >= background
    own = torch.randint(num_classes, (num_videos,), generator=generator)
    scores[known, own[known]] += separation
    return scores, known


@pytest.mark.parametrize("background", [0.05, 0.4, 0.9])
def test_a_planted_background_is_found_and_probabilities_are_calibrated(background):
    scores, known = planted_scores(background)
    found, separation = fit_background(scores)
    assert float(found) == pytest.approx(background, abs=0.03)
    assert float(separation) == pytest.approx(3.5, abs=0.2)
    of_classes = 1 - background_and_classes(class_log_odds(scores, found, separation, 12))[:, 0]
    assert float(of_classes.mean()) == pytest.approx(float(known.float().mean()), abs=0.03)
    sure = of_classes > 0.9
    assert float(known[sure].float().mean()) == pytest.approx(float(of_classes[sure].mean()), abs=0.03)


def test_processes_share_the_background():
    """Of two halves, each process gets what both have; one without videos adds nothing."""
    scores, _ = planted_scores()
    background, separation = fit_background(scores)
    doubled = fit_background(scores[:2000], lambda sums: 2 * sums)
    whole = fit_background(torch.cat([scores[:2000], scores[:2000]]))
    for one, other in zip(doubled, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    none = fit_background(scores[:0])
    assert all(value.isfinite() for value in (*none, background, separation))


def test_known_is_the_share_of_the_classes_asked():
    """Asking more classes never lowers it, asking one twice changes nothing, and all of them leave the background."""
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
