import re

import pytest
import torch
from safetensors.torch import save_file

from modeling_dkd.embedding.embedding_cache import EmbeddingSet, write_embeddings
from modeling_dkd.embedding.embedding_shards import EmbeddingShards


def write(path, num_videos, shape=(3,), dtype=torch.float32, **more):
    embeds = torch.randn(num_videos, *shape, generator=torch.Generator().manual_seed(num_videos)).to(dtype)
    save_file({"video_embeds": embeds, **more}, path)
    return embeds


@pytest.mark.parametrize("shape", [(3,), (2, 3)])
@pytest.mark.parametrize("chunk_size", [1, 4, 100])
def test_files_one_after_the_other_as_often_as_wanted(tmp_path, shape, chunk_size):
    expected = torch.cat([write(tmp_path / name, n, shape) for name, n in (("b", 9), ("a", 4))])
    shards = EmbeddingShards([tmp_path / "b", tmp_path / "a"], chunk_size)
    assert len(shards) == 13
    for _ in range(2):
        chunks = list(shards)
        assert max(map(len, chunks)) <= chunk_size
        assert torch.equal(torch.cat(chunks), expected)


def test_what_is_read_stays_when_the_file_goes(tmp_path):
    expected = write(tmp_path / "a", 4)
    (chunk,) = EmbeddingShards([tmp_path / "a"])
    save_file({"video_embeds": torch.zeros(4, 3)}, tmp_path / "a")
    assert torch.equal(chunk, expected)


def test_the_dtype_of_the_file_stays(tmp_path):
    write(tmp_path / "a", 4, dtype=torch.float16)
    assert next(iter(EmbeddingShards([tmp_path / "a"]))).dtype == torch.float16


def test_labels_of_all_files(tmp_path):
    write(tmp_path / "a", 3, labels=torch.tensor([2, -1, 0]))
    write(tmp_path / "b", 2)
    write_embeddings(tmp_path / "c", EmbeddingSet(torch.ones(1, 3), torch.tensor([5])))
    shards = EmbeddingShards([tmp_path / name for name in "abc"])
    assert shards.labels().tolist() == [2, -1, 0, -1, -1, 5]
    assert shards.labels().dtype == torch.int64


def test_no_file_is_the_part_of_a_process_that_has_none():
    shards = EmbeddingShards([])
    assert (len(shards), list(shards), shards.labels().tolist()) == (0, [], [])


def test_labels_that_are_not_as_many_as_the_videos(tmp_path):
    write(tmp_path / "a", 3, labels=torch.tensor([1, 2]))
    with pytest.raises(ValueError, match=re.escape("a: labels are (2,), but there are 3 video embeddings.")):
        EmbeddingShards([tmp_path / "a"]).labels()


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"other": torch.ones(2, 3)}, "b: no array 'video_embeds'; it holds other."),
        ({"video_embeds": torch.ones(2)}, "b: video_embeds must be (N, D) or (N, T, D), none empty, not (2,)."),
        ({"video_embeds": torch.ones(0, 3)}, "b: video_embeds must be (N, D) or (N, T, D), none empty, not (0, 3)."),
        (
            {"video_embeds": torch.ones(2, 4)},
            "b: embeddings are (N, 4), but those of a are (N, 3); shards of one domain come from one encoder and "
            "number of frames.",
        ),
    ],
)
def test_files_that_hold_something_else(tmp_path, tensors, message):
    write(tmp_path / "a", 2)
    save_file(tensors, tmp_path / "b")
    with pytest.raises(ValueError, match=f"{re.escape(message)}$"):
        EmbeddingShards([tmp_path / "a", tmp_path / "b"])


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match=r"gone: no such file\.$"):
        EmbeddingShards([tmp_path / "gone"])
    (tmp_path / "text").write_text("hello, this is text")
    with pytest.raises(ValueError, match=r"text: not a readable safetensors file \(.*\); copy it again\.$"):
        EmbeddingShards([tmp_path / "text"])
    with pytest.raises(ValueError, match=r"^paths must be a list of files, not one path; write \['one'\]\.$"):
        EmbeddingShards("one")
    with pytest.raises(ValueError, match=r"^chunk_size must be at least 1, got 0\.$"):
        EmbeddingShards([], 0)
