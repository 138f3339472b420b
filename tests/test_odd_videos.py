"""Sound files that look damaged, damaged ones that look sound, and what else cameras and cutters leave behind."""

import base64
import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image, TiffImagePlugin

from modeling_dkd import picture_files
from modeling_dkd.video_frames import VideoFrames, VideoReadError, read_frames, read_windows


WIDTH, HEIGHT, RATE = 96, 48, 25
ASKED = (1, 3, 8, 40)


def numbered(number: int) -> np.ndarray:
    """A picture that carries its number as eight squares, lowest bit left, and a red mark top left."""
    picture = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    for bit in range(8):
        picture[16:32, bit * 12 : (bit + 1) * 12] = 220 if number >> bit & 1 else 20
    picture[:12, :12] = (220, 20, 20)
    return picture


def numbers_of(frames: VideoFrames) -> list[int]:
    """The numbers that the pictures carry, of any size with three thirds."""
    grey = frames.pixels.float().mean(1)
    height, width = grey.shape[1:]
    squares = [
        grey[:, height * 5 // 12 : height * 7 // 12, width * bit // 8 + 4 : width * (bit + 1) // 8 - 4]
        for bit in range(8)
    ]
    return sum((square.mean((1, 2)) > 120).long() << bit for bit, square in enumerate(squares)).tolist()


def mark(picture: np.ndarray) -> tuple[str, str]:
    """Where the red mark is."""
    red = picture[..., 0].astype(int) - picture[..., 1]
    row, column = np.unravel_index(red.argmax(), red.shape)
    return ("top" if row < red.shape[0] / 2 else "bottom", "left" if column < red.shape[1] / 2 else "right")


def add_video(container, codec="libx264", size=(WIDTH, HEIGHT), **options):
    groups = {} if codec == "mjpeg" else {"g": "10", "bf": "2"}
    stream = container.add_stream(codec, rate=RATE, options=groups | options)
    stream.width, stream.height, stream.pix_fmt = *size, "yuvj420p" if codec == "mjpeg" else "yuv420p"
    stream.codec_context.time_base = Fraction(1, RATE)
    stream.codec_context.thread_count = 1
    return stream


def encoded(stream, numbers, start: int = 0, size=(WIDTH, HEIGHT)):
    """Packets of pictures with these numbers, the first at `start` in frames."""
    for place, number in enumerate(numbers):
        frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24").reformat(*size)
        frame.pts, frame.time_base = start + place, Fraction(1, RATE)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def write(path: Path, count: int = 50, start: int = 0, codec: str = "libx264", options=None, **encoder) -> Path:
    with av.open(str(path), "w", options=options or {}) as container:
        stream = add_video(container, codec, **encoder)
        for packet in encoded(stream, range(count), start):
            container.mux(packet)
    return path


def copy(source: Path, path: Path, wanted: Callable[[int], bool]) -> Path:
    """The packets that are wanted, by number."""
    with av.open(str(source)) as before, av.open(str(path), "w") as after:
        stream = before.streams.video[0]
        copied = after.add_stream_from_template(stream)
        for number, packet in enumerate(before.demux(stream)):
            if packet.size and wanted(number):
                packet.stream = copied
                after.mux(packet)
    return path


def assert_sound(path: Path, numbers) -> None:
    numbers = list(numbers)
    for asked in ASKED:
        found = read_frames(path, asked)
        assert (found.total_frames, found.damage) == (len(numbers), "")
        assert numbers_of(found) == [numbers[index] for index in found.indices]


# --- data/cases


@pytest.mark.parametrize(("name", "count"), [("late1s.mkv", 125), ("copyts_cut.mkv", 50), ("tag.mkv", 125)])
def test_sound_cases(name, count, data_dir):
    for asked in ASKED:
        found = read_frames(data_dir / "cases" / name, asked)
        assert (found.total_frames, found.damage) == (count, "")
    numbers = numbers_of(read_frames(data_dir / "cases" / name, count))
    assert numbers == list(range(numbers[0], numbers[0] + count))
    assert numbers[0] == (0 if count == 125 else numbers[0])


def test_the_mirrored_and_the_turned_case(data_dir):
    hflip, rot90 = (read_frames(data_dir / "cases" / f"{name}.mp4", 1).pixels[0] for name in ("hflip", "rot90"))
    assert (mark(hflip.permute(1, 2, 0).numpy()), tuple(hflip.shape)) == (("top", "right"), (3, 96, 192))
    assert (mark(rot90.permute(1, 2, 0).numpy()), tuple(rot90.shape)) == (("top", "right"), (3, 192, 96))


@pytest.mark.parametrize("asked", ASKED)
def test_the_case_without_its_first_key_frame(asked, data_dir):
    with pytest.raises(VideoReadError, match="24 of its 99 frames are missing or damaged"):
        read_frames(data_dir / "cases/nokey.mp4", asked)


def test_the_case_of_a_preview_before_the_video(data_dir):
    found = read_frames(data_dir / "cases/thumb_track_first.mkv", 60)
    assert (found.total_frames, found.damage, numbers_of(found)) == (60, "", list(range(60)))


def test_the_case_of_a_webp_that_moves(data_dir):
    found = read_frames(data_dir / "cases/anim.webp", 40)
    assert (found.total_frames, found.damage, numbers_of(found)) == (40, "", list(range(40)))


def test_the_case_of_a_song_with_a_cover(data_dir):
    with pytest.raises(VideoReadError, match="it holds no video stream, only sound"):
        read_frames(data_dir / "cases/song.mp3", 8)


# --- sound files: late, cut, trimmed, wrongly tagged


@pytest.mark.parametrize("start", [1, 25, 2500])
@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "a.mov", "a.mp4", "a.avi", "a.ts", "a.mpg", "a.nut"])
def test_a_late_start_is_no_damage(name, start, tmp_path):
    codec = {".webm": "libvpx", ".mpg": "mpeg2video"}.get(Path(name).suffix, "libx264")
    path = write(tmp_path / name, 30, start, codec)
    assert_sound(path, range(30))
    windows = list(read_windows(path, 2, 0.4))
    assert windows[0].start == 0
    assert sum(numbers_of(window.frames)[0] for window in windows) == sum((0 + 2, 10 + 2, 20 + 2)) or len(windows) > 3


