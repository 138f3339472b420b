"""What lists can have wrong: an error or a note that names the place and what to do; nothing passes silently."""

import gzip
import json
import shutil

import pytest

from modeling_dkd.data.listed_sets import (
    activitynet_index,
    diving48_index,
    kinetics_index,
    msrvtt_index,
    ssv2_index,
)
from modeling_dkd.data.official_index import hmdb51_index, ucf101_index
from modeling_dkd.data.official_splits import read_ucf101_split

from ..made_up_sets import tar_of, write, write_json


HEAD = "label,youtube_id,time_start,time_end,split\n"


def kinetics(tmp_path, lines, *files, part="val", head=HEAD):
    """The index of a list of these lines, over empty files."""
    write(tmp_path / f"lists/{part}.csv", head + "".join(f"{line}\n" for line in lines))
    for file in files:
        write(tmp_path / "k" / file, "x")
    return kinetics_index("kinetics400", tmp_path / "k", tmp_path / "lists")


def ssv2(tmp_path, train, validation):
    """The index of lists of (id, template), over a file for each id."""
    write_json(tmp_path / "labels.json", {"Holding something": "0", "Pushing something": "1"})
    for part, entries in (("train", train), ("validation", validation)):
        write_json(tmp_path / f"{part}.json", [{"id": i, "template": template} for i, template in entries])
        for i, _ in entries:
            write(tmp_path / f"{i}.webm", "x")
    return ssv2_index(tmp_path)


def diving48(tmp_path, train, test):
    write_json(tmp_path / "Diving48_vocab.json", [["Back"], ["Inward"]])
    for part, entries in (("train", train), ("test", test)):
        write_json(tmp_path / f"Diving48_V2_{part}.json", [{"vid_name": v, "label": n} for v, n in entries])
        for video, _ in entries:
            write(tmp_path / f"{video}.mp4", "x")
    return diving48_index(tmp_path)


def activitynet(tmp_path, *videos):
    """The index of (video, subset, segments with labels), over a file for each."""
    entries = []
    for video, subset, segments in videos:
        entry = {"subset": subset, "annotations": [{"segment": s, "label": label} for *s, label in segments]}
        entries.append(f"{json.dumps(video)}: {json.dumps(entry)}")
        write(tmp_path / f"v_{video}.mp4", "x")
    write(tmp_path / "activity_net.v1-3.min.json", f'{{"database": {{{", ".join(entries)}}}}}')
    return activitynet_index(tmp_path)


def msrvtt(tmp_path, videos, captions, tests=None):
    """The index of [(video, split)], [(video, caption)] and a 1k-A list, over a file for each video."""
    content = {"videos": [{"video_id": v, "split": s} for v, s in videos]}
    content["sentences"] = [{"video_id": v, "caption": c} for v, c in captions]
    write_json(tmp_path / "MSRVTT_data.json", content)
    if tests is not None:
        write(tmp_path / "MSRVTT_JSFUSION_test.csv", "video_id,sentence\n" + "".join(f"{v},{c}\n" for v, c in tests))
    for video, _ in (*videos, *(tests or ())):
        write(tmp_path / f"{video}.mp4", "x")
    return msrvtt_index(tmp_path)


