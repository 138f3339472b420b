"""What a stranger's file may not do: run code, be unpickled, lead out of its folder, or keep a command waiting."""

import ast
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from faults.texts import ucf101_lists
from modeling_dkd.data.hub_videos import hub_index
from modeling_dkd.data.official_index import ucf101_index
from modeling_dkd.data.video_index import csv_index, folder_index
from modeling_dkd.dkd_head import DKDHead
from modeling_dkd.embedding.clip_encoder import ClipEncoder
from modeling_dkd.embedding.clip_shards import ClipShards
from modeling_dkd.embedding.embedding_cache import read_embeddings
from modeling_dkd.embedding.embedding_shards import EmbeddingShards
from modeling_dkd.hub.publishing import plan_publication
from modeling_dkd.video_frames import VideoReadError, read_frames

from .tiny_checkpoint import save_tiny_clip


ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(
    path
    for place in ("modeling_dkd", "benchmarks", "faults", "hub_configs", "train.py", "evaluate.py")
    for path in ([ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("*.py"))
)
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle"}
FORBIDDEN_CALLS = {"eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.load_all", "yaml.unsafe_load"}
FORBIDDEN_CALLS |= {"yaml.full_load", "pd.read_pickle", "pandas.read_pickle"}
# Calls that unpickle unless they are told not to.
NEED_KEYWORD = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}


def dangers(tree):
    """Every import and call of a module that would unpickle, run a text as code, or trust a repository's code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (name for name in names if name.split(".")[0] in UNPICKLERS)
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
            keyword, wanted = NEED_KEYWORD.get(called, (None, None))
            if called in FORBIDDEN_CALLS or (keyword and given.get(keyword) is not wanted):
                yield called
            if given.get("trust_remote_code") or given.get("shell"):
                yield f"{called}(trust_remote_code or shell)"


def test_no_source_unpickles_or_runs_what_it_reads():
    assert len(SOURCES) > 100
    found = {str(path.relative_to(ROOT)): list(dangers(ast.parse(path.read_text()))) for path in SOURCES}
    assert {path: what for path, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(x)",
        "torch.load(x, weights_only=False)",
        "np.load(x, allow_pickle=True)",
        "yaml.load(x)",
        "f(trust_remote_code=True)",
        "run(x, shell=True)",
        "eval(x)",
    ],
)
def test_the_search_finds_what_it_looks_for(code):
    assert list(dangers(ast.parse(code)))


class Hostile:
    """Unpickled, it writes a file."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def load_domain(path):
    DKDHead.from_pretrained(path.parent)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("cache.safetensors", read_embeddings),
        ("cache.npz", read_embeddings),
        ("cache.npy", read_embeddings),
        ("cache.pt", read_embeddings),
        ("shard.safetensors", lambda path: EmbeddingShards([path])),
        ("dkd_domain.safetensors", load_domain),
    ],
)
def test_a_pickle_under_any_name_is_refused(tmp_path, name, read):
    marker = tmp_path / "it ran"
    (tmp_path / name).write_bytes(pickle.dumps(Hostile(marker)))
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        read(tmp_path / name)
    torch.save({"video_embeds": Hostile(marker)}, tmp_path / name)
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        read(tmp_path / name)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Hostile(marker)))
    assert marker.exists()


def test_arrays_of_objects_are_refused(tmp_path):
    marker = tmp_path / "it ran"
    objects = np.array([Hostile(marker)], dtype=object)
    np.savez(tmp_path / "a.npz", video_embeds=np.ones((1, 2)), labels=np.zeros(1, int), class_names=objects)
    with pytest.raises(ValueError, match="without pickled objects"):
        read_embeddings(tmp_path / "a.npz")
    assert not marker.exists()


