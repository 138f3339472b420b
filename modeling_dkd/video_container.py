"""Opening a video file with PyAV: what is read as a video, which of its tracks, and why not in words."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .container_length import lacks_index
from .video_results import VideoReadError, unreadable


try:
    import av
except ImportError:  # reading files needs PyAV; frames that are in memory already do not
    av = None  # type: ignore[assignment]


# Containers that hold video. Left out on purpose: playlists that open other files, and renderers of plain text.
CONTAINERS = (
    "avi,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpeg,mpegts,mpegvideo,m4v,h264,hevc,obu,flv,live_flv,asf,ogg,gif,apng,"
    "ivf,mjpeg,nut,mxf,rm,dv,swf,wtv,vc1,h263,h261,png_pipe,jpeg_pipe,bmp_pipe,webp_pipe,yuv4mpegpipe"
)
# Opened only to say that they hold sound alone.
SOUND_CONTAINERS = "aac,ac3,aiff,amr,ape,au,caf,dts,eac3,flac,mp3,oma,tta,voc,w64,wav,wv"


def container_of(path: Path, formats: str = CONTAINERS) -> Any:
    """The file as a container of streams; it opens nothing but this file."""
    # "file:" keeps names with colons, # or % from being taken for something else.
    options = {"protocol_whitelist": "file", "format_whitelist": formats}
    return av.open(f"file:{path}", options=options, metadata_errors="replace")


@contextmanager
def open_container(path: Path) -> Iterator[Any]:
    """Opens a file, closes it again, and turns every failure on the way into a VideoReadError that names it."""
    if av is None:
        raise VideoReadError(f"cannot read video {str(path)!r}: PyAV is not installed; run: pip install av")
    opened = False
    try:
        with container_of(path) as container:
            opened = True
            yield container
    except VideoReadError:
        raise
    except (av.FFmpegError, OSError, EOFError, MemoryError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if isinstance(error, av.ArgumentError | av.InvalidDataError | av.EOFError):
            reason = "its frames cannot be read" if opened else _why_not_opened(path, error)
        raise VideoReadError(f"cannot read video {str(path)!r}: {reason}") from error


def _why_not_opened(path: Path, error: Exception) -> str:
    """Why FFmpeg takes a file for no video, in words."""
    if lacks_index(path):
        return "its index (moov) is missing: it is cut off, or its recording was never finished"
    if isinstance(error, av.EOFError):
        return "it holds no frames"
    try:
        with container_of(path, SOUND_CONTAINERS):
            return "it holds no video stream, only sound"
    except av.FFmpegError:
        return "it is in no format that is read as a video, or its beginning is damaged"


def _video_streams(container: Any) -> list[Any]:
    """Streams of moving pictures: no covers and no previews that are marked as such."""
    mark = av.stream.Disposition
    marks = mark.attached_pic | mark.timed_thumbnails | mark.still_image
    return [stream for stream in container.streams.video if not stream.disposition & marks]


def chosen_stream(path: Path, container: Any) -> Any:
    """The default stream, else the one with most pixels, as ffmpeg chooses; no single picture beside a video.

    Raises:
        VideoReadError: There is none, or none that can be decoded, or they are the tiles of one picture.
    """
    tiles = [s for s in container.streams.video if s.disposition & av.stream.Disposition.dependent and s.frames == 1]
    if tiles:
        raise unreadable(path, f"it is a picture in {len(tiles)} tiles; convert it to JPEG or PNG")
    streams = _video_streams(container)
    if not streams:
        raise unreadable(path, "it holds no video stream")
    known = [stream for stream in streams if stream.codec_context is not None]
    if not known:
        raise unreadable(path, "there is no decoder for its video stream")
    if len(known) == 1:
        return known[0]
    packets = dict.fromkeys((stream.index for stream in known), 0)
    with container_of(path) as again, suppress(av.FFmpegError):  # not all containers can be rewound
        for packet in again.demux([again.streams[index] for index in packets]):
            packets[packet.stream_index] += packet.size > 0
    pixels = {stream.index: stream.codec_context.width * stream.codec_context.height for stream in known}
    default = av.stream.Disposition.default

    def rank(stream: Any) -> tuple[bool, bool, int]:
        count = packets[stream.index]
        return count > 1, bool(stream.disposition & default), pixels[stream.index] if count else 0

    return max(known, key=rank)
