"""Clips that a list names, paired with what lies under a folder: files, and members of tar archives in it.

    index = listed_index("kinetics400", Path("k400"), class_names, clips)

A clip is found by the name of its file without the ending, wherever below the folder it lies: in class folders in any
spelling, divided into train/ and val/, encoded again with another ending, or inside a .tar as it was downloaded. Names
are compared without case.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from .class_names import name_key
from .tar_members import tar_members
from .video_files import VideoRecord, endings, files_below, is_video, require_inside
from .video_index import PARTS, VideoIndex, sorted_by_name


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
    """A file, or the bytes of a member of an archive; `place` is the path to show, a member's behind its archive's."""

    place: Path
    path: Path
    offset: int = 0
    size: int = 0


def listed_index(
    dataset: str,
    root: Path,
    class_names: Sequence[str],
    clips: Sequence[ListedClip],
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
    named: dict[str, list[_Found]] = {}
    for found in _files_and_members(root):
        named.setdefault(found.place.stem.lower(), []).append(found)
    label = {name: i for i, name in enumerate(class_names)}
    records: list[VideoRecord] = []
    missing: list[VideoRecord] = []
    no_videos: list[Path] = []
    for clip in clips:
        files = next((named[stem.lower()] for stem in clip.stems if stem.lower() in named), [])
        chosen = _nearest(clip.name, [file for file in files if is_video(file.place)])
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
        (records if chosen else missing).append(record)
        no_videos += [] if chosen else [file.place for file in files]
    hint = f"; of their names, {len(no_videos)} files are there that are no videos: {endings(no_videos)}"
    hint = (hint if no_videos else "") + (_compressed(named) if missing else "")
    if not records:
        there = [file.place for files in named.values() for file in files]
        held = hint or (f"; it holds files with the endings {endings(there)}" if there else "; it holds no file")
        example = f", such as {clips[0].name}" if clips else ""
        raise ValueError(f"{root} holds none of the {len(clips)} {dataset} clips{example}{held}")
    require_inside([root], dict.fromkeys(record.path for record in records), str(root))
    divided = {clip.split for clip in clips} >= set(PARTS)
    return VideoIndex(
        dataset,
        split or ("1" if divided else "all"),
        tuple(class_names),
        sorted_by_name(records),
        tuple(missing),
        root=str(root),
        notes=tuple(notes),
        hint=hint,
    )


def _files_and_members(root: Path) -> Iterator[_Found]:
    """Files below a folder, and the files in archives among them."""
    for path in files_below(root):
        if path.suffix.lower() == ".tar":
            require_inside([root], [str(path)], str(root))
            for member in tar_members(path):
                yield _Found(path / member.name, path, member.offset, member.size)
        else:
            yield _Found(path, path)


def _compressed(named: dict[str, list[_Found]]) -> str:
    """What to say of archives in which missing clips may lie, but in whose middle nothing can be read."""
    places = (file.place.name for files in named.values() for file in files)
    packed = [name for name in places if name.lower().endswith(COMPRESSED)]
    if not packed:
        return ""
    return (
        f"; {len(packed)} archives such as {packed[0]} are compressed, and clips are read out of plain .tar files: "
        "decompress them (gunzip), they need not be unpacked"
    )


def _nearest(name: str, files: Sequence[_Found]) -> _Found | None:
    """Of the files of a clip the one in a folder of replacements, with the official ending and class, the highest."""

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
    if len(ordered) > 1 and distance(ordered[0]) == distance(ordered[1]):
        first, second = ordered[0].place, ordered[1].place
        raise ValueError(f"{name} is there twice, as {first} and as {second}; give the folder of one of them")
    return ordered[0] if ordered else None
