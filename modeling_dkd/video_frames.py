"""Frames of a video file, decoded exactly with PyAV.

Decoding runs in sequence, never by seeking to index / rate, so the frames are those of a full decode whatever the
timestamps say. Pixels are as stored (RGB, 0-255); non-square pixels are not stretched, turns and flips that the file
asks for are applied.
"""

import logging
import os
import re
import stat
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .container_length import lacks_index, missing_bytes, unreadable_bytes
from .frame_sampling import ArrayOfFloat, ArrayOfInt, indices_at, segment_positions
from .h26x_packets import PacketUnits
from .picture_files import UNREADABLE, PictureFile


try:
    import av
except ImportError:  # reading files needs PyAV; frames that are in memory already do not
    av = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".apng", ".avif", ".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
# Containers that hold video. Left out on purpose: playlists that open other files, and renderers of plain text.
CONTAINERS = (
    "avi,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpeg,mpegts,mpegvideo,m4v,h264,hevc,obu,flv,live_flv,asf,ogg,gif,apng,"
    "ivf,mjpeg,nut,mxf,rm,dv,swf,wtv,vc1,h263,h261,png_pipe,jpeg_pipe,bmp_pipe,webp_pipe"
)
# Opened only to say that they hold sound alone.
SOUND_CONTAINERS = "aac,ac3,aiff,amr,ape,au,caf,dts,eac3,flac,mp3,oma,tta,voc,w64,wav,wv"
# Codecs of which every packet is one picture, so that packets and pictures can be counted against each other.
PICTURE_A_PACKET = frozenset({"h264", "hevc", "mpeg1video", "mpeg2video"})
# Above this share of lost or damaged frames a file is refused instead of read with a warning.
DAMAGE_LIMIT = 0.1
MAX_PIXELS = 1 << 26
# Compressed packets of smaller files are kept in memory between counting and decoding; larger files are read twice.
PACKETS_IN_MEMORY = 1 << 28


class VideoReadError(ValueError):
    """A file cannot be read as a video; the message names the file and the reason."""


@dataclass(frozen=True)
class VideoFrames:
    """Frames taken from one file.

    Attributes:
        pixels: RGB frames, (T, 3, H, W) uint8, 0-255, channels last in memory.
        indices: Position of each frame in the full decode, (T,) int64.
        times: Time of each frame since the first one, (T,) seconds, float64; NaN where the file does not tell.
        total_frames: Number of frames that the file holds.
        damaged_frames: Lost or damaged frames that were met on the way; 0 for a sound file. Codecs carry no checksums,
            so a few flipped bits can pass for another valid picture.
        missing_bytes: Bytes that the file lacks at its end, at least; 0 for a sound file.
    """

    pixels: torch.Tensor
    indices: ArrayOfInt
    times: ArrayOfFloat
    total_frames: int
    damaged_frames: int = 0
    missing_bytes: int = 0

    @property
    def damage(self) -> str:
        """What is wrong with the file, as far as it was read, in a few words; "" for a sound one."""
        return _damage(self.damaged_frames, self.total_frames, self.missing_bytes)


@dataclass(frozen=True)
class VideoWindow:
    """One window of a long video: `start` and `end` in seconds since its first frame, and frames of it."""

    start: float
    end: float
    frames: VideoFrames


def read_frames(
    path: str | os.PathLike[str], num_frames: int, num_clips: int = 1, generator: torch.Generator | None = None
) -> VideoFrames:
    """Decodes the sampled frames of one video or image file.

    Args:
        path: A file on this machine; any characters, never a URL. An image counts as a video of one frame, one that
            moves or has pages (APNG, AVIF, GIF, TIFF, WebP) as a video of all its pictures.
        num_frames: Frames a clip.
        num_clips: Clips that span the video, see `segment_positions`.
        generator: Jitters the frames inside their segments; None takes the centres.

    Returns:
        num_clips * num_frames frames, clip after clip.

    Raises:
        VideoReadError: The file is missing, empty, no video, cut off, or more than a tenth of it is damaged. Less
            damage is logged as a warning and told by `damage`.
    """
    positions = segment_positions(num_frames, num_clips, generator)
    with _opened(_existing_file(path)) as video:
        return video.read(lambda total_frames: indices_at(positions, total_frames).reshape(-1))


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


