"""Each large data set as a small one of the same shape: what the index holds, and what is said of what it lacks."""

import os
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from modeling_dkd.data import clip_table
from modeling_dkd.data.asked_classes import drawn_classes, new_classes, only_classes, read_class_list
from modeling_dkd.data.class_names import readable_class_name
from modeling_dkd.data.listed_sets import (
    PUBLISHED,
    activitynet_index,
    diving48_index,
    kinetics_index,
    msrvtt_index,
    ssv2_index,
)
from modeling_dkd.data.named_index import named_index
from modeling_dkd.embedding.clip_frames import read_clip_frames
from modeling_dkd.embedding.clip_shards import clip_identity
from modeling_dkd.evaluation.names import DATASETS, LISTED
from modeling_dkd.video_frames import VideoReadError, read_frames

from .. import made_up_sets
from ..made_up_sets import COLOURS, tar_of, write, write_json, write_video


def colour_of(record):
    return read_clip_frames(record, 2).pixels.float().mean((0, 2, 3)).numpy()


def assert_true_colours(index, colours):
    for record in index.records:
        expected = colours[index.class_names[record.label]]
        assert np.abs(colour_of(record) - expected).max() < 30, record


def counts(index):
    return [len(index.part(part).records) for part in ("train", "test", "unused")]


@pytest.fixture(scope="module")
def k400(tmp_path_factory):
    return made_up_sets.kinetics(tmp_path_factory.mktemp("k400"))


def test_kinetics_is_found_in_class_folders_and_its_counts_are_told(k400):
    index = named_index("kinetics400", k400)
    assert index.class_names == tuple(COLOURS)
    assert counts(index) == [12, 6, 3]
    assert (index.dataset, index.split, index.missing) == ("kinetics400", "1", ())
    assert index.notes == (
        "the lists of kinetics400 name 3 classes with 12 training and 6 test clips; "
        "published are 400 classes with 246,245 training and 20,000 test clips",
    )
    assert index.records[0].name == "abseiling/-a_00000001_000001_000011.mp4"
    assert index.records[0].group == "-a_00000001"
    assert_true_colours(index, COLOURS)


@pytest.mark.parametrize(
    "moved",
    [
        lambda name: f"k400/videos_train/{name}",  # flat
        lambda name: f"compress/train_256/abseiling/{name.replace('.mp4', '.avi')}",  # encoded again
        lambda name: f"train/abseiling/{name.replace('_000001_000011', '_1_11')}",  # times without zeros
    ],
)
def test_kinetics_is_found_as_others_host_it(tmp_path, moved):
    write(tmp_path / "lists/kinetics_400_train.csv", "youtube_id,time_start,time_end,label\nabc,1,11,abseiling\n")
    write(tmp_path / "k" / moved("abc_000001_000011.mp4"), "x")
    index = kinetics_index("kinetics400", tmp_path / "k", tmp_path / "lists/kinetics_400_train.csv")
    assert [(r.name, r.split) for r in index.records] == [("abseiling/abc_000001_000011.mp4", "train")]


def test_missing_clips_are_told_as_those_of_ucf101(k400, tmp_path):
    lines = (k400 / "annotations/val.csv").read_text().splitlines()
    write(tmp_path / "val.csv", "\n".join([*lines, "tai chi,gone,3,13,val,0"]))
    index = kinetics_index("kinetics400", k400, tmp_path)
    with pytest.raises(ValueError, match=r"1 of 7 kinetics400 clips are missing under .*: tai chi/gone_000003_000013"):
        index.part("test").require_complete()
    assert len(index.require_complete(allow_missing=True).records) == 6
    assert index.split == "all"  # there is no training list
    with pytest.raises(ValueError, match=r"of 7 kinetics400 clips .* holds none, such as .*; it holds no file"):
        kinetics_index("kinetics400", tmp_path_of(tmp_path, "empty"), tmp_path)


def tmp_path_of(tmp_path, name):
    (tmp_path / name).mkdir()
    return tmp_path / name


