import json

import pytest
import torch
from datasets import Array2D, ClassLabel, List, Value, load_dataset

from modeling_dkd.cli import main
from modeling_dkd.embedding.embedding_cache import EmbeddingSet, read_embeddings, write_embeddings
from modeling_dkd.hub.embedding_dataset import read_caches, read_dataset, write_dataset
from modeling_dkd.hub.publishing import plan_publication

from .conftest import run_python
from .local_hub import WRITER


NAME = "owner/clips-tiny"


def embeddings(count=7, parts=(3,), prompts=(), seed=0, **metadata):
    generator = torch.Generator().manual_seed(seed)
    return EmbeddingSet(
        torch.randn(count, *parts, 5, generator=generator),
        torch.arange(count) % 3 - 1,
        torch.randn(2, *prompts, 5, generator=torch.Generator().manual_seed(9)),
        {
            "names": [f"a/b#{i};&(é).avi" for i in range(count)],
            "class_names": ["brush_hair", 'a "b" | c'],
            "backbone": "tiny",
            "revision": "sha256:abc",
            "dataset": "clips",
            "split": "1 test",
            "preprocessing": {"size": {"shortest_edge": 48}},
            "logit_scale": 13.5,
        }
        | metadata,
    )


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")


@pytest.mark.parametrize(("parts", "prompts"), [((), ()), ((3,), (2,)), ((1,), (1,))])
def test_what_was_written_is_read_back_bit_for_bit(tmp_path, parts, prompts):
    sets = {"test": embeddings(7, parts, prompts), "train": embeddings(4, parts, prompts, seed=1)}
    write_dataset(sets, tmp_path / "set", NAME)
    for split, written in sets.items():
        found = read_dataset(str(tmp_path / "set"), split)
        for name in ("video_embeds", "labels", "text_embeds"):
            assert torch.equal(getattr(found, name), getattr(written, name)), name
        assert found.metadata == written.metadata


def test_columns_are_typed(tmp_path):
    write_dataset({"test": embeddings()}, tmp_path / "set", NAME)
    features = load_dataset(str(tmp_path / "set"), "clips", split="test").features
    assert features["label"] == ClassLabel(names=["brush_hair", 'a "b" | c'])
    assert features["video_embeds"] == Array2D(shape=(3, 5), dtype="float32")
    texts = load_dataset(str(tmp_path / "set"), "texts", split="train")
    assert texts.features["text_embeds"] == List(Value("float32"), length=5)
    assert texts["class_name"][:] == ["brush_hair", 'a "b" | c']


def test_many_clips_go_into_several_tables(tmp_path, monkeypatch):
    monkeypatch.setattr("modeling_dkd.hub.embedding_dataset.ROWS_PER_TABLE", 3)
    written = embeddings(7)
    write_dataset({"test": embeddings(9), "old": embeddings(2)}, tmp_path / "set", NAME)
    write_dataset({"test": written}, tmp_path / "set", NAME)
    tables = sorted(path.name for path in (tmp_path / "set/clips").iterdir())
    assert tables == [f"test-0000{k}-of-00003.parquet" for k in range(3)]
    assert torch.equal(read_dataset(str(tmp_path / "set"), "test").video_embeds, written.video_embeds)


def test_a_plan_of_a_data_set_has_no_problems_and_names_no_machine(tmp_path):
    write_dataset({"test": embeddings(dataset="/home/me/videos/clips")}, tmp_path / "set", NAME)
    plan = plan_publication(tmp_path / "set", NAME, "dataset")
    assert not plan.problems
    assert "/home/me" not in (tmp_path / "set/embeddings.json").read_text() + plan.card


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (embeddings(revision="sha256:other"), "train has another revision than test"),
        (embeddings(prompts=(2,)), "train has other class texts"),
        (EmbeddingSet(torch.ones(2, 5), torch.zeros(2, dtype=torch.int64)), "other class texts"),
    ],
)
def test_sets_that_do_not_belong_together(tmp_path, other, message):
    with pytest.raises(ValueError, match=message):
        write_dataset({"test": embeddings(), "train": other}, tmp_path / "set", NAME)


def test_caches_are_named_by_their_split(tmp_path):
    write_embeddings(tmp_path / "x.safetensors", embeddings())
    assert list(read_caches([f"test={tmp_path / 'x.safetensors'}"])) == ["test"]
    with pytest.raises(ValueError, match="must read SPLIT=FILE"):
        read_caches([str(tmp_path / "x.safetensors")])
    with pytest.raises(ValueError, match="given twice"):
        read_caches([f"a={tmp_path / 'x.safetensors'}"] * 2)


def test_what_is_no_data_set_of_embeddings(tmp_path):
    write_dataset({"test": embeddings()}, tmp_path / "set", NAME)
    with pytest.raises(ValueError, match="has no split val, but test"):
        read_dataset(str(tmp_path / "set"), "val")
    with pytest.raises(ValueError, match="no data set of embeddings that can be read"):
        read_dataset(str(tmp_path), "test")


LOAD = """
import json
from datasets import load_dataset
clips = load_dataset({name!r}, "clips", split="test", revision={revision!r})
print(json.dumps([clips.features["label"].names, clips["name"][:], str(clips.features["video_embeds"])]))
"""


@pytest.mark.slow
def test_published_loaded_by_name_and_measured_elsewhere(tmp_path, hub):
    written = embeddings(40)
    written = EmbeddingSet(written.video_embeds, torch.arange(40) % 2, written.text_embeds, written.metadata)
    write_embeddings(tmp_path / "cache.safetensors", written)
    environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": WRITER, "HF_HOME": str(tmp_path / "hf")}
    command = ["publish-embeddings", "test=cache.safetensors", "--repo_id", NAME]
    assert "dry run" in run_python("-m", "modeling_dkd", *command, cwd=tmp_path, **environment).stdout
    assert not hub.repositories
    shown = run_python("-m", "modeling_dkd", *command, "--push", cwd=tmp_path, **environment).stdout
    commit = shown.split("commit to pin: ")[1].strip()
    home = {"HF_HOME": str(tmp_path / "elsewhere")}
    loaded = run_python("-c", LOAD.format(name=NAME, revision=commit), cwd=tmp_path / "e", **(environment | home))
    names, clips, kind = json.loads(loaded.stdout.splitlines()[-1])
    assert names == written.metadata["class_names"]
    assert clips == written.metadata["names"]
    assert "Array2D" in kind
    fetch = ["fetch-embeddings", NAME, "--split", "test", "--revision", commit, "--output", "back.safetensors"]
    run_python("-m", "modeling_dkd", *fetch, cwd=tmp_path, **(environment | home))
    found = read_embeddings(tmp_path / "back.safetensors")
    assert torch.equal(found.video_embeds, written.video_embeds)
    assert found.metadata == written.metadata


def test_fetching_what_is_not_there_is_one_line(tmp_path, capsys):
    assert main(["fetch-embeddings", str(tmp_path), "--output", str(tmp_path / "x.safetensors")]) == 2
    assert "no data set of embeddings" in capsys.readouterr().err
