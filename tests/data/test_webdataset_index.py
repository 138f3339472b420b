import gzip
import json
from io import BytesIO

import pytest

from modeling_dkd.data.hub_videos import hub_index
from modeling_dkd.data.webdataset_index import passing_clips, webdataset_index
from modeling_dkd.embedding.clip_frames import read_clip_frames

from ..made_up_sets import COLOURS, tar_of, webdataset


def test_clips_are_read_where_they_lie(tmp_path):
    root = webdataset(tmp_path / "shards")
    index = webdataset_index(root)
    assert (index.dataset, index.split, index.class_names) == ("shards", "1", tuple(sorted(COLOURS)))
    assert [record.name for record in index.part("test").records] == [f"test-0/{n:05d}.mp4" for n in range(12, 16)]
    assert len(index.part("train").records) == 12
    for record in index.records:
        colour = read_clip_frames(record, 2).pixels.float().mean((0, 2, 3)).tolist()
        expected = COLOURS[index.class_names[record.label]]
        assert colour == pytest.approx(expected, abs=25)
    assert sorted(path.name for path in root.iterdir()) == ["test-0.tar", "train-0.tar", "train-1.tar", "train-2.tar"]


def test_a_hub_data_set_of_archives_is_not_unpacked(tmp_path):
    root = webdataset(tmp_path / "shards")
    assert hub_index(str(root), tmp_path / "store") == webdataset_index(root)
    assert not (tmp_path / "store").exists()


def sample(key, label, ending="json"):
    content = json.dumps({"label": label}) if ending == "json" else str(label)
    return {f"{key}.mp4": b"clip", f"{key}.{ending}": content.encode()}


def test_names_labels_and_parts_in_the_forms_that_are_met(tmp_path):
    """Folders in archives, labels before the clip, as numbers, behind a byte-order mark; dots; parts by folder."""
    tar_of(
        tmp_path / "train/0.tar",
        {"a/1.json": b'\xef\xbb\xbf{"label": "run"}', "a/1.clip.mp4": b"x", "a/._1.mp4": b"mac"},
    )
    tar_of(tmp_path / "train/1.tar", sample("a/1", "jump", "cls") | {"readme": b"no sample"})
    tar_of(tmp_path / "VAL_0.tar", sample("9", "run") | sample("10", "jump"))
    index = webdataset_index(tmp_path, "mine")
    assert (index.dataset, index.class_names) == ("mine", ("jump", "run"))
    found = [(record.name, record.label, record.split) for record in index.records]
    assert found == [
        ("VAL_0/10.mp4", 0, "test"),
        ("VAL_0/9.mp4", 1, "test"),
        ("train/0/a/1.clip.mp4", 1, "train"),
        ("train/1/a/1.mp4", 0, "train"),
    ]
    tar_of(tmp_path / "test.tar", sample("9", 3, "cls"))
    index = webdataset_index(tmp_path)
    assert index.class_names == ("3", "jump", "run")
    assert [record.split for record in index.records] == ["unused", "unused", "test", "train", "train"]


def test_compressed_archives_beside_others_are_told_and_alone_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")
    root = webdataset(tmp_path / "shards")
    packed = root / "train-1.tar"
    packed.with_suffix(".tar.gz").write_bytes(gzip.compress(packed.read_bytes()))
    packed.unlink()
    index = webdataset_index(root)
    assert len(index.part("train").records) == 8
    assert index.notes == (
        "1 compressed archive left out, the first is train-1.tar.gz: decompress (gunzip), and clips are read in place",
    )
    for archive in root.glob("*.tar"):
        archive.unlink()
    with pytest.raises(ValueError, match=r"shards has no column called label; .*: decompress \(gunzip\), or stream"):
        hub_index(str(root), tmp_path / "store")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.json": b'{"label": "run"}'}, r"no clips in 1 archive below .*"),
        (
            {"a.mp4": b"x"},
            r"say no class of train/a\.mp4 or any other clip: put a \.json with a \"label\" beside each",
        ),
        (sample("a", "run") | {"b.mp4": b"x"}, r"1 of 2 clips have no label, the first is train/b\.mp4"),
        (sample("a", "run") | sample("b", "Run"), r"'Run' and 'run' are one class in two spellings"),
        (sample("a", ["run"]), r"train\.tar: the label in a\.json is neither a text nor a whole number"),
        ({"a.mp4": b"x", "a.json": b"[1"}, r"train\.tar: a\.json cannot be read: "),
        ({"a.mp4": b"x", "a.json": b"[1]"}, r"train\.tar: a\.json cannot be read: "),
        ({"a.mp4": b"x", "a.cls": b"x" * 2**20 + b"x"}, r"train\.tar: a\.cls has 1048577 bytes, too many"),
    ],
)
def test_archives_that_are_not_of_this_form_are_told_of(tmp_path, members, message):
    tar_of(tmp_path / "train.tar", members)
    with pytest.raises(ValueError, match=message):
        webdataset_index(tmp_path)


@pytest.mark.parametrize(("kept", "then"), [(2000, b""), (4200, b""), (4620, b""), (4096, b"x" * 512)])
def test_a_torn_archive_is_named(tmp_path, kept, then):
    """Torn in a clip, in the header behind it and in the label; and a header that is none."""
    archive = webdataset(tmp_path, ["train"]) / "train.tar"
    archive.write_bytes(archive.read_bytes()[:kept] + then)
    with pytest.raises(ValueError, match=r"cannot read the archive .*train\.tar: .*; fetch it again"):
        webdataset_index(tmp_path)
    with archive.open("rb") as file, pytest.raises(ValueError, match=r"cannot read the archive train: "):
        list(passing_clips(file, "train"))


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_clips_that_pass_are_those_that_are_read_in_place(tmp_path, ending):
    whole = (webdataset(tmp_path, ["train"]) / "train.tar").read_bytes()
    index = webdataset_index(tmp_path)
    file = BytesIO(whole if ending == ".tar" else gzip.compress(whole))
    file.seek = None  # it cannot go back
    passed = {f"train/{clip.member.name}": (clip.content, clip.class_name) for clip in passing_clips(file, "x")}
    in_place = {
        record.name: (whole[record.offset : record.offset + record.size], index.class_names[record.label])
        for record in index.records
    }
    assert passed == in_place
