import torch
from torch.testing import assert_close

from modeling_dkd.embedding.embedding_cache import EmbeddingSet
from modeling_dkd.evaluation.measurement import Plan, measure_set, tasks
from modeling_dkd.evaluation.methods.dkd import dkd
from modeling_dkd.evaluation.methods.peers import both_centred, zero_shot
from modeling_dkd.evaluation.protocols import half_asked

from .methods.test_peers import clustered_task


def toy_set(num_classes=6):
    task, labels = clustered_task(num_clips=90, num_classes=num_classes)
    return EmbeddingSet(task.test, labels, task.text, {"logit_scale": 10.0})


def test_zero_shot_is_added_where_it_is_not_among_the_methods():
    def names(methods):
        return [m.row["method"] for m in measure_set("toy", toy_set(), methods, Plan(("full",)))]

    assert names({"own": both_centred}) == ["zero-shot", "own"]
    assert names({"own": both_centred, "zero-shot": zero_shot}) == ["own", "zero-shot"]
    assert names({"fine-tuned": zero_shot, "own": both_centred}) == ["fine-tuned", "own"]


def test_open_gives_a_method_the_texts_asked_and_measures_top1_on_their_clips():
    toy, seen = toy_set(), []

    def watching(task):
        seen.append(task)
        return zero_shot(task)

    (measured,) = measure_set("toy", toy, {"zero-shot": watching}, Plan(("open",), num_seeds=1))
    asked = half_asked(6, 0)
    assert_close(seen[0].text, toy.text_embeds[asked])
    assert len(seen[0].test) == len(seen[0].domain) == 90
    is_known = torch.isin(toy.labels, asked)
    assert measured.clips.equal(is_known.nonzero()[:, 0])
    assert measured.labels.equal(toy.labels[is_known])  # numbered as in the set
    cosines = toy.video_embeds[is_known] @ toy.text_embeds[asked].T
    assert measured.predictions.equal(asked[cosines.argmax(1)])
    assert measured.row["top1"] == round(measured.hits.mean().item(), 6)
    assert set(measured.row["per_class"]) <= {f"class {k}" for k in asked.tolist()}


def test_labels_of_classes_that_are_not_asked_are_not_given():
    toy = toy_set()
    split, task, _ = next(tasks(toy, None, Plan(("open",), num_seeds=1, shots=2)))
    given = task.domain_labels >= 0
    assert given.sum() == 2 * len(split.asked)
    assert split.asked[task.domain_labels[given]].equal(toy.labels[split.domain][given])


def test_a_fitted_head_is_judged_by_what_it_knows():
    toy = toy_set()
    (_, measured) = measure_set("toy", toy, {"zero-shot": zero_shot, "dkd": dkd}, Plan(("open",), num_seeds=1))
    _, task, labels = next(tasks(toy, None, Plan(("open",), num_seeds=1)))
    known, is_known = dkd(task).known.detach(), torch.isin(labels, half_asked(6, 0))
    ranks = (known[is_known][:, None] > known[~is_known]).float().mean()
    assert abs(measured.row["auroc"] - ranks) < 1e-3
    assert measured.row["rejected_unknown"] == round((known[~is_known] < 0.5).float().mean().item(), 6)
