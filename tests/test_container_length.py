import pytest

from modeling_dkd.container_length import chunks_in_avi, lacks_index, missing_bytes, unreadable_bytes


def riff(kind: bytes, content: bytes, length: int | None = None) -> bytes:
    return b"RIFF" + (len(content) + 4 if length is None else length).to_bytes(4, "little") + kind + content


def box(kind: bytes, content: bytes) -> bytes:
    return (len(content) + 8).to_bytes(4, "big") + kind + content


def large_box(kind: bytes, content: bytes) -> bytes:
    return (1).to_bytes(4, "big") + kind + (len(content) + 16).to_bytes(8, "big") + content


def segment(length: bytes, content: bytes) -> bytes:
    return b"\x1a\x45\xdf\xa3\x84webm" + b"\x18\x53\x80\x67" + length + content


def packet(content: bytes, code: int = 0xE0) -> bytes:
    return b"\0\0\1" + bytes([code]) + len(content).to_bytes(2, "big") + content


MPEG1_PACK = b"\0\0\1\xba\x21" + bytes(7)
MPEG2_PACK = b"\0\0\1\xba\x44" + bytes(8) + b"\xfa" + bytes(2)  # two stuffing bytes
MOV = "mov,mp4,m4a,3gp,3g2,mj2"

WHOLE = {
    "avi": ("avi", riff(b"AVI ", bytes(100))),
    "long avi": ("avi", riff(b"AVI ", bytes(100)) + riff(b"AVIX", bytes(60))),
    "mp4": (MOV, box(b"ftyp", b"isom") + box(b"moov", bytes(40)) + box(b"mdat", bytes(100))),
    "mp4 of 64-bit lengths": (MOV, box(b"ftyp", b"isom") + large_box(b"mdat", bytes(100))),
    "webm": ("matroska,webm", segment((100 + (1 << 56)).to_bytes(8, "big"), bytes(100))),
    "webm with a short length": ("matroska,webm", segment(b"\xe4", bytes(100))),
    "mpeg-1": ("mpeg", MPEG1_PACK + packet(bytes(20), 0xBB) + packet(bytes(90)) + packet(bytes(50))),
    "mpeg-2": ("mpeg", MPEG2_PACK + packet(bytes(90)) + MPEG2_PACK + packet(bytes(50), 0xBE)),
    "transport stream": ("mpegts", (b"\x47" + bytes(187)) * 3),
    "transport stream of a disc": ("mpegts", (bytes(4) + b"\x47" + bytes(187)) * 3),
}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("cut", [0, 1, 7, 40])
def test_what_is_cut_off_is_counted(name, cut, tmp_path):
    container, data = WHOLE[name]
    path = tmp_path / "video"
    path.write_bytes(data[: len(data) - cut])
    assert missing_bytes(path, container) == cut


SILENT = {
    "recorder that never wrote the size": ("avi", riff(b"AVI ", bytes(100), 0)),
    "recorder that wrote no size": ("avi", riff(b"AVI ", bytes(100), 0xFFFFFFFF)),
    "bytes behind an avi": ("avi", riff(b"AVI ", bytes(100)) + b"JUNKJUNKJUNK"),
    "box up to the end": (MOV, box(b"ftyp", b"isom") + b"\0\0\0\0mdat" + bytes(50)),
    "bytes behind an mp4": (MOV, box(b"ftyp", b"isom") + box(b"mdat", bytes(9)) + b"\x7fxyz1234some words"),
    "a live webm": ("matroska,webm", segment(b"\x01" + b"\xff" * 7, bytes(100))),
    "a live webm with a short length": ("matroska,webm", segment(b"\xff", bytes(100))),
    "bytes between packets": ("mpeg", MPEG1_PACK + packet(bytes(90)) + b"rest" + packet(bytes(50))[:20]),
    "bytes behind the end": ("mpeg", MPEG1_PACK + packet(bytes(90)) + b"\0\0\1\xb9" + packet(bytes(50))[:20]),
    "no synchronisation": ("mpegts", bytes(1000)),
    "another container": ("ogg", bytes(10)),
    "nothing": ("avi", b""),
    "a gif": ("gif", b"GIF89a" + bytes(9) + b";"),
    "zeros behind a gif": ("gif", b"GIF89a" + bytes(9) + b";" + bytes(5)),
}


