"""Clips in a repository of the Hub: archives are fetched and read where they lie, or streamed and not kept."""

import json

import pytest

from ..made_up_sets import COLOURS, webdataset
from .conftest import run_python
from .local_hub import WRITER


SCRIPT = """
import json, sys
from pathlib import Path
from modeling_dkd.data.hub_videos import hub_index, hub_stream, streamed_index
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


@pytest.mark.slow
def test_archives_are_streamed_or_fetched_as_they_are(tmp_path, hub, api):
    root = webdataset(tmp_path / "shards")
    api.create_repo("owner/clips", repo_type="dataset")
    api.upload_folder(repo_id="owner/clips", folder_path=root, repo_type="dataset")
    environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": WRITER, "HF_HOME": str(tmp_path / "hf")}
    done = run_python("-c", SCRIPT, cwd=tmp_path, **environment)
    streamed, files, fetched, parts, class_names, frames, stored = json.loads(done.stdout.splitlines()[-1])
    assert len(streamed) == 12
    assert set(streamed) == set(COLOURS)
    assert (files, fetched) == (6, 0)  # the test part and two of the training clips; no archive was kept
    assert parts == [[2, 4], [12, 4]]
    assert class_names == sorted(COLOURS)
    assert frames == [2] * 16
    assert stored == files  # nothing was unpacked
