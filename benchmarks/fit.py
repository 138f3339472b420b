"""Fitting a domain beside scikit-learn's GaussianMixture."""

import warnings
from functools import partial

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
    """DKDHead.fit of 10,000 x 512, 101 classes, and scikit-learn's EM from the same texts.

    Both end by their own rule, after ten rounds at most; in the second row scikit-learn goes on to the tenth.
    """
    videos, texts = clustered(SAMPLES, CLASSES, DIM)
    config = DKDCLIPConfig(projection_dim=DIM)
    peers, points = {"as it is": sklearn_mixture(videos, texts), "all": sklearn_mixture(videos, texts)}, videos.numpy()
    peers["all"].tol = 0.0
    runs = {"ours": lambda: DKDHead(config).fit(videos, texts)} | {
        name: partial(peer.fit, points) for name, peer in peers.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        seconds = alternate(3, runs)
    return [
        compare(
            f"DKDHead.fit, {SAMPLES:,} x {DIM}, {CLASSES} classes, float32",
            seconds["ours"],
            f"scikit-learn GaussianMixture(diag), {peer.n_iter_} rounds, float32",
            seconds[name],
            "s",
        )
        for name, peer in peers.items()
    ]


def sklearn_mixture(videos: Tensor, texts: Tensor) -> SklearnMixture:
    """scikit-learn's mixture that starts from the texts and runs as many EM rounds at most."""
    return SklearnMixture(
        len(texts),
        covariance_type="diag",
        means_init=texts.numpy(),
        weights_init=torch.full((len(texts),), 1 / len(texts), dtype=torch.float64).numpy(),
        precisions_init=(1 / videos.var(0, correction=0)).expand_as(texts).numpy(),
        max_iter=NUM_ROUNDS,
    )