def test_a_clip_that_is_listed_again_alike_counts_once_with_a_note(tmp_path):
    index = kinetics(
        tmp_path, ["a,v,0,10,val", "a,w,0,10,val", "a,v,0,10,val", "a,v,0,10,val"], "v_0_10.mp4", "w_0_10.mp4"
    )
    assert [record.name for record in index.records] == ["a/v_000000_000010.mp4", "a/w_000000_000010.mp4"]
    assert "2 entries alike to another counted once, such as a/v_000000_000010.mp4" in index.notes[0]
    index = ssv2(
        tmp_path / "s", [("1", "Holding something"), ("1", "Holding something")], [("2", "Pushing something")]
    )
    assert len(index.records) == 2
    assert "the lists of ssv2: 1 entry alike to another counted once, such as Holding something/1" in index.notes[0]
    index = diving48(tmp_path / "d", [("x", 0), ("x", 0)], [("y", 1)])
    assert len(index.records) == 2
    index = activitynet(tmp_path / "a", ("v", "training", [(0, 1, "a"), (0, 1, "a"), (1, 2, "a")]))
    assert [record.start for record in index.records] == [0, 1]
    index = msrvtt(tmp_path / "m", [("video1", "train")], [], [("video2", "a cat"), ("video2", "A  cat")])
    assert [record.name for record in index.records] == ["video1.mp4", "video2.mp4"]
    assert any("the lists of msrvtt: 1 entry alike" in note for note in index.notes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda p: kinetics(p, ["a,v,0,10,val", "b,v,0,10,val"], "v_0_10.mp4"),
            r"kinetics400 name v_000000_000010 as 'a' in val and as 'b' in val \(1 such clip\); keep each in one",
        ),
        (
            lambda p: kinetics(p, ["a,v,0,10,train", "a,w,0,10,val", "a,v,0,10,val"], "v_0_10.mp4"),
            r"name v_000000_000010 as 'a' in train and as 'a' in val",
        ),
        (
            lambda p: ssv2(p, [("1", "Holding something")], [("1", "Pushing something")]),
            "ssv2 name 1 as 'Holding something' in train and as 'Pushing something' in val",
        ),
        (
            lambda p: diving48(p, [("x", 0), ("y", 0)], [("x", 0)]),
            "diving48 name x as 'Back' in train and as 'Back' in",
        ),
        (
            lambda p: activitynet(p, ("v", "training", [(0, 1, "a")]), ("v", "validation", [(2, 3, "a")])),
            "activitynet name v_v as 'a' in train and as 'a' in val",  # a film is one clip's source, whatever the part
        ),
        (
            lambda p: msrvtt(p, [("video1", "train")], [], [("video2", "a cat"), ("video2", "a dog")]),
            "msrvtt name video2 as 'a cat' in test and as 'a dog' in test",
        ),
        (
            lambda p: msrvtt(p, [("video1", "train"), ("video1", "test")], [("video1", "a cat")]),
            "msrvtt name video1 as 'a cat' in test and in train",
        ),
    ],
)
def test_a_clip_in_two_classes_or_parts_is_refused(tmp_path, make, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path)


def test_a_class_that_is_listed_twice_is_refused(tmp_path):
    write_json(tmp_path / "Diving48_vocab.json", [["Back"], ["Back"]])
    with pytest.raises(ValueError, match="the lists of diving48: the class 'Back' is there twice; keep one of them"):
        diving48_index(tmp_path)
    write_json(tmp_path / "labels.json", {"Holding something": "0", "Holding [something]": "1"})
    with pytest.raises(ValueError, match="the class 'Holding something' is there twice"):
        ssv2_index(tmp_path)


def test_official_lists_with_a_training_clip_in_the_test_are_refused(data_dir, tmp_path):
    """The counts are right: only the clip tells."""
    for dataset, read, name in (
        ("ucf101", ucf101_index, "testlist01.txt"),
        ("hmdb51", hmdb51_index, "walk_test_split1.txt"),
    ):
        lists = shutil.copytree(data_dir / "annotations" / dataset, tmp_path / dataset)
        lines = (lists / name).read_text().splitlines()
        if dataset == "ucf101":
            lines[0] = read_ucf101_split(lists, 1)[1][0].name
        else:
            test, train = (
                next(i for i, line in enumerate(lines) if line.strip().endswith(tag)) for tag in (" 2", " 1")
            )
            lines[test] = lines[train].strip()[:-1] + "2"
        (lists / name).chmod(0o644)
        write(lists / name, "\n".join(lines))
        with pytest.raises(
            ValueError, match=rf"the lists of {dataset} name .* in (train|test) and as .* in (test|train)"
        ):
            read(tmp_path, lists, 1)


def test_clips_whose_names_differ_in_capitals_alone_are_two(tmp_path):
    index = kinetics(tmp_path, ["a,Vx,0,10,val", "b,vX,0,10,val"], "Vx_000000_000010.mp4", "vX_000000_000010.mp4")
    assert [(r.name, r.path.rpartition("/")[2]) for r in index.records] == [
        ("a/Vx_000000_000010.mp4", "Vx_000000_000010.mp4"),
        ("b/vX_000000_000010.mp4", "vX_000000_000010.mp4"),
    ]
    write(tmp_path / "k/VX_000000_000010.mp4", "x")  # a third, which no line means
    assert kinetics_index("kinetics400", tmp_path / "k", tmp_path / "lists").records == index.records
    for name in ("VX", "Vx"):
        (tmp_path / f"k/{name}_000000_000010.mp4").unlink()
    index = kinetics_index("kinetics400", tmp_path / "k", tmp_path / "lists")
    assert [record.name for record in index.records] == ["b/vX_000000_000010.mp4"]  # no file is two clips
    assert [record.name for record in index.missing] == ["a/Vx_000000_000010.mp4"]


