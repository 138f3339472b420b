"""Run methods on the tasks of one embedding set and measure each: accuracy, calibration, time and memory."""

import ctypes
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..dkd_head import DKDHeadOutput
from ..embedding.embedding_cache import EmbeddingSet
from .methods.peers import zero_shot
from .metrics import class_accuracies, recognition_scores
from .names import GIVEN, REFERENCE
from .protocols import Method, Split, Task, as_output, choose_shots, logits_of, splits


T = TypeVar("T")


DOMAINS = {
    "full": "the test clips, unlabelled (transductive)",
    "induct": "a random half, unlabelled; tested on the other half (inductive)",
    "quarter": "the test clips, unlabelled, of a quarter of the classes (transductive)",
    "few": "64 random clips, unlabelled; tested on the rest (inductive)",
    "imbal": "the test clips, unlabelled, with a long tail (transductive)",
    "open": "the test clips, unlabelled, of all classes, half of which are asked (transductive)",
}


@dataclass(frozen=True)
class Measurement:
    """One row of results and what pairing it with another needs.

    Attributes:
        row: The row as it goes into results.json.
        clips: (M,) int64, which clips of the set were the test.
        labels: (M,) int64, their classes.
        predictions: (M,) int64, the best class of each.
    """

    row: dict[str, Any]
    clips: Tensor
    labels: Tensor
    predictions: Tensor

    @property
    def hits(self) -> Tensor:
        """(M,) float64, 1 where the prediction is right."""
        return (self.predictions == self.labels).double()


@dataclass(frozen=True)
class Plan:
    """Which tasks are made of every set: protocols (or, with a domain of its own, `given`), seeds and shots."""

    protocols: Sequence[str]
    num_seeds: int = 5
    shots: int = 0

    def num_tasks(self, has_domain: bool) -> int:
        """How many tasks a set gives."""
        if has_domain:
            return self.num_seeds if self.shots else 1
        return sum(1 if p == "full" and not self.shots else self.num_seeds for p in self.protocols)


def measure_set(
    name: str,
    test_set: EmbeddingSet,
    methods: Mapping[str, Method],
    plan: Plan,
    domain_set: EmbeddingSet | None = None,
    on_start: Callable[[str], None] = lambda description: None,
) -> Iterator[Measurement]:
    """Every method on every task of a set.

    Args:
        name: What the set is called in the rows.
        test_set: Labelled clips and class texts.
        methods: Row name -> function of a task. The row `zero-shot`, which all are compared with, is added where plain
            zero-shot is not among them, under this or another name.
        plan: Protocols, seeds and shots.
        domain_set: Domain clips of their own; None takes them from `test_set` by the protocols.
        on_start: Told what runs next, for a progress bar.

    Raises:
        ValueError: No class texts, an unlabelled test clip, a domain that does not fit the texts, or an answer of a
            method that is no logits.
    """
    if REFERENCE not in methods and zero_shot not in methods.values():
        methods = {REFERENCE: zero_shot, **methods}
    check_set(name, test_set, domain_set, plan)
    revision = data_revision(test_set)
    for split, task, labels in tasks(test_set, domain_set, plan):
        asked = torch.arange(len(task.text)) if split.asked is None else split.asked
        is_known = torch.isin(labels, asked)
        test_labels = labels[is_known]
        for method_name, method in methods.items():
            on_start(f"{name} {split.protocol} {split.seed} {method_name}")
            place = f"{method_name} on {name}, protocol {split.protocol}, seed {split.seed}"
            output, seconds, peak = _timed(method, task, place)
            logits = logits_of(output)[is_known]
            row: dict[str, Any] = {
                "method": method_name,
                "data": described(name, test_set, domain_set, split) | {"data_revision": revision},
                "protocol": split.protocol,
                "seed": split.seed,
                "shots": plan.shots,
                **_scores(logits, test_labels, asked, test_set.class_names),
                **({} if split.asked is None else _rejection(output, is_known)),
                "n": len(test_labels),
                "n_domain": len(task.domain),
                "seconds": round(seconds, 4),
                "peak_memory_mib": None if peak is None else round(peak, 1),
            }
            yield Measurement(row, split.test[is_known], test_labels, asked[logits.argmax(1)])


