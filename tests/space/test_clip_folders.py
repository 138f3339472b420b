import os
import time
from pathlib import Path

import pytest

from modeling_dkd.space.clip_folders import CLIPS, ClipFolders


@pytest.fixture
def folders(tmp_path) -> ClipFolders:
    return ClipFolders(tmp_path / "kept", keep_seconds=60, max_clips=3, max_bytes=1000)


def files(folder: Path, sizes: dict[str, int]) -> list[Path]:
    paths = []
    for number, (name, size) in enumerate(sizes.items()):
        path = folder / str(number) / Path(name).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
        paths.append(path)
    return paths


def test_clips_are_moved_and_names_that_stand_twice_numbered(folders, tmp_path):
    given = files(tmp_path, {"x/a.mp4": 10, "y/A.mp4": 20, "b.avi": 30})
    folder, left_out = folders.put(given)
    assert folders.clips(folder) == ["A-2.mp4", "a.mp4", "b.avi"]
    assert (folder / CLIPS / "A-2.mp4").stat().st_size == 20
    assert left_out == []
    assert not any(path.exists() for path in given)
    folders.forget(folder)
    assert folders.clips(folder) == []
    assert not list(folders.root.iterdir())


def test_what_is_beyond_the_limits_is_left_out_told_and_deleted(folders, tmp_path):
    given = files(tmp_path, {"list.txt": 5, "big.mp4": 1001, "a.mp4": 1, "b.mp4": 1, "c.mp4": 1, "d.mp4": 1})
    folder, left_out = folders.put(given)
    assert folders.clips(folder) == ["a.mp4", "b.mp4", "c.mp4"]
    assert [reason.split(",")[0] for reason in left_out] == ["'list.txt' is no video", "'big.mp4'", "'d.mp4'"]
    assert not any(path.exists() for path in given)


def test_nothing_to_keep_keeps_no_folder(folders, tmp_path):
    assert folders.put(files(tmp_path, {"table.csv": 5})) == (None, ["'table.csv' is no video"])
    assert folders.clips(None) == []
    assert not list(folders.root.iterdir())


def test_copies_leave_what_was_given(folders, tmp_path):
    given = files(tmp_path, {"a.mp4": 10})
    folder, _ = folders.put(given, copies=True)
    assert folders.clips(folder) == ["a.mp4"]
    assert given[0].exists()


def test_what_is_not_used_for_a_while_is_deleted(folders, tmp_path):
    old, _ = folders.put(files(tmp_path / "1", {"a.mp4": 1}))
    used, _ = folders.put(files(tmp_path / "2", {"b.mp4": 1}))
    for folder in (old, used):
        os.utime(folder, (time.time() - 100,) * 2)
    folders.clips(used)
    folders.forget_old()
    assert folders.clips(old) == []
    assert folders.clips(used) == ["b.mp4"]


def test_the_folder_that_was_used_longest_ago_makes_room(folders, tmp_path):
    folders.max_folders = 2
    kept = []
    for number in range(3):
        folder, _ = folders.put(files(tmp_path / str(number), {"a.mp4": 1}))
        os.utime(folder, (time.time() - 30 + number,) * 2)
        kept.append(folder)
    assert [len(folders.clips(folder)) for folder in kept] == [0, 1, 1]
