import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling_dkd.embedding.embedding_cache import EmbeddingSet

from .toy_domain import toy_domain


BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def bias(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import background_bias

    return background_bias


@pytest.fixture
def clips(bias):
    return sys.modules["replaced_backgrounds"]


def pair_of(bias, spoil=None):
    """Clips of a toy domain, five in a group; `spoil` changes the embeddings of the replaced ones."""
    domain = toy_domain()
    known = {
        "groups": [f"group {i // 5}" for i in range(150)],
        "donors": ((domain.labels + 1) % 6).tolist(),
        "class_names": list("abcdef"),
        "logit_scale": 20.0,
    }
    original = EmbeddingSet(domain.videos, domain.labels, domain.texts, known)
    replaced = domain.videos if spoil is None else spoil(domain)
    return bias.Pair(original, EmbeddingSet(replaced, domain.labels, domain.texts, known))


def test_what_moves_is_foreground_and_the_rest_is_not(clips):
    frames = np.full((clips.FRAMES * clips.MOMENTS, 3, 48, 64), 90, dtype=np.uint8)
    for i, frame in enumerate(frames):
        left = 12 + 2 * (i % clips.MOMENTS)
        frame[:, 16:32, left : left + 12] = 250
    mask = clips.moving_foreground(frames)
    assert mask.shape == (clips.FRAMES, 1, 48, 64)
    assert mask.mean() == pytest.approx(clips.FOREGROUND_SHARE, abs=0.03)
    assert mask[:, 0, 16:32, 20:28].min() > 0.9
    assert mask[:, 0, :4, 50:].max() < 0.1


def test_a_real_clip_keeps_what_moves_and_gets_the_scene_of_another_class(clips, data_dir):
    from modeling_dkd.data.official_index import ucf101_index

    index = ucf101_index(data_dir / "ucf101", data_dir / "annotations", 1, allow_missing=True)
    few = clips.few_of_each_group(index, 1)
    groups = [record.group for record in few.records]
    assert len(groups) == len(set(groups)) == len({record.group for record in index.records})
    few = clips.replace(few, records=few.records[::60])
    for record, made in zip(few.records, clips.replaced_real_clips(few), strict=True):
        assert few.records[made.donor].label != record.label
        assert made.original.shape == made.replaced.shape
        assert made.original.shape[:2] == (clips.FRAMES, 3)
        changed = (made.original != made.replaced).any(1).float().mean()
        assert 0.4 < changed < 0.9


def test_a_generated_clip_changes_in_its_scene_alone(clips):
    from modeling_dkd.synthetic.clips import DOMAINS, describe_clips

    descriptions = describe_clips(DOMAINS["source"], 12, 1)
    for description, made in zip(descriptions, clips.replaced_generated_clips("source", 12), strict=True):
        donor = descriptions[made.donor]
        assert donor.action != description.action
        assert donor.scene != description.scene
        assert not made.original.equal(made.replaced)


def test_groups_are_never_in_domain_and_test(bias):
    groups = [f"g{i % 7}" for i in range(50)]
    domain, test = bias.divide(groups, 3)
    assert sorted([*domain.tolist(), *test.tolist()]) == list(range(50))
    assert not {groups[i] for i in domain} & {groups[i] for i in test}


def test_clips_that_stay_as_they_are_cost_nothing(bias):
    losses = bias.measure("toy", pair_of(bias), 2)
    assert [(x.method, x.domain) for x in losses if x.method == "dkd"] == [("dkd", "original"), ("dkd", "replaced")]
    assert {(x.loss, x.loss_error, x.excess, x.excess_error, x.drawn) for x in losses} == {(0, 0, 0, 0, 0)}
    assert all(0.3 < x.original == x.replaced < 1 for x in losses)
    assert "no more than plain zero-shot in 2 of 2 rows" in bias.verdict(losses)


def test_a_replacement_that_shows_another_class_is_a_loss_toward_it(bias):
    def swap(domain):
        # Every clip becomes one of its donor's class.
        order = torch.argsort(domain.labels, stable=True)
        first = {k: order[domain.labels[order] == k][0] for k in range(6)}
        return domain.videos[torch.stack([first[(int(k) + 1) % 6] for k in domain.labels])]

    losses = {(x.method, x.domain): x for x in bias.measure("toy", pair_of(bias, swap), 2)}
    plain = losses["zero-shot", "original"]
    assert plain.loss > 0.3
    assert plain.drawn > 0.3
    assert (plain.excess, plain.excess_error) == (0, 0)
    dkd = losses["dkd", "original"]
    assert dkd.excess == pytest.approx(dkd.loss - plain.loss)
    assert dkd.loss == pytest.approx(dkd.original - dkd.replaced)
    assert f"| {100 * dkd.loss:+.1f} ±" in bias.table(list(losses.values()))


def test_classes_that_do_not_occur_can_be_left_out(bias):
    pair = pair_of(bias)
    kept = [0, 2, 5]
    rows = torch.isin(pair.original.labels, torch.tensor(kept)).nonzero()[:, 0]
    donors = [kept[i % 3] for i in range(len(rows))]
    metadata = pair.original.metadata | {"groups": ["g"] * len(rows), "donors": donors}
    part = EmbeddingSet(
        pair.original.video_embeds[rows], pair.original.labels[rows], pair.original.text_embeds, metadata
    )
    fewer = bias.with_classes(bias.Pair(part, part), kept).original
    assert fewer.class_names == ["a", "c", "f"]
    assert [kept[k] for k in fewer.labels.tolist()] == part.labels.tolist()
    assert [kept[k] for k in fewer.metadata["donors"]] == donors
    assert fewer.text_embeds.equal(part.text_embeds[kept])


@pytest.mark.slow
def test_the_command_embeds_once_and_writes_both_files(bias, tmp_path, monkeypatch, capsys):
    arguments = ["--clips", "40", "--seeds", "1", "--cache_dir", str(tmp_path / "cache")]
    monkeypatch.setattr(sys, "argv", ["background_bias.py", *arguments, "--output", str(tmp_path / "bias.md")])
    assert bias.main() == 0
    written = json.loads((tmp_path / "bias.json").read_text())
    assert len(written["rows"]) == 2 * 2 * 3
    assert (tmp_path / "bias.md").read_text() == capsys.readouterr().out[:-1]
    monkeypatch.setattr(bias, "embed_generated", None)
    assert bias.main() == 0
    assert json.loads((tmp_path / "bias.json").read_text())["rows"] == written["rows"]


def test_the_committed_page_has_its_rows(bias):
    docs = BENCHMARKS.parent / "docs"
    losses = [bias.Loss(**row) for row in json.loads((docs / "background_bias.json").read_text())["rows"]]
    text = (docs / "background_bias.md").read_text()
    assert bias.table(losses) in text
    assert bias.verdict(losses) in text
