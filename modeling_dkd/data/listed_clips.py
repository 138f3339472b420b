"""Clips that a list names, paired with what lies under a folder: files, and members of tar archives in it.

    index = listed_index("kinetics400", Path("k400"), class_names, clips)

A clip is found by the name of its file without the ending, wherever below the folder it lies: in class folders in any
spelling, divided into train/ and val/, encoded again with another ending, or inside a .tar as it was downloaded. Names
are compared without case.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..file_suffixes import VIDEO_SUFFIXES
from .class_names import name_key
from .clip_table import ClipRows
from .tar_members import tar_members
from .video_files import VideoRecord, endings, files_below, require_inside
from .video_index import PARTS, VideoIndex


COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


class ListedClip(NamedTuple):
    """One line of a list.

    Attributes:
        name: Within the data set, "<class>/<file>".
        class_name: Its class; "" unknown.
        split: "train", "test" or "unused".
        stems: What its file may be called without the ending, the likeliest first.
        group: What clips of one source share; "" unknown.
        start: Second of the file at which the clip begins.
        end: At which it ends; 0 where the file holds the clip alone.
    """

    name: str
    class_name: str
    split: str
    stems: tuple[str, ...]
    group: str = ""
    start: float = 0.0
    end: float = 0.0


class _Found(NamedTuple):
    """A file, or the bytes of a member of an archive; texts, for there may be a million and a Path takes much more."""

    path: str
    member: str = ""
    offset: int = 0
    size: int = 0

    @property
    def place(self) -> Path:
        """The path to show, a member's behind its archive's."""
        return Path(self.path, self.member)

    @property
    def stem_and_ending(self) -> tuple[str, str]:
        """The file's name in small letters, divided before its ending."""
        return os.path.splitext(os.path.basename(self.member or self.path).lower())


def listed_index(
    dataset: str,
    root: Path,
    class_names: Sequence[str],
    clips: Iterable[ListedClip],
    split: str | None = None,
    notes: Sequence[str] = (),
) -> VideoIndex:
    """Index of the listed clips; those that are not there are in its `missing`.

    Args:
        dataset: Name for results.
        root: Folder to look under.
        class_names: In label order.
        clips: What the lists name.
        split: Name of the official split; None: "1" for lists of training and test clips, "all" for others.
        notes: What the user should know of the lists.

    Raises:
        ValueError: No such folder, none of the clips in it, one of them in two places, a link that leads out of it, or
            an archive that cannot be read.
    """
    if not root.is_dir():
        raise ValueError(f"no such folder: {root}")
    named: dict[str, tuple[_Found, ...]] = {}
    for found in _files_and_members(root):
        stem = found.stem_and_ending[0]
        named[stem] = (*named.get(stem, ()), found)
    label = {name: i for i, name in enumerate(class_names)}
    there, absent = ClipRows(), ClipRows()
    no_videos: list[Path] = []
    example = ""
    for clip in clips:
        files = next((named[stem.lower()] for stem in clip.stems if stem.lower() in named), ())
        chosen = _nearest(clip.name, [file for file in files if file.stem_and_ending[1] in VIDEO_SUFFIXES])
        record = VideoRecord(
            os.path.abspath(chosen.path if chosen else root / clip.name),
            clip.name,
            label.get(clip.class_name, -1),
            clip.group,
            clip.split,
            clip.start,
            clip.end,
            *(chosen[2:] if chosen else ()),
        )
        (there if chosen else absent).append(record)
        no_videos += [] if chosen else [file.place for file in files]
        example = example or f", such as {clip.name}"
    records, missing = there.table(), absent.table()
    hint = f"; of their names, {len(no_videos)} files are there that are no videos: {endings(no_videos)}"
    hint = (hint if no_videos else "") + (_compressed(named) if missing else "")
    if not records:
        held = hint or (
            f"; it holds files with the endings {endings(_places(named))}" if named else "; it holds no file"
        )
        raise ValueError(f"{root} holds none of the {len(missing)} {dataset} clips{example}{held}")
    require_inside([root], records.distinct_paths, str(root))
    divided = records.splits | missing.splits >= set(PARTS)
    return VideoIndex(
        dataset,
        split or ("1" if divided else "all"),
        tuple(class_names),
        records.sorted_by_name(),
        missing,
        root=str(root),
        notes=tuple(notes),
        hint=hint,
    )


def _files_and_members(root: Path) -> Iterator[_Found]:
    """Files below a folder, and the files in archives among them."""
    for path in files_below(root):
        if path.suffix.lower() == ".tar":
            archive = str(path)
            require_inside([root], [archive], str(root))
            for member in tar_members(path):
                yield _Found(archive, *member)
        else:
            yield _Found(str(path))


def _places(named: dict[str, tuple[_Found, ...]]) -> Iterator[Path]:
    """Where everything was found."""
    return (file.place for files in named.values() for file in files)


def _compressed(named: dict[str, tuple[_Found, ...]]) -> str:
    """What to say of archives in which missing clips may lie, but in whose middle nothing can be read."""
    packed = [place.name for place in _places(named) if place.name.lower().endswith(COMPRESSED)]
    if not packed:
        return ""
    return (
        f"; {len(packed)} archives such as {packed[0]} are compressed, and clips are read out of plain .tar files: "
        "decompress them (gunzip), they need not be unpacked"
    )


def _nearest(name: str, files: Sequence[_Found]) -> _Found | None:
    """Of the files of a clip the one in a folder of replacements, with the official ending and class, the highest."""
    if len(files) < 2:
        return files[0] if files else None

    def distance(file: _Found) -> tuple[bool, bool, bool, bool, int]:
        official, folders = Path(name), file.place.parts[:-1]
        return (
            not any(folder.lower().startswith("replacement") for folder in folders),  # of clips found to be damaged
            file.place.suffix.lower() != official.suffix.lower(),
            name_key(file.place.parent.name) != name_key(official.parent.name),
            bool(file.size),
            len(file.place.parts),
        )

    ordered = sorted(files, key=distance)
    if distance(ordered[0]) == distance(ordered[1]):
        first, second = ordered[0].place, ordered[1].place
        raise ValueError(f"{name} is there twice, as {first} and as {second}; give the folder of one of them")
    return ordered[0]
