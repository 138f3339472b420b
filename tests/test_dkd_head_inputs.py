"""Inputs that are odd, and those that make no sense: the first give finite results, the others one sentence."""

import re

import pytest
import torch

from modeling_dkd import DKDCLIPConfig
from modeling_dkd.dkd_head import DKDHead
from modeling_dkd.fitted_buffers import BUFFER_AXES
from tests.fitted_heads import (
    DIM,
    FITTED,
    NUM_CLASSES,
    OUTPUTS,
    TOY,
    UNTOUCHED,
    assert_bit_equal_domain,
    make_head,
    spread,
)


def test_prompts_and_classes_in_each_others_place_are_caught_by_the_names():
    prompts = spread(TOY.texts, 3).transpose(0, 1)
    with pytest.raises(ValueError, match=r"6 entries for 3 classes; texts of \(3, 6, 24\) .* swap the first two axes"):
        make_head().fit(TOY.videos, prompts, class_names=[f"c{k}" for k in range(NUM_CLASSES)])


@pytest.mark.parametrize(
    ("videos", "texts"),
    [
        (TOY.videos, TOY.texts[:1]),
        (TOY.videos[:1], TOY.texts),
        (TOY.videos[:1], TOY.texts[:1]),
        (TOY.videos[:3], TOY.texts),
        (TOY.videos, TOY.texts[:1].expand(4, -1)),
        (TOY.videos[:1].expand(30, -1), TOY.texts),
        (TOY.videos[:1].expand(30, -1), TOY.texts[:1]),
        (TOY.texts, TOY.texts),
        (torch.cat([TOY.videos, -TOY.videos]), TOY.texts),
        (TOY.videos, torch.cat([TOY.texts, -TOY.texts])),
        (spread(TOY.videos, 1), spread(TOY.texts, 1)),
    ],
    ids=[
        "one class",
        "one video",
        "one of each",
        "fewer videos than classes",
        "identical texts",
        "identical videos",
        "identical videos of one class",
        "videos that are the texts",
        "videos that cancel out",
        "opposite texts",
        "one frame and one prompt",
    ],
)
def test_odd_domains_give_finite_unit_results(videos, texts):
    head = make_head().fit(videos, texts)
    output = head(TOY.videos, TOY.texts)
    assert all(getattr(output, name).isfinite().all() for name in OUTPUTS)
    torch.testing.assert_close(output.video_embeds.norm(dim=1), torch.ones(len(TOY.videos)))
    torch.testing.assert_close(output.text_embeds.norm(dim=1), torch.ones(NUM_CLASSES))
    assert all(head.get_buffer(name).isfinite().all() for name in BUFFER_AXES)
    head.update(TOY.videos[:2])
    assert head(videos, texts).logits_per_video.isfinite().all()


def with_value(embeds, value, *index):
    embeds = embeds.clone()
    embeds[index] = value
    return embeds


SHAPE = f"must be (N, {DIM}) or (N, particles, {DIM}), at least one of each, not"
NOT_FINITE = "is not finite; look at what the encoder was given for item"
ZERO = "is a zero embedding; leave it out or embed it again."
BAD_VIDEOS = [
    (torch.zeros(4, 16), f"video_embeds {SHAPE} (4, 16)."),
    (torch.zeros(DIM), f"video_embeds {SHAPE} ({DIM},)."),
    (torch.zeros(2, 3, 4, DIM), f"video_embeds {SHAPE} (2, 3, 4, {DIM})."),
    (torch.zeros(0, DIM), f"video_embeds {SHAPE} (0, {DIM})."),
    (torch.zeros(3, 0, DIM), f"video_embeds {SHAPE} (3, 0, {DIM})."),
    (with_value(TOY.videos, torch.nan, 2, 5), f"video_embeds[2, 5] {NOT_FINITE} 2."),
    (with_value(TOY.videos, -torch.inf, 7, 0), f"video_embeds[7, 0] {NOT_FINITE} 7."),
    (with_value(spread(TOY.videos, 2), torch.nan, 3, 1, 4), f"video_embeds[3, 1, 4] {NOT_FINITE} 3."),
    (with_value(TOY.videos, 0, 6), f"video_embeds[6] {ZERO}"),
    (torch.stack([TOY.videos, -TOY.videos], 1), f"video_embeds[0] {ZERO}"),
]


