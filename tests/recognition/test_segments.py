import numpy as np
import pytest

from modeling_dkd.recognition.segments import Segment, join_windows, segment_f1


STARTS = np.arange(5) * 2.0
ENDS = STARTS + 4.0
SURE = np.tile([0.7, 0.2, 0.1], (5, 1))
NAMES = ["a", "b", None]


def test_equal_neighbours_are_joined_halfway_between_their_centres():
    found = join_windows(STARTS, ENDS, np.array([0, 0, 1, 2, 2]), SURE, NAMES)
    assert found == [
        Segment(0.0, 5.0, "a", pytest.approx(0.7)),
        Segment(5.0, 7.0, "b", pytest.approx(0.2)),
        Segment(7.0, 12.0, None, pytest.approx(0.1)),
    ]


def test_confidence_is_the_mean_over_the_windows():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0]])
    (found,) = join_windows(STARTS[:2], ENDS[:2], np.array([0, 0]), probabilities, NAMES)
    assert found.confidence == pytest.approx(0.7)


def test_nothing_is_said_where_windows_are_missing():
    starts, ends = STARTS[[0, 1, 4]] + [0, 0, 10], ENDS[[0, 1, 4]] + [0, 0, 10]
    found = join_windows(starts, ends, np.array([0, 0, 0]), SURE[:3], NAMES)
    assert [(s.start, s.end) for s in found] == [(0, 6), (18, 22)]


def test_a_last_window_that_was_moved_back_joins_without_a_hole():
    starts, ends = np.array([0.0, 2.0, 2.3]), np.array([4.0, 6.0, 6.3])
    found = join_windows(starts, ends, np.array([0, 0, 1]), SURE[:3], NAMES)
    assert [(s.start, s.end) for s in found] == [(0, pytest.approx(4.15)), (pytest.approx(4.15), 6.3)]


def test_windows_side_by_side_and_a_single_one():
    found = join_windows(STARTS, STARTS + 2, np.array([0, 1, 1, 0, 0]), SURE, NAMES)
    assert [(s.start, s.end) for s in found] == [(0, 2), (2, 6), (6, 10)]
    (whole,) = join_windows(np.array([0.0]), np.array([1.5]), np.array([1]), SURE[:1], NAMES)
    assert whole == Segment(0.0, 1.5, "b", pytest.approx(0.2))


def segments(*parts):
    return [Segment(start, end, label, 1.0) for start, end, label in parts]


def test_f1_counts_what_overlaps_by_half():
    true = segments((0, 10, "a"), (10, 20, "b"), (20, 30, None))
    assert segment_f1(true, true) == 1
    assert segment_f1(segments((0, 10, "b"), (10, 20, "a")), true) == 0
    assert segment_f1(segments((0, 5, "a"), (10, 14.9, "b")), true) == pytest.approx(0.5)
    # The second find of one true segment is wrong.
    assert segment_f1(segments((0, 5, "a"), (5, 10, "a")), true) == pytest.approx(2 / 4)
    # What is said of none of the classes counts on neither side.
    assert segment_f1([*segments((20, 25, None)), *true[:2]], true) == 1
    assert segment_f1([], segments((0, 1, None))) == 1
    assert segment_f1([], true) == 0
    assert segment_f1(segments((0, 5, "a")), true, overlap=0.6) == 0
