import pytest
import torch

from modeling_dkd.mixture_options import MixtureOptions
from modeling_dkd.text_prior import debias_texts, sum_logits
from tests.toy_domain import toy_domain


SCALE = 60.0
OPTIONS = MixtureOptions()


def test_sums_of_logits_equal_a_loop_over_samples():
    videos, texts, _ = toy_domain(60)
    offsets = texts.double() - texts.double().mean(0)
    typical = offsets.square().sum(1).mean().sqrt()
    directions = offsets * (offsets.norm(dim=1, keepdim=True) / typical) ** -OPTIONS.debiased_share_of(len(texts))
    expected = torch.zeros(3, len(texts), dtype=torch.float64)
    for video in videos.double():
        logits = SCALE * directions @ video
        weight = 1 - logits.softmax(0)
        expected += torch.stack([torch.ones_like(weight), weight, weight * logits])
    torch.testing.assert_close(sum_logits(videos, texts, SCALE, OPTIONS), expected, rtol=1e-4, atol=1e-4)


def test_more_classes_tell_more_about_the_bias_of_a_text():
    """With few, the mean logit on the others is as much what they have in common with it."""
    assert OPTIONS.debiased_share_of(int(OPTIONS.shared_classes)) == pytest.approx(OPTIONS.debiased_share / 2)
    assert OPTIONS.debiased_share_of(2) < 0.3 * OPTIONS.debiased_share
    assert 0.98 * OPTIONS.debiased_share < OPTIONS.debiased_share_of(500) < OPTIONS.debiased_share


def test_debiasing_takes_a_share_of_the_differences_in_length_and_in_mean():
    texts, share = toy_domain().texts, OPTIONS.debiased_share_of(6)
    weight, mean = torch.full((6,), 40.0, dtype=torch.float64), torch.arange(6.0).double()
    prior = debias_texts(texts, torch.stack([weight, weight, weight * mean]), OPTIONS)
    lengths = (texts - texts.mean(0)).norm(dim=1)
    torch.testing.assert_close(prior.scale / prior.scale[0], (lengths / lengths[0]).pow(-share))
    torch.testing.assert_close(prior.bias, (share * (mean - mean.mean())).float(), rtol=1e-4, atol=1e-5)


def test_texts_that_lie_equally_are_not_biased():
    """Every text and every video in all rotations of its axes: nothing tells the classes apart."""
    videos, text = toy_domain(20, dim=5).videos, toy_domain(dim=5).texts[0]
    videos = torch.cat([videos.roll(k, dims=1) for k in range(5)])
    texts = torch.stack([text.roll(k) for k in range(5)])
    prior = debias_texts(texts, sum_logits(videos, texts, SCALE, OPTIONS), OPTIONS)
    torch.testing.assert_close(prior.scale, torch.ones(5), rtol=0, atol=1e-5)
    torch.testing.assert_close(prior.bias, torch.zeros(5), rtol=0, atol=1e-4)
