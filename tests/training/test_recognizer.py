import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from modeling_dkd import DKDCLIPConfig, DKDHead
from modeling_dkd.training.recognizer import Recognizer

from ..tiny_backbones import make_model, make_texts, make_videos


class Sum:
    """What all_reduce does, between two threads."""

    def __init__(self):
        self.barrier = threading.Barrier(2, timeout=20)
        self.parts = {}

    def __call__(self, tensor):
        self.parts[threading.get_ident()] = tensor
        self.barrier.wait()
        total = torch.stack([self.parts[key] for key in sorted(self.parts)]).sum(0)
        self.barrier.wait()
        return total


@pytest.mark.parametrize("labelled", [True, False])
def test_processes_fit_together_what_one_fits_alone(labelled):
    generator = torch.Generator().manual_seed(0)
    videos, texts = torch.randn(30, 2, 8, generator=generator), torch.randn(4, 8, generator=generator)
    labels = torch.randint(0, 4, (30,), generator=generator) if labelled else None

    def fit(part, all_reduce):
        own = None if labels is None else labels[part]
        return DKDHead(DKDCLIPConfig(projection_dim=8)).fit(videos[part], texts, own, all_reduce=all_reduce)

    alone = fit(slice(None), None)
    shared = Sum()
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda part: fit(part, shared), (slice(0, 11), slice(11, None))))
    for name, buffer in alone.named_buffers():
        assert both[0].get_buffer(name).equal(both[1].get_buffer(name)), name
        torch.testing.assert_close(both[0].get_buffer(name), buffer, rtol=1e-4, atol=1e-5)


def test_unknown_classes_are_not_fitted_together():
    head = DKDHead(DKDCLIPConfig(projection_dim=8))
    with pytest.raises(ValueError, match="can share a fit only with text_embeds"):
        head.fit(torch.randn(5, 8), all_reduce=lambda sums: sums)


def test_plain_logits_are_those_of_an_unfitted_head():
    model = make_model()
    videos, tokens = make_videos(3, 2), {"input_ids": make_texts(4, 2)}
    recognizer = Recognizer(model, tokens, train_text_encoder=False)
    expected = model(videos, **tokens).logits_per_video
    plain, moved = recognizer(videos)
    torch.testing.assert_close(plain, expected)
    torch.testing.assert_close(moved, expected)
    with torch.no_grad():
        model.head.fit(model.get_video_features(make_videos(9, 2, seed=5)), recognizer.texts())
    plain, moved = recognizer(videos)
    torch.testing.assert_close(plain, expected)
    assert not moved.allclose(expected, atol=1e-3)


def test_gradients_flow_through_the_domain_and_into_texts_beside_it():
    model = make_model()
    recognizer = Recognizer(model, {"input_ids": make_texts(4, 2)}, train_text_encoder=True)
    with torch.no_grad():
        model.head.fit(model.get_video_features(make_videos(9, 2, seed=5)), recognizer.texts())
    plain, moved = recognizer(make_videos(3, 2))
    weights = dict(model.named_parameters())
    video, text = weights["backbone.visual_projection.weight"], weights["backbone.text_projection.weight"]
    for logits, trained in (
        (moved, [video, model.head.log_logit_scale]),
        (plain, [video, text, model.head.log_logit_scale]),
    ):
        for gradient in torch.autograd.grad(logits.logsumexp(1).sum(), trained, retain_graph=True):
            assert gradient.isfinite().all()
            assert gradient.abs().sum() > 0


def test_texts_in_training_stay_the_classes_of_the_last_fit():
    model = make_model()
    recognizer = Recognizer(model, {"input_ids": make_texts(4, 1)}, train_text_encoder=True)
    videos = make_videos(3, 2)
    with torch.no_grad():
        model.head.fit(model.get_video_features(make_videos(9, 2, seed=5)), recognizer.texts())
        before = recognizer(videos)
        model.backbone.text_projection.weight.normal_()
        after = recognizer(videos)
    assert after[1].equal(before[1])
    assert not after[0].allclose(before[0], atol=1e-3)


def test_an_embedding_that_is_not_finite_gives_logits_that_are_not():
    recognizer = Recognizer(make_model(), {"input_ids": make_texts(4, 1)}, train_text_encoder=False)
    plain, moved = recognizer(make_videos(3, 2) * float("nan"))
    assert plain.isnan().all()
    assert moved.isnan().all()
