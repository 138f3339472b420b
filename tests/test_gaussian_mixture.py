import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_dkd import gaussian_mixture
from modeling_dkd.gaussian_mixture import (
    RELATIVE_VARIANCE_FLOOR,
    GaussianMixture,
    fit_gaussian_mixture,
    kmeans_plus_plus,
)


NUM_POINTS, NUM_COMPONENTS, DIM = 41, 3, 7


def random(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make_points(num_points=NUM_POINTS, seed=0):
    """Three overlapping clouds of different width per axis, off the origin."""
    groups = torch.arange(num_points) % NUM_COMPONENTS
    widths = torch.linspace(0.5, 1.5, DIM, dtype=torch.float64)
    return 3 + random(NUM_COMPONENTS, DIM, seed=seed + 1)[groups] * 1.5 + random(num_points, DIM, seed=seed) * widths


@pytest.fixture
def mixture():
    generator = torch.Generator().manual_seed(5)
    weights, variances = (torch.rand(n, dtype=torch.float64, generator=generator) for n in (NUM_COMPONENTS, DIM))
    return GaussianMixture(weights / weights.sum(), 3 + random(NUM_COMPONENTS, DIM, seed=5), 0.3 + variances)


def naive_joint_log_density(points, mixture):
    """log weight_k N(x; mean_k, variances) by loops, (N, K)."""
    result = torch.zeros(len(points), len(mixture.means), dtype=torch.float64)
    for i, point in enumerate(points.double()):
        for k, mean in enumerate(mixture.means):
            squares = (point - mean) ** 2 / mixture.variances
            result[i, k] = mixture.weights[k].log()
            result[i, k] -= 0.5 * (squares + torch.log(2 * math.pi * mixture.variances)).sum()
    return result


def naive_em_iteration(points, mixture):
    """The mixture after one iteration, from differences and loops over components."""
    assigned = naive_joint_log_density(points, mixture).softmax(1)
    counts = assigned.sum(0)
    means = torch.stack([(assigned[:, k, None] * points).sum(0) / counts[k] for k in range(len(counts))])
    own = [(assigned[:, k, None] * (points - means[k]) ** 2).sum(0) for k in range(len(counts))]
    return GaussianMixture(counts / len(points), means, sum(own) / len(points))


def test_densities_and_responsibilities_equal_naive_loops(mixture):
    points = make_points()
    joint = naive_joint_log_density(points, mixture)
    torch.testing.assert_close(mixture.joint_log_density(points), joint)
    torch.testing.assert_close(mixture.log_density(points), joint.exp().sum(1).log())
    torch.testing.assert_close(mixture.responsibilities(points), joint.exp() / joint.exp().sum(1, keepdim=True))


def test_density_integrates_to_one():
    mixture = GaussianMixture(torch.tensor([0.3, 0.7]), torch.tensor([[-1.0], [2.0]]), torch.tensor([0.5]))
    grid = torch.linspace(-15, 15, 5001)[:, None]
    assert mixture.log_density(grid).exp().sum() * 30 / 5000 == pytest.approx(1, abs=1e-4)


def test_score_is_the_gradient_of_log_density(mixture):
    points = (3 + random(2, 5, DIM)).requires_grad_()
    (expected,) = torch.autograd.grad(mixture.log_density(points).sum(), points)
    torch.testing.assert_close(mixture.score(points), expected)


def test_any_leading_shape(mixture):
    points = make_points(24)
    flat = mixture.log_density(points)
    torch.testing.assert_close(mixture.log_density(points.view(2, 3, 4, DIM)).flatten(), flat)
    assert mixture.log_density(points[0]).shape == ()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_computed_in_float32_or_wider(dtype):
    mixture = GaussianMixture(torch.ones(1), torch.zeros(1, 2), torch.ones(2))
    points = torch.zeros(3, 2, dtype=dtype)
    expected = torch.promote_types(dtype, torch.float32)
    for values in (mixture.log_density(points), mixture.responsibilities(points), mixture.score(points)):
        assert values.dtype == expected
    assert fit_gaussian_mixture(points + torch.arange(3)[:, None], 1)[0].means.dtype == expected


def test_autocast_changes_nothing():
    points = make_points().float()
    mixture, history = fit_gaussian_mixture(points, NUM_COMPONENTS)
    with torch.autocast("cpu", torch.bfloat16):
        again, history_again = fit_gaussian_mixture(points, NUM_COMPONENTS)
        score = mixture.score(points)
        log_density = mixture.log_density(points)
    assert history_again == history
    assert torch.equal(again.means, mixture.means)
    assert torch.equal(score, mixture.score(points))
    assert torch.equal(log_density, mixture.log_density(points))


def test_accurate_in_float32_where_the_expanded_square_is_not():
    generator = torch.Generator().manual_seed(0)
    means = torch.nn.functional.normalize(random(8, 512, seed=1) + 1, dim=-1)
    variances = 1e-4 * (0.5 + torch.rand(512, dtype=torch.float64, generator=generator))
    mixture = GaussianMixture(torch.full((8,), 1 / 8, dtype=torch.float64), means, variances)
    points = means[torch.arange(64) % 8] + 0.01 * random(64, 512, seed=2)
    single = GaussianMixture(mixture.weights.float(), means.float(), variances.float())
    error = (single.joint_log_density(points.float()).double() - mixture.joint_log_density(points)).abs()
    own = error[torch.arange(64), torch.arange(64) % 8]
    assert own.max() < 0.05
    assert (single.log_density(points.float()).double() - mixture.log_density(points)).abs().max() < 0.05
    expected = mixture.score(points)
    torch.testing.assert_close(single.score(points.float()).double(), expected, rtol=1e-3, atol=1e-4 * expected.std())


@pytest.mark.parametrize("num_iterations", [1, 2, 4])
def test_iterations_equal_naive_loops(num_iterations):
    points = make_points()
    variances = points.var(0, correction=0)
    expected = GaussianMixture(torch.full((3,), 1 / 3, dtype=torch.float64), kmeans_plus_plus(points, 3), variances)
    for _ in range(num_iterations):
        likelihood, expected = expected.log_density(points).mean(), naive_em_iteration(points, expected)
    fitted, history = fit_gaussian_mixture(points, 3, num_iterations=num_iterations)
    torch.testing.assert_close(fitted.weights, expected.weights)
    torch.testing.assert_close(fitted.means, expected.means)
    torch.testing.assert_close(fitted.variances, expected.variances)
    assert history[-1] == pytest.approx(float(likelihood), rel=1e-10)


def test_likelihood_never_falls():
    _, history = fit_gaussian_mixture(make_points(150), 6, tolerance=-torch.inf, num_iterations=60)
    assert len(history) == 60
    assert min(np.diff(history)) > -1e-10
    assert history[-1] > history[0] + 0.1


def test_it_stops_when_the_likelihood_rises_by_less_than_the_tolerance():
    points = make_points(150)
    mixture, history = fit_gaussian_mixture(points, 3, tolerance=1e-3)
    rises = np.diff(history)
    assert rises[-1] < 1e-3
    assert (rises[:-1] >= 1e-3).all()
    assert float(mixture.log_density(points).mean()) == pytest.approx(history[-1])


def test_chunks_change_nothing(monkeypatch):
    points = make_points()
    whole, history = fit_gaussian_mixture(points, 3, num_iterations=4)
    monkeypatch.setattr(gaussian_mixture, "CHUNK_SIZE", 5)
    pieces, history_pieces = fit_gaussian_mixture(points, 3, num_iterations=4)
    torch.testing.assert_close(pieces.means, whole.means)
    torch.testing.assert_close(pieces.variances, whole.variances)
    assert history_pieces == pytest.approx(history, rel=1e-12)


def test_a_known_mixture_is_recovered():
    truth = GaussianMixture(torch.tensor([0.2, 0.3, 0.5]), 4 * torch.eye(3, 4), torch.tensor([0.5, 1.0, 1.5, 2.0]))
    generator = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(truth.weights, 6000, replacement=True, generator=generator)
    points = truth.means[drawn] + torch.randn(6000, 4, generator=generator) * truth.variances.sqrt()
    fitted, _ = fit_gaussian_mixture(points, 3, tolerance=1e-7, num_iterations=300)
    order = fitted.weights.argsort()
    torch.testing.assert_close(fitted.weights[order], truth.weights, atol=0.03, rtol=0)
    torch.testing.assert_close(fitted.means[order], truth.means, atol=0.15, rtol=0)
    torch.testing.assert_close(fitted.variances, truth.variances, atol=0.15, rtol=0)


def test_variances_have_a_floor_relative_to_the_data():
    points = make_points()
    points[:, 2] = 1.0
    fitted, _ = fit_gaussian_mixture(points, 2)
    floor = RELATIVE_VARIANCE_FLOOR * points.var(0, correction=0).mean()
    assert fitted.variances.min() >= floor * (1 - 1e-9)
    torch.testing.assert_close(fitted.variances[2], floor)
    scaled, _ = fit_gaussian_mixture(points * 1e-6, 2)
    torch.testing.assert_close(scaled.variances, fitted.variances * 1e-12, rtol=1e-6, atol=0)


@pytest.mark.parametrize("value", [0.0, 0.3, -1e3])
@pytest.mark.parametrize("num_points", [1, 20])
def test_equal_points_give_a_mixture_that_stays_finite(value, num_points):
    points = torch.full((num_points, 5), value)
    fitted, history = fit_gaussian_mixture(points, 3)
    other = torch.cat([points, points + torch.randn(4, 5, generator=torch.Generator().manual_seed(0))[:1]])
    assert np.isfinite(history).all()
    torch.testing.assert_close(fitted.means, torch.full((3, 5), value))
    for values in (
        1 / fitted.variances,
        fitted.score(other),
        fitted.log_density(other),
        fitted.responsibilities(other),
    ):
        assert values.isfinite().all()


def test_fewer_points_than_components():
    points = make_points(2)
    fitted, history = fit_gaussian_mixture(points, 5)
    assert fitted.means.shape == (5, DIM)
    assert np.isfinite(history).all()
    assert fitted.weights.sum() == pytest.approx(1)
    nearest = torch.cdist(points, fitted.means).min(1).values
    assert nearest.max() < 1e-3


def test_kmeans_plus_plus_takes_every_distinct_point_before_it_takes_one_twice():
    distinct = make_points(4)
    points = distinct[torch.tensor([0, 0, 0, 0, 0, 1, 2, 0, 0, 3])]
    for seed in range(20):
        assert len(kmeans_plus_plus(points, 4, seed).unique(dim=0)) == 4
    repeated = kmeans_plus_plus(points, 9, 0)
    assert repeated.shape == (9, DIM)
    assert len(repeated.unique(dim=0)) == 4


def test_kmeans_plus_plus_draws_by_squared_distance():
    points = torch.tensor([[0.0], [1.0], [3.0]])
    pairs = [kmeans_plus_plus(points, 2, seed)[:, 0].tolist() for seed in range(1500)]
    seconds = [second for first, second in pairs if first == 0]
    assert 400 < len(seconds) < 600
    assert seconds.count(3.0) / len(seconds) == pytest.approx(0.9, abs=0.04)


def test_the_seed_decides():
    points = make_points()
    assert torch.equal(kmeans_plus_plus(points, 3, 1), kmeans_plus_plus(points, 3, 1))
    assert not all(torch.equal(kmeans_plus_plus(points, 3, 1), kmeans_plus_plus(points, 3, s)) for s in range(2, 6))
    first, second = (fit_gaussian_mixture(points, 3, seed=4)[0] for _ in range(2))
    assert torch.equal(first.means, second.means)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_equivariance_of_a_fit(seed):
    """Axes permuted and flipped, everything shifted and scaled: the fit goes along."""
    generator = torch.Generator().manual_seed(seed)
    points, axes = make_points(), torch.randperm(DIM, generator=generator)
    signs = torch.randint(2, (DIM,), generator=generator) * 2.0 - 1
    shift = 5 * torch.randn(DIM, dtype=torch.float64, generator=generator)

    def changed(rows):
        return 2 * (rows * signs)[:, axes] + shift

    options = {"num_components": NUM_COMPONENTS, "num_iterations": 4, "tolerance": -torch.inf}
    fitted, _ = fit_gaussian_mixture(points, **options)
    moved, _ = fit_gaussian_mixture(changed(points), **options)
    torch.testing.assert_close(moved.means, changed(fitted.means))
    torch.testing.assert_close(moved.weights, fitted.weights)
    torch.testing.assert_close(moved.variances, 4 * fitted.variances[axes])


NOT_A_MATRIX = "points must be a finite (N, D) matrix with N at least 1, got shape "


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (torch.zeros(3), f"{NOT_A_MATRIX}(3,)."),
        (torch.zeros(0, 3), f"{NOT_A_MATRIX}(0, 3)."),
        (torch.tensor([[1.0, torch.nan]]), f"{NOT_A_MATRIX}(1, 2)."),
        (torch.tensor([[1.0, torch.inf]]), f"{NOT_A_MATRIX}(1, 2)."),
    ],
)
def test_points_that_cannot_be_fitted(points, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit_gaussian_mixture(points, 1)


@pytest.mark.parametrize("num_components", [0, -2])
def test_a_component_is_needed(num_components):
    message = f"num_components must be at least 1, got {num_components}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit_gaussian_mixture(make_points(), num_components)


@pytest.mark.parametrize(
    ("weights", "means", "variances", "message"),
    [
        ((2,), (3, 4), (4,), "weights must be (3,) like the means, got (2,)."),
        ((3,), (3, 4), (3,), "variances must be (4,), got (3,)."),
        ((3,), (4,), (4,), "means must be (K, D), got (4,)."),
    ],
)
def test_shapes_that_no_mixture_has(weights, means, variances, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        GaussianMixture(torch.ones(weights), torch.ones(means), torch.ones(variances))


@pytest.mark.parametrize("value", [0.0, -0.25, torch.nan])
def test_variances_that_are_not_positive_are_named(value):
    variances = torch.ones(4)
    variances[2] = value
    message = f"variances must be finite and above 0, but variances[2] is {value:.3g}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        GaussianMixture(torch.ones(3) / 3, torch.zeros(3, 4), variances)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": [0.5, -0.5, 1.0]}, "weights must be finite and at least 0, but weights[1] is -0.5."),
        ({"weights": [0.5, float("nan"), 0.5]}, "weights must be finite and at least 0, but weights[1] is nan."),
        ({"weights": [0.5, 0.5, 0.5]}, "weights must sum to 1, but their sum is 1.5; divide them by it."),
        ({"weights": [0.0, 0.0, 0.0]}, "weights must sum to 1, but their sum is 0; divide them by it."),
        ({"means": [[0.0, 0], [float("nan"), 0], [0, 0]]}, "means must be finite, but means[1, 0] is nan."),
        ({"means": [[0.0, 0], [0, 0], [0, -float("inf")]]}, "means must be finite, but means[2, 1] is -inf."),
        ({"variances": [1.0, float("inf")]}, "variances must be finite and above 0, but variances[1] is inf."),
    ],
)
def test_values_that_no_mixture_has_are_named(changes, message):
    sound = {"weights": [0.2, 0.3, 0.5], "means": [[0.0, 1], [2, 3], [4, 5]], "variances": [1.0, 2.0]}
    GaussianMixture(**{name: torch.tensor(values) for name, values in sound.items()})
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        GaussianMixture(**{name: torch.tensor(values) for name, values in (sound | changes).items()})


@pytest.mark.parametrize("shape", [(4, 1), (4, DIM + 1), (), (1,), (2, DIM, 1)])
def test_points_of_another_length_are_not_stretched(mixture, shape):
    message = f"points must be (..., {DIM}) like the means, got {shape}."
    for method in (mixture.log_density, mixture.responsibilities, mixture.score):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            method(torch.zeros(shape))


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 1e19), (torch.float32, 3e38), (torch.float64, 1e160)])
def test_points_too_large_to_be_squared_are_refused(dtype, size):
    points = size * torch.linspace(-1, 1, 40, dtype=dtype).reshape(20, 2)
    with pytest.raises(
        ValueError, match=r"^points reach .*, whose squares torch\.float\d+ cannot hold; scale them down\.$"
    ):
        fit_gaussian_mixture(points, 3)
    mixture, history = fit_gaussian_mixture(points / size * 1e15, 3)
    assert mixture.means.isfinite().all()
    assert all(math.isfinite(value) for value in history)