def test_segments_with_two_classes_count_in_each(tmp_path):
    index = activitynet(tmp_path, ("v", "validation", [(0, 1, "b"), (0, 1, "a"), (0, 1, "b")]))
    assert sorted(index.class_names[record.label] for record in index.records) == ["a", "b"]
    assert "the lists of activitynet: 1 segment with two classes counted in each" in index.notes


def test_lines_without_a_label_are_counted(tmp_path):
    write(tmp_path / "lists/train.csv", HEAD + "a,v,0,10,train\n,w,0,10,train\n")
    write(tmp_path / "lists/test.csv", "youtube_id,time_start,time_end,split\nx,0,10,test\ny,0,10,test\n")
    index = kinetics(tmp_path, ["a,z,0,10,val"], "v_0_10.mp4", "z_0_10.mp4")
    assert [(record.name[:3], record.split) for record in index.records] == [("a/v", "train"), ("a/z", "test")]
    assert index.notes[:2] == (
        "2 lines of test.csv without a label left out; only a list with labels counts",
        "1 line of train.csv without a label left out; only a list with labels counts",
    )
    with pytest.raises(
        ValueError, match=r"val\.csv names 2 clips of the part val and no label; fetch the list that has"
    ):
        kinetics(tmp_path, [",z,0,10,val", " ,y,0,10,val"], part="val")
    with pytest.raises(ValueError, match=r"val\.csv names 1 clip of the part val and no label"):
        kinetics(tmp_path, ["z,0,10"], part="val", head="youtube_id,time_start,time_end\n")


def test_lists_that_name_nothing_say_so(tmp_path):
    write_json(tmp_path / "s/labels.json", {"Holding something": "0"})
    with pytest.raises(
        ValueError, match=r"the lists of ssv2 name no clip; there is no .*s/train\.json; .*validation\.json"
    ):
        ssv2_index(tmp_path / "s")
    write_json(tmp_path / "d/Diving48_vocab.json", [["Back"]])
    with pytest.raises(
        ValueError, match=r"the lists of diving48 name no clip; there is no .*V2_train\.json; .*V2_test"
    ):
        diving48_index(tmp_path / "d")
    with pytest.raises(
        ValueError, match=r"the lists of activitynet name no clip; .* 2 segments of no length left out"
    ):
        activitynet(tmp_path / "a", ("v", "training", [(float("nan"), 1, "a"), (0, float("nan"), "a")]))
    with pytest.raises(ValueError, match=r"name no clip; 1 line of test\.csv without a label left out"):
        kinetics(tmp_path / "k", [",v,0,10,test"], "v_0_10.mp4", part="test")


def test_a_missing_part_is_a_note(tmp_path):
    ssv2(tmp_path, [("1", "Holding something")], [])
    (tmp_path / "validation.json").unlink()
    index = ssv2_index(tmp_path)
    assert index.notes[0] == f"there is no {tmp_path / 'validation.json'}"


def test_msrvtt_is_compared_with_what_is_published(tmp_path):
    numbers = [("train", 0, 6513), ("validate", 6513, 7010), ("test", 7010, 10000)]
    videos = [(f"video{i}", split) for split, begin, end in numbers for i in range(begin, end)]
    captions = [(video, f"caption {i} of {video}") for video, _ in videos for i in range(20)]
    write(tmp_path / "videos/video7010.mp4", "x")
    msrvtt_json = {"videos": [{"video_id": v, "split": s} for v, s in videos]}
    msrvtt_json["sentences"] = [{"video_id": v, "caption": c} for v, c in captions]
    write_json(tmp_path / "MSRVTT_data.json", msrvtt_json)
    owners = msrvtt_index(tmp_path / "videos")
    assert owners.notes == ("there is no MSRVTT_JSFUSION_test.csv: the owners' test part, first caption of each",)
    assert [len(owners.part(part).missing) for part in ("train", "test")] == [7010, 2989]
    tests = "".join(f"{video},a caption of {video}\n" for video, _ in videos[7010:8010])
    write(tmp_path / "MSRVTT_JSFUSION_test.csv", "video_id,sentence\n" + tests)
    assert msrvtt_index(tmp_path / "videos").notes == ()
    write(tmp_path / "MSRVTT_JSFUSION_test.csv", "video_id,sentence\n" + tests[: tests.rindex("video8009,")])
    msrvtt_json["sentences"].pop()
    msrvtt_json["videos"][0]["split"] = "validate"
    write_json(tmp_path / "MSRVTT_data.json", msrvtt_json)
    assert msrvtt_index(tmp_path / "videos").notes == (
        "MSRVTT_data.json: 6,512 train, 498 validate, 2,990 test and 199,999 captions; published are 6,513 train, "
        "497 validate, 2,990 test and 200,000 captions",
        "the lists of msrvtt name 999 captions with 9,001 training and 999 test clips; published are 1,000 captions "
        "with 9,000 training and 1,000 test clips",
    )


