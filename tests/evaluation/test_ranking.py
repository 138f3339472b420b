import pytest
import torch
from sklearn.metrics import average_precision_score

from modeling_dkd import DKDHeadOutput
from modeling_dkd.evaluation.ranking import rejection, search_scores


def average_precision(scores, relevant):
    """Mean over the relevant clips of the share of relevant ones among those ranked up to each."""
    ranked = [kind for _, kind in sorted(zip(scores, relevant, strict=True), reverse=True)]
    shares = [sum(ranked[: i + 1]) / (i + 1) for i, kind in enumerate(ranked) if kind]
    return sum(shares) / len(shares)


def test_average_precision_is_that_of_its_definition_and_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    labels, classes = torch.randint(6, (80,), generator=generator), torch.tensor([5, 0, 3, 7])
    scores = torch.randn(80, 4, generator=generator)
    found = search_scores(scores, labels, classes)
    by_hand = [average_precision(scores[:, i].tolist(), (labels == k).tolist()) for i, k in enumerate((5, 0, 3))]
    library = [average_precision_score((labels == k).numpy(), scores[:, i].numpy()) for i, k in enumerate((5, 0, 3))]
    assert found["map"] == pytest.approx(sum(by_hand) / 3, abs=1e-6)
    assert found["map"] == pytest.approx(sum(library) / 3, abs=1e-6)
    assert found["queries"] == 3  # no clip is of class 7


def test_recall_at_k_counts_texts_that_find_a_clip_among_the_k_best():
    labels = torch.tensor([0, 1, 1, *[9] * 10])
    scores = torch.arange(13.0).flip(0)[:, None].repeat(1, 2)
    found = search_scores(scores, labels, torch.tensor([0, 1]))
    assert [found[f"recall_at_{k}"] for k in (1, 5, 10)] == [0.5, 1.0, 1.0]
    assert search_scores(-scores, labels, torch.tensor([0, 1]))["recall_at_10"] == 0.0


def test_a_perfect_ranking_is_1_and_texts_alone_decide():
    labels = torch.tensor([0, 0, 1, 1, 1])
    scores = torch.nn.functional.one_hot(labels, 2).float()
    assert search_scores(scores, labels, torch.tensor([0, 1]))["map"] == 1
    assert search_scores(scores * 1000, labels, torch.tensor([0, 1]))["map"] == 1


KNOWN = torch.tensor([True, True, False, False])


def test_known_tells_clips_apart_where_a_method_has_it():
    logits = torch.tensor([[5.0, 0], [0, 0], [5, 0], [5, 0]])
    softmax = rejection(DKDHeadOutput(logits), KNOWN)
    assert softmax["auroc"] == pytest.approx(0.25)  # of two clips asked, one is below both others, one ties with both
    found = rejection(DKDHeadOutput(logits, known=torch.tensor([0.9, 0.3, 0.45, 0.1])), KNOWN)
    assert found["auroc"] == pytest.approx(0.75)
    assert (found["rejected_known"], found["rejected_unknown"], found["n_unknown"]) == (0.5, 1.0, 2)
    # Each clip is alone in its bin: 0.9 and 0.3 say too little of clips asked, 0.45 and 0.1 too much of the others.
    assert found["known_ece"] == pytest.approx((0.1 + 0.7 + 0.45 + 0.1) / 4)


def test_the_largest_cosine_is_the_other_peer():
    videos = torch.tensor([[1.0, 0], [0.8, 0.6], [0.6, 0.8], [0, 1]])
    found = rejection(DKDHeadOutput(torch.zeros(4, 2), videos, torch.tensor([[1.0, 0], [0.9, -0.43]])), KNOWN)
    assert (found["auroc"], found["auroc_cosine"]) == (0.5, 1.0)
    assert rejection(DKDHeadOutput(torch.zeros(4, 2)), KNOWN)["auroc_cosine"] is None
