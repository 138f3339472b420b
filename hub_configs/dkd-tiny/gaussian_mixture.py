"""Gaussian mixtures with diagonal variances: density, responsibilities, score, and EM in chunks.

    mixture = fit_gaussian_mixture(points, num_components=10)
    mixture.log_density(points), mixture.responsibilities(points), mixture.score(points)

A mixture is p(x) = sum_k weights_k N(x; means_k, diag(variances_k)). `variances` is (D,) when all components share one
diagonal and (K, D) when each has its own (spherical variances are (K, D) with equal columns). Everything is computed
in float32, or in float64 where the points are, with autocast off. Distances are products of centred and whitened data:
the expanded square of raw embeddings loses nats in float32, direct differences cost N * K * D memory.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


VarianceType = Literal["shared", "diagonal", "spherical"]

# Variances below this share of the mean variance of the data are numerically empty directions.
RELATIVE_VARIANCE_FLOOR = 1e-3
# Points whose distances are held at once: few enough for the processor's cache.
CHUNK_SIZE = 2048
# Share of the responsibilities that count below which they are summed one by one.
SPARSE_SHARE = 1 / 16


def component_log_density(points: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    """Log density of every point under every component, log N(x; mean_k, diag(variance_k)), natural log.

    Args:
        points: (..., D), any float dtype; computed in float32 or wider.
        means: (K, D).
        variances: (D,) shared or (K, D) per component, > 0.

    Returns:
        (..., K), float32 or float64.
    """
    points, means, variances = _same_precision(points, means, variances)
    with torch.autocast(points.device.type, enabled=False):
        natural = _natural_parameters(means, variances, centre=means.mean(0))
        whitened = (points - natural.centre) / natural.scale
        return whitened.square() @ natural.quadratic.T + whitened @ natural.linear.T + natural.constant


@dataclass(frozen=True)
class _NaturalParameters:
    """log N(x; mean_k, variance_k) = quadratic_k . w^2 + linear_k . w + constant_k, where w = (x - centre) / scale.

    Attributes:
        centre: (D,).
        scale: (D,), one whitening for all components: exact for a shared diagonal, else well conditioned.
        quadratic: (1, D) shared by all components, or (K, D).
        linear: (K, D).
        constant: (K,).
    """

    centre: Tensor
    scale: Tensor
    quadratic: Tensor
    linear: Tensor
    constant: Tensor


def _natural_parameters(means: Tensor, variances: Tensor, centre: Tensor) -> _NaturalParameters:
    """Of components with means (K, D) and variances (D,) or (K, D), all of one dtype."""
    scale = (variances if variances.dim() == 1 else variances.log().mean(0).exp()).sqrt()
    centred_means = (means - centre) / scale
    precisions = torch.atleast_2d(scale.square() / variances)
    linear = precisions * centred_means
    normaliser = means.shape[1] * math.log(2 * math.pi) + variances.log().sum(-1)
    constant = -0.5 * ((linear * centred_means).sum(1) + normaliser)
    return _NaturalParameters(centre, scale, -0.5 * precisions, linear, constant)


@dataclass(frozen=True)
class GaussianMixture:
    """A mixture as tensors; every method takes points of any leading shape (..., D).

    Attributes:
        weights: (K,), at least 0, sum 1.
        means: (K, D).
        variances: (D,) shared diagonal or (K, D), > 0, squared units of the points.
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
        if self.variances.shape not in {(dim,), (num_components, dim)}:
            shape = tuple(self.variances.shape)
            raise ValueError(f"variances must be ({dim},) or ({num_components}, {dim}), got {shape}.")
        if not bool((self.variances > 0).all()):
            index = tuple(int(i) for i in (~(self.variances > 0)).nonzero()[0])
            raise ValueError(f"variances must be positive, but variances{list(index)} is {self.variances[index]:.3g}.")

    @property
    def precisions(self) -> Tensor:
        """1 / variances, same shape."""
        return self.variances.reciprocal()

    def joint_log_density(self, points: Tensor, log_weights: Tensor | None = None) -> Tensor:
        """log(weight_k N(x; mean_k, variance_k)), (..., K); `log_weights` (..., K) replaces the mixture's own."""
        log_weights = self.weights.log() if log_weights is None else log_weights
        return component_log_density(points, self.means, self.variances) + log_weights

    def log_density(self, points: Tensor, log_weights: Tensor | None = None) -> Tensor:
        """Log p(x), natural log, (...)."""
        return self.joint_log_density(points, log_weights).logsumexp(-1)

    def responsibilities(self, points: Tensor, log_weights: Tensor | None = None) -> Tensor:
        """Posterior of the components at each point, (..., K), rows sum to 1."""
        return self.joint_log_density(points, log_weights).softmax(-1)

    def score(self, points: Tensor, log_weights: Tensor | None = None) -> Tensor:
        """Gradient of the log density at each point, (..., D): sum_k r_k(x) (mean_k - x) / variance_k.

        `log_weights` (..., K), if given, count as constants of each point.
        """
        assigned = self.responsibilities(points, log_weights)
        points, means, precisions, assigned = _same_precision(points, self.means, self.precisions, assigned)
        with torch.autocast(points.device.type, enabled=False):
            if precisions.dim() == 1:
                return (assigned @ means - points) * precisions
            return assigned @ (precisions * means) - (assigned @ precisions) * points

    def log_likelihood(self, points: Tensor, log_weights: Tensor | None = None) -> Tensor:
        """Mean log density of points (N, D), a scalar; computed in chunks."""
        total = sum(self.log_density(*chunk).sum() for chunk in _chunks(points, log_weights))
        return torch.as_tensor(total) / len(points)

    @classmethod
    def from_sklearn(cls, fitted: Any) -> "GaussianMixture":
        """The same mixture from a fitted sklearn.mixture.GaussianMixture of covariance_type 'diag' or 'spherical'."""
        if fitted.covariance_type not in {"diag", "spherical"}:
            raise ValueError(f"covariance_type '{fitted.covariance_type}' is not diagonal; use 'diag' or 'spherical'.")
        weights, means, variances = (
            torch.as_tensor(array) for array in (fitted.weights_, fitted.means_, fitted.covariances_)
        )
        return cls(weights, means, variances if variances.dim() == 2 else variances[:, None].expand_as(means).clone())

    def to_sklearn(self) -> Any:
        """The same mixture as a fitted sklearn.mixture.GaussianMixture of covariance_type 'diag'.

        Raises:
            ImportError: scikit-learn is not installed.
        """
        try:
            from sklearn.mixture import GaussianMixture as SklearnMixture
        except ImportError as error:
            raise ImportError("to_sklearn needs scikit-learn: pip install scikit-learn") from error

        means = self.means.double().cpu().numpy()
        fitted = SklearnMixture(len(means), covariance_type="diag")
        fitted.weights_, fitted.means_ = self.weights.double().cpu().numpy(), means
        fitted.covariances_ = self.variances.double().expand(self.means.shape).clone().cpu().numpy()
        fitted.precisions_ = 1 / fitted.covariances_
        fitted.precisions_cholesky_ = fitted.precisions_**0.5
        return fitted


