"""Any data set of the Hub (or a local folder in one of its layouts) with a video column, in the columns used here."""

import hashlib
import os
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import (
    ClassLabel,
    Dataset,
    Features,
    IterableDataset,
    Value,
    Video,
    config,
    get_dataset_split_names,
    load_dataset,
)
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import HfFileSystem, constants, snapshot_download

from .clip_table import ClipRows, ClipTable
from .video_files import require_inside
from .video_index import PARTS, VideoIndex, VideoRecord, require_distinct, video_features
from .webdataset_index import archives_below, webdataset_index


def hub_dataset(name: str, split: str = "train", revision: str | None = None) -> Dataset:
    """One split of a Hub data set with the columns of `video_features`.

    Videos are not decoded: `video` holds {"path", "bytes"}. The label column is the first of label, labels, class and
    action, else the only ClassLabel; labels that are texts are numbered in alphabetical order.

    Args:
        name: Repository, or a local folder that `datasets.load_dataset` understands.
        split: One of its splits.
        revision: Branch, tag or commit of the repository.

    Raises:
        ValueError: No such data set or split, no video column, or no label column.
    """
    dataset, video = _with_videos(name, split, revision, streaming=False)
    columns: dict[str, Any] = dict(dataset.features)
    label = _label_column(name, columns)
    if not isinstance(columns[label], ClassLabel):
        dataset = dataset.class_encode_column(label)
    features = video_features(dataset.features[label].names)

    def in_our_columns(row: dict[str, Any], number: int) -> dict[str, Any]:
        path = row[video]["path"] or ""
        # Clips inside a Parquet file may share a name or have none: the row keeps them apart.
        clip_name = f"{number:07d} {os.path.basename(path)}".strip()
        group = str(row["group"]) if "group" in columns else ""
        return {
            "video": row[video],
            "path": path,
            "name": clip_name,
            "label": row[label],
            "group": group,
            "split": split,
            "start": 0.0,
            "end": 0.0,
            "offset": 0,
            "size": 0,
        }

    return dataset.map(in_our_columns, with_indices=True, remove_columns=list(columns), features=features)


def hub_stream(name: str, split: str, revision: str | None = None) -> IterableDataset:
    """One split of a Hub data set as a stream, of which nothing is kept.

    Args:
        name: Repository, or a local folder that `datasets.load_dataset` understands, such as one of tar archives.
        split: One of its splits.
        revision: Branch, tag or commit of the repository.

    Returns:
        Rows of `video`, {"path", "bytes"}, and `class_name`, "" where there is none; as many shards as there are
        archives or other files.

    Raises:
        ValueError: As in `hub_dataset`.
    """
    dataset, video = _with_videos(name, split, revision, streaming=True)
    columns: dict[str, Any] = dict(dataset.features)
    beside = columns.get("json")  # in WebDataset's archives each clip has such a file
    in_json = "label" not in columns and isinstance(beside, dict) and "label" in beside
    label = "json" if in_json else _label_column(name, columns)
    named = {"video": video, "label": label, "class_names": getattr(columns[label], "names", None)}
    features = Features({"video": Video(decode=False), "class_name": Value("string")})
    return dataset.map(_stream_row, remove_columns=list(columns), features=features, fn_kwargs=named)


def streamed_index(name: str, store: str | Path, num_train: int, revision: str | None = None) -> VideoIndex:
    """Index of the clips that are kept of a stream: all of its split test, or validation, and the first of train.

    The classes are those of these clips, in alphabetical order.

    Args:
        name: As in `hub_stream`.
        store: Folder for the clips; each is written once, named by its contents.
        num_train: Training clips to keep.
        revision: Branch, tag or commit of the repository.

    Raises:
        ValueError: As in `hub_stream` and `streamed_clip`.
    """
    test = "validation" if "test" not in (splits := _splits(name, revision)) and "validation" in splits else "test"
    kept: list[tuple[str, str, str, str]] = []
    for part, split, most in (("test", test, None), ("train", "train", num_train)):
        for position, row in enumerate(islice(hub_stream(name, split, revision), most)):
            path = _stored(streamed_clip(row["video"], name), Path(store))
            file = os.path.basename(row["video"]["path"] or "")
            kept.append((path, f"{split}/{position:07d} {file}".strip(), part, row["class_name"]))
    class_names = sorted({class_name for *_, class_name in kept} - {""})
    require_distinct(class_names, name)
    label = {class_name: i for i, class_name in enumerate(class_names)}
    records = ClipTable.of(
        VideoRecord(path, clip, label[class_name], "", part) for path, clip, part, class_name in kept if class_name
    )
    return VideoIndex(Path(name).name, "1", tuple(class_names), records.sorted_by_name(), root=str(name))


