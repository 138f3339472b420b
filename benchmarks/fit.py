"""Fitting a domain beside scikit-learn's GaussianMixture, and the likelihood that both reach."""

import warnings
from collections.abc import Callable

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as SklearnMixture
from torch import Tensor

from modeling_dkd import DKDCLIPConfig, DKDHead
from modeling_dkd.class_mixture import NUM_ROUNDS
from modeling_dkd.gaussian_mixture import GaussianMixture, VarianceType, fit_gaussian_mixture

from .rows import Row, alternate, clustered, compare, digits, milliseconds


SAMPLES, CLASSES, DIM = 10_000, 101, 512
EM_SAMPLES, ITERATIONS = 20_000, 5


def measure() -> list[Row]:
    """The whole fit, then single EM iterations from the same start, then the likelihoods."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return [*whole_fit(), *em_iterations()]


def whole_fit() -> list[Row]:
    """DKDHead.fit of 10,000 x 512, 101 classes, and scikit-learn with as many EM rounds from the same texts."""
    videos, texts = clustered(SAMPLES, CLASSES, DIM)
    config = DKDCLIPConfig(projection_dim=DIM)
    weights = torch.full((CLASSES,), 1 / CLASSES)
    spread = videos.var(0, correction=0).expand(CLASSES, DIM)
    peer = sklearn_mixture(GaussianMixture(weights, texts, spread), torch.float32, NUM_ROUNDS)
    points = videos.numpy()
    seconds = alternate(3, {"ours": lambda: DKDHead(config).fit(videos, texts), "peer": lambda: peer.fit(points)})
    return [
        compare(
            f"DKDHead.fit, {SAMPLES:,} x {DIM}, {CLASSES} classes, float32",
            seconds["ours"],
            f"scikit-learn GaussianMixture(diag), {NUM_ROUNDS} rounds, float32",
            seconds["peer"],
            "s",
        )
    ]


def em_iterations() -> list[Row]:
    """Milliseconds of an EM iteration, and mean log-likelihood after five, of both from the same start."""
    videos, texts = clustered(EM_SAMPLES, CLASSES, DIM)
    weights = torch.full((CLASSES,), 1 / CLASSES)
    start = GaussianMixture(weights, texts, videos.var(0, correction=0).expand(CLASSES, DIM).clone())
    double, single = torch.float64, torch.float32
    ours = {
        "diagonal, float64": our_fit(videos, start, double, "diagonal"),
        "diagonal, float32": our_fit(videos, start, single, "diagonal"),
        "shared diagonal, float32": our_fit(videos, start, single, "shared"),
    }
    peers = {dtype: sklearn_mixture(start, dtype, ITERATIONS) for dtype in (double, single)}
    points = {dtype: videos.to(dtype).numpy() for dtype in peers}
    sides: dict[str, Callable[[], object]] = {**ours}
    sides |= {str(dtype): lambda dtype=dtype: peers[dtype].fit(points[dtype]) for dtype in peers}  # type: ignore[misc]
    seconds = alternate(3, sides)
    likelihood = {dtype: float(peer.score(points[dtype])) for dtype, peer in peers.items()}
    rows = []
    for name, fit in ours.items():
        dtype = double if "float64" in name else single
        other = f"scikit-learn diag, {str(dtype).removeprefix('torch.')}"
        rows.append(
            compare(
                f"one EM iteration, {name}, {EM_SAMPLES:,} x {DIM}, {CLASSES} components",
                milliseconds([value / ITERATIONS for value in seconds[name]]),
                other,
                milliseconds([value / ITERATIONS for value in seconds[str(dtype)]]),
                "ms",
            )
        )
        if "shared" in name:
            continue
        reached = float(fit().log_likelihood(videos.to(dtype)))
        rows.append(
            Row(
                f"log-likelihood a sample after {ITERATIONS} iterations, {name}",
                round(reached, 3),
                other,
                round(likelihood[dtype], 3),
                "nats",
                note=f"relative difference {digits(abs(reached - likelihood[dtype]) / abs(likelihood[dtype]))}",
            )
        )
    return rows


def our_fit(
    videos: Tensor, start: GaussianMixture, dtype: torch.dtype, variance_type: VarianceType
) -> Callable[[], GaussianMixture]:
    """Five EM iterations of ours from the start."""
    initial = GaussianMixture(start.weights.to(dtype), start.means.to(dtype), start.variances.to(dtype))
    points = videos.to(dtype)
    options = {"variance_type": variance_type, "num_iterations": ITERATIONS, "tolerance": -1.0}
    return lambda: fit_gaussian_mixture(points, initial=initial, **options)[0]  # type: ignore[arg-type]


def sklearn_mixture(start: GaussianMixture, dtype: torch.dtype, rounds: int) -> SklearnMixture:
    """scikit-learn's mixture that runs these EM rounds from the start."""
    weights = start.weights.to(dtype).numpy()
    return SklearnMixture(
        len(weights),
        covariance_type="diag",
        means_init=start.means.to(dtype).numpy(),
        weights_init=weights / weights.sum(),
        precisions_init=1 / start.variances.to(dtype).numpy(),
        max_iter=rounds,
        tol=0.0,
    )
