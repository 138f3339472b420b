import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_dkd.svgd import (
    BANDWIDTH_FLOOR,
    KERNELS,
    kernel_and_slope,
    median_bandwidth,
    squared_distances,
    svgd,
    svgd_direction,
)


NUM_PARTICLES, DIM = 9, 5
SMOOTH_KERNELS = ("rbf", "imq")


def random(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def kernel_value(x, y, kernel, bandwidth):
    """The kernels as the docstring has them."""
    square = ((x - y) ** 2).sum()
    return torch.exp(-square / bandwidth) if kernel == "rbf" else (1 + square / bandwidth) ** -0.5


def naive_direction(particles, scores, kernel, bandwidth, variances=None):
    """Sum over pairs in the whitened space, the gradient of the kernel by autograd."""
    scale = torch.ones(particles.shape[-1], dtype=torch.float64) if variances is None else variances.sqrt()
    whitened, whitened_scores = particles / scale, scores * scale
    direction = torch.zeros_like(particles)
    for i in range(len(particles)):
        total = torch.zeros((), dtype=torch.float64)
        for j in range(len(particles)):
            other = whitened[j].clone().requires_grad_()
            value = kernel_value(other, whitened[i], kernel, bandwidth)
            (gradient,) = torch.autograd.grad(value, other)
            direction[i] += value.detach() * whitened_scores[j] + gradient
            total += value.detach()
        direction[i] *= scale / total
    return direction


def gaussian_score(mean, variances):
    return lambda points: (mean - points) / variances


@pytest.fixture(params=KERNELS)
def kernel(request):
    return request.param


@pytest.fixture(params=SMOOTH_KERNELS)
def smooth_kernel(request):
    return request.param


def test_squared_distances_equal_differences():
    particles = 100 + random(2, NUM_PARTICLES, DIM)
    expected = (particles[..., :, None, :] - particles[..., None, :, :]).square().sum(-1)
    distances = squared_distances(particles)
    torch.testing.assert_close(distances, expected)
    assert (distances.diagonal(dim1=-2, dim2=-1) == 0).all()
    assert (squared_distances(particles[:, :1].expand(2, 6, DIM).float()) >= 0).all()


def test_a_kernel_of_a_particle_with_itself_is_1_and_symmetric(kernel):
    values, slopes = kernel_and_slope(squared_distances(random(NUM_PARTICLES, DIM)), kernel, 2.0)
    assert (values.diagonal() == 1).all()
    assert ((values >= 0) & (values <= 1)).all()
    torch.testing.assert_close(values, values.T)
    torch.testing.assert_close(slopes, slopes.T)
    assert torch.linalg.eigvalsh(values).min() > -1e-12


def test_values_and_slopes_are_the_kernel_and_its_derivative(smooth_kernel):
    particles, bandwidth = random(NUM_PARTICLES, DIM), 1.7
    values, slopes = kernel_and_slope(squared_distances(particles), smooth_kernel, bandwidth)
    for i, j in [(0, 1), (3, 2), (8, 5)]:
        other = particles[j].clone().requires_grad_()
        value = kernel_value(other, particles[i], smooth_kernel, bandwidth)
        (gradient,) = torch.autograd.grad(value, other)
        torch.testing.assert_close(values[i, j], value.detach())
        torch.testing.assert_close(slopes[i, j] * (particles[i] - particles[j]), gradient)


@pytest.mark.parametrize("num_particles", [2, 3, 4, 7])
def test_the_bandwidth_is_the_median_of_pairs_over_the_log_of_their_number(num_particles):
    distances = squared_distances(random(3, num_particles, DIM))
    bandwidth = median_bandwidth(distances, DIM)
    assert bandwidth.shape == (3, 1, 1)
    pairs = torch.triu_indices(num_particles, num_particles, 1)
    for each, value in zip(distances, bandwidth, strict=True):
        median = each[pairs[0], pairs[1]].median()
        torch.testing.assert_close(value.squeeze(), median / math.log(num_particles + 1))


@pytest.mark.parametrize("num_particles", [1, 4])
def test_the_bandwidth_of_one_particle_and_of_coinciding_ones(num_particles):
    floor = torch.full((2, 1, 1), BANDWIDTH_FLOOR * DIM)
    torch.testing.assert_close(median_bandwidth(torch.zeros(2, num_particles, num_particles), DIM), floor)


@pytest.mark.parametrize("preconditioned", [False, True])
def test_direction_equals_a_sum_over_pairs(smooth_kernel, preconditioned):
    particles, scores = 10 + random(NUM_PARTICLES, DIM), random(NUM_PARTICLES, DIM, seed=1)
    variances = random(DIM, seed=2).exp() if preconditioned else None
    direction = svgd_direction(particles, scores, smooth_kernel, 3.0, variances)
    expected = naive_direction(particles, scores, smooth_kernel, 3.0, variances)
    torch.testing.assert_close(direction, expected)


def test_the_default_bandwidth_is_the_median_of_the_whitened_particles(smooth_kernel):
    particles, scores = random(NUM_PARTICLES, DIM), random(NUM_PARTICLES, DIM, seed=1)
    variances = random(DIM, seed=2).exp()
    bandwidth = median_bandwidth(squared_distances(particles / variances.sqrt()), DIM)
    expected = svgd_direction(particles, scores, smooth_kernel, bandwidth, variances)
    torch.testing.assert_close(svgd_direction(particles, scores, smooth_kernel, None, variances), expected)


def test_one_particle_follows_its_preconditioned_score(kernel):
    particle, score, variances = random(4, 1, DIM), random(4, 1, DIM, seed=1), random(DIM, seed=2).exp()
    torch.testing.assert_close(svgd_direction(particle, score, kernel), score)
    torch.testing.assert_close(svgd_direction(particle, score, kernel, variances=variances), variances * score)


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_steps_of_one_particle_toward_a_gaussian_add_up_to_the_closed_form(kernel, num_steps):
    start, mean, variances = random(3, 1, DIM), random(DIM, seed=1), random(DIM, seed=2).exp()
    step_size = 1 - (1 - 0.4) ** (1 / num_steps)
    moved = svgd(start, gaussian_score(mean, variances), num_steps, step_size, kernel, variances=variances)
    torch.testing.assert_close(moved, 0.6 * start + 0.4 * mean)


def test_without_a_kernel_every_particle_follows_its_own_score():
    particles, scores = random(NUM_PARTICLES, DIM), random(NUM_PARTICLES, DIM, seed=1)
    torch.testing.assert_close(svgd_direction(particles, scores, "none"), scores)
    mean = random(DIM, seed=2)
    moved = svgd(particles, gaussian_score(mean, 1.0), 200, 0.2, "none")
    torch.testing.assert_close(moved, mean.expand_as(moved))


@pytest.mark.parametrize("num_particles", [2, 3, 7, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identical_particles_follow_the_mean_of_their_scores(smooth_kernel, num_particles, dtype):
    particles = (5 + random(1, 512)).expand(num_particles, 512).to(dtype)
    scores = random(num_particles, 512, seed=1).to(dtype)
    variances = (1e-3 * random(512, seed=2).exp()).to(dtype)
    expected = (variances * scores.mean(0)).expand_as(particles)
    direction = svgd_direction(particles, scores, smooth_kernel, variances=variances)
    torch.testing.assert_close(direction, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("noise", [1e-7, 1e-5, 1e-3])
def test_particles_that_differ_by_noise_do_not_fly_apart(smooth_kernel, noise):
    centre, mean = (5 + random(1, 512)).float(), random(512, seed=3).float()
    particles = centre + noise * random(8, 512, seed=1).float()
    particles[0] += noise * 5
    moved = svgd(particles, gaussian_score(mean, 1.0), 1, 0.5, smooth_kernel)
    # Within a twentieth of the target's standard deviation of where one particle would go.
    torch.testing.assert_close(moved.mean(0), 0.5 * (particles.mean(0) + mean), rtol=0, atol=0.05)


def test_repeated_particles_beside_another_one(smooth_kernel):
    """More than half of the pairs coincide, so the median is 0, but one particle is elsewhere."""
    centre, other, mean = random(1, 512).float(), random(1, 512, seed=1).float(), random(512, seed=2).float()
    particles = torch.cat([centre.expand(7, 512), other])
    moved = svgd(particles, gaussian_score(mean, 1.0), 1, 0.5, smooth_kernel)
    torch.testing.assert_close(moved.mean(0), 0.5 * (particles.mean(0) + mean), rtol=0, atol=0.15)
    if smooth_kernel == "rbf":  # imq reaches so far that the other one follows the many
        torch.testing.assert_close(moved, 0.5 * (particles + mean), rtol=0, atol=1e-4)


@pytest.mark.parametrize("preconditioned", [False, True])
def test_mean_and_variance_of_a_gaussian_are_recovered(smooth_kernel, preconditioned):
    mean, variances = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 2.0])
    start = 3 + 0.2 * random(100, 2).float()
    options = {"variances": variances} if preconditioned else {}
    moved = svgd(start, gaussian_score(mean, variances), 400, 0.3, smooth_kernel, **options)
    torch.testing.assert_close(moved.mean(0), mean, rtol=0, atol=0.03)
    torch.testing.assert_close(moved.var(0), variances, rtol=0.15, atol=0)


def test_both_modes_of_a_mixture_keep_their_particles():
    def score(points):
        assigned = torch.stack([-0.5 * (points - 4) ** 2, -0.5 * (points + 4) ** 2]).softmax(0)
        return assigned[0] * (4 - points) + assigned[1] * (-4 - points)

    moved = svgd(6 * random(60, 1), score, 300, 0.2, "rbf")
    right = moved > 0
    assert 15 < right.sum() < 45
    assert moved[right].mean() == pytest.approx(4, abs=0.2)
    assert moved[~right].mean() == pytest.approx(-4, abs=0.2)
    assert moved[right].var() == pytest.approx(1, abs=0.4)


def test_sets_of_particles_do_not_see_each_other(kernel):
    particles, mean = random(2, 3, NUM_PARTICLES, DIM), random(DIM, seed=1)

    def run(sets):
        return svgd(sets, gaussian_score(mean, 0.5), 3, 0.1, kernel)

    moved = run(particles)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(moved[i, j], run(particles[i, j]))


def test_preconditioning_is_svgd_in_whitened_space(kernel):
    particles, scores = random(2, NUM_PARTICLES, DIM), random(2, NUM_PARTICLES, DIM, seed=1)
    variances = random(DIM, seed=2).exp()
    expected = variances.sqrt() * svgd_direction(particles / variances.sqrt(), scores * variances.sqrt(), kernel)
    torch.testing.assert_close(svgd_direction(particles, scores, kernel, variances=variances), expected)
    own = variances.expand(2, 1, DIM)
    torch.testing.assert_close(svgd_direction(particles, scores, kernel, variances=own), expected)


def test_repeating_all_particles_does_not_change_a_step(smooth_kernel):
    particles, scores = random(NUM_PARTICLES, DIM), random(NUM_PARTICLES, DIM, seed=1)
    once = svgd_direction(particles, scores, smooth_kernel, 2.0)
    twice = svgd_direction(particles.repeat(2, 1), scores.repeat(2, 1), smooth_kernel, 2.0)
    torch.testing.assert_close(twice, once.repeat(2, 1))


def test_a_step_size_may_differ_between_sets():
    particles, mean = random(3, NUM_PARTICLES, DIM), random(DIM, seed=1)
    sizes = torch.tensor([0.0, 0.1, 0.4], dtype=torch.float64)[:, None, None]
    moved = svgd(particles, gaussian_score(mean, 1.0), 1, sizes)
    torch.testing.assert_close(moved[0], particles[0])
    for i, size in enumerate((0.0, 0.1, 0.4)):
        torch.testing.assert_close(moved[i], svgd(particles[i], gaussian_score(mean, 1.0), 1, size))
    torch.testing.assert_close(svgd(particles, gaussian_score(mean, 1.0), 0, 0.5), particles)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), kernel=st.sampled_from(KERNELS))