def streamed_clip(video: dict[str, Any], name: str) -> dict[str, Any]:
    """A clip of a stream with its bytes, fetched if need be.

    Raises:
        ValueError: It lies outside of the data set `name` (a table may name any file of this machine).
        OSError: It cannot be fetched.
    """
    path = video["path"] or ""
    if video["bytes"] is not None:
        return video
    if path.startswith("hf://datasets/"):
        return {"path": path, "bytes": HfFileSystem().read_bytes(path)}
    require_inside([name], [path], name)
    return {"path": path, "bytes": Path(path).read_bytes()}


def hub_index(name: str, store: str | Path, revision: str | None = None) -> VideoIndex:
    """Index of a Hub data set: its splits train and test, or all of its clips when it has no such pair.

    Of a data set in tar archives (WebDataset's form) these are fetched and then read where they lie.

    Args:
        name: As in `hub_dataset`.
        store: Folder for clips that come as bytes inside other files; each is written once, named by its contents.
        revision: Branch, tag or commit of the repository.

    Raises:
        ValueError: As in `hub_dataset` and `webdataset_index`; or a row names a file outside of the data set and of
            the caches.
    """
    folder = _folder_of_archives(name, revision)
    if folder is not None:
        return webdataset_index(folder, Path(name).name)
    available = _splits(name, revision)
    divided = set(PARTS) <= set(available)
    places = [name] if os.path.isdir(name) else [constants.HF_HUB_CACHE, config.HF_CACHE_HOME]
    records = ClipRows()
    class_names: list[str] = []
    for split in PARTS if divided else available:
        dataset = hub_dataset(name, split, revision=revision)
        names = dataset.features["label"].names
        class_names += [class_name for class_name in names if class_name not in class_names]
        for row in dataset:
            path = _stored(row["video"], Path(store))
            if row["video"]["bytes"] is None:
                require_inside(places, [path], name)  # a table may name any file of this machine
            label = class_names.index(names[row["label"]]) if row["label"] is not None and row["label"] >= 0 else -1
            part = split if divided else ""
            records.append(VideoRecord(path, f"{split}/{row['name']}", label, row["group"], part))
    require_distinct(class_names, name)
    table = records.table().sorted_by_name()
    return VideoIndex(Path(name).name, "1" if divided else "all", tuple(class_names), table, root=str(name))


def _stream_row(row: dict[str, Any], video: str, label: str, class_names: list[str] | None) -> dict[str, Any]:
    """Video and class of a row; a function of this module, so that it can go to worker processes."""
    value = row[label]["label"] if isinstance(row[label], dict) else row[label]
    if value is None or (class_names and value < 0):
        return {"video": row[video], "class_name": ""}
    return {"video": row[video], "class_name": class_names[value] if class_names else str(value)}


def _with_videos(name: str, split: str, revision: str | None, streaming: bool) -> tuple[Any, str]:
    """The data set as it is, its videos not decoded, and the name of their column."""
    try:
        dataset: Any = load_dataset(name, split=split, streaming=streaming, revision=revision)
    except (DatasetNotFoundError, FileNotFoundError, ConnectionError, ValueError) as error:
        raise ValueError(f"cannot load the data set {name}: {error}") from error
    columns: dict[str, Any] = dict(dataset.features or {})
    video = next((column for column, kind in columns.items() if isinstance(kind, Video)), None)
    if video is None:
        raise ValueError(f"{name} has no video column; its columns are {', '.join(columns) or 'unknown'}")
    return dataset.cast_column(video, Video(decode=False)), video


def _splits(name: str, revision: str | None) -> list[str]:
    """Names of the splits of a data set."""
    try:
        return get_dataset_split_names(name, revision=revision)
    except (DatasetNotFoundError, FileNotFoundError, ConnectionError) as error:
        raise ValueError(f"cannot load the data set {name}: {error}") from error


def _folder_of_archives(name: str, revision: str | None) -> Path | None:
    """Folder with the tar archives of a data set, fetched if need be; None where it has none, or cannot be found."""
    folder = Path(name)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns="*.tar"))
        except (OSError, ValueError):  # whoever reads the data set next says why
            return None
    return folder if archives_below(folder) else None


def _label_column(name: str, columns: Features | dict[str, Any]) -> str:
    """The column that says the class."""
    for candidate in ("label", "labels", "class", "action", "cls"):
        if isinstance(columns.get(candidate), ClassLabel | Value):
            return candidate
    labels = [column for column, kind in columns.items() if isinstance(kind, ClassLabel)]
    if len(labels) != 1:
        raise ValueError(f"{name} has no column called label; its columns are {', '.join(columns)}")
    return labels[0]


def _stored(video: dict[str, Any], store: Path) -> str:
    """Path of a file with the clip's bytes, written if it is not there yet; "" for a clip without bytes."""
    content = video["bytes"]
    if content is None:
        return os.path.abspath(video["path"] or "")
    suffix = Path(video["path"] or "").suffix or ".video"
    path = store / f"{hashlib.sha256(content).hexdigest()[:32]}{suffix}"
    if not path.exists():
        store.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".unfinished-{os.getpid()}")
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
    return str(path.resolve())