def check_set(name: str, test_set: EmbeddingSet, domain_set: EmbeddingSet | None, plan: Plan) -> None:
    """Raise a ValueError unless the set can be tested, with this domain."""
    if test_set.text_embeds is None:
        raise ValueError(f"{name}: there are no class texts; give them with --text_embeddings FILE")
    unlabelled = int((test_set.labels < 0).sum())
    if unlabelled:
        raise ValueError(f"{name}: {unlabelled} clips have no label and cannot be tested; use them with --domain")
    if domain_set is None:
        return
    if plan.shots and domain_set.video_embeds.equal(test_set.video_embeds):
        raise ValueError(
            f"{name}: with --shots, labelled domain clips must not be tested, and both files are the same"
        )
    dims = test_set.text_embeds.shape[-1], domain_set.video_embeds.shape[-1]
    if dims[0] != dims[1]:
        raise ValueError(f"{name}: the domain's embeddings have {dims[1]} dimensions, the class texts {dims[0]}")
    if int(domain_set.labels.max()) >= len(test_set.text_embeds):
        raise ValueError(
            f"{name}: label {int(domain_set.labels.max())} of the domain is out of range for "
            f"{len(test_set.text_embeds)} class texts"
        )


def tasks(test_set: EmbeddingSet, domain_set: EmbeddingSet | None, plan: Plan) -> Iterator[tuple[Split, Task, Tensor]]:
    """Splits with their tasks and the labels of their tests; shots are drawn from the domain and never tested."""
    assert test_set.text_embeds is not None
    videos, labels = normalize(test_set.video_embeds, dim=-1), test_set.labels
    texts = normalize(test_set.text_embeds, dim=-1)
    scale = float(test_set.metadata.get("logit_scale", 100.0))
    if domain_set is None:
        domain_videos, domain_labels = videos, labels
        found = splits(labels, len(texts), plan.protocols, plan.num_seeds, plan.shots)
    else:
        domain_videos, domain_labels = normalize(domain_set.video_embeds, dim=-1), domain_set.labels
        clips = torch.arange(len(domain_labels)), torch.arange(len(labels))
        found = (Split(GIVEN, seed, *clips) for seed in range(plan.num_tasks(has_domain=True)))
    for split in found:
        test, known = split.test, None
        if plan.shots:
            labelled = split.domain[domain_labels[split.domain] >= 0]
            if not len(labelled):
                raise ValueError("--shots needs labels in the domain, and none of its clips has one")
            chosen = choose_shots(domain_labels, labelled, plan.shots, split.seed)
            known = torch.where(torch.isin(split.domain, chosen), domain_labels[split.domain], -1)
            test = test if domain_set is not None else test[~torch.isin(test, chosen)]
            if not len(test):
                raise ValueError(f"--shots {plan.shots} leaves no clip to test in protocol {split.protocol!r}")
        asked = split.asked
        if asked is not None and known is not None:  # a label of a class that is not asked says nothing
            known = torch.where(torch.isin(known, asked), torch.searchsorted(asked, known), -1)
        chosen_classes = range(len(texts)) if asked is None else asked.tolist()
        names = tuple(test_set.class_names[k] for k in chosen_classes)
        chosen_texts = texts if asked is None else texts[asked]
        task = Task(domain_videos[split.domain], videos[test], chosen_texts, known, scale, class_names=names)
        yield Split(split.protocol, split.seed, split.domain, test, asked), task, labels[test]


def _scores(logits: Tensor, labels: Tensor, asked: Tensor, class_names: list[str]) -> dict[str, Any]:
    """Metrics and per-class accuracies of logits (M, k) for k classes, as fractions rounded to six digits."""
    places = torch.searchsorted(asked, labels).numpy()
    scores = recognition_scores(logits.numpy(), places)
    per_class = class_accuracies(logits.numpy(), places)
    return {
        **{name: round(value, 6) for name, value in scores.items()},
        "per_class": {class_names[asked[k]]: round(value, 6) for k, value in per_class.items()},
    }


