import os

import pytest

from modeling_dkd.data.whole_files import whole_file


def test_a_file_appears_whole_in_the_place_of_the_old_one(tmp_path):
    path = tmp_path / f"{'n' * 251}.csv"
    path.write_text("old")
    with whole_file(path) as unfinished:
        unfinished.write_text("new")
        assert unfinished.suffix == ".csv"
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def write(path, text, error=None):
    with whole_file(path) as unfinished:
        unfinished.write_text(text)
        if error is not None:
            raise error


def test_what_the_disk_refuses_names_the_file_and_leaves_the_old_one(tmp_path):
    path = tmp_path / "table.csv"
    write(path, "old")
    refusal = OSError(28, "No space left on device")
    with pytest.raises(OSError, match=r"table\.csv cannot be written: No space left on device; make room or name"):
        write(path, "half", refusal)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_that_is_interrupted_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "table.csv", "half", KeyboardInterrupt())
    assert not list(tmp_path.iterdir())


def test_a_link_stays_one(tmp_path):
    target, link = tmp_path / "target.csv", tmp_path / "link.csv"
    link.symlink_to(target.name)
    for text in ("new", "newer"):
        write(link, text)
        assert link.is_symlink()
        assert target.read_text() == text
    assert sorted(tmp_path.iterdir()) == [link, target]


def test_a_pipe_is_written_to_and_stays_one(tmp_path):
    path = tmp_path / "pipe.csv"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    write(path, "text")
    assert os.read(reader, 10) == b"text"
    os.close(reader)
    assert path.is_fifo()
