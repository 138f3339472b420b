"""Why labels may be worth little, each said in one line with what to do."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch.nn.functional import normalize

from .. import embedding_inputs
from ..data.counting import counted
from .predictions import Prediction, Question


DESCRIBE = 'write a JSON file {"class": "a sentence that describes it", ...} and name it with --descriptions'
# Mean text embeddings nearer than this are one text to the encoder.
SAME_TEXT_COSINE = 0.99999
# The smallest domain that is measured, beside plain zero-shot: `few` in docs/results.md.
FEW_CLIPS = 64
# Share of the way from guessing to certainty below which mean confidence counts as guessing.
CHANCE_SHARE = 0.05
# Share of the clips in one class from which on it is remarkable.
ONE_CLASS_SHARE = 0.9


def same_texts(question: Question) -> list[list[str]]:
    """Groups of classes whose texts have the same embedding: the encoder cannot tell them apart."""
    texts = normalize(normalize(question.text_embeds, dim=-1).mean(1), dim=-1)
    groups: list[list[int]] = []
    for row, text in enumerate(texts):
        group = next((g for g in groups if float(texts[g[0]] @ text) > SAME_TEXT_COSINE), None)
        if group is None:
            groups.append([row])
        else:
            group.append(row)
    return [[question.class_names[row] for row in group] for group in groups if len(group) > 1]


def same_text_doubts(question: Question) -> list[str]:
    """Which classes cannot be told apart because their texts have the same embedding, a line a group."""
    doubts = []
    for group in same_texts(question):
        named = ", ".join(group[:5]) + (" ..." if len(group) > 5 else "")
        doubts.append(
            f"{len(group)} classes have the same text embedding ({named}), so clips of them cannot be told apart; the "
            f"model may not know these words, so say it in others: {DESCRIBE}"
        )
    return doubts


@contextmanager
def without_log_of_same_texts() -> Iterator[None]:
    """What a head logs of classes with one text `same_text_doubts` say, with what to do."""
    logger = logging.getLogger(embedding_inputs.__name__)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def small_domain_doubts(num_fitted: int, num_classes: int, unit: str) -> list[str]:
    """A line where a domain was fitted to so few clips, or windows, that single labels may be worse for it."""
    if num_fitted >= max(FEW_CLIPS, num_classes):
        return []
    return [
        f"the domain is only {counted(num_fitted, unit)} for {counted(num_classes, 'class')}, too few to trust each "
        "label more than the model's own; add more from the same place (a few hundred make a good domain), use one "
        "that an earlier run saved (--domain FOLDER), or compare with what the model says alone (--no-adapt)"
    ]


def require_different_texts(question: Question, encoder: str) -> None:
    """Refuse classes that are all one text to the encoder.

    Raises:
        ValueError: They are.
    """
    if len(question.class_names) > 1 and any(len(g) == len(question.class_names) for g in same_texts(question)):
        raise ValueError(
            f"{encoder} gives all {len(question.class_names)} classes the same text embedding, so it knows none of "
            f"their words; take another --model, or words that it knows: {DESCRIBE}"
        )


def doubts_about(
    found: Sequence[Prediction], question: Question, num_fitted: int | None, reject_below: float
) -> list[str]:
    """Why these labels may be worth little, and what to do about it.

    Args:
        found: Predictions of the clips that were read, at least one.
        question: The classes.
        num_fitted: Clips that the domain was fitted to now; None where none was.
        reject_below: Below which `known` a clip is rejected.
    """
    num_classes, clips = len(question.class_names), counted(len(found), "clip")
    doubts = same_text_doubts(question)
    if num_classes == 1:
        doubts.append(
            "only one class is asked, so every clip gets it; name at least one more, such as what else happens there, "
            "or say from which probability on a clip shows it (--reject-below 0.5)"
        )
    if num_fitted is not None:
        doubts += small_domain_doubts(num_fitted, num_classes, "clip")
    mean = sum(p.confidence or 0.0 for p in found) / len(found)
    chance = 1 / num_classes
    if num_classes > 1 and mean < chance + CHANCE_SHARE * (1 - chance):
        doubts.append(
            f"the mean confidence is {mean:.1%} where guessing among {num_classes} classes is {chance:.1%}: the model "
            "does not tell these classes apart in these clips; take another one, trained on such videos (--model), or "
            f"say it in other words: {DESCRIBE}"
        )
    most, count = Counter(p.guess for p in found).most_common(1)[0]
    if num_classes > 1 and len(found) >= 20 and count >= ONE_CLASS_SHARE * len(found):
        doubts.append(
            f"{count} of {clips} are taken for {most!r}; if that is wrong, its text fits everything: add the classes "
            f"that are missing, or say it in other words: {DESCRIBE}"
        )
    if all(p.is_rejected for p in found):
        highest = max(p.known or 0.0 for p in found)
        doubts.append(all_rejected_doubt(clips, highest, reject_below))
    return doubts


def all_rejected_doubt(clips: str, highest: float, reject_below: float) -> str:
    """A line where nothing gets a label: of how many clips, and the highest `known` of them."""
    return (
        f"all of {clips} rejected, where the highest known is {highest:.2f} and --reject-below {reject_below:g}; "
        "give a lower one, or ask for the classes that they show"
    )
