import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch.nn.functional import normalize
from torch.testing import assert_close

from modeling_dkd import DKDCLIPConfig, DKDHead
from modeling_dkd.embedding.embedding_cache import read_embeddings
from modeling_dkd.evaluation.methods.peers import (
    BASELINES,
    both_centred,
    class_log_likelihood,
    gda,
    neighbour_graph,
    shared_log_likelihood,
    stata,
    transclip,
    zero_shot,
)
from modeling_dkd.evaluation.protocols import Task


METHODS = BASELINES | {"zero_shot": zero_shot, "both_centred": both_centred}


def clustered_task(num_clips=60, num_classes=5, dim=13, frames=(), noise=0.5, seed=0):
    """Clips around class means; texts are the means with noise of their own; a third of the domain is labelled."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(num_classes, dim, generator=generator)
    labels = torch.randint(num_classes, (2 * num_clips,), generator=generator)
    shape = (2 * num_clips, *frames, dim)
    clips = means[labels].reshape(-1, *[1 for _ in frames], dim) + noise * torch.randn(shape, generator=generator)
    texts = normalize(means + 0.7 * torch.randn(num_classes, dim, generator=generator), dim=-1)
    clips = normalize(clips, dim=-1)
    known = torch.where(torch.arange(num_clips) % 3 == 0, labels[:num_clips], -1)
    return Task(clips[:num_clips], clips[num_clips:], texts, known, 10.0), labels[num_clips:]


@pytest.mark.parametrize("name", METHODS)
def test_logits_are_finite_and_better_than_chance(name):
    task, labels = clustered_task(frames=(2,))
    logits = METHODS[name](task)
    assert logits.shape == (60, 5)
    assert logits.isfinite().all()
    assert (logits.argmax(1) == labels).float().mean() > 0.6


@pytest.mark.parametrize("name", METHODS)
def test_order_of_clips_and_classes_does_not_matter(name):
    task, _ = clustered_task()
    generator = torch.Generator().manual_seed(3)
    domain, test, classes = (torch.randperm(n, generator=generator) for n in (60, 60, 5))
    # Cross-validation deals shots out by their order: with every class's order kept, only classes are moved.
    domain = torch.arange(60) if name == "gda" else domain
    known = torch.where(task.domain_labels < 0, -1, classes.argsort()[task.domain_labels.clamp_min(0)])
    moved = Task(task.domain[domain], task.test[test], task.text[classes], known[domain], task.logit_scale)
    assert_close(METHODS[name](moved), METHODS[name](task)[test][:, classes], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("num_clips", [1, 3])
def test_fewer_clips_than_classes_stay_finite(name, num_clips):
    task, _ = clustered_task(num_clips=num_clips, num_classes=8)
    assert METHODS[name](task).isfinite().all()


@pytest.mark.parametrize("name", METHODS)
def test_identical_clips_stay_finite(name):
    task, _ = clustered_task()
    same = Task(task.domain[:1].repeat(9, 1), task.test[:1].repeat(9, 1), task.text, torch.arange(9) % 5, 100.0)
    assert METHODS[name](same).isfinite().all()


def test_zero_shot_is_a_head_that_was_never_fitted():
    task, _ = clustered_task(frames=(3,))
    head = DKDHead(DKDCLIPConfig(projection_dim=13, logit_scale=10.0))
    assert_close(zero_shot(task), head(task.test, task.text).logits_per_video.detach(), rtol=1e-5, atol=1e-5)


def test_both_centred_forgets_a_shift_of_each_modality():
    centred = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    shifted = normalize(centred + torch.tensor([0.0, 0, 5]), dim=-1)
    logits = both_centred(Task(shifted, shifted, normalize(centred, dim=-1)))
    assert logits.argmax(1).tolist() == [0, 1, 2, 3]


def test_neighbours_are_those_of_scikit_learn():
    clips = clustered_task(num_clips=20)[0].domain
    distances, columns = NearestNeighbors(n_neighbors=4, metric="cosine").fit(clips).kneighbors(clips)
    expected = torch.zeros(20, 20)
    for row in range(20):
        expected[row, columns[row, 1:]] = 1 - torch.tensor(distances[row, 1:], dtype=torch.float32)
    assert_close(neighbour_graph(clips).to_dense(), expected, rtol=1e-4, atol=1e-5)
    assert neighbour_graph(clips[:1]).to_dense().tolist() == [[0.0]]


def test_likelihoods_differ_between_classes_as_normal_densities_do():
    generator = torch.Generator().manual_seed(0)
    clips, means = torch.randn(6, 5, generator=generator), torch.randn(3, 5, generator=generator)
    variances = torch.rand(3, 5, generator=generator) + 0.1
    normal = torch.distributions.Normal(means, variances.sqrt())
    expected = normal.log_prob(clips[:, None]).sum(-1)
    found = class_log_likelihood(clips, means, variances)
    assert_close(found - found[:, :1], expected - expected[:, :1], rtol=1e-4, atol=1e-4)
    shared = torch.distributions.Normal(means, variances[0].sqrt()).log_prob(clips[:, None]).sum(-1)
    found = shared_log_likelihood(clips, means, variances[0])
    assert_close(found - found[:, :1], shared - shared[:, :1], rtol=1e-4, atol=1e-4)


def test_gda_learns_from_labelled_clips_alone():
    task, labels = clustered_task(num_clips=120, noise=0.3)
    assert (gda(task).argmax(1) == labels).float().mean() > 0.95
    other = task.domain.clone()
    other[task.domain_labels < 0] = task.domain[0]
    assert_close(gda(Task(other, task.test, task.text, task.domain_labels, task.logit_scale)), gda(task))


@pytest.mark.parametrize("known", [None, torch.full((60,), -1)])
def test_gda_without_labels_says_so(known):
    task, _ = clustered_task()
    with pytest.raises(ValueError, match="gda needs labelled domain clips: give --shots"):
        gda(Task(task.domain, task.test, task.text, known))


@pytest.mark.parametrize(
    ("name", "method", "expected"),
    [
        ("whurs19_clip_rn50", zero_shot, 71.54),
        ("whurs19_clip_rn50", transclip, 95.92),
        ("whurs19_clip_rn50", stata, 94.1),
        ("whurs19_clip_vit-b-32", zero_shot, 81.29),
        ("whurs19_clip_vit-b-32", transclip, 90.35),
        ("whurs19_clip_vit-b-32", stata, 90.6),
    ],
)
def test_published_figures_come_out(data_dir, name, method, expected):
    real = read_embeddings(data_dir / "features" / f"{name}.npz")
    videos = normalize(real.video_embeds, dim=-1)
    logits = method(Task(videos, videos, normalize(real.text_embeds, dim=-1)))
    top1 = 100 * (logits.argmax(1) == real.labels).float().mean().item()
    assert top1 == pytest.approx(expected, abs=0.005 if method is not stata else 0.1)