def test_captions_that_are_no_class_of_their_own(tmp_path):
    tests = [("video1", " a man sings "), ("video2", "A man  sings"), ("video3", "a dog")]
    index = msrvtt(tmp_path / "a/m", [("video0", "train")], [], tests)
    assert index.class_names == ("a man sings", "a dog")
    assert [record.label for record in index.part("test").records] == [0, 0, 1]
    assert "1 of 3 test videos share their caption with another" in index.notes
    with pytest.raises(ValueError, match=r"MSRVTT_JSFUSION_test\.csv is not .*the test video video2 has no caption"):
        msrvtt(tmp_path / "b/m", [], [], [("video1", "a"), ("video2", " ")])
    index = msrvtt(tmp_path / "c/m", [("video1", "test")], [("video1", " "), ("video1", "a cat")])
    assert index.class_names == ("a cat",)
    with pytest.raises(ValueError, match=r"MSRVTT_data\.json is not .*the test video video1 has no caption"):
        msrvtt(tmp_path / "d/m", [("video1", "test")], [("video2", "a cat")])


def test_msrvtt_without_a_test_says_what_is_missing(tmp_path):
    content = {"videos": [{"video_id": "video1", "split": "train"}], "sentences": []}
    write_json(tmp_path / "train_val_videodatainfo.json", content)
    with pytest.raises(
        ValueError, match=r"train_val_videodatainfo\.json: no test video; add test_videodatainfo\.json, or"
    ):
        msrvtt_index(tmp_path)


def test_msrvtt_is_read_as_others_host_it(tmp_path):
    test = [{"video_id": "video7", "video": "video7.mp4", "caption": "a cat", "source": "MSR-VTT"}]
    write_json(tmp_path / "lists/msrvtt_test_1k.json", test)
    for name, number in (("9k", 3), ("7k", 2)):
        entries = [{"video": f"video{i}.mp4", "caption": ["a dog", "dogs"]} for i in range(number)]
        write_json(tmp_path / f"lists/msrvtt_train_{name}.json", entries)
    for i in range(9):
        write(tmp_path / f"videos/video{i}.mp4", "x")
    index = msrvtt_index(tmp_path / "videos", tmp_path / "lists")
    assert index.class_names == ("a cat",)
    assert [len(index.part(part).records) for part in ("train", "test")] == [3, 1]
    (note,) = index.notes
    assert "1 caption with 3 training and 1 test clip; published are 1,000 captions" in note
    (tmp_path / "lists/msrvtt_train_9k.json").unlink()
    assert len(msrvtt_index(tmp_path / "videos", tmp_path / "lists").part("train").records) == 2
    write_json(tmp_path / "lists/msrvtt_test_1k.json", {"videos": test})
    with pytest.raises(ValueError, match=r"msrvtt_test_1k\.json is not as its owners publish it"):
        msrvtt_index(tmp_path / "videos", tmp_path / "lists")


