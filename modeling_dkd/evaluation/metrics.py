"""What a result is measured by, as plain functions of logits and labels."""

import numpy as np


CALIBRATION_BINS = 15


def recognition_scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Top-1, top-5, mean-class accuracy and expected calibration error, all as fractions.

    Args:
        logits: (N, K) float.
        labels: (N,) int in [0, K).
    """
    return {
        "top1": top_k_accuracy(logits, labels, 1),
        "top5": top_k_accuracy(logits, labels, 5),
        "mean_class": float(np.mean(list(class_accuracies(logits, labels).values()))),
        "ece": expected_calibration_error(logits, labels),
    }


def top_k_accuracy(logits: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of samples whose class is among the k best; 1 where there are no more than k classes.

    Args:
        logits: (N, K) float; of equal ones the lower class number counts as better, as for argmax.
        labels: (N,) int in [0, K).
        k: How many classes may be named.
    """
    own = logits[np.arange(len(labels)), labels][:, None]
    classes = np.arange(logits.shape[1])
    better = (logits > own) | ((logits == own) & (classes < labels[:, None]))
    return float((better.sum(1) < k).mean())


def class_accuracies(logits: np.ndarray, labels: np.ndarray) -> dict[int, float]:
    """Top-1 accuracy of each class that occurs in `labels` (N,), by class number; logits (N, K)."""
    right = logits.argmax(1) == labels
    return {int(k): float(right[labels == k].mean()) for k in np.unique(labels)}


def expected_calibration_error(logits: np.ndarray, labels: np.ndarray) -> float:
    """`calibration_error` of the largest softmax probability of logits (N, K) as that of the label (N,) in [0, K)."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return calibration_error(1 / np.exp(shifted).sum(1), logits.argmax(1) == labels)


def calibration_error(confidence: np.ndarray, right: np.ndarray, num_bins: int = CALIBRATION_BINS) -> float:
    """Mean gap between confidence and how often it is right over equal bins of confidence, weighted by their samples.

    Args:
        confidence: (N,) float, 0 to 1.
        right: (N,) bool.
        num_bins: Bins of equal width over (0, 1].

    Source:
        Guo et al. 2017, "On Calibration of Modern Neural Networks", eq. 3.
    """
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(right))
