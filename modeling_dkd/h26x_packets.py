"""Packets of H.264 and H.265, by the headers of their units (NAL units): what refers to them, where one can begin."""

from bisect import bisect, insort
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


# By codec, kinds of units: pictures that refer to none before them, parameters, and what ends or cuts a sequence.
IDR = {"h264": {5}, "hevc": {19, 20}}
PARAMETERS = {"h264": {7, 8, 13, 15}, "hevc": {32, 33, 34}}
CUTS = {"h264": {10, 11}, "hevc": {16, 17, 18, 36, 37}}
PROFILES_WITH_CHROMA = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}


@dataclass(frozen=True)
class PacketUnits:
    """How the packets of a stream are cut into units that tell their own length.

    Attributes:
        codec: "h264" or "hevc".
        length_bytes: Bytes of each length.
        frames_only: Whether each packet with a picture is a whole frame, none of the two fields of one.
    """

    codec: str
    length_bytes: int
    frames_only: bool = True

    @classmethod
    def of(cls, codec: str, extradata: bytes | None) -> "PacketUnits | None":
        """From the decoder's configuration in MP4 and Matroska (avcC, hvcC); None for another form or codec."""
        place = {"h264": 4, "hevc": 21}.get(codec)
        if place is None or extradata is None or len(extradata) <= place or extradata[0] != 1:
            return None
        return cls(codec, (extradata[place] & 3) + 1, codec == "hevc" or _configures_frames(extradata))

    def split(self, packet: memoryview) -> list[memoryview] | None:
        """The units of a packet; None if it is no whole row of them."""
        place, units = 0, []
        while place + self.length_bytes < len(packet):
            unit = place + self.length_bytes
            place = unit + int.from_bytes(packet[place:unit], "big")
            if place <= unit:
                return None
            units.append(packet[unit:place])
        return units if place == len(packet) else None

    def is_reference(self, packet: memoryview) -> bool | None:
        """Whether other pictures may refer to this one; None if the packet is no whole row of units."""
        return next((self._refers(unit[0]) for unit in self.split(packet) or () if self._is_picture(unit)), None)

    def last_start(self, packets: Iterable[Any], wanted_from: int) -> tuple[int, int]:
        """Where decoding can begin so that what is shown from `wanted_from` on is the same as from the first packet.

        The first packet has to be decoded in any case: it can tell of the encoder and its parameters. What could make
        a decoder give other pictures, or another number of them, ends the search: where it is met nothing is said of
        what follows.

        Args:
            packets: From the first on, in the order of decoding.
            wanted_from: Timestamp of the first wanted picture.

        Returns:
            Number of the last packet that begins anew (0 is the first packet), and how many pictures before it are
            decoded at most ahead of one that is shown earlier.
        """
        start = depth_before = depth = 0
        shown: list[int] = []  # timestamps from the last start on, ascending
        parameters: list[bytes] = []
        for number, packet in enumerate(packets):
            timed = packet is not None and packet.size and packet.pts is not None
            units = self.split(memoryview(packet)) if timed else None
            if units is None or not self._is_one_frame(units) or packet.has_sidedata("new_extradata"):
                break
            begins = all(self._kind(unit) in IDR[self.codec] for unit in units if self._is_picture(unit))
            inside = [bytes(unit) for unit in units if self._kind(unit) in PARAMETERS[self.codec]]
            parameters = parameters if number else inside
            if not (begins or shown) or not set(inside) <= set(parameters):
                break
            if shown and packet.pts <= shown[-1 if begins else 0]:
                break  # shown before what it follows, or before the picture with which its group begins
            if begins:
                if packet.pts > wanted_from:
                    break
                start, depth_before, shown = number, depth, []
            depth = max(depth, len(shown) - bisect(shown, packet.pts))
            insort(shown, packet.pts)
        return start, depth_before

    def _is_one_frame(self, units: list[memoryview]) -> bool:
        """Whether units are those of one frame that is shown and keeps none before it from being shown."""
        kinds = {self._kind(unit) for unit in units}
        if not self.frames_only or kinds & CUTS[self.codec]:
            return False
        if self.codec == "h264":
            if not all(_allows_frames_only(bytes(unit)) for unit in units if self._kind(unit) == 7):
                return False
            slices = [unit[1:2] for unit in units if self._is_picture(unit)]
        else:
            slices = [unit[2:3] for unit in units if self._is_picture(unit)]
            if any(unit[2:3] and unit[2] & 0x40 for unit in units if 16 <= self._kind(unit) <= 23):
                return False  # no_output_of_prior_pics_flag
        return sum(bool(first and first[0] & 0x80) for first in slices) == 1  # of each picture one slice is the first

    def _kind(self, unit: memoryview) -> int:
        return unit[0] & 31 if self.codec == "h264" else unit[0] >> 1 & 63

    def _is_picture(self, unit: memoryview) -> bool:
        return 1 <= self._kind(unit) <= 5 if self.codec == "h264" else self._kind(unit) < 32

    def _refers(self, header: int) -> bool:
        """Whether other pictures may refer to that of a unit, by its first byte."""
        if self.codec == "h264":
            return bool(header >> 5 & 3)
        kind = header >> 1 & 63
        return kind >= 16 or kind % 2 == 1


def _configures_frames(extradata: bytes) -> bool:
    """Whether a configuration of H.264 (avcC) allows no fields."""
    place, found = 6, []
    for _ in range(extradata[5] & 31 if len(extradata) > 5 else 0):
        length = int.from_bytes(extradata[place : place + 2], "big")
        found.append(extradata[place + 2 : place + 2 + length])
        place += 2 + length
    return bool(found) and all(map(_allows_frames_only, found))


def _allows_frames_only(parameters: bytes) -> bool:
    """Whether sequence parameters of H.264 allow no fields (frame_mbs_only_flag); False also where it is not told."""
    bits = "".join(f"{byte:08b}" for byte in parameters[4:].replace(b"\0\0\3", b"\0\0"))
    place = 0

    def number() -> int:
        """The next number, in Exp-Golomb code."""
        nonlocal place
        zeros = bits.index("1", place) - place
        place += 2 * zeros + 1
        return int(bits[place - zeros - 1 : place], 2) - 1

    try:
        number()  # seq_parameter_set_id
        if parameters[1] in PROFILES_WITH_CHROMA:
            chroma = number()
            place += chroma == 3
            number(), number()  # bit depths
            if bits[place + 1] == "1":  # scaling matrices, which nearly nobody writes
                return False
            place += 2
        number()  # log2_max_frame_num
        order = number()
        if order == 0:
            number()
        elif order == 1:
            place += 1
            number(), number()
            for _ in range(number()):
                number()
        number()  # max_num_ref_frames
        place += 1
        number(), number()  # size
        return bits[place] == "1"
    except (ValueError, IndexError):
        return False
