import math
import re
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture as SklearnMixture

from modeling_dkd import gaussian_mixture
from modeling_dkd.gaussian_mixture import (
    RELATIVE_VARIANCE_FLOOR,
    GaussianMixture,
    component_log_density,
    fit_gaussian_mixture,
    kmeans_plus_plus,
)


NUM_POINTS, NUM_COMPONENTS, DIM = 41, 3, 7
VARIANCE_TYPES = ("shared", "diagonal", "spherical")
SKLEARN_TYPES = {"diagonal": "diag", "spherical": "spherical"}


def random(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make_points(num_points=NUM_POINTS, seed=0):
    """Three overlapping clouds of different width per axis, off the origin."""
    groups = torch.arange(num_points) % NUM_COMPONENTS
    widths = torch.linspace(0.5, 1.5, DIM, dtype=torch.float64)
    return 3 + random(NUM_COMPONENTS, DIM, seed=seed + 1)[groups] * 1.5 + random(num_points, DIM, seed=seed) * widths


def make_mixture(variance_type, seed=5):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(NUM_COMPONENTS, dtype=torch.float64, generator=generator)
    sizes = {"shared": (DIM,), "diagonal": (NUM_COMPONENTS, DIM), "spherical": (NUM_COMPONENTS, 1)}
    variances = 0.3 + torch.rand(sizes[variance_type], dtype=torch.float64, generator=generator)
    if variance_type == "spherical":
        variances = variances.expand(NUM_COMPONENTS, DIM).clone()
    return GaussianMixture(weights / weights.sum(), 3 + random(NUM_COMPONENTS, DIM, seed=seed), variances)


def naive_log_densities(points, mixture):
    """log N(x; mean_k, variance_k) by loops, (N, K)."""
    means, variances = mixture.means.double(), mixture.variances.double().expand_as(mixture.means)
    result = torch.zeros(len(points), len(means), dtype=torch.float64)
    for i, point in enumerate(points.double()):
        for k in range(len(means)):
            squares = (point - means[k]) ** 2 / variances[k]
            result[i, k] = -0.5 * (squares + torch.log(2 * math.pi * variances[k])).sum()
    return result


def naive_em_iteration(points, mixture, variance_type, log_weights=None):
    """Weights, means, variances after one iteration, from differences and loops over components."""
    joint = naive_log_densities(points, mixture) + (mixture.weights.log() if log_weights is None else log_weights)
    assigned = joint.softmax(1)
    counts = assigned.sum(0)
    means = torch.stack([(assigned[:, k, None] * points).sum(0) / counts[k] for k in range(len(counts))])
    own = [(assigned[:, k, None] * (points - means[k]) ** 2).sum(0) for k in range(len(counts))]
    if variance_type == "shared":
        return counts / len(points), means, sum(own) / len(points)
    variances = torch.stack(own) / counts[:, None]
    if variance_type == "spherical":
        variances = variances.mean(1, keepdim=True).expand_as(variances)
    return counts / len(points), means, variances


@pytest.fixture(params=VARIANCE_TYPES)
def variance_type(request):
    return request.param


@pytest.fixture
def mixture(variance_type):
    return make_mixture(variance_type)


def test_densities_and_responsibilities_equal_naive_loops(mixture):
    points = make_points()
    expected = naive_log_densities(points, mixture)
    torch.testing.assert_close(component_log_density(points, mixture.means, mixture.variances), expected)
    joint = expected + mixture.weights.log()
    torch.testing.assert_close(mixture.log_density(points), joint.exp().sum(1).log())
    torch.testing.assert_close(mixture.responsibilities(points), joint.exp() / joint.exp().sum(1, keepdim=True))


def test_density_integrates_to_one():
    mixture = GaussianMixture(torch.tensor([0.3, 0.7]), torch.tensor([[-1.0], [2.0]]), torch.tensor([[0.5], [1.5]]))
    grid = torch.linspace(-15, 15, 5001)[:, None]
    assert mixture.log_density(grid).exp().sum() * 30 / 5000 == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("with_log_weights", [False, True])
def test_score_is_the_gradient_of_log_density(mixture, with_log_weights):
    points = (3 + random(2, 5, DIM)).requires_grad_()
    log_weights = random(2, 5, NUM_COMPONENTS, seed=9) if with_log_weights else None
    (expected,) = torch.autograd.grad(mixture.log_density(points, log_weights).sum(), points)
    torch.testing.assert_close(mixture.score(points, log_weights), expected)


def test_log_weights_of_a_sample_replace_the_weights(mixture):
    points = make_points()
    own = mixture.weights.log().expand(len(points), -1)
    torch.testing.assert_close(mixture.log_density(points, own), mixture.log_density(points))
    single = torch.full((len(points), NUM_COMPONENTS), -torch.inf, dtype=torch.float64)
    single[:, 1] = 0
    expected = naive_log_densities(points, mixture)[:, 1]
    torch.testing.assert_close(mixture.log_density(points, single), expected)


def test_any_leading_shape_and_the_mean_log_likelihood(mixture):
    points = make_points(24)
    flat = mixture.log_density(points)
    torch.testing.assert_close(mixture.log_density(points.view(2, 3, 4, DIM)).flatten(), flat)
    assert mixture.log_density(points[0]).shape == ()
    torch.testing.assert_close(mixture.log_likelihood(points), flat.mean())
    torch.testing.assert_close(mixture.precisions * mixture.variances, torch.ones_like(mixture.variances))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_computed_in_float32_or_wider(dtype):
    mixture = GaussianMixture(torch.ones(1), torch.zeros(1, 2), torch.ones(2))
    points = torch.zeros(3, 2, dtype=dtype)
    expected = torch.promote_types(dtype, torch.float32)
    for values in (mixture.log_density(points), mixture.responsibilities(points), mixture.score(points)):
        assert values.dtype == expected
    assert fit_gaussian_mixture(points + torch.arange(3)[:, None], 1)[0].means.dtype == expected


def test_autocast_changes_nothing(variance_type):
    points = make_points().float()
    mixture, history = fit_gaussian_mixture(points, NUM_COMPONENTS, variance_type=variance_type)
    with torch.autocast("cpu", torch.bfloat16):
        again, history_again = fit_gaussian_mixture(points, NUM_COMPONENTS, variance_type=variance_type)
        score = mixture.score(points)
        log_density = mixture.log_density(points)
    assert history_again == history
    assert torch.equal(again.means, mixture.means)
    assert torch.equal(score, mixture.score(points))
    assert torch.equal(log_density, mixture.log_density(points))


@pytest.mark.parametrize("shape", [(512,), (8, 512)])
def test_accurate_in_float32_where_the_expanded_square_is_not(shape):
    generator = torch.Generator().manual_seed(0)
    means = torch.nn.functional.normalize(random(8, 512, seed=1) + 1, dim=-1)
    variances = 1e-4 * (0.5 + torch.rand(shape, dtype=torch.float64, generator=generator))
    mixture = GaussianMixture(torch.full((8,), 1 / 8, dtype=torch.float64), means, variances)
    points = means[torch.arange(64) % 8] + 0.01 * random(64, 512, seed=2)
    single = GaussianMixture(mixture.weights.float(), means.float(), variances.float())
    error = (single.joint_log_density(points.float()).double() - mixture.joint_log_density(points)).abs()
    own = error[torch.arange(64), torch.arange(64) % 8]
    assert own.max() < 0.05
    assert (single.log_density(points.float()).double() - mixture.log_density(points)).abs().max() < 0.05
    expected = mixture.score(points)
    torch.testing.assert_close(single.score(points.float()).double(), expected, rtol=1e-3, atol=1e-4 * expected.std())


@pytest.mark.parametrize("variance_type", SKLEARN_TYPES)
@pytest.mark.parametrize("num_iterations", [1, 2, 7])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # it is told to stop early
def test_same_as_scikit_learn_after_the_same_iterations(variance_type, num_iterations):
    points, initial = make_points(), make_mixture(variance_type)
    precisions = initial.precisions[:, 0] if variance_type == "spherical" else initial.precisions
    oracle = SklearnMixture(
        NUM_COMPONENTS,
        covariance_type=SKLEARN_TYPES[variance_type],
        reg_covar=0,
        max_iter=num_iterations,
        tol=0,
        weights_init=initial.weights.numpy(),
        means_init=initial.means.numpy(),
        precisions_init=precisions.numpy(),
    ).fit(points.numpy())
    fitted, history = fit_gaussian_mixture(
        points, initial=initial, variance_type=variance_type, num_iterations=num_iterations, tolerance=-torch.inf
    )
    expected = GaussianMixture.from_sklearn(oracle)
    torch.testing.assert_close(fitted.weights, expected.weights)
    torch.testing.assert_close(fitted.means, expected.means)
    torch.testing.assert_close(fitted.variances, expected.variances)
    # lower_bound_ is the likelihood that the last E step saw, as is the last entry of our history.
    assert history[-1] == pytest.approx(oracle.lower_bound_, rel=1e-10)
    assert float(fitted.log_likelihood(points)) == pytest.approx(oracle.score(points.numpy()), rel=1e-10)


@pytest.mark.parametrize("variance_type", SKLEARN_TYPES)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_scikit_learn_mixtures_come_in_and_go_out(variance_type):
    points = make_points()
    oracle = SklearnMixture(3, covariance_type=SKLEARN_TYPES[variance_type], max_iter=3, random_state=0)
    oracle.fit(points.numpy())
    ours = GaussianMixture.from_sklearn(oracle)
    np.testing.assert_allclose(ours.log_density(points).numpy(), oracle.score_samples(points.numpy()))
    np.testing.assert_allclose(ours.responsibilities(points).numpy(), oracle.predict_proba(points.numpy()), atol=1e-12)
    back = ours.to_sklearn()
    np.testing.assert_allclose(back.score_samples(points.numpy()), oracle.score_samples(points.numpy()))
    np.testing.assert_array_equal(back.predict(points.numpy()), oracle.predict(points.numpy()))
    assert back.sample(5)[0].shape == (5, DIM)


def test_a_shared_diagonal_goes_out_to_scikit_learn():
    mixture, points = make_mixture("shared"), make_points()
    np.testing.assert_allclose(mixture.to_sklearn().score_samples(points.numpy()), mixture.log_density(points).numpy())


def test_full_covariances_are_refused():
    oracle = SklearnMixture(1, covariance_type="full").fit(make_points().numpy())
    message = "covariance_type 'full' is not diagonal; use 'diag' or 'spherical'."
    with pytest.raises(ValueError, match=re.escape(message)):
        GaussianMixture.from_sklearn(oracle)


def test_without_scikit_learn_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.mixture", None)
    with pytest.raises(ImportError, match="to_sklearn needs scikit-learn: pip install scikit-learn"):
        make_mixture("shared").to_sklearn()


@pytest.mark.parametrize("with_log_weights", [False, True])
def test_an_iteration_equals_naive_loops(mixture, variance_type, with_log_weights):
    points = make_points()
    log_weights = random(len(points), NUM_COMPONENTS, seed=3) if with_log_weights else None
    fitted, history = fit_gaussian_mixture(
        points, initial=mixture, variance_type=variance_type, log_weights=log_weights, num_iterations=1
    )
    weights, means, variances = naive_em_iteration(points, mixture, variance_type, log_weights)
    torch.testing.assert_close(fitted.weights, weights)
    torch.testing.assert_close(fitted.means, means)
    torch.testing.assert_close(fitted.variances, variances)
    torch.testing.assert_close(torch.tensor(history[0]).double(), mixture.log_density(points, log_weights).mean())


@pytest.mark.parametrize("with_log_weights", [False, True])
def test_likelihood_never_falls(variance_type, with_log_weights):
    points = make_points(150)
    log_weights = random(len(points), 6, seed=3).log_softmax(1) if with_log_weights else None
    _, history = fit_gaussian_mixture(
        points, 6, variance_type=variance_type, log_weights=log_weights, tolerance=-torch.inf, num_iterations=60
    )
    assert len(history) == 60
    assert min(np.diff(history)) > -1e-10
    assert history[-1] > history[0] + 0.1


def test_it_stops_when_the_likelihood_rises_by_less_than_the_tolerance(variance_type):
    points = make_points(150)
    mixture, history = fit_gaussian_mixture(points, 3, variance_type=variance_type, tolerance=1e-3)
    rises = np.diff(history)
    assert rises[-1] < 1e-3
    assert (rises[:-1] >= 1e-3).all()
    assert float(mixture.log_likelihood(points)) == pytest.approx(history[-1])


def test_fitting_goes_on_from_a_mixture(variance_type):
    points = make_points()
    options = {"variance_type": variance_type, "tolerance": -torch.inf}
    whole, _ = fit_gaussian_mixture(points, 3, num_iterations=5, **options)
    part, _ = fit_gaussian_mixture(points, 3, num_iterations=3, **options)
    rest, _ = fit_gaussian_mixture(points, initial=part, num_iterations=2, **options)
    torch.testing.assert_close(rest.means, whole.means)
    torch.testing.assert_close(rest.variances, whole.variances)


def test_a_mixture_with_other_variances_may_be_the_start():
    points = make_points()
    per_component, _ = fit_gaussian_mixture(points, initial=make_mixture("shared"), variance_type="diagonal")
    assert per_component.variances.shape == (NUM_COMPONENTS, DIM)
    shared, _ = fit_gaussian_mixture(points, initial=make_mixture("diagonal"), variance_type="shared")
    assert shared.variances.shape == (DIM,)


def test_chunks_change_nothing(variance_type, monkeypatch):
    points = make_points()
    log_weights = random(len(points), 3, seed=3)
    options = {"num_components": 3, "variance_type": variance_type, "log_weights": log_weights, "num_iterations": 4}
    whole, history = fit_gaussian_mixture(points, **options)
    likelihood = whole.log_likelihood(points, log_weights)
    monkeypatch.setattr(gaussian_mixture, "CHUNK_SIZE", 5)
    pieces, history_pieces = fit_gaussian_mixture(points, **options)
    torch.testing.assert_close(pieces.means, whole.means)
    torch.testing.assert_close(pieces.variances, whole.variances)
    assert history_pieces == pytest.approx(history, rel=1e-12)
    torch.testing.assert_close(whole.log_likelihood(points, log_weights), likelihood)


def test_a_known_mixture_is_recovered():
    truth = GaussianMixture(
        torch.tensor([0.2, 0.3, 0.5]), 4 * torch.eye(3, 4), torch.tensor([[0.5] * 4, [1.0] * 4, [1.5] * 4])
    )
    generator = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(truth.weights, 6000, replacement=True, generator=generator)
    points = truth.means[drawn] + torch.randn(6000, 4, generator=generator) * truth.variances[drawn].sqrt()
    fitted, _ = fit_gaussian_mixture(points, 3, variance_type="spherical", tolerance=1e-7, num_iterations=300)
    order = fitted.weights.argsort()
    torch.testing.assert_close(fitted.weights[order], truth.weights, atol=0.03, rtol=0)
    torch.testing.assert_close(fitted.means[order], truth.means, atol=0.15, rtol=0)
    torch.testing.assert_close(fitted.variances[order], truth.variances, atol=0.15, rtol=0)


@pytest.mark.parametrize("how", ["far away", "forbidden"])
def test_a_component_without_points_keeps_mean_and_variance(variance_type, how):
    points, start = make_points(), make_mixture(variance_type)
    far = start.means.clone()
    far[1] = 1e4 if how == "far away" else far[1]
    log_weights = None
    if how == "forbidden":
        log_weights = torch.zeros(len(points), NUM_COMPONENTS, dtype=torch.float64)
        log_weights[:, 1] = -torch.inf
    start = GaussianMixture(start.weights, far, start.variances)
    fitted, history = fit_gaussian_mixture(
        points, initial=start, variance_type=variance_type, log_weights=log_weights, num_iterations=5
    )
    assert fitted.weights[1] == 0
    torch.testing.assert_close(fitted.means[1], far[1])
    if variance_type != "shared":
        torch.testing.assert_close(fitted.variances[1], start.variances[1])
    assert np.isfinite(history).all()
    assert (fitted.means[0] != start.means[0]).all()


def test_variances_have_a_floor_relative_to_the_data(variance_type):
    points = make_points()
    points[:, 2] = 1.0
    fitted, _ = fit_gaussian_mixture(points, 2, variance_type=variance_type)
    floor = RELATIVE_VARIANCE_FLOOR * points.var(0, correction=0).mean()
    assert fitted.variances.min() >= floor * (1 - 1e-9)
    if variance_type != "spherical":
        torch.testing.assert_close(fitted.variances[..., 2], floor.expand_as(fitted.variances[..., 2]))
    scaled, _ = fit_gaussian_mixture(points * 1e-6, 2, variance_type=variance_type)
    torch.testing.assert_close(scaled.variances, fitted.variances * 1e-12, rtol=1e-6, atol=0)


@pytest.mark.parametrize("value", [0.0, 0.3, -1e3])
@pytest.mark.parametrize("num_points", [1, 20])
def test_equal_points_give_a_mixture_that_stays_finite(variance_type, value, num_points):
    points = torch.full((num_points, 5), value)
    fitted, history = fit_gaussian_mixture(points, 3, variance_type=variance_type)
    other = torch.cat([points, points + torch.randn(4, 5, generator=torch.Generator().manual_seed(0))[:1]])
    assert np.isfinite(history).all()
    torch.testing.assert_close(fitted.means, torch.full((3, 5), value))
    for values in (fitted.precisions, fitted.score(other), fitted.log_density(other), fitted.responsibilities(other)):
        assert values.isfinite().all()


def test_fewer_points_than_components(variance_type):
    points = make_points(2)
    fitted, history = fit_gaussian_mixture(points, 5, variance_type=variance_type)
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
@given(seed=st.integers(0, 2**31), name=st.sampled_from(VARIANCE_TYPES))
def test_equivariance_of_a_fit(seed, name):
    """Samples, components and axes permuted, axes flipped, everything shifted and scaled: the fit goes along."""
    generator = torch.Generator().manual_seed(seed)
    points = make_points()
    initial = points[torch.randperm(len(points), generator=generator)[:NUM_COMPONENTS]]
    samples, components, axes = (torch.randperm(n, generator=generator) for n in (NUM_POINTS, NUM_COMPONENTS, DIM))
    signs = torch.randint(2, (DIM,), generator=generator) * 2.0 - 1
    shift = 5 * torch.randn(DIM, dtype=torch.float64, generator=generator)

    def changed(rows):
        return 2 * (rows * signs)[:, axes] + shift

    options = {"variance_type": name, "num_iterations": 4, "tolerance": -torch.inf}
    fitted, _ = fit_gaussian_mixture(points, initial=initial, **options)
    moved, _ = fit_gaussian_mixture(changed(points)[samples], initial=changed(initial)[components], **options)
    torch.testing.assert_close(moved.means, changed(fitted.means)[components])
    torch.testing.assert_close(moved.weights, fitted.weights[components])
    variances = 4 * fitted.variances[..., axes]
    torch.testing.assert_close(moved.variances, variances if name == "shared" else variances[components])


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_spherical_variances_are_equivariant_to_rotations(seed):
    rotation = torch.linalg.qr(random(DIM, DIM, seed=seed)).Q
    points = make_points()
    options = {"variance_type": "spherical", "num_iterations": 4}
    fitted, history = fit_gaussian_mixture(points, initial=points[:3], **options)
    rotated, history_rotated = fit_gaussian_mixture(points @ rotation, initial=points[:3] @ rotation, **options)
    torch.testing.assert_close(rotated.means, fitted.means @ rotation)
    torch.testing.assert_close(rotated.variances, fitted.variances)
    torch.testing.assert_close(rotated.score(points @ rotation), fitted.score(points) @ rotation)
    assert history_rotated == pytest.approx(history)


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


@pytest.mark.parametrize("num_components", [None, 0, -2])
def test_a_start_is_needed(num_components):
    message = f"num_components must be at least 1 where no initial means are given, got {num_components}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit_gaussian_mixture(make_points(), num_components)


def test_unknown_variances():
    message = "variance_type must be one of shared, diagonal, spherical, got 'full'."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit_gaussian_mixture(make_points(), 2, variance_type="full")


@pytest.mark.parametrize(
    ("weights", "means", "variances", "message"),
    [
        ((2,), (3, 4), (4,), "weights must be (3,) like the means, got (2,)."),
        ((3,), (3, 4), (3,), "variances must be (4,) or (3, 4), got (3,)."),
        ((3,), (4,), (4,), "means must be (K, D), got (4,)."),
    ],
)
def test_shapes_that_no_mixture_has(weights, means, variances, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        GaussianMixture(torch.ones(weights), torch.ones(means), torch.ones(variances))


@pytest.mark.parametrize("value", [0.0, -0.25, torch.nan])
def test_variances_that_are_not_positive_are_named(value):
    variances = torch.ones(3, 4)
    variances[1, 2] = value
    message = f"variances must be positive, but variances[1, 2] is {value:.3g}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        GaussianMixture(torch.ones(3) / 3, torch.zeros(3, 4), variances)


@pytest.mark.parametrize("variance_type", VARIANCE_TYPES)
@pytest.mark.parametrize("spread", [0.3, 30.0])
def test_in_many_dimensions_shortcuts_change_nothing(variance_type, spread, monkeypatch):
    """Points that belong to one component alone, of which float32 is certain, some that lie between, and soft ones."""
    means = random(20, 100, seed=1)
    points = means[torch.arange(200) % 20] + spread * random(200, 100, seed=2)
    points[:30] = (means[torch.arange(30) % 20] + means[(torch.arange(30) + 1) % 20]) / 2
    start = GaussianMixture(torch.full((20,), 0.05, dtype=torch.float64), means, torch.ones_like(means))
    options = {"initial": start, "variance_type": variance_type, "num_iterations": 1}
    mixture, history = fit_gaussian_mixture(points, **options)
    # Log-weights of the samples, the same for all, and a limit of 0 switch both shortcuts off.
    monkeypatch.setattr(gaussian_mixture, "SPARSE_SHARE", 0.0)
    plain, plain_history = fit_gaussian_mixture(points, log_weights=start.weights.log().expand(200, 20), **options)
    assert history == pytest.approx(plain_history, rel=1e-13)
    torch.testing.assert_close(mixture.weights, plain.weights)
    torch.testing.assert_close(mixture.means, plain.means)
    torch.testing.assert_close(mixture.variances, plain.variances)


def test_float32_is_certain_of_most_points_but_not_of_those_between():
    means = random(20, 100, seed=1)
    points = means[torch.arange(200) % 20] + 0.3 * random(200, 100, seed=2)
    points[:30] = (means[torch.arange(30) % 20] + means[(torch.arange(30) + 1) % 20]) / 2
    constant = -0.5 * means.square().sum(1)
    certain, component = gaussian_mixture._certain_components(constant, means, points)
    assert not certain[:30].any()
    assert certain[30:].double().mean() > 0.9
    assert torch.equal(component[certain], (torch.arange(200) % 20)[certain])
