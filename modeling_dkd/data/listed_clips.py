"""Clips that a list names, paired with what lies under a folder: files, and members of tar archives in it.

    rows = ListedRows()
    rows.append(ListedClip("abseiling/abc_000001_000011.mp4", "abseiling", "train", "abc_000001_000011"))
    index = listed_index("kinetics400", Path("k400"), rows)

A clip is found by the name of its file without the ending, wherever below the folder it lies: in class folders in any
spelling, divided into train/ and val/, encoded again with another ending, or inside a .tar as it was downloaded. Names
are compared without case. There may be a million clips and as many files, so both are columns (clip_table.py).
"""

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..file_suffixes import VIDEO_SUFFIXES
from .class_names import name_key
from .clip_table import REPEATED, TEXT, ClassedRows, ClipTable, Rows, rows_of
from .tar_members import tar_members
from .video_files import VideoRecord, endings, files_below, require_inside
from .video_index import PARTS, VideoIndex


COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


class ListedClip(NamedTuple):
    """One line of a list.

    Attributes:
        name: Within the data set, "<class>/<file>".
        class_name: Its class; "" unknown.
        split: "train", "test", "unused" or "val"; clips of "val" are the test, beside which those of "test" are
            unused.
        stem: What its file is called without the ending.
        other_stem: What it may be called instead; "" nothing.
        group: What clips of one source share; "" unknown.
        start: Second of the file at which the clip begins.
        end: At which it ends; 0 where the file holds the clip alone.
    """

    name: str
    class_name: str
    split: str
    stem: str
    other_stem: str = ""
    group: str = ""
    start: float = 0.0
    end: float = 0.0