@pytest.mark.parametrize("name", SILENT)
def test_a_file_that_does_not_tell_is_not_accused(name, tmp_path):
    container, data = SILENT[name]
    path = tmp_path / "video"
    path.write_bytes(data)
    assert missing_bytes(path, container) == 0


@pytest.mark.parametrize(("cut", "missing"), [(0, 0), (1, 1), (50, 50), (55, 0), (56, 1), (105, 50)])
def test_a_live_recording_tells_of_the_block_in_which_it_ends(cut, missing, tmp_path):
    path = tmp_path / "video"
    path.write_bytes(MATROSKA[: len(MATROSKA) - cut])
    assert missing_bytes(path, "matroska,webm") == missing


def test_a_gif_without_its_end_is_cut_off(tmp_path):
    path = tmp_path / "video"
    path.write_bytes(b"GIF89a" + bytes(9))
    assert missing_bytes(path, "gif") == 1


def element(identifier: str, content: bytes) -> bytes:
    return bytes.fromhex(identifier) + (len(content) + (1 << 28)).to_bytes(4, "big") + content


CLUSTER = bytes.fromhex("1f43b675") + b"\x01" + b"\xff" * 7  # of unknown length, as live recordings have them
BLOCK = element("a3", bytes(50))
MATROSKA = element("1a45dfa3", b"webm") + bytes.fromhex("18538067") + b"\x01" + b"\xff" * 7
MATROSKA += element("1549a966", bytes(20)) + CLUSTER + element("e7", b"\1") + BLOCK * 4 + CLUSTER + BLOCK * 2
AVI = riff(b"AVI ", b"LIST\x10\0\0\0movi" + (b"00dc\x0a\0\0\0" + bytes(10)) * 6)


def test_bytes_that_belong_to_no_part_are_counted(tmp_path):
    path = tmp_path / "video"
    for container, data in (("matroska,webm", MATROSKA), ("avi", AVI), ("mpegts", bytes(900)), ("avi", b"")):
        path.write_bytes(data)
        assert unreadable_bytes(path, container) == 0
    hole = MATROSKA.index(BLOCK) + len(BLOCK)
    path.write_bytes(MATROSKA[:hole] + bytes(60) + MATROSKA[hole + 60 :])
    assert unreadable_bytes(path, "matroska,webm") == 3 * len(BLOCK)  # up to the next cluster
    path.write_bytes(MATROSKA[:-10])
    assert unreadable_bytes(path, "matroska,webm") == len(BLOCK) - 10
    hole = AVI.index(b"00dc") + 18
    path.write_bytes(AVI[:hole] + bytes(8) + AVI[hole + 8 :])
    assert unreadable_bytes(path, "avi") == len(AVI) - hole


def test_chunks_of_an_avi_are_counted_without_its_index(tmp_path):
    path = tmp_path / "video"
    others = b"01wb\x02\0\0\0ab" + b"00dc\0\0\0\0" + b"JUNK\2\0\0\0ab"
    path.write_bytes(riff(b"AVI ", AVI[12:] + others))
    assert [chunks_in_avi(path, stream) for stream in (0, 1)] == [6, 0]


def test_a_film_without_its_index_is_recognised(tmp_path):
    path = tmp_path / "video"
    for data, lacks in (
        (box(b"ftyp", b"isom") + box(b"mdat", bytes(40)), True),
        (box(b"ftyp", b"isom") + box(b"mdat", bytes(40))[:20], True),
        (box(b"ftyp", b"isom") + b"\0\0\0\0mdat" + bytes(50), True),
        (WHOLE["mp4"][1], False),
        (box(b"ftyp", b"isom") + box(b"mdat", bytes(40)) + box(b"moov", bytes(40)), False),
        (b"some words", False),
        (b"", False),
    ):
        path.write_bytes(data)
        assert lacks_index(path) is lacks