def test_without_a_validation_list_the_test_list_is_the_test(k400, tmp_path):
    for part in ("train", "test"):
        write(tmp_path / f"{part}.csv", (k400 / f"annotations/{part}.csv").read_text())
    assert counts(kinetics_index("kinetics400", k400, tmp_path)) == [12, 3, 0]


def test_a_clip_that_was_replaced_is_read_from_the_replacement(tmp_path):
    write(tmp_path / "val.csv", "label,youtube_id,time_start,time_end,split\na,v,0,10,val\n")
    write(tmp_path / "k/val/v_000000_000010.mp4", "damaged")
    write(tmp_path / "k/replacement_for_corrupted_k400/v_000000_000010.mp4", "whole")
    (record,) = kinetics_index("kinetics400", tmp_path / "k", tmp_path).records
    assert Path(record.path).read_text() == "whole"


def test_archives_are_read_as_they_are(tmp_path):
    root = made_up_sets.kinetics(tmp_path / "k")
    loose = kinetics_index("kinetics400", root)
    pixels = [read_clip_frames(record, 3).pixels for record in loose.records]
    made_up_sets.as_archives(root)
    before = sorted(root.rglob("*"))
    index = kinetics_index("kinetics400", root)
    assert [r.name for r in index.records] == [r.name for r in loose.records]
    assert {Path(r.path).name for r in index.records} == {f"{p}_part_0.tar" for p in ("train", "val", "test")}
    assert all(record.size and record.offset for record in index.records)
    for record, expected in zip(index.records, pixels, strict=True):
        assert read_clip_frames(record, 3).pixels.equal(expected)
    assert sorted(root.rglob("*")) == before  # nothing was unpacked
    assert len({clip_identity(record) for record in index.records}) == len(index.records)


def test_a_damaged_member_is_named_with_its_archive(tmp_path):
    write(tmp_path / "val.csv", "label,youtube_id,time_start,time_end,split\na,v,0,10,val\n")
    archive = tar_of(tmp_path / "k/part_0.tar", {"v_000000_000010.mp4": b"no video at all" * 9})
    (record,) = kinetics_index("kinetics400", tmp_path / "k", tmp_path).records
    with pytest.raises(VideoReadError, match=rf"cannot read video '{archive}: a/v_000000_000010.mp4'"):
        read_clip_frames(record, 2)


def test_each_of_many_clips_is_paired_with_its_own_file(tmp_path, monkeypatch):
    """Many more than are Python objects at a time, some absent, there twice or with other files of their name."""
    monkeypatch.setattr(clip_table, "_CHUNK", 50)
    names = [f"v{i * 7919 % 1000:03d}_000000_000010" for i in range(1000)]
    draw = np.random.default_rng(0)
    expected, absent, members = {}, set(), {}
    for name in names:
        kind, folder = draw.integers(6), tmp_path / "k" / f"{draw.integers(9)}"
        files = [folder / f"{name}.mp4"]
        if kind == 1:
            files = [folder / f"{name.upper()}.avi", tmp_path / f"k/a/b/{name}.mp4"]
            files = files[:: int(draw.choice([1, -1]))]
        if kind == 2:
            files += [folder / f"{name}.wav"]
        if kind == 3:
            absent.add(f"a/{name}.mp4")
            files = [folder / f"{name}.npy"]
        if kind == 4:
            members[f"{name}.mp4"] = name.encode()
            files = [tmp_path / "k/clips.tar"]
        if kind == 5:
            members[f"{name}.mp4"] = name.encode()  # what lies loose comes first
        for file in files:
            if file.suffix != ".tar":
                write(file, name)
        if kind != 3:
            expected[f"a/{name}.mp4"] = str(next(f for f in files if f.suffix in (".mp4", ".tar")))
    tar_of(tmp_path / "k/clips.tar", members)
    write(
        tmp_path / "val.csv",
        "label,youtube_id,time_start,time_end,split\n" + "".join(f"a,{name[:4]},0,10,val\n" for name in names),
    )
    index = kinetics_index("kinetics400", tmp_path / "k", tmp_path)
    assert {record.name: record.path for record in index.records} == expected
    assert [record.name for record in index.records] == sorted(expected)
    assert [record.name for record in index.missing] == [f"a/{n}.mp4" for n in names if f"a/{n}.mp4" in absent]
    assert f"of their names there are {len(absent)} files that are no videos: .npy ({len(absent)})" in index.hint
    for record in index.records:
        content = Path(record.path).read_bytes()
        content = content[record.offset :][: record.size] if record.size else content
        assert content.decode() == record.name[2:-4]


