"""What is measured where clips are ranked: search by text, and telling clips of none of the classes from the others.

Importing this imports scikit-learn, which takes a second.
"""

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from ..dkd_head import DKDHeadOutput
from .metrics import calibration_error


DEPTHS = (1, 5, 10)
# Clips whose `known` is below this are said to be of none of the classes.
THRESHOLD = 0.5


def search_scores(scores: Tensor, labels: Tensor, classes: Tensor) -> dict[str, float]:
    """How well each class text finds the clips of its class, as fractions, over the texts whose class has a clip.

    `map` is the mean over the texts of the average precision: at the place of each clip of the class in the ranking,
    the share of the clips up to there that are of the class. `recall_at_k` is the share of texts with a clip of their
    class among the k best.

    Args:
        scores: Similarity of clips and texts (M, Q), higher is nearer.
        labels: (M,) int64.
        classes: Class of each text (Q,) int64.
    """
    relevant = labels[:, None] == classes
    asked = relevant.any(0)
    relevant, scores = relevant[:, asked], scores[:, asked]
    precisions = [
        average_precision_score(truth, score)
        for truth, score in zip(relevant.T.numpy(), scores.T.numpy(), strict=True)
    ]
    ranked = relevant.gather(0, scores.argsort(dim=0, descending=True, stable=True))
    found = {"map": float(np.mean(precisions))}
    found |= {f"recall_at_{depth}": float(ranked[:depth].any(0).float().mean()) for depth in DEPTHS}
    return {name: round(value, 6) for name, value in found.items()} | {"queries": int(asked.sum())}


def rejection(output: DKDHeadOutput, is_known: Tensor) -> dict[str, float | int | None]:
    """How well a method tells clips of the classes asked from others, as fractions.

    Its score of a clip is `known` where it has one, else the largest softmax of its logits. `auroc` is the chance that
    a clip of a class asked has a higher score than one of none; `auroc_cosine` the same of the largest cosine of the
    embeddings that it returns. `known_ece` is the calibration error of the score as a probability to be of a class
    asked. `rejected_unknown` and `rejected_known` are the shares of both kinds whose score is below 0.5.

    Args:
        output: Of all M test clips.
        is_known: Whether a clip is of one of the classes asked (M,), bool.
    """
    assert output.logits_per_video is not None
    score = output.logits_per_video.softmax(1).amax(1) if output.known is None else output.known.float().cpu()
    cosine = None
    if output.video_embeds is not None and output.text_embeds is not None:
        cosine = round(float(roc_auc_score(is_known, (output.video_embeds @ output.text_embeds.T).amax(1))), 6)
    rejected = (score < THRESHOLD).float()
    return {
        "auroc": round(float(roc_auc_score(is_known.numpy(), score.numpy())), 6),
        "auroc_cosine": cosine,
        "known_ece": round(calibration_error(score.double().numpy(), is_known.numpy()), 6),
        "rejected_unknown": round(float(rejected[~is_known].mean()), 6),
        "rejected_known": round(float(rejected[is_known].mean()), 6),
        "n_unknown": int((~is_known).sum()),
    }
