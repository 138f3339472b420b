"""How domain and test clips are chosen from one labelled set, and the task that every method is given.

for split in splits(labels, num_classes, PROTOCOLS, num_seeds=5):
    domain, test = video_embeds[split.domain], video_embeds[split.test]
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..dkd_head import DKDHeadOutput
from .names import PROTOCOLS


FEW_CLIPS = 64


@dataclass(frozen=True)
class Split:
    """Which clips are the domain and which the test; both are indices (n,) int64 into the set.

    `asked` are the classes whose texts a method gets, (k,) int64 ascending; None: all.
    """

    protocol: str
    seed: int
    domain: Tensor
    test: Tensor
    asked: Tensor | None = None


@dataclass(frozen=True)
class Task:
    """What a method may see, and the labels it is measured with.

    Attributes:
        domain: Unit-norm domain embeddings (N, D) or (N, T, D).
        domain_labels: (N,) int64, -1 unlabelled; None when no label is given at all.
        test: Unit-norm test embeddings (M, D) or (M, T, D).
        text: Unit-norm class texts (K, D) or (K, P, D).
        logit_scale: Factor before the cosine, the backbone's own.
        queries: Unit-norm class texts (Q, D) or (Q, P, D) to answer for; None: those of `text`. A method that returns
            embeddings learns with `text` and returns those of `queries`.
        class_names: Name of each class of `text`; None: not known.
    """

    domain: Tensor
    test: Tensor
    text: Tensor
    domain_labels: Tensor | None = None
    logit_scale: float = 100.0
    queries: Tensor | None = None
    class_names: tuple[str, ...] | None = None

    @property
    def asked(self) -> Tensor:
        """Class texts to answer for."""
        return self.text if self.queries is None else self.queries

    def pooled(self) -> "Task":
        """The same task with frames and prompts averaged: (N, D), (M, D) and (K, D), unit-norm."""
        queries = None if self.queries is None else pool(self.queries)
        texts = pool(self.text)
        return replace(self, domain=pool(self.domain), test=pool(self.test), text=texts, queries=queries)

    def text_logits(self, videos: Tensor) -> Tensor:
        """Plain CLIP's logits (n, K) of pooled videos (n, D) of a pooled task."""
        return self.logit_scale * videos @ self.text.T


# Logits (M, K) of a task's test clips; a method that moves embeddings returns these too, and whatever else it knows.
Method = Callable[[Task], Tensor | DKDHeadOutput]


def compared(task: Task, videos: Tensor, texts: Tensor) -> DKDHeadOutput:
    """What a method returns that compares unit-norm videos (M, D) with unit-norm texts (K, D) by their cosine."""
    return DKDHeadOutput(task.logit_scale * videos @ texts.T, videos, texts)


def as_output(answer: Tensor | DKDHeadOutput) -> DKDHeadOutput:
    """The answer of a method, of which logits may be all."""
    return DKDHeadOutput(answer) if isinstance(answer, Tensor) else answer


def logits_of(answer: Tensor | DKDHeadOutput) -> Tensor:
    """Logits (M, K) of the answer of a method."""
    logits = as_output(answer).logits_per_video
    assert logits is not None
    return logits


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
    elif protocol == "open":
        return _open(seed, labels, num_classes)
    else:
        raise ValueError(f"protocol {protocol!r} is unknown: choose from {', '.join(PROTOCOLS)}")
    return _nonempty(Split(protocol, seed, kept, kept))


def half_asked(num_classes: int, seed: int) -> Tensor:
    """Classes whose texts are asked in the protocol `open`, a random half, ascending."""
    order = torch.randperm(num_classes, generator=torch.Generator().manual_seed(seed))
    return order[: num_classes // 2].sort().values


def _open(seed: int, labels: Tensor, num_classes: int) -> Split:
    """All clips are domain and test, half of the classes is asked."""
    asked = half_asked(num_classes, seed)
    is_known = torch.isin(labels, asked)
    if is_known.all() or not is_known.any():
        others = "of another class" if is_known.all() else "of a class that is asked"
        raise ValueError(
            f"protocol 'open' with seed {seed} asks {len(asked)} of {num_classes} classes and finds no clip {others}: "
            "the set has too few classes for it; choose others with --protocols"
        )
    everything = torch.arange(len(labels))
    return Split("open", seed, everything, everything, asked)


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
