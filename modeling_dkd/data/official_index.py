"""Index of UCF101 or HMDB51: the clips of an official split, paired with the files under a folder.

    index = ucf101_index("UCF-101", "ucfTrainTestlist", split=1)

The file names of both sets are unique, so a clip is found by its name wherever below the folder it lies: in the
folders that the owners distribute, in doubled ones, or divided into train/ and test/; and with another video ending,
for many copies were encoded again (listed_clips.py).
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from .listed_clips import ListedClip, ListedRows, listed_index
from .official_splits import SplitEntry, hmdb51_group, read_hmdb51_split, read_ucf101_split, ucf101_group
from .video_index import VideoIndex


def ucf101_index(data_dir: str | Path, annotations: str | Path, split: int, allow_missing: bool = False) -> VideoIndex:
    """UCF101: `<Class>/v_<Class>_g<nn>_c<nn>.avi` as distributed, or these names elsewhere below `data_dir`.

    Raises:
        ValueError: None of the clips there, lists unreadable or not the official ones, one clip in two places, a link
            that leads out of the folder, or clips missing (how many of how many, five of them named) without
            `allow_missing`.
    """
    class_names, entries = read_ucf101_split(annotations, split)
    rows = _listed(entries, lambda entry: ucf101_group(entry.name))
    return listed_index("ucf101", Path(data_dir), class_names, rows, str(split)).require_complete(allow_missing)


def hmdb51_index(data_dir: str | Path, annotations: str | Path, split: int, allow_missing: bool = False) -> VideoIndex:
    """HMDB51: `<class>/<name>.avi` as distributed, or these names elsewhere below `data_dir`.

    Clips tagged 0 in the split stay in the index under the split name "unused".

    Raises:
        ValueError: As for `ucf101_index`.
    """
    class_names, entries = read_hmdb51_split(annotations, split)
    rows = _listed(entries, lambda entry: hmdb51_group(entry.name, entry.class_name))
    return listed_index("hmdb51", Path(data_dir), class_names, rows, str(split)).require_complete(allow_missing)


def _listed(entries: Sequence[SplitEntry], group_of: Callable[[SplitEntry], str]) -> ListedRows:
    """The lines of the official lists with the groups of their clips."""
    rows = ListedRows()
    for entry in entries:
        rows.append(
            ListedClip(entry.name, entry.class_name, entry.split, Path(entry.name).stem, group=group_of(entry))
        )
    return rows
