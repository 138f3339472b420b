"""Whether a video file is all there, told by the sizes that its container announces, without decoding anything."""

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


UNKNOWN_RIFF_SIZES = (0, 0xFFFFFFFF)  # written by recorders that could not go back to fill the size in
TOP_LEVEL_BOXES = frozenset(
    (b"ftyp moov mdat moof mfra free skip wide uuid meta sidx ssix styp pdin prft emsg pnot udta PICT").split()
)
EBML_HEADER, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
PACK_HEADER, PROGRAM_END = 0xBA, 0xB9
SYSTEM_HEADER = 0xBB  # start codes from here up lead a packet that tells its own length
TRANSPORT_PACKETS = {188: 0, 192: 4, 204: 0}  # length in bytes, place of the synchronisation byte


def missing_bytes(path: str | Path, container: str) -> int:
    """How many bytes a file lacks at its end, by what it says of itself.

    Known are AVI, GIF, MP4 and QuickTime, Matroska and WebM, MPEG program and transport streams. The last two tell
    only of the packet in which they end, so a cut between two packets goes unseen there.

    Args:
        path: A regular file.
        container: Name of its format as FFmpeg gives it, for example "avi" or "mov,mp4,m4a,3gp,3g2,mj2".

    Returns:
        Number of bytes, at least; 0 for a whole file and for one that does not tell.

    Raises:
        OSError: The file cannot be read.
    """
    announced_end = _ANNOUNCED_ENDS.get(container.split(",")[0])
    if announced_end is None:
        return 0
    size = Path(path).stat().st_size
    with open(path, "rb") as file:
        return max(0, announced_end(file, size) - size)


def _end_of_avi(file: BinaryIO, size: int) -> int:
    """End of the last RIFF chunk; long files are a row of them."""
    end = 0
    while end < size:
        file.seek(end)
        header = file.read(12)
        length = int.from_bytes(header[4:8], "little")
        if header[:4] != b"RIFF" or header[8:11] != b"AVI" or length in UNKNOWN_RIFF_SIZES:
            break
        end += 8 + length + length % 2 * (end + 8 + length < size)
    return end


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """End of the last top-level box of an MP4 or QuickTime file."""
    end = 0
    while end < size:
        file.seek(end)
        header = file.read(16)
        if len(header) >= 8 and header[4:8] not in TOP_LEVEL_BOXES:
            break  # bytes that somebody appended
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < 8:
            break  # 0: the box reaches to the end of the file
        end += length
    return end


def _end_of_matroska(file: BinaryIO, size: int) -> int:
    """End of the segment, the element that holds everything; 0 where a live recording leaves its length open."""
    end = 0
    for identifier in (EBML_HEADER, SEGMENT):
        file.seek(end)
        header = file.read(12)
        if header[:4] != identifier or len(header) < 12 or header[4] == 0:
            return 0
        width = 9 - header[4].bit_length()  # the first set bit tells how many bytes the length has
        length = int.from_bytes(header[4 : 4 + width], "big") & ((1 << 7 * width) - 1)
        if length == (1 << 7 * width) - 1:
            return 0
        end += 4 + width + length
    return end


def _end_of_program_stream(file: BinaryIO, size: int) -> int:
    """End of the last packet of an MPEG program stream; 0 where packets do not follow each other without a gap."""
    end = 0
    while end < size:
        file.seek(end)
        header = file.read(14)
        if header[:3] != b"\0\0\1"[: len(header)]:
            return 0
        code = header[3] if len(header) > 3 else 0
        if code == PACK_HEADER:
            version_1 = len(header) < 5 or header[4] >> 6 != 1
            end += 12 if version_1 else 14 + (header[-1] & 7 if len(header) == 14 else 0)
        elif code == PROGRAM_END:
            return 0  # whatever follows does not count
        elif code >= SYSTEM_HEADER and len(header) >= 6:
            end += 6 + int.from_bytes(header[4:6], "big")
        elif size - end < 6:
            return end + 6  # cut off inside a header
        else:
            return 0
    return end


def _end_of_transport_stream(file: BinaryIO, size: int) -> int:
    """End of the last packet of an MPEG transport stream; all have one length."""
    start = file.read(1024)
    for length, place in TRANSPORT_PACKETS.items():
        marks = start[place::length]
        if len(marks) > 1 and set(marks) == {0x47}:
            return -(-size // length) * length
    return 0


def _end_of_gif(file: BinaryIO, size: int) -> int:
    """One byte more than there is where the closing semicolon lacks; zeros may follow it."""
    file.seek(max(0, size - 4096))
    return size if file.read().rstrip(b"\0").endswith(b";") else size + 1


_ANNOUNCED_ENDS: dict[str, Callable[[BinaryIO, int], int]] = {
    "avi": _end_of_avi,
    "gif": _end_of_gif,
    "mov": _end_of_boxes,
    "matroska": _end_of_matroska,
    "mpeg": _end_of_program_stream,
    "mpegts": _end_of_transport_stream,
}
