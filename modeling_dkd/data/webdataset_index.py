"""Clips in tar archives in the form of WebDataset, read where they lie or as they stream by: nothing is unpacked.

    index = webdataset_index("shards")          # shards/train-0000.tar ... shards/test-0000.tar, or train/0000.tar ...
    for clip in passing_clips(open("shards/train-0000.tar", "rb"), "shards/train-0000.tar"): ...

A sample is the files of one name up to its first dot: the clip, and a .json with a "label" or a .cls that is one.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from .clip_table import ClassedRows
from .counting import counted
from .tar_members import COMPRESSED, TarMember, passing_members, tar_members
from .video_files import VideoRecord, files_below, is_video, require_inside
from .video_index import PART_FOLDERS, PARTS, VideoIndex, require_distinct


MOST_BYTES_OF_A_LABEL = 2**20


class ArchivedClip(NamedTuple):
    """A clip, its bytes where they were read with it, and the name of its class; None where the archive says none."""

    member: TarMember
    content: bytes
    class_name: str | None


def archives_below(root: Path) -> list[Path]:
    """The uncompressed tar archives below a folder, sorted."""
    return [file for file in files_below(root) if file.suffix.lower() == ".tar"]


def webdataset_index(root: str | Path, dataset: str = "") -> VideoIndex:
    """Index of the clips in all archives below a folder; the part is a word in an archive's name or its folder's.

    Without archives for "test", those for "val" are the test; beside them they are left out ("unused"). Compressed
    archives are left out with a note.

    Args:
        root: Folder of the archives.
        dataset: Name for results; "" takes that of the folder.

    Raises:
        ValueError: There is no clip in the archives, a clip of the training or test part has no label, two classes
            differ in spelling alone, or an archive cannot be read or lies elsewhere.
    """
    root = Path(root)
    archives = archives_below(root)
    require_inside([root], map(str, archives), str(root))
    part_of = {archive: part_of_archive(archive.relative_to(root).as_posix()) for archive in archives}
    val = "unused" if "test" in part_of.values() else "test"
    rows = ClassedRows()
    for archive, part in part_of.items():
        prefix = archive.relative_to(root).with_suffix("").as_posix()
        for member, _, class_name in _clips_in_place(archive):
            name = f"{prefix}/{member.name}"
            place = str(archive.absolute()), name, -1, "", val if part == "val" else part, 0.0, 0.0
            rows.append(VideoRecord(*place, member.offset, member.size), class_name)
    class_names = rows.class_names
    records = rows.numbered(class_names)
    records = records.sorted_by_name()
    if not records:
        raise ValueError(f"no clips in {counted(len(archives), 'archive')} below {root}")
    if not class_names:
        raise ValueError(
            f"the archives below {root} say no class of {records[0].name} or any other clip: put a .json with a "
            '"label" beside each, or a .cls'
        )
    require_distinct(class_names, str(root))
    unnamed = (record.name for record in records[np.flatnonzero(records.labels < 0)] if record.split != "unused")
    unlabelled = list(unnamed)
    if unlabelled:
        raise ValueError(
            f"{root}: {len(unlabelled)} of {len(records)} clips have no label, the first is {unlabelled[0]}"
        )
    split = "1" if records.splits >= set(PARTS) else "all"
    packed = [file for file in files_below(root) if file.name.lower().endswith(COMPRESSED)]
    notes = [
        f"{counted(len(packed), 'compressed archive')} left out, the first is {first.name}: decompress (gunzip), and "
        "clips are read in place"
        for first in packed[:1]
    ]
    return VideoIndex(dataset or root.resolve().name, split, class_names, records, root=str(root), notes=tuple(notes))


def passing_clips(archive: IO[bytes], place: str) -> Iterator[ArchivedClip]:
    """The clips of an archive, compressed or not, with their bytes, read from its begin to its end.

    Args:
        archive: At its begin; it need not be able to go back.
        place: What messages call it.

    Raises:
        ValueError: It is torn, or what says a label cannot be read.
    """
    return _clips(place, ((member, read, read) for member, read in passing_members(archive, place)))


def _clips_in_place(archive: Path) -> Iterator[ArchivedClip]:
    """The clips of an archive here, whose bytes stay in it."""
    members = tar_members(archive)
    return _clips(str(archive), ((member, partial(member.read, archive), bytes) for member in members))


def _clips(
    place: str, members: Iterable[tuple[TarMember, Callable[[], bytes], Callable[[], bytes]]]
) -> Iterator[ArchivedClip]:
    """The clips of an archive in its order; the files of a sample stand beside each other.

    Members come with what reads them, once as a label and once as a clip.
    """
    key = ""
    videos: list[tuple[TarMember, bytes]] = []
    label: str | None = None
    for member, read_label, read_clip in members:
        folder, _, file = member.name.rpartition("/")
        if file.startswith("."):
            continue
        stem, _, ending = file.partition(".")
        if f"{folder}/{stem}" != key:
            yield from (ArchivedClip(*video, label) for video in videos)
            key, videos, label = f"{folder}/{stem}", [], None
        if is_video(Path(member.name)):
            videos.append((member, read_clip()))
        elif ending.lower() in ("json", "cls"):
            label = _label(place, member, read_label)
    yield from (ArchivedClip(*video, label) for video in videos)


def _label(place: str, member: TarMember, read: Callable[[], bytes]) -> str | None:
    """The class that a .json or .cls says."""
    if member.size > MOST_BYTES_OF_A_LABEL:
        raise ValueError(f"{place}: {member.name} has {member.size} bytes, too many for what says a label")
    try:
        text = read().decode("utf-8-sig")
        value = json.loads(text).get("label") if member.name.lower().endswith("json") else text.strip()
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{place}: {member.name} cannot be read: {error}") from error
    if value is not None and not isinstance(value, str | int):
        raise ValueError(f"{place}: the label in {member.name} is neither a text nor a whole number")
    return None if value in (None, "") else str(value)


def stem_of_archive(file: str) -> str:
    """The path of an archive without its ending."""
    return re.sub(r"\.(tar|tar\.gz|tgz)$", "", file, flags=re.IGNORECASE)


def part_of_archive(file: str) -> str:
    """The part that a word in the names of an archive, below the set's folder, and its folders says; "" none."""
    words = re.split(r"[-_/]", stem_of_archive(file).lower())
    return next((PART_FOLDERS[word] for word in words if word in PART_FOLDERS), "")
