"""Any data set of the Hub (or a local folder in one of its layouts) as a stream, of which nothing is kept.

    for piece in stream_pieces("owner/name"):       # its archives or other files, which readers share
        for clips in piece.batches(16): ...

Tar archives are read from their begin to their end by the rules of webdataset_index.py, all else by `datasets`.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from datasets import Features, IterableDataset, Value, Video
from huggingface_hub import HfApi, HfFileSystem

from .clip_table import ClassedRows
from .hub_videos import divided_splits, label_column, split_names, stored_clip, with_videos
from .video_files import VideoRecord, files_below, is_video, require_inside
from .video_index import PARTS, VideoIndex, require_distinct
from .webdataset_index import part_of_archive, passing_clips


ARCHIVES = (".tar", ".tar.gz", ".tgz")
_STREAMED = Features({"video": Video(decode=False), "name": Value("string"), "class_name": Value("string")})


def hub_stream(name: str, split: str, revision: str | None = None) -> IterableDataset:
    """One split of a Hub data set as a stream, of which nothing is kept.

    Args:
        name: Repository, or a local folder, of tar archives, compressed or not, or of what `datasets.load_dataset`
            understands.
        split: One of its splits; of archives "train", "test" or "val", as their names say, or "other".
        revision: Branch, tag or commit of the repository.

    Returns:
        Rows of `video`, {"path", "bytes"}, `name`, "" where it has none in the data set, and `class_name`, "" where
        there is none; as many shards as there are archives or other files.

    Raises:
        ValueError: As in `hub_dataset`.
    """
    root, archives = _archives(name, revision)
    if archives:
        if split not in archives:
            raise ValueError(f"{name} has no archives for {split}; it has some for {', '.join(archives)}")
        places = {"root": root, "archives": archives[split]}  # of a list, datasets makes shards
        return IterableDataset.from_generator(_archived_rows, features=_STREAMED, gen_kwargs=places)
    dataset, video = with_videos(name, split, revision, streaming=True)
    columns: dict[str, Any] = dict(dataset.features)
    label = label_column(name, columns)
    named = {"video": video, "label": label, "class_names": getattr(columns[label], "names", None)}
    return dataset.map(_stream_row, remove_columns=list(columns), features=_STREAMED, fn_kwargs=named)


class StreamPiece(NamedTuple):
    """An archive or other file of a data set, which one reader goes through from its begin to its end.

    Attributes:
        name: The data set.
        key: Tells this piece, as its contents are now, from all others.
        split: Its split there.
        part: "train", "test", or "" where the set is not divided.
        stream: The split, as `hub_stream` gives it.
        number: Which of the stream's shards it is.
    """

    name: str
    key: str
    split: str
    part: str
    stream: IterableDataset
    number: int

    def __str__(self) -> str:
        return f"{self.name}, split {self.split}, file {self.number + 1} of {self.stream.num_shards}"

    def batches(self, size: int) -> Iterator[list[tuple[str, str, dict[str, Any]]]]:
        """The clips in their order, `size` at a time: name within the data set, class name, and path and bytes.

        Raises:
            Exception: Whatever `datasets` and the readers of files raise where a file is torn or cannot be fetched.
        """
        position = 0
        # Unlike `iter`, this does not divide the clips among the workers of a loader once more.
        for rows in self.stream.shard(self.stream.num_shards, self.number).iter(size):
            clips = []
            for video, name, class_name in zip(rows["video"], rows["name"], rows["class_name"], strict=True):
                file = os.path.basename(video["path"] or "")
                own = name or f"{self.split}/{self.number:05d}/{position:07d} {file}".strip()
                clips.append((own, class_name, streamed_clip(video, self.name)))
                position += 1
            yield clips


def stream_pieces(name: str, revision: str | None = None) -> list[StreamPiece]:
    """The archives and other files of a data set, none of which is fetched yet.

    Args:
        name: As in `hub_stream`.
        revision: Branch, tag or commit of the repository; what it is now is what will be read.

    Raises:
        ValueError: As in `hub_stream`.
    """
    divided = divided_splits(_splits(name, revision))
    version = _version(name, revision)
    commit = None if os.path.isdir(name) else version
    pieces = []
    for split, part in divided:
        stream = hub_stream(name, split, commit)
        for number in range(stream.num_shards):
            key = hashlib.sha256(f"{name}|{version}|{split}|{number}".encode(errors="surrogatepass")).hexdigest()[:24]
            pieces.append(StreamPiece(name, key, split, part, stream, number))
    return pieces


def is_read_in_place(name: str) -> bool:
    """Whether a data set is a folder here of video files or tar archives; all others are streamed."""
    return Path(name).is_dir() and any(
        is_video(file) or file.suffix.lower() == ".tar" for file in files_below(Path(name))
    )


def index_of_stream(name: str, clips: Iterable[tuple[VideoRecord, str]]) -> VideoIndex:
    """Index of clips with the names of their classes, which are numbered in alphabetical order; "" are left out.

    Raises:
        ValueError: No clip has a class, or two classes differ in spelling alone.
    """
    rows, unnamed = ClassedRows(), 0
    for record, class_name in clips:
        if class_name:
            rows.append(record, class_name)
        unnamed += not class_name
    class_names, records = rows.numbered()
    if not records:
        raise ValueError(f"{name}: none of its {unnamed} clips says its class")
    require_distinct(class_names, name)
    notes = (f"{unnamed} clips of {name} say no class and are left out",) if unnamed else ()
    split = "all" if records.splits == {""} else "1"
    return VideoIndex(Path(name).name, split, class_names, records.sorted_by_name(), root=name, notes=notes)


def streamed_index(name: str, store: str | Path, num_train: int, revision: str | None = None) -> VideoIndex:
    """Index of the clips that are kept of a stream: all of its split test, or validation, and the first of train.

    The classes are those of these clips, in alphabetical order.

    Args:
        name: As in `hub_stream`.
        store: Folder for the clips; each is written once, named by its contents.
        num_train: Training clips to keep.
        revision: Branch, tag or commit of the repository.

    Raises:
        ValueError: It has no such two splits, or as in `hub_stream`, `streamed_clip` and `index_of_stream`.
    """
    kept: list[tuple[VideoRecord, str]] = []
    divided = divided_splits(available := _splits(name, revision))
    if len({part for _, part in divided}) < len(PARTS):
        raise ValueError(f"{name} has no splits train and test, or validation; its splits are {', '.join(available)}")
    for split, part in divided:
        most = num_train if part == "train" else None
        for position, row in enumerate(islice(hub_stream(name, split, revision), most)):
            path = stored_clip(streamed_clip(row["video"], name), Path(store))
            file = os.path.basename(row["video"]["path"] or "")
            kept.append((VideoRecord(path, f"{split}/{position:07d} {file}".strip(), split=part), row["class_name"]))
    return index_of_stream(name, kept)


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


def _archives(name: str, revision: str | None) -> tuple[str, dict[str, list[str]]]:
    """The tar archives of a data set by the split that their names say, and where they lie.

    None of a data set that cannot be found: whoever reads it next says why.
    """
    if os.path.isdir(name):
        root, files = os.path.abspath(name), [file.relative_to(name).as_posix() for file in files_below(Path(name))]
    else:
        try:
            commit = HfApi().dataset_info(name, revision=revision).sha
            files = sorted(HfApi().list_repo_files(name, repo_type="dataset", revision=commit))
        except (OSError, ValueError):
            return "", {}
        root = f"hf://datasets/{name}@{commit}"
    archives: dict[str, list[str]] = {}
    for file in files:
        if file.lower().endswith(ARCHIVES):
            archives.setdefault(part_of_archive(file) or "other", []).append(file)
    return root, archives


def _archived_rows(root: str, archives: list[str]) -> Iterator[dict[str, Any]]:
    """Rows of a stream of archives; a function of this module, so that it can go to worker processes."""
    for file in archives:
        place = f"{root}/{file}"
        stem = re.sub(r"\.(tar|tar\.gz|tgz)$", "", file, flags=re.IGNORECASE)
        with _opened(root, place) as archive:
            for member, content, class_name in passing_clips(archive, place):
                video = {"path": f"{place}/{member.name}", "bytes": content}
                yield {"video": video, "name": f"{stem}/{member.name}", "class_name": class_name or ""}


def _opened(root: str, place: str) -> IO[bytes]:
    """An archive at its begin; of the Hub it comes in one request, and another where that breaks off."""
    if root.startswith("hf://"):
        return HfFileSystem().open(place, "rb", block_size=0)
    require_inside([root], [place], root)
    return open(place, "rb")


def _stream_row(row: dict[str, Any], video: str, label: str, class_names: list[str] | None) -> dict[str, Any]:
    """Video and class of a row; as `_archived_rows`."""
    value = row[label]
    if value is None or (class_names and value < 0):
        return {"video": row[video], "name": "", "class_name": ""}
    return {"video": row[video], "name": "", "class_name": class_names[value] if class_names else str(value)}


def _version(name: str, revision: str | None) -> str:
    """The commit of a repository, or what tells the files of a folder from what they were before."""
    if os.path.isdir(name):
        found = [(str(file.relative_to(name)), file.stat()) for file in files_below(Path(name))]
        told = "|".join(f"{file} {status.st_size} {status.st_mtime_ns}" for file, status in found)
        return hashlib.sha256(told.encode(errors="surrogatepass")).hexdigest()
    try:
        return HfApi().dataset_info(name, revision=revision).sha or ""
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot load the data set {name}: {error}") from error


def _splits(name: str, revision: str | None) -> list[str]:
    """Names of the splits that `hub_stream` knows."""
    return list(_archives(name, revision)[1]) or split_names(name, revision)
