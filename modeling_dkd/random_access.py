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


def begins_afresh(packet: bytes, codec: str, extradata: bytes) -> bool | None:
    """Whether this packet's picture and all that are decoded after it refer to nothing before it.

    Args:
        packet: What a container holds for one frame.
        codec: FFmpeg's name of the decoder; "mpeg4" and "h264" are known.
        extradata: Settings of the decoder as the container keeps them.

    Returns:
        None where the packet is not exactly one sound picture, as far as can be seen, or nothing can be told. Of
        MPEG-4 also where it comes out as no frame, or not in the order of the packets (pictures in both directions).
    """
    if codec == "mpeg4":
        return _mpeg4(packet)
    if codec == "h264" and extradata[:1] == b"\1" and len(extradata) > 4:
        return _h264(packet, 1 + (extradata[4] & 3))
    return None


def _mpeg4(packet: bytes) -> bool | None:
    """True for an intra-coded picture; None for a bidirectional or uncoded one, several, or none."""
    start = packet.find(VOP_START) + len(VOP_START)
    body = packet[start:]
    if start < len(VOP_START) or len(body) <= UNCODED_VOP_BYTES or VOP_START in body or ZEROS in body:
        return None
    kind = body[0] >> 6
    return None if kind == BIDIRECTIONAL else kind == INTRA


def _h264(packet: bytes, length_size: int) -> bool | None:
    """True where all slices are of an instantaneous decoding refresh; None where units do not fill the packet.

    `length_size` is the number of bytes that tell the length before each unit.
    """
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
