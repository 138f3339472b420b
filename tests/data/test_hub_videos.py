import pytest
from datasets import ClassLabel, Dataset, Features, Value, Video

from modeling_dkd.data.hub_videos import hub_dataset, hub_index


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")


def folder_of_clips(root, data_dir):
    clips = sorted((data_dir / "ucf101/videos/Punch").iterdir())[:4]
    for clip, name in zip(clips, ("train/run/a", "train/jump/b", "test/run/c", "test/jump/d"), strict=True):
        (root / name).parent.mkdir(parents=True)
        (root / name).with_suffix(".avi").write_bytes(clip.read_bytes())
    return root


def test_a_folder_of_videos_gets_our_columns(data_dir, tmp_path):
    root = folder_of_clips(tmp_path / "clips", data_dir)
    dataset = hub_dataset(str(root), "train")
    assert dataset.features["label"] == ClassLabel(names=["jump", "run"])
    rows = list(dataset)
    assert [(row["path"], row["label"], row["split"]) for row in rows] == [
        (str(root / "train/jump/b.avi"), 0, "train"),
        (str(root / "train/run/a.avi"), 1, "train"),
    ]
    assert rows[0]["video"] == {"path": str(root / "train/jump/b.avi"), "bytes": None}


def test_an_index_takes_train_and_test(data_dir, tmp_path):
    root = folder_of_clips(tmp_path / "clips", data_dir)
    index = hub_index(str(root), tmp_path / "store")
    assert (index.split, index.class_names) == ("1", ("jump", "run"))
    assert [(record.split, record.label) for record in index.records] == [
        ("test", 0),
        ("test", 1),
        ("train", 0),
        ("train", 1),
    ]
    assert len({record.name for record in index.records}) == 4


def test_clips_inside_a_table_are_written_once(tmp_path):
    columns = Features({"clip": Video(decode=False), "action": Value("string"), "group": Value("int64")})
    contents = [b"one", b"two", b"one"]
    rows = [{"clip": {"bytes": c, "path": None}, "action": "ba"[i % 2], "group": i} for i, c in enumerate(contents)]
    (tmp_path / "table").mkdir()
    Dataset.from_list(rows, features=columns).to_parquet(tmp_path / "table/train.parquet")
    index = hub_index(str(tmp_path / "table"), tmp_path / "store")
    assert (index.split, index.class_names) == ("all", ("a", "b"))
    assert [open_bytes(record.path) for record in index.records] == contents
    assert [(record.label, record.group) for record in index.records] == [(1, "0"), (0, "1"), (1, "2")]
    assert len(list((tmp_path / "store").iterdir())) == 2


def test_clips_without_a_class_are_left_out_and_told(tmp_path):
    columns = Features({"clip": Video(decode=False), "action": Value("string")})
    clips = [{"bytes": b"one", "path": None}, {"bytes": b"two", "path": None}, None]
    rows = [{"clip": clip, "action": action} for clip, action in zip(clips, ("a", None, "b"), strict=True)]
    (tmp_path / "table").mkdir()
    Dataset.from_list(rows, features=columns).to_parquet(tmp_path / "table/train.parquet")
    index = hub_index(str(tmp_path / "table"), tmp_path / "store")
    assert index.notes == (f"1 clip of {tmp_path / 'table'} without a class left out",)
    assert [(open_bytes(record.path), index.class_names[record.label]) for record in index.records] == [
        (b"one", "a"),
        (b"", "b"),  # a row without a clip, which is found to be damaged when it is read
    ]


def open_bytes(path):
    with open(path, "rb") as file:
        return file.read()


def test_data_sets_without_videos_or_labels_are_named(tmp_path):
    (tmp_path / "a").mkdir()
    Dataset.from_dict({"text": ["x"]}).to_parquet(tmp_path / "a/train.parquet")
    with pytest.raises(ValueError, match="has no video column; its columns are text"):
        hub_dataset(str(tmp_path / "a"))
    (tmp_path / "b").mkdir()
    table = Dataset.from_dict(
        {"video": [{"bytes": b"x", "path": None}]}, features=Features({"video": Video(decode=False)})
    )
    table.to_parquet(tmp_path / "b/train.parquet")
    with pytest.raises(ValueError, match="has no column called label"):
        hub_dataset(str(tmp_path / "b"))
    with pytest.raises(ValueError, match=r"cannot load the data set .*nowhere"):
        hub_index(str(tmp_path / "nowhere"), tmp_path / "store")
