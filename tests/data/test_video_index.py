import json
from pathlib import Path

import pytest
from datasets import ClassLabel

from modeling_dkd.data.official_splits import half_class_split, read_hmdb51_split, read_ucf101_split
from modeling_dkd.data.video_index import csv_index, folder_index, hmdb51_index, ucf101_index


UCF101_TOTALS = {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def lists_of_hmdb51(data_dir, split=1):
    return read_hmdb51_split(data_dir / "annotations", split)


@pytest.mark.parametrize("split", [1, 2, 3])
def test_official_lists_have_the_official_counts(data_dir, split):
    classes, entries = read_ucf101_split(data_dir / "annotations", split)
    parts = [[e for e in entries if e.split == part] for part in ("train", "test")]
    assert (len(classes), len({e.name for e in entries})) == (101, 13320)
    assert tuple(map(len, parts)) == UCF101_TOTALS[split]
    classes, entries = lists_of_hmdb51(data_dir, split)
    counts = {part: sum(e.split == part for e in entries) for part in ("train", "test", "unused")}
    assert (len(classes), len({e.name for e in entries})) == (51, 6766)
    assert counts == {"train": 3570, "test": 1530, "unused": 1666}


def test_a_cut_off_list_is_refused(data_dir, tmp_path):
    source = data_dir / "annotations/ucf101"
    for name in ("classInd.txt", "testlist01.txt"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    whole = (source / "trainlist01.txt").read_text().splitlines()
    (tmp_path / "trainlist01.txt").write_text("\n".join(whole[:-50]))
    with pytest.raises(
        ValueError, match=r"lists 9487 training and 3783 test clips where the official lists have 9537"
    ):
        read_ucf101_split(tmp_path, 1)
    (tmp_path / "trainlist01.txt").unlink()
    with pytest.raises(ValueError, match=r"cannot read the split list .*trainlist01\.txt"):
        read_ucf101_split(tmp_path, 1)


def test_lists_that_are_nowhere_and_splits_that_do_not_exist_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"no official UCF101 split lists under .* with --annotations"):
        read_ucf101_split(tmp_path, 1)
    with pytest.raises(ValueError, match="split 4 does not exist"):
        read_hmdb51_split(tmp_path, 4)


def test_half_splits_are_the_seeded_ones(data_dir):
    for dataset, size in (("ucf101", 50), ("hmdb51", 25)):
        published = json.loads((data_dir / f"annotations/half_splits/{dataset}_{size}.json").read_text())
        assert len(published["splits"]) == 10
        for split in published["splits"]:
            drawn = half_class_split(published["class_order"][::-1], split["split"])
            assert drawn == split["classes"]


def test_ucf101_is_found_whatever_the_spelling_of_handstand(data_dir, tmp_path):
    touch(tmp_path, "UCF-101/HandStandPushups/v_HandstandPushups_g01_c01.avi", "UCF-101/Archery/v_Archery_g08_c02.avi")
    index = ucf101_index(tmp_path, data_dir / "annotations", 1, allow_missing=True)
    assert [r.name for r in index.records] == [
        "Archery/v_Archery_g08_c02.avi",
        "HandstandPushups/v_HandStandPushups_g01_c01.avi",
    ]
    assert [index.class_names[r.label] for r in index.records] == ["Archery", "HandstandPushups"]
    assert [(r.group, r.split) for r in index.records] == [("Archery_g08", "train"), ("HandStandPushups_g01", "test")]
    assert len(index.missing) == 13318


def test_missing_clips_are_counted_and_five_are_named(data_dir, tmp_path):
    touch(tmp_path, "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi")
    with pytest.raises(ValueError, match="13319 of 13320 ucf101 clips are missing") as caught:
        ucf101_index(tmp_path, data_dir / "annotations", 1)
    assert str(caught.value).count(".avi") == 5
    assert "pass --allow_missing" in str(caught.value)
    index = ucf101_index(tmp_path, data_dir / "annotations", 1, allow_missing=True)
    with pytest.raises(ValueError, match="3783 of 3783 ucf101 clips are missing"):
        index.part("test").require_complete(allow_missing=True)


def test_hmdb51_names_with_odd_characters_are_plain_paths(data_dir, tmp_path):
    odd = [e for e in lists_of_hmdb51(data_dir)[1] if set(e.name) & set("#;&!()[]")]
    assert {c for e in odd for c in e.name} >= set("#;&!()")
    touch(tmp_path, *(f"hmdb51_org/{e.name}" for e in odd))
    index = hmdb51_index(tmp_path, data_dir / "annotations", 1, allow_missing=True)
    assert {r.name for r in index.records} == {e.name for e in odd}
    dataset = index.to_dataset()
    assert dataset["path"] == [r.path for r in index.records]
    assert all(Path(path).read_bytes() == b"x" for path in dataset["path"])
    assert all(record.group for record in index.records)


def test_the_real_clips_have_their_true_counts(data_dir):
    for split, counts in ((1, (1272, 0)), (2, (775, 497)), (3, (779, 493))):
        index = ucf101_index(data_dir / "ucf101", data_dir / "annotations", split, allow_missing=True)
        assert tuple(len(index.part(part).records) for part in ("train", "test")) == counts
        assert len(index.missing) == 12048
    index = hmdb51_index(data_dir / "hmdb51", data_dir / "annotations", 2, allow_missing=True)
    assert [len(index.part(part).records) for part in ("train", "test", "unused")] == [306, 237, 122]


def test_half_classes_keep_their_clips_with_new_labels(data_dir):
    index = hmdb51_index(data_dir / "hmdb51", data_dir / "annotations", 2, allow_missing=True)
    half = index.half_classes(3)
    assert half.split == "2 half 3"
    assert list(half.class_names) == sorted(half_class_split(index.class_names, 3))
    assert {half.class_names[r.label] for r in half.records} <= set(half.class_names)
    for record in half.records:
        assert record.name.startswith(half.class_names[record.label] + "/")
    assert 0 < len(half.records) < len(index.records)


def test_data_sets_carry_labels_groups_and_splits(tmp_path):
    touch(
        tmp_path, "train/run/a.mp4", "train/run/session 1/b.AVI", "test/jump#1/c.mkv", "test/run/notes.txt", "test/.x"
    )
    index = folder_index(tmp_path)
    assert index.class_names == ("jump#1", "run")
    assert index.ignored == ("test/run/notes.txt",)
    dataset = index.to_dataset()
    assert dataset.features["label"] == ClassLabel(names=["jump#1", "run"])
    assert dataset["name"] == ["test/jump#1/c.mkv", "train/run/a.mp4", "train/run/session 1/b.AVI"]
    assert dataset["split"] == ["test", "train", "train"]
    assert dataset["group"] == ["", "", "session 1"]
    assert dataset["label"] == [0, 1, 1]
    assert dataset[0]["video"] == {"path": str(tmp_path / "test/jump#1/c.mkv"), "bytes": None}
    stream = index.to_iterable_dataset(num_shards=2)
    assert stream.features == dataset.features
    assert list(stream) == list(dataset)


def test_an_empty_or_absent_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no videos in .*one sub-folder a class"):
        folder_index(tmp_path)
    with pytest.raises(ValueError, match=r"no such folder: .*nowhere"):
        folder_index(tmp_path / "nowhere")


def test_a_csv_gives_classes_groups_and_splits(tmp_path):
    touch(tmp_path, "clips/a, b.mp4", "clips/c.mp4")
    file = tmp_path / "list.csv"
    file.write_text(
        'path,label,group,split\n"clips/a, b.mp4",run,g1,train\nclips/c.mp4,fall,g2,test\nclips/d.mp4,run,,test\n'
    )
    with pytest.raises(
        ValueError, match=r"1 of 3 list clips are missing under .*: clips/d\.mp4; pass --allow_missing"
    ):
        csv_index(file)
    index = csv_index(file, allow_missing=True)
    assert [(r.name, r.label, r.group, r.split) for r in index.records] == [
        ("clips/a, b.mp4", 1, "g1", "train"),
        ("clips/c.mp4", 0, "g2", "test"),
    ]
    assert index.split == "1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,class\na,b\n", "has no column 'label'; its columns are path, class"),
        ("path,label\n", "lists no clips"),
        ("path,label\na.mp4,\n", "line 2: path or label is empty"),
        ("path,label,split\na.mp4,x,val\n", "line 2: split 'val' is not train, test, unused or empty"),
        ("path,label\nsame.mp4,x\nsame.mp4,y\n", "line 3: lists 'same.mp4' twice"),
    ],
)
def test_bad_csv_files_are_named(tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        csv_index(tmp_path / "list.csv")
