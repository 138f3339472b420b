"""Index of a video data set: which clips there are, their classes, groups and splits, and which are missing.

    index = ucf101_index("UCF-101", "ucfTrainTestlist", split=1)
    dataset = index.part("train").to_dataset()      # columns video, path, name, label, group, split

UCF101 and HMDB51 are found in the folders their owners distribute, any other set by one folder a class or by a CSV.
Paths are plain file system paths, never URLs: HMDB51 names hold `#`, `;` and `&`.
"""

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from datasets import ClassLabel, Dataset, Features, IterableDataset, Value, Video

from .official_splits import (
    SplitEntry,
    half_class_split,
    hmdb51_group,
    read_hmdb51_split,
    read_ucf101_split,
    ucf101_group,
)
from .video_files import VIDEO_EXTENSIONS, VideoRecord, files_below, visible


PARTS = ("train", "test")


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
    """

    dataset: str
    split: str
    class_names: tuple[str, ...]
    records: tuple[VideoRecord, ...]
    missing: tuple[VideoRecord, ...] = ()
    ignored: tuple[str, ...] = ()
    root: str = ""

    def require_complete(self, allow_missing: bool = False) -> "VideoIndex":
        """This index, once it is certain that its clips are there: all of them, or one at least with `allow_missing`.

        Raises:
            ValueError: Clips are missing: how many of how many, and the names of the first five.
        """
        total = len(self.records) + len(self.missing)
        if not self.missing or (allow_missing and self.records):
            return self
        named = ", ".join(clip.name for clip in self.missing[:5]) + (" ..." if len(self.missing) > 5 else "")
        remedy = "" if allow_missing else "; pass --allow_missing to go on with those that are there"
        raise ValueError(
            f"{len(self.missing)} of {total} {self.dataset} clips are missing under {self.root}: {named}{remedy}"
        )

    def part(self, split: str) -> "VideoIndex":
        """The clips of "train", "test" or "unused" alone; "all" keeps every clip."""
        if split == "all":
            return self
        chosen, missing = (
            tuple(clip for clip in clips if clip.split == split) for clips in (self.records, self.missing)
        )
        return replace(self, records=chosen, missing=missing)

    def restrict_classes(self, class_names: Sequence[str]) -> "VideoIndex":
        """The clips of some classes, relabelled in the order in which this index lists those classes.

        Raises:
            ValueError: A class is unknown to this index.
        """
        unknown = sorted(set(class_names) - set(self.class_names))
        if unknown:
            raise ValueError(
                f"{self.dataset} has no class {unknown[0]!r}; its classes are {', '.join(self.class_names)}"
            )
        kept = [i for i, name in enumerate(self.class_names) if name in set(class_names)]
        new_label = {old: new for new, old in enumerate(kept)}
        records, missing = (
            tuple(clip._replace(label=new_label[clip.label]) for clip in clips if clip.label in new_label)
            for clips in (self.records, self.missing)
        )
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
        columns: dict[str, list] = {"video": [record.path for record in self.records]}
        for position, name in enumerate(VideoRecord._fields):
            columns[name] = [record[position] for record in self.records]
        return Dataset.from_dict(columns, features=self.features())

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
        }
    )


def ucf101_index(data_dir: str | Path, annotations: str | Path, split: int, allow_missing: bool = False) -> VideoIndex:
    """UCF101 as distributed: `<Class>/v_<Class>_g<nn>_c<nn>.avi` under `data_dir`, UCF-101 or videos in it.

    The lists write HandstandPushups/v_HandStandPushups and some copies spell the folder like the files, so names are
    compared without case.

    Raises:
        ValueError: No class folder there, lists unreadable or not the official ones, a link that leads out of the
            folder, or clips missing (how many of how many, five of them named) without `allow_missing`.
    """
    class_names, entries = read_ucf101_split(annotations, split)
    root = _root_of_classes(Path(data_dir), class_names, ("", "UCF-101", "UCF101", "ucf101", "videos"), "UCF101")
    groups = {entry.name: ucf101_group(entry.name) for entry in entries}
    return _official_index("ucf101", split, root, class_names, entries, groups, allow_missing)


def hmdb51_index(data_dir: str | Path, annotations: str | Path, split: int, allow_missing: bool = False) -> VideoIndex:
    """HMDB51 as distributed: `<class>/<name>.avi` under `data_dir`, hmdb51_org or videos in it.

    Clips tagged 0 in the split stay in the index under the split name "unused".

    Raises:
        ValueError: As for `ucf101_index`.
    """
    class_names, entries = read_hmdb51_split(annotations, split)
    root = _root_of_classes(Path(data_dir), class_names, ("", "hmdb51_org", "hmdb51", "HMDB51", "videos"), "HMDB51")
    groups = {entry.name: hmdb51_group(entry.name, entry.class_name) for entry in entries}
    return _official_index("hmdb51", split, root, class_names, entries, groups, allow_missing)


def folder_index(data_dir: str | Path) -> VideoIndex:
    """Any folder of videos: `<class>/**/<file>`, or `train/<class>/**/<file>` and `test/<class>/**/<file>`.

    Classes are the sub-folders in alphabetical order; a folder between class and file is the clip's group. Hidden
    files are passed over, files without a video extension are listed in `ignored`.

    Raises:
        ValueError: The folder does not exist or holds no class folder with a video, or a link in it leads out of it.
    """
    root = Path(data_dir)
    if not root.is_dir():
        raise ValueError(f"no such folder: {root}")
    folders = visible(root, folders=True)
    divided = {"train", "test"} <= {folder.name for folder in folders}
    parts = {part: root / part for part in PARTS} if divided else {"": root}
    found = [
        (part, class_folder, file)
        for part, folder in parts.items()
        for class_folder in visible(folder, folders=True)
        for file in files_below(class_folder)
    ]
    videos = [entry for entry in found if entry[2].suffix.lower() in VIDEO_EXTENSIONS]
    if not videos:
        raise ValueError(f"no videos in {root}: it must hold one sub-folder a class, with the clips in it")
    class_names = sorted({class_folder.name for _, class_folder, _ in videos})
    label = {name: i for i, name in enumerate(class_names)}
    records = [
        VideoRecord(
            os.path.abspath(file),
            file.relative_to(root).as_posix(),
            label[class_folder.name],
            file.parent.relative_to(class_folder).as_posix().removeprefix("."),
            part,
        )
        for part, class_folder, file in videos
    ]
    require_inside([root], (record.path for record in records), str(root))
    kept = {file for _, _, file in videos}
    ignored = tuple(sorted(file.relative_to(root).as_posix() for _, _, file in found if file not in kept))
    return VideoIndex(
        root.resolve().name, "1" if divided else "all", tuple(class_names), _sorted(records), (), ignored
    )


def csv_index(csv_file: str | Path, data_dir: str | Path | None = None, allow_missing: bool = False) -> VideoIndex:
    """Clips listed in a CSV with the columns path and label, and if wanted group and split (train, test, unused).

    Paths are relative to `data_dir` (default: the CSV's folder), or absolute, but lead to files in it. Labels are
    class names; classes are numbered in alphabetical order.

    Raises:
        ValueError: The file cannot be read, a column or value is missing, a split is not one of the three names, a
            path leads out of `data_dir`, or files are missing without `allow_missing`.
    """
    csv_file = Path(csv_file)
    root = Path(data_dir) if data_dir is not None else csv_file.parent
    rows = _read_csv(csv_file)
    class_names = sorted({row["label"] for row in rows})
    label = {name: i for i, name in enumerate(class_names)}
    records: list[VideoRecord] = []
    missing: list[VideoRecord] = []
    for row in rows:
        path = os.path.abspath(root / row["path"])
        require_inside([root], [path], str(csv_file))
        record = VideoRecord(path, row["path"], label[row["label"]], row.get("group") or "", row.get("split") or "")
        (records if os.path.isfile(path) else missing).append(record)
    divided = {row.get("split") for row in rows} >= set(PARTS)
    split = "1" if divided else "all"
    index = VideoIndex(csv_file.stem, split, tuple(class_names), _sorted(records), tuple(missing), root=str(root))
    return index.require_complete(allow_missing)


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
    for path in paths:
        try:
            target = os.path.realpath(path)
        except ValueError as error:  # a null byte
            raise ValueError(f"{place}: {path[:200]!r} is no path ({error})") from error
        if not any(target == part or target.startswith(part.rstrip(os.sep) + os.sep) for part in allowed):
            raise ValueError(
                f"{place}: {path[:200]} leads to {target[:200]}, out of the folder {roots[0]}; keep the clips in it"
            )


def _read_csv(csv_file: Path) -> list[dict[str, str]]:
    """Rows of the CSV with their values checked."""
    if not csv_file.is_file():
        raise ValueError(f"cannot read the CSV {csv_file}: there is no such file")
    try:
        with csv_file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
            columns = reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"cannot read the CSV {csv_file}: {error}") from error
    absent = {"path", "label"} - set(columns)
    if absent:
        raise ValueError(
            f"{csv_file} has no column {sorted(absent)[0]!r}; its columns are {', '.join(columns) or 'none'}"
        )
    if not rows:
        raise ValueError(f"{csv_file} lists no clips")
    seen = set()
    for line, row in enumerate(rows, start=2):
        if not row["path"] or not row["label"]:
            raise ValueError(f"{csv_file}, line {line}: path or label is empty")
        if row.get("split") not in (None, "", "unused", *PARTS):
            raise ValueError(
                f"{csv_file}, line {line}: split {row['split'][:100]!r} is not train, test, unused or empty"
            )
        if row["path"] in seen:
            raise ValueError(f"{csv_file}, line {line}: lists {row['path'][:200]!r} twice")
        seen.add(row["path"])
    return rows


def _official_index(
    dataset: str,
    split: int,
    root: Path,
    class_names: Sequence[str],
    entries: Sequence[SplitEntry],
    groups: dict[str, str],
    allow_missing: bool,
) -> VideoIndex:
    """Pair the official entries with the files under `root`, without regard to case."""
    there = {
        f"{folder.name}/{file.name}".lower(): file
        for folder in visible(root, folders=True)
        for file in visible(folder, folders=False)
    }
    label = {name: i for i, name in enumerate(class_names)}
    records: list[VideoRecord] = []
    missing: list[VideoRecord] = []
    for entry in entries:
        file = there.get(entry.name.lower())
        record = VideoRecord(
            os.path.abspath(file or root / entry.name),
            entry.name,
            label[entry.class_name],
            groups[entry.name],
            entry.split,
        )
        (missing if file is None else records).append(record)
    require_inside([root], (record.path for record in records), str(root))
    index = VideoIndex(dataset, str(split), tuple(class_names), _sorted(records), tuple(missing), root=str(root))
    return index.require_complete(allow_missing)


def _root_of_classes(data_dir: Path, class_names: Iterable[str], places: Sequence[str], dataset: str) -> Path:
    """The one of the usual places under `data_dir` that holds most class folders."""
    if not data_dir.is_dir():
        raise ValueError(f"no such folder: {data_dir}")
    wanted = {name.lower() for name in class_names}

    def num_classes(place: str) -> int:
        folder = data_dir / place
        return len(wanted & {f.name.lower() for f in visible(folder, folders=True)}) if folder.is_dir() else 0

    best = max(places, key=num_classes)
    if num_classes(best) == 0:
        raise ValueError(
            f"no folder of a {dataset} class in {data_dir} or in its {', '.join(place for place in places if place)}; "
            f"it must hold one folder a class, such as {data_dir / min(class_names)}"
        )
    return data_dir / best


def _sorted(records: Iterable[VideoRecord]) -> tuple[VideoRecord, ...]:
    """Records by name: the order of everything that is computed from them."""
    return tuple(sorted(records, key=lambda record: record.name))
