"""Clips in a repository of the Hub: evaluate.py streams and keeps none, train.py fetches or streams them."""

import json
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from datasets import Dataset, Features, Value, Video

from ..made_up_sets import COLOURS, webdataset
from ..tiny_checkpoint import save_tiny_clip
from .conftest import ROOT, run_python
from .local_hub import WRITER


SCRIPT = """
import json, sys
from pathlib import Path
from modeling_dkd.data.hub_stream import hub_stream, streamed_index
from modeling_dkd.data.hub_videos import hub_index
from modeling_dkd.embedding.clip_frames import read_clip_frames

streamed = [row["class_name"] for row in hub_stream("owner/clips", "train")]
kept = streamed_index("owner/clips", "store", 2)
files = len(list(Path("store").iterdir()))
fetched = len(list(Path("hf").rglob("*.tar")))
index = hub_index("owner/clips", "store")
frames = [read_clip_frames(record, 2).pixels.shape[0] for record in index.records]
parts = [[len(i.part(part).records) for part in ("train", "test")] for i in (kept, index)]
print(json.dumps([streamed, files, fetched, parts, index.class_names, frames, len(list(Path("store").iterdir()))]))
"""


@pytest.fixture
def environment(hub, tmp_path):
    return {"HF_ENDPOINT": hub.url, "HF_TOKEN": WRITER, "HF_HOME": str(tmp_path / "hf")}


def publish(api, folder):
    api.create_repo("owner/clips", repo_type="dataset", exist_ok=True)
    api.upload_folder(repo_id="owner/clips", folder_path=folder, repo_type="dataset")


@pytest.mark.slow
def test_archives_are_streamed_or_fetched_as_they_are(tmp_path, api, environment):
    publish(api, webdataset(tmp_path / "shards"))
    done = run_python("-c", SCRIPT, cwd=tmp_path, **environment)
    streamed, files, fetched, parts, class_names, frames, stored = json.loads(done.stdout.splitlines()[-1])
    assert len(streamed) == 12
    assert set(streamed) == set(COLOURS)
    assert (files, fetched) == (6, 0)  # the test part and two of the training clips; no archive was kept
    assert parts == [[2, 4], [12, 4]]
    assert class_names == sorted(COLOURS)
    assert frames == [2] * 16
    assert stored == files  # nothing was unpacked


def evaluation(place, model, cache, *more):
    """The command line that evaluates a model on clips in archives."""
    options = ["--model", str(model), "--dataset", "hub", "--data_dir", str(place), "--frames", "2x1x1"]
    options += ["--batch_size", "2", "--cache_dir", str(cache), "--output", f"{cache}.json", *more]
    return [str(ROOT / "evaluate.py"), *options]


def figures(file):
    """Rows without what tells of the place."""
    rows = json.loads(Path(file).read_text())["rows"]
    return [(row["method"], row["n"], row["top1"], row["per_class"]) for row in rows]


def kept_of(folder):
    """Files below a folder that are as large as an archive, or are one."""
    return [file for file in folder.rglob("*") if file.suffix in (".tar", ".mp4", ".parquet", ".arrow")]


