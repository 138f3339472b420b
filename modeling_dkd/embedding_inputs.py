"""What a head is given, checked: embeddings as particles, shards of them, labels."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .domain_statistics import Videos
from .precision import has_values


# Texts nearer than this are the same class.
SAME_CLASS_COSINE = 0.999
logger = logging.getLogger(__name__)
# Numbers of a tensor that are made ready at once: more leave the processor's caches, and take memory.
NUMBERS_AT_ONCE = 2**20


def as_particles(embeds: Tensor, name: str, dim: int) -> Tensor:
    """Checked unit embeddings (N, P, D), float32, each set then scaled so that its mean has unit norm.

    Args:
        embeds: (N, D) or (N, P, D), any float dtype, any lengths.
        name: What messages call them.
        dim: D.

    Raises:
        ValueError: Wrong shape, dtype or D, a value that is not finite, or a zero embedding.
    """
    if not isinstance(embeds, Tensor) or not embeds.is_floating_point():
        kind = f"{embeds.dtype}" if isinstance(embeds, Tensor) else type(embeds).__name__
        raise ValueError(
            f"{name} must be a torch.Tensor of floats, not {kind}; torch.as_tensor(..., dtype=...) makes one."
        )
    if embeds.dim() not in (2, 3) or embeds.shape[-1] != dim or 0 in embeds.shape:
        raise ValueError(
            f"{name} must be (N, {dim}) or (N, particles, {dim}), at least one of each, not {tuple(embeds.shape)}."
        )
    if has_values(embeds) and not bool(embeds.isfinite().all()):
        index = [int(i) for i in (~embeds.isfinite()).nonzero()[0]]
        raise ValueError(f"{name}{index} is not finite; look at what the encoder was given for item {index[0]}.")
    particles = normalize(embeds.to(torch.promote_types(embeds.dtype, torch.float32)), dim=-1).float()
    particles = particles[:, None] if particles.dim() == 2 else particles
    lengths = particles.mean(1, keepdim=True).norm(dim=-1, keepdim=True)
    if has_values(lengths) and bool((lengths < 1e-6).any()):
        position = int((lengths < 1e-6).nonzero()[0, 0])
        raise ValueError(f"{name}[{position}] is a zero embedding; leave it out or embed it again.")
    return particles / lengths.clamp_min(1e-6)


def in_pieces(embeds: Tensor, name: str) -> Iterator[tuple[Tensor, str]]:
    """Embeddings (n, ...), some rows at a time, and what messages call them; what has no rows comes whole."""
    has_rows = isinstance(embeds, Tensor) and embeds.dim() and embeds.numel()
    if not has_rows or not has_values(embeds):
        yield embeds, name
        return
    size = max(1, NUMBERS_AT_ONCE // embeds[0].numel())
    for start in range(0, len(embeds), size):
        yield embeds[start : start + size], f"{name}[{start}:]" if start else name


class PooledShards:
    """Embeddings, or shards of them, made ready piece by piece (n, D), as often as they are passed over."""

    def __init__(self, video_embeds: Videos, pool: Callable[[Tensor, str], Tensor]) -> None:
        if isinstance(video_embeds, Iterator) or not isinstance(video_embeds, Iterable):
            raise ValueError(
                f"video_embeds must be a torch.Tensor or shards that can be passed over again, such as a list, not "
                f"{type(video_embeds).__name__}; a generator is used up after the first round."
            )
        self.video_embeds, self.pool = video_embeds, pool

    def __iter__(self) -> Iterator[Tensor]:
        whole = isinstance(self.video_embeds, Tensor)
        for number, shard in enumerate([self.video_embeds] if whole else self.video_embeds):
            name = "video_embeds" if whole else f"shard {number} of video_embeds"
            for piece, called in in_pieces(shard, name):
                yield self.pool(piece, called)


def checked_labels(labels: Tensor | None, num_videos: int, num_classes: int) -> Tensor:
    """Labels (N,), int64, all -1 where none were given."""
    if labels is None:
        return torch.full((num_videos,), -1)
    if not isinstance(labels, Tensor):
        raise ValueError(f"labels must be a torch.Tensor of int64, not {type(labels).__name__}.")
    if labels.shape != (num_videos,) or labels.dtype != torch.int64:
        raise ValueError(
            f"labels must be int64 of shape ({num_videos},), got {labels.dtype} of {tuple(labels.shape)}."
        )
    wrong = ((labels < -1) | (labels >= num_classes)).nonzero()
    if len(wrong):
        index = int(wrong[0])
        raise ValueError(f"labels[{index}] is {int(labels[index])}, but must be -1 (unlabelled) to {num_classes - 1}.")
    return labels


def check_asked_labels(labels: Tensor, num_videos: int, num_classes: int) -> None:
    """Refuse labels that name no class."""
    if labels.shape != (num_videos,) or labels.dtype != torch.int64:
        raise ValueError(
            f"labels must be int64 of shape ({num_videos},), one a video, not {labels.dtype} of {tuple(labels.shape)}"
        )
    if not has_values(labels):
        return
    outside = (labels < 0) | (labels >= num_classes)
    if outside.any():
        index = int(outside.nonzero()[0])
        raise ValueError(f"labels[{index}] is {int(labels[index])}, but the classes are 0 to {num_classes - 1}")


def check_class_names(class_names: Sequence[str] | None, shape: Sequence[int]) -> None:
    """Refuse names that are not as many as the classes of texts (K, D), (K, P, D) or tokens (K, P, L)."""
    if class_names is None:
        return
    if isinstance(class_names, str) or len(class_names) != shape[0]:
        count = 1 if isinstance(class_names, str) else len(class_names)
        swapped = (
            f"; texts of {tuple(shape)} are {shape[0]} classes with {shape[1]} prompts each: swap the first two axes"
        )
        is_swapped = len(shape) == 3 and count == shape[1]
        remedy = swapped if is_swapped else "; give a list with one name a class"
        raise ValueError(f"class_names has {count} entries for {shape[0]} classes{remedy}")


def check_new_names(class_names: Sequence[str] | None, shape: Sequence[int] | None) -> None:
    """Refuse names that do not fit the classes, texts or tokens of this shape, one to one."""
    if class_names is None:
        return
    if shape is None:
        raise ValueError("class_names need input_ids or text_embeds that say what the classes are")
    check_class_names(class_names, shape)
    first_index: dict[str, int] = {}
    for index, name in enumerate(class_names):
        if first_index.setdefault(name, index) != index:
            raise ValueError(
                f"class_names[{first_index[name]}] and class_names[{index}] are both {name!r}; "
                "give each class its own name"
            )


def tell_same_classes(texts: Tensor, class_names: Sequence[str] | None) -> None:
    """Warn of classes with the same unit text, of (K, D): only labels can tell their videos apart."""
    pairs = [
        (start + row, column)
        for start in range(0, len(texts), 256)
        for row, column in (texts[start : start + 256] @ texts.T > SAME_CLASS_COSINE).nonzero().tolist()
        if start + row < column
    ]
    if not pairs:
        return
    called = [f"class {k}" for k in range(len(texts))] if class_names is None else [repr(name) for name in class_names]
    named = ", ".join(f"{called[i]} and {called[j]}" for i, j in pairs[:5]) + (" ..." if len(pairs) > 5 else "")
    _warn_once(
        f"classes have the same text for this encoder and cannot be told apart without labels: {named}; write them "
        "differently, or leave one out"
    )


@cache
def _warn_once(message: str) -> None:
    """A stream of fits to the same classes says it once."""
    logger.warning(message)
