import pytest
import torch
from torch.nn.functional import normalize

from modeling_dkd.embedding.embedding_cache import EmbeddingSet, read_embeddings
from modeling_dkd.evaluation.measurement import Plan
from modeling_dkd.evaluation.methods.dkd import dkd
from modeling_dkd.evaluation.methods.peers import transclip, zero_shot
from modeling_dkd.evaluation.search import measure_search, num_searches

from .methods.test_peers import clustered_task


@pytest.fixture
def toy():
    task, labels = clustered_task(num_clips=80, num_classes=5)
    return EmbeddingSet(task.test, labels, task.text, {"logit_scale": 10.0})


def test_new_texts_are_never_fitted(toy):
    seen = []

    def watching(task):
        seen.append(task)
        return zero_shot(task)

    rows = list(measure_search("toy", toy, {"zero-shot": watching}, Plan(())))
    fitted, new = seen
    assert fitted.asked.equal(fitted.text)
    assert torch.allclose(new.text, normalize(toy.text_embeds, dim=-1)[[0, 2, 4]])
    assert torch.allclose(new.asked, normalize(toy.text_embeds, dim=-1)[[1, 3]])
    assert [(row["texts"], row["queries"], row["n"]) for row in rows] == [("fitted", 5, 80), ("new", 2, 80)]
    assert num_searches(toy) == 2


def test_figures_are_those_of_the_cosines(toy):
    from sklearn.metrics import average_precision_score

    rows = list(measure_search("toy", toy, {"zero-shot": zero_shot, "dkd": dkd}, Plan(())))
    cosines = normalize(toy.video_embeds, dim=-1) @ normalize(toy.text_embeds, dim=-1).T
    expected = [average_precision_score((toy.labels == k).numpy(), cosines[:, k].numpy()) for k in range(5)]
    assert rows[0]["map"] == pytest.approx(sum(expected) / 5, abs=1e-5)
    assert rows[2]["map"] == pytest.approx((expected[1] + expected[3]) / 2, abs=1e-5)
    assert rows[1]["map"] != rows[0]["map"]


def test_labelled_clips_of_texts_that_are_not_fitted_lose_their_labels(toy):
    seen = []

    def watching(task):
        seen.append(task)
        return zero_shot(task)

    list(measure_search("toy", toy, {"zero-shot": watching}, Plan((), shots=2)))
    before, after = (task.domain_labels for task in seen)
    assert after.tolist() == [k // 2 if k >= 0 and k % 2 == 0 else -1 for k in before.tolist()]
    assert (after >= 0).sum() == 6


def test_a_method_without_embeddings_is_refused(toy):
    with pytest.raises(ValueError, match="transclip on toy, search with fitted texts: returns no embeddings"):
        list(measure_search("toy", toy, {"transclip": transclip}, Plan(())))


def test_one_class_has_no_new_texts():
    one = EmbeddingSet(torch.eye(3), torch.zeros(3, dtype=torch.int64), torch.ones(1, 3))
    assert [row["texts"] for row in measure_search("one", one, {"zero-shot": zero_shot}, Plan(()))] == ["fitted"]
    assert num_searches(one) == 1


def test_plain_figures_of_real_features_come_out(data_dir):
    path = data_dir / "features/whurs19_clip_rn50.npz"
    real = read_embeddings(path, video_embeds="image_f", text_embeds="text_avg")
    fitted, new = measure_search("whu", real, {"zero-shot": zero_shot}, Plan(()))
    assert (round(100 * fitted["map"], 1), round(100 * new["map"], 1)) == (57.6, 48.7)
