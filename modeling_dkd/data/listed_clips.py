"""Clips that a list names, paired with what lies under a folder: files, and members of tar archives in it.

    rows = ListedRows()
    rows.append(ListedClip("abseiling/abc_000001_000011.mp4", "abseiling", "train", "abc_000001_000011"))
    index = listed_index("kinetics400", Path("k400"), rows)

A clip is found by the name of its file without the ending, wherever below the folder it lies: in class folders in any
spelling, divided into train/ and val/, encoded again with another ending, or inside a .tar as it was downloaded. Names
are compared without case, and in it where several files are left. A clip that is listed again alike counts once; in
another class or part it is an error. There may be a million clips and as many files, so both are columns
(clip_table.py).
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
from .counting import counted
from .tar_members import COMPRESSED, tar_members
from .video_files import VideoRecord, endings, files_below, require_inside
from .video_index import PARTS, VideoIndex


OTHER_ARCHIVES = (".zip", ".rar", ".7z")


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
        self._stems.append((clip.stem, clip.other_stem))

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
        ValueError: No such folder, no clip in the lists or one in two classes or parts, none of the clips in the
            folder, one of them in two places, a link that leads out of it, or an archive that cannot be read.
    """
    if not root.is_dir():
        raise ValueError(f"no such folder: {root}")
    listed, stems = rows.tables(class_names)
    if not listed:
        raise ValueError("; ".join((f"the lists of {dataset} name no clip", *notes)))
    kept, repeated = _once(dataset, class_names, listed, stems)
    if len(kept) < len(listed):
        listed, stems = listed[kept], stems.take(kept)
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
        told = counted(len(missing), f"{dataset} clip")
        raise ValueError(f"of {told} {root} holds none{example}{hint or f'; it holds {held}'}")
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
        notes=(*notes, *repeated),
        hint=hint,
    )


def _once(
    dataset: str, class_names: Sequence[str], listed: ClipTable, stems: pa.Table
) -> tuple[np.ndarray, list[str]]:
    """Rows of the clips that are listed once, or first, in their order, (K,), and what to say of the others.

    A segment may have several classes, as films of ActivityNet do: it is a clip of each. A file has one.
    """
    stem = stems["stem"].combine_chunks().dictionary_encode().indices.to_numpy()
    start, end, label = (listed.columns[name].to_numpy() for name in ("start", "end", "label"))
    split = listed.columns["split"].combine_chunks().indices.to_numpy()
    order = np.lexsort((label, end, start, stem))  # stable: of rows alike, the one that is listed first comes first
    first, again = order[:-1], order[1:]
    of_file = stem[first] == stem[again]
    of_clip = of_file & (start[first] == start[again]) & (end[first] == end[again])
    in_two_classes = of_clip & (label[first] != label[again])
    wrong = np.flatnonzero((in_two_classes & (end[first] == 0)) | (of_file & (split[first] != split[again])))
    if len(wrong):
        pair = sorted((int(first[wrong[0]]), int(again[wrong[0]])))
        places = (
            f"{f'as {class_names[clip.label]!r} ' if clip.label >= 0 else ''}in {clip.split}"
            for clip in (listed[row] for row in pair)
        )
        name = stems["stem"][pair[0]].as_py().decode(errors="replace")
        raise ValueError(
            f"the lists of {dataset} name {name} {' and '.join(places)} ({counted(len(wrong), 'such clip')}); keep "
            "each in one class and one part"
        )
    alike, notes = again[of_clip & ~in_two_classes], []
    if len(alike):
        told = counted(len(alike), "entry", "entries")
        notes.append(
            f"the lists of {dataset}: {told} alike to another counted once, such as {listed[alike.min()].name}"
        )
    if in_two_classes.any():
        told = counted(int(in_two_classes.sum()), "segment")
        notes.append(f"the lists of {dataset}: {told} with two classes counted in each")
    return np.setdiff1d(np.arange(len(listed)), alike), notes


def _in_small_letters(stems: pa.ChunkedArray) -> pa.ChunkedArray:
    """Stems as those of files are, to be compared with them."""
    rows = Rows(pa.schema({"stem": TEXT}))
    for (stem,) in rows_of(pa.table({"stem": stems})):
        rows.append((stem.lower(),))
    return rows.table()["stem"]


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
    places = (pc.index_in(_in_small_letters(column), distinct.dictionary) for column in stems.columns)
    stem = pc.fill_null(pc.coalesce(*places), -1).to_numpy()
    chosen = order[begins[stem]]

    several = np.flatnonzero(counts[stem] > 1)
    numbers = counts[stem[several]]
    ends = np.cumsum(numbers)
    rows = order[np.repeat(begins[stem[several]] - ends + numbers, numbers) + np.arange(numbers.sum())]
    files = _files(videos.take(rows))
    names = rows_of(listed.columns.select(["name"]).take(several))
    spelled = rows_of(stems.take(several))
    for clip, (name,), spellings, end, number in zip(several, names, spelled, ends, numbers, strict=True):
        chosen[clip] = rows[end - number + _nearest(name, spellings, list(islice(files, number)))]

    of_many = np.bincount(chosen[chosen >= 0], minlength=len(videos) + 1) > 1  # the last stands for no video
    shared = np.flatnonzero(of_many[chosen] & (listed.columns["end"].to_numpy() == 0))
    files = _files(videos.take(chosen[shared]))
    for clip, spellings, file in zip(shared, rows_of(stems.take(shared)), files, strict=True):
        if file.place.stem not in spellings:  # it is another clip, whose name differs in capitals
            chosen[clip] = -1
    return chosen


def _instead(stems: pa.Table, others: pa.Table) -> str:
    """What to say of files that are no videos, for clips of these stems that are not there."""
    names = pa.chunked_array([chunk for column in stems.columns for chunk in _in_small_letters(column).chunks], TEXT)
    same = others.filter(pc.is_in(others["stem"], value_set=names))
    hint = ""
    if len(same):
        had = endings(file.place for file in _files(same))
        told = counted(len(same), "file that is no video", "files that are no videos")
        hint = f"; of their names there {'is' if len(same) == 1 else 'are'} {told}: {had}"
    packed: dict[str, list[Path]] = {}
    for file in _files(others):
        if remedy := _how_to_unpack(file):
            packed.setdefault(remedy, []).append(file.place)
    for remedy, places in packed.items():
        hint += f"; {counted(len(places), 'archive')} such as {places[0]} cannot be looked into: {remedy}"
    return hint


def _how_to_unpack(file: _Found) -> str:
    """What to do with an archive of which the clips cannot be read where they lie; "" of other files."""
    name = file.place.name.lower()
    if name.startswith("20bn-something-something-v2-") and name[-2:].isdigit():  # as its owners hand it out
        return (
            "each is a piece of one; put them together and unpack that (cat 20bn-something-something-v2-?? | tar xz)"
        )
    if not name.endswith((".tar", *COMPRESSED, *OTHER_ARCHIVES)):
        return ""
    if file.member:
        return "it lies in another; unpack the outer one"
    if name.endswith(OTHER_ARCHIVES):
        return "only a plain .tar can; unpack it"
    return "it is compressed; decompress it (gunzip), and its clips are read out of the plain .tar"


def _nearest(name: str, stems: Sequence[str], files: Sequence[_Found]) -> int:
    """Which file of a clip has its very name, is a replacement, has the official ending and class, and is highest."""

    def distance(file: _Found) -> tuple[bool, bool, bool, bool, bool, int]:
        official, folders = Path(name), file.place.parts[:-1]
        return (
            file.place.stem not in stems,  # but for capitals
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
