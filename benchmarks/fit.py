"""Fitting a domain beside scikit-learn's GaussianMixture and TransCLIP."""

import warnings
from functools import partial

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as SklearnMixture
from torch import Tensor

from modeling_dkd import DKDCLIPConfig, DKDHead
from modeling_dkd.evaluation.methods.peers import transclip
from modeling_dkd.evaluation.protocols import Task
from modeling_dkd.mixture_options import MixtureOptions

from .rows import Row, alternate, clustered, compare


SAMPLES, FEW_SAMPLES, CLASSES, DIM = 10_000, 1_000, 101, 512
NUM_ROUNDS = MixtureOptions().num_rounds


def measure() -> list[Row]:
    """DKDHead.fit of 10,000 x 512, 101 classes, and scikit-learn's EM from the same texts; of 1,000, and TransCLIP.

    Both mixtures end by their own rule, after ten rounds at most; in the second row scikit-learn goes on to the tenth.
    """
    return [*beside_scikit_learn(), beside_transclip()]


def beside_scikit_learn() -> list[Row]:
    """A row for each rule to end."""
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


def beside_transclip() -> Row:
    """A small domain, and a peer that is fitted anew to whatever it classifies."""
    videos, texts = clustered(FEW_SAMPLES, CLASSES, DIM)
    config, task = DKDCLIPConfig(projection_dim=DIM), Task(videos, videos, texts)
    with torch.inference_mode():
        runs = {"ours": lambda: DKDHead(config).fit(videos, texts), "peer": lambda: transclip(task)}
        seconds = alternate(15, runs)
    title = f"DKDHead.fit, {FEW_SAMPLES:,} x {DIM}, {CLASSES} classes, float32"
    return compare(title, seconds["ours"], "TransCLIP, fit and predict", seconds["peer"], "s")


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
