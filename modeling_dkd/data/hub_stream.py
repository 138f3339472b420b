"""Any data set of the Hub (or a local folder in one of its layouts) as a stream, of which nothing is kept.

    for piece in stream_pieces("owner/name"):       # its archives or other files, which readers share
        for clips in piece.batches(16): ...

Tar archives are read from their begin to their end by the rules of webdataset_index.py, all else by `datasets`.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from datasets import Features, IterableDataset, Value, Video
from huggingface_hub import HfApi, HfFileSystem, RepoFile

from .clip_table import ClassedRows
from .counting import counted
from .hub_videos import (
    divided_splits,
    label_column,
    note_of_unnamed,
    reaching,
    split_names,
    stored_clip,
    with_videos,
)
from .video_files import VideoRecord, files_below, is_video, require_inside
from .video_index import PARTS, VideoIndex, require_distinct
from .webdataset_index import part_of_archive, passing_clips, stem_of_archive


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
    if not archives:
        return _stream_of_rows(name, split, revision)
    if split not in archives:
        raise ValueError(f"{name} has no archives for {split}; it has some for {', '.join(archives)}")
    return _stream_of_archives(root, archives[split])


class StreamPiece(NamedTuple):
    """An archive or other file of a data set, which one reader goes through from its begin to its end.

    Attributes:
        name: The data set.
        file: The archive there, or which of the files of a split it is.
        version: Of the contents that will be read.
        split: Its split there.
        part: "train", "test", or "" where the set is not divided.
        stream: The split, as `hub_stream` gives it.
        number: Which of the stream's shards it is.
    """

    name: str
    file: str
    version: str
    split: str
    part: str
    stream: IterableDataset
    number: int

    def __str__(self) -> str:
        return f"{self.name}: {self.file}"

    @property
    def key(self) -> str:
        """What tells this piece with these contents from all others."""
        told = "|".join((self.name, self.file, self.version, self.split))
        return hashlib.sha256(told.encode(errors="surrogatepass")).hexdigest()[:24]

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
    version = _version(name, revision)
    commit = None if os.path.isdir(name) else version
    root, archives = _archives(name, commit)
    pieces = []
    for split, part in divided_splits(archives or split_names(name, commit)):
        stream = _stream_of_archives(root, archives[split]) if archives else _stream_of_rows(name, split, commit)
        num_files = stream.num_shards
        files = archives.get(split) or {f"file {n + 1} of {num_files} of {split}": version for n in range(num_files)}
        pieces += [StreamPiece(name, *file, split, part, stream, number) for number, file in enumerate(files.items())]
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
    class_names = rows.class_names
    records = rows.numbered(class_names)
    if not records:
        raise ValueError(f"{name}: of {counted(unnamed, 'clip')} none says its class")
    require_distinct(class_names, name)
    split = "all" if records.splits == {""} else "1"
    notes = note_of_unnamed(unnamed, name)
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
    available = list(_archives(name, revision)[1]) or split_names(name, revision)
    divided = divided_splits(available)
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


def _archives(name: str, revision: str | None) -> tuple[str, dict[str, dict[str, str]]]:
    """Where the tar archives of a data set lie; and their versions, by the split that their names say."""
    if os.path.isdir(name):
        root = os.path.abspath(name)
        below = ((file.relative_to(name).as_posix(), file) for file in files_below(Path(name)))
        files = {inner: _changed(file) for inner, file in below if inner.lower().endswith(ARCHIVES)}
    else:
        commit = _version(name, revision)
        root = f"hf://datasets/{name}@{commit}"
        with reaching(name):
            tree = HfApi().list_repo_tree(name, recursive=True, repo_type="dataset", revision=commit)
            found = ((entry.path, entry) for entry in tree if isinstance(entry, RepoFile))
            files = {inner: entry.blob_id for inner, entry in found if inner.lower().endswith(ARCHIVES)}
    archives: dict[str, dict[str, str]] = {}
    for file in sorted(files):
        archives.setdefault(part_of_archive(file) or "other", {})[file] = files[file]
    return root, archives


def _stream_of_archives(root: str, archives: Iterable[str]) -> IterableDataset:
    """Rows of `_STREAMED`; of a list, `datasets` makes shards."""
    places = {"root": root, "archives": list(archives)}
    return IterableDataset.from_generator(_archived_rows, features=_STREAMED, gen_kwargs=places)


def _archived_rows(root: str, archives: list[str]) -> Iterator[dict[str, Any]]:
    """Rows of a stream of archives; a function of this module, so that it can go to worker processes."""
    for file in archives:
        place = f"{root}/{file}"
        with _opened(root, place) as archive:
            for member, content, class_name in passing_clips(archive, place):
                video = {"path": f"{place}/{member.name}", "bytes": content}
                yield {
                    "video": video,
                    "name": f"{stem_of_archive(file)}/{member.name}",
                    "class_name": class_name or "",
                }


def _opened(root: str, place: str) -> IO[bytes]:
    """An archive at its begin; of the Hub it comes in one request, and another where that breaks off."""
    if root.startswith("hf://"):
        return HfFileSystem().open(place, "rb", block_size=0)
    require_inside([root], [place], root)
    return open(place, "rb")


def _stream_of_rows(name: str, split: str, revision: str | None) -> IterableDataset:
    """Rows of `_STREAMED` of what `datasets` can read."""
    dataset, video = with_videos(name, split, revision, streaming=True)
    columns: dict[str, Any] = dict(dataset.features)
    label = label_column(name, columns)
    named = {"video": video, "label": label, "class_names": getattr(columns[label], "names", None)}
    return dataset.map(_stream_row, remove_columns=list(columns), features=_STREAMED, fn_kwargs=named)


def _stream_row(row: dict[str, Any], video: str, label: str, class_names: list[str] | None) -> dict[str, Any]:
    """Video and class of a row; as `_archived_rows`."""
    clip, value = row[video] or {"path": None, "bytes": b""}, row[label]
    if value is None or (class_names and value < 0):
        return {"video": clip, "name": "", "class_name": ""}
    return {"video": clip, "name": "", "class_name": class_names[value] if class_names else str(value)}


def _version(name: str, revision: str | None) -> str:
    """The commit of a repository, or what tells the files of a folder from what they were before."""
    if os.path.isdir(name):
        told = "|".join(f"{file.relative_to(name)} {_changed(file)}" for file in files_below(Path(name)))
        return hashlib.sha256(told.encode(errors="surrogatepass")).hexdigest()
    with reaching(name):
        return HfApi().dataset_info(name, revision=revision, expand=["sha"]).sha or ""


def _changed(file: Path) -> str:
    """Size and time of last change."""
    status = file.stat()
    return f"{status.st_size} {status.st_mtime_ns}"
