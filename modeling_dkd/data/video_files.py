"""Video files: which names they have, where they lie, and what is known of one."""

import os
from pathlib import Path
from typing import NamedTuple


VIDEO_EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("3gp", "asf", "avi", "flv", "gif", "m2ts", "m4v", "mkv", "mov", "mp4"),
        *("mpeg", "mpg", "mts", "ogv", "ts", "vob", "webm", "wmv"),
    )
)


class VideoRecord(NamedTuple):
    """One clip: file, name within the data set, class index (-1 unknown), group ("" unknown), split ("" none)."""

    path: str
    name: str
    label: int = -1
    group: str = ""
    split: str = ""


def visible(folder: Path, folders: bool) -> list[Path]:
    """Sub-folders, or else files, of a folder that are not hidden, sorted by name."""
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if not e.name.startswith(".") and e.is_dir() == folders]
    return [folder / name for name in sorted(names)]


def files_below(folder: Path, above: tuple[str, ...] = ()) -> list[Path]:
    """All visible files below a folder, sorted.

    Raises:
        ValueError: A link leads back to a folder that it lies in.
    """
    here = os.path.realpath(folder)
    if here in above:
        raise ValueError(f"{folder} is a link to a folder that it lies in; remove it")
    files = visible(folder, folders=False)
    for sub_folder in visible(folder, folders=True):
        files += files_below(sub_folder, (*above, here))
    return files