def test_a_list_and_a_folder_are_not_held_as_objects(tmp_path, monkeypatch):
    """An entry and its file would take some 800 bytes."""
    monkeypatch.setattr(clip_table, "_CHUNK", 100)
    number = 6000
    write_json(tmp_path / "lists/labels.json", {"Holding something": "0"})
    entries = [
        {"id": str(i), "label": "holding a cup", "template": "Holding something", "placeholders": ["a cup"]}
        for i in range(number)
    ]
    write_json(tmp_path / "lists/train.json", entries)
    tar_of(tmp_path / "clips/0.tar", {f"{i}.webm": b"x" for i in range(number)})
    tracemalloc.start()
    index = ssv2_index(tmp_path / "clips", tmp_path / "lists")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(index.records) == number
    assert peak < 500 * number


def test_no_name_in_an_archive_becomes_a_path(tmp_path):
    write(tmp_path / "val.csv", "label,youtube_id,time_start,time_end,split\na,v,0,10,val\nb,w,0,10,val\n")
    content = write_video(tmp_path / "v.mp4", [(200, 0, 0)] * 3).read_bytes()
    target = tmp_path / "outside_000000_000010.mp4"
    archive = tmp_path / "k/part_0.tar"
    tar_of(archive, {"/../../etc/v_000000_000010.mp4": content})
    with tarfile.open(archive, "a") as tar:
        link = tarfile.TarInfo("w_000000_000010.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, str(target)
        tar.addfile(link)
    index = kinetics_index("kinetics400", tmp_path / "k", tmp_path)
    assert [Path(r.path) for r in index.records] == [archive]
    assert [r.name for r in index.missing] == ["b/w_000000_000010.mp4"]  # a link is followed nowhere
    assert read_clip_frames(index.records[0], 2).total_frames == 3
    elsewhere = tar_of(tmp_path / "other.tar", {"w_000000_000010.mp4": content})
    (tmp_path / "k/part_1.tar").symlink_to(elsewhere)
    with pytest.raises(ValueError, match=r"part_1\.tar leads to .*out of the folder"):
        kinetics_index("kinetics400", tmp_path / "k", tmp_path)


def test_compressed_and_torn_archives_are_told(tmp_path):
    root = made_up_sets.as_archives(made_up_sets.kinetics(tmp_path / "k"), compressed=True)
    with pytest.raises(ValueError, match=r"3 archives such as .*\.tar\.gz cannot .* it is compressed; .* \(gunzip\)"):
        kinetics_index("kinetics400", root)
    whole = tar_of(tmp_path / "t/part_0.tar", {"a_000000_000010.mp4": b"x" * 5000})
    os.truncate(whole, 3000)
    with pytest.raises(ValueError, match=r"cannot read the archive .*part_0\.tar: .*; fetch it again"):
        kinetics_index("kinetics400", tmp_path / "t", root / "annotations")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "label,youtube_id,time_start,time_end,split\na,v,soon,10,val\n",
            r"val\.csv, line 2: the times are no numbers",
        ),
        ("label,youtube_id,time_start,time_end,split\na,v,0,1e400,val\n", r"line 2: the times are no numbers"),
        ("label,youtube_id,time_start,time_end,split\na,,0,10,val\n", "line 2: youtube_id is empty"),
        ("label,youtube_id,time_start,time_end,split\na,v,0,10,holdout\n", "line 2: 'holdout' is no part of the set"),
        ("label,youtube_id,time_start,time_end\nRun,v,0,10\nrun,w,0,10\n", "one class in two spellings"),
        ("name,url\na,b\n", "no lists of kinetics400: looked for CSV files with the columns youtube_id"),
    ],
)
def test_bad_lists_are_named(tmp_path, text, message):
    write(tmp_path / "lists/val.csv", text)
    with pytest.raises(ValueError, match=message):
        kinetics_index("kinetics400", tmp_path, tmp_path / "lists")


