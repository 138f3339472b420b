"""Frames of a video file, decoded exactly, with PyAV unless torchcodec is asked for.

Decoding runs in sequence, never by seeking to index / rate (torchcodec's by seeking to key frames), so the frames are
those of a full decode whatever the timestamps say; of a part of a film no more is decoded than leads to it. Pixels are
as stored (RGB, 0-255); non-square pixels are not stretched, turns and flips that the file asks for are applied.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from .frame_sampling import ArrayOfInt, indices_at, segment_positions
from .picture_files import PictureFile, PictureFrames, may_be_an_image
from .torchcodec_frames import REMEDY, read_with_torchcodec, video_decoder
from .video_container import open_container
from .video_decoding import OpenVideo
from .video_results import VideoFrames, VideoReadError, VideoWindow, unreadable


BACKENDS = ("pyav", "torchcodec")


def read_frames(
    path: str | os.PathLike[str],
    num_frames: int,
    num_clips: int = 1,
    generator: torch.Generator | None = None,
    backend: str = "pyav",
    span: tuple[float, float] | None = None,
) -> VideoFrames:
    """Decodes the sampled frames of one video or image file.

    Args:
        path: A file on this machine; any characters, never a URL. An image counts as a video of one frame, one that
            moves or has pages (APNG, AVIF, GIF, TIFF, WebP) as a video of all its pictures.
        num_frames: Frames a clip.
        num_clips: Clips that span the video, see `segment_positions`.
        generator: Jitters the frames inside their segments; None takes the centres.
        backend: "pyav", or "torchcodec" where that is installed: faster in long H.264, H.265, VP9 and AV1 films in
            MP4, QuickTime, Matroska and WebM, of which it decodes only what leads to the frames asked for, so that
            damage inside of packets can go unseen. The frames are the same; a file of which they are not is refused.
        span: Start and end in seconds since the first frame: the part of the video that is sampled; None is all of it.
            Its frames are those of a full decode. A film that looks sound is decoded no further than to its end, and
            H.264 and H.265 in MP4, QuickTime and Matroska from the last picture before it that begins anew; the rest
            is looked over for what is missing, but damage inside of pictures that are not decoded goes unseen.

    Returns:
        num_clips * num_frames frames, clip after clip.

    Raises:
        VideoReadError: The file is missing, empty, no video, cut off, or more than a tenth of it is damaged. Less
            damage is logged as a warning and told by `damage`. Or torchcodec is not used for it, or it ends before
            `span` begins.
        ValueError: No such backend, or torchcodec is not there or does not load.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not {backend!r}")
    if backend == "torchcodec":
        video_decoder()  # says at once where there is none
    positions = segment_positions(num_frames, num_clips, generator)

    with _opened(_existing_file(path)) as video:
        first, behind = (0, None) if span is None else video.frames_between(*span)

        def indices_of(total_frames: int) -> ArrayOfInt:
            low, high = min(first, total_frames - 1), min(behind or total_frames, total_frames)
            return low + indices_at(positions, max(1, high - low)).reshape(-1)

        if backend == "pyav":
            return video.read(indices_of) if isinstance(video, PictureFrames) else video.read(indices_of, behind)
        if isinstance(video, PictureFrames):
            raise unreadable(video.file.path, f"torchcodec is not used for image files; {REMEDY}")
        return read_with_torchcodec(video, indices_of)


def read_windows(
    path: str | os.PathLike[str], num_frames: int, window_seconds: float, stride_seconds: float | None = None
) -> Iterator[VideoWindow]:
    """Decodes a long video once and gives its windows in order, each with the frames seen at its segment centres.

    Windows start every `stride_seconds` (default: one after the other); the last one is moved back to end with the
    video, so all have the same length. A video shorter than a window is one window. Frames are taken by their times,
    each is decoded and converted once however many windows share it, and let go after the last of these. A window of
    which most frames cannot be decoded, or in which the video has none, is left out.

    Raises:
        VideoReadError: As `read_frames`; damage can also show only while windows are already being given.
        ValueError: A window or stride that is not positive.
    """
    stride = window_seconds if stride_seconds is None else stride_seconds
    if not (window_seconds > 0 and stride > 0):
        raise ValueError(f"windows of {window_seconds} s every {stride} s: both must be above 0")
    segment_positions(num_frames)  # refuses a bad number of frames before the file is opened
    with _opened(_existing_file(path)) as video:
        yield from video.windows(num_frames, window_seconds, stride)


def _existing_file(path: str | os.PathLike[str]) -> Path:
    """The path, if it is a regular file with something in it (opening a pipe or a device could wait for ever)."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise VideoReadError(
            f"cannot read video {str(path)!r}: {getattr(error, 'strerror', None) or error}"
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise VideoReadError(f"cannot read video {str(path)!r}: it is not a regular file")
    if status.st_size == 0:
        raise VideoReadError(f"cannot read video {str(path)!r}: the file is empty")
    return Path(path)


@contextmanager
def _opened(path: Path) -> Iterator[PictureFrames | OpenVideo]:
    """The file, open as what it holds."""
    pictures = PictureFile.open(path) if may_be_an_image(path) else None
    if pictures is None:
        with open_container(path) as container:
            yield OpenVideo(path, container)
    else:
        yield PictureFrames(pictures)