def test_equivariance_to_rotations_shifts_and_orders(seed, kernel):
    rotation = torch.linalg.qr(random(DIM, DIM, seed=seed)).Q
    shift, order = random(DIM, seed=seed + 1), random(NUM_PARTICLES, seed=seed).argsort()
    particles, mean = random(NUM_PARTICLES, DIM, seed=seed + 2), random(DIM, seed=seed + 3)
    moved = svgd(particles, gaussian_score(mean, 0.7), 3, 0.2, kernel)
    changed = svgd((particles @ rotation + shift)[order], gaussian_score(mean @ rotation + shift, 0.7), 3, 0.2, kernel)
    torch.testing.assert_close(changed, (moved @ rotation + shift)[order])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), kernel=st.sampled_from(KERNELS))
def test_equivariance_to_flips_orders_and_units_of_axes(seed, kernel):
    axes, units = random(DIM, seed=seed).argsort(), random(DIM, seed=seed).exp() * random(DIM, seed=seed + 1).sign()
    particles, mean = random(NUM_PARTICLES, DIM, seed=seed + 2), random(DIM, seed=seed + 3)
    variances = random(DIM, seed=seed + 4).exp()
    moved = svgd(particles, gaussian_score(mean, variances), 3, 0.2, kernel, variances=variances)
    other_variances = (variances * units**2)[axes]
    score = gaussian_score((mean * units)[axes], other_variances)
    changed = svgd((particles * units)[:, axes], score, 3, 0.2, kernel, variances=other_variances)
    torch.testing.assert_close(changed, (moved * units)[:, axes])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_computed_in_float32_or_wider_with_autocast_off(kernel, dtype):
    particles = random(2, NUM_PARTICLES, DIM).to(dtype)
    mean = random(DIM, seed=1).to(torch.promote_types(dtype, torch.float32))
    moved = svgd(particles, gaussian_score(mean, 1.0), 2, 0.2, kernel)
    assert moved.dtype == torch.promote_types(dtype, torch.float32)
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        assert torch.equal(svgd(particles, gaussian_score(mean, 1.0), 2, 0.2, kernel), moved)


def test_gradients_flow_and_stay_finite_for_identical_particles(kernel):
    particles = random(1, DIM).expand(4, DIM).clone().requires_grad_()
    mean = random(DIM, seed=1).requires_grad_()
    svgd(particles, gaussian_score(mean, 1.0), 3, 0.2, kernel).square().sum().backward()
    for gradient in (particles.grad, mean.grad):
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


def test_unknown_kernel():
    message = "kernel must be one of rbf, imq, none, got 'linear'."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        svgd_direction(random(3, DIM), random(3, DIM), "linear")
