"""Which clips there are: files, folders of any depth, lists and tables.

list_clips(["camera", "more/one.mp4", "list.txt", "table.csv"]).clips        # [Clip(name, path), ...]
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..data.counting import counted
from ..data.plain_files import read_table, read_text
from ..data.video_files import as_meant, endings, files_below, is_video


LIST_EXTENSIONS = (".txt", ".csv")
PATH_COLUMNS = ("path", "clip", "video", "file")


class Clip(NamedTuple):
    """A video file: the name that tables give it, and where it is, as an absolute path."""

    name: str
    path: str


class Listing(NamedTuple):
    """What paths stand for.

    Attributes:
        clips: Each once.
        passed_over: Files of the folders whose ending is none of a video's.
    """

    clips: list[Clip]
    passed_over: list[Path]

    @property
    def notes(self) -> list[str]:
        """A word on the files that are passed over."""
        if not self.passed_over:
            return []
        files = counted(len(self.passed_over), "file")
        return [f"{files} passed over, whose ending is none of a video's: {endings(self.passed_over)}"]


def list_clips(paths: Sequence[str | os.PathLike[str]]) -> Listing:
    """The clips that paths stand for, each once, in the order of the paths; those of a folder by name.

    Args:
        paths: Videos; folders, whose files with a video's extension are taken, whatever their depth, without hidden
            ones; lists (.txt) with one path a line; tables (.csv) with a column path, clip, video or file. Paths in
            lists and tables are relative to the folder these lie in.

    Returns:
        The clips, under the names that the paths give them: `folder/file` for a folder, as written for a list. A file
        that a list names need not be there; reading it will say so.

    Raises:
        ValueError: A path does not exist, a list cannot be read, or there is no video at all.
    """
    found: dict[str, Clip] = {}
    passed_over: list[Path] = []
    for given in paths:
        for clip in _clips_of(os.fspath(given), passed_over):
            found.setdefault(clip.path, clip)
    listing = Listing(list(found.values()), passed_over)
    if not found:
        named = ", ".join(shown(os.fspath(path)) for path in list(paths)[:3])
        rest = "".join(f" ({note})" for note in listing.notes)
        raise ValueError(f"no video in {named or 'no path at all'}{rest}; name files or a folder that holds some")
    return listing


def shown(path: str) -> str:
    """A path as a table can hold it: bytes that are no UTF-8 are written as escapes."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def printable(text: str) -> str:
    """A text in one line of a terminal, whatever a file name holds."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def _clips_of(given: str, passed_over: list[Path]) -> Iterator[Clip]:
    """Clips of one path; files of a folder that are no videos go to `passed_over`."""
    if "\0" in given:
        raise ValueError(f"{given!r} is no path: it holds a null byte")
    if os.path.isdir(given):
        for file in files_below(Path(given)):
            if is_video(file):
                yield _clip(os.path.join(given, file.relative_to(given)))
            else:
                passed_over.append(file)
        return
    try:
        os.lstat(given)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(f"there is no file or folder {shown(given)}") from error
    except OSError as error:  # such as a folder on the way that one may not enter
        raise ValueError(f"{shown(given)} cannot be looked at: {error.strerror}") from error
    if given.lower().endswith(LIST_EXTENSIONS):
        yield from _listed(given)
    else:
        yield _clip(given)


def _clip(name: str, folder: str = "") -> Clip:
    return Clip(shown(name), os.path.abspath(os.path.join(folder, name)))


def _listed(file: str) -> Iterator[Clip]:
    """Clips of a list or a table."""
    names = _column(file) if file.lower().endswith(".csv") else read_text(file).splitlines()
    names = [name for name in names if name.strip()]
    if not names:
        raise ValueError(f"{shown(file)} lists no clips")
    for name in names:
        if "\0" in name:
            raise ValueError(f"{shown(file)} lists {name[:200]!r}, which is no path: it holds a null byte")
        yield _clip(as_meant(name, os.path.dirname(file)), os.path.dirname(file))


def _column(file: str) -> list[str]:
    """The paths in a CSV."""
    columns, rows = read_table(file)
    column = next((name for name in PATH_COLUMNS if name in columns), None)
    if column is None:
        there = ", ".join(columns) or "none"
        raise ValueError(f"{shown(file)}: no column {' or '.join(PATH_COLUMNS)}; its columns are {there}")
    return [row[column] for _, row in rows]
