import inspect

import pytest
import torch
from torch.testing import assert_close

from modeling_dkd import DKDCLIPConfig, DKDHead
from modeling_dkd.evaluation.methods.ablations import ABLATIONS, ablation, text_only, video_only
from modeling_dkd.evaluation.methods.dkd import dkd
from modeling_dkd.evaluation.methods.peers import zero_shot
from modeling_dkd.evaluation.protocols import Task, logits_of

from .test_peers import clustered_task


def test_dkd_is_a_head_fitted_on_the_domain():
    task, _ = clustered_task()
    head = DKDHead(DKDCLIPConfig(projection_dim=13, logit_scale=10.0)).eval()
    head.fit(task.domain, task.text, labels=task.domain_labels)
    with torch.no_grad():
        output, expected = dkd(task), head(task.test, task.text)
        assert_close(output.logits_per_video, expected.logits_per_video)
        assert_close(output.video_embeds, expected.video_embeds)


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_gives_logits(name):
    task, _ = clustered_task(frames=(2,))
    with torch.no_grad():
        output = ablation(name)(task)
    logits = output.logits_per_video
    assert_close(logits, 10 * output.video_embeds @ output.text_embeds.T)
    assert logits.shape == (60, 5)
    assert logits.isfinite().all()


def test_options_of_ablations_exist():
    known = set(inspect.signature(DKDCLIPConfig).parameters) | set(DKDCLIPConfig.__annotations__)
    for options in (chosen for chosen in ABLATIONS.values() if isinstance(chosen, dict)):
        assert set(options) <= known


class Swapped:
    """A head that moves every video to (0, 1, 0, ...) and every text to (1, 0, 0, ...)."""

    def __init__(self, config, _):
        self.dim = config.projection_dim

    def eval(self):
        return self

    def fit(self, *_, **__):
        return self

    def __call__(self, videos, texts):
        from modeling_dkd import DKDHeadOutput

        axes = torch.eye(self.dim)
        return DKDHeadOutput(None, axes[1].repeat(len(videos), 1), axes[0].repeat(len(texts), 1), None)


def test_one_branch_alone_keeps_the_other_plain(monkeypatch):
    monkeypatch.setattr("modeling_dkd.evaluation.methods.dkd.DKDHead", Swapped)
    task, _ = clustered_task()
    assert_close(logits_of(video_only(task)), 10 * task.text[:, 1].repeat(60, 1))
    assert_close(logits_of(text_only(task)), 10 * task.test[:, :1].repeat(1, 5))
    assert not torch.allclose(logits_of(video_only(task)), logits_of(zero_shot(task)))


def test_an_unlabelled_task_reaches_the_head_without_labels(monkeypatch):
    seen = {}

    class Watching(Swapped):
        def fit(self, videos, texts, labels=None, class_names=None):
            seen["labels"] = labels
            return self

    monkeypatch.setattr("modeling_dkd.evaluation.methods.dkd.DKDHead", Watching)
    task, _ = clustered_task()
    video_only(Task(task.domain, task.test, task.text))
    assert seen == {"labels": None}
