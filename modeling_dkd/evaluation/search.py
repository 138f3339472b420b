"""Text-to-video search with the embeddings that methods return: fitted texts, and texts that no method has seen.

    for row in measure_search("ucf101", test_set, methods, Plan(("full",))):
        row["texts"], row["method"], row["map"]

The domain is that of `full`, all clips without labels, or a file of its own. "fitted": a method learns with all class
texts, and each of them asks for its clips. "new": it learns with every second text (0, 2, ...), and the others ask.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..embedding.embedding_cache import EmbeddingSet
from .measurement import Plan, check_set, checked_answer, data_revision, described, tasks
from .protocols import Method, Task


FITTED, NEW = "fitted", "new"


def measure_search(
    name: str,
    test_set: EmbeddingSet,
    methods: Mapping[str, Method],
    plan: Plan,
    domain_set: EmbeddingSet | None = None,
    on_start: Callable[[str], None] = lambda description: None,
) -> Iterator[dict[str, Any]]:
    """One row for fitted and one for new texts, of every method; arguments as of `measurement.measure_set`.

    Raises:
        ValueError: The set cannot be tested, or a method returns no embeddings.
    """
    from .ranking import search_scores  # scikit-learn takes a second

    plan = replace(plan, protocols=("full",), num_seeds=1)
    check_set(name, test_set, domain_set, plan)
    split, task, labels = next(tasks(test_set, domain_set, plan))
    data = described(name, test_set, domain_set, split) | {"data_revision": data_revision(test_set)}
    for texts, asked_task, classes in _askings(task):
        if not torch.isin(labels, classes).any():
            continue
        for method_name, method in methods.items():
            on_start(f"{name} search {texts} {method_name}")
            place = f"{method_name} on {name}, search with {texts} texts"
            with torch.no_grad():
                output = checked_answer(method(asked_task), asked_task, place)
            if output.video_embeds is None or output.text_embeds is None:
                raise ValueError(f"{place}: returns no embeddings, which search needs")
            scores = search_scores(output.video_embeds @ output.text_embeds.T, labels, classes)
            yield {"method": method_name, "data": data, "texts": texts, **scores, "n": len(labels)}


def num_searches(test_set: EmbeddingSet) -> int:
    """How many rows a method gives on a set."""
    return 1 if test_set.text_embeds is None or len(test_set.text_embeds) < 2 else 2


def _askings(task: Task) -> Iterator[tuple[str, Task, Tensor]]:
    """Which texts ask, the task, and their classes."""
    classes = torch.arange(len(task.text))
    yield FITTED, task, classes
    if len(classes) > 1:
        known = task.domain_labels
        if known is not None:  # of every second class; the others are not fitted
            known = torch.where((known >= 0) & (known % 2 == 0), known // 2, -1)
        names = None if task.class_names is None else task.class_names[::2]
        fitted = replace(task, text=task.text[::2], queries=task.text[1::2], domain_labels=known, class_names=names)
        yield NEW, fitted, classes[1::2]
