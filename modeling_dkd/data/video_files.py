"""Video files: what is known of one, which lie below a folder, that none leads out of it, which are one file twice."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..file_suffixes import VIDEO_SUFFIXES


class VideoRecord(NamedTuple):
    """One clip: file, name within the data set, class index (-1 unknown), group ("" unknown), split ("" none).

    A clip may be a part of its file: the seconds from `start` to `end` of a long video (`end` 0: all of it), or the
    `size` bytes from `offset` of an archive that is not compressed (`size` 0: all of them).
    """

    path: str
    name: str
    label: int = -1
    group: str = ""
    split: str = ""
    start: float = 0.0
    end: float = 0.0
    offset: int = 0
    size: int = 0


def is_video(file: Path) -> bool:
    """Whether a file's name ends as those of videos do."""
    return file.suffix.lower() in VIDEO_SUFFIXES


def as_meant(written: str, folder: str | Path) -> str:
    """A path in a list: as written if there is a file, else without quotes, a label behind it, and backslashes.

    Lists come from other systems and programs; where nothing is there, the path is given as written but for blanks.
    """
    bare = written.strip().strip("\"'")
    shorter = (bare.rsplit(maxsplit=1) or [""])[0].strip("\"'")  # official lists put a label behind the path
    spellings = [written, bare, shorter, bare.replace("\\", "/"), shorter.replace("\\", "/")]
    there = (path for path in spellings if os.path.isfile(os.path.join(folder, path)))
    return next(there, written.strip())


def visible(folder: Path, folders: bool) -> list[Path]:
    """Sub-folders, or else files, of a folder that are not hidden, sorted by name."""
    return _visible(folder)[folders]


def files_below(folder: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """All visible files below a folder, those of each folder sorted and before those of its sub-folders.

    Raises:
        ValueError: A link leads back to a folder that it lies in.
    """
    here = os.path.realpath(folder)
    if here in above:
        raise ValueError(f"{folder} is a link to a folder that it lies in; remove it")
    files, folders = _visible(folder)
    yield from files
    for sub_folder in folders:
        yield from files_below(sub_folder, (*above, here))


def _visible(folder: Path) -> tuple[list[Path], list[Path]]:
    """Files and sub-folders of a folder that are not hidden, each sorted by name."""
    names: tuple[list[str], list[str]] = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                names[entry.is_dir()].append(entry.name)
    files, folders = ([folder / name for name in sorted(found)] for found in names)
    return files, folders


def endings(files: Iterable[Path]) -> str:
    """The endings of files with how many have each, the most frequent first: ".jpg (120), .txt (3)"."""
    counts = Counter(file.suffix.lower() or "none" for file in files).most_common()
    return ", ".join(f"{ending} ({count})" for ending, count in counts[:5]) + (" ..." if len(counts) > 5 else "")


def same_files(paths: Callable[[], Iterable[str]]) -> list[tuple[int, int]]:
    """Positions (first, again) of paths that lead to one file, by another spelling or by a link.

    Args:
        paths: Gives them, the same each time; a million are not held, but for a number of 8 bytes each.
    """
    import numpy as np  # every --help would wait for it

    hashes = np.fromiter((hash(target) for _, target in _resolved(paths())), np.int64)
    values, counts = np.unique(hashes, return_counts=True)
    twice = values[counts > 1]
    if not len(twice):
        return []
    first: dict[str, int] = {}
    candidates = np.isin(hashes, twice)
    targets = ((position, target) for position, (_, target) in enumerate(_resolved(paths())) if candidates[position])
    pairs = ((first.setdefault(target, position), position) for position, target in targets)
    return [(one, again) for one, again in pairs if one != again]


def require_inside(roots: Sequence[str | Path], paths: Iterable[str], place: str) -> None:
    """Refuse files that a list, or a link in the folder, has somewhere else: neither is looked through for surprises.

    A snapshot in the Hub's cache is a folder of links to the blobs of its repository, which are part of it.

    Raises:
        ValueError: A path, with its links followed, lies outside of all `roots` (the message names both and `place`).
    """
    allowed = [os.path.realpath(root) for root in roots]
    for folder in map(Path, tuple(allowed)):
        blobs = (p.parent.parent / "blobs" for p in (folder, *folder.parents) if p.parent.name == "snapshots")
        allowed += map(str, blobs)
    for path, target in _resolved(paths, place):
        if not any(target == part or target.startswith(part.rstrip(os.sep) + os.sep) for part in allowed):
            raise ValueError(
                f"{place}: {path[:200]} leads to {target[:200]}, out of the folder {roots[0]}; keep the clips in it"
            )


def _resolved(paths: Iterable[str], place: str = "") -> Iterator[tuple[str, str]]:
    """Paths and where they lead to, as `os.path.realpath` says; each folder is looked up once."""
    folders: dict[str, str] = {}
    for path in paths:
        if "\0" in path:
            raise ValueError(f"{place}: {path[:200]!r} is no path (embedded null byte)")
        folder, name = os.path.split(path)
        if name in ("", ".", "..") or os.path.islink(path):
            yield path, os.path.realpath(path)
            continue
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        yield path, os.path.join(folders[folder], name)
