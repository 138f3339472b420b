import pytest

from modeling_dkd.random_access import begins_afresh


VOP = b"\0\0\1\xb6"
INTRA, PREDICTED, BIDIRECTIONAL, SPRITE = (bytes([kind << 6 | 17]) + bytes(range(1, 40)) for kind in range(4))
OTHER_HEADER = b"\0\0\1\x20\x08\xd4"
GROUP_HEADER = b"\0\0\1\xb3\0\x10\7"

MPEG4 = {
    "intra": (VOP + INTRA, True),
    "intra with headers": (OTHER_HEADER + GROUP_HEADER + VOP + INTRA, True),
    "predicted": (VOP + PREDICTED, False),
    "sprite": (VOP + SPRITE, False),
    "bidirectional": (VOP + BIDIRECTIONAL, None),
    "packed": (VOP + PREDICTED + VOP + BIDIRECTIONAL, None),
    "uncoded": (VOP + PREDICTED[:4], None),
    "overwritten": (VOP + INTRA + bytes(3) + INTRA, None),
    "no picture": (OTHER_HEADER, None),
    "empty": (b"", None),
}


@pytest.mark.parametrize("name", MPEG4)
def test_pictures_of_mpeg4(name):
    packet, expected = MPEG4[name]
    assert begins_afresh(packet, "mpeg4", b"") is expected


def unit(kind: int, content: bytes = b"\x88\x84\x21", length_size: int = 4, missing: int = 0) -> bytes:
    body = bytes([0x60 | kind]) + content
    return (len(body) + missing).to_bytes(length_size, "big") + body


H264 = {
    "refresh": (unit(5), True),
    "refresh of two slices with settings": (unit(7) + unit(8) + unit(6) + unit(5) + unit(5), True),
    "slice": (unit(9) + unit(1), False),
    "key frame that others may look past": (unit(6) + unit(1), False),
    "mixed": (unit(5) + unit(1), False),
    "no picture": (unit(7) + unit(8), None),
    "longer than the packet": (unit(5, missing=1), None),
    "cut off inside a length": (unit(5) + b"\0\0", None),
    "start codes instead of lengths": (b"\0\0\0\1\x65\x88\x84", None),
    "a unit of no length": (unit(5) + bytes(4) + unit(1), None),
    "overwritten": (unit(5, b"\x88\0\0\0\x84"), None),
    "empty": (b"", None),
}
SETTINGS = b"\1\x64\0\x1f\xff\xe1"


@pytest.mark.parametrize("name", H264)
def test_pictures_of_h264(name):
    packet, expected = H264[name]
    assert begins_afresh(packet, "h264", SETTINGS) is expected


def test_the_settings_tell_how_long_lengths_are():
    assert begins_afresh(unit(5, length_size=2), "h264", b"\1\x64\0\x1f\xfd\xe1") is True
    assert begins_afresh(unit(5, length_size=2), "h264", SETTINGS) is None


@pytest.mark.parametrize(("codec", "extradata"), [("h264", b""), ("h264", b"\0\0\0\1\x67"), ("hevc", SETTINGS)])
def test_nothing_is_told_of_other_streams(codec, extradata):
    assert begins_afresh(unit(5), codec, extradata) is None
