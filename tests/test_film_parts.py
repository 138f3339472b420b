"""Parts of long films: decoded only as far as needed, with the same frames as by decoding everything."""

from fractions import Fraction
from itertools import accumulate, cycle, islice
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from modeling_dkd import counted_packets, video_decoding
from modeling_dkd.frame_sampling import segment_indices
from modeling_dkd.h26x_packets import PacketUnits
from modeling_dkd.video_frames import read_frames

from .test_odd_videos import RATE, add_video, edit, numbered, numbers_of


COUNT = 100
H264 = "keyint=20:min-keyint=20:scenecut=0:b-adapt=0"
H265 = "log-level=none:pools=1:frame-threads=1:keyint=20:min-keyint=20:scenecut=0"
QUICK_VP9 = {"deadline": "realtime", "cpu-used": "8", "g": "20"}
FILMS = {  # with how many frames are decoded at most for frames 50 to 60
    "closed.mp4": ("libx264", {"bf": "3", "x264-params": H264}, 24),
    "closed.mkv": ("libx264", {"bf": "3", "x264-params": H264}, 24),
    "pyramid.mov": ("libx264", {"bf": "7", "x264-params": f"{H264}:b-pyramid=strict"}, 28),
    "open.mp4": ("libx264", {"bf": "3", "x264-params": f"{H264}:open-gop=1"}, 64),
    "refreshed.mp4": ("libx264", {"x264-params": f"{H264}:intra-refresh=1"}, 64),
    "repeated.mkv": ("libx264", {"x264-params": f"{H264}:repeat-headers=1"}, 24),
    "interlaced.mkv": ("libx264", {"x264-params": f"{H264}:tff=1"}, 64),
    "closed265.mp4": ("libx265", {"x265-params": f"{H265}:open-gop=0"}, 28),
    "open265.mkv": ("libx265", {"x265-params": H265}, 64),
    "packed.avi": ("mpeg4", {"bf": "2", "g": "20"}, 64),
    "mpeg4.mp4": ("mpeg4", {"bf": "2", "g": "20"}, 64),
    "broadcast.ts": ("mpeg2video", {"bf": "2", "g": "20"}, 64),
    "h264.ts": ("libx264", {"bf": "3", "x264-params": H264}, 64),
    "web.webm": ("libvpx-vp9", QUICK_VP9, 64),
    "pictures.avi": ("mjpeg", {}, 64),
}


