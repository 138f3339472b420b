"""What was made of clips, and how a head makes it of their embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..dkd_head import DKDHead
from .saved_domain import SavedDomain


NUM_RUNNERS_UP = 4


@dataclass(frozen=True)
class Prediction:
    """What was made of one clip.

    Attributes:
        clip: Name of the clip, as it was given.
        path: Where it is; "" where embeddings were given.
        label: The class; None where the clip is rejected or could not be read.
        guess: The likeliest class, also of a rejected clip; None where it could not be read.
        confidence: Probability of `guess` among the classes asked, 0 to 1.
        known: Probability that the clip is of one of the classes asked, 0 to 1; None where it could not be read.
        zero_shot_label: The likeliest class without a domain.
        zero_shot_confidence: Its probability.
        runners_up: The next classes, likeliest first, at most four.
        error: Why it could not be read; "" for a clip that was.
        remark: What is wrong with a file that was read all the same.
    """

    clip: str
    path: str = ""
    label: str | None = None
    guess: str | None = None
    confidence: float | None = None
    known: float | None = None
    zero_shot_label: str | None = None
    zero_shot_confidence: float | None = None
    runners_up: tuple[str, ...] = ()
    error: str = ""
    remark: str = ""

    @property
    def is_rejected(self) -> bool:
        """Whether it was read and is taken for none of the classes."""
        return self.guess is not None and self.label is None

    @property
    def is_changed(self) -> bool:
        """Whether the domain changed its label."""
        return self.label is not None and self.label != self.zero_shot_label


@dataclass(frozen=True)
class Recognition:
    """Predictions of all clips and how they were made.

    Attributes:
        predictions: One a clip, in the order in which clips were given.
        class_names: The classes asked.
        encoder: Name of the encoder.
        domain: The domain that was used; None for plain zero-shot.
        described: Where that domain comes from, in a few words.
        doubts: Why these labels may be worth little, each with what to do.
        num_embedded: Clips that were embedded now, not taken from the cache.
    """

    predictions: list[Prediction]
    class_names: list[str]
    encoder: str
    domain: SavedDomain | None
    described: str
    doubts: list[str]
    num_embedded: int = 0

    @property
    def damaged(self) -> list[Prediction]:
        """Those of clips that could not be read."""
        return [prediction for prediction in self.predictions if prediction.error]

    @property
    def read(self) -> list[Prediction]:
        """Those of all other clips."""
        return [prediction for prediction in self.predictions if not prediction.error]


@dataclass(frozen=True)
class Question:
    """What clips are compared with.

    Attributes:
        class_names: K names.
        text_embeds: Embeddings of their prompts, (K, P, D) float32.
        prompts: P prompts of each; None where they are not known.
    """

    class_names: list[str]
    text_embeds: Tensor
    prompts: list[list[str]] | None = None


@torch.inference_mode()
def predict(
    head: DKDHead,
    plain: DKDHead,
    video_embeds: Tensor,
    question: Question,
    names: Sequence[str],
    reject_below: float = 0.0,
) -> list[Prediction]:
    """What a head makes of clips.

    Args:
        head: Fitted, or not for plain zero-shot.
        plain: The same without a domain.
        video_embeds: (N, P, D) float32.
        question: The K classes.
        names: N names of clips.
        reject_below: Clips whose `known` is below it get no label.
    """
    output = head(video_embeds, question.text_embeds)
    probabilities = output.logits_per_video.softmax(1)
    before = plain(video_embeds, question.text_embeds).logits_per_video.softmax(1).max(1)
    best = probabilities.sort(dim=1, descending=True, stable=True)  # of equal ones the first asked, as zero-shot
    known = getattr(output, "known", None)
    found = []
    for row, name in enumerate(names):
        order = [question.class_names[k] for k in best.indices[row, : 1 + NUM_RUNNERS_UP].tolist()]
        is_known = None if known is None else float(known[row])
        found.append(
            Prediction(
                name,
                label=None if is_known is not None and is_known < reject_below else order[0],
                guess=order[0],
                confidence=float(best.values[row, 0]),
                known=is_known,
                zero_shot_label=question.class_names[int(before.indices[row])],
                zero_shot_confidence=float(before.values[row]),
                runners_up=tuple(order[1:]),
            )
        )
    return found