def fit_gaussian_mixture(
    points: Tensor,
    num_components: int | None = None,
    initial: GaussianMixture | Tensor | None = None,
    variance_type: VarianceType = "shared",
    log_weights: Tensor | None = None,
    num_iterations: int = 100,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> tuple[GaussianMixture, list[float]]:
    """Maximum-likelihood mixture by expectation-maximisation, in chunks of points.

    A component that no point belongs to keeps its mean and its variance.

    Args:
        points: (N, D), finite.
        num_components: K; not needed with `initial`.
        initial: Where to start: means (K, D) with the data's own variance and equal weights, or a whole mixture;
            None: means by k-means++.
        variance_type: "shared", one diagonal (D,); "diagonal", one per component; "spherical", one number each.
        log_weights: Per-sample log mixing weights (N, K) that stay fixed; None: mixing weights are estimated.
        num_iterations: At most so many.
        tolerance: Stop when the mean log-likelihood rises by less, in nats.
        seed: Of k-means++.

    Returns:
        The mixture and the mean log-likelihood before each iteration, which never falls.

    Raises:
        ValueError: points are not a finite (N, D) matrix, `variance_type` is unknown, or there is neither
            `num_components` nor `initial`.

    Source:
        Dempster, Laird & Rubin 1977, "Maximum Likelihood from Incomplete Data via the EM Algorithm".
    """
    if points.dim() != 2 or not len(points) or not bool(points.isfinite().all()):
        raise ValueError(f"points must be a finite (N, D) matrix with N at least 1, got shape {tuple(points.shape)}.")
    if variance_type not in get_args(VarianceType):
        raise ValueError(f"variance_type must be one of {', '.join(get_args(VarianceType))}, got {variance_type!r}.")
    points = points.to(torch.promote_types(points.dtype, torch.float32))
    variance, mean = torch.var_mean(points, 0, correction=0)
    floor = _variance_floor(mean, variance)
    mixture = _initial_mixture(points, variance.clamp_min(floor), num_components, initial, variance_type, seed)
    history: list[float] = []
    for _ in range(num_iterations):
        with torch.autocast(points.device.type, enabled=False):
            log_likelihood, updated = _em_iteration(
                points, (mean, variance), mixture, variance_type, log_weights, floor
            )
        history.append(log_likelihood)
        if len(history) > 1 and history[-1] - history[-2] < tolerance:
            break
        mixture = updated
    return mixture, history


def kmeans_plus_plus(points: Tensor, num_components: int, seed: int = 0) -> Tensor:
    """`num_components` of the points (N, D), far from each other: (K, D).

    Each next centre is drawn with probability proportional to the squared distance to the nearest one so far; where
    all points coincide with a centre (fewer distinct points than components), uniformly.

    Source:
        Arthur & Vassilvitskii 2007, "k-means++: The Advantages of Careful Seeding".
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


def _initial_mixture(
    points: Tensor,
    variances: Tensor,
    num_components: int | None,
    initial: GaussianMixture | Tensor | None,
    variance_type: VarianceType,
    seed: int,
) -> GaussianMixture:
    """Where EM starts; `variances` (D,) are those of the points."""
    if isinstance(initial, GaussianMixture):
        mixture = GaussianMixture(*_same_precision(initial.weights.to(points), initial.means, initial.variances))
        shared = mixture.variances.dim() == 1
        if shared == (variance_type == "shared"):
            return mixture
        own = mixture.variances.expand_as(mixture.means).clone() if shared else mixture.variances.mean(0)
        return replace(mixture, variances=own)
    if initial is None:
        if num_components is None or num_components < 1:
            raise ValueError(
                f"num_components must be at least 1 where no initial means are given, got {num_components}."
            )
        initial = kmeans_plus_plus(points, num_components, seed)
    means = initial.to(points)
    if variance_type == "spherical":
        variances = variances.mean().expand_as(variances)
    if variance_type != "shared":
        variances = variances.expand_as(means).clone()
    return GaussianMixture(means.new_full((len(means),), 1 / len(means)), means, variances)


def _variance_floor(mean: Tensor, variance: Tensor) -> Tensor:
    """Smallest variance of a component: a share of the points', and no less than rounding makes of equal points."""
    precision = torch.finfo(mean.dtype)
    resolution = precision.eps**2 * (mean.square() + variance).mean()
    share = RELATIVE_VARIANCE_FLOOR * variance.mean()
    return torch.maximum(share, resolution).clamp_min(precision.eps**3)


def _em_iteration(
    points: Tensor,
    moments: tuple[Tensor, Tensor],
    mixture: GaussianMixture,
    variance_type: VarianceType,
    log_weights: Tensor | None,
    floor: Tensor,
) -> tuple[float, GaussianMixture]:
    """Mean log-likelihood of `mixture`, and the mixture after one E and one M step.

    `moments` are mean and variance (D,) of all points.
    """
    dim, shared = mixture.means.shape[1], variance_type == "shared"
    natural = _natural_parameters(mixture.means, mixture.variances, centre=mixture.weights @ mixture.means)
    squares = (moments[1] + (moments[0] - natural.centre).square()) / natural.scale.square()
    log_likelihood, counts, sums = _expected_statistics(points, natural, mixture.weights.log(), log_weights)
    if shared:
        log_likelihood -= 0.5 * float(squares.double().sum()) * len(points)
    occupied = counts > 0
    averages = sums / counts[:, None].clamp_min(torch.finfo(points.dtype).tiny)
    offsets = averages[:, :dim]
    means = torch.where(occupied[:, None], natural.centre + natural.scale * offsets, mixture.means)
    if shared:
        variances = squares - counts @ offsets.square() / len(points)
    else:
        variances = averages[:, dim:] - offsets.square()
    variances = variances * natural.scale.square()
    if variance_type == "spherical":
        variances = variances.mean(1, keepdim=True).expand_as(means)
    if not shared:
        variances = torch.where(occupied[:, None], variances, mixture.variances)
    return log_likelihood / len(points), GaussianMixture(counts / counts.sum(), means, variances.clamp_min(floor))


def _expected_statistics(
    points: Tensor, natural: _NaturalParameters, log_mixing: Tensor, log_weights: Tensor | None
) -> tuple[float, Tensor, Tensor]:
    """E step: log-likelihood, counts (K,) and sums (K, D) of w, or (K, 2 D) of w and w^2, by responsibilities.

    Where the variances are shared, w^2 is left out, here and in the log-likelihood: all components weigh it alike, so
    it tells none from another. Buffers are written over from chunk to chunk, for fresh memory of this size costs more
    than what is computed in it.
    """
    shared, dim = len(natural.quadratic) < len(natural.linear), natural.linear.shape[1]
    parameters = natural.linear if shared else torch.cat([natural.linear, natural.quadratic], 1)
    constant = natural.constant if log_weights is not None else natural.constant + log_mixing
    counts, sums, log_likelihood = torch.zeros_like(constant), torch.zeros_like(parameters), 0.0
    statistics = points.new_empty(min(len(points), CHUNK_SIZE), parameters.shape[1])
    assigned = points.new_empty(len(parameters), len(statistics))
    rough_first = points.dtype == torch.float64 and log_weights is None
    for chunk, chunk_log_weights in _chunks(points, log_weights):
        w = statistics[: len(chunk)]
        torch.sub(chunk, natural.centre, out=w[:, :dim]).mul_(natural.scale.reciprocal())
        if not shared:
            torch.square(w[:, :dim], out=w[:, dim:])
        if rough_first:
            certain, component = _certain_components(constant, parameters, w)
            rows = certain.nonzero()[:, 0]
            rough_first = 2 * len(rows) > len(w)
            own_counts, own_sums = _sums_by_component(component[rows], rows, w, len(parameters))
            log_likelihood += float((parameters * own_sums).sum() + constant[component[rows]].sum())
            counts, sums, w = counts + own_counts, sums + own_sums, w[~certain]
        if len(w):
            r = assigned[:, : len(w)]
            torch.addmm(constant[:, None], parameters, w.T, out=r)
            if chunk_log_weights is not None:
                r += chunk_log_weights.T
            highest = r.amax(0)
            total = r.sub_(highest).exp_().sum(0)
            log_likelihood += float((highest + total.log()).sum(dtype=torch.float64))
            chunk_counts = r.div_(total).sum(1)
            counts += chunk_counts
            _add_weighted_sums(sums, r, chunk_counts, w)
    return log_likelihood, counts, sums


def _certain_components(constant: Tensor, parameters: Tensor, statistics: Tensor) -> tuple[Tensor, Tensor]:
    """Which points (N,) belong to one component up to rounding in float64, and to which, (N,), told in float32.

    In many dimensions that is nearly all points, and float32 is twice as fast. Its error is at most the product of the
    two norms times the number of terms times the unit of rounding.
    """
    joint = torch.addmm(constant.float()[:, None], parameters.float(), statistics.float().T)
    best, component = joint.max(0)
    second = joint.scatter_(0, component[None], -torch.inf).amax(0)
    terms = parameters.shape[1] + 2
    error = parameters.norm(dim=1).max() * statistics.norm(dim=1) + constant.abs()[constant.isfinite()].max()
    margin = math.log(len(parameters) / torch.finfo(torch.float64).eps)
    return best - second > margin + 2 * terms * torch.finfo(torch.float32).eps * error, component


def _sums_by_component(
    component: Tensor, row: Tensor, statistics: Tensor, num_components: int
) -> tuple[Tensor, Tensor]:
    """Number (K,) and sum (K, F) of the rows `row` of statistics (N, F) by their `component`."""
    counts = component.bincount(minlength=num_components)
    sums = embedding_bag(row[component.argsort()], statistics, counts.cumsum(0) - counts, mode="sum")
    return counts.to(statistics.dtype), sums


def _add_weighted_sums(sums: Tensor, assigned: Tensor, counts: Tensor, statistics: Tensor) -> None:
    """Add assigned (K, N) @ statistics (N, F) to sums (K, F); `counts` (K,) are the row sums of `assigned`.

    In many dimensions nearly all responsibilities are nearly 0. What would be lost in the rounding of a component's
    count is left out, and where little is left a sum over that is faster than the product with everything.
    """
    kept = assigned > torch.finfo(assigned.dtype).eps / assigned.shape[1] * counts[:, None]
    kept_counts = kept.sum(1)
    if float(kept_counts.sum()) > SPARSE_SHARE * kept.numel():
        sums.addmm_(assigned, statistics)
        return
    component, row = kept.nonzero(as_tuple=True)
    starts = kept_counts.cumsum(0) - kept_counts
    sums += embedding_bag(row, statistics, starts, mode="sum", per_sample_weights=assigned[component, row])


def _chunks(points: Tensor, log_weights: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Pieces of the points with their own log-weights."""
    for start in range(0, len(points), CHUNK_SIZE):
        part = slice(start, start + CHUNK_SIZE)
        yield points[part], None if log_weights is None else log_weights[part]


def _same_precision(*tensors: Tensor) -> tuple[Tensor, ...]:
    """All in the widest dtype among them, float32 at least."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return tuple(tensor.to(dtype) for tensor in tensors)
