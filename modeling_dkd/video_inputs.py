"""The forms in which people have videos: files, bytes, rows of `datasets`, decoders, frames in memory."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from .frame_sampling import Views, segment_indices
from .frame_tensors import PIL_IMAGE, describe, frame_tensors, is_array
from .video_frames import VideoFrames, VideoReadError, read_frames


BYTES = bytes | bytearray | memoryview


def is_column(value: Any) -> bool:
    """Whether this is a sequence of rows that are made when they are asked for: `ds["video"]` of `datasets`."""
    return isinstance(value, Sequence) and not isinstance(value, str | list | tuple | VideoFrames | BYTES)


def is_one_video(value: Any) -> bool:
    """Whether this is a single video, in whatever form but an array or a list of frames."""
    return (
        isinstance(value, str | os.PathLike | VideoFrames | dict | BYTES) or is_open_file(value) or is_decoder(value)
    )


def is_open_file(value: Any) -> bool:
    """Whether this can be read as a file."""
    return callable(getattr(value, "read", None))


def is_decoder(value: Any) -> bool:
    """Whether this is a `VideoDecoder` of torchcodec, as `datasets.Video` gives it."""
    return callable(getattr(value, "get_frames_at", None))


def list_of_videos(videos: Any) -> list[Any]:
    """Videos of a batch; a list of frames is one video, a row of a column is one each.

    Raises:
        ValueError: It is nothing of the kind.
    """
    if is_one_video(videos):
        return [videos]
    if is_array(videos) and videos.ndim in (4, 5):
        return [videos] if videos.ndim == 4 else list(videos)
    if is_column(videos):
        return list(videos)
    if hasattr(videos, "column_names"):
        raise ValueError(f"videos are a whole data set; give the column that holds them, one of {videos.column_names}")
    if not isinstance(videos, list | tuple):
        raise ValueError(f"videos must be a list, an array of 4 or 5 dimensions or a path, not {describe(videos)}")
    if videos and (isinstance(videos[0], PIL_IMAGE) or (is_array(videos[0]) and videos[0].ndim <= 3)):
        return [videos]
    return list(videos)


def frames_of(video: Any, views: Views | None, num_frames: int, backend: str | None = None) -> list[torch.Tensor]:
    """Frames of one video as (n, 3, H, W) uint8 tensors in order, neighbours of one size joined.

    Args:
        video: In any of the forms.
        views: Which frames; None: all frames of a video in memory, `num_frames` of any other.
        num_frames: At the centres of as many equal segments.
        backend: What decodes a file, see `read_frames`; None: as there.

    Raises:
        ValueError: It is no video, or a backend is given for what is no file.
        VideoReadError: It cannot be read (a ValueError that names it).
    """
    sampled = views or Views(num_frames)
    with file_of(video) as found:
        if isinstance(found, str | os.PathLike):
            chosen = backend or "pyav"
            return [read_frames(found, sampled.num_frames, sampled.num_clips, backend=chosen).pixels]
        if backend is not None:
            raise ValueError("backend is an option for files, but these frames are decoded already or by a decoder")
        if is_decoder(found):
            return frame_tensors(_decoded(found, sampled))
        return frame_tensors(found, views)


def _decoded(decoder: Any, views: Views) -> torch.Tensor:
    """Frames (n, 3, H, W) that a decoder of torchcodec gives."""
    try:
        indices = segment_indices(len(decoder), views.num_frames, views.num_clips).reshape(-1)
        return decoder.get_frames_at(indices=indices.tolist()).data
    except (RuntimeError, IndexError) as error:
        raise VideoReadError(f"a {type(decoder).__name__} cannot read its video: {error}") from error


@contextmanager
def file_of(video: Any) -> Iterator[Any]:
    """The video as given, or a file with what bytes, an open file or a row {"path", "bytes"} of `datasets` hold."""
    name = None
    if isinstance(video, dict):
        if not video.keys() >= {"path", "bytes"}:
            raise ValueError(
                f"a row must have path and bytes, as datasets.Video(decode=False) gives, not {sorted(video)}"
            )
        name = video["path"]
        video = video["bytes"] if video["bytes"] is not None else video["path"]
        if video is None:
            raise ValueError("a row has neither path nor bytes; this clip is missing from the data set")
    if not isinstance(video, BYTES) and not is_open_file(video):
        yield video
        return
    name = str(name or getattr(video, "name", None) or "the bytes of a video")
    suffix = Path(name).suffix
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("video" + (suffix if re.fullmatch(r"\.\w{1,8}", suffix) else ""))
        with path.open("wb") as file:
            _copy(video, file, name)
        try:
            yield path
        except VideoReadError as error:
            raise VideoReadError(str(error).replace(str(path), name)) from error


def _copy(video: Any, file: Any, name: str) -> None:
    """Write the bytes, or what is still to be read of an open file."""
    if isinstance(video, BYTES):
        file.write(video)
        return
    try:
        shutil.copyfileobj(video, file)
    except (TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{name} is open as text; open it as bytes, with mode 'rb'") from error
