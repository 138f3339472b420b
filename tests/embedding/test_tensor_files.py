import multiprocessing
import os
import resource

import pytest
import torch
from safetensors.torch import load_file

from modeling_dkd.embedding.tensor_files import write_tensors


def test_what_is_written_is_read_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "new" / "a.safetensors"
    tensors = {"x": torch.arange(6.0).reshape(2, 3).T, "y": torch.zeros(0, 2)}
    write_tensors(path, tensors, {"b": "2", "a": "1"})
    assert all(load_file(path)[name].equal(tensor) for name, tensor in tensors.items())
    assert path.read_bytes().index(b'"a"') < path.read_bytes().index(b'"b"')
    assert list(path.parent.iterdir()) == [path]


def write_within(size, path, pipe):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        write_tensors(path, {"x": torch.ones(10_000)})
    except OSError as error:
        pipe.send(str(error))


@pytest.mark.slow
def test_a_disk_that_is_full_is_told_of_with_the_file_and_the_old_one_stays(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"x": torch.zeros(3)})
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=write_within, args=(4096, path, theirs))
    process.start()
    process.join(120)
    assert ours.poll(1)
    said = ours.recv()
    assert "a.safetensors" in said
    assert "File too large" in said
    assert list(tmp_path.iterdir()) == [path]
    assert load_file(path)["x"].equal(torch.zeros(3))


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_file_can_be_read_by_whom_the_umask_lets(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_tensors(tmp_path / "cache.safetensors", {"a": torch.ones(2)})
    finally:
        os.umask(before)
    assert (tmp_path / "cache.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask
    assert len(list(tmp_path.iterdir())) == 1
