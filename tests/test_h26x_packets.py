from fractions import Fraction

import av
import numpy as np
import pytest

from modeling_dkd.h26x_packets import PacketUnits


def packets(path, codec, options):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(30):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.codec_context, [packet for packet in container.demux(stream) if packet.size]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"bf": "3", "b-pyramid": "none", "x264-params": "b-adapt=0:scenecut=0"}),
        ("libx265", {"x265-params": "bframes=3:b-adapt=0:b-pyramid=0:log-level=none"}),
    ],
)
def test_the_pictures_that_a_decoder_skips_are_those_nothing_refers_to(name, codec, options, tmp_path):
    decoder, found = packets(tmp_path / name, codec, options)
    units = PacketUnits.of(decoder.name, decoder.extradata)
    references = [units.is_reference(memoryview(packet)) for packet in found]
    assert set(references) == {True, False}
    decoder.thread_count, decoder.skip_frame = 1, "NONREF"
    shown = [frame.pts for packet in [*found, None] for frame in decoder.decode(packet)]
    assert shown == sorted(packet.pts for packet, kept in zip(found, references, strict=True) if kept)


def test_a_packet_that_is_no_row_of_units_is_known(tmp_path):
    decoder, found = packets(tmp_path / "a.mp4", "libx264", {})
    units = PacketUnits.of("h264", decoder.extradata)
    whole = bytes(found[1])
    assert units.is_reference(memoryview(whole)) is not None
    for broken in (bytes(len(whole)), whole[:-1], whole + b"\0", b"", b"\0\0\0"):
        assert units.is_reference(memoryview(broken)) is None


@pytest.mark.parametrize(
    ("codec", "extradata"), [("mpeg4", b"\1" * 40), ("h264", None), ("h264", b"\0\0\0\1\x67"), ("hevc", b"\1")]
)
def test_other_forms_are_not_taken_for_units(codec, extradata):
    assert PacketUnits.of(codec, extradata) is None
