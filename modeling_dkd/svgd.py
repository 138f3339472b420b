"""Stein variational gradient descent: particles that move toward a density and keep their distance from each other.

    moved = svgd(particles, score, num_steps=10, step_size=0.5, kernel="rbf", variances=variances)

The target comes in as a score function, so nothing here knows which density it is. With a kernel k of the squared
distance d^2 between particles,

    direction(x_i) = [ sum_j k(x_j, x_i) score(x_j) + grad_{x_j} k(x_j, x_i) ] / sum_j k(x_j, x_i),

attraction plus repulsion. Divided by the kernel's row sum, not by N, a step means the same for any number of
particles and for one particle it is the score. Preconditioning by variances S is SVGD in the whitened space
y = x / sqrt(S): one step size then fits all axes. No autograd: everything is in closed form and works under
inference_mode, compile and export.

Source:
    Liu & Wang 2016, "Stein Variational Gradient Descent"; the inverse multiquadric: Gorham & Mackey 2017.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .precision import full_precision


KERNELS = ("rbf", "imq", "none")
# From squared distances (..., N, N) and a bandwidth to `kernel_and_slope`'s two tensors.
Kernel = Callable[[Tensor, Tensor | float], tuple[Tensor, Tensor]]

# Smallest bandwidth per dimension of the whitened particles, whose target has the variance 1 along each. A kernel that
# is much narrower turns rounding errors and noise between repeated frames into repulsion that dwarfs the score.
BANDWIDTH_FLOOR = 1e-2


def squared_distances(particles: Tensor) -> Tensor:
    """|x_i - x_j|^2 of particles (..., N, D): (..., N, N), zero diagonal, never negative."""
    centred = particles - particles.mean(-2, keepdim=True)
    squares = centred.square().sum(-1)
    distances = squares[..., :, None] + squares[..., None, :] - 2 * centred @ centred.transpose(-1, -2)
    identity = torch.eye(particles.shape[-2], dtype=torch.bool, device=particles.device)
    return distances.clamp_min(0).masked_fill(identity, 0)


def median_bandwidth(distances: Tensor, dim: int) -> Tensor:
    """Median of the squared distances between different particles / log(N + 1), at least 0.01 D; (..., 1, 1).

    One particle has no median and coinciding ones have median 0: they get the floor, with which their kernel is 1
    among each other and the repulsion 0.

    Args:
        distances: Squared distances (..., N, N).
        dim: D of the particles.
    """
    # Counted in a tensor: Python numbers would fix the number of particles in an exported graph.
    num_particles = torch.ones(distances.shape[-1], dtype=torch.int64, device=distances.device).sum()
    # Sorted, the zero diagonal comes first and every pair stands twice; one particle has the diagonal alone.
    num_pairs = num_particles * (num_particles - 1) // 2
    position = (num_particles + 2 * ((num_pairs + 1) // 2) - 2).clamp_min(0)
    median = distances.flatten(-2).sort(-1).values.index_select(-1, position[None])[..., None]
    return (median / (num_particles + 1).to(distances.dtype).log()).clamp_min(BANDWIDTH_FLOOR * dim)


def kernel_and_slope(distances: Tensor, kernel: str | Kernel, bandwidth: Tensor | float) -> tuple[Tensor, Tensor]:
    """Kernel values and -2 dk/d(d^2), both (..., N, N).

    rbf: exp(-d^2 / h); imq: (1 + d^2 / h)^(-1/2); none: 1 on the diagonal only, so that each particle follows its own
    score (mean shift). The gradient of k(x_j, x_i) with respect to x_j is slope_ij (x_i - x_j).

    Args:
        distances: Squared distances (..., N, N).
        kernel: One of `KERNELS`, or a function of distances and bandwidth that returns both itself.
        bandwidth: h > 0, squared-distance units, a number or (..., 1, 1).

    Raises:
        ValueError: unknown kernel.
    """
    if callable(kernel):
        return kernel(distances, bandwidth)
    if kernel == "rbf":
        values = torch.exp(-distances / bandwidth)
        return values, 2 / bandwidth * values
    if kernel == "imq":
        values = (1 + distances / bandwidth).rsqrt()
        return values, values**3 / bandwidth
    if kernel == "none":
        identity = torch.eye(distances.shape[-1], dtype=distances.dtype, device=distances.device)
        return identity.expand_as(distances), torch.zeros_like(distances)
    raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, got {kernel!r}.")


def svgd_direction(
    particles: Tensor,
    scores: Tensor,
    kernel: str | Kernel = "rbf",
    bandwidth: Tensor | float | None = None,
    variances: Tensor | None = None,
) -> Tensor:
    """Direction that lowers the KL divergence to the target fastest within the kernel's space.

    Args:
        particles: (..., N, D), any float dtype; computed in float32 or wider.
        scores: Gradient of the target's log density at each particle, (..., N, D).
        kernel: "rbf", "imq", "none" (each particle follows its own score), or a function, see `kernel_and_slope`.
        bandwidth: h in exp(-d^2 / h), in squared distances of the whitened particles; None: `median_bandwidth`.
        variances: Preconditioner S, (D,) or (..., N or 1, D), > 0; None: 1.

    Returns:
        (..., N, D), in the units of the particles. N = 1 gives variances * score, identical particles their mean.
    """
    dtype = torch.promote_types(particles.dtype, torch.float32)
    particles, scores = particles.to(dtype), scores.to(dtype)
    with full_precision(particles):
        scale = torch.ones_like(particles[..., :1, :]) if variances is None else variances.to(dtype).sqrt()
        # Only differences count, and those of particles that coincide must come out as 0 in spite of rounding.
        whitened = (particles - particles.mean(-2, keepdim=True)) / scale
        distances = squared_distances(whitened)
        bandwidth = median_bandwidth(distances, particles.shape[-1]) if bandwidth is None else bandwidth
        values, slopes = kernel_and_slope(distances, kernel, bandwidth)
        attraction = values @ (scores * scale)
        # sum_j slope_ij (x_i - x_j) as a product, not as N x N x D differences.
        repulsion = slopes.sum(-1, keepdim=True) * whitened - slopes @ whitened
        return scale * (attraction + repulsion) / values.sum(-1, keepdim=True)


def svgd(
    particles: Tensor,
    score: Callable[[Tensor], Tensor],
    num_steps: int,
    step_size: float | Tensor,
    kernel: str | Kernel = "rbf",
    bandwidth: Tensor | float | None = None,
    variances: Tensor | None = None,
) -> Tensor:
    """Particles after `num_steps` of x <- x + step_size * direction(x).

    Args:
        particles: Sets of particles (..., N, D) that do not see each other; N of one set interact.
        score: Maps particles (..., N, D) to the target's score there, same shape.
        num_steps: At least 0.
        step_size: A number, or a tensor that broadcasts to (..., N, D).
        kernel: As in `svgd_direction`.
        bandwidth: None: the median rule, anew at each step.
        variances: Preconditioner.

    Returns:
        (..., N, D), float32 or wider.
    """
    particles = particles.to(torch.promote_types(particles.dtype, torch.float32))
    for _ in range(num_steps):
        direction = svgd_direction(particles, score(particles), kernel, bandwidth, variances)
        particles = particles + step_size * direction
    return particles