@pytest.mark.slow
def test_an_evaluation_streams_each_archive_once_and_keeps_none(tmp_path, hub, api, environment):
    """The figures are those of the same archives here; each is asked for once, broken connections go on."""
    root = webdataset(tmp_path / "shards")
    publish(api, root)
    model = save_tiny_clip(tmp_path / "model")
    run_python(*evaluation(root, model, tmp_path / "here", "--num_workers", "0"), cwd=tmp_path, **environment)
    hub.requests.clear()
    hub.fail(r"GET .*train-1\.tar", "cut in the middle")
    remote = evaluation("owner/clips", model, tmp_path / "there", "--num_workers", "0")
    done = run_python(*remote, cwd=tmp_path, **environment)
    assert "clips: 16 clips embedded, 0 known from before, 0 damaged" in done.stderr
    assert figures(tmp_path / "there.json") == figures(tmp_path / "here.json")
    asked = [call for call in hub.requests if call.startswith("GET") and call.endswith(".tar")]
    assert sorted(re.findall(r"\w+-\d", " ".join(asked))) == ["test-0", "train-0", "train-1", "train-1", "train-2"]
    assert not kept_of(tmp_path / "hf")
    assert not kept_of(tmp_path / "there")
    hub.requests.clear()
    again = run_python(*remote, cwd=tmp_path, **environment)
    assert "clips: 0 clips embedded, 16 known from before, 0 damaged" in again.stderr
    assert not [call for call in hub.requests if call.endswith(".tar")]
    test_alone = evaluation("owner/clips", model, tmp_path / "test", "--transductive", "--num_workers", "0")
    run_python(*test_alone, cwd=tmp_path, **environment)
    assert {call[-10:] for call in hub.requests if call.endswith(".tar")} == {"test-0.tar"}


@pytest.mark.slow
def test_an_evaluation_of_the_hub_that_is_killed_goes_on_beside_another(tmp_path, hub, api, environment):
    """Two runs on one cache folder, one killed in the middle and begun anew."""
    root = webdataset(tmp_path / "shards", [f"train-{n}" for n in range(4)] + ["test-0", "test-1"], 8)
    publish(api, root)
    model = save_tiny_clip(tmp_path / "model")
    command = [sys.executable, *evaluation("owner/clips", model, tmp_path / "there", "--num_workers", "0")]

    def begin():
        variables = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"} | environment
        return subprocess.Popen(command, cwd=tmp_path, env=variables, stderr=subprocess.PIPE, text=True)

    runs = [begin(), begin()]
    deadline = time.monotonic() + 200
    while len(list((tmp_path / "there").rglob("shards/*.safetensors"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    runs[0].send_signal(signal.SIGKILL)
    runs[0].communicate()
    assert 3 <= len(list((tmp_path / "there").rglob("shards/*.safetensors"))) < 24
    told = [run.communicate(timeout=200)[1] for run in (runs[1], begin())]
    assert all(re.search(r"clips: \d+ clips embedded, \d+ known from before, 0 damaged", text) for text in told), told
    rows = json.loads((tmp_path / "there.json").read_text())["rows"]
    assert [row["n"] for row in rows] == [16] * len(rows)
    assert len(list((tmp_path / "there").rglob("shards/*.json"))) == 6
    assert len(list((tmp_path / "there").rglob("shards/*.safetensors"))) == 24
    assert not list((tmp_path / "there").rglob("shards/*.claim"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub, where it uploads
def test_tables_with_clips_inside_are_streamed_too(tmp_path, api, environment):
    """Parquet files of the Hub: neither they nor the clips in them are kept."""
    clips = webdataset(tmp_path / "shards", ["train-0", "test-0"])
    (tmp_path / "tables").mkdir()
    columns = Features({"video": Video(decode=False), "label": Value("string")})
    for part in ("train", "test"):
        with tarfile.open(clips / f"{part}-0.tar") as archive:
            members = {member.name: archive.extractfile(member).read() for member in archive}
        rows = [
            {"video": {"bytes": content, "path": name}, "label": json.loads(members[f"{name[:-4]}.json"])["label"]}
            for name, content in members.items()
            if name.endswith(".mp4")
        ]
        Dataset.from_list(rows, features=columns).to_parquet(tmp_path / f"tables/{part}-00000.parquet")
    publish(api, tmp_path / "tables")
    model = save_tiny_clip(tmp_path / "model")
    run_python(*evaluation(clips, model, tmp_path / "here", "--num_workers", "0"), cwd=tmp_path, **environment)
    run_python(
        *evaluation("owner/clips", model, tmp_path / "there", "--num_workers", "0"), cwd=tmp_path, **environment
    )
    assert figures(tmp_path / "there.json") == figures(tmp_path / "here.json")
    assert not kept_of(tmp_path / "there")
    assert not kept_of(tmp_path / "hf")
