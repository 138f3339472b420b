"""Frames of a clip wherever it lies: a file of its own, a part of a long video, or a member of a tar archive."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

import torch

from ..data.video_files import VideoRecord
from ..video_frames import VideoReadError, read_frames
from ..video_results import VideoFrames


def read_clip_frames(
    clip: VideoRecord | str, num_frames: int, num_clips: int = 1, generator: torch.Generator | None = None
) -> VideoFrames:
    """Decode the sampled frames of one clip; see `read_frames`.

    Args:
        clip: A record of an index, or the path of a file that is a clip.
        num_frames: Frames a clip.
        num_clips: Temporal clips that span it.
        generator: Jitters the frames inside their segments; None takes the centres.

    Raises:
        VideoReadError: The clip cannot be read (the message names its file, and its name in an archive).
        OSError: Its archive cannot be read.
    """
    record = VideoRecord(clip, clip) if isinstance(clip, str) else clip
    span = (record.start, record.end) if record.end else None
    with _own_file(record) as path:
        try:
            return read_frames(path, num_frames, num_clips, generator, span=span)
        except VideoReadError as error:
            raise VideoReadError(str(error).replace(path, _place(record))) from error


def _place(record: VideoRecord) -> str:
    """Where a clip lies, for messages."""
    return f"{record.path}: {record.name}" if record.size else record.path


@contextmanager
def _own_file(record: VideoRecord) -> Iterator[str]:
    """Path of a file that holds the clip alone; for a member of an archive a copy that is there until it is read.

    Decoders look a file over more than once, so a member is copied whole; its name goes into no path.
    """
    if not record.size:
        yield record.path
        return
    with NamedTemporaryFile(prefix="clip-", suffix=Path(record.name).suffix[:8]) as copy:
        with open(record.path, "rb") as archive:
            archive.seek(record.offset)
            copy.write(archive.read(record.size))
        copy.flush()
        yield copy.name
