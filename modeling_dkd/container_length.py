"""Whether a video file is all there, told by the sizes that its container announces, without decoding anything."""

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


UNKNOWN_RIFF_SIZES = (0, 0xFFFFFFFF)  # written by recorders that could not go back to fill the size in
TOP_LEVEL_BOXES = frozenset(
    (b"ftyp moov mdat moof mfra free skip wide uuid meta sidx ssix styp pdin prft emsg pnot udta PICT").split()
)
EBML_HEADER, SEGMENT, CLUSTER = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"
BLOCKS = (b"\xa0", b"\xa3")  # of frames, in a cluster
PACK_HEADER, PROGRAM_END = 0xBA, 0xB9
SYSTEM_HEADER = 0xBB  # start codes from here up lead a packet that tells its own length
ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
ASF_DATA_HEADER, ASF_PACKET = 50, 0x82  # bytes before the first packet; what a packet begins with
TRANSPORT_PACKETS = {188: 0, 192: 4, 204: 0}  # length in bytes, place of the synchronisation byte


def missing_bytes(path: str | Path, container: str) -> int:
    """How many bytes a file lacks at its end, by what it says of itself.

    Known are AVI, ASF (WMV), GIF, MP4 and QuickTime, Matroska and WebM, MPEG program and transport streams. The last
    two, and live recordings in Matroska, tell only of the packet in which they end, so a cut between two packets goes
    unseen there.

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


def unreadable_bytes(path: str | Path, container: str) -> int:
    """How many bytes inside a file belong to none of its parts: overwritten, or out of place.

    Known are AVI, where what follows the first such place counts in whole, ASF (WMV), Matroska and WebM.

    Args:
        path: A regular file.
        container: As for `missing_bytes`; 0 for others, which do not tell.

    Raises:
        OSError: The file cannot be read.
    """
    count = _UNREADABLE.get(container.split(",")[0])
    if count is None:
        return 0
    with open(path, "rb") as file:
        return count(file, Path(path).stat().st_size)


def chunks_in_avi(path: str | Path, stream: int) -> int:
    """How many chunks of an AVI hold something of this stream, found one after the other instead of by its index.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        return _walk_avi(file, Path(path).stat().st_size, b"%02d" % stream)[1]


def _unreadable_in_avi(file: BinaryIO, size: int) -> int:
    """Bytes from the first place where no chunk begins, up to the announced end."""
    return _walk_avi(file, size)[0]


def _walk_avi(file: BinaryIO, size: int, stream: bytes = b"") -> tuple[int, int]:
    """Bytes from the first place where no chunk begins, and how many chunks before it have pictures of this stream."""
    end, place, count = min(size, _end_of_avi(file, size)), 0, 0
    while place < end:
        file.seek(place)
        name, length = (header := file.read(8))[:4], int.from_bytes(header[4:], "little")
        if name in (b"RIFF", b"LIST"):
            place += 12
        elif min(name) < 0x20 or place + 8 + length > end:
            return end - place, count
        else:
            count += length > 0 and name in (stream + b"dc", stream + b"db")
            place += 8 + length + length % 2
    return 0, count


def _unreadable_in_matroska(file: BinaryIO, size: int) -> int:
    """Bytes from each place where no element begins, or none that ends in the file, up to the next cluster."""
    return _walk_matroska(file, min(size, _end_of_segment(file) or size))[0]


def _walk_matroska(file: BinaryIO, end: int) -> tuple[int, int]:
    """Bytes that belong to no element, and the place at which the last block ends, if need be beyond the file."""
    place = unreadable = end_of_block = 0
    while place < end:
        file.seek(place)
        header = file.read(12)
        length = _length_of_element(header)
        if length is not None and header[:1] in BLOCKS:
            end_of_block = place + length
        if length is None or length > end - place:
            following = _find(file, CLUSTER, place + 1, end)
            unreadable += following - place
            place = following
        else:
            place += length
    return unreadable, end_of_block