def test_two_lists_of_one_part_are_refused(k400, tmp_path):
    for name in ("k400_train.csv", "k600_train.csv"):
        write(tmp_path / name, (k400 / "annotations/train.csv").read_text())
    with pytest.raises(ValueError, match=r"k400_train\.csv, k600_train\.csv all list clips of the part train"):
        kinetics_index("kinetics400", k400, tmp_path)


def test_ssv2_has_templates_as_classes(tmp_path):
    index = named_index("ssv2", made_up_sets.ssv2(tmp_path))
    assert index.class_names == ("Holding something", "Pushing something from left to right")
    assert counts(index) == [4, 2, 0]
    assert_true_colours(
        index, {"Holding something": (0, 90, 90), "Pushing something from left to right": (200, 90, 90)}
    )
    assert "published are 174 classes with 168,913 training and 24,777 test clips" in index.notes[0]


def test_activitynet_clips_are_segments_of_long_videos(tmp_path):
    index = named_index("activitynet", made_up_sets.activitynet(tmp_path))
    assert counts(index) == [3, 3, 0]
    assert {record.group for record in index.records} == {"a-_1", "b-_2"}
    assert len({record.path for record in index.records}) == 2
    assert len({clip_identity(record) for record in index.records}) == 6
    names = ("Red thing", "Green thing", "Blue thing")
    assert_true_colours(index, dict(zip(names, COLOURS.values(), strict=True)))
    assert "of activity_net.v1-3.min.json, 1 segment of no length left out" in index.notes[0]


def test_a_segment_is_sampled_like_a_clip_of_its_own(tmp_path):
    video = write_video(tmp_path / "v.mp4", [(8 * i, 0, 0) for i in range(30)])
    whole = read_frames(video, 30)
    part = read_frames(video, 4, span=(1.0, 1.8))
    assert part.indices.tolist() == [11, 13, 15, 17]  # centres of quarters of frames 10 to 17
    assert part.pixels.equal(whole.pixels[part.indices])
    assert read_frames(video, 2, span=(2.9, 100.0)).indices.tolist() == [29, 29]
    assert read_frames(video, 1, span=(1.01, 1.02)).indices.tolist() == [11]
    with pytest.raises(VideoReadError, match=r"it ends after 2\.9 s, before the part from 5 s begins"):
        read_frames(video, 2, span=(5.0, 6.0))


def test_diving48_classes_come_from_the_vocabulary(tmp_path):
    index = named_index("diving48", made_up_sets.diving48(tmp_path))
    assert index.class_names == ("Back 15som 05Twis FREE", "Inward Dive NoTwis PIKE")
    assert counts(index) == [4, 2, 0]
    assert_true_colours(index, dict(zip(index.class_names, ((90, 0, 90), (90, 200, 90)), strict=True)))
    write_json(tmp_path / "Diving48_V2_test.json", [{"vid_name": "x", "label": 2}])
    with pytest.raises(ValueError, match=r"Diving48_V2_test\.json .*the label 2 is none of the 2"):
        diving48_index(tmp_path)


