import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from modeling_dkd.embedding.embedding_cache import EmbeddingSet, read_embeddings, read_with_texts, write_embeddings


def random_set(num_clips=7, frames=(3,), prompts=(2,), dim=5, num_classes=4, **metadata):
    generator = torch.Generator().manual_seed(0)
    return EmbeddingSet(
        torch.randn(num_clips, *frames, dim, generator=generator),
        torch.arange(num_clips) % num_classes,
        torch.randn(num_classes, *prompts, dim, generator=generator),
        metadata,
    )


@pytest.mark.parametrize("frames", [(), (3,)])
def test_what_is_written_is_read(tmp_path, frames):
    written = random_set(frames=frames, class_names=["ä", "b", "c", "d"], dataset="toy", frames_per_clip=3)
    write_embeddings(tmp_path / "new" / "cache.safetensors", written)
    read = read_embeddings(tmp_path / "new" / "cache.safetensors")
    assert_close(read.video_embeds, written.video_embeds, rtol=0, atol=0)
    assert_close(read.text_embeds, written.text_embeds, rtol=0, atol=0)
    assert read.labels.equal(written.labels)
    assert read.metadata == written.metadata
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["cache.safetensors"]


def test_half_precision_is_read_as_float32(tmp_path):
    path = tmp_path / "half.safetensors"
    save_file({"video_embeds": torch.ones(2, 3).half(), "labels": torch.tensor([0, -1], dtype=torch.int32)}, path)
    read = read_embeddings(path)
    assert read.video_embeds.dtype == torch.float32
    assert read.labels.dtype == torch.int64
    assert read.text_embeds is None
    assert read.class_names == ["class 0"]


def test_class_names_that_occur_twice_are_told_apart():
    assert random_set(class_names=["crane", "frog", "crane", "toad"]).class_names == [
        "crane [0]",
        "frog",
        "crane [2]",
        "toad",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"video_embeds": torch.ones(7)}, "expected \\(rows, D\\)"),
        ({"video_embeds": torch.ones(6, 5)}, "6 video embeddings: give one label a clip"),
        ({"video_embeds": torch.full((7, 5), torch.nan)}, "row 0 holds NaN"),
        ({"video_embeds": torch.arange(7.0)[:, None].flip(0).repeat(1, 5)}, "row 6 is all zeros"),
        ({"video_embeds": torch.ones(7, 4)}, "4 dimensions and text embeddings 5"),
        (
            {"labels": torch.tensor([0, 1, 2, 9, 0, 0, 0])},
            "label 9 of clip 3 is out of range: there are 4 class texts",
        ),
        ({"labels": torch.tensor([0, 1, -2, 0, 0, 0, 0])}, "label -2 is below -1"),
        ({"labels": torch.zeros(7)}, "give whole numbers"),
        ({"text_embeds": torch.zeros(4, 5)}, "row 0 is all zeros"),
        ({"metadata": {"class_names": ["one"]}}, "class_names has 1 entries for 4 classes"),
        ({"metadata": {"names": ["one"]}}, "1 clip names for 7 clips"),
        ({"metadata": {"logit_scale": "big"}}, "logit_scale 'big'"),
        ({"metadata": {"class_names": 3.0}}, "class_names in the metadata must be a list of texts, not '3.0'"),
        ({"metadata": {"names": [["a"]] * 7}}, "names in the metadata must be a list of texts"),
    ],
)
def test_bad_contents_are_refused(changes, message):
    good = random_set()
    with pytest.raises(ValueError, match=message):
        EmbeddingSet(**(vars(good) | changes))


def test_npz_arrays_have_the_names_of_the_convention_or_those_that_are_said(tmp_path):
    path = tmp_path / "toy.npz"
    np.savez(
        path,
        video_embeds=np.ones((3, 4), np.float16),
        labels=np.array([0, 1, 1]),
        text_embeds=np.eye(2, 4),
        class_names=np.array(["a", "b"]),
        names=np.array(["x", "y", "z"]),
        logit_scale=np.float32(20),
        train_f=np.full((2, 4), 2.0),
        train_l=np.array([1, 0], dtype=np.uint8),
        train_names=np.array(["t", "u"]),
    )
    plain = read_embeddings(path)
    assert plain.labels.tolist() == [0, 1, 1]
    assert plain.metadata == {
        "class_names": ["a", "b"],
        "names": ["x", "y", "z"],
        "dataset": "toy",
        "logit_scale": 20.0,
    }
    named = read_embeddings(path, video_embeds="train_f", labels="train_l", names="train_names")
    assert named.labels.tolist() == [1, 0]
    assert named.metadata["names"] == ["t", "u"]
    assert_close(named.video_embeds, torch.full((2, 4), 2.0))


