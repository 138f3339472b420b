"""OGA, DOTA and ADAPT against their formulas, clip by clip in float64."""

import pytest
import torch
from torch.nn.functional import normalize
from torch.testing import assert_close

from modeling_dkd.embedding.embedding_cache import read_embeddings
from modeling_dkd.evaluation.methods import common_covariance
from modeling_dkd.evaluation.methods.common_covariance import adapt, dota, oga, ridge_precision, surest
from modeling_dkd.evaluation.methods.peers import zero_shot
from modeling_dkd.evaluation.protocols import Task, logits_of

from .test_peers import clustered_task


def gaussian_logits(clips, means, precision):
    return torch.stack([torch.stack([x @ precision @ m - m @ precision @ m / 2 for m in means]) for x in clips])


def ridge(offsets):
    """D pinv((n - 1) S + tr(S) I) with the covariance S."""
    spread = offsets.T.cov()
    dim = offsets.shape[1]
    return dim * torch.linalg.pinv((len(offsets) - 1) * spread + spread.trace() * torch.eye(dim).double())


def bank_of(clips, posteriors, size):
    """For each class the clips of least entropy among those read as it: lists of (clip, posterior)."""
    bank = {k: [] for k in range(posteriors.shape[1])}
    for x, p in zip(clips, posteriors, strict=True):
        bank[int(p.argmax())].append((float(-(p * p.log()).sum()), x, p))
    return {k: [(x, p) for _, x, p in sorted(of_class, key=lambda one: one[0])[:size]] for k, of_class in bank.items()}


def as_double(task):
    clips, tests, texts = task.domain.double(), task.test.double(), task.text.double()
    return clips, tests, texts, (10 * clips @ texts.T).softmax(1), 10 * tests @ texts.T


@pytest.mark.parametrize("num_clips", [60, 200, 5])  # below and above 4 D of cached clips, and fewer than a cache
def test_oga_is_its_formula(num_clips):
    task, _ = clustered_task(num_clips=num_clips, num_classes=8, dim=5)
    clips, tests, texts, posteriors, logits = as_double(task)
    bank = bank_of(clips, posteriors, 8)
    means = texts.clone()
    for k, kept in bank.items():
        if len(kept) >= 2:
            means[k] = torch.stack([x for x, _ in kept]).mean(0)
    offsets = torch.stack([x - means[k] for k, kept in bank.items() for x, _ in kept])
    if max(map(len, bank.values())) > 2:
        precision = ridge(offsets) if len(offsets) <= 20 else torch.linalg.pinv(offsets.T.cov())
    else:
        precision = 5 * torch.eye(5).double()
    expected = logits.log_softmax(1) + 0.01 * gaussian_logits(tests, means, precision)
    assert_close(oga(task).double(), expected, rtol=1e-3, atol=1e-3)


def test_dota_is_its_formula_with_one_matrix_a_class(monkeypatch):
    monkeypatch.setattr(common_covariance, "DOTA_BATCH", 7)
    task, _ = clustered_task(num_clips=60)
    clips, tests, texts, posteriors, logits = as_double(task)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    counts, means = torch.ones(5).double(), texts.clone()
    spreads = 1e-4 * torch.eye(13).double().repeat(5, 1, 1)
    for start in range(0, 60, 7):
        batch = order[start : start + 7]
        for k in range(5):
            offsets, given = clips[batch] - means[k], posteriors[batch, k]
            total = counts[k] + given.sum()
            outer = sum(w * torch.outer(d, d) for w, d in zip(given, offsets, strict=True))
            spreads[k] = (counts[k] * spreads[k] + outer) / total
            means[k] = (counts[k] * means[k] + given @ clips[batch]) / total
            counts[k] = total
    precision = torch.linalg.inv((1 - 1e-4) * spreads.mean(0) + 1e-4 * torch.eye(13).double())
    expected = logits + min(0.02 * counts.mean().item(), 0.1) * gaussian_logits(tests, means, precision)
    assert_close(dota(task).double(), expected, rtol=1e-3, atol=1e-3)


def test_adapt_is_its_formula():
    task, _ = clustered_task(num_clips=60)
    clips, tests, texts, posteriors, logits = as_double(task)
    bank = bank_of(clips, posteriors, 6)
    means = texts.clone()
    for k, kept in bank.items():
        if kept:
            total = sum(p[k] * x for x, p in kept) + posteriors[:, k] @ clips
            means[k] = 0.9 * total / (sum(p[k] for _, p in kept) + posteriors[:, k].sum()) + 0.1 * texts[k]
    members = [(k, x, p) for k, kept in bank.items() for x, p in kept]
    precision = ridge(torch.stack([x - means[k] for k, x, _ in members]))
    gain = gaussian_logits(tests, means, precision).log_softmax(1)
    for i, x in enumerate(tests):
        for k, kept, p in members:
            gain[i, k] += 70 / (2 * len(members)) * (x @ kept) * p[k]
    expected = logits * ((gain - gain.amax(1, keepdim=True)) / 70).exp()
    assert_close(adapt(task).double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", [oga, dota, adapt])
def test_a_test_clip_is_answered_alone(method):
    task, _ = clustered_task()
    one = Task(task.domain, task.test[7:8], task.text, None, task.logit_scale)
    assert_close(method(one)[0], method(task)[7], rtol=1e-4, atol=1e-4)


def test_the_surest_clips_of_each_class_are_kept():
    posteriors = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.99, 0.01], [0.2, 0.8], [0.0, 1.0]])
    kept, read_as = surest(posteriors, 2)
    assert (kept.tolist(), read_as.tolist()) == ([2, 0, 4, 3], [0, 0, 1, 1])


def test_offsets_that_are_all_alike_have_no_precision():
    assert ridge_precision(torch.ones(4, 3)).tolist() == torch.zeros(3, 3).tolist()


@pytest.mark.parametrize(("method", "expected"), [(oga, 89.05), (dota, 86.17), (adapt, 91.84)])
def test_they_help_on_real_features(data_dir, method, expected):
    path = data_dir / "features/whurs19_clip_vit-b-32.npz"
    real = read_embeddings(path, video_embeds="image_f", text_embeds="text_avg")
    videos = normalize(real.video_embeds, dim=-1)
    task = Task(videos, videos, normalize(real.text_embeds, dim=-1))
    reached, plain = ((logits_of(m(task)).argmax(1) == real.labels).float().mean().item() for m in (method, zero_shot))
    assert 100 * reached == pytest.approx(expected, abs=0.11)
    assert reached > plain
