"""What a checkpoint of a model gave, checked: nothing of the encoders may be missing, and no domain be half there."""

from typing import Any

import torch

from .configuration_dkd import DKDCLIPConfig
from .dkd_head import DKDHead
from .domain_file import EXACT_DTYPES, no_domain
from .precision import has_values


def refuse_missing(missing: set[str], source: Any) -> None:
    """Raise for weights that the checkpoint lacks: they would be random numbers."""
    if missing:
        raise ValueError(
            f"{source} lacks {len(missing)} of the backbone's weights (the first is {min(missing)}); "
            "it is incomplete or belongs to another architecture"
        )


def refuse_mismatch(mismatched: set[tuple[str, Any, Any]], source: Any, config: DKDCLIPConfig) -> None:
    """Raise for weights of another shape than the configuration says."""
    if mismatched:
        key, stored, expected = min(mismatched)
        raise ValueError(
            f"{source} has {key} of shape {tuple(stored)}, but the config (projection_dim={config.projection_dim}, "
            f"num_components={config.num_components}) says {tuple(expected)}; load it with the config saved beside it"
        )


def check_loaded_domain(head: DKDHead, lost: set[str], stored: dict[str, torch.dtype], source: str) -> None:
    """Raise unless the head has a whole domain.

    Args:
        head: As it was loaded.
        lost: Its tensors that the checkpoint lacks or has in another shape.
        stored: Dtypes in which the checkpoint has the others.
        source: What messages call the checkpoint.

    Raises:
        ValueError: Something is missing, not fitted, or was rounded.
    """
    if lost:
        raise no_domain(source, f"lacks head.{min(lost)}")
    state = head.state_dict()
    head.check_domain(state, source)
    if has_values(state["weights"]) and not head.is_fitted:
        raise no_domain(source, "is not fitted")
    if rounded := {name: dtype for name, dtype in stored.items() if dtype not in EXACT_DTYPES}:
        name = min(rounded)
        raise no_domain(source, f"has head.{name} of {rounded[name]} instead of {EXACT_DTYPES[0]}")
