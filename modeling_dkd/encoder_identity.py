"""Which encoder a domain belongs to: embeddings of one encoder mean nothing to another of the same size."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .precision import has_values


SAMPLED_VALUES = 64

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncoderIdentity:
    """What is known of an encoder; what is not known is never held against it.

    Attributes:
        projection_dim: D of its embeddings.
        name: Repository on the Hub, as owner/name, or the last part of a folder's path; "" where neither is known.
        revision: Commit of the repository.
        weights: `fingerprint` of its weights.
        preprocessing: Settings that frames are prepared with.
    """

    projection_dim: int
    name: str = ""
    revision: str | None = None
    weights: str | None = None
    preprocessing: dict[str, Any] | None = None

    def __str__(self) -> str:
        """As messages call it."""
        known = (self.revision and f"revision {self.revision[:12]}", self.weights and f"weights {self.weights}")
        told = [part for part in known if part] + [f"D {self.projection_dim}"]
        return f"{self.name or 'without a name'} ({', '.join(told)})"

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it, without what is not known."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}

    @classmethod
    def from_dict(cls, content: Any) -> "EncoderIdentity":
        """What `to_dict` gave.

        Raises:
            ValueError: It is something else (the message names the first wrong field).
        """
        kinds = {"projection_dim": int, "name": str, "revision": str, "weights": str, "preprocessing": dict}
        if not isinstance(content, Mapping) or "projection_dim" not in content:
            raise ValueError("no projection_dim")
        for name, value in content.items():
            if not isinstance(value, kinds.get(name, ())):
                raise ValueError(f"{str(name)[:40]!r} is {str(value)[:40]!r}")
        return cls(**content)

    def check_model(self, model: "EncoderIdentity", source: str) -> None:
        """Refuse a model whose encoder is another one than this one, which a domain belongs to.

        Equal weights are the same encoder, whatever it is called. Of one repository, another revision is told of by a
        warning, for most revisions change a card.

        Args:
            model: The encoder of the model.
            source: Where the domain is from, for the message.

        Raises:
            ValueError: It is another encoder (the message names both).
        """
        equal_weights = self._has_weights_of(model)
        both_repositories = "/" in self.name and "/" in model.name
        same_repository = both_repositories and self.name == model.name
        other_revision = None not in (self.revision, model.revision) and self.revision != model.revision
        is_other = self.projection_dim != model.projection_dim
        if not (same_repository and other_revision):
            is_other |= equal_weights is False or (both_repositories and not same_repository and not equal_weights)
        if is_other:
            raise ValueError(
                f"{source} belongs to the encoder {self}, but this model's encoder is {model}; load the "
                "domain's encoder, or fit a domain with this one."
            )
        if same_repository and other_revision:
            logger.warning(
                "%s was fitted with revision %s of %s, but this model is revision %s; if its weights differ, fit the "
                "domain again.",
                *(source, self.revision, self.name, model.revision),
            )
        if None not in (self.preprocessing, model.preprocessing) and self.preprocessing != model.preprocessing:
            logger.warning("%s was fitted on frames that were prepared otherwise than this model's.", source)

    def _has_weights_of(self, other: "EncoderIdentity") -> bool | None:
        """Whether weights are the same; None where that is not known, or one of them was rounded to another dtype."""
        if self.weights is None or other.weights is None:
            return None
        dtypes = [weights.partition(":")[0] for weights in (self.weights, other.weights)]
        return None if dtypes[0] != dtypes[1] else self.weights == other.weights


def fingerprint(encoder: nn.Module) -> str | None:
    """The dtype and a hash of 64 values of each tensor: training changes it, another name does not.

    Returns:
        As in "float32:0123456789abcdef"; None where there are no values, as on the device "meta".
    """
    digest, dtype = hashlib.sha256(), "integers"
    for name, tensor in sorted(encoder.state_dict().items()):
        if not has_values(tensor):
            return None
        if tensor.is_floating_point() and dtype == "integers":
            dtype = str(tensor.dtype).removeprefix("torch.")
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        count = tensor.numel()
        positions = [i * (count - 1) // (SAMPLED_VALUES - 1) for i in range(SAMPLED_VALUES)] if count else []
        values = tensor.detach().reshape(-1)[torch.tensor(positions, dtype=torch.int64, device=tensor.device)]
        digest.update(values.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return f"{dtype}:{digest.hexdigest()[:16]}"


def cached_commit(name_or_path: Any, options: Mapping[str, Any]) -> str | None:
    """Commit of a repository that has just been loaded, as the cache of the Hub tells; None for a folder.

    Args:
        name_or_path: What was loaded; None where the weights were in memory.
        options: What it was loaded with, of which `revision` and `cache_dir` matter.
    """
    if name_or_path is None or Path(name_or_path).exists():
        return None
    from huggingface_hub import try_to_load_from_cache  # loads slowly, and a head alone needs none of it

    try:
        found = try_to_load_from_cache(
            str(name_or_path), "config.json", options.get("cache_dir"), options.get("revision") or "main"
        )
    except ValueError:  # no name of a repository
        return None
    return Path(found).parent.name if isinstance(found, str) else None


def known_name(name_or_path: str) -> str:
    """The repository, or what a folder is called: where it lies on a machine is nobody's business."""
    if not name_or_path or Path(name_or_path).is_absolute() or Path(name_or_path).exists():
        return Path(name_or_path).name
    return name_or_path if name_or_path.count("/") <= 1 else Path(name_or_path).name
