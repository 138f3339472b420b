"""Clips in tar archives in the form of WebDataset, read where they lie: nothing is unpacked, copied or converted.

    index = webdataset_index("shards")          # shards/train-0000.tar ... shards/test-0000.tar, or train/0000.tar ...

A sample is the files of one name up to its first dot: the clip, and a .json with a "label" or a .cls that is one.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .clip_table import ClipRows
from .tar_members import TarMember, tar_members
from .video_files import VideoRecord, files_below, is_video, require_inside
from .video_index import PART_FOLDERS, PARTS, VideoIndex, require_distinct


MOST_BYTES_OF_A_LABEL = 2**20


class _Clip(NamedTuple):
    """A clip with the name of its class; None where the archive says none."""

    archive: Path
    member: TarMember
    class_name: str | None


def archives_below(root: Path) -> list[Path]:
    """The uncompressed tar archives below a folder, sorted."""
    return [file for file in files_below(root) if file.suffix.lower() == ".tar"]


def webdataset_index(root: str | Path, dataset: str = "") -> VideoIndex:
    """Index of the clips in all archives below a folder; the part is a word in an archive's name or its folder's.

    Without archives for "test", those for "val" are the test; beside them they are left out ("unused").

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
    clips = [clip for archive in archives for clip in _clips(archive)]
    if not clips:
        raise ValueError(f"no clips in the {len(archives)} archives below {root}")
    class_names = sorted({clip.class_name for clip in clips if clip.class_name is not None})
    if not class_names:
        raise ValueError(
            f"the archives below {root} say no class of {clips[0].member.name} or any other clip: put a .json with a "
            '"label" beside each, or a .cls'
        )
    require_distinct(class_names, str(root))
    label = {name: i for i, name in enumerate(class_names)}
    part_of = {archive: _part(archive, root) for archive in archives}
    val = "unused" if "test" in part_of.values() else "test"
    rows = ClipRows()
    for archive, member, class_name in clips:
        part = val if part_of[archive] == "val" else part_of[archive]
        name = f"{archive.relative_to(root).with_suffix('').as_posix()}/{member.name}"
        number = -1 if class_name is None else label[class_name]
        rows.append(VideoRecord(str(archive.absolute()), name, number, "", part, 0.0, 0.0, *member[1:]))
    records = rows.table().sorted_by_name()
    unlabelled = [record.name for record in records if record.label < 0 and record.split != "unused"]
    if unlabelled:
        raise ValueError(
            f"{root}: {len(unlabelled)} of {len(records)} clips have no label, the first is {unlabelled[0]}"
        )
    split = "1" if records.splits >= set(PARTS) else "all"
    return VideoIndex(dataset or root.resolve().name, split, tuple(class_names), records, root=str(root))


def _clips(archive: Path) -> Iterator[_Clip]:
    """The clips of an archive in its order; the files of a sample stand beside each other."""
    key = ""
    videos: list[TarMember] = []
    label: str | None = None
    for member in tar_members(archive):
        folder, _, file = member.name.rpartition("/")
        if file.startswith("."):
            continue
        stem, _, ending = file.partition(".")
        if f"{folder}/{stem}" != key:
            yield from (_Clip(archive, video, label) for video in videos)
            key, videos, label = f"{folder}/{stem}", [], None
        if is_video(Path(member.name)):
            videos.append(member)
        elif ending.lower() in ("json", "cls"):
            label = _label(archive, member)
    yield from (_Clip(archive, video, label) for video in videos)


def _label(archive: Path, member: TarMember) -> str | None:
    """The class that a .json or .cls says."""
    if member.size > MOST_BYTES_OF_A_LABEL:
        raise ValueError(f"{archive}: {member.name} has {member.size} bytes, too many for what says a label")
    try:
        text = member.read(archive).decode()
        value = json.loads(text).get("label") if member.name.lower().endswith("json") else text.strip()
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{archive}: {member.name} cannot be read: {error}") from error
    if value is not None and not isinstance(value, str | int):
        raise ValueError(f"{archive}: the label in {member.name} is neither a text nor a whole number")
    return None if value in (None, "") else str(value)


def _part(archive: Path, root: Path) -> str:
    """The part that a word in the names of the archive and its folders says; "" none."""
    words = archive.relative_to(root).with_suffix("").as_posix().lower().replace("-", "/").replace("_", "/").split("/")
    return next((PART_FOLDERS[word] for word in words if word in PART_FOLDERS), "")
