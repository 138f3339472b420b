from pathlib import Path

import pytest
import torch

from modeling_dkd.recognition import search_index, suggest, timeline
from modeling_dkd.recognition.doubts import doubts_about, require_different_texts, same_texts
from modeling_dkd.recognition.predictions import Prediction, Question

from .colour_clips import write_clips


OWN = f"{Path(__file__).with_name('own_encoder.py')}:ColourEncoder"
NAMES = [f"class {k}" for k in range(8)]


def question(texts=None, names=None):
    texts = torch.eye(8)[:, None] if texts is None else texts
    return Question(names or NAMES[: len(texts)], texts)


def predictions(count=40, confidence=0.8, label=None, **others):
    names = [NAMES[n % 8] if label is None else label for n in range(count)]
    return [
        Prediction(str(n), label=name, guess=name, confidence=confidence, **others) for n, name in enumerate(names)
    ]


def test_where_all_is_well_nothing_is_said():
    assert doubts_about(predictions(), question(), 64, 0.0) == []


def test_classes_that_are_one_text_are_named_together():
    texts = torch.tensor([[1.0, 0], [0, 1], [2, 0], [0, 3]])[:, None]
    assert same_texts(question(texts)) == [["class 0", "class 2"], ["class 1", "class 3"]]
    said = doubts_about(predictions(), question(texts), 64, 0.0)
    assert len(said) == 2
    assert "2 classes have the same text embedding (class 0, class 2)" in said[0]
    require_different_texts(question(texts), "it")
    with pytest.raises(ValueError, match="it gives all 3 classes the same text embedding"):
        require_different_texts(question(torch.ones(3, 2, 5)), "it")


@pytest.mark.parametrize(
    ("found", "num_fitted", "reject_below", "message"),
    [
        (predictions(7), 7, 0.0, "the domain is only 7 clips for 8 classes"),
        (predictions(14), 14, 0.0, "the domain is only 14 clips for 8 classes, too few to trust"),
        (predictions(confidence=0.15), 64, 0.0, "mean confidence is 15.0% where guessing among 8 classes is 12.5%"),
        (predictions(label="class 3"), 64, 0.0, "40 of 40 clips are taken for 'class 3'"),
        (
            [Prediction("a", guess="class 1", confidence=0.9, known=0.25)],
            None,
            0.9,
            "all of 1 clip rejected, where the highest known is 0.25 and --reject-below 0.9",
        ),
    ],
)
def test_each_doubt_is_said_once_with_what_to_do(found, num_fitted, reject_below, message):
    (said,) = doubts_about(found, question(), num_fitted, reject_below)
    assert message in said
    assert len(said.partition("; ")[2].split()) > 5  # what to do, in words
    assert "\n" not in said


def test_a_saved_domain_may_meet_few_clips():
    assert doubts_about(predictions(3), question(), None, 0.0) == []


def test_all_that_fit_a_domain_tell_of_classes_with_one_text(tmp_path, caplog):
    write_clips(tmp_path / "clips", 6)
    asked = {"classes": ["red", "pink", "violet"], "model": OWN, "cache_dir": tmp_path / "cache"}
    found = [
        search_index([tmp_path / "clips"], num_workers=0, **asked),
        suggest([tmp_path / "clips"], count=2, num_workers=0, **asked),
        timeline([tmp_path / "clips/00_red.avi"], **asked),
    ]
    assert all("2 classes have the same text embedding (pink, violet)" in one.notes[0] for one in found)
    assert not caplog.records
