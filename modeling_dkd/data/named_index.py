"""The index of a data set by the name that commands and recipes give it.

index = named_index("kinetics400", "k400", annotations="k400/annotations")
"""

from pathlib import Path

from .hub_videos import hub_index
from .listed_sets import activitynet_index, diving48_index, kinetics_index, msrvtt_index, ssv2_index
from .official_index import hmdb51_index, ucf101_index
from .video_index import VideoIndex, csv_index, folder_index


OFFICIAL = {  # reader, usual folders of the lists, a file that is one of them
    "ucf101": (ucf101_index, ("ucf101", "ucfTrainTestlist"), "classInd.txt"),
    "hmdb51": (hmdb51_index, ("hmdb51", "testTrainMulti_7030_splits"), "brush_hair_test_split1.txt"),
}
LISTED = {
    "activitynet": activitynet_index,
    "diving48": diving48_index,
    "msrvtt": msrvtt_index,
    "ssv2": ssv2_index,
}


def named_index(
    dataset: str,
    data_dir: str | Path,
    annotations: str | Path | None = None,
    split: int = 1,
    hub_store: str | Path = "",
) -> VideoIndex:
    """All clips of the data set; what its lists name and is not there stands in `missing`.

    Args:
        dataset: One of `evaluation.names.DATASETS`.
        data_dir: Folder of the clips; csv: the CSV file; hub: the data set.
        annotations: The owners' lists; None: looked for in and beside `data_dir`.
        split: Official split of UCF101 and HMDB51.
        hub_store: Folder for clips of the Hub that come inside other files.

    Raises:
        ValueError: As the reader of the set.
    """
    if dataset in OFFICIAL:
        read, folders, sign = OFFICIAL[dataset]
        return read(data_dir, annotations or _usual_place(Path(data_dir), folders, sign), split, allow_missing=True)
    if dataset.startswith("kinetics"):
        return kinetics_index(dataset, data_dir, annotations)
    if dataset in LISTED:
        return LISTED[dataset](data_dir, annotations)
    if dataset == "folder":
        return folder_index(data_dir)
    if dataset == "csv":
        return csv_index(data_dir, allow_missing=True)
    return hub_index(str(data_dir), hub_store)


def _usual_place(data_dir: Path, folders: tuple[str, ...], sign: str) -> Path:
    """The first usual place around the clips that holds something like split lists, else their own folder."""
    root = data_dir.absolute()
    for place in (root, root / "annotations", root.parent, root.parent / "annotations"):
        if any((folder / sign).is_file() for folder in (place, *(place / name for name in folders))):
            return place
    return data_dir