def _unreadable_in_asf(file: BinaryIO, size: int) -> int:
    """Bytes of packets, all of one length, that do not begin as packets do."""
    start, properties = _properties_of_asf(file)
    if properties is None:
        return 0
    length, largest = (int.from_bytes(properties[place : place + 4], "little") for place in (92, 96))
    if not 0 < length == largest:
        return 0
    unreadable = 0
    for place in range(start, min(size, _end_of_asf(file, size)) - length + 1, length):
        file.seek(place)
        first = file.read(1)
        if place == start and first[0] != ASF_PACKET:
            return 0  # written without marks
        unreadable += 0 if first[0] == ASF_PACKET else length
    return unreadable


def lacks_index(path: str | Path) -> bool:
    """Whether a file is an MP4 or QuickTime film without its index, the box "moov", which recorders write last."""
    size, place, boxes = Path(path).stat().st_size, 0, []
    with open(path, "rb") as file:
        while place < size:
            file.seek(place)
            header = file.read(16)
            length = int.from_bytes(header[8:16] if header[:4] == b"\0\0\0\1" else header[:4], "big")
            if header[4:8] not in TOP_LEVEL_BOXES:
                break
            boxes.append(header[4:8])
            place += length if length >= 8 else size
    return bool({b"ftyp", b"mdat"} & set(boxes)) and b"moov" not in boxes


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
    """End of the segment; a live recording, which leaves its length open, tells that of its last block."""
    return _end_of_segment(file) or _walk_matroska(file, size)[1]


def _end_of_segment(file: BinaryIO) -> int:
    """End of the element that holds everything; 0 where its length is left open."""
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


def _length_of_element(header: bytes) -> int | None:
    """Bytes up to the next element of a Matroska file, into segments and clusters; None if this is no element."""
    if len(header) < 2 or header[0] < 0x10:  # an identifier has up to four bytes, by its first set bit
        return None
    width = 9 - header[0].bit_length()
    identifier, size = header[:width], header[width : width + 1]
    if not size or size == b"\0":
        return None
    size_width = 9 - size[0].bit_length()
    if identifier in (SEGMENT, CLUSTER):
        return width + size_width
    length = int.from_bytes(header[width : width + size_width], "big") & ((1 << 7 * size_width) - 1)
    return width + size_width + length


def _find(file: BinaryIO, wanted: bytes, start: int, end: int) -> int:
    """Where the bytes stand next, or the end."""
    file.seek(start)
    place, before = start, b""
    while place < end and (block := file.read(1 << 20)):
        found = (before + block).find(wanted)
        if found >= 0:
            return min(end, place - len(before) + found)
        place += len(block)
        before = block[1 - len(wanted) :]
    return end


def _properties_of_asf(file: BinaryIO) -> tuple[int, bytes | None]:
    """Where the packets of an ASF file begin, and the object of its header that tells of the file; None without it."""
    file.seek(0)
    header = file.read(1 << 16)
    place = header.find(ASF_FILE_PROPERTIES)
    if place < 0 or len(header) < place + 104:
        return 0, None
    return int.from_bytes(header[16:24], "little") + ASF_DATA_HEADER, header[place : place + 104]


def _end_of_asf(file: BinaryIO, size: int) -> int:
    """The size of the file that its header tells; 0 for a broadcast, whose header was written first."""
    _, properties = _properties_of_asf(file)
    if properties is None or properties[88] & 1:
        return 0
    return int.from_bytes(properties[40:48], "little")


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
    "asf": _end_of_asf,
    "avi": _end_of_avi,
    "gif": _end_of_gif,
    "mov": _end_of_boxes,
    "matroska": _end_of_matroska,
    "mpeg": _end_of_program_stream,
    "mpegts": _end_of_transport_stream,
}
_UNREADABLE: dict[str, Callable[[BinaryIO, int], int]] = {
    "asf": _unreadable_in_asf,
    "avi": _unreadable_in_avi,
    "matroska": _unreadable_in_matroska,
}
