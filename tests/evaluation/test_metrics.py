import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from modeling_dkd.evaluation.metrics import (
    class_accuracies,
    expected_calibration_error,
    top_k_accuracy,
)
from modeling_dkd.evaluation.recognition_metric import RecognitionMetric


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 7)).astype(np.float32), rng.integers(7, size=60)


def test_the_metric_agrees_with_scikit_learn(sample):
    logits, labels = sample
    scores = RecognitionMetric(keep_in_memory=True).compute(predictions=logits, references=labels)
    assert scores["top1"] == pytest.approx((logits.argmax(1) == labels).mean())
    assert scores["top5"] == pytest.approx(top_k_accuracy_score(labels, logits, k=5))
    assert scores["mean_class"] == pytest.approx(balanced_accuracy_score(labels, logits.argmax(1)))
    assert scores["ece"] == expected_calibration_error(logits, labels)


def test_batches_add_up(sample):
    logits, labels = sample
    metric = RecognitionMetric(keep_in_memory=True)
    for part in (slice(0, 13), slice(13, 60)):
        metric.add_batch(predictions=logits[part], references=labels[part])
    assert metric.compute() == RecognitionMetric(keep_in_memory=True).compute(predictions=logits, references=labels)


def test_ties_go_to_the_lower_class_as_for_argmax():
    logits = np.zeros((2, 7))
    assert top_k_accuracy(logits, np.array([0, 1]), 1) == 0.5
    assert top_k_accuracy(logits, np.array([4, 5]), 5) == 0.5


def test_top5_of_three_classes_is_one():
    assert top_k_accuracy(np.eye(3), np.array([1, 2, 0]), 5) == 1.0


def test_mean_class_leaves_out_absent_classes():
    assert class_accuracies(np.eye(4)[[0, 0, 2]], np.array([0, 3, 2])) == {0: 1.0, 2: 1.0, 3: 0.0}


def test_calibration_error_of_known_cases():
    sure = np.array([[100.0, 0.0]] * 4)
    assert expected_calibration_error(sure, np.array([0, 0, 0, 0])) == pytest.approx(0)
    assert expected_calibration_error(sure, np.array([0, 1, 1, 1])) == pytest.approx(0.75)
    even = np.zeros((4, 2))  # confidence one half, right half the time
    assert expected_calibration_error(even, np.array([0, 0, 1, 1])) == pytest.approx(0)
    # Two bins whose errors must not cancel: 0.5 too sure of half the samples, 0.5 too modest about the rest.
    mixed = np.concatenate([sure, even])
    assert expected_calibration_error(mixed, np.array([0, 0, 1, 1, 0, 0, 0, 0])) == pytest.approx(0.5)


def test_calibration_error_matches_a_naive_loop(sample):
    logits, labels = sample
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    confidence, right = probabilities.max(1), logits.argmax(1) == labels
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert expected_calibration_error(logits, labels) == pytest.approx(expected, abs=1e-6)