def test_a_file_of_the_lists_stands_for_its_folder(data_dir, tmp_path):
    ssv2(tmp_path / "s", [("1", "Holding something")], [("2", "Pushing something")])
    diving48(tmp_path / "d", [("x", 0)], [("y", 1)])
    msrvtt(tmp_path / "m", [("video1", "train")], [], [("video2", "a cat")])
    for read, folder, names, other in (
        (ssv2_index, "s", ("train.json", "labels.json"), "1.webm"),
        (diving48_index, "d", ("Diving48_V2_train.json", "Diving48_vocab.json"), "x.mp4"),
        (msrvtt_index, "m", ("MSRVTT_data.json", "MSRVTT_JSFUSION_test.csv"), "video1.mp4"),
    ):
        for name in names:
            assert read(tmp_path / folder, tmp_path / folder / name) == read(tmp_path / folder, tmp_path / folder)
        with pytest.raises(ValueError, match=rf"{other} is none of the lists of .*{names[1]}.*--annotations"):
            read(tmp_path / folder, tmp_path / folder / other)
    for dataset, read, name in (
        ("ucf101", ucf101_index, "trainlist02.txt"),
        ("hmdb51", hmdb51_index, "walk_test_split3.txt"),
    ):
        clips, lists = data_dir / dataset, data_dir / "annotations" / dataset
        assert read(clips, lists / name, 1, allow_missing=True) == read(clips, lists, 1, allow_missing=True)
        write(tmp_path / "notes.txt", "x")
        with pytest.raises(ValueError, match=r"notes\.txt is none of the lists of"):
            read(clips, tmp_path / "notes.txt", 1)


def test_two_releases_of_activitynet_are_asked_for(tmp_path):
    expected = activitynet(tmp_path, ("v", "training", [(0, 1, "a")]))
    old = tmp_path / "activity_net.v1-2.min.json"
    write_json(old, {"database": {"v": {"subset": "training", "annotations": [{"segment": [2, 3], "label": "b"}]}}})
    with pytest.raises(
        ValueError, match=r"v1-2\.min\.json, activity_net\.v1-3\.min\.json, each a release .*; name one"
    ):
        activitynet_index(tmp_path)
    assert activitynet_index(tmp_path, tmp_path / "activity_net.v1-3.min.json") == expected
    assert activitynet_index(tmp_path, old).class_names == ("b",)
    with pytest.raises(ValueError, match=r"v_v\.mp4 is none of the lists of activitynet"):
        activitynet_index(tmp_path, tmp_path / "v_v.mp4")


def test_odd_segments_and_subsets_are_told(tmp_path):
    index = activitynet(
        tmp_path, ("v", "training", [(-0.5, 1, "a"), (-2, -1, "a"), (1, 1, "a")]), ("w", "holdout", [(0, 1, "a")])
    )
    assert [(r.start, r.end, r.split) for r in index.records] == [(0, 1, "train"), (0, 1, "unused")]
    assert index.notes[:3] == (
        "of activity_net.v1-3.min.json, 1 segment read from 0, as it begins before",
        "of activity_net.v1-3.min.json, 2 segments of no length left out",
        "of activity_net.v1-3.min.json, 1 video of the subset 'holdout' unused: it is none of training, validation "
        "and testing",
    )


def test_without_lists_the_reader_of_folders_is_named(tmp_path):
    write(tmp_path / "train/abseiling/v_0_10.mp4", "x")
    for read in (lambda: kinetics_index("kinetics400", tmp_path), lambda: ucf101_index(tmp_path, tmp_path, 1)):
        with pytest.raises(ValueError, match="; name their folder with ") as caught:
            read()
        assert "--annotations (train.py: data.annotations)" in str(caught.value)
        assert "--dataset folder (train.py: data.dataset=folder)" in str(caught.value)


def test_archives_that_cannot_be_read_in_place_are_told_with_what_to_do(tmp_path):
    lists = tmp_path / "lists"
    write(lists / "val.csv", HEAD + "a,v,0,10,val\n")
    root = tmp_path / "zip"
    write(root / "k400_val.zip", "x")
    write(root / "20bn-something-something-v2-00", "x")
    tar_of(root / "outer.tar", {"inner.tar": b"x" * 9, "more.tar.gz": b"x"})
    with pytest.raises(ValueError, match=r"of 1 kinetics400 clip .* holds none") as caught:
        kinetics_index("kinetics400", root, lists)
    told = str(caught.value)
    assert "1 archive such as" in told
    assert "zip/k400_val.zip cannot be looked into: only a plain .tar can; unpack it" in told
    assert "2 archives such as" in told
    assert "outer.tar/inner.tar cannot be looked into: it lies in another; unpack the outer one" in told
    assert "v2-00 cannot be looked into: each is a piece of one; put them together" in told
    packed = tmp_path / "gz/val.tar"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress(b"x" * 9000))
    with pytest.raises(
        ValueError, match=r"the archive .*val\.tar: it is packed with gzip, whatever its name says; unpack"
    ):
        kinetics_index("kinetics400", packed.parent, lists)
