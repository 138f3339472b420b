"""A head that goes on learning from a stream."""

import re

import pytest
import torch

from modeling_dkd.dkd_head import DKDHead
from tests.fitted_heads import (
    TOY,
    make_head,
)
from tests.toy_domain import accuracy, keep_recent, toy_domain


@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.slow), 17, 113])
def test_a_stream_comes_close_to_a_fit_on_the_whole(batch_size):
    videos, texts, labels = toy_domain(400, dim=48)
    whole = make_head(48).fit(videos, texts)
    head = make_head(48).fit(videos[:60], texts)
    for batch in videos[60:].split(batch_size):
        assert head.update(batch) is head
    assert float(head.num_samples) == 400
    assert float(head.counts.sum()) == pytest.approx(400, rel=1e-3)
    reached = accuracy(head(videos, texts).logits_per_video, labels)
    assert reached > accuracy(whole(videos, texts).logits_per_video, labels) - 0.03
    assert reached > accuracy(videos @ texts.T, labels)


def test_a_stream_that_has_grown_is_what_a_fit_to_all_of_it_makes():
    """Whatever its first samples were taken for at first; labelled ones keep their labels."""
    videos, texts, labels = toy_domain(400, dim=48)
    order = labels.argsort(stable=True)
    known = torch.where(torch.arange(400) < 100, labels[order], -1)
    whole = make_head(48).fit(videos[order], texts, known)
    head = make_head(48).fit(videos[order[:100]], texts, known[:100])
    for batch in videos[order[100:]].split(100):
        head.update(batch)
    for name, buffer in head.named_buffers():
        torch.testing.assert_close(buffer, whole.get_buffer(name), rtol=1e-3, atol=1e-3, msg=name)


def test_of_a_long_stream_only_so_many_samples_are_kept(monkeypatch):
    keep_recent(100, monkeypatch)
    videos, texts, labels = toy_domain(400, dim=48)
    whole = make_head(48).fit(videos, texts)
    head = DKDHead(whole.config).fit(videos[:60], texts)
    frequencies = []
    for batch in videos[60:].split(20):
        head.update(batch)
        assert len(head._recent.videos) == len(head._recent.labels) <= 100
        frequencies.append(head.log_frequency)
    torch.testing.assert_close(head._recent.videos, videos[300:])
    assert float(head._recent.older.statistics.num_samples) == 300
    assert float(head.num_samples) == head._recent.num_samples == 400
    torch.testing.assert_close(head.second_moments, whole.second_moments, rtol=1e-4, atol=1e-4)
    # Those of samples that are gone do not answer to new frequencies.
    assert not torch.equal(frequencies[0], frequencies[1])
    assert torch.equal(frequencies[1], frequencies[-1])
    reached = accuracy(head(videos, texts).logits_per_video, labels)
    assert reached > accuracy(whole(videos, texts).logits_per_video, labels) - 0.03


def test_a_stream_needs_a_fit_with_texts():
    message = "update goes on from a fit with class texts; call fit(video_embeds, text_embeds) first."
    for head in (make_head(), make_head().fit(TOY.videos), make_head(num_components=3)):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            head.update(TOY.videos)
