"""Fitting a domain beside scikit-learn's GaussianMixture."""

import warnings

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as SklearnMixture
from torch import Tensor

from modeling_dkd import DKDCLIPConfig, DKDHead
from modeling_dkd.mixture_options import MixtureOptions

from .rows import Row, alternate, clustered, compare


SAMPLES, CLASSES, DIM = 10_000, 101, 512
NUM_ROUNDS = MixtureOptions().num_rounds


def measure() -> list[Row]:
    """DKDHead.fit of 10,000 x 512, 101 classes, and scikit-learn with as many EM rounds from the same texts."""
    videos, texts = clustered(SAMPLES, CLASSES, DIM)
    config = DKDCLIPConfig(projection_dim=DIM)
    peer, points = sklearn_mixture(videos, texts), videos.numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
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


def sklearn_mixture(videos: Tensor, texts: Tensor) -> SklearnMixture:
    """scikit-learn's mixture that runs as many EM rounds from the texts."""
    return SklearnMixture(
        len(texts),
        covariance_type="diag",
        means_init=texts.numpy(),
        weights_init=torch.full((len(texts),), 1 / len(texts), dtype=torch.float64).numpy(),
        precisions_init=(1 / videos.var(0, correction=0)).expand_as(texts).numpy(),
        max_iter=NUM_ROUNDS,
        tol=0.0,
    )
