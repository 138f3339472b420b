"""Index of a video data set: which clips there are, their classes, groups and splits, and which are missing.

    index = folder_index("clips")
    dataset = index.part("train").to_dataset()      # columns video, and those of VideoRecord

A set is found by one folder a class or by a CSV here; by the lists of its owners in official_index.py (UCF101, HMDB51)
and listed_sets.py (Kinetics and others).
Paths are plain file system paths, never URLs: HMDB51 names hold `#`, `;` and `&`.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, IterableDataset, Value, Video

from .class_names import spelling_key
from .clip_table import ClassedRows, ClipRows, ClipTable
from .counting import counted
from .official_splits import half_class_split
from .plain_files import open_table
from .video_files import VideoRecord, as_meant, endings, files_below, is_video, require_inside, same_files, visible


PARTS = ("train", "test")
CSV_COLUMNS = ("path", "label", "group", "split")
# What folders of parts are called, in small letters.
PART_FOLDERS = {"train": "train", "training": "train", "test": "test", "testing": "test"} | dict.fromkeys(
    ("val", "valid", "validate", "validation"), "val"
)


@dataclass(frozen=True)
class VideoIndex:
    """Clips of one data set.

    Attributes:
        dataset: Name for results, such as "ucf101".
        split: Which official split, such as "1"; "all" when the set is not divided.
        class_names: Official class names in label order.
        records: The clips that are there, sorted by name.
        missing: The clips that the lists name and the folder does not hold, in the lists' order.
        ignored: Files in the class folders that have no video extension, relative to the root.
        root: Folder under which the clips were looked for.
        notes: What the user should know of how the clips were found, a sentence each.
        hint: What was found instead of the missing clips, to go on the message that they are missing.
    """

    dataset: str
    split: str
    class_names: tuple[str, ...]
    records: ClipTable
    missing: ClipTable = field(default_factory=ClipTable.of)
    ignored: tuple[str, ...] = ()
    root: str = ""
    notes: tuple[str, ...] = ()
    hint: str = ""

    def require_complete(self, allow_missing: bool = False, option: str = "--allow_missing") -> "VideoIndex":
        """This index, once it is certain that its clips are there: all of them, or one at least with `allow_missing`.

        Args:
            allow_missing: Go on with the clips that are there.
            option: How the user says so.

        Raises:
            ValueError: Clips are missing: how many of how many, and the names of the first five.
        """
        if not self.missing or (allow_missing and self.records):
            return self
        remedy = "" if allow_missing else f"; pass {option} to go on with those that are there"
        raise ValueError(self.told_missing() + remedy)

    def told_missing(self) -> str:
        """How many clips of how many are missing, the first five, and what was found instead; "" where none is."""
        if not self.missing:
            return ""
        named = ", ".join(clip.name for clip in self.missing[:5]) + (" ..." if len(self.missing) > 5 else "")
        return (
            f"{len(self.missing)} of {len(self.records) + len(self.missing)} {self.dataset} clips are missing under "
            f"{self.root}: {named}{self.hint}"
        )

    def part(self, split: str) -> "VideoIndex":
        """The clips of "train", "test" or "unused" alone; "all" keeps every clip."""
        if split == "all":
            return self
        return replace(self, records=self.records.of_split(split), missing=self.missing.of_split(split))

    def restrict_classes(self, class_names: Sequence[str]) -> "VideoIndex":
        """The clips of some classes, relabelled in the order in which this index lists those classes.

        Clips without a class stay: they may be of any, and a domain needs no labels.

        Raises:
            ValueError: A class is unknown to this index.
        """
        unknown = sorted(set(class_names) - set(self.class_names))
        if unknown:
            raise ValueError(
                f"{self.dataset} has no class {unknown[0]!r}; its classes are {', '.join(self.class_names)}"
            )
        kept = [i for i, name in enumerate(self.class_names) if name in set(class_names)]
        new_label = {old: new for new, old in enumerate(kept)} | {-1: -1}
        records, missing = (clips.relabelled(new_label) for clips in (self.records, self.missing))
        return replace(self, class_names=tuple(self.class_names[i] for i in kept), records=records, missing=missing)

    def half_classes(self, seed: int) -> "VideoIndex":
        """The zero-shot half split `seed`: only the clips of its test classes."""
        half = self.restrict_classes(half_class_split(self.class_names, seed))
        return replace(half, split=f"{self.split} half {seed}")

    def features(self) -> Features:
        """Columns of the data sets that `to_dataset` and `to_iterable_dataset` give."""
        return video_features(self.class_names)

    def to_dataset(self) -> Dataset:
        """`datasets.Dataset` with one row a clip; the video column holds the path and is not decoded."""
        columns: dict[str, list] = {name: [] for name in VideoRecord._fields}
        for record in self.records:
            for name, value in zip(columns, record, strict=True):
                columns[name].append(value)
        return Dataset.from_dict({"video": columns["path"]} | columns, features=self.features())

    def to_iterable_dataset(self, num_shards: int = 1) -> IterableDataset:
        """The same rows as a stream, in `num_shards` parts that loader workers can share."""
        return self.to_dataset().to_iterable_dataset(num_shards=num_shards)


def video_features(class_names: Sequence[str]) -> Features:
    """Columns shared by all video data sets here; `Video(decode=False)` keeps torchcodec out of it."""
    return Features(
        {
            "video": Video(decode=False),
            "path": Value("string"),
            "name": Value("string"),
            "label": ClassLabel(names=list(class_names)),
            "group": Value("string"),
            "split": Value("string"),
            "start": Value("float64"),
            "end": Value("float64"),
            "offset": Value("int64"),
            "size": Value("int64"),
        }
    )


def folder_index(data_dir: str | Path) -> VideoIndex:
    """Any folder of videos: `<class>/**/<file>`, or the same in the parts `train` and `test`, in any capitals.

    Classes are the sub-folders in alphabetical order; a folder between class and file is the clip's group. A part
    `val` is left out ("unused") beside `test` and stands for it otherwise. Hidden files are passed over, files without
    a video extension are listed in `ignored`.

    Raises:
        ValueError: The folder does not exist, holds no class folder with a video, or mixes parts and classes; two
            folders are one class under two spellings; one file is in two classes; or a link in it leads out of it.
    """
    root = Path(data_dir)
    if not root.is_dir():
        raise ValueError(f"no such folder: {root}")
    folders, loose = visible(root, folders=True), visible(root, folders=False)
    part_of, notes = _parts(root, [folder for folder in folders if any(map(is_video, files_below(folder)))])
    rows, ignored = ClassedRows(), []
    for folder in folders:
        if part_of and folder not in part_of:
            continue
        num_above = len(folder.parts) if folder in part_of else len(root.parts)
        for file in files_below(folder):
            name = "/".join(file.parts[len(root.parts) :])
            if is_video(file):
                class_name, *group, _ = file.parts[num_above:]
                place = os.path.abspath(file), name, -1, "/".join(group), part_of.get(folder, "")
                rows.append(VideoRecord(*place), class_name)
            else:
                ignored.append(name)
    class_names = rows.class_names
    records = rows.numbered(class_names)
    if not records:
        there = endings(chain(loose, *map(files_below, folders)))
        held = f" with a known video ending (there are {there})" if there else ""
        raise ValueError(f"no videos{held} in {root}: it must hold one sub-folder a class, with the clips in it")
    require_distinct(class_names, str(root))
    require_inside([root], (record.path for record in records), str(root))
    again = _repeated(records, str(root))
    if again:
        first = min(records[position].name for position in again)
        notes.append(f"{counted(len(again), 'clip')} under two names counted once, the first is {first}")
        records = records[np.setdiff1d(np.arange(len(records)), again)]
    if any(map(is_video, loose)):
        notes.append(f"{counted(sum(map(is_video, loose)), 'video')} directly in {root}, in no class, left out")
    return VideoIndex(
        root.resolve().name,
        "1" if records.splits >= set(PARTS) else "all",
        class_names,
        records.sorted_by_name(),
        ignored=tuple(sorted(ignored)),
        root=str(root),
        notes=tuple(notes),
    )


def csv_index(csv_file: str | Path, data_dir: str | Path | None = None, allow_missing: bool = False) -> VideoIndex:
    """Clips listed in a CSV with the columns path and label, and if wanted group and split (train, test, unused).

    Paths are relative to `data_dir` (default: the CSV's folder), or absolute, but lead to files in it. Labels are
    class names; classes are numbered in alphabetical order. Blanks around a value do not count. A clip is the whole
    file: other columns, such as the seconds at which it begins and ends, are passed over with a note.

    Raises:
        ValueError: The file cannot be read, a column or value is missing, a split is not one of the three names, two
            labels are one class under two spellings, a file is listed twice, a path leads out of `data_dir`, or files
            are missing without `allow_missing`.
    """
    csv_file = Path(csv_file)
    root = Path(data_dir) if data_dir is not None else csv_file.parent
    class_names = sorted({row["label"] for row in _csv_rows(csv_file)})
    require_distinct(class_names, str(csv_file))
    label = {name: i for i, name in enumerate(class_names)}
    there, absent = ClipRows(), ClipRows()
    for row in _csv_rows(csv_file):
        path = os.path.abspath(root / as_meant(row["path"], root))
        record = VideoRecord(path, row["path"], label[row["label"]], row["group"], row["split"])
        (there if os.path.isfile(path) else absent).append(record)
    records, missing = there.table(), absent.table()
    require_inside([root], (clip.path for clips in (records, missing) for clip in clips), str(csv_file))
    for first, again in same_files(lambda: (record.path for record in records)):
        names = f"{records[first].name} and as {records[again].name}"
        raise ValueError(f"{csv_file}: lists one file twice, as {names}; keep one of the lines")
    siblings = _of_their_stems(Path(clip.path) for clip in missing)
    hint = f"; of their names, {counted(len(siblings), 'file')} with another ending there: {endings(siblings)}"
    split = "1" if records.splits | missing.splits >= set(PARTS) else "all"
    others = [column for column in open_table(csv_file)[0] if column not in CSV_COLUMNS]
    unused = f"of {csv_file.name} {', '.join(CSV_COLUMNS)} are read, and not {', '.join(others)[:200]}"
    index = VideoIndex(
        csv_file.stem,
        split,
        tuple(class_names),
        records.sorted_by_name(),
        missing,
        root=str(root),
        notes=(unused,) if others else (),
        hint=hint if siblings else "",
    )
    return index.require_complete(allow_missing)


def require_distinct(class_names: Iterable[str], place: str) -> None:
    """Refuse a class that is there twice, in one spelling or two, between which its clips would be split.

    Raises:
        ValueError: Two names give the same prompts (the message names both and `place`).
    """
    spelled: dict[str, str] = {}
    for name in class_names:
        key = spelling_key(name)
        if spelled.get(key) == name:
            raise ValueError(f"{place}: the class {name!r} is there twice; keep one of them")
        if key in spelled:
            raise ValueError(f"{place}: {spelled[key]!r} and {name!r} are one class in two spellings; use one of them")
        spelled[key] = name


def _parts(root: Path, folders: Sequence[Path]) -> tuple[dict[Path, str], list[str]]:
    """Split name of each folder that is a part of the set and no class, and what to say of them; {} without parts.

    The folders are those that hold videos.
    """
    named = {folder: PART_FOLDERS[folder.name.lower()] for folder in folders if folder.name.lower() in PART_FOLDERS}
    flat = [folder for folder in named if any(map(is_video, visible(folder, folders=False)))]
    others = [folder for folder in folders if folder not in named]
    if not named or (others and len(flat) == len(named) == 1):
        return {}, []  # a class may be called train
    if others:
        raise ValueError(
            f"{root} holds {', '.join(folder.name for folder in named)}, which look like parts of the set, beside "
            f"{others[0].name}: put class folders into each part, or classes alone into {root}"
        )
    if flat:
        raise ValueError(f"{flat[0]} holds clips outside of class folders: it must hold one sub-folder a class")
    if len(set(named.values())) == 1:
        return dict.fromkeys(named, ""), [f"{root} has the part {next(iter(named)).name} alone: its clips are one set"]
    val = [folder for folder, part in named.items() if part == "val"]
    stands_for = "unused" if "test" in named.values() and "train" in named.values() else "test"
    if "train" not in named.values():
        stands_for = "train"
    notes = {
        "unused": "{} is left out: train and test are used",
        "test": "there is no test folder: {} is the test",
        "train": "there is no train folder: {} is the train part",
    }
    parts = {folder: stands_for if part == "val" else part for folder, part in named.items()}
    return parts, [notes[stands_for].format(folder.name) for folder in val]


def _repeated(records: ClipTable, place: str) -> list[int]:
    """Positions of records whose file is there under another name of the same class and part."""
    again = []
    for first, second in same_files(lambda: (record.path for record in records)):
        one, other = records[first], records[second]
        if (one.label, one.split) != (other.label, other.split):
            raise ValueError(f"{place}: {one.name} and {other.name} are one file in two places; remove one of them")
        again.append(second)
    return again


def _of_their_stems(paths: Iterable[Path]) -> list[Path]:
    """Files beside those that are not there which differ from one of them in the ending alone."""
    stems: dict[Path, set[str]] = {}
    for path in paths:
        stems.setdefault(path.parent, set()).add(path.stem)
    there = (file for folder in stems if folder.is_dir() for file in visible(folder, folders=False))
    return [file for file in there if file.stem in stems[file.parent]]


def _csv_rows(csv_file: Path) -> Iterator[dict[str, str]]:
    """Rows of the CSV with their values stripped and checked, and all four columns."""
    columns, rows = open_table(csv_file)
    absent = {"path", "label"} - set(columns)
    if absent:
        raise ValueError(
            f"{csv_file} has no column {sorted(absent)[0]!r}; its columns are {', '.join(columns) or 'none'}"
        )
    seen = set()
    for line, values in rows:
        row = {column: values.get(column, "").strip() for column in CSV_COLUMNS}
        row["split"] = row["split"].lower()
        if not row["path"] or not row["label"]:
            raise ValueError(f"{csv_file}, line {line}: path or label is empty")
        if row["split"] not in ("", "unused", *PARTS):
            raise ValueError(
                f"{csv_file}, line {line}: split {row['split'][:100]!r} is not train, test, unused or empty"
            )
        if row["path"] in seen:
            raise ValueError(f"{csv_file}, line {line}: lists {row['path'][:200]!r} twice")
        seen.add(row["path"])
        yield row
    if not seen:
        raise ValueError(f"{csv_file} lists no clips")