def test_no_array_is_taken_for_its_usual_name_elsewhere(tmp_path):
    path = tmp_path / "toy.npz"
    np.savez(
        path, image_f=np.ones((2, 4)), labels=np.array([0, 1]), text=np.eye(2, 4), classnames=np.array(["a", "b"])
    )
    with pytest.raises(ValueError, match="no array 'video_embeds'; it holds classnames, image_f, labels, text: say"):
        read_embeddings(path)
    assert read_embeddings(path, video_embeds="image_f").text_embeds is None


def test_prompts_come_first_or_second(tmp_path):
    path = tmp_path / "toy.npz"
    texts = np.arange(1, 41).reshape(5, 2, 4)
    arrays = {"video_embeds": np.ones((2, 4)), "labels": np.array([0, 1]), "prompts": np.array(list("vwxyz"))}
    for text_embeds in (texts, texts.swapaxes(0, 1)):
        np.savez(path, **arrays, text_embeds=text_embeds, class_names=np.array(["a", "b"]))
        read = read_embeddings(path)
        assert read.text_embeds.shape == (2, 5, 4)
        assert read.text_embeds[1, 0].tolist() == [5, 6, 7, 8]
        assert read.metadata["prompts"] == list("vwxyz")


def test_labels_can_be_numbers_of_another_list(tmp_path):
    path = tmp_path / "toy.npz"
    arrays = {"video_embeds": np.ones((4, 3)), "text_embeds": np.eye(3)}
    np.savez(path, **arrays, labels=np.array([0, 1, -1, 0]), class_id=np.array([2, 0]))
    assert read_embeddings(path, text_rows="class_id").labels.tolist() == [2, 0, -1, 2]
    np.savez(path, **arrays, labels=np.array([0, 2, 0, 0]), class_id=np.array([2, 0]))
    with pytest.raises(ValueError, match="label 2 is out of range for text_rows of shape"):
        read_embeddings(path, text_rows="class_id")


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"video_embeds": "nowhere"},
            "no array 'nowhere'; it holds .*: say which are the video_embeds with FILE:video_embeds=NAME",
        ),
        ({"text_embeds": "x"}, "no array 'x'; .* with FILE:text_embeds=NAME"),
        ({"class_names": "x"}, "no array 'x'; it holds .*: say which are the class_names with FILE:class_names=NAME"),
        ({"labels": "flags"}, "'flags' has dtype bool and holds no numbers"),
        ({"labels": "video_embeds"}, "has dtype float.*: labels must be whole numbers"),
        ({"videos": "video_embeds"}, "'videos' is nothing that a file can hold: choose from video_embeds, labels"),
    ],
)
def test_names_that_do_not_fit_are_refused(tmp_path, ending, arrays, message):
    path, held = tmp_path / f"toy.{ending}", {"video_embeds": np.ones((1, 2)), "labels": np.array([0])}
    held["flags"] = np.array([True])
    if ending == "npz":
        np.savez(path, **held)
    else:
        save_file({name: torch.from_numpy(array) for name, array in held.items()}, path)
    with pytest.raises(ValueError, match=message) as caught:
        read_embeddings(path, **arrays)
    assert str(caught.value).startswith(f"{path}: ")


def test_arrays_of_a_safetensors_file_can_have_other_names(tmp_path):
    path = tmp_path / "toy.safetensors"
    metadata = {"names": json.dumps(["a"]), "own_names": json.dumps(["b"])}
    save_file({"x": torch.ones(1, 2), "y": torch.tensor([0], dtype=torch.int32)}, path, metadata)
    read = read_embeddings(path, video_embeds="x", labels="y", names="own_names")
    assert read.labels.tolist() == [0]
    assert read.metadata["names"] == ["b"]


def test_files_that_are_no_source_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_embeddings(tmp_path / "absent.npz")
    for name in ("torn.npz", "torn.safetensors"):
        (tmp_path / name).write_bytes(b"PK\3\4 not all of it")
        with pytest.raises(ValueError, match=f"{name}: not a readable"):
            read_embeddings(tmp_path / name)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"ending in '\.txt' is no source"):
        read_embeddings(tmp_path / "notes.txt")
    np.savez(tmp_path / "pickled.npz", video_embeds=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="without pickled objects"):
        read_embeddings(tmp_path / "pickled.npz")
    save_file({"video_embeds": torch.ones(1, 2), "labels": torch.zeros(1)}, tmp_path / "a.safetensors", {"x": "{"})
    with pytest.raises(ValueError, match="metadata is not JSON"):
        read_embeddings(tmp_path / "a.safetensors")


def test_damaged_npz_files_are_named(tmp_path):
    path = tmp_path / "toy.npz"
    np.savez(path, video_embeds=np.ones((2, 4)), labels=np.array([0, 1]), class_names=np.array(3.0))
    whole = path.read_bytes()
    central = whole.index(b"PK\1\2")
    # Flags that say encrypted or strongly encrypted, a version and a compression that nobody knows.
    for position, value in ((8, 1), (8, 64), (6, 210), (10, 99)):
        damaged = bytearray(whole)
        damaged[central + position] = value
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"toy\.npz: not a readable"):
            read_embeddings(path)


