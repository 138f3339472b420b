"""A Gaussian mixture whose components share one diagonal covariance, fitted by EM: a domain whose classes are unknown.

    mixture, history = fit_gaussian_mixture(points, num_components=10)
    mixture.log_density(points), mixture.responsibilities(points), mixture.score(points)

| | shape | |
|---|---|---|
| `points` | (..., D) | embeddings; (N, D) where they are fitted |
| `weights`, `means`, `variances` | (K,), (K, D), (D,) | of K components |
| `responsibilities` | (..., K) | posterior of the components at each point |

The density is p(x) = sum_k weights_k N(x; means_k, diag(variances)). Everything is computed in float32, or in float64
where the points are, with autocast off, and distances are products of centred and whitened data: the expanded square
of raw embeddings loses nats in float32, direct differences take N K D numbers.

Source:
    Dempster, Laird & Rubin 1977, "Maximum Likelihood from Incomplete Data via the EM Algorithm"; the start: Arthur &
    Vassilvitskii 2007, "k-means++: The Advantages of Careful Seeding".
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .precision import posterior_of


# Variances below this share of the points' mean variance are numerically empty directions.
RELATIVE_VARIANCE_FLOOR = 1e-3
# Points whose distances are held at once: few enough for the processor's cache.
CHUNK_SIZE = 2048
# How far rounding may take the sum of the weights from 1.
WEIGHTS_TOLERANCE = 1e-3


@dataclass(frozen=True)
class GaussianMixture:
    """A mixture as tensors; every method takes points of any leading shape (..., D).

    Attributes:
        weights: (K,), at least 0, sum 1.
        means: (K, D).
        variances: (D,), > 0, squared units of the points.
    """

    weights: Tensor
    means: Tensor
    variances: Tensor

    def __post_init__(self) -> None:
        """Refuse shapes and values that no mixture has."""
        if self.means.dim() != 2:
            raise ValueError(f"means must be (K, D), got {tuple(self.means.shape)}.")
        num_components, dim = self.means.shape
        if self.weights.shape != (num_components,):
            raise ValueError(f"weights must be ({num_components},) like the means, got {tuple(self.weights.shape)}.")
        if self.variances.shape != (dim,):
            raise ValueError(f"variances must be ({dim},), got {tuple(self.variances.shape)}.")
        for name, values, wanted, right in (
            ("weights", self.weights, "finite and at least 0", self.weights >= 0),
            ("means", self.means, "finite", self.means == self.means),
            ("variances", self.variances, "finite and above 0", self.variances > 0),
        ):
            wrong = (~(right & values.isfinite())).nonzero()
            if len(wrong):
                index = tuple(wrong[0].tolist())
                raise ValueError(f"{name} must be {wanted}, but {name}{list(index)} is {values[index]:.3g}.")
        total = float(self.weights.sum(dtype=torch.float64))
        if abs(total - 1) > WEIGHTS_TOLERANCE:
            raise ValueError(f"weights must sum to 1, but their sum is {total:.6g}; divide them by it.")

    def joint_log_density(self, points: Tensor) -> Tensor:
        """log(weight_k N(x; mean_k, diag(variances))), natural logarithm, (..., K).

        Raises:
            ValueError: Points of another length than the means (one number would be taken for all D).
        """
        if points.shape[-1:] != self.variances.shape:
            raise ValueError(f"points must be (..., {len(self.variances)}) like the means, got {tuple(points.shape)}.")
        points, means, variances, weights = _same_precision(points, self.means, self.variances, self.weights)
        with torch.autocast(points.device.type, enabled=False):
            scale, centre = variances.sqrt(), means.mean(0)
            whitened, whitened_means = (points - centre) / scale, (means - centre) / scale
            normaliser = means.shape[1] * math.log(2 * math.pi) + variances.log().sum()
            constant = weights.log() - 0.5 * (whitened_means.square().sum(1) + normaliser)
            return whitened @ whitened_means.T + constant - 0.5 * whitened.square().sum(-1, keepdim=True)

    def log_density(self, points: Tensor) -> Tensor:
        """Log p(x), natural logarithm, (...)."""
        return self.joint_log_density(points).logsumexp(-1)

    def responsibilities(self, points: Tensor) -> Tensor:
        """Posterior of the components at each point, (..., K), rows sum to 1."""
        return posterior_of(self.joint_log_density(points))

    def score(self, points: Tensor) -> Tensor:
        """Gradient of the log density at each point, (..., D): sum_k r_k(x) (mean_k - x) / variances."""
        points, means, variances, assigned = _same_precision(
            points, self.means, self.variances, self.responsibilities(points)
        )
        with torch.autocast(points.device.type, enabled=False):
            return (assigned @ means - points) / variances


def fit_gaussian_mixture(
    points: Tensor, num_components: int, num_iterations: int = 100, tolerance: float = 1e-4, seed: int = 0
) -> tuple[GaussianMixture, list[float]]:
    """Maximum-likelihood mixture by expectation-maximisation from k-means++ means, in chunks of points.

    A component that no point belongs to keeps its mean.

    Args:
        points: (N, D), finite.
        num_components: K, at least 1.
        num_iterations: At most so many.
        tolerance: Stop when the mean log-likelihood rises by less, in nats.
        seed: Of k-means++.

    Returns:
        The mixture and the mean log-likelihood before each iteration, which never falls.

    Raises:
        ValueError: points are not a finite (N, D) matrix or too large to be squared, or `num_components` is below 1.
    """
    if points.dim() != 2 or not len(points) or not bool(points.isfinite().all()):
        raise ValueError(f"points must be a finite (N, D) matrix with N at least 1, got shape {tuple(points.shape)}.")
    if num_components < 1:
        raise ValueError(f"num_components must be at least 1, got {num_components}.")
    points = points.to(torch.promote_types(points.dtype, torch.float32))
    # Squares of points and their sums over points and axes must stay finite.
    largest = float(points.abs().max())
    if largest * largest * 4 * points.numel() >= torch.finfo(points.dtype).max:
        raise ValueError(f"points reach {largest:.3g}, whose squares {points.dtype} cannot hold; scale them down.")
    variance, mean = torch.var_mean(points, 0, correction=0)
    precision = torch.finfo(points.dtype)
    # No less than rounding makes of equal points.
    resolution = precision.eps**2 * (mean.square() + variance).mean()
    floor = torch.maximum(RELATIVE_VARIANCE_FLOOR * variance.mean(), resolution).clamp_min(precision.eps**3)
    weights = points.new_full((num_components,), 1 / num_components)
    mixture = GaussianMixture(weights, kmeans_plus_plus(points, num_components, seed), variance.clamp_min(floor))
    history: list[float] = []
    with torch.autocast(points.device.type, enabled=False):
        for _ in range(num_iterations):
            log_likelihood, counts, sums = _expected_statistics(mixture, points - mean, mean)
            history.append(log_likelihood)
            if len(history) > 1 and history[-1] - history[-2] < tolerance:
                break
            offsets = sums / counts[:, None].clamp_min(precision.tiny)
            means = torch.where(counts[:, None] > 0, mean + offsets, mixture.means)
            variances = variance - counts @ offsets.square() / len(points)
            mixture = GaussianMixture(counts / counts.sum(), means, variances.clamp_min(floor))
    return mixture, history


def kmeans_plus_plus(points: Tensor, num_components: int, seed: int = 0) -> Tensor:
    """`num_components` of the points (N, D), far from each other: (K, D).

    Each next centre is drawn with probability proportional to the squared distance to the nearest one so far; where
    all points coincide with a centre (fewer distinct points than components), uniformly.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = [int(torch.randint(len(points), (), generator=generator))]
    nearest = (points - points[chosen[0]]).square().sum(1)
    for _ in range(num_components - 1):
        odds = nearest.double().cpu()
        odds = odds if float(odds.sum()) > 0 else torch.ones_like(odds)
        position = torch.rand((), generator=generator, dtype=torch.float64) * odds.sum()
        chosen.append(min(int(torch.searchsorted(odds.cumsum(0), position)), len(points) - 1))
        nearest = torch.minimum(nearest, (points - points[chosen[-1]]).square().sum(1))
    return points[torch.tensor(chosen, device=points.device)]


def _expected_statistics(mixture: GaussianMixture, offsets: Tensor, centre: Tensor) -> tuple[float, Tensor, Tensor]:
    """E step on points = centre + offsets: their mean log-likelihood, counts (K,) and sums of offsets (K, D)."""
    log_likelihood, counts, sums = 0.0, torch.zeros_like(mixture.weights), torch.zeros_like(mixture.means)
    around = GaussianMixture(mixture.weights, mixture.means - centre, mixture.variances)
    for chunk in offsets.split(CHUNK_SIZE):
        joint = around.joint_log_density(chunk)
        assigned = posterior_of(joint)
        log_likelihood += float(joint.logsumexp(1).sum(dtype=torch.float64))
        counts += assigned.sum(0)
        sums += assigned.T @ chunk
    return log_likelihood / len(offsets), counts, sums


def _same_precision(*tensors: Tensor) -> tuple[Tensor, ...]:
    """All in the widest dtype among them, float32 at least."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return tuple(tensor.to(dtype) for tensor in tensors)