def write_film(
    path: Path, codec: str, options: dict[str, str], times: list[int] | None = None, types: str = ""
) -> Path:
    """Numbered frames, at `times` in frames (default: 0, 1, 2 ...), of the picture types given."""
    with av.open(str(path), "w") as container:
        stream = add_video(container, codec, **options)
        for number in range(COUNT):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts, frame.time_base = number if times is None else times[number], Fraction(1, RATE)
            if types:
                frame.pict_type = av.video.frame.PictureType[types[number]]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def assert_parts_are_those_of_the_whole(path: Path) -> None:
    total = read_frames(path, 1).total_frames
    whole = read_frames(path, total)
    times = whole.times
    for first, behind in [(0, 9), (3, 4), (18, 23), (39, 61), (50, 60), (total - 7, total), (total // 3, total - 5)]:
        last = times[behind] if behind < total else 1e6
        found = read_frames(path, 4, span=(times[first], last))
        assert np.array_equal(found.indices, first + segment_indices(behind - first, 4)[0])
        assert torch.equal(found.pixels, whole.pixels[found.indices])
        assert np.array_equal(found.times, times[found.indices])
        assert (found.total_frames, found.damage) == (total, whole.damage)


@pytest.mark.parametrize("name", FILMS)
def test_a_part_has_the_frames_of_the_whole_and_decodes_no_more_than_leads_to_them(name, tmp_path, decoded_stamps):
    codec, options, most = FILMS[name]
    path = write_film(tmp_path / name, codec, options)
    assert_parts_are_those_of_the_whole(path)
    decoded_stamps.clear()
    found = read_frames(path, 10, span=(50 / RATE, 60 / RATE))
    assert numbers_of(found) == list(range(50, 60))
    assert 10 <= len(decoded_stamps) <= most


def test_parts_of_films_whose_frames_are_not_evenly_spaced(tmp_path):
    times = list(islice(accumulate(cycle([1, 1, 9, 1, 4, 1, 1, 1, 12, 1])), COUNT))
    for name in ("closed.mp4", "closed.mkv", "closed265.mp4"):
        codec, options, _ = FILMS[name]
        assert_parts_are_those_of_the_whole(write_film(tmp_path / name, codec, options, times))


@pytest.mark.parametrize("name", ["closed.mp4", "open.mp4"])
def test_parts_of_a_film_that_an_edit_list_trims(name, tmp_path, decoded_stamps):
    codec, options, most = FILMS[name]
    path = edit(write_film(tmp_path / name, codec, options), (3.2, (2 + 13) / RATE))
    assert read_frames(path, 1).total_frames == 80
    assert_parts_are_those_of_the_whole(path)
    decoded_stamps.clear()
    assert numbers_of(read_frames(path, 3, span=(40 / RATE, 43 / RATE))) == [53, 54, 55]
    assert len(decoded_stamps) <= most


def test_parts_of_a_large_film_that_is_not_kept(tmp_path, monkeypatch, decoded_stamps):
    monkeypatch.setattr(counted_packets, "PACKETS_IN_MEMORY", 0)
    codec, options, most = FILMS["closed.mp4"]
    path = write_film(tmp_path / "film.mp4", codec, options)
    assert_parts_are_those_of_the_whole(path)
    decoded_stamps.clear()
    read_frames(path, 10, span=(50 / RATE, 60 / RATE))
    assert len(decoded_stamps) <= most


def test_parts_of_real_clips(data_dir):
    for path in sorted((data_dir / "originals").glob("*.*"))[::3]:
        if path.suffix != ".csv" and read_frames(path, 1).total_frames >= 70:
            assert_parts_are_those_of_the_whole(path)


def splice(path: Path, *films: tuple[Path, bool]) -> Path:
    """Films one after the other as one, with the configuration of the first; of each, whether it keeps parameters.

    Those that come inside of packets: of a film that keeps them only the first ones.
    """
    end = 0
    with av.open(str(path), "w") as container:
        stream = None
        for film, keeps in films:
            with av.open(str(film)) as source:
                stream = stream or container.add_stream_from_template(source.streams.video[0])
                units = PacketUnits("h264", 4)
                packets = [packet for packet in source.demux(video=0) if packet.size]
                for number, packet in enumerate(packets):
                    rows = [bytes(unit) for unit in units.split(memoryview(packet))]
                    rows = [row for row in rows if row[0] & 31 not in (7, 8) or (keeps and not number)]
                    moved = av.Packet(b"".join(len(row).to_bytes(4, "big") + row for row in rows))
                    moved.pts, moved.dts = packet.pts + end, packet.dts + end
                    moved.time_base, moved.is_keyframe, moved.stream = packet.time_base, packet.is_keyframe, stream
                    container.mux(moved)
                end += COUNT * round(1 / RATE / packets[0].time_base)
    return path


def test_decoding_does_not_begin_behind_parameters_that_came_along_the_way(tmp_path, decoded_stamps):
    """The second hundred is of another encoder, whose parameters stand before its first frame alone."""
    one = write_film(tmp_path / "one.mp4", "libx264", {"x264-params": f"{H264}:repeat-headers=1"})
    other = {"x264-params": f"{H264}:repeat-headers=1:cabac=0:ref=1:bframes=0", "g": "20"}
    film = splice(tmp_path / "film.mkv", (one, True), (write_film(tmp_path / "two.mp4", "libx264", other), True))
    assert_parts_are_those_of_the_whole(film)
    units, packets = packets_of(film)
    assert units.last_start(packets, packets[190].pts)[0] == 80
    decoded_stamps.clear()
    found = read_frames(film, 2, span=(190 / RATE, 192 / RATE))
    assert numbers_of(found) == [90, 91]
    assert found.damage == ""
    assert len(decoded_stamps) > 100


def keeping_back(path: Path, pictures: int) -> Path:
    """The H.264 film with parameters that say how many pictures a decoder keeps back, instead of two."""
    data = path.read_bytes()
    place = data.index(b"avcC") + 12 if b"avcC" in data else data.index(b"\1\x64\0") + 8
    length = int.from_bytes(data[place - 2 : place], "big")
    bits = "".join(f"{byte:08b}" for byte in data[place : place + length])
    end = bits.rindex("1")
    assert bits[end - 8 : end] == "011" + "00101"  # max_num_reorder_frames 2, max_dec_frame_buffering 4
    bits = bits[: end - 8] + {0: "1" + "0001000", 1: "010" + "00101"}[pictures] + bits[end:]
    changed = int(bits, 2).to_bytes(length, "big")
    path.write_bytes(data[:place] + changed + data[place + length :])
    return path


def test_decoding_does_not_begin_behind_frames_that_a_decoder_loses(tmp_path, monkeypatch):
    """It keeps no frame back, and those that others overtake are lost: nothing but decoding tells how many."""
    types = "P" * 40 + "PBBP" * 5 + "P" * 40
    options = {"bf": "3", "x264-params": f"{H264}:b-pyramid=strict:ref=4"}
    path = keeping_back(write_film(tmp_path / "film.mkv", "libx264", options, types=types), 0)
    span = (85 / RATE, 90 / RATE)
    found = read_frames(path, 5, span=span)
    monkeypatch.setattr(video_decoding.OpenVideo, "_read_part", lambda *_: None)
    whole = read_frames(path, 5, span=span)
    assert found.total_frames == whole.total_frames < COUNT
    assert found.damage == whole.damage != ""
    assert numbers_of(found) == numbers_of(whole)


def overwrite(path: Path, number: int) -> Path:
    """Zeros inside of the picture of one packet, behind the headers of its units."""
    with av.open(str(path)) as container:
        packet = next(islice(container.demux(video=0), number, None))
        place, size = path.read_bytes().index(bytes(packet)), packet.size
    data = bytearray(path.read_bytes())
    data[place + 8 : place + size] = bytes(size - 8)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("name", "begins_anew"), [("closed.mp4", True), ("mpeg4.mp4", False)])
def test_damage_is_told_of_what_is_decoded(name, begins_anew, tmp_path, monkeypatch):
    """A part before it knows nothing of it, nor does one behind it that needs no picture from before."""
    codec, options, _ = FILMS[name]
    path = overwrite(write_film(tmp_path / name, codec, options), 45)
    spans = [(start / RATE, (start + 9) / RATE) for start in (5, 41, 85)]
    parts = [read_frames(path, 4, span=span) for span in spans]
    monkeypatch.setattr(video_decoding.OpenVideo, "_read_part", lambda *_: None)
    wholes = [read_frames(path, 4, span=span) for span in spans]
    assert parts[0].damage == ""
    assert numbers_of(parts[0]) == [6, 8, 10, 12]
    damaged = slice(1, 2) if begins_anew else slice(1, 3)
    for part, whole in zip(parts[damaged], wholes[damaged], strict=True):
        assert np.array_equal(part.indices, whole.indices)
        assert torch.equal(part.pixels, whole.pixels)
        assert part.damage == whole.damage != ""
    if begins_anew:
        assert parts[2].damage == ""
        assert numbers_of(parts[2]) == [86, 88, 90, 92]


def test_a_film_that_is_cut_off_is_told_whatever_part_is_asked(tmp_path):
    for name in ("closed.mkv", "pictures.avi"):
        path = write_film(tmp_path / name, *FILMS[name][:2])
        path.write_bytes(path.read_bytes()[: -path.stat().st_size // 16])
        whole = read_frames(path, 1)
        found = read_frames(path, 4, span=(5 / RATE, 14 / RATE))
        assert found.damage == whole.damage != ""
        assert (found.total_frames, numbers_of(found)) == (whole.total_frames, [6, 8, 10, 12])


def not_coded(path: Path, number: int) -> Path:
    """The MPEG-4 film, with a packet that says that nothing has changed, for which a decoder gives no frame."""
    with av.open(str(path)) as container:
        packet = bytes(next(islice(container.demux(video=0), number, None)))
    head = packet.index(b"\0\0\1\xb6") + 4
    bits = "".join(f"{byte:08b}" for byte in packet[head : head + 4])
    coded = bits.index("0", 2) + 2 + (RATE - 1).bit_length() + 1  # type, seconds, marker, parts of a second, marker
    assert bits[coded] == "1"
    bits = bits[:coded] + "0" + bits[coded + 1 :]
    place = path.read_bytes().index(packet) + head
    data = bytearray(path.read_bytes())
    data[place : place + 4] = int(bits, 2).to_bytes(4, "big")
    path.write_bytes(data)
    return path


def test_frames_that_do_not_come_shift_those_of_a_part_as_those_of_the_whole(tmp_path, monkeypatch):
    path = not_coded(write_film(tmp_path / "film.mp4", "mpeg4", {"g": "50", "bf": "0"}), 30)
    spans = [(start / RATE, (start + 9) / RATE) for start in (5, 25, 60, 90)]
    parts = [read_frames(path, 4, span=span) for span in spans]
    monkeypatch.setattr(video_decoding.OpenVideo, "_read_part", lambda *_: None)
    wholes = [read_frames(path, 4, span=span) for span in spans]
    assert [whole.total_frames for whole in wholes] == [COUNT - 1] * 4
    for part, whole in zip(parts, wholes, strict=True):
        assert np.array_equal(part.indices, whole.indices)
        assert np.array_equal(part.times, whole.times)
        assert torch.equal(part.pixels, whole.pixels)
        assert part.damage == whole.damage == ""


def packets_of(path: Path) -> tuple[PacketUnits, list[av.Packet]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        return PacketUnits.of(stream.codec_context.name, stream.codec_context.extradata), packets


STARTS = {  # number of the packet for frame 50, and how far pictures before it are decoded ahead of their time
    "closed.mp4": (40, 2),
    "pyramid.mov": (40, 2),
    "repeated.mkv": (40, 1),
    "open.mp4": (0, 0),
    "interlaced.mkv": (0, 0),
    "closed265.mp4": (40, 2),
    "open265.mkv": (0, 0),
}


@pytest.mark.parametrize("name", STARTS)
def test_where_decoding_can_begin(name, tmp_path):
    codec, options, _ = FILMS[name]
    units, packets = packets_of(write_film(tmp_path / name, codec, options))
    times = sorted(packet.pts for packet in packets)
    assert units.last_start(packets, times[50]) == STARTS[name]
    assert units.last_start(packets, times[5]) == (0, 0)


def changed(packet: av.Packet, content: bytes | None = None, pts: int | None = None) -> av.Packet:
    made = av.Packet(bytes(packet) if content is None else content)
    made.pts, made.dts, made.time_base = packet.pts if pts is None else pts, packet.dts, packet.time_base
    return made


class ConfiguredAnew(bytearray):
    """A packet with which the container gives a new configuration."""

    def __init__(self, packet: av.Packet) -> None:
        super().__init__(bytes(packet))
        self.pts, self.size = packet.pts, packet.size

    def has_sidedata(self, kind: str) -> bool:
        return kind == "new_extradata"


def unit(*content: int) -> bytes:
    return len(content).to_bytes(4, "big") + bytes(content)


@pytest.mark.parametrize("name", ["closed.mp4", "closed265.mp4"])
def test_nothing_is_said_of_what_follows_an_odd_packet(name, tmp_path):
    codec, options, _ = FILMS[name]
    units, packets = packets_of(write_film(tmp_path / name, codec, options))
    wanted = sorted(packet.pts for packet in packets)[75]
    assert units.last_start(packets, wanted)[0] == 60
    old = packets[30]
    content = bytes(old)
    end, parameters, cut = {"libx264": (10, 8, 11), "libx265": (36 << 1, 34 << 1, 17 << 1)}[codec]
    odd = {
        "no picture": changed(old, unit(12 if codec == "libx264" else 38 << 1, 255)),
        "two pictures": changed(old, content + content),
        "not whole": changed(old, content[:-1]),
        "empty": changed(old, b""),
        "the end of a sequence": changed(old, content + unit(end, 1)),
        "a cut": changed(old, content + unit(cut, 1)),
        "other parameters": changed(old, unit(parameters, 1, 2, 3) + content),
        "shown before its group": changed(old, pts=packets[15].pts),
    }
    if codec == "libx265":
        key = bytearray(bytes(packets[40]))
        picture = next(u for u in units.split(memoryview(packets[40])) if u[0] >> 1 & 63 in (19, 20))
        key[key.index(bytes(picture)) + 2] |= 0x40  # no_output_of_prior_pics_flag
        odd["what is not shown yet is dropped"] = changed(old, bytes(key))
    odd["without a time"] = av.Packet(content)
    odd["configured anew"] = ConfiguredAnew(old)
    for what, packet in odd.items():
        assert units.last_start([*packets[:30], packet, *packets[31:]], wanted)[0] == 20, what


def test_decoding_begins_nowhere_else_where_the_first_packet_allows_fields(tmp_path):
    films = [write_film(tmp_path / name, *FILMS[name][:2]) for name in ("closed.mp4", "interlaced.mkv")]
    units, packets = packets_of(films[0])
    with av.open(str(films[1])) as container:
        configuration = container.streams.video[0].codec_context.extradata
    length = int.from_bytes(configuration[6:8], "big")
    packets[0] = changed(packets[0], unit(*configuration[8 : 8 + length]) + bytes(packets[0]))
    assert units.last_start(packets, packets[50].pts) == (0, 0)


def test_parameters_that_allow_fields_are_known(tmp_path):
    for name, frames_only in (("closed.mp4", True), ("interlaced.mkv", False), ("closed265.mp4", True)):
        codec, options, _ = FILMS[name]
        assert packets_of(write_film(tmp_path / name, codec, options))[0].frames_only is frames_only
    for profile in ("baseline", "main", "high444"):
        options = {"profile": profile, "x264-params": H264}
        assert packets_of(write_film(tmp_path / f"{profile}.mp4", "libx264", options))[0].frames_only
    sound = bytes.fromhex("0164000affe100186764000aacd9420db011000003000100000300320f122596")
    assert PacketUnits.of("h264", sound).frames_only
    for broken in (sound[:9], sound[:14], sound[:5] + b"\xe0" + sound[6:]):
        assert not PacketUnits.of("h264", broken).frames_only
