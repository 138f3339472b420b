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
        ({"metadata": {"class_names": ["one"]}}, "1 class names for 4 class texts"),
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


def test_npz_arrays_are_guessed_together(tmp_path):
    path = tmp_path / "toy.npz"
    np.savez(
        path,
        val_f=np.ones((3, 4), np.float16),
        val_l=np.array([0, 1, 1]),
        train_f=np.full((2, 4), 2.0),
        train_l=np.array([1, 0]),
        text=np.eye(2, 4),
        classnames=np.array(["a", "b"]),
    )
    guessed = read_embeddings(path)
    assert guessed.labels.tolist() == [0, 1, 1]
    assert guessed.metadata == {"class_names": ["a", "b"], "dataset": "toy", "split": "val", "texts": "text"}
    assert read_embeddings(path, video_key="train_f").labels.tolist() == [1, 0]


def test_npz_texts_choose_their_labels_and_prompts_come_first_or_second(tmp_path):
    path = tmp_path / "toy.npz"
    np.savez(
        path,
        image_f=np.ones((2, 4)),
        labels=np.array([0, 1]),
        labels3=np.array([2, 2]),
        text=np.eye(2, 4),
        text3=np.eye(3, 4),
        text_prompts=np.arange(1, 41).reshape(5, 2, 4),
        classnames=np.array(["a", "b"]),
        classnames3=np.array(["x", "y", "z"]),
        prompts=np.array(list("vwxyz")),
    )
    wide = read_embeddings(path, text_key="text3")
    assert wide.labels.tolist() == [2, 2]
    assert wide.class_names == ["x", "y", "z"]
    prompted = read_embeddings(path, text_key="text_prompts")
    assert prompted.text_embeds.shape == (2, 5, 4)
    assert prompted.text_embeds[1, 0].tolist() == [5, 6, 7, 8]
    assert prompted.metadata["prompts"] == list("vwxyz")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"video_key": "nowhere"}, "no array 'nowhere'.*it holds image_f, labels"),
        ({"label_key": "names"}, "'names' has dtype <U1 and holds no numbers"),
        ({"label_key": "image_f"}, "labels must be whole numbers"),
    ],
)
def test_npz_keys_that_do_not_fit_are_refused(tmp_path, keys, message):
    np.savez(tmp_path / "toy.npz", image_f=np.ones((1, 2)), labels=np.array([0]), names=np.array(["a"]))
    with pytest.raises(ValueError, match=message) as caught:
        read_embeddings(tmp_path / "toy.npz", **keys)
    assert str(caught.value).startswith(f"{tmp_path / 'toy.npz'}: ")


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
    np.savez(tmp_path / "pickled.npz", image_f=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="without pickled objects"):
        read_embeddings(tmp_path / "pickled.npz")
    save_file({"video_embeds": torch.ones(1, 2), "labels": torch.zeros(1)}, tmp_path / "a.safetensors", {"x": "{"})
    with pytest.raises(ValueError, match="metadata is not JSON"):
        read_embeddings(tmp_path / "a.safetensors")


def test_damaged_npz_files_are_named(tmp_path):
    path = tmp_path / "toy.npz"
    np.savez(path, image_f=np.ones((2, 4)), labels=np.array([0, 1]), classnames=np.array(3.0))
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
    np.savez(tmp_path / "toy.npz", image_f=np.ones((2, 4)), labels=np.array([0, 0]), classnames=np.array("a"))
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
    np.savez(videos, val_f=np.eye(4, 3) + 1, val_l=np.array([0, 1, 2, 3]), val_names=names)
    texts = tmp_path / "texts.npz"
    np.savez(texts, text=np.eye(2, 3), class_id=np.array([3, 1]), class_name=np.array(["three", "one"]))
    joined = read_with_texts(videos, texts)
    assert joined.labels.tolist() == [1, 0]
    assert joined.metadata["names"] == ["c1", "c3"]
    assert joined.class_names == ["three", "one"]
    assert_close(joined.video_embeds, torch.eye(4, 3)[[1, 3]] + 1)


def test_texts_of_another_file_without_class_id_keep_the_labels(tmp_path):
    write_embeddings(tmp_path / "clips.safetensors", random_set(prompts=(), class_names=list("abcd")))
    save_file({"text_embeds": torch.eye(4, 5)}, tmp_path / "texts.safetensors", {"prompts": json.dumps("a {}.")})
    read = read_with_texts(tmp_path / "clips.safetensors", tmp_path / "texts.safetensors")
    assert_close(read.text_embeds, torch.eye(4, 5))
    assert read.class_names == list("abcd")
    assert read.metadata["prompts"] == "a {}."


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    write_embeddings(tmp_path / "clips.safetensors", random_set())
    np.savez(tmp_path / "texts.npz", text=np.eye(2, 5), class_id=np.array([50, 60]))
    with pytest.raises(ValueError, match=r"texts\.npz: no clip has a label that occurs in class_id"):
        read_with_texts(tmp_path / "clips.safetensors", tmp_path / "texts.npz")
    np.savez(tmp_path / "twice.npz", text=np.eye(2, 5), class_id=np.array([1, 1]))
    with pytest.raises(ValueError, match="one different number for each"):
        read_with_texts(tmp_path / "clips.safetensors", tmp_path / "twice.npz")
    np.savez(tmp_path / "other.npz", text=np.eye(4, 6))
    with pytest.raises(ValueError, match="5 dimensions and text embeddings 6"):
        read_with_texts(tmp_path / "clips.safetensors", tmp_path / "other.npz")


REAL = [
    ("whurs19_clip_rn50", {}, (1005, 1024), 19),
    ("ucf101_openai_vitb32_dev", {}, (1898, 512), 101),
    ("ucf101_openai_vitb32_dev", {"video_key": "train16_f"}, (1616, 512), 101),
    ("imagenet500a_openai_vitb32", {}, (2000, 512), 500),
    ("ucf101_14_effnetlite0_conse_dev", {}, (1272, 4, 384), 14),
    ("ucf101_14_effnetlite0_conse_dev", {"text_key": "text101"}, (1272, 4, 384), 101),
    ("dtd_openai_vitb32_val", {}, (1128, 512), None),
]


@pytest.mark.parametrize(("name", "keys", "shape", "num_classes"), REAL)
def test_real_files_are_guessed(data_dir, name, keys, shape, num_classes):
    read = read_embeddings(data_dir / "features" / f"{name}.npz", **keys)
    assert read.video_embeds.shape == shape
    assert (read.text_embeds is None) if num_classes is None else (len(read.text_embeds) == num_classes)
    assert len(read.class_names) == (num_classes or 47)
