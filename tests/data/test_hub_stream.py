import gzip

import pytest
from datasets import ClassLabel, Dataset, Features, Video

from modeling_dkd.data.hub_stream import (
    hub_stream,
    index_of_stream,
    is_read_in_place,
    stream_pieces,
    streamed_clip,
    streamed_index,
)
from modeling_dkd.data.video_files import VideoRecord
from modeling_dkd.data.webdataset_index import webdataset_index

from ..made_up_sets import COLOURS, webdataset
from .test_hub_videos import folder_of_clips, own_cache  # noqa: F401 - a fixture for all tests


def all_clips(place):
    return [clip for piece in stream_pieces(str(place)) for clips in piece.batches(3) for clip in clips]


def table(root, part, contents, labels):
    """A Parquet file with clips in it."""
    root.mkdir(exist_ok=True)
    columns = Features({"clip": Video(decode=False), "action": ClassLabel(names=["b", "a"])})
    clips = [content and {"bytes": content, "path": f"{i}.mp4"} for i, content in enumerate(contents)]
    rows = [{"clip": clip, "action": label} for clip, label in zip(clips, labels, strict=True)]
    Dataset.from_list(rows, features=columns).to_parquet(root / f"{part}.parquet")


def test_tables_are_streamed_with_the_names_of_their_classes(tmp_path):
    """A row without a class or without a clip is one all the same."""
    table(tmp_path / "table", "train", [b"one", b"two", b"one", None], [0, 1, None, 1])
    rows = [(row["video"]["bytes"], row["class_name"]) for row in hub_stream(str(tmp_path / "table"), "train")]
    assert rows == [(b"one", "b"), (b"two", "a"), (b"one", ""), (b"", "a")]
    assert [clip[:2] for clip in all_clips(tmp_path / "table")] == [
        ("train/00000/0000000 0.mp4", "b"),
        ("train/00000/0000001 1.mp4", "a"),
        ("train/00000/0000002 2.mp4", ""),
        ("train/00000/0000003", "a"),
    ]


def test_a_stream_of_a_folder_has_the_names_of_its_classes_and_only_its_own_files(data_dir, tmp_path):
    root = folder_of_clips(tmp_path / "clips", data_dir)
    rows = list(hub_stream(str(root), "train"))
    assert [row["class_name"] for row in rows] == ["jump", "run"]
    assert streamed_clip(rows[0]["video"], str(root))["bytes"] == (root / "train/jump/b.avi").read_bytes()
    with pytest.raises(ValueError, match="out of the folder"):
        streamed_clip({"path": str(tmp_path / "elsewhere.avi"), "bytes": None}, str(root))


def test_of_a_stream_the_test_part_and_some_training_clips_are_kept(tmp_path):
    root = webdataset(tmp_path / "shards")
    index = streamed_index(str(root), tmp_path / "store", 5)
    assert (index.dataset, index.split, index.class_names) == ("shards", "1", tuple(sorted(COLOURS)))
    assert [len(index.part(part).records) for part in ("train", "test")] == [5, 4]
    assert len(list((tmp_path / "store").iterdir())) == 9
    whole = webdataset_index(root).part("test")
    assert [record.label for record in index.part("test").records] == [record.label for record in whole.records]
    webdataset(tmp_path / "val", ["train-0", "val-0"])
    index = streamed_index(str(tmp_path / "val"), tmp_path / "store", 1)
    assert [len(index.part(part).records) for part in ("train", "test")] == [1, 4]
    with pytest.raises(ValueError, match="no splits train and test, or validation; its splits are train"):
        streamed_index(str(webdataset(tmp_path / "no test", ["train-0"])), tmp_path / "store", 5)


def test_a_stream_of_archives_is_the_index_of_them(tmp_path):
    """Names, classes and parts are those of the archives read in place, also of compressed ones."""
    root = webdataset(tmp_path / "shards")
    whole = webdataset_index(root)
    packed = tmp_path / "packed/shards"
    packed.mkdir(parents=True)
    for archive in root.iterdir():
        (packed / f"{archive.name}.gz").write_bytes(gzip.compress(archive.read_bytes()))
    for place in (root, packed):
        clips = (
            (VideoRecord("", name, split=piece.part), class_name)
            for piece in stream_pieces(str(place))
            for batch in piece.batches(3)
            for name, class_name, _ in batch
        )
        index = index_of_stream(str(place), clips)
        assert (index.dataset, index.split, index.class_names) == (whole.dataset, whole.split, whole.class_names)
        told = [(record.name, record.label, record.split) for record in index.records]
        assert told == [(record.name, record.label, record.split) for record in whole.records]


@pytest.mark.parametrize(
    ("archives", "parts"),
    [
        (["train-0", "test-0", "val-0"], {"train-0": "train", "test-0": "test"}),
        (["train-0", "val-0"], {"train-0": "train", "val-0": "test"}),
        (["train-0", "0"], {"train-0": "", "0": ""}),
        (["0", "1"], {"0": "", "1": ""}),
    ],
)
def test_parts_are_told_by_names(tmp_path, archives, parts):
    root = webdataset(tmp_path, archives, 1)
    assert {piece.file.removesuffix(".tar"): piece.part for piece in stream_pieces(str(root))} == parts


def test_only_changed_archives_have_another_key(tmp_path):
    root = webdataset(tmp_path, ["train-0", "test-0"], 1)
    before = {piece.file: piece.key for piece in stream_pieces(str(root))}
    (root / "README.md").write_text("of no account")
    (root / "test-0.tar").write_bytes((root / "train-0.tar").read_bytes())
    after = {piece.file: piece.key for piece in stream_pieces(str(root))}
    assert after["train-0.tar"] == before["train-0.tar"]
    assert after["test-0.tar"] not in before.values()


def test_files_and_plain_archives_here_are_read_in_place(tmp_path):
    webdataset(tmp_path / "a", ["train-0"], 1)
    table(tmp_path / "b", "train", [b"x"], [0])
    (tmp_path / "c/run").mkdir(parents=True)
    (tmp_path / "c/run/1.mp4").touch()
    places = [str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "c"), "owner/name"]
    assert [is_read_in_place(place) for place in places] == [True, False, True, False]


def test_clips_of_no_class_are_told(tmp_path):
    with pytest.raises(ValueError, match="owner/name: of 2 clips none says its class"):
        index_of_stream("owner/name", [(VideoRecord("", name), "") for name in "ab"])
    with pytest.raises(ValueError, match=r"cannot load the data set .*nowhere: there is no such folder"):
        stream_pieces(str(tmp_path / "nowhere"))
