"""Index of UCF101 or HMDB51: the clips of an official split, paired with the files under a folder.

    index = ucf101_index("UCF-101", "ucfTrainTestlist", split=1)

The file names of both sets are unique, so a clip is found by its name wherever below the folder it lies: in the
folders that the owners distribute, in doubled ones, or divided into train/ and test/; and with another video ending,
for many copies were encoded again. Names are compared without case.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from .official_splits import SplitEntry, hmdb51_group, read_hmdb51_split, read_ucf101_split, ucf101_group
from .video_files import VideoRecord, endings, files_below, is_video, require_inside
from .video_index import VideoIndex, sorted_by_name


def ucf101_index(data_dir: str | Path, annotations: str | Path, split: int, allow_missing: bool = False) -> VideoIndex:
    """UCF101: `<Class>/v_<Class>_g<nn>_c<nn>.avi` as distributed, or these names elsewhere below `data_dir`.

    Raises:
        ValueError: None of the clips there, lists unreadable or not the official ones, one clip in two places, a link
            that leads out of the folder, or clips missing (how many of how many, five of them named) without
            `allow_missing`.
    """
    class_names, entries = read_ucf101_split(annotations, split)
    groups = {entry.name: ucf101_group(entry.name) for entry in entries}
    return _official_index("ucf101", split, Path(data_dir), class_names, entries, groups, allow_missing)


def hmdb51_index(data_dir: str | Path, annotations: str | Path, split: int, allow_missing: bool = False) -> VideoIndex:
    """HMDB51: `<class>/<name>.avi` as distributed, or these names elsewhere below `data_dir`.

    Clips tagged 0 in the split stay in the index under the split name "unused".

    Raises:
        ValueError: As for `ucf101_index`.
    """
    class_names, entries = read_hmdb51_split(annotations, split)
    groups = {entry.name: hmdb51_group(entry.name, entry.class_name) for entry in entries}
    return _official_index("hmdb51", split, Path(data_dir), class_names, entries, groups, allow_missing)


def _official_index(
    dataset: str,
    split: int,
    root: Path,
    class_names: Sequence[str],
    entries: Sequence[SplitEntry],
    groups: dict[str, str],
    allow_missing: bool,
) -> VideoIndex:
    """Pair the official entries with the files under `root`."""
    if not root.is_dir():
        raise ValueError(f"no such folder: {root}")
    named: dict[str, list[Path]] = {}
    for file in files_below(root):
        named.setdefault(file.stem.lower(), []).append(file)
    label = {name: i for i, name in enumerate(class_names)}
    records: list[VideoRecord] = []
    missing: list[VideoRecord] = []
    no_videos: list[Path] = []
    for entry in entries:
        files = named.get(Path(entry.name).stem.lower(), [])
        found = _nearest(entry.name, [file for file in files if is_video(file)])
        if found is None:
            no_videos += files
        path = os.path.abspath(found or root / entry.name)
        record = VideoRecord(path, entry.name, label[entry.class_name], groups[entry.name], entry.split)
        (missing if found is None else records).append(record)
    hint = f"; of their names, {len(no_videos)} files are there that are no videos: {endings(no_videos)}"
    hint = hint if no_videos else ""
    if not records:
        there = [file for files in named.values() for file in files]
        held = hint or (f"; it holds files with the endings {endings(there)}" if there else "; it holds no file")
        raise ValueError(f"{root} holds none of the {len(entries)} {dataset} clips, such as {entries[0].name}{held}")
    require_inside([root], (record.path for record in records), str(root))
    index = VideoIndex(
        dataset, str(split), tuple(class_names), sorted_by_name(records), tuple(missing), root=str(root), hint=hint
    )
    return index.require_complete(allow_missing)


def _nearest(name: str, files: Sequence[Path]) -> Path | None:
    """Of the files with a clip's stem the one whose ending and folder are the official ones, the highest of these."""

    def distance(file: Path) -> tuple[bool, bool, int]:
        official = Path(name.lower())
        return (
            file.suffix.lower() != official.suffix,
            file.parent.name.lower() != official.parent.name,
            len(file.parts),
        )

    ordered = sorted(files, key=distance)
    if len(ordered) > 1 and distance(ordered[0]) == distance(ordered[1]):
        raise ValueError(f"{name} is there twice, as {ordered[0]} and as {ordered[1]}; give the folder of one of them")
    return ordered[0] if ordered else None