def set_tag(path: Path, text: str) -> Path:
    """Another DURATION tag in a Matroska file, HH:MM:SS.nnnnnnnnn."""
    data = bytearray(path.read_bytes())
    place = data.rindex(b"DURATION") + len(b"DURATION")
    place = data.index(b"00:", place)
    data[place : place + len(text)] = text.encode()
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "tag", ["00:00:07.500000000", "00:00:00.100000000", "11:00:00.000000000", "00:00:02.400000000"]
)
@pytest.mark.parametrize("name", ["a.mkv", "a.webm"])
def test_a_wrong_tag_condemns_nothing(name, tag, tmp_path):
    path = write(tmp_path / name, 50, 10, "libvpx" if name == "a.webm" else "libx264")
    assert_sound(set_tag(path, tag), range(50))


def test_a_wrong_tag_hides_no_loss(tmp_path):
    whole = write(tmp_path / "a.mkv", 100)
    for tag in ("00:00:07.500000000", "00:00:00.100000000"):
        path = tmp_path / "cut.mkv"
        path.write_bytes(set_tag(whole, tag).read_bytes()[: whole.stat().st_size * 6 // 10])
        with pytest.raises(VideoReadError, match="missing or damaged"):
            read_frames(path, 8)
        path.write_bytes(whole.read_bytes()[:-10])
        assert "10 bytes are missing" in read_frames(path, 8).damage


@pytest.mark.parametrize("name", ["a.mkv", "a.webm"])
def test_a_recording_that_was_never_finished_tells_of_its_last_picture(name, tmp_path):
    path = write(tmp_path / name, 50, 0, "libvpx" if name == "a.webm" else "libx264", {"live": "1"})
    assert_sound(path, range(50))
    path.write_bytes(path.read_bytes()[:-10])
    for asked in ASKED:
        assert "10 bytes are missing at its end" in read_frames(path, asked).damage


def test_times_of_which_some_are_missing_are_not_guessed(tmp_path):
    path = write(tmp_path / "a.mkv", 50, -10, options={"avoid_negative_ts": "disabled"})
    assert_sound(path, range(50))
    assert np.isnan(read_frames(path, 50).times).all()
    with pytest.raises(VideoReadError, match="carry no times"):
        next(read_windows(path, 2, 1.0))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.gif", "a.png"])
def test_a_single_picture_is_one_window(name, tmp_path):
    path = tmp_path / name
    if name in ("a.gif", "a.png"):
        Image.fromarray(numbered(5)).save(path)
    else:
        write(path, 1)
    (window,) = read_windows(path, 3, 2.0, 1.0)
    assert (window.start, window.frames.indices.tolist()) == (0, [0, 0, 0])
    assert 0 < window.end < 2


def test_a_hole_in_a_matroska_file_is_told(tmp_path):
    path = write(tmp_path / "a.mkv", 100)
    data = bytearray(path.read_bytes())
    data[len(data) * 5 // 10 : len(data) * 8 // 10] = bytes(len(data) * 8 // 10 - len(data) * 5 // 10)
    path.write_bytes(data)
    with pytest.raises(VideoReadError, match="missing or damaged"):
        read_frames(path, 1)


@pytest.mark.parametrize(("where", "offset"), [(8, 10_000), (8, 0x7000_0000), (12, 0)])
def test_an_index_of_an_avi_that_points_elsewhere_hides_no_loss(where, offset, tmp_path):
    path = write(tmp_path / "a.avi", codec="mpeg4", bf="0")
    data = bytearray(path.read_bytes())
    index = data.index(b"idx1") + 8
    for entry in range(index, index + 50 * 16, 16):
        data[entry + where : entry + where + 4] = offset.to_bytes(4, "little")
    path.write_bytes(data)
    if where == 12:  # lengths are in the chunks too, and FFmpeg reads these
        assert numbers_of(read_frames(path, 50)) == list(range(50))
    else:
        with pytest.raises(VideoReadError, match="49 of its 50 frames are missing or damaged"):
            read_frames(path, 1)


@pytest.mark.parametrize("suffix", [".mkv", ".mov", ".mp4", ".ts"])
def test_a_part_of_a_split_file_is_sound(suffix, tmp_path):
    whole = write(tmp_path / "whole.mkv", 50)
    with av.open(str(whole)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
    path = copy(whole, tmp_path / f"part{suffix}", lambda number: keys[1] <= number < keys[3])
    assert_sound(path, range(keys[1], keys[3]))


def edit(path: Path, *entries: tuple[float, float]) -> Path:
    """Another edit list in an MP4 that has one with as many entries: (seconds shown, seconds in, -1 for nothing)."""
    data = bytearray(path.read_bytes())
    place = data.index(b"elst") + 4
    assert struct.unpack_from(">II", data, place) == (0, len(entries))
    scale = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)[0]
    film = struct.unpack_from(">I", data, data.index(b"mvhd") + 16)[0]
    for number, (shown, start) in enumerate(entries):
        struct.pack_into(
            ">Ii", data, place + 8 + 12 * number, round(shown * film), -1 if start < 0 else round(start * scale)
        )
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_edit_lists_that_trim_and_delay(suffix, tmp_path):
    delay = 2 / RATE  # of frames that are decoded before they are shown
    trimmed = edit(write(tmp_path / f"trim{suffix}", 50), (0.6, delay + 0.52))
    assert_sound(trimmed, range(13, 28))
    delayed = edit(write(tmp_path / f"both{suffix}", 50, 50), (3.0, -1), (0.6, delay + 0.52))
    assert_sound(delayed, range(13, 28))


# --- display matrices


@pytest.mark.parametrize("number", range(8))
def test_all_eight_ways_up(number, tmp_path):
    swap, flip_x, flip_y = number >> 2 & 1, number >> 1 & 1, number & 1
    path = write(tmp_path / "a.mp4", 5)
    expected = read_frames(path, 5).pixels.permute(0, 2, 3, 1).numpy()
    x, y = (-65536 if flip_x else 65536), (-65536 if flip_y else 65536)
    a, b, c, d = (0, y, x, 0) if swap else (x, 0, 0, y)
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    data[place : place + 24] = struct.pack(">6i", a, b, 0, c, d, 0)
    path.write_bytes(data)
    if swap:
        expected = expected.swapaxes(1, 2)
    expected = expected[:, :: -1 if flip_y else 1, :: -1 if flip_x else 1]
    found = read_frames(path, 5).pixels.permute(0, 2, 3, 1).numpy()
    assert np.array_equal(found, expected)
    assert mark(found[0]) == ("bottom" if flip_y else "top", "right" if flip_x else "left")


# --- key frames that are not there


def outcome(path: Path, asked: int) -> tuple[int, str] | str:
    try:
        found = read_frames(path, asked)
    except VideoReadError as refusal:
        return str(refusal)
    assert np.array_equal(
        found.indices, np.minimum((2 * np.arange(asked) + 1) * found.total_frames // (2 * asked), 999)
    )
    return found.total_frames, found.damage


KEYED = {
    "h264.mp4": ("libx264", {}),
    "h264.mkv": ("libx264", {"x264-params": "open-gop=1"}),
    "h264.ts": ("libx264", {}),
    "h265.mp4": ("libx265", {"x265-params": "keyint=10:log-level=none"}),
    "mpeg4.mp4": ("mpeg4", {}),
    "mpeg4.avi": ("mpeg4", {"bf": "0"}),
    "mpeg2.ts": ("mpeg2video", {}),
    "vp8.webm": ("libvpx", {"auto-alt-ref": "0"}),
}


@pytest.mark.parametrize("name", KEYED)
def test_a_lost_first_key_frame_is_told_whatever_is_asked(name, tmp_path):
    codec, options = KEYED[name]
    whole = write(tmp_path / f"whole{Path(name).suffix}", 100, codec=codec, **options)
    path = copy(whole, tmp_path / name, lambda number: number > 0)
    found = {asked: outcome(path, asked) for asked in ASKED}
    assert len(set(found.values())) == 1
    assert "missing or damaged" in str(found[1])


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "h265.mp4", "mpeg4.mp4", "mpeg4.avi", "vp8.webm"])
def test_a_key_frame_overwritten_in_the_middle_is_told_whatever_is_asked(name, tmp_path):
    codec, options = KEYED[name]
    path = write(tmp_path / name, 100, codec=codec, **options)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    lost = [packet for packet in packets if packet.is_keyframe][-3]
    content = bytes(lost)
    data = path.read_bytes()
    assert data.count(content) == 1
    path.write_bytes(data.replace(content, bytes(len(content))))
    found = {asked: outcome(path, asked) for asked in ASKED}
    assert len(set(found.values())) == 1
    assert "missing or damaged" in str(found[1])


# --- several tracks


def tracks(path: Path, *wanted: tuple[str, tuple[int, int], int, Disposition]) -> Path:
    """A file with several video tracks: codec, size, number of pictures, disposition."""
    with av.open(str(path), "w") as container:
        streams = []
        for codec, size, _, disposition in wanted:
            stream = add_video(container, codec, size, **({"strict": "unofficial"} if codec == "mjpeg" else {}))
            stream.disposition = disposition
            streams.append(stream)
        packets = [
            packet
            for stream, (_, size, count, _) in zip(streams, wanted, strict=True)
            for packet in encoded(stream, range(count), size=size)
        ]
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


NONE, DEFAULT = Disposition(0), Disposition.default
FILM, SMALL = ("libx264", (192, 96), 30), ("libx264", (96, 48), 30)
PICTURE, LARGE_PICTURE = ("mjpeg", (96, 48), 1), ("mjpeg", (384, 192), 1)
TRACKS = {
    "unflagged preview": (("mkv", "mp4", "mov"), [(*PICTURE, NONE), (*FILM, DEFAULT)]),
    "nothing flagged": (("mkv", "ts"), [(*SMALL, NONE), (*FILM, NONE)]),
    "large unflagged preview": (("mkv", "mp4", "mov"), [(*LARGE_PICTURE, NONE), (*FILM, NONE)]),
    "large preview last": (("mkv", "mp4"), [(*FILM, NONE), (*LARGE_PICTURE, NONE)]),
    "flagged cover": (("mp4",), [(*FILM, NONE), (*LARGE_PICTURE, Disposition.attached_pic)]),
    "small companion first": (("mkv", "mp4", "mov", "ts"), [(*SMALL, DEFAULT), (*FILM, DEFAULT)]),
    "default before larger": (("mkv",), [(*SMALL, NONE), (*FILM, DEFAULT), ("libx264", (384, 192), 30, NONE)]),
}


@pytest.mark.parametrize(
    ("suffix", "name"), [(suffix, name) for name, (suffixes, _) in TRACKS.items() for suffix in suffixes]
)
def test_the_film_is_read_among_other_tracks(suffix, name, tmp_path):
    path = tracks(tmp_path / f"a.{suffix}", *TRACKS[name][1])
    found = read_frames(path, 30)
    assert (found.total_frames, tuple(found.pixels.shape[2:]), found.damage) == (30, (96, 192), "")
    assert numbers_of(found) == list(range(30))


# --- images that move


def save_moving(path: Path, count: int = 12, **options) -> Path:
    first, *others = (Image.fromarray(numbered(number)) for number in range(count))
    first.save(path, save_all=True, append_images=others, **options)
    return path


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.apng", "a.avif", "a.gif", "a.tiff", "a.tif"])
def test_all_pictures_of_an_image_that_moves_are_read(name, tmp_path):
    if Path(name).suffix not in Image.registered_extensions():
        pytest.skip(f"this Pillow does not write {Path(name).suffix}")
    path = save_moving(tmp_path / name, **({} if "tif" in name else {"duration": 80}))
    found = read_frames(path, 12)
    assert (found.total_frames, found.damage, numbers_of(found)) == (12, "", list(range(12)))
    assert numbers_of(read_frames(path, 3)) == [2, 6, 10]
    if "tif" in name:
        assert np.isnan(found.times).all()
        with pytest.raises(VideoReadError, match="carry no times"):
            list(read_windows(path, 2, 1.0))
    else:
        assert np.allclose(found.times, 0.08 * np.arange(12))
        assert [numbers_of(window.frames) for window in read_windows(path, 2, 0.48)] == [[1, 4], [7, 10]]


def test_a_poster_before_an_animated_png_is_no_frame(tmp_path):
    pictures = [Image.fromarray(numbered(number)) for number in (99, 0, 1, 2)]
    pictures[0].save(tmp_path / "a.png", save_all=True, append_images=pictures[1:], default_image=True, duration=40)
    assert numbers_of(read_frames(tmp_path / "a.png", 3)) == [0, 1, 2]


def test_a_smaller_copy_of_a_page_is_no_frame(tmp_path):
    pages = [Image.fromarray(numbered(number)) for number in range(3)]
    smaller = pages[0].resize((48, 24))
    with TiffImagePlugin.AppendingTiffWriter(tmp_path / "a.tiff", new=True) as file:
        for page in [pages[0], smaller, *pages[1:]]:
            page.save(file, format="TIFF", tiffinfo={254: int(page is smaller)})
            file.newFrame()
    assert numbers_of(read_frames(tmp_path / "a.tiff", 3)) == [0, 1, 2]


# A red and a blue square as phones store photos: as AVIF here, but HEIC is alike. From avifenc --grid 2x1.
TWO_TILES = (
    r"c-muNU{FXasVqn=%S>Yc0uY^>nP!-qnV9D5Xz0Yiz*wJ~T9U{B0U8-8IYm%5LqTS82?G+y$xMP7!&i`5k_#4O1Y)bqocv@E$Ay7`"
    r"87u<CjLU&E2Llt7w;o8V0A(S(%U~V@Lri979@s#zj1-WQ$^<nvy(lxqIX@>K>>QX3BgnkOG6O>_GR$Z)GMPoGX;7yNq-5r%gLN~3"
    r"ZR*Y}C@KKb@tFn5`9NAEv$!A?s<r`$9YA^tGAlB{PUGO<08+xq`8h>-$vG83b9fop8ql;kKrv5ZnW1wd0}n_{C9@zG7PP>CVP<4v"
    r"W?*7rVQOV&V1`f(3=z30i6vk!H!wH|F>rB8h}QpYVv^$JFcOt^kSRRQ!f<fMe6Ow#Y;|EWUe3$@;8f#c$&e~$=KU_`p#lJ=YFVB"
)


def test_one_tile_does_not_stand_for_a_picture_in_tiles(tmp_path, monkeypatch):
    data = zlib.decompress(base64.b85decode(TWO_TILES))
    for name, content in (("photo.heic", data.replace(b"avif", b"heic")), ("photo.avif", data)):
        (tmp_path / name).write_bytes(content)
        monkeypatch.setattr(picture_files, "Image", None)  # without Pillow, or with one that knows no AVIF
        with pytest.raises(VideoReadError, match="it is a picture in 2 tiles; convert it to JPEG or PNG"):
            read_frames(tmp_path / name, 2)


def test_pages_of_different_sizes_are_refused(tmp_path):
    pages = [Image.fromarray(numbered(0)), Image.fromarray(numbered(1)).resize((48, 24))]
    pages[0].save(tmp_path / "a.tiff", save_all=True, append_images=pages[1:])
    with pytest.raises(VideoReadError, match="its pages have different sizes"):
        read_frames(tmp_path / "a.tiff", 2)


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_a_moving_image_that_is_cut_off_is_refused(name, tmp_path):
    data = save_moving(tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(VideoReadError):
        read_frames(tmp_path / name, 4)


# --- messages


def test_raw_frames_behind_a_line_of_text_are_read(tmp_path):
    path = tmp_path / "a.y4m"
    frames = b"".join(b"FRAME\n" + bytes([grey] * 16 * 16 + [128] * 16 * 8) for grey in (16, 126, 235))
    path.write_bytes(b"YUV4MPEG2 W16 H16 F25:1 C420jpeg\n" + frames)
    found = read_frames(path, 3)
    assert found.total_frames == 3
    assert [int(frame.float().mean()) for frame in found.pixels] == [0, 128, 255]


def test_a_film_without_its_index_says_so(tmp_path):
    path = write(tmp_path / "a.mp4", 50)
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"moov") - 4])
    with pytest.raises(VideoReadError, match=r"its index \(moov\) is missing"):
        read_frames(path, 8)
    path.write_bytes(data[: data.rindex(b"moov") - 400])
    with pytest.raises(VideoReadError, match=r"its index \(moov\) is missing"):
        read_frames(path, 8)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.mp4", b"", "the file is empty"),
        ("a.mp4", b"just some words\n" * 300, "in no format that is read as a video"),
        ("a.mkv", bytes(9000), "in no format that is read as a video"),
        ("a.webp", b"RIFF\x10\0\0\0WEBPVP8X" + bytes(40), "none of its frames can be decoded"),
        ("a.mp4", b"#EXTM3U\n#EXTINF:9,\nother.ts\n", "in no format that is read as a video"),
    ],
)
def test_messages_are_in_words(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VideoReadError, match=message) as caught:
        read_frames(tmp_path / name, 8)
    assert "Invalid" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["mp3", "wav", "flac", "m4a", "ogg", "mka", "mp4"])
def test_sound_alone_holds_no_video(suffix, tmp_path):
    codec = {"mp3": "libmp3lame", "wav": "pcm_s16le", "flac": "flac", "ogg": "flac", "mka": "aac"}.get(suffix, "aac")
    path = tmp_path / f"a.{suffix}"
    with av.open(str(path), "w", format={"mka": "matroska", "m4a": "ipod"}.get(suffix)) as container:
        stream = container.add_stream(codec, rate=44100, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8192), np.int16), layout="stereo", format="s16")
        frame.sample_rate = 44100
        for resampled in av.AudioResampler(stream.format.name, "stereo", 44100, stream.frame_size or 1024).resample(
            frame
        ):
            container.mux(stream.encode(resampled))
        container.mux(stream.encode(None))
    with pytest.raises(VideoReadError, match="it holds no video stream"):
        read_frames(path, 8)
