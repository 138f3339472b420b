"""How domain and test clips are chosen from one labelled set, and the task that every method is given.

for split in splits(labels, num_classes, PROTOCOLS, num_seeds=5):
    domain, test = video_embeds[split.domain], video_embeds[split.test]
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .names import PROTOCOLS


FEW_CLIPS = 64


@dataclass(frozen=True)
class Split:
    """Which clips are the domain and which the test; both are indices (n,) int64 into the set."""

    protocol: str
    seed: int
    domain: Tensor
    test: Tensor


@dataclass(frozen=True)
class Task:
    """What a method may see, and the labels it is measured with.

    Attributes:
        domain: Unit-norm domain embeddings (N, D) or (N, T, D).
        domain_labels: (N,) int64, -1 unlabelled; None when no label is given at all.
        test: Unit-norm test embeddings (M, D) or (M, T, D).
        text: Unit-norm class texts (K, D) or (K, P, D).
        logit_scale: Factor before the cosine, the backbone's own.
    """

    domain: Tensor
    test: Tensor
    text: Tensor
    domain_labels: Tensor | None = None
    logit_scale: float = 100.0

    def pooled(self) -> "Task":
        """The same task with frames and prompts averaged: (N, D), (M, D) and (K, D), unit-norm."""
        return Task(pool(self.domain), pool(self.test), pool(self.text), self.domain_labels, self.logit_scale)


# Logits (M, K) of a task's test clips.
Method = Callable[[Task], Tensor]


def pool(embeds: Tensor) -> Tensor:
    """Unit-norm mean over frames or prompts: (N, T, D) or (N, D) -> (N, D)."""
    embeds = normalize(embeds.float(), dim=-1)
    return normalize(embeds.mean(1), dim=-1) if embeds.dim() == 3 else embeds


def splits(
    labels: Tensor, num_classes: int, protocols: Sequence[str], num_seeds: int, shots: int = 0
) -> Iterator[Split]:
    """Every split of the named protocols; `full` comes once, as nothing in it is random unless shots are drawn.

    Args:
        labels: (N,) int64 in [0, num_classes).
        num_classes: Number of class texts, whether the class occurs or not.
        protocols: Names of `PROTOCOLS`.
        num_seeds: Seeds 0 .. num_seeds - 1 for each random protocol.
        shots: Labelled clips a class that will be drawn from the domain; only whether there are any matters here.

    Raises:
        ValueError: An unknown protocol, or a set too small for `few`.
    """
    for protocol in protocols:
        for seed in range(1 if protocol == "full" and not shots else num_seeds):
            yield split(protocol, seed, labels, num_classes)


def split(protocol: str, seed: int, labels: Tensor, num_classes: int) -> Split:
    """One split; the order of random draws is part of the protocol."""
    generator = torch.Generator().manual_seed(seed)
    num_clips = len(labels)
    if protocol == "full":
        everything = torch.arange(num_clips)
        return Split(protocol, seed, everything, everything)
    if protocol == "induct":
        order = torch.randperm(num_clips, generator=generator)
        return _nonempty(Split(protocol, seed, order[: num_clips // 2], order[num_clips // 2 :]))
    if protocol == "few":
        order = torch.randperm(num_clips, generator=generator)
        return _nonempty(Split(protocol, seed, order[:FEW_CLIPS], order[FEW_CLIPS:]))
    if protocol == "quarter":
        present = torch.randperm(num_classes, generator=generator)[: max(2, num_classes // 4)]
        kept = torch.isin(labels, present).nonzero()[:, 0]
    elif protocol == "imbal":
        share = torch.rand(num_classes, generator=generator) ** 3
        kept = (torch.rand(num_clips, generator=generator) < share[labels]).nonzero()[:, 0]
    else:
        raise ValueError(f"protocol {protocol!r} is unknown: choose from {', '.join(PROTOCOLS)}")
    return _nonempty(Split(protocol, seed, kept, kept))


def choose_shots(labels: Tensor, candidates: Tensor, shots: int, seed: int) -> Tensor:
    """Indices of up to `shots` clips of each class, drawn from `candidates` (n,) only; all where there are fewer."""
    order = candidates[torch.randperm(len(candidates), generator=torch.Generator().manual_seed(seed))]
    return torch.cat([order[labels[order] == k][:shots] for k in labels[candidates].unique().tolist()])


def _nonempty(found: Split) -> Split:
    for part, indices in (("domain", found.domain), ("test", found.test)):
        if not len(indices):
            raise ValueError(
                f"protocol {found.protocol!r} with seed {found.seed} leaves no {part} clip: the set is too small for "
                "it; choose others with --protocols"
            )
    return found
