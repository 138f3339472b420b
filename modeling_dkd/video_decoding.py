"""The frames of one open video file, decoded in sequence with PyAV."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Set
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .counted_packets import CountedPackets
from .frame_sampling import FRAME_SECONDS, ArrayOfFloat, ArrayOfInt, window_indices
from .h26x_packets import PacketUnits
from .rgb_frames import RgbConverter
from .video_container import av, chosen_stream
from .video_results import VideoFrames, VideoWindow, refuse_if_damaged, unreadable, warn_of_damage


# Codecs of which every packet is one picture, so that packets and pictures can be counted against each other.
PICTURE_A_PACKET = frozenset({"h264", "hevc", "mpeg1video", "mpeg2video"})
MAX_PIXELS = 1 << 26


class OpenVideo:
    """One open file: its packets counted, ready to be decoded once."""

    def __init__(self, path: Path, container: Any) -> None:
        self.path = path
        self.stream = chosen_stream(path, container)
        self.decoder = self.stream.codec_context
        if not 0 <= self.stream.width * self.stream.height <= MAX_PIXELS:
            raise unreadable(
                self.path, f"its frames of {self.stream.width} x {self.stream.height} pixels are too large"
            )
        self.decoder.thread_count = 1  # one core a worker; also what makes skipping single frames exact
        self.packets = CountedPackets(path, container, self.stream)
        self.timestamps = self.packets.timestamps
        self.failed_packets, self.corrupt_frames = self.packets.unread, 0
        self.interlaced = False

    def _frames(self, packets: Iterable[Any] | None = None) -> Iterator[Any]:
        """Decodes in sequence; packets that cannot be decoded are counted and passed over."""
        # What a decoder makes up before the first picture that needs no other.
        groundless = self.packets.starts_without_key
        for packet in self.packets if packets is None else packets:
            try:
                frames = self.decoder.decode(packet)
            except av.EOFError:
                return
            except av.FFmpegError:
                self.failed_packets += 1
                continue
            for frame in frames:
                if frame.pts in self.packets.hidden:
                    continue  # most decoders leave it out themselves
                groundless = groundless and not (frame.key_frame or frame.pict_type == av.video.frame.PictureType.I)
                self.corrupt_frames += frame.is_corrupt or groundless
                self.interlaced = self.interlaced or frame.interlaced_frame
                yield frame

    def _damaged_frames(self, found: int) -> int:
        """Damage met so far; warns of it, and raises VideoReadError where it is too much."""
        lost = max(self.failed_packets, self.packets.missing_frames, self.packets.incomplete)
        counted = self.decoder.name in PICTURE_A_PACKET and not self.interlaced
        if lost or self.corrupt_frames or self.packets.starts_without_key or counted:
            # With other damage around, frames missing in the middle are lost; without, the encoder dropped them.
            lost = max(lost, self.packets.expected - found)
        damaged = lost + self.corrupt_frames
        refuse_if_damaged(self.path, damaged, self.packets.expected)
        warn_of_damage(self.path, damaged, found, self.packets.missing_bytes)
        return damaged

    def read(self, indices_of: Callable[[int], ArrayOfInt], behind: int | None = None) -> VideoFrames:
        """The frames at `indices_of(number of frames)`.

        Where all of them lie before the frame number `behind`, whatever the number of frames, a film that looks sound
        is decoded no further than to there, and H.264 and H.265 only from where the same frames come out.
        """
        total = len(self.timestamps)
        indices = indices_of(total)
        if behind is not None and self.packets.look_sound:
            part = self._read_part(indices, behind)
            if part is not None:
                return self._assemble([part[index] for index in indices.tolist()], indices, self.timestamps, 0)
        kept = self._read_by_timestamp(indices)
        times = self.timestamps
        if kept is None:
            kept, times = self._read_in_sequence(indices_of)
            total = len(times)
            indices = indices_of(total)
        damaged = self._damaged_frames(total)
        return self._assemble([kept[index] for index in indices.tolist()], indices, times, damaged)

    def first_frame(self) -> Any:
        """The first frame, decoded; what is decoded afterwards begins with it again."""
        frame = next(self._frames(), None)
        if frame is None:
            raise unreadable(self.path, "none of its frames can be decoded")
        self._rewind()
        return frame

    def _read_by_timestamp(self, indices: ArrayOfInt) -> dict[int, Any] | None:
        """The wanted frames by index, without decoding frames that are unwanted and that no other frame refers to.

        Exact, because the timestamps of these containers are those of the frames that come out. None where that does
        not hold, or not every frame came that should; then the file is decoded in sequence.
        """
        units = self._units()
        if units is None:
            return None
        index_at = {self.timestamps[index]: index for index in indices.tolist()}
        passed_over: set[int] = set()
        kept: dict[int, Any] = {}
        count = 0
        for frame in self._frames(self._skipping(self.packets, units, index_at.keys(), passed_over)):
            count += 1
            if frame.pts in index_at:
                kept[index_at[frame.pts]] = frame
        expected = len(self.timestamps) - len(passed_over)
        if len(kept) == len(index_at) and count == expected and self.failed_packets == self.packets.unread:
            return kept
        self._rewind()
        return None

    def _units(self) -> PacketUnits | None:
        """How packets are cut into units, where each is one picture and has its time; else None."""
        units = PacketUnits.of(self.decoder.name, self.decoder.extradata)
        if units is None or self.packets.format not in ("mov", "matroska") or self.packets.starts_without_key:
            return None
        if self.timestamps[-1] is None or len(set(self.timestamps)) < len(self.timestamps):
            return None
        return units

    def _skipping(
        self, packets: Iterable[Any], units: PacketUnits, wanted: Set[int | None], passed_over: set[int]
    ) -> Iterator[Any]:
        """Packets, of which the decoder skips those that are unwanted and that no other one refers to."""
        for packet in packets:
            self.decoder.skip_frame = "DEFAULT"
            if packet is not None and packet.size and packet.pts not in wanted:
                reference = units.is_reference(memoryview(packet))
                if reference is None:
                    self.failed_packets += 1
                elif not reference:
                    self.decoder.skip_frame = "NONREF"
                    if not packet.is_discard:
                        passed_over.add(packet.pts)
            yield packet

    def _read_part(self, indices: ArrayOfInt, behind: int) -> dict[int, Any] | None:
        """The wanted frames by index, decoding those of the part and what leads to them.

        None where one fails to come, comes damaged or out of order, or where the end of the film could matter.
        """
        units = self._units()
        if units is not None:
            kept = self._read_part_by_timestamp(indices, behind, units)
        else:
            kept = self._read_part_in_sequence(indices, behind) if behind < len(self.timestamps) else None
        if kept is None or self.failed_packets or self.corrupt_frames or not set(indices.tolist()) <= kept.keys():
            self._rewind()
            return None
        return kept

    def _read_part_by_timestamp(self, indices: ArrayOfInt, behind: int, units: PacketUnits) -> dict[int, Any] | None:
        """The same, if the frames that come are those whose packets were decoded, one after the other."""
        index_at = {self.timestamps[index]: index for index in indices.tolist()}
        stamps = [stamp for stamp in self.timestamps if stamp is not None]
        end = stamps[behind - 1]
        passed_over: set[int] = set()
        left_out: list[int] = []  # timestamps between the first packet and the one where decoding goes on
        came: list[int] = []
        kept: dict[int, Any] = {}
        packets = self._packets_of_part(units, stamps[indices.min()], left_out)
        for frame in self._frames(self._skipping(packets, units, index_at.keys(), passed_over)):
            if frame.pts is None:
                return None
            came.append(frame.pts)
            if frame.pts in index_at:
                kept[index_at[frame.pts]] = frame
            if frame.pts >= end:
                break
        missing = passed_over.union(left_out)
        last = max(end, came[-1]) if came else end
        due = [stamp for stamp in stamps if stamp <= last and stamp not in missing]
        return kept if came == due else None

    def _packets_of_part(self, units: PacketUnits, wanted_from: int, left_out: list[int]) -> Iterator[Any]:
        """Packets from the first, less those that change nothing in what is shown from `wanted_from` on."""
        start, depth = units.last_start(self.packets, wanted_from)
        packets = iter(self.packets)
        yield from islice(packets, 1)
        # A decoder that keeps fewer pictures back than come ahead of their time loses some: how many, only decoding
        # them tells.
        if self.decoder.reorder_depth >= depth:
            left_out.extend(packet.pts for packet in islice(packets, max(0, start - 1)))
        yield from packets

    def _read_part_in_sequence(self, indices: ArrayOfInt, behind: int) -> dict[int, Any] | None:
        """The same, decoded one after the other from the start."""
        wanted = set(indices.tolist())
        kept: dict[int, Any] = {}
        stamps: list[int | None] = []
        for frame in islice(self._frames(), behind):
            if len(stamps) in wanted:
                kept[len(stamps)] = frame
            stamps.append(frame.pts)
        # Neither which frames are wanted nor which times they have depends on those that follow.
        settled = len(stamps) == behind and (stamps == self.timestamps[:behind] or not _ascend(stamps))
        return kept if settled else None

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
            raise unreadable(self.path, "none of its frames can be decoded")
        wanted = set(indices_of(count).tolist())
        if not wanted <= kept.keys():
            self._rewind()
            kept = {index: frame for index, frame in enumerate(self._frames()) if index in wanted}
        return kept, self._timestamps_of(stamps)

    def _timestamps_of(self, stamps: list[int | None]) -> list[int | None]:
        """Timestamps of decoded frames: their own where they ascend, else those of the packets, the last repeated."""
        count = len(stamps)
        if count < len(self.timestamps) and _ascend(stamps):
            return stamps
        return (self.timestamps + [self.timestamps[-1]] * max(0, count - len(self.timestamps)))[:count]

    def _rewind(self) -> None:
        self.decoder.flush_buffers()
        self.decoder.skip_frame = "DEFAULT"
        self.failed_packets, self.corrupt_frames = self.packets.unread, 0

    def _assemble(
        self, frames: list[Any], indices: ArrayOfInt, timestamps: list[int | None], damaged: int
    ) -> VideoFrames:
        """Converts decoded frames to one RGB tensor; a repeated frame is converted once."""
        convert = RgbConverter()
        arrays = {id(frame): frame for frame in frames}
        rgb = {key: convert(frame) for key, frame in arrays.items()}
        pixels = torch.from_numpy(np.stack([rgb[id(frame)] for frame in frames])).permute(0, 3, 1, 2)
        times = self.times(timestamps)[indices]
        return VideoFrames(pixels, indices, times, len(timestamps), damaged, self.packets.missing_bytes)

    def times(self, timestamps: list[int | None]) -> ArrayOfFloat:
        """Seconds since the first frame; all NaN if some have no timestamp, for which these are is not told."""
        if None in timestamps:
            return np.full(len(timestamps), np.nan)
        stamps = np.array(timestamps, dtype=np.int64)
        return (stamps - stamps[0]) * float(self.stream.time_base or 0)

    def frames_between(self, start: float, end: float) -> tuple[int, int]:
        """Index of the first frame at or after `start` seconds and of the first at or after `end`, one further on."""
        times = self.times(self.timestamps)
        if np.isnan(times).any():
            raise unreadable(self.path, "its frames carry no times, so a part of it cannot be found")
        if start > times[-1]:
            raise unreadable(self.path, f"it ends after {times[-1]:.1f} s, before the part from {start:g} s begins")
        first, behind = np.searchsorted(times, [start - 1e-9, end - 1e-9]).tolist()
        return first, max(behind, first + 1)

    def windows(self, num_frames: int, window_seconds: float, stride: float) -> Iterator[VideoWindow]:
        """Windows in order of their start, each given as soon as its last frame is decoded."""
        times = self.times(self.timestamps)
        if np.isnan(times).any():
            raise unreadable(self.path, "its frames carry no times; take frames by number instead")
        spacing = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
        duration = times[-1] + (spacing or FRAME_SECONDS)
        pending = window_indices(times, duration, num_frames, window_seconds, stride)
        needed = Counter(index for _, _, indices in pending for index in indices.tolist())
        convert = RgbConverter()
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
            raise unreadable(self.path, "none of its frames can be decoded")
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
        tolerance = 16 if self.packets.format == "avi" else 0
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
            times, total = self.times(self.timestamps)[indices], len(self.timestamps)
            frames = VideoFrames(pixels, indices, times, total, self.corrupt_frames, self.packets.missing_bytes)
            yield VideoWindow(start, end, frames)
        needed.subtract(indices.tolist())
        for index in set(indices.tolist()):
            if not needed[index]:
                kept.pop(index, None)
                lost.discard(index)


def _ascend(stamps: list[int | None]) -> bool:
    """Whether all timestamps are there, each later than the one before."""
    known = [stamp for stamp in stamps if stamp is not None]
    return len(known) == len(stamps) and known == sorted(set(known))
