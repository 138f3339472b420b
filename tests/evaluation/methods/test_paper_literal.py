import pytest
import torch
from torch.nn.functional import normalize
from torch.testing import assert_close

from modeling_dkd import DKDCLIPConfig
from modeling_dkd.embedding.embedding_cache import read_embeddings
from modeling_dkd.evaluation.methods import paper_literal as module
from modeling_dkd.evaluation.methods.paper_literal import paper_literal
from modeling_dkd.evaluation.protocols import Task, logits_of
from modeling_dkd.gaussian_mixture import GaussianMixture

from .test_peers import clustered_task


def test_both_branches_follow_the_score_of_a_mixture_that_never_saw_the_texts(monkeypatch):
    seen = []

    def one_component(points, num_components):
        seen.append((points, num_components))
        return GaussianMixture(torch.ones(1), points.mean(0)[None], torch.full((13,), 0.1)), ()

    monkeypatch.setattr(module, "fit_gaussian_mixture", one_component)
    task, _ = clustered_task()
    output = paper_literal(task)
    ((points, num_components),) = seen
    assert_close(points, task.domain)
    assert num_components == 5
    for moved, plain in ((output.video_embeds, task.test), (output.text_embeds, task.text)):
        before, after = (branch.mean(0) @ normalize(points.mean(0), dim=0) for branch in (plain, moved))
        assert not torch.allclose(moved, plain, atol=0.01)
        assert after > before


def test_one_clip_and_one_text_go_their_share_of_the_way(monkeypatch):
    monkeypatch.setattr(
        module, "fit_gaussian_mixture", lambda p, k: (GaussianMixture(torch.ones(1), p, torch.full((13,), 0.1)), ())
    )
    task, _ = clustered_task()
    alone = Task(task.domain[:1], task.test[:1], task.text[:1], None, 10.0)
    share = DKDCLIPConfig(projection_dim=13).video_strength
    output = paper_literal(alone)
    for moved, plain in ((output.video_embeds, alone.test), (output.text_embeds, alone.text)):
        assert_close(moved, normalize((1 - share) * plain + share * alone.domain, dim=-1), rtol=1e-4, atol=1e-4)


def test_an_unanchored_mixture_loses_accuracy_on_real_features(data_dir):
    path = data_dir / "features/whurs19_clip_rn50.npz"
    real = read_embeddings(path, video_embeds="image_f", text_embeds="text_avg")
    videos = normalize(real.video_embeds, dim=-1)
    logits = logits_of(paper_literal(Task(videos, videos, normalize(real.text_embeds, dim=-1))))
    assert (logits.argmax(1) == real.labels).float().mean().item() == pytest.approx(0.4706, abs=0.03)