def test_names_that_are_no_list_are_one_name(tmp_path):
    np.savez(tmp_path / "toy.npz", video_embeds=np.ones((2, 4)), labels=np.array([0, 0]), class_names=np.array("a"))
    assert read_embeddings(tmp_path / "toy.npz").class_names == ["a"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "cache.safetensors"
    write_embeddings(path, random_set(dataset="old"))

    def torn(tensors, file, metadata):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("modeling_dkd.embedding.tensor_files.save_file", torn)
    with pytest.raises(OSError, match="disk full"):
        write_embeddings(path, random_set(dataset="new"))
    assert read_embeddings(path).metadata["dataset"] == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_texts_of_another_file_are_joined_by_class_id(tmp_path):
    videos = tmp_path / "videos.npz"
    names = np.array(["c0", "c1", "c2", "c3"])
    np.savez(
        videos, val_f=np.eye(4, 3) + 1, labels=np.array([0, 1, 2, 3]), names=names, class_names=np.array(list("abcd"))
    )
    texts = tmp_path / "texts.npz"
    np.savez(texts, t=np.eye(2, 3), class_id=np.array([3, 1]), class_names=np.array(["three", "one"]))
    joined = read_with_texts(videos, texts, {"video_embeds": "val_f"}, {"text_embeds": "t"})
    assert joined.labels.tolist() == [1, 0]
    assert joined.metadata["names"] == ["c1", "c3"]
    assert joined.class_names == ["three", "one"]
    assert_close(joined.video_embeds, torch.eye(4, 3)[[1, 3]] + 1)
    np.savez(texts, t=np.eye(2, 3), class_id=np.array([3, 1]))  # the names of four classes are not those of these two
    joined = read_with_texts(videos, texts, {"video_embeds": "val_f"}, {"text_embeds": "t"})
    assert joined.class_names == ["class 0", "class 1"]


def test_texts_of_another_file_without_class_id_keep_the_labels(tmp_path):
    write_embeddings(tmp_path / "clips.safetensors", random_set(prompts=(), class_names=list("abcd")))
    save_file({"text_embeds": torch.eye(4, 5)}, tmp_path / "texts.safetensors", {"prompts": json.dumps("a {}.")})
    read = read_with_texts(tmp_path / "clips.safetensors", tmp_path / "texts.safetensors")
    assert_close(read.text_embeds, torch.eye(4, 5))
    assert read.class_names == list("abcd")
    assert read.metadata["prompts"] == "a {}."


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    write_embeddings(tmp_path / "clips.safetensors", random_set())
    np.savez(tmp_path / "texts.npz", text_embeds=np.eye(2, 5), class_id=np.array([50, 60]))
    with pytest.raises(ValueError, match=r"texts\.npz: no clip has a label that occurs in class_id"):
        read_with_texts(tmp_path / "clips.safetensors", tmp_path / "texts.npz")
    np.savez(tmp_path / "twice.npz", text_embeds=np.eye(2, 5), class_id=np.array([1, 1]))
    with pytest.raises(ValueError, match="one different number for each"):
        read_with_texts(tmp_path / "clips.safetensors", tmp_path / "twice.npz")
    np.savez(tmp_path / "other.npz", text_embeds=np.eye(4, 6))
    with pytest.raises(ValueError, match="5 dimensions and text embeddings 6"):
        read_with_texts(tmp_path / "clips.safetensors", tmp_path / "other.npz")


WHURS19 = {"video_embeds": "image_f", "text_embeds": "text_avg"}
UCF101 = {"video_embeds": "val_f", "labels": "val_l", "text_embeds": "text_mapped_from_minilm"}
MOVINET = {"video_embeds": "video_f", "text_embeds": "text_all", "text_rows": "class_id"}
REAL = [
    ("whurs19_clip_rn50", WHURS19, (1005, 1024), 19),
    ("whurs19_clip_rn50", WHURS19 | {"text_embeds": "text_prompts", "class_names": "classnames"}, (1005, 1024), 19),
    ("ucf101_openai_vitb32_dev", UCF101, (1898, 512), 101),
    ("ucf101_openai_vitb32_dev", UCF101 | {"video_embeds": "train16_f", "labels": "train16_l"}, (1616, 512), 101),
    ("ucf101_14_movinet_conse", MOVINET, (1272, 4, 384), 101),
    ("dtd_openai_vitb32_val", {"video_embeds": "val_f", "labels": "val_l"}, (1128, 512), None),
]


@pytest.mark.parametrize(("name", "arrays", "shape", "num_classes"), REAL)
def test_real_files_are_read(data_dir, name, arrays, shape, num_classes):
    read = read_embeddings(data_dir / "features" / f"{name}.npz", **arrays)
    assert read.video_embeds.shape == shape
    assert (read.text_embeds is None) if num_classes is None else (len(read.text_embeds) == num_classes)
    assert len(read.class_names) == (num_classes or 47)
