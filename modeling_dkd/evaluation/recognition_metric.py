"""The measures of this project as one metric of the `evaluate` library, for a Trainer or another loop.

    metric = RecognitionMetric(keep_in_memory=True)
    metric.compute(predictions=logits, references=labels)  # {"top1": ..., "top5": ..., "mean_class": ..., "ece": ...}

Nothing here needs the network. Importing this module imports `evaluate`, which takes seconds: do it late.
"""

import numpy as np
from datasets import Features, Sequence, Value

from evaluate import Metric, MetricInfo  # type: ignore[attr-defined] # the library, not the script of that name

from .metrics import recognition_scores


class RecognitionMetric(Metric):
    """Top-1, top-5, mean-class accuracy and expected calibration error of logits, all as fractions."""

    def _info(self) -> MetricInfo:
        return MetricInfo(
            description="Accuracy and calibration of a classifier from its logits.",
            citation="",
            inputs_description="predictions: logits (num_classes floats a sample); references: class numbers.",
            features=Features({"predictions": Sequence(Value("float32")), "references": Value("int64")}),
        )

    def _compute(self, predictions: list[list[float]], references: list[int]) -> dict[str, float]:
        return recognition_scores(np.asarray(predictions, dtype=np.float32), np.asarray(references))
