"""Any data set of the Hub (or a local folder in one of its layouts) with a video column, in the columns used here."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets import (
    ClassLabel,
    Dataset,
    Features,
    Value,
    Video,
    config,
    get_dataset_split_names,
    load_dataset,
)
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HTTPError

from .clip_table import ClipRows
from .counting import counted
from .video_files import require_inside
from .video_index import PART_FOLDERS, VideoIndex, VideoRecord, require_distinct, video_features
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
    dataset, video = with_videos(name, split, revision, streaming=False)
    columns: dict[str, Any] = dict(dataset.features)
    label = label_column(name, columns)
    if not isinstance(columns[label], ClassLabel):
        dataset = dataset.class_encode_column(label)
    features = video_features(dataset.features[label].names)

    def in_our_columns(row: dict[str, Any], number: int) -> dict[str, Any]:
        clip = row[video] or {"path": None, "bytes": b""}
        path = clip["path"] or ""
        # Clips inside a Parquet file may share a name or have none: the row keeps them apart.
        clip_name = f"{number:07d} {os.path.basename(path)}".strip()
        group = str(row["group"]) if "group" in columns else ""
        return {
            "video": clip,
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


def hub_index(name: str, store: str | Path, revision: str | None = None) -> VideoIndex:
    """Index of a Hub data set that is kept here: its splits train and test, or all of its clips without such a pair.

    The test is "validation" where there is no "test". Of a data set in tar archives (WebDataset's form) these are
    fetched and then read where they lie. Clips without a class are left out with a note.

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
    divided = divided_splits(split_names(name, revision))
    places = [name] if os.path.isdir(name) else [constants.HF_HUB_CACHE, config.HF_CACHE_HOME]
    records, unnamed = ClipRows(), 0
    class_names: list[str] = []
    for split, part in divided:
        dataset = hub_dataset(name, split, revision=revision)
        names = dataset.features["label"].names
        class_names += [class_name for class_name in names if class_name not in class_names]
        for row in dataset:
            if row["label"] is None or row["label"] < 0:
                unnamed += 1
                continue
            path = stored_clip(row["video"], Path(store))
            if row["video"]["bytes"] is None:
                require_inside(places, [path], name)  # a table may name any file of this machine
            label = class_names.index(names[row["label"]])
            records.append(VideoRecord(path, f"{split}/{row['name']}", label, row["group"], part))
    require_distinct(class_names, name)
    table = records.table().sorted_by_name()
    split = "all" if table.splits <= {""} else "1"
    notes = note_of_unnamed(unnamed, name)
    return VideoIndex(Path(name).name, split, tuple(class_names), table, root=str(name), notes=notes)


def note_of_unnamed(number: int, name: str) -> tuple[str, ...]:
    """What to say of clips of which nobody says the class."""
    return (f"{counted(number, 'clip')} of {name} without a class left out",) if number else ()


def with_videos(name: str, split: str, revision: str | None, streaming: bool) -> tuple[Any, str]:
    """The data set as it is, its videos not decoded, and the name of their column."""
    with reaching(name):
        dataset: Any = load_dataset(name, split=split, streaming=streaming, revision=revision)
    columns: dict[str, Any] = dict(dataset.features or {})
    video = next((column for column, kind in columns.items() if isinstance(kind, Video)), None)
    if video is None:
        raise ValueError(f"{name} has no video column; its columns are {', '.join(columns) or 'unknown'}")
    return dataset.cast_column(video, Video(decode=False)), video


def split_names(name: str, revision: str | None) -> list[str]:
    """Names of the splits of a data set, as `datasets` finds them."""
    with reaching(name):
        return get_dataset_split_names(name, revision=revision)


@contextmanager
def reaching(name: str) -> Iterator[None]:
    """Say of which data set it is that something cannot be had."""
    try:
        yield
    except (HTTPError, OSError, ValueError) as error:
        is_path = name.startswith((".", "/", "~")) or name.count("/") > 1
        reason = "there is no such folder" if is_path and not os.path.isdir(name) else error
        raise ValueError(f"cannot load the data set {name}: {reason}") from error


def _folder_of_archives(name: str, revision: str | None) -> Path | None:
    """Folder with the tar archives of a data set, fetched if need be; None where it has none, or cannot be found."""
    folder = Path(name)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns="*.tar"))
        except (OSError, ValueError):  # whoever reads the data set next says why
            return None
    return folder if archives_below(folder) else None


def divided_splits(splits: Iterable[str]) -> list[tuple[str, str]]:
    """The splits that are used and the part that each is; all of them, with the part "", without such a pair."""
    called = {PART_FOLDERS[split.lower()]: split for split in splits if split.lower() in PART_FOLDERS}
    test = called.get("test", called.get("val"))
    if test is None or "train" not in called:
        return [(split, "") for split in splits]
    return [(called["train"], "train"), (test, "test")]


def label_column(name: str, columns: Features | dict[str, Any]) -> str:
    """The column that says the class."""
    for candidate in ("label", "labels", "class", "action", "cls"):
        if isinstance(columns.get(candidate), ClassLabel | Value):
            return candidate
    labels = [column for column, kind in columns.items() if isinstance(kind, ClassLabel)]
    if len(labels) != 1:
        hint = "; labels in .json files are read out of plain .tar archives: decompress (gunzip), or stream them"
        read_by_datasets = "__url__" in columns  # which makes columns of the endings in archives
        raise ValueError(
            f"{name} has no column called label; its columns are {', '.join(columns)}"
            f"{f'{hint} (data.clips_per_epoch)' if read_by_datasets else ''}"
        )
    return labels[0]


def stored_clip(video: dict[str, Any], store: Path) -> str:
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
