"""What a head keeps of its domain: every fitted buffer, its shape, and its value before `fit`."""

from dataclasses import fields

import torch
from torch import Tensor

from .class_mixture import ClassMixture
from .domain_statistics import DomainStatistics
from .gaussian_mixture import WEIGHTS_TOLERANCE
from .text_frame import TextFrame


# Of K components, in D dimensions.
BUFFER_AXES = {
    # The mixture: its shares of samples, the fields of ClassMixture, and whether components are classes (1, else 0).
    "weights": "K",
    "means": "KD",
    "variances": "D",
    "precision": "DD",
    "counts": "K",
    "anchor_weights": "K",
    "log_frequency": "K",
    "domain_mean": "D",
    "mean_direction": "D",
    "anchor_scale": "",
    "temperature": "",
    "anchored": "",
    # The class texts as given and debiased, and the fields of TextFrame.
    "fitted_texts": "KD",
    "text_scale": "K",
    "text_bias": "K",
    # How far they are trusted (text_trust.py).
    "text_trust": "",
    "class_strength": "K",
    "unit_axis": "D",
    "norm_axis": "D",
    "text_centre": "D",
    "text_norm": "",
    "text_bases": "KD",
    "text_targets": "KD",
    # The directions of the fitted texts, and the fields of KnownModel.
    "known_directions": "KD",
    "known_slope": "",
    "known_offset": "",
    "known_floor": "",
    # What `update` adds to.
    "num_samples": "",
    "num_labelled": "",
    "prior_counts": "K",
    "sums": "KD",
    "second_moments": "DD",
    "logit_sums": "3K",
}
# Divisors are one before `fit`; everything else is zero, with which nothing moves.
UNFITTED = {name: float(name in {"variances", "temperature", "text_norm", "text_trust"}) for name in BUFFER_AXES}

# Named here, for torch.compile cannot look into a dataclass.
MIXTURE_FIELDS = tuple(field.name for field in fields(ClassMixture))
FRAME_FIELDS = tuple(field.name for field in fields(TextFrame))
STATISTICS_FIELDS = tuple(field.name for field in fields(DomainStatistics))


def buffer_shapes(num_components: int, dim: int) -> dict[str, tuple[int, ...]]:
    """Every fitted buffer and its shape."""
    sizes = {"K": num_components, "D": dim, "3": 3}
    return {name: tuple(sizes[axis] for axis in axes) for name, axes in BUFFER_AXES.items()}


def are_shares(weights: Tensor) -> bool:
    """Whether these are the weights of a mixture, (K,); all 0 where none is fitted."""
    total = float(weights.sum(dtype=torch.float64))
    return bool((weights >= 0).all()) and (total == 0 or abs(total - 1) <= WEIGHTS_TOLERANCE)