class ListedRows:
    """Collects what lists name without keeping it as objects."""

    def __init__(self) -> None:
        self._clips = ClassedRows()
        self._stems = Rows(_STEMS)

    def append(self, clip: ListedClip) -> None:
        """Add a row."""
        place = "", clip.name, -1, clip.group, clip.split, clip.start, clip.end
        self._clips.append(VideoRecord(*place), clip.class_name or None)
        self._stems.append((clip.stem.lower(), clip.other_stem.lower()))

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that occur, in alphabetical order."""
        return self._clips.class_names

    def tables(self, class_names: Sequence[str]) -> tuple[ClipTable, pa.Table]:
        """The clips with their classes numbered in this order, and their stems; neither is kept here."""
        return self._clips.numbered(class_names), self._stems.table()


class _Found(NamedTuple):
    """A file, or the bytes of a member of an archive, and its name in small letters without the ending."""

    stem: str
    video: bool
    path: str
    member: str = ""
    offset: int = 0
    size: int = 0

    @property
    def place(self) -> Path:
        """The path to show, a member's behind its archive's."""
        return Path(self.path, self.member)


_STEMS = pa.schema({"stem": TEXT, "other_stem": TEXT})
_FOUND = pa.schema(
    {"stem": TEXT, "video": pa.bool_(), "path": REPEATED, "member": TEXT, "offset": pa.int64(), "size": pa.int64()}
)


def listed_index(
    dataset: str,
    root: Path,
    class_names: Sequence[str],
    rows: ListedRows,
    split: str | None = None,
    notes: Sequence[str] = (),
) -> VideoIndex:
    """Index of the listed clips; those that are not there are in its `missing`.

    Args:
        dataset: Name for results.
        root: Folder to look under.
        class_names: In label order.
        rows: What the lists name; empty thereafter.
        split: Name of the official split; None: "1" for lists of training and test clips, "all" for others.
        notes: What the user should know of the lists.

    Raises:
        ValueError: No such folder, none of the clips in it, one of them in two places, a link that leads out of it, or
            an archive that cannot be read.
    """
    if not root.is_dir():
        raise ValueError(f"no such folder: {root}")
    listed, stems = rows.tables(class_names)
    if "val" in listed.splits:
        listed = listed.with_splits({"val": "test", "test": "unused"})
    found = _files_and_members(root)
    videos, others = found.filter(found["video"]), found.filter(pc.invert(found["video"]))
    del found
    chosen = _chosen(listed, stems, videos)
    there, absent = np.flatnonzero(chosen >= 0), np.flatnonzero(chosen < 0)
    missing = ClipTable.of(clip._replace(path=os.path.abspath(root / clip.name)) for clip in listed[absent])
    hint = _instead(stems.take(absent), others) if missing else ""
    if not len(there):
        example = f", such as {missing[0].name}" if missing else ""
        places = (file.place for table in (videos, others) for file in _files(table))
        held = f"files with the endings {endings(places)}" if len(videos) + len(others) else "no file"
        raise ValueError(
            f"{root} holds none of the {len(missing)} {dataset} clips{example}{hint or f'; it holds {held}'}"
        )
    records = listed[there].with_files(videos.take(chosen[there]))
    del listed, stems, videos, others
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


def _files_and_members(root: Path) -> pa.Table:
    """Files below a folder, and the files in archives among them."""
    rows = Rows(_FOUND)

    def add(path: str, member: str = "", offset: int = 0, size: int = 0) -> None:
        stem, ending = os.path.splitext(os.path.basename(member or path).lower())
        rows.append(_Found(stem, ending in VIDEO_SUFFIXES, path, member, offset, size))

    for path in map(str, files_below(Path(os.path.abspath(root)))):
        if path.lower().endswith(".tar"):
            require_inside([root], [path], str(root))
            for member in tar_members(Path(path)):
                add(path, *member)
        else:
            add(path)
    return rows.table()


def _files(found: pa.Table) -> Iterator[_Found]:
    """The files that are the rows of a table."""
    return map(_Found._make, rows_of(found))


def _chosen(listed: ClipTable, stems: pa.Table, videos: pa.Table) -> np.ndarray:
    """Row of the video of each clip, (N,); -1 where there is none."""
    distinct = videos["stem"].combine_chunks().dictionary_encode()
    codes = distinct.indices.to_numpy()
    order = np.append(np.argsort(codes, kind="stable"), -1)  # videos of one stem stand beside each other
    counts = np.bincount(codes, minlength=len(distinct.dictionary) + 1)  # the last is of no stem
    begins = np.cumsum(counts) - counts
    places = (pc.index_in(stems[name], distinct.dictionary) for name in stems.column_names)
    stem = pc.fill_null(pc.coalesce(*places), -1).to_numpy()
    chosen = order[begins[stem]]

    several = np.flatnonzero(counts[stem] > 1)
    numbers = counts[stem[several]]
    ends = np.cumsum(numbers)
    rows = order[np.repeat(begins[stem[several]] - ends + numbers, numbers) + np.arange(numbers.sum())]
    files = _files(videos.take(rows))
    names = rows_of(listed.columns.select(["name"]).take(several))
    for clip, (name,), end, number in zip(several, names, ends, numbers, strict=True):
        chosen[clip] = rows[end - number + _nearest(name, list(islice(files, number)))]
    return chosen


def _instead(stems: pa.Table, others: pa.Table) -> str:
    """What to say of files that are no videos, for clips of these stems that are not there."""
    names = pa.chunked_array([chunk for column in stems.columns for chunk in column.chunks], TEXT)
    same = others.filter(pc.is_in(others["stem"], value_set=names))
    hint = ""
    if len(same):
        had = endings(file.place for file in _files(same))
        hint = f"; of their names, {len(same)} files are there that are no videos: {had}"
    packed = [file.place.name for file in _files(others) if file.place.name.lower().endswith(COMPRESSED)]
    if packed:
        hint += (
            f"; {len(packed)} archives such as {packed[0]} are compressed, and clips are read out of plain .tar "
            "files: decompress them (gunzip), they need not be unpacked"
        )
    return hint


def _nearest(name: str, files: Sequence[_Found]) -> int:
    """Which file of a clip is in a folder of replacements, has the official ending and class, and is the highest."""

    def distance(file: _Found) -> tuple[bool, bool, bool, bool, int]:
        official, folders = Path(name), file.place.parts[:-1]
        return (
            not any(folder.lower().startswith("replacement") for folder in folders),  # of clips found to be damaged
            file.place.suffix.lower() != official.suffix.lower(),
            name_key(file.place.parent.name) != name_key(official.parent.name),
            bool(file.size),
            len(file.place.parts),
        )

    distances = [distance(file) for file in files]
    first, second = sorted(range(len(files)), key=distances.__getitem__)[:2]
    if distances[first] == distances[second]:
        places = f"as {files[first].place} and as {files[second].place}"
        raise ValueError(f"{name} is there twice, {places}; give the folder of one of them")
    return first