@pytest.mark.parametrize(("videos", "message"), BAD_VIDEOS)
@pytest.mark.parametrize("what", ["fit", "fit without texts", "update", "forward", "forward unfitted"])
def test_videos_that_make_no_sense(what, videos, message):
    calls = {
        "fit": lambda: make_head().fit(videos, TOY.texts),
        "fit without texts": lambda: make_head().fit(videos),
        "update": lambda: FITTED.update(videos),
        "forward": lambda: FITTED(videos, TOY.texts),
        "forward unfitted": lambda: make_head()(videos, TOY.texts),
    }
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        calls[what]()
    assert_bit_equal_domain(FITTED, UNTOUCHED)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (torch.zeros(0, DIM), f"text_embeds {SHAPE} (0, {DIM})."),
        (torch.zeros(3, 8), f"text_embeds {SHAPE} (3, 8)."),
        (with_value(TOY.texts, torch.nan, 1, 2), f"text_embeds[1, 2] {NOT_FINITE} 1."),
        (with_value(TOY.texts, 0, 4), f"text_embeds[4] {ZERO}"),
    ],
)
def test_texts_that_make_no_sense(texts, message):
    for call in (lambda: make_head().fit(TOY.videos, texts), lambda: FITTED(TOY.videos, texts)):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            call()


LABELS_LIKE = f"labels must be int64 of shape ({len(TOY.videos)},), got"
OUT_OF_RANGE = f"but must be -1 (unlabelled) to {NUM_CLASSES - 1}."


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (TOY.labels[:3], f"{LABELS_LIKE} torch.int64 of (3,)."),
        (TOY.labels[:, None], f"{LABELS_LIKE} torch.int64 of ({len(TOY.videos)}, 1)."),
        (TOY.labels.int(), f"{LABELS_LIKE} torch.int32 of ({len(TOY.videos)},)."),
        (TOY.labels.float(), f"{LABELS_LIKE} torch.float32 of ({len(TOY.videos)},)."),
        (with_value(TOY.labels, NUM_CLASSES, 5), f"labels[5] is {NUM_CLASSES}, {OUT_OF_RANGE}"),
        (with_value(TOY.labels, -2, 9), f"labels[9] is -2, {OUT_OF_RANGE}"),
    ],
)
def test_labels_that_make_no_sense(labels, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make_head().fit(TOY.videos, TOY.texts, labels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": TOY.labels}, "labels need text_embeds that say what the classes are."),
        (
            {"text_embeds": TOY.texts, "num_components": 4},
            "num_components is 4, but there is one component for each of 6 texts.",
        ),
        ({"num_components": 0}, "num_components must be at least 1, got 0."),
    ],
)
def test_arguments_that_contradict_each_other(arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make_head().fit(TOY.videos, **arguments)


def test_labels_of_minus_one_are_no_labels():
    assert_bit_equal_domain(make_head().fit(TOY.videos, TOY.texts, torch.full((len(TOY.videos),), -1)), FITTED)


def test_what_is_no_tensor_of_floats_is_refused():
    head = DKDHead(DKDCLIPConfig(projection_dim=2))
    with pytest.raises(ValueError, match=r"video_embeds must be a torch\.Tensor of floats, not list"):
        head.fit([[1.0, 0.0]], torch.eye(2))
    with pytest.raises(ValueError, match=r"video_embeds must be a torch\.Tensor of floats, not NoneType"):
        head(None, torch.eye(2))
    with pytest.raises(ValueError, match=r"text_embeds must be a torch\.Tensor of floats, not torch\.int64"):
        head(torch.eye(2), torch.eye(2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"labels must be a torch\.Tensor of int64, not list"):
        head.fit(torch.eye(2), torch.eye(2), labels=[0, 1])