def test_msrvtt_asks_captions_and_has_unlabelled_training_videos(tmp_path):
    made_up_sets.msrvtt(tmp_path)
    index = named_index("msrvtt", tmp_path / "videos")
    assert index.class_names == tuple(f"a thing, number {i}" for i in (3, 4, 6))
    assert [(r.name, r.label) for r in index.part("test").records] == [
        ("video3.mp4", 0),
        ("video4.mp4", 1),
        ("video6.mp4", 2),
    ]
    assert {(r.label, r.split) for r in index.part("train").records} == {(-1, "train")}
    assert counts(index) == [4, 3, 0]
    (tmp_path / "annotation/MSRVTT_JSFUSION_test.csv").unlink()
    half = index.half_classes(0)
    assert (len(half.class_names), counts(half)) == (1, [4, 1, 0])  # a domain needs no labels
    index = msrvtt_index(tmp_path / "videos", tmp_path / "annotation")
    assert index.class_names == ("caption 0 of 4", "caption 0 of 5", "caption 0 of 6")
    assert "the owners' test part, first caption of each" in index.notes[0]


@pytest.mark.parametrize(
    ("read", "file", "content", "message"),
    [
        (ssv2_index, "labels.json", [], "labels.json is not as its owners publish it"),
        (activitynet_index, "activity_net.v1-3.min.json", {"data": {}}, "there is no 'database'"),
        (
            activitynet_index,
            "activity_net.json",
            {"database": {"v": {"subset": "training", "annotations": 3}}},
            "not as",
        ),
        (diving48_index, "Diving48_vocab.json", [1], "is not as its owners publish it"),
        (msrvtt_index, "MSRVTT_data.json", {"videos": []}, "there is no 'sentences'"),
        (ssv2_index, "other.json", {}, "no lists of ssv2: looked for something-something-v2-labels.json"),
        (activitynet_index, "other.json", {}, r"no lists of activitynet: looked for activity_net\*\.json"),
        (msrvtt_index, "other.json", {}, "no lists of msrvtt"),
    ],
)
def test_lists_of_another_shape_are_named(tmp_path, read, file, content, message):
    write_json(tmp_path / "lists" / file, content)
    with pytest.raises(ValueError, match=message):
        read(tmp_path, tmp_path / "lists")


def test_every_set_is_reached_by_its_name():
    assert set(LISTED) == set(PUBLISHED)
    assert set(LISTED) < set(DATASETS)


def test_classes_are_asked_by_list_by_what_is_known_and_by_a_draw(k400, tmp_path):
    index = kinetics_index("kinetics600", k400)
    write(tmp_path / "known.csv", "label,youtube_id\nTai_Chi,x\nTai_Chi,y\n")
    new = new_classes(index, tmp_path / "known.csv")
    assert new.class_names == ("abseiling", "playing ping-pong")
    assert new.split == "1, 2 not in known.csv"
    write_json(tmp_path / "asked.json", ["playing_ping_pong"])
    asked = only_classes(index, tmp_path / "asked.json")
    assert asked.class_names == ("playing ping-pong",)
    assert asked.split == "1, 1 class of asked.json"
    assert {asked.class_names[r.label] for r in asked.records} == {"playing ping-pong"}
    draws = {drawn_classes(index, 2, seed).class_names for seed in range(9)}
    assert len(draws) == 3
    assert drawn_classes(index, 1, 3).class_names == index.half_classes(3).class_names  # the same rule
    assert drawn_classes(index, 2, 3).split == "1, 2 drawn with seed 3"
    write(tmp_path / "all.txt", "\n".join(COLOURS))
    assert read_class_list(tmp_path / "all.txt") == list(COLOURS)
    for call, message in (
        (lambda: new_classes(index, tmp_path / "all.txt"), "names all of the 3 classes"),
        (lambda: drawn_classes(index, 4, 0), "cannot draw 4 of 3 classes"),
        (lambda: only_classes(new, tmp_path / "known.csv"), "1 of 1 classes are not in kinetics600: Tai_Chi"),
        (lambda: read_class_list(tmp_path / "none.txt"), "no such list of classes"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_class_names_become_readable_prompts():
    assert readable_class_name("playing_ping_pong") == "playing ping pong"
    assert readable_class_name("massaging person's head") == "massaging person's head"
    assert readable_class_name("Back 15som 05Twis FREE") == "Back 15som 05 Twis FREE"
