"""Which packets of H.264 and H.265 no other picture refers to, told by the headers of their units (NAL units)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PacketUnits:
    """How the packets of a stream are cut into units that tell their own length.

    Attributes:
        codec: "h264" or "hevc".
        length_bytes: Bytes of each length.
    """

    codec: str
    length_bytes: int

    @classmethod
    def of(cls, codec: str, extradata: bytes | None) -> "PacketUnits | None":
        """From the decoder's configuration in MP4 and Matroska (avcC, hvcC); None for another form or codec."""
        place = {"h264": 4, "hevc": 21}.get(codec)
        if place is None or extradata is None or len(extradata) <= place or extradata[0] != 1:
            return None
        return cls(codec, (extradata[place] & 3) + 1)

    def is_reference(self, packet: memoryview) -> bool | None:
        """Whether other pictures may refer to this one; None if the packet is no whole row of units."""
        place, reference = 0, None
        while place + self.length_bytes < len(packet):
            unit = place + self.length_bytes
            place = unit + int.from_bytes(packet[place:unit], "big")
            if place <= unit:
                return None
            if reference is None:
                reference = self._refers(packet[unit])
        return reference if place == len(packet) else None

    def _refers(self, header: int) -> bool | None:
        """The same of one unit by its first byte; None for one that holds no picture."""
        if self.codec == "h264":
            return bool(header >> 5 & 3) if 1 <= header & 31 <= 5 else None
        kind = header >> 1 & 63
        return None if kind >= 32 else kind >= 16 or kind % 2 == 1
