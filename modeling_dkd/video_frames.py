"""Frames of a video file, decoded exactly with PyAV.

Decoding runs in sequence, never by seeking to index / rate, so the frames are those of a full decode whatever the
timestamps say. Pixels are as stored (RGB, 0-255); non-square pixels are not stretched, rotation metadata is applied.
"""

import logging
import os
import re
import stat
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .container_length import missing_bytes
from .frame_sampling import ArrayOfFloat, ArrayOfInt, indices_at, segment_positions


try:
    import av
except ImportError:  # reading files needs PyAV; frames that are in memory already do not
    av = None  # type: ignore[assignment]

try:
    from PIL import Image, ImageOps
except ImportError:
    Image = None  # type: ignore[assignment]


logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
# Containers that hold video. Left out on purpose: playlists that open other files, and renderers of plain text.
CONTAINERS = (
    "avi,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpeg,mpegts,mpegvideo,m4v,h264,hevc,obu,flv,live_flv,asf,ogg,gif,apng,"
    "ivf,mjpeg,nut,mxf,rm,dv,swf,wtv,vc1,h263,h261,png_pipe,jpeg_pipe,bmp_pipe,webp_pipe,tiff_pipe"
)
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
        path: A file on this machine; any characters, never a URL. An image counts as a video of one frame.
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
    path = _existing_file(path)
    image = _read_image(path) if path.suffix.lower() in IMAGE_SUFFIXES else None
    if image is not None:
        count = positions.size
        pixels = image.expand(count, *image.shape[1:])
        return VideoFrames(pixels, np.zeros(count, np.int64), np.zeros(count), 1)
    with _open_video(path) as video:
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
    with _open_video(_existing_file(path)) as video:
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


def _read_image(path: Path) -> torch.Tensor | None:
    """One RGB image, (1, 3, H, W) uint8, upright; None if it is no image (a video with a wrong name, perhaps)."""
    if Image is None:
        return None
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    return torch.from_numpy(np.array(upright)).permute(2, 0, 1)[None]


def _container(path: Path) -> Any:
    """The file as a container of streams; it opens nothing but this file."""
    # "file:" keeps names with colons, # or % from being taken for something else.
    options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
    return av.open(f"file:{path}", options=options, metadata_errors="replace")


