"""Stretches of a video with one label: joined from the labels of windows, compared with the true ones."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..frame_sampling import ArrayOfFloat, ArrayOfInt


class Segment(NamedTuple):
    """A stretch of a video.

    Attributes:
        start: Seconds since the first frame.
        end: Seconds since the first frame, above `start`.
        label: Class name; None: none of the classes that were asked.
        confidence: Mean probability of the label over the windows of the stretch, given all windows, 0 to 1.
    """

    start: float
    end: float
    label: str | None
    confidence: float


def join_windows(
    starts: ArrayOfFloat,
    ends: ArrayOfFloat,
    labels: ArrayOfInt,
    probabilities: ArrayOfFloat,
    names: Sequence[str | None],
) -> list[Segment]:
    """Equal neighbours among windows as segments, in order of time.

    A window speaks for the time around its centre, up to halfway to the centres of its neighbours; the first from its
    start, the last to its end. Where windows are missing between two, nothing is said of what neither of them saw.

    Args:
        starts: Start of each window, (N,) seconds, ascending.
        ends: Its end, (N,) seconds.
        labels: Index of its label, (N,) int64.
        probabilities: Probability of each label, (N, S).
        names: Names of the S labels.
    """
    centres = (starts + ends) / 2
    middles = (centres[1:] + centres[:-1]) / 2
    # Windows that do not meet are told apart by a hole between them.
    until, since = np.minimum(middles, ends[:-1]), np.maximum(middles, starts[1:])
    segments: list[Segment] = []
    begin = 0
    for i in range(len(labels)):
        last = i + 1 == len(labels)
        if last or labels[i] != labels[i + 1] or since[i] - until[i] > 1e-6:
            start = float(starts[0] if begin == 0 else since[begin - 1])
            end = float(ends[-1] if last else until[i])
            confidence = float(probabilities[begin : i + 1, labels[i]].mean())
            segments.append(Segment(start, end, names[labels[i]], confidence))
            begin = i + 1
    return segments


def segment_f1(predicted: Sequence[Segment], true: Sequence[Segment], overlap: float = 0.5) -> float:
    """F1 of predicted segments, 0 to 1: right is one that overlaps a true one of its label well enough.

    Overlap is intersection over union in time. A true segment can be found once; a second find counts as wrong.
    Segments of no class are left out on both sides.

    Source:
        Lea et al. 2017, "Temporal Convolutional Networks for Action Segmentation and Detection", F1@50.
    """
    found, wanted = ([s for s in side if s.label is not None] for side in (predicted, true))
    if not found or not wanted:
        return float(not found and not wanted)
    taken: set[int] = set()
    for segment in found:
        overlaps = [
            _overlap(segment, other) if other.label == segment.label and i not in taken else -1.0
            for i, other in enumerate(wanted)
        ]
        best = int(np.argmax(overlaps))
        if overlaps[best] >= overlap:
            taken.add(best)
    return 2 * len(taken) / (len(found) + len(wanted))


def _overlap(a: Segment, b: Segment) -> float:
    """Intersection over union in time."""
    return max(0.0, min(a.end, b.end) - max(a.start, b.start)) / (max(a.end, b.end) - min(a.start, b.start))