def _may_be_an_image(path: Path) -> bool:
    """Whether a file is called an image, or begins as one of the formats of which FFmpeg may see one picture alone."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    try:
        with open(path, "rb") as file:
            start = file.read(12)
    except OSError:
        return False  # opening it again will say why
    return start.startswith((b"II*\0", b"MM\0*", b"\x89PNG")) or start[8:12] in (b"WEBP", b"avif", b"avis")


@contextmanager
def _opened(path: Path) -> Iterator["_Pictures | _OpenVideo"]:
    """The file, open as what it holds."""
    pictures = PictureFile.open(path) if _may_be_an_image(path) else None
    if pictures is None:
        with _open_video(path) as video:
            yield video
    else:
        yield _Pictures(pictures)


def _container(path: Path, formats: str = CONTAINERS) -> Any:
    """The file as a container of streams; it opens nothing but this file."""
    # "file:" keeps names with colons, # or % from being taken for something else.
    options = {"protocol_whitelist": "file", "format_whitelist": formats}
    return av.open(f"file:{path}", options=options, metadata_errors="replace")


@contextmanager
def _open_video(path: Path) -> Iterator["_OpenVideo"]:
    """Opens a file, closes it again, and turns every failure on the way into a VideoReadError that names it."""
    if av is None:
        raise VideoReadError(f"cannot read video {str(path)!r}: PyAV is not installed; run: pip install av")
    opened = False
    try:
        with _container(path) as container:
            opened = True
            yield _OpenVideo(path, container)
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
        with _container(path, SOUND_CONTAINERS):
            return "it holds no video stream, only sound"
    except av.FFmpegError:
        return "it is in no format that is read as a video, or its beginning is damaged"


def _video_streams(container: Any) -> list[Any]:
    """Streams of moving pictures: no covers and no previews that are marked as such."""
    mark = av.stream.Disposition
    marks = mark.attached_pic | mark.timed_thumbnails | mark.still_image
    return [stream for stream in container.streams.video if not stream.disposition & marks]


def _chosen_stream(path: Path, container: Any) -> Any:
    """The default stream, else the one with most pixels, as ffmpeg chooses; no single picture beside a video.

    Raises:
        VideoReadError: There is none, or none that can be decoded.
    """
    streams = _video_streams(container)
    if not streams:
        raise _unreadable(path, "it holds no video stream")
    known = [stream for stream in streams if stream.codec_context is not None]
    if not known:
        raise _unreadable(path, "there is no decoder for its video stream")
    if len(known) == 1:
        return known[0]
    packets = dict.fromkeys((stream.index for stream in known), 0)
    with _container(path) as again, suppress(av.FFmpegError):  # not all containers can be rewound
        for packet in again.demux([again.streams[index] for index in packets]):
            packets[packet.stream_index] += packet.size > 0
    pixels = {stream.index: stream.codec_context.width * stream.codec_context.height for stream in known}
    default = av.stream.Disposition.default

    def rank(stream: Any) -> tuple[bool, bool, int]:
        count = packets[stream.index]
        return count > 1, bool(stream.disposition & default), pixels[stream.index] if count else 0

    return max(known, key=rank)


class _Pictures:
    """An image file, its pictures as frames."""

    def __init__(self, file: PictureFile) -> None:
        self.file = file

    def read(self, indices_of: Callable[[int], ArrayOfInt]) -> VideoFrames:
        """The pictures at `indices_of(number of pictures)`."""
        indices = indices_of(self.file.announced)
        kept, total = self._take(set(indices.tolist()))
        if total != self.file.announced:
            indices = indices_of(total)
            kept, total = self._take(set(indices.tolist()))
        damaged = self._lost(total)
        _warn_of_damage(self.file.path, damaged, total, 0)
        return self._frames(kept, indices, total, damaged)

    def windows(self, num_frames: int, window_seconds: float, stride: float) -> Iterator[VideoWindow]:
        """Windows in order of their start."""
        total = self._take(set())[1]
        times, damaged = self.file.times, self._lost(total)
        if np.isnan(times).any():
            raise _unreadable(self.file.path, "its pages carry no times; take frames by number instead")
        spacing = times[-1] / (total - 1) if total > 1 else 0.0
        chosen = list(_window_indices(times, times[-1] + spacing, num_frames, window_seconds, stride))
        kept, _ = self._take({index for _, _, indices in chosen for index in indices.tolist()})
        _warn_of_damage(self.file.path, damaged, total, 0)
        for start, end, indices in chosen:
            yield VideoWindow(start, end, self._frames(kept, indices, total, damaged))

    def _take(self, wanted: set[int]) -> tuple[dict[int, torch.Tensor], int]:
        """The wanted pictures by index, and how many there are."""
        kept: dict[int, torch.Tensor] = {}
        count, size = 0, None
        try:
            for picture in self.file.pictures():
                size = size or picture.shape
                if picture.shape != size:
                    raise _unreadable(self.file.path, "its pages have different sizes")
                if count in wanted:
                    kept[count] = picture
                count += 1
        except VideoReadError:
            raise
        except UNREADABLE as error:
            if not count:
                raise _unreadable(self.file.path, f"its picture cannot be decoded: {error}") from error
        return kept, count

    def _lost(self, total: int) -> int:
        lost = self.file.total - total
        _refuse_if_damaged(self.file.path, lost, self.file.total)
        return lost

    def _frames(self, kept: dict[int, torch.Tensor], indices: ArrayOfInt, total: int, damaged: int) -> VideoFrames:
        pixels = torch.stack([kept[index].permute(1, 2, 0) for index in indices.tolist()]).permute(0, 3, 1, 2)
        return VideoFrames(pixels, indices, self.file.times[indices], total, damaged)


class _OpenVideo:
    """One open file: its packets counted, ready to be decoded once."""

    def __init__(self, path: Path, container: Any) -> None:
        self.path = path
        self.container = container
        self.stream = _chosen_stream(path, container)
        self.decoder = self.stream.codec_context
        if not 0 <= self.stream.width * self.stream.height <= MAX_PIXELS:
            raise self.error(f"its frames of {self.stream.width} x {self.stream.height} pixels are too large")
        self.decoder.thread_count = 1  # one core a worker; also what makes skipping single frames exact
        self.failed_packets = self.corrupt_frames = self.incomplete_packets = self.num_packets = 0
        self.last_dts = -1  # in an AVI the number of the last frame, with those that the encoder dropped
        self.interlaced = False
        self.hidden: set[int | None] = set()  # timestamps of pictures that an edit list leaves out
        self.keys: list[bool] = []  # of each packet, whether decoding can begin there
        self.packets: list[Any] | None = [] if path.stat().st_size <= PACKETS_IN_MEMORY else None
        # An index written by the muxer lists every packet; empty ones stand for frames that the encoder dropped.
        self.format = container.format.name.split(",")[0]
        listed = self._listed_packets()
        self.timestamps = self._count()
        self.unread_packets = self.failed_packets
        if not self.timestamps:
            raise self.error("it holds no frames")
        self.starts_without_key = any(self.keys) and not self.keys[0]
        self.missing_bytes = missing_bytes(path, container.format.name)
        self.missing_frames = self._missing_frames(listed)
        self._refuse_if_damaged(max(self.missing_frames, self.incomplete_packets))

    def error(self, reason: str) -> VideoReadError:
        return _unreadable(self.path, reason)

    def _listed_packets(self) -> int:
        """Packets with something in them that the index lists; 0 where there is none."""
        return sum(entry.size > 0 for entry in self.stream.index_entries) if self.format in ("avi", "mov") else 0

    def _demux(self, container: Any) -> Iterator[Any]:
        """Packets of the video stream from the start, the empty one that flushes the decoder last."""
        try:
            yield from container.demux(container.streams[self.stream.index])
        except av.FFmpegError:
            self.failed_packets += 1  # what has been read up to here can still be decoded

    def _count(self) -> list[int | None]:
        """Timestamps of all frames to expect, ascending; None for packets without one, which come last."""
        timestamps: list[int | None] = []
        for packet in self._demux(self.container):
            if self.packets is not None:
                self.packets.append(packet)
            self.incomplete_packets += packet.is_corrupt
            if packet.size:
                self.num_packets += 1
                self.last_dts = max(self.last_dts, -1 if packet.dts is None else packet.dts)
                self.keys.append(packet.is_keyframe)
                if packet.is_discard:
                    self.hidden.add(packet.pts)
                else:
                    timestamps.append(packet.pts)
        self.hidden -= {None, *timestamps}
        known = sorted(pts for pts in timestamps if pts is not None)
        return [*known, *[None] * (len(timestamps) - len(known))]

    def _packets(self) -> Iterator[Any]:
        """Packets to decode, from the first, followed by what flushes the decoder."""
        if self.packets is not None:
            yield from self.packets
        else:
            with _container(self.path) as again:  # not all containers can be rewound
                yield from self._demux(again)
        if self.packets is None or not self.packets or self.packets[-1].size:
            yield None

    def _frames(self, packets: Iterator[Any] | None = None) -> Iterator[Any]:
        """Decodes in sequence; packets that cannot be decoded are counted and passed over."""
        groundless = self.starts_without_key  # what a decoder makes up before the first picture that needs no other
        for packet in self._packets() if packets is None else packets:
            try:
                frames = self.decoder.decode(packet)
            except av.EOFError:
                return
            except av.FFmpegError:
                self.failed_packets += 1
                continue
            for frame in frames:
                if frame.pts in self.hidden:
                    continue  # most decoders leave it out themselves
                groundless = groundless and not (frame.key_frame or frame.pict_type == av.video.frame.PictureType.I)
                self.corrupt_frames += frame.is_corrupt or groundless
                self.interlaced = self.interlaced or frame.interlaced_frame
                yield frame

    def _missing_frames(self, listed: int) -> int:
        """Frames that must be there and are not: those that an index lists, or else what other signs agree on.

        Headers and tags alone are often wrong (edit lists, cuts, sound that goes on), so they are asked only where the
        container itself shows that bytes are missing, and then the middle one of all signs counts.
        """
        lost = max(0, max(listed, self._listed_packets()) - self.num_packets)
        hole = unreadable_bytes(self.path, self.container.format.name)
        if self.format == "avi":
            # Its index comes last, and FFmpeg makes up one that is not there; its header comes first.
            doubtful = self.missing_bytes or hole or not listed
            return max(lost, self.stream.frames - max(self.num_packets, self.last_dts + 1)) if doubtful else lost
        if self.format == "mov" and self.stream.frames:
            return lost
        count, size = len(self.timestamps), self.path.stat().st_size
        announced = self._announced_ends()
        if self.missing_bytes:
            signs = [round(count * self.missing_bytes / size), *(self._frames_before(end) for end in announced)]
            lost = max(lost, sorted(signs)[(len(signs) - 1) // 2])
        if hole:
            share = round(count * hole / max(1, size - hole))
            lost = max(lost, min(share, self._frames_before(max(announced, default=0.0), in_gaps=True)))
        return lost

    def _announced_ends(self) -> list[float]:
        """Ends that a Matroska file announces for stream and container, seconds."""
        if self.format != "matroska":
            return []
        ends = (_tagged_seconds(self.stream), (self.container.duration or 0) / av.time_base)
        return [end for end in ends if end]

    def _frames_before(self, end: float, in_gaps: bool = False) -> int:
        """Frames that fit between the last one and this time in seconds, counted from 0 or from the first frame.

        With `in_gaps` also those that fit between the others, at the most frequent distance.
        """
        known = np.array([pts for pts in self.timestamps if pts is not None], dtype=np.float64)
        if len(known) < 2 or known[-1] == known[0]:
            return 0
        spacing = np.median(np.diff(known)) if in_gaps else np.diff(known).mean()
        end_of_last = known[-1] - min(0.0, known[0]) + spacing
        fitting = max(0.0, end / float(self.stream.time_base) - end_of_last) / spacing if spacing else 0.0
        if in_gaps and spacing:
            fitting += (known[-1] - known[0]) / spacing - (len(known) - 1)
        return int(fitting + 1e-6)

    def _refuse_if_damaged(self, damaged: int) -> None:
        _refuse_if_damaged(self.path, damaged, len(self.timestamps) + self.missing_frames)

    def _damaged_frames(self, found: int) -> int:
        """Damage met so far; warns of it, and raises VideoReadError where it is too much."""
        lost = max(self.failed_packets, self.missing_frames, self.incomplete_packets)
        counted = self.decoder.name in PICTURE_A_PACKET and not self.interlaced
        if lost or self.corrupt_frames or self.starts_without_key or counted:
            # With other damage around, frames missing in the middle are lost; without, the encoder dropped them.
            lost = max(lost, len(self.timestamps) + self.missing_frames - found)
        damaged = lost + self.corrupt_frames
        self._refuse_if_damaged(damaged)
        _warn_of_damage(self.path, damaged, found, self.missing_bytes)
        return damaged

    def read(self, indices_of: Callable[[int], ArrayOfInt]) -> VideoFrames:
        """The frames at `indices_of(number of frames)`."""
        total = len(self.timestamps)
        indices = indices_of(total)
        kept = self._read_by_timestamp(indices)
        times = self.timestamps
        if kept is None:
            kept, times = self._read_in_sequence(indices_of)
            total = len(times)
            indices = indices_of(total)
        damaged = self._damaged_frames(total)
        return self._assemble([kept[index] for index in indices.tolist()], indices, times, damaged)

    def _read_by_timestamp(self, indices: ArrayOfInt) -> dict[int, Any] | None:
        """The wanted frames by index, without decoding frames that are unwanted and that no other frame refers to.

        Exact, because the timestamps of these containers are those of the frames that come out. None where that does
        not hold, or not every frame came that should; then the file is decoded in sequence.
        """
        units = PacketUnits.of(self.decoder.name, self.decoder.extradata)
        if units is None or self.format not in ("mov", "matroska") or self.starts_without_key:
            return None
        if self.timestamps[-1] is None or len(set(self.timestamps)) < len(self.timestamps):
            return None
        index_at = {self.timestamps[index]: index for index in indices.tolist()}
        expected = len(self.timestamps)

        def packets_with_skipping(units: PacketUnits) -> Iterator[Any]:
            nonlocal expected
            for packet in self._packets():
                self.decoder.skip_frame = "DEFAULT"
                if packet is not None and packet.size and packet.pts not in index_at:
                    reference = units.is_reference(memoryview(packet))
                    if reference is None:
                        self.failed_packets += 1
                    elif not reference:
                        self.decoder.skip_frame = "NONREF"
                        expected -= not packet.is_discard
                yield packet

        kept: dict[int, Any] = {}
        count = 0
        for frame in self._frames(packets_with_skipping(units)):
            count += 1
            if frame.pts in index_at:
                kept[index_at[frame.pts]] = frame
        if len(kept) == len(index_at) and count == expected and self.failed_packets == self.unread_packets:
            return kept
        self._rewind()
        return None

    def _read_in_sequence(self, indices_of: Callable[[int], ArrayOfInt]) -> tuple[dict[int, Any], list[int | None]]:
        """The wanted frames by index, and the timestamps of all, decoding one after the other.

        Only the end tells the number of frames: packets may hold none or two (AVI with packed B frames) or be
        undecodable. Those for as many as announced and for one fewer are kept; other numbers cost a second pass.
        """
        expected = len(self.timestamps)
        candidates = {*indices_of(expected).tolist(), *indices_of(max(1, expected - 1)).tolist()}
        kept: dict[int, Any] = {}
        stamps: list[int | None] = []
        for frame in self._frames():
            if len(stamps) in candidates:
                kept[len(stamps)] = frame
            stamps.append(frame.pts)
        count = len(stamps)
        if not count:
            raise self.error("none of its frames can be decoded")
        wanted = set(indices_of(count).tolist())
        if not wanted <= kept.keys():
            self._rewind()
            kept = {index: frame for index, frame in enumerate(self._frames()) if index in wanted}
        return kept, self._timestamps_of(stamps)

    def _timestamps_of(self, stamps: list[int | None]) -> list[int | None]:
        """Timestamps of decoded frames: their own where they ascend, else those of the packets, the last repeated."""
        count, known = len(stamps), [stamp for stamp in stamps if stamp is not None]
        if count < len(self.timestamps) and len(known) == count and known == sorted(set(known)):
            return stamps
        return (self.timestamps + [self.timestamps[-1]] * max(0, count - len(self.timestamps)))[:count]

    def _rewind(self) -> None:
        self.decoder.flush_buffers()
        self.decoder.skip_frame = "DEFAULT"
        self.failed_packets, self.corrupt_frames = self.unread_packets, 0

    def _assemble(
        self, frames: list[Any], indices: ArrayOfInt, timestamps: list[int | None], damaged: int
    ) -> VideoFrames:
        """Converts decoded frames to one RGB tensor; a repeated frame is converted once."""
        convert = _RgbConverter()
        arrays = {id(frame): frame for frame in frames}
        rgb = {key: convert(frame) for key, frame in arrays.items()}
        pixels = torch.from_numpy(np.stack([rgb[id(frame)] for frame in frames])).permute(0, 3, 1, 2)
        times = self._times(timestamps)[indices]
        return VideoFrames(pixels, indices, times, len(timestamps), damaged, self.missing_bytes)

    def _times(self, timestamps: list[int | None]) -> ArrayOfFloat:
        """Seconds since the first frame; NaN where there is no timestamp."""
        first = timestamps[0]
        second = float(self.stream.time_base or 0)
        return np.array([np.nan if pts is None or first is None else (pts - first) * second for pts in timestamps])

    def windows(self, num_frames: int, window_seconds: float, stride: float) -> Iterator[VideoWindow]:
        """Windows in order of their start, each given as soon as its last frame is decoded."""
        times = self._times(self.timestamps)
        if np.isnan(times).any():
            raise self.error("its frames carry no times; take frames by number instead")
        spacing = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
        pending = _window_indices(times, times[-1] + spacing, num_frames, window_seconds, stride)
        needed = Counter(index for _, _, indices in pending for index in indices.tolist())
        convert = _RgbConverter()
        kept: dict[int, Any] = {}
        lost: set[int] = set()
        last_index, last_frame = -1, None
        for index, frame in self._indexed_frames():
            missed = [i for i in range(last_index + 1, index) if i in needed]
            if missed:  # what came before them stands for frames that do not decode
                kept.update(dict.fromkeys(missed, convert(frame if last_frame is None else last_frame)))
            lost.update(missed)
            if index in needed:
                kept[index] = convert(frame)
            last_index, last_frame = index, frame
            while pending and pending[0][2][-1] <= index:
                yield from self._window(pending.popleft(), kept, lost, needed)
        if last_frame is None:
            raise self.error("none of its frames can be decoded")
        self._damaged_frames(last_index + 1)
        unseen = [i for i in range(last_index + 1, len(times)) if i in needed]
        lost.update(unseen if len(unseen) > 1 else ())  # some containers announce one frame too many
        kept.update(dict.fromkeys(unseen, convert(last_frame)))
        while pending:
            yield from self._window(pending.popleft(), kept, lost, needed)

    def _indexed_frames(self) -> Iterator[tuple[int, Any]]:
        """Decoded frames and their positions among those announced, which leave out what does not decode."""
        position = {pts: index for index, pts in enumerate(self.timestamps)}
        # The timestamps of an AVI are those of its packets, out of order by a few frames.
        tolerance = 16 if self.container.format.name == "avi" else 0
        expected = 0
        for frame in self._frames():
            announced = position.get(frame.pts, expected)
            index = announced if announced > expected + tolerance else expected
            yield index, frame
            expected = index + 1

    def _window(
        self, window: tuple[float, float, ArrayOfInt], kept: dict[int, Any], lost: set[int], needed: Counter[int]
    ) -> Iterator[VideoWindow]:
        """One window, or none where most of its frames are lost; frames that no later one needs are let go."""
        start, end, indices = window
        if 2 * sum(index in lost for index in indices.tolist()) <= len(indices):
            pixels = torch.from_numpy(np.stack([kept[index] for index in indices.tolist()])).permute(0, 3, 1, 2)
            times, total = self._times(self.timestamps)[indices], len(self.timestamps)
            frames = VideoFrames(pixels, indices, times, total, self.corrupt_frames, self.missing_bytes)
            yield VideoWindow(start, end, frames)
        needed.subtract(indices.tolist())
        for index in set(indices.tolist()):
            if not needed[index]:
                kept.pop(index, None)
                lost.discard(index)


class _RgbConverter:
    """Turns decoded frames of one file into upright RGB arrays, (H, W, 3) uint8, all as large as the first."""

    def __init__(self) -> None:
        self.reformatter = av.video.reformatter.VideoReformatter()
        self.size: tuple[int, int] | None = None

    def __call__(self, frame: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
        if self.size is None:
            self.size = (frame.width, frame.height)
        width, height = self.size
        rgb: Any = self.reformatter.reformat(frame, width=width, height=height, format="rgb24", threads=1).to_ndarray()
        try:
            matrix = frame.side_data.get("DISPLAYMATRIX")
        except ValueError:  # side data of a kind that this PyAV does not know; the turn alone is known then
            turns, rest = divmod(frame.rotation, 90)
            return np.rot90(rgb, turns) if rest == 0 else rgb
        return _upright(rgb, matrix)


def _upright(rgb: np.ndarray[Any, Any], display_matrix: Any) -> np.ndarray[Any, Any]:
    """A picture (H, W, 3) turned and flipped as its display matrix says; as stored where that is no right angle.

    The matrix carries a point (x, y) as stored to (a x + c y, b x + d y) as shown: c and b swap the two directions,
    and a negative number reverses one.
    """
    if display_matrix is None:
        return rgb
    a, b, _, c, d = np.frombuffer(bytes(display_matrix), np.int32)[:5].tolist()
    if max(abs(a), abs(d)) * 100 < min(abs(b), abs(c)):
        rgb, a, d = rgb.transpose(1, 0, 2), c, b
    elif max(abs(b), abs(c)) * 100 > min(abs(a), abs(d)):
        return rgb
    return rgb[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _unreadable(path: Path, reason: str) -> VideoReadError:
    return VideoReadError(f"cannot read video {str(path)!r}: {reason}")


def _refuse_if_damaged(path: Path, damaged: int, total: int) -> None:
    if damaged > DAMAGE_LIMIT * total:
        raise _unreadable(
            path, f"{damaged} of its {total} frames are missing or damaged; the file is cut off or corrupt"
        )


def _warn_of_damage(path: Path, damaged: int, total: int, lacking: int) -> None:
    if damaged or lacking:
        logger.warning("video %r: %s", str(path), _damage(damaged, total, lacking))


def _window_indices(
    times: ArrayOfFloat,
    duration: float,
    num_frames: int,
    window_seconds: float,
    stride: float,
) -> deque[tuple[float, float, ArrayOfInt]]:
    """Start, end and frame indices of each window, in order of start; windows without any frame are left out.

    The frames are those that are to be seen at the centres of `num_frames` equal parts of the window.
    """
    latest = max(0.0, duration - window_seconds)
    count = int(np.ceil(latest / stride - 1e-9)) + 1
    windows: deque[tuple[float, float, ArrayOfInt]] = deque()
    for start in np.minimum(np.arange(count) * stride, latest):
        end = min(float(start) + window_seconds, duration)
        low, high = np.searchsorted(times, [start - 1e-9, end - 1e-9])
        if high > low:
            centres = start + segment_positions(num_frames)[0] * ((end - start) / num_frames)
            shown = np.searchsorted(times, centres + 1e-9, side="right") - 1
            windows.append((float(start), end, np.maximum(shown, low)))
    return windows


def _damage(damaged_frames: int, total_frames: int, lacking: int) -> str:
    """Damage of a file in words, "" for none."""
    reasons = []
    if damaged_frames:
        reasons.append(f"{damaged_frames} of its {total_frames} frames are missing or damaged")
    if lacking:
        reasons.append(f"it is cut off: at least {lacking} bytes are missing at its end")
    return "; ".join(reasons)


def _tagged_seconds(stream: Any) -> float:
    """Length that Matroska writes as a tag of the stream ("00:00:10.333000000"); 0 where there is none."""
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    return 0.0 if match is None else int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])
