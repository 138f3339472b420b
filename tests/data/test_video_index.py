import json
from pathlib import Path

import pytest
from datasets import ClassLabel

from modeling_dkd.data.official_index import hmdb51_index, ucf101_index
from modeling_dkd.data.official_splits import half_class_split, read_hmdb51_split, read_ucf101_split
from modeling_dkd.data.video_index import csv_index, folder_index


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
    with pytest.raises(ValueError, match=r"no lists of UCF101: looked for classInd.txt in .* with --annotations"):
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


def test_a_csv_of_a_spreadsheet_elsewhere_gives_the_same(tmp_path):
    touch(tmp_path, "clips/a, b.mp4", "clips/c.mp4")
    file = tmp_path / "list.csv"
    file.write_bytes('Path;Label;Split\r\nclips\\a, b.mp4;run;Train\r\n"clips/c.mp4";fall;TEST\r\n'.encode("utf-16"))
    index = csv_index(file)
    assert {(record.path, record.label, record.split) for record in index.records} == {
        (str(tmp_path / "clips/a, b.mp4"), 1, "train"),
        (str(tmp_path / "clips/c.mp4"), 0, "test"),
    }


def test_columns_of_a_csv_that_are_not_read_are_told(tmp_path):
    touch(tmp_path, "a.mp4")
    (tmp_path / "list.csv").write_text("path,label,start,end\na.mp4,x,0,5\n")
    assert csv_index(tmp_path / "list.csv").notes == (
        "of list.csv path, label, group, split are read, and not start, end",
    )
    (tmp_path / "list.csv").write_text("path,label,split\na.mp4,x,train\n")
    assert csv_index(tmp_path / "list.csv").notes == ()


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


@pytest.mark.parametrize(
    ("folders", "parts", "note"),
    [
        (("Train", "Test"), {"Train": "train", "Test": "test"}, None),
        (("train", "val"), {"train": "train", "val": "test"}, "there is no test folder: val is the test"),
        (("TRAINING", "Validation"), {"TRAINING": "train", "Validation": "test"}, "Validation is the test"),
        (("train", "test", "val"), {"train": "train", "test": "test", "val": "unused"}, "val is left out"),
        (("test", "valid"), {"test": "test", "valid": "train"}, "valid is the train part"),
    ],
)
def test_folders_of_parts_are_no_classes_whatever_their_capitals(tmp_path, folders, parts, note):
    touch(tmp_path, *(f"{folder}/{name}/s/{folder}.mp4" for folder in folders for name in ("train ride", "jump")))
    index = folder_index(tmp_path)
    assert index.class_names == ("jump", "train ride")
    assert {record.name.split("/")[0]: record.split for record in index.records} == parts
    assert {record.group for record in index.records} == {"s"}
    assert index.split == "1"
    assert (note is None) == (index.notes == ())
    assert note is None or note in index.notes[0]


def test_one_part_alone_is_one_set_and_says_so(tmp_path):
    touch(tmp_path, "val/jump/a.mp4", "val/run/b.mp4")
    index = folder_index(tmp_path)
    assert (index.split, index.class_names) == ("all", ("jump", "run"))
    assert {record.split for record in index.records} == {""}
    assert "has the part val alone" in index.notes[0]


def test_a_class_may_be_called_train(tmp_path):
    touch(tmp_path, "train/a.mp4", "bus/b.mp4", "bus/c.mp4")
    assert folder_index(tmp_path).class_names == ("bus", "train")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("train/jump/a.mp4", "test/jump/b.mp4", "run/c.mp4"), "look like parts of the set, beside run"),
        (("train/jump/a.mp4", "holdout/jump/b.mp4"), "look like parts of the set, beside holdout"),
        (("train/a.mp4", "val/b.mp4"), "holds clips outside of class folders"),
        (("Brush Hair/a.mp4", "BrushHair/b.mp4"), "'Brush Hair' and 'BrushHair' are one class in two spellings"),
        (("train/brush_hair/a.mp4", "test/Brush Hair /b.mp4"), "one class in two spellings"),
        (("jump/a.jpg", "jump/b.jpg", "run/c.txt"), r"there are \.jpg \(2\), \.txt \(1\)\).* one sub-folder a class"),
        (("a.npy",), r"there are \.npy \(1\)"),
    ],
)
def test_folders_that_cannot_be_meant_are_refused_in_a_sentence(tmp_path, files, message):
    touch(tmp_path, *files)
    with pytest.raises(ValueError, match=message):
        folder_index(tmp_path)


def test_videos_outside_of_class_folders_are_told(tmp_path):
    touch(tmp_path, "jump/a.mp4", "loose.mp4")
    assert "1 video directly in" in folder_index(tmp_path).notes[0]