def _rejection(output: DKDHeadOutput, is_known: Tensor) -> dict[str, Any]:
    from .ranking import rejection  # scikit-learn takes a second too

    return rejection(output, is_known)


def described(name: str, test_set: EmbeddingSet, domain_set: EmbeddingSet | None, split: Split) -> dict[str, Any]:
    """What a row says of its data: the fields that make two figures comparable."""
    assert test_set.text_embeds is not None
    known = test_set.metadata
    prompts = known.get("prompts") or known.get("texts")
    if isinstance(prompts, list) and len(prompts) > 8:
        prompts = f"{len(prompts)} prompts"
    if domain_set is None:
        domain = DOMAINS[split.protocol]
    else:
        own = " ".join(str(domain_set.metadata[k]) for k in ("dataset", "split") if k in domain_set.metadata)
        domain = f"{own or 'another file'}, {len(domain_set.labels)} clips, unlabelled but for shots (inductive)"
    return {
        "name": name,
        "split": known.get("split"),
        "classes": len(test_set.text_embeds) if split.asked is None else len(split.asked),
        "backbone": known.get("backbone"),
        "revision": known.get("revision"),
        "frames": known.get("frames"),
        "prompts": prompts,
        "domain": domain,
    }


def data_revision(test_set: EmbeddingSet) -> str:
    """Which clips with which labels: a hash of their names, or of their embeddings where they have no names."""
    digest = hashlib.sha256(test_set.labels.numpy().tobytes())
    names = test_set.metadata.get("names")
    digest.update(json.dumps(names).encode() if names else test_set.video_embeds.numpy().tobytes())
    return f"sha256:{digest.hexdigest()[:16]}"


@torch.no_grad()
def _timed(method: Method, task: Task, place: str) -> tuple[DKDHeadOutput, float, float | None]:
    """The method's answer, checked, seconds, and what `growth_of_memory` tells."""

    def timed() -> tuple[Tensor | DKDHeadOutput, float]:
        start = time.perf_counter()
        return method(task), time.perf_counter() - start

    (answer, seconds), growth = growth_of_memory(timed)
    return checked_answer(answer, task, place), seconds, growth


def checked_answer(answer: Any, task: Task, place: str) -> DKDHeadOutput:
    """The answer of a method with float logits.

    Raises:
        ValueError: It is no tensor (M, K), or not finite; the message begins with `place`.
    """
    logits = answer.logits_per_video if isinstance(answer, DKDHeadOutput) else answer
    expected = (len(task.test), len(task.asked))
    if not isinstance(logits, Tensor):
        raise ValueError(f"{place}: returns {type(logits).__name__}, not a torch tensor of logits {expected}")
    if tuple(logits.shape) != expected:
        raise ValueError(
            f"{place}: returns shape {tuple(logits.shape)}, not {expected}: a row for each of {expected[0]} test "
            f"clips, a column for each of {expected[1]} class texts"
        )
    logits = logits.detach().cpu().float()
    if not logits.isfinite().all():
        row = int((~logits.isfinite().all(1)).nonzero()[0])
        raise ValueError(f"{place}: returns NaN or infinity, first for test clip {row}")
    return as_output(answer)._replace(logits_per_video=logits)


def growth_of_memory(work: Callable[[], T]) -> tuple[T, float | None]:
    """What the work gives, and MiB that the process grew by at its peak (None where the system does not tell)."""
    before = _resident_memory("VmRSS") if _reset_peak_memory() else None
    result = work()
    peak = _resident_memory("VmHWM")
    return result, None if before is None or peak is None else max(peak - before, 0.0)


def _reset_peak_memory() -> bool:
    """Start counting this process's peak resident memory anew (Linux only)."""
    # Pages that an earlier run freed but the allocator keeps would hide the growth: give them back (glibc only).
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _resident_memory(field: str) -> float | None:
    """A memory field of this process in MiB (Linux only); psutil does not tell the peak there."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    found = next((line for line in status.splitlines() if line.startswith(f"{field}:")), None)
    return None if found is None else int(found.split()[1]) / 1024
