"""Where decoding can begin afresh without a trace of what came before, told from the coded bytes of each packet.

A key frame of the container is no proof: pictures after it may still refer to others before it (open groups).
"""

VOP_START = b"\0\0\1\xb6"  # MPEG-4 part 2: what leads a picture, followed by two bits that tell its kind
INTRA, BIDIRECTIONAL = 0, 2
# A picture that only says "as before" ends within so many bytes; no frame comes out of it.
UNCODED_VOP_BYTES = 8
SLICES, IDR_SLICE = range(1, 6), 5
# Neither coding standard lets three zero bytes stand inside a picture; overwritten files are full of them.
ZEROS = b"\0\0\0"


def begins_afresh(packet: bytes, codec: str, length_size: int = 4) -> bool | None:
    """Whether this packet's picture and all that are decoded after it refer to nothing before it.

    Args:
        packet: What a container holds for one frame.
        codec: "mpeg4" or "h264".
        length_size: Bytes of the length before each unit of H.264 in MP4 and Matroska, 1 to 4.

    Returns:
        None where the packet is not what is expected: exactly one whole picture that comes out as one frame, in the
        order of the packets for MPEG-4 (which has no closed groups once it has pictures in both directions).
    """
    return _mpeg4(packet) if codec == "mpeg4" else _h264(packet, length_size)


def _mpeg4(packet: bytes) -> bool | None:
    """True for an intra-coded picture; None for a bidirectional or uncoded one, several, or none."""
    start = packet.find(VOP_START) + len(VOP_START)
    body = packet[start:]
    if start < len(VOP_START) or len(body) <= UNCODED_VOP_BYTES or VOP_START in body or ZEROS in body:
        return None
    kind = body[0] >> 6
    return None if kind == BIDIRECTIONAL else kind == INTRA


def _h264(packet: bytes, length_size: int) -> bool | None:
    """True where all slices are of an instantaneous decoding refresh; None where units do not fill the packet."""
    kinds = set()
    start = 0
    while start + length_size < len(packet):
        end = start + length_size + int.from_bytes(packet[start : start + length_size], "big")
        start += length_size
        if end <= start or ZEROS in packet[start:end]:
            return None
        kinds.add(packet[start] & 31)
        start = end
    slices = kinds.intersection(SLICES)
    return None if start != len(packet) or not slices else slices == {IDR_SLICE}