def test_one_file_under_two_names_counts_once_or_is_refused(tmp_path):
    touch(tmp_path, "jump/a.mp4", "run/b.mp4")
    (tmp_path / "jump/again.mp4").symlink_to(tmp_path / "jump/a.mp4")
    index = folder_index(tmp_path)
    assert [record.name for record in index.records] == ["jump/a.mp4", "run/b.mp4"]
    assert "1 clip under two names counted once, the first is jump/again.mp4" in index.notes
    (tmp_path / "run/also.mp4").symlink_to(tmp_path / "jump/a.mp4")
    with pytest.raises(ValueError, match=r"jump/a\.mp4 and run/also\.mp4 are one file in two places"):
        folder_index(tmp_path)
    file = tmp_path / "list.csv"
    file.write_text("path,label\njump/a.mp4,jump\n./jump/../jump/a.mp4,jump\n")
    with pytest.raises(ValueError, match=r"one file twice, as jump/a\.mp4 and as \./jump/\.\./jump/a\.mp4"):
        csv_index(file)


def test_values_of_a_csv_are_stripped_and_a_class_has_one_spelling(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    file = tmp_path / "list.csv"
    file.write_text("path, label ,split\na.mp4, run ,Train\n b.mp4,run, TEST\n")
    index = csv_index(file)
    assert (index.class_names, index.split) == (("run",), "1")
    assert [record.split for record in index.records] == ["train", "test"]
    file.write_text("path,label\na.mp4,brush_hair\nb.mp4,Brush Hair\n")
    with pytest.raises(ValueError, match="'Brush Hair' and 'brush_hair' are one class in two spellings"):
        csv_index(file)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_hides_no_clip(data_dir, tmp_path, encoding):
    lists = tmp_path / "lists"
    lists.mkdir()
    for part in ("ucf101", "hmdb51"):
        for path in (data_dir / "annotations" / part).glob("*.txt"):
            (lists / path.name).write_text(path.read_text(), encoding=encoding)
    for read in (read_ucf101_split, read_hmdb51_split):
        assert read(lists, 1) == read(data_dir / "annotations", 1)
    touch(tmp_path, "a.mp4")
    (tmp_path / "list.csv").write_text("path,label\na.mp4,run\n", encoding=encoding)
    assert csv_index(tmp_path / "list.csv").class_names == ("run",)


@pytest.mark.parametrize(
    "name",
    [
        "Archery/v_Archery_g08_c02.mp4",
        "Archery/Archery/v_Archery_g08_c02.avi",
        "archery/v_archery_G08_c02.WEBM",
        "train/Archery/v_Archery_g08_c02.avi",
        "a/b/v_Archery_g08_c02.mkv",
        "v_Archery_g08_c02.avi",
    ],
)
def test_official_clips_are_found_encoded_again_and_in_other_folders(data_dir, tmp_path, name):
    touch(tmp_path, name, "Archery/v_Archery_g08_c02.txt", "__MACOSX/._v_Archery_g08_c02.avi")
    index = ucf101_index(tmp_path, data_dir / "annotations", 1, allow_missing=True)
    assert [(r.name, r.path) for r in index.records] == [("Archery/v_Archery_g08_c02.avi", str(tmp_path / name))]


def test_of_several_files_of_a_clip_the_official_one_counts(data_dir, tmp_path):
    touch(
        tmp_path, "Archery/v_Archery_g08_c02.avi", "Archery/v_Archery_g08_c02.mp4", "x/Archery/v_Archery_g08_c02.avi"
    )
    index = ucf101_index(tmp_path, data_dir / "annotations", 1, allow_missing=True)
    assert index.records[0].path == str(tmp_path / "Archery/v_Archery_g08_c02.avi")
    touch(tmp_path, "y/Punch/v_Punch_g08_c02.avi", "z/Punch/v_Punch_g08_c02.avi")
    with pytest.raises(ValueError, match=r"v_Punch_g08_c02\.avi is there twice, as .*y/Punch.* and as .*z/Punch"):
        ucf101_index(tmp_path, data_dir / "annotations", 1, allow_missing=True)


def test_files_of_the_right_names_that_are_no_videos_are_counted(data_dir, tmp_path):
    touch(tmp_path, "Archery/v_Archery_g08_c02.npy", "Archery/v_Archery_g08_c03.npy")
    with pytest.raises(ValueError, match=r"of 13,320 ucf101 clips .* holds none.*2 files .* no videos: \.npy \(2\)"):
        ucf101_index(tmp_path, data_dir / "annotations", 1, allow_missing=True)
    touch(tmp_path, "Archery/v_Archery_g09_c01.avi")
    with pytest.raises(
        ValueError, match=r"13319 of 13320 .*of their names there are 2 files that are no videos: \.npy \(2\)"
    ):
        ucf101_index(tmp_path, data_dir / "annotations", 1)


def test_listed_files_that_have_another_ending_are_counted(tmp_path):
    touch(tmp_path, "a.mp4", "b.avi")
    (tmp_path / "list.csv").write_text("path,label\na.avi,run\nb.avi,run\n")
    with pytest.raises(
        ValueError, match=r"1 of 2 .*a\.avi; of their names, 1 file with another ending there: \.mp4 \(1\)"
    ):
        csv_index(tmp_path / "list.csv")