def test_weights_in_a_pickle_run_nothing(tmp_path):
    marker = tmp_path / "it ran"
    folder = save_tiny_clip(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save({"logit_scale": Hostile(marker)}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot load the model"):
        load(folder)
    assert not marker.exists()


def load(name):
    return ClipEncoder.load(str(name), "1x1x1", None, torch.float32, torch.device("cpu"))


def test_code_of_a_model_folder_is_not_run(tmp_path):
    marker = tmp_path / "it ran"
    folder = save_tiny_clip(tmp_path / "model")
    (folder / "code.py").write_text(f"import os\nos.mkdir({str(marker)!r})\nclass Config: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "of_a_stranger", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="cannot load the model"):
        load(folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    "name", ["../secret/model", "a/b/c", "https://example.org/m", "a b", "~/model", "a/b\n", "a--b/..c"]
)
def test_names_that_are_no_repository_are_refused_before_anything_is_asked(name, monkeypatch):
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", lambda *_, **__: pytest.fail("the name was used"))
    with pytest.raises(ValueError, match="no model folder"):
        load(name)


@pytest.fixture
def outside(tmp_path):
    """A video outside of the data folder."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret.mp4").write_bytes(b"x")
    return tmp_path / "outside"


@pytest.fixture
def inside(tmp_path):
    """A data folder with one clip."""
    (tmp_path / "data/run").mkdir(parents=True)
    (tmp_path / "data/run/a.mp4").write_bytes(b"x")
    return tmp_path / "data"


@pytest.mark.parametrize(
    "path", ["../outside/secret.mp4", "{outside}/secret.mp4", "run/../../outside/secret.mp4", "link"]
)
def test_a_list_cannot_lead_out_of_its_folder(inside, outside, path):
    (inside / "link").symlink_to(outside / "secret.mp4")
    (inside / "list.csv").write_text(f"path,label\nrun/a.mp4,run\n{path.format(outside=outside)},run\n")
    with pytest.raises(ValueError, match=r"list\.csv: .* leads to .*secret\.mp4, out of the folder"):
        csv_index(inside / "list.csv", allow_missing=True)
    (inside / "list.csv").write_text(f"path,label\n{inside}/run/../run/a.mp4,run\n")
    assert len(csv_index(inside / "list.csv").records) == 1


def test_links_in_a_folder_cannot_lead_out_of_it(inside, outside):
    (inside / "run/b.mp4").symlink_to(inside / "run/a.mp4")
    assert "counted once" in folder_index(inside).notes[0]
    link = inside / "run/c.mp4"
    link.symlink_to(outside / "secret.mp4")
    with pytest.raises(ValueError, match=r"c\.mp4 leads to .*secret\.mp4, out of the folder"):
        folder_index(inside)
    link.unlink()
    (inside / "jump").symlink_to(outside)
    with pytest.raises(ValueError, match="out of the folder"):
        folder_index(inside)


def test_a_folder_that_is_a_link_itself_is_followed(inside, tmp_path):
    (tmp_path / "link").symlink_to(inside)
    assert len(folder_index(tmp_path / "link").records) == 1


def test_a_snapshot_in_the_cache_of_the_hub_is_a_folder_of_links(tmp_path, outside):
    snapshot = tmp_path / "datasets--a--b/snapshots/0123"
    (snapshot / "run").mkdir(parents=True)
    (tmp_path / "datasets--a--b/blobs").mkdir()
    (tmp_path / "datasets--a--b/blobs/abc").write_bytes(b"x")
    (snapshot / "run/a.mp4").symlink_to("../../../blobs/abc")
    assert len(folder_index(snapshot).records) == 1
    (snapshot / "run/b.mp4").symlink_to(outside / "secret.mp4")
    with pytest.raises(ValueError, match="out of the folder"):
        folder_index(snapshot)


def test_a_link_to_a_folder_above_it_is_named(inside):
    (inside / "run/again").symlink_to(inside / "run")
    with pytest.raises(ValueError, match=r"run/again is a link to a folder that it lies in"):
        folder_index(inside)


def test_official_lists_cannot_lead_out_of_the_folder(tmp_path, outside):
    lists = ucf101_lists()
    first = lists["trainlist01.txt"].split(" ")[0]
    lists["trainlist01.txt"] = lists["trainlist01.txt"].replace(first, "Class000/../../outside/secret.mp4", 1)
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "videos/Class000").mkdir(parents=True)
    (tmp_path / "videos/Class001").mkdir()
    (tmp_path / "videos/Class001/v_Class001_g01_c000.avi").write_bytes(b"x")
    index = ucf101_index(tmp_path / "videos", tmp_path, 1, allow_missing=True)
    assert [record.name for record in index.records] == ["Class001/v_Class001_g01_c000.avi"]
    assert len(index.missing) == 13319


def test_a_table_cannot_name_a_file_of_this_machine(tmp_path, outside, monkeypatch):
    from datasets import Dataset, Features, Value, Video

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")
    columns = Features({"video": Video(decode=False), "label": Value("string")})
    rows = [{"video": {"bytes": None, "path": str(outside / "secret.mp4")}, "label": "a"}]
    (tmp_path / "table").mkdir()
    Dataset.from_list(rows, features=columns).to_parquet(tmp_path / "table/train.parquet")
    with pytest.raises(ValueError, match=r"secret\.mp4, out of the folder"):
        hub_index(str(tmp_path / "table"), tmp_path / "store")


def test_a_pipe_is_not_waited_for(inside, tmp_path):
    os.mkfifo(inside / "run/b.mp4")
    index = folder_index(inside)
    with pytest.raises(VideoReadError, match=r"b\.mp4.*not a regular file"):
        read_frames(index.records[1].path, 2)
    os.mkfifo(inside / "list.csv")
    with pytest.raises(ValueError, match="it is no file"):
        csv_index(inside / "list.csv")
    os.mkfifo(inside / "cache.safetensors")
    with pytest.raises(ValueError, match="no such file"):
        read_embeddings(inside / "cache.safetensors")
    lists = ucf101_lists() | {"trainlist01.txt": None}
    for name, text in lists.items():
        os.mkfifo(tmp_path / name) if text is None else (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=r"trainlist01\.txt: there is no such file"):
        ucf101_index(inside, tmp_path, 1)
    os.mkfifo(inside / "config.json")
    assert "config.json: is no file that can be read; remove it" in plan_publication(inside, "owner/x").problems


def test_a_hostile_shard_counts_as_absent(tmp_path):
    shards = ClipShards(tmp_path)
    shards.write(["a|1|1"], [("a|1|1", "")], torch.ones(1, 2, 3))
    for number, clips in enumerate((["b"], [["b", 1]], {"b": ""}, [["b", ""], ["c", ""]], "b", None, [[["b"], ""]])):
        save_file(
            {"video_embeds": torch.ones(1, 2, 3)}, tmp_path / f"{number}.safetensors", {"clips": json.dumps(clips)}
        )
    save_file({"video_embeds": torch.ones(3)}, tmp_path / "x.safetensors", {"clips": json.dumps([["b", ""]] * 3)})
    save_file({"other": torch.ones(3)}, tmp_path / "y.safetensors", {"clips": "[" * 100_000})
    assert list(shards.known()) == ["a|1|1"]
    assert shards.gather(["a|1|1"]).shape == (1, 2, 3)
