import pytest
import torch
from torch.nn.functional import normalize
from torch.testing import assert_close

from modeling_dkd import DKDHeadOutput
from modeling_dkd.evaluation.names import DEFAULT_PROTOCOLS
from modeling_dkd.evaluation.protocols import Task, choose_shots, half_asked, pool, split, splits
from modeling_dkd.evaluation.ranking import rejection, search_scores


def labels_of(num_clips=300, num_classes=11):
    return torch.randint(num_classes, (num_clips,), generator=torch.Generator().manual_seed(5))


def test_full_tests_its_own_domain_once():
    found = list(splits(labels_of(), 11, ["full"], num_seeds=5))
    assert [(s.seed, s.domain.tolist(), s.test.tolist()) for s in found] == [(0, list(range(300)), list(range(300)))]


@pytest.mark.parametrize(("protocol", "size"), [("induct", 150), ("few", 64)])
def test_inductive_protocols_share_every_clip_out_once(protocol, size):
    found = split(protocol, 3, labels_of(), 11)
    assert len(found.domain) == size
    assert sorted([*found.domain.tolist(), *found.test.tolist()]) == list(range(300))


def test_quarter_keeps_all_clips_of_a_quarter_of_the_classes():
    labels = labels_of()
    found = split("quarter", 1, labels, 11)
    present = labels[found.test].unique()
    assert len(present) == 2
    assert found.domain.equal(found.test)
    assert len(found.test) == torch.isin(labels, present).sum()


def test_imbal_keeps_a_tail_and_seeds_differ():
    labels = labels_of()
    kept = [split("imbal", seed, labels, 11).test for seed in range(4)]
    assert len({tuple(k.tolist()) for k in kept}) == 4
    assert all(len(k) < 200 for k in kept)


def test_open_asks_half_of_the_classes_of_all_clips():
    found = split("open", 3, labels_of(), 11)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(3))
    assert found.asked.tolist() == sorted(order[:5].tolist()) == half_asked(11, 3).tolist()
    assert found.domain.tolist() == found.test.tolist() == list(range(300))


@pytest.mark.parametrize(("label", "others"), [(0, "of another class"), (1, "of a class that is asked")])
def test_open_needs_clips_of_both_kinds(label, others):
    asked = half_asked(2, 0).item()
    labels = torch.full((9,), asked if label == 0 else 1 - asked)
    with pytest.raises(ValueError, match=f"'open' with seed 0 asks 1 of 2 classes and finds no clip {others}"):
        split("open", 0, labels, 2)


def test_same_seed_same_split():
    a, b = (split("few", 2, labels_of(), 11) for _ in range(2))
    assert a.domain.equal(b.domain)


def test_a_set_too_small_is_refused_with_the_protocol():
    with pytest.raises(ValueError, match="'few' with seed 0 leaves no test clip"):
        split("few", 0, labels_of(64), 11)
    with pytest.raises(ValueError, match="protocol 'fulll' is unknown: choose from full, induct"):
        split("fulll", 0, labels_of(), 11)


def test_shots_come_from_the_candidates_and_are_at_most_as_many_as_asked():
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2])
    candidates = torch.tensor([0, 1, 2, 4, 6, 7, 8])
    chosen = choose_shots(labels, candidates, 2, seed=0)
    assert torch.isin(chosen, candidates).all()
    assert torch.bincount(labels[chosen]).tolist() == [2, 1, 2]
    assert len({tuple(choose_shots(labels, candidates, 2, seed=s).tolist()) for s in range(9)}) > 1
    assert len(list(splits(labels, 3, ["full"], num_seeds=4, shots=2))) == 4


def test_pooled_is_the_unit_mean_of_unit_parts():
    frames = torch.tensor([[[3.0, 0.0], [0.0, 1.0]]])
    assert_close(pool(frames), torch.full((1, 2), 0.5**0.5))
    task = Task(frames, frames[:, 0], frames)
    assert [t.shape for t in (task.pooled().domain, task.pooled().test, task.pooled().text)] == [(1, 2)] * 3


def test_splits_are_those_of_the_shared_protocols(protocols):
    labels = labels_of(400, 23)
    videos = normalize(torch.randn(400, 6, generator=torch.Generator().manual_seed(1)), dim=-1)
    ours = list(splits(labels, 23, DEFAULT_PROTOCOLS, num_seeds=3))
    theirs = list(protocols.splits(videos, labels, 23, seeds=3))
    assert len(ours) == len(theirs) == 13
    for mine, (protocol, seed, domain, test, test_labels) in zip(ours, theirs, strict=True):
        assert (mine.protocol, mine.seed) == (protocol, seed)
        assert videos[mine.domain].equal(domain)
        assert videos[mine.test].equal(test)
        assert labels[mine.test].equal(test_labels)
    for seed in range(5):
        assert half_asked(23, seed).equal(protocols.half_asked(23, seed))


def test_measures_are_those_of_the_shared_protocols(protocols):
    generator = torch.Generator().manual_seed(0)
    labels, logits = labels_of(90, 7), torch.randn(90, 3, generator=generator)
    found = search_scores(logits, labels, torch.tensor([1, 3, 5]))
    assert 100 * found["map"] == pytest.approx(protocols.mean_average_precision(logits, labels, [1, 3, 5]), abs=1e-4)
    asked = half_asked(7, 0)
    auroc = rejection(DKDHeadOutput(logits), torch.isin(labels, asked))["auroc"]
    assert 100 * auroc == pytest.approx(protocols.unknown_auroc(logits.softmax(1).amax(1), labels, asked), abs=1e-4)
