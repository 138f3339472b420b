"""How many frames a video file holds and how many it has lost, told by its packets, without decoding anything."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .container_length import chunks_in_avi, missing_bytes, unreadable_bytes
from .video_container import av, container_of
from .video_results import refuse_if_damaged, unreadable


# Compressed packets of smaller files are kept in memory between counting and decoding; larger files are read twice.
PACKETS_IN_MEMORY = 1 << 28


class CountedPackets:
    """The packets of one video stream, read once and counted.

    Attributes:
        format: First name of the container's format as FFmpeg gives it, for example "mov".
        timestamps: Of all frames to expect, ascending; None for packets without one, which come last.
        hidden: Timestamps of pictures that an edit list leaves out.
        starts_without_key: Whether the first picture needs one that is not there.
        unread: 1 where reading stopped at a fault, else 0.
        incomplete: Packets that the container marks as damaged.
        missing_bytes: Bytes that the file lacks at its end, at least.
        missing_frames: Frames that must be there and are not.

    Raises:
        VideoReadError: There are no frames, or more than a tenth of them is missing.
    """

    def __init__(self, path: Path, container: Any, stream: Any) -> None:
        self.path = path
        self.container = container
        self.stream = stream
        self.unread = self.incomplete = self.num_packets = 0
        self.last_dts = -1  # in an AVI the number of the last frame, with those that the encoder dropped
        self.hidden: set[int | None] = set()
        self.kept: list[Any] | None = [] if path.stat().st_size <= PACKETS_IN_MEMORY else None
        self.format = container.format.name.split(",")[0]
        # An index written by the muxer lists every packet; empty ones stand for frames that the encoder dropped.
        listed = self._listed_packets()
        keys: list[bool] = []  # of each packet, whether decoding can begin there
        self.timestamps = self._count(keys)
        if not self.timestamps:
            raise unreadable(path, "it holds no frames")
        self.starts_without_key = any(keys) and not keys[0]
        self.missing_bytes = missing_bytes(path, self.format)
        self.missing_frames = self._missing_frames(listed)
        refuse_if_damaged(path, max(self.missing_frames, self.incomplete), self.expected)

    @property
    def look_sound(self) -> bool:
        """Whether nothing tells of damage before anything is decoded."""
        signs = self.unread or self.incomplete or self.missing_bytes or self.missing_frames
        return not (signs or self.starts_without_key)

    @property
    def expected(self) -> int:
        """Frames that the file should hold."""
        return len(self.timestamps) + self.missing_frames

    def __iter__(self) -> Iterator[Any]:
        """Packets to decode, from the first, followed by what flushes the decoder."""
        if self.kept is not None:
            yield from self.kept
        else:
            with container_of(self.path) as again:  # not all containers can be rewound
                yield from self._demux(again)
        if self.kept is None or not self.kept or self.kept[-1].size:
            yield None

    def _demux(self, container: Any) -> Iterator[Any]:
        """Packets of the video stream from the start, the empty one that flushes the decoder last."""
        try:
            yield from container.demux(container.streams[self.stream.index])
        except av.FFmpegError:
            self.unread = 1  # what has been read up to here can still be decoded

    def _count(self, keys: list[bool]) -> list[int | None]:
        """Timestamps of all frames to expect, ascending; None for packets without one, which come last."""
        timestamps: list[int | None] = []
        for packet in self._demux(self.container):
            if self.kept is not None:
                self.kept.append(packet)
            self.incomplete += packet.is_corrupt
            if packet.size:
                self.num_packets += 1
                self.last_dts = max(self.last_dts, -1 if packet.dts is None else packet.dts)
                keys.append(packet.is_keyframe)
                if packet.is_discard:
                    self.hidden.add(packet.pts)
                else:
                    timestamps.append(packet.pts)
        self.hidden -= {None, *timestamps}
        known = sorted(pts for pts in timestamps if pts is not None)
        return [*known, *[None] * (len(timestamps) - len(known))]

    def _listed_packets(self) -> int:
        """Packets with something in them that the index lists; 0 where there is none."""
        return sum(entry.size > 0 for entry in self.stream.index_entries) if self.format in ("avi", "mov") else 0

    def _missing_frames(self, listed: int) -> int:
        """Frames that must be there and are not: those that an index lists, or else what other signs agree on.

        Headers and tags alone are often wrong (edit lists, cuts, sound that goes on), so they are asked only where the
        container itself shows that bytes are missing, and then the middle one of all signs counts.
        """
        lost = max(0, max(listed, self._listed_packets()) - self.num_packets)
        hole = unreadable_bytes(self.path, self.format)
        if self.format == "avi":
            # Its index comes last, and FFmpeg makes up one that is not there; its header comes first.
            unseen = self.stream.frames - max(self.num_packets, self.last_dts + 1)
            if unseen > 0 and not (self.missing_bytes or hole) and listed:
                # Header and index contradict each other: what is there decides.
                unseen = min(unseen, chunks_in_avi(self.path, self.stream.index) - self.num_packets)
            return max(lost, unseen)
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


def _tagged_seconds(stream: Any) -> float:
    """Length that Matroska writes as a tag of the stream ("00:00:10.333000000"); 0 where there is none."""
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    return 0.0 if match is None else int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])