@contextmanager
def _open_video(path: Path) -> Iterator["_OpenVideo"]:
    """Opens a file, closes it again, and turns every failure on the way into a VideoReadError that names it."""
    if av is None:
        raise VideoReadError(f"cannot read video {str(path)!r}: PyAV is not installed; run: pip install av")
    try:
        with _container(path) as container:
            yield _OpenVideo(path, container)
    except VideoReadError:
        raise
    except (av.FFmpegError, OSError, EOFError, MemoryError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise VideoReadError(f"cannot read video {str(path)!r}: {reason}") from error


class _OpenVideo:
    """One open file: its packets counted, ready to be decoded once."""

    def __init__(self, path: Path, container: Any) -> None:
        self.path = path
        self.container = container
        streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not streams:
            raise self.error("it holds no video stream")
        self.stream = streams[0]
        self.decoder = self.stream.codec_context
        if self.decoder is None:
            raise self.error("there is no decoder for its video stream")
        if not 0 <= self.stream.width * self.stream.height <= MAX_PIXELS:
            raise self.error(f"its frames of {self.stream.width} x {self.stream.height} pixels are too large")
        self.decoder.thread_count = 1  # one core a worker; also what makes skipping single frames exact
        self.failed_packets = self.corrupt_frames = self.incomplete_packets = 0
        self.packets: list[Any] | None = [] if path.stat().st_size <= PACKETS_IN_MEMORY else None
        # An index written by the muxer lists every packet; empty ones stand for frames that the encoder dropped.
        indexed = container.format.name.startswith(("avi", "mov,"))
        self.indexed_packets = sum(entry.size > 0 for entry in self.stream.index_entries) if indexed else 0
        self.timestamps = self._count()
        self.unread_packets = self.failed_packets
        if not self.timestamps:
            raise self.error("it holds no frames")
        self.missing_bytes = missing_bytes(path, container.format.name)
        self.missing_frames = max(self._missing_at_end(), self.lost_packets, self.incomplete_packets)
        self._refuse_if_damaged(self.missing_frames)

    def error(self, reason: str) -> VideoReadError:
        return VideoReadError(f"cannot read video {str(self.path)!r}: {reason}")

    def _demux(self, container: Any) -> Iterator[Any]:
        """Packets of the video stream from the start, the empty one that flushes the decoder last."""
        try:
            yield from container.demux(container.streams[self.stream.index])
        except av.FFmpegError:
            self.failed_packets += 1  # what has been read up to here can still be decoded

    def _count(self) -> list[int | None]:
        """Timestamps of all frames to expect, ascending; None for packets without one, which come last."""
        timestamps: list[int | None] = []
        num_packets = 0
        for packet in self._demux(self.container):
            if self.packets is not None:
                self.packets.append(packet)
            self.incomplete_packets += packet.is_corrupt
            num_packets += packet.size > 0
            if packet.size and not packet.is_discard:
                timestamps.append(packet.pts)
        self.lost_packets = max(0, self.indexed_packets - num_packets)
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
        for packet in self._packets() if packets is None else packets:
            try:
                frames = self.decoder.decode(packet)
            except av.EOFError:
                return
            except av.FFmpegError:
                self.failed_packets += 1
                continue
            for frame in frames:
                self.corrupt_frames += frame.is_corrupt
                yield frame

    def _missing_at_end(self) -> int:
        """Frames between the last packet and the end that the header announces, where it announces one."""
        announced = self.stream.frames
        count = len(self.timestamps)
        fewer = announced - count if announced else 0
        shorter = self._missing_by_duration()
        if not self.missing_bytes:
            # Either sign alone may be wrong: dropped frames make counts differ, edit lists and audio lengths.
            missing = fewer if shorter is None else min(shorter, fewer) if announced else shorter
        else:
            # FFmpeg makes up a new duration for an AVI that was cut off, so the larger sign counts.
            missing = max(fewer, shorter or 0)
            if not announced:
                share = self.missing_bytes / self.path.stat().st_size
                missing = max(missing, round(count * share))
        return max(0, missing)

    def _missing_by_duration(self) -> int | None:
        """Frames that fit between the last packet and the announced duration; None where there is none."""
        last, first = self.timestamps[-1], self.timestamps[0]
        count = len(self.timestamps)
        length = self.stream.duration or _tagged_duration(self.stream)
        if not length or last is None or first is None or count < 2:
            return None
        spacing = (last - first) / (count - 1)
        return int((length - (last - first + spacing)) / spacing) if spacing else 0

    def _refuse_if_damaged(self, damaged: int) -> None:
        total = max(self.stream.frames, len(self.timestamps) + self.missing_frames)
        if damaged > DAMAGE_LIMIT * total:
            raise self.error(f"{damaged} of its {total} frames are missing or damaged; the file is cut off or corrupt")

    def _damaged_frames(self, found: int) -> int:
        """Damage met so far; warns of it, and raises VideoReadError where it is too much."""
        lost = max(self.failed_packets, self.missing_frames)
        if lost or self.corrupt_frames:
            # With other damage around, frames missing in the middle are lost; without, the encoder dropped them.
            lost = max(lost, self.stream.frames - found)
        damaged = lost + self.corrupt_frames
        self._refuse_if_damaged(damaged)
        if damaged or self.missing_bytes:
            logger.warning("video %r: %s", str(self.path), _damage(damaged, found, self.missing_bytes))
        return damaged

    def read(self, indices_of: Callable[[int], ArrayOfInt]) -> VideoFrames:
        """The frames at `indices_of(number of frames)`."""
        expected = len(self.timestamps)
        indices = indices_of(expected)
        kept = self._read_by_timestamp(indices)
        total = expected
        if kept is None:
            kept, total = self._read_in_sequence(indices_of)
            indices = indices_of(total)
        damaged = self._damaged_frames(total)
        return self._assemble([kept[index] for index in indices.tolist()], indices, total, damaged)

    def _read_by_timestamp(self, indices: ArrayOfInt) -> dict[int, Any] | None:
        """The wanted frames by index, without decoding frames that are unwanted and that no other frame refers to.

        Exact, because the timestamps of these containers are those of the frames that come out. None where that does
        not hold or a frame did not come; then the file is decoded in sequence.
        """
        container = self.container.format.name
        trusted = container.startswith(("mov,", "matroska")) and self.decoder.name in ("h264", "hevc")
        if not trusted or self.timestamps[-1] is None or len(set(self.timestamps)) < len(self.timestamps):
            return None
        index_at = {self.timestamps[index]: index for index in indices.tolist()}

        def packets_with_skipping() -> Iterator[Any]:
            for packet in self._packets():
                self.decoder.skip_frame = "DEFAULT" if packet is None or packet.pts in index_at else "NONREF"
                yield packet

        kept: dict[int, Any] = {}
        for frame in self._frames(packets_with_skipping()):
            if frame.pts in index_at:
                kept[index_at[frame.pts]] = frame
                if len(kept) == len(index_at):
                    return kept
        self._rewind()
        return None

    def _read_in_sequence(self, indices_of: Callable[[int], ArrayOfInt]) -> tuple[dict[int, Any], int]:
        """The wanted frames by index, and the number of frames, decoding one after the other.

        While each frame carries the timestamp that its packet announced, packets and frames match one to one and
        decoding stops at the last wanted frame. Otherwise (AVI with B frames, packed or not) only the end tells the
        number of frames, so the frames for one fewer than announced are kept too; other numbers cost a second pass.
        """
        expected = len(self.timestamps)
        last = int(indices_of(expected).max())
        candidates = {*indices_of(expected).tolist(), *indices_of(max(1, expected - 1)).tolist()}
        kept: dict[int, Any] = {}
        count = 0
        matches = self.timestamps[-1] is not None
        for frame in self._frames():
            matches = matches and count < expected and frame.pts == self.timestamps[count]
            if count in candidates:
                kept[count] = frame
            count += 1
            if matches and count > last:
                return kept, expected
        if not count:
            raise self.error("none of its frames can be decoded")
        wanted = set(indices_of(count).tolist())
        if not wanted <= kept.keys():
            self._rewind()
            kept = {index: frame for index, frame in enumerate(self._frames()) if index in wanted}
        return kept, count

    def _rewind(self) -> None:
        self.decoder.flush_buffers()
        self.decoder.skip_frame = "DEFAULT"
        self.failed_packets, self.corrupt_frames = self.unread_packets, 0

    def _assemble(self, frames: list[Any], indices: ArrayOfInt, total: int, damaged: int) -> VideoFrames:
        """Converts decoded frames to one RGB tensor; a repeated frame is converted once."""
        convert = _RgbConverter()
        arrays = {id(frame): frame for frame in frames}
        rgb = {key: convert(frame) for key, frame in arrays.items()}
        pixels = torch.from_numpy(np.stack([rgb[id(frame)] for frame in frames])).permute(0, 3, 1, 2)
        return VideoFrames(pixels, indices, self._times(indices), total, damaged, self.missing_bytes)

    def _times(self, indices: ArrayOfInt) -> ArrayOfFloat:
        first = self.timestamps[0]
        stamps = [self.timestamps[min(index, len(self.timestamps) - 1)] for index in indices.tolist()]
        second = float(self.stream.time_base or 0)
        return np.array(
            [np.nan if pts is None or first is None else (pts - first) * second for pts in stamps], dtype=np.float64
        )

    def windows(self, num_frames: int, window_seconds: float, stride: float) -> Iterator[VideoWindow]:
        """Windows in order of their start, each given as soon as its last frame is decoded."""
        times = self._times(np.arange(len(self.timestamps)))
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
            times, total = self._times(indices), len(self.timestamps)
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
        turns, rest = divmod(frame.rotation, 90)
        return np.rot90(rgb, turns) if rest == 0 and turns % 4 else rgb


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


def _tagged_duration(stream: Any) -> int | None:
    """Length that Matroska writes as a tag of the stream ("00:00:10.333000000"), in units of its time base."""
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if match is None or not stream.time_base:
        return None
    seconds = int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])
    return int(seconds / stream.time_base)
