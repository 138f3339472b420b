import contextlib
import csv
import logging
import os
import pickle
import random
import shutil
import struct
import tracemalloc
import zipfile
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from modeling_dkd import counted_packets, video_container
from modeling_dkd.frame_sampling import Views, segment_indices, segment_positions
from modeling_dkd.video_frames import VideoReadError, read_frames, read_windows


WIDTH, HEIGHT = 64, 48
DAMAGED_COPIES = 200


def frame_pattern(number: int) -> np.ndarray:
    """A frame in which a bar moves and grows, so that every frame differs from the others."""
    frame = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    frame[8 : 20 + number % 20, (2 * number) % WIDTH :, number % 3] = 60 + number % 190
    return frame


def write_video(
    path: Path, num_frames: int = 30, codec: str = "mpeg4", times: list[int] | None = None, **options: str
) -> Path:
    """Writes a small video; `times` are the frames' times in 1/30 s (default: 0, 1, 2 ...)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 30)
        stream.codec_context.thread_count = 1
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(frame_pattern(number), format="rgb24")
            frame.pts, frame.time_base = number if times is None else times[number], Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def full_decode(path: Path) -> list[av.VideoFrame]:
    """Every frame that decodes, packet after packet."""
    frames = []
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            with contextlib.suppress(av.InvalidDataError):
                frames += packet.decode()
    return frames


def pixels_of(frames: list[av.VideoFrame], indices: Iterable[int]) -> np.ndarray:
    return np.stack([frames[index].to_ndarray(format="rgb24") for index in indices])


def assert_exact(path: Path, num_frames: int, num_clips: int = 1, expected: list[av.VideoFrame] | None = None) -> None:
    expected = full_decode(path) if expected is None else expected
    found = read_frames(path, num_frames, num_clips)
    assert found.total_frames == len(expected)
    assert found.damage == ""
    assert found.damaged_frames == found.missing_bytes == 0
    assert np.array_equal(found.indices, segment_indices(len(expected), num_frames, num_clips).reshape(-1))
    assert found.pixels.dtype == torch.uint8
    assert np.array_equal(found.pixels.permute(0, 2, 3, 1).numpy(), pixels_of(expected, found.indices))


@given(total=st.integers(1, 2000), num_frames=st.integers(1, 40), num_clips=st.integers(1, 6))
def test_centres_of_segments(total, num_frames, num_clips):
    indices = segment_indices(total, num_frames, num_clips)
    assert indices.shape == (num_clips, num_frames)
    parts = num_frames * num_clips
    exact = [
        [(2 * (frame * num_clips + clip) + 1) * total // (2 * parts) for frame in range(num_frames)]
        for clip in range(num_clips)
    ]
    assert indices.tolist() == exact


@given(total=st.integers(1, 2000), num_frames=st.integers(1, 40), num_clips=st.integers(1, 6), seed=st.integers(0, 99))
def test_jitter_stays_in_its_part(total, num_frames, num_clips, seed):
    indices = segment_indices(total, num_frames, num_clips, torch.Generator().manual_seed(seed))
    again = segment_indices(total, num_frames, num_clips, torch.Generator().manual_seed(seed))
    assert np.array_equal(indices, again)
    parts = np.arange(num_frames * num_clips).reshape(num_frames, num_clips).T
    scale = total / (num_frames * num_clips)
    assert (indices >= np.floor(parts * scale)).all()
    assert (indices <= (parts + 1) * scale).all()
    assert indices.min() >= 0
    assert indices.max() < total


def test_jitter_reaches_every_frame():
    generator = torch.Generator().manual_seed(0)
    drawn = np.concatenate([segment_indices(20, 4, 1, generator).reshape(-1) for _ in range(300)])
    counts = np.bincount(drawn, minlength=20)
    assert counts.min() > 300 * 4 / 20 * 0.6


@pytest.mark.parametrize(("frames", "clips"), [(0, 1), (1, 0), (-1, 1)])
def test_sampling_nothing_is_an_error(frames, clips):
    with pytest.raises(ValueError, match="of at least 1"):
        segment_positions(frames, clips)


def test_views_are_read_from_text():
    assert Views.parse("8x1x1") == Views(8)
    assert Views.parse("16x3x5") == Views(16, 3, 5)
    for bad in ("8", "8x1", "8x2x1", "0x1x1", "8x1x1x1", "axbxc", "8 x1x1", ""):
        with pytest.raises(ValueError, match="must read FRAMESxCROPSxCLIPS"):
            Views.parse(bad)


@pytest.mark.parametrize("chosen", ["one of each format", pytest.param("all", marks=pytest.mark.slow)])
def test_originals_are_decoded_exactly(data_dir, chosen):
    with open(data_dir / "originals/originals.csv", newline="") as rows:
        listed = {row["file"]: int(row["decoded_frames"]) for row in csv.DictReader(rows)}
    assert len(listed) == 25
    of_each_format = {Path(name).suffix: name for name in listed}.values()
    for name in listed if chosen == "all" else of_each_format:
        path = data_dir / "originals" / name
        expected = full_decode(path)
        assert len(expected) == listed[name]
        for num_frames, num_clips in ((8, 1), (1, 1), (5, 3)):
            assert_exact(path, num_frames, num_clips, expected)


@pytest.mark.slow
def test_small_clips_are_decoded_exactly(data_dir):
    paths = [path for name in ("ucf101", "hmdb51") for path in sorted((data_dir / name / "videos").glob("*/*.avi"))]
    assert len(paths) == 1937
    for path in paths[::9]:  # of every class; all of a set were written alike
        assert_exact(path, 8)


CODECS = {
    "mpeg4.avi": ("mpeg4", {}),
    "mpeg4-b-frames.avi": ("mpeg4", {"bf": "2"}),
    "mpeg4-b-frames.mp4": ("mpeg4", {"bf": "2"}),
    "h264.mp4": ("libx264", {"bf": "3", "b-pyramid": "normal", "g": "12"}),
    "h264-open-groups.mkv": ("libx264", {"bf": "3", "g": "8", "x264-params": "open-gop=1"}),
    "h264.avi": ("libx264", {"bf": "3"}),
    "h264-stream.h264": ("libx264", {"bf": "3"}),
    "h265.mp4": ("libx265", {"x265-params": "bframes=4:log-level=none"}),
    "h265.mkv": ("libx265", {"x265-params": "bframes=4:log-level=none"}),
    "vp9.webm": ("libvpx-vp9", {}),
    "mpeg1.mpg": ("mpeg1video", {}),
    "mpeg2.ts": ("mpeg2video", {"bf": "2"}),
    "mjpeg.avi": ("mjpeg", {"strict": "unofficial"}),
}


@pytest.mark.parametrize("name", CODECS)
def test_codecs_and_containers_are_decoded_exactly(name, tmp_path):
    codec, options = CODECS[name]
    path = write_video(tmp_path / name, 47, codec, **options)
    expected = full_decode(path)
    for num_frames, num_clips in ((8, 1), (1, 1), (4, 3), (60, 1)):
        assert_exact(path, num_frames, num_clips, expected)


def test_frames_that_nothing_refers_to_are_not_decoded(tmp_path, decoded_stamps):
    options = {"bf": "3", "b-pyramid": "none", "x264-params": "b-adapt=0:scenecut=0"}
    path = write_video(tmp_path / "video.mp4", 47, "libx264", **options)
    assert_exact(path, 8)
    assert len(decoded_stamps) < 30  # the last wanted frame is number 44


def test_variable_frame_rate_is_sampled_by_number(tmp_path):
    times = np.cumsum([1, 1, 9, 1, 4, 1, 1, 1, 12, 1] * 3).tolist()
    for name in ("video.mp4", "video.mkv"):
        path = write_video(tmp_path / name, 30, "libx264", times=times)
        assert_exact(path, 8)
        found = read_frames(path, 5)
        expected = (np.array(times)[found.indices] - times[0]) / 30
        np.testing.assert_allclose(found.times, expected, atol=1e-3)


def test_dropped_frames_are_no_damage(tmp_path, caplog):
    path = write_video(tmp_path / "video.avi", 12, times=[0, 1, 2, 8, 9, 20, 21, 30, 31, 32, 40, 41])
    assert_exact(path, 4)
    assert not caplog.records


def test_short_clips_repeat_frames(tmp_path):
    path = write_video(tmp_path / "video.avi", 3)
    found = read_frames(path, 8)
    assert found.indices.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert found.pixels.shape == (8, 3, HEIGHT, WIDTH)
    assert_exact(write_video(tmp_path / "single.avi", 1), 8)


def test_jitter_follows_its_generator(tmp_path):
    path = write_video(tmp_path / "video.avi", 40)
    expected = full_decode(path)
    found = read_frames(path, 8, generator=torch.Generator().manual_seed(3))
    assert np.array_equal(found.indices, segment_indices(40, 8, 1, torch.Generator().manual_seed(3))[0])
    assert not np.array_equal(found.indices, segment_indices(40, 8)[0])
    assert np.array_equal(found.pixels.permute(0, 2, 3, 1).numpy(), pixels_of(expected, found.indices))


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_rotation_metadata_is_honoured(turns, tmp_path):
    path = write_video(tmp_path / "video.mp4", 10, "libx264")
    expected = pixels_of(full_decode(path), range(10))
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40  # the display matrix: 9 fixed-point numbers, clockwise turns
    cosine, sine = [(1, 0), (0, 1), (-1, 0), (0, -1)][turns]
    matrix = [value << 16 for value in (cosine, sine)] + [0] + [value << 16 for value in (-sine, cosine)] + [0]
    data[place : place + 24] = struct.pack(">6i", *matrix)
    path.write_bytes(data)
    found = read_frames(path, 10).pixels.permute(0, 2, 3, 1).numpy()
    assert np.array_equal(found, np.rot90(expected, -turns, axes=(1, 2)))


def test_decoding_that_ends_early_is_sampled_anew(tmp_path, caplog):
    path = write_video(tmp_path / "video.avi", 100, g="1")
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for position, size in packets[10:15]:
        data[position + 8 : position + 8 + size] = bytes(size)
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        found = read_frames(path, 8)
    decoded = full_decode(path)
    assert found.total_frames == len(decoded) < 98
    assert found.damaged_frames == 100 - len(decoded)
    assert "video.avi" in caplog.text
    assert np.array_equal(found.pixels.permute(0, 2, 3, 1).numpy(), pixels_of(decoded, found.indices))


def test_large_files_are_read_twice_instead_of_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(counted_packets, "PACKETS_IN_MEMORY", 0)
    for name, (codec, options) in CODECS.items():
        path = write_video(tmp_path / name, 47, codec, **options)
        assert_exact(path, 8)
        windows = list(read_windows(path, 2, 1.0)) if path.suffix != ".h264" else []
        assert len(windows) in (0, 2)


@pytest.mark.parametrize(
    "name", ["a#b;c&d!(e).avi", "100%d.avi", "http:x.avi", "concat:a|b.avi", "-i.avi", "ü 視頻.avi"]
)
def test_any_file_name_is_a_plain_path(name, tmp_path, monkeypatch):
    shutil.move(write_video(tmp_path / "video.avi", 9), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert read_frames(name, 4).total_frames == 9


def test_an_image_is_one_frame(tmp_path):
    for suffix in (".png", ".bmp", ".tiff", ".webp"):
        path = tmp_path / f"image{suffix}"
        Image.fromarray(frame_pattern(7)).save(path, **({"lossless": True} if suffix == ".webp" else {}))
        found = read_frames(path, 3)
        assert found.total_frames == 1
        assert np.array_equal(found.pixels.permute(0, 2, 3, 1).numpy(), np.stack([frame_pattern(7)] * 3))


def test_an_image_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by a quarter
    Image.fromarray(frame_pattern(7)).save(tmp_path / "image.png", exif=exif)
    found = read_frames(tmp_path / "image.png", 1).pixels[0].permute(1, 2, 0).numpy()
    assert np.array_equal(found, np.rot90(frame_pattern(7), -1))


def test_wrong_extensions_are_read_by_content(tmp_path):
    Image.fromarray(frame_pattern(7)).save(tmp_path / "image.png")
    shutil.copy(tmp_path / "image.png", tmp_path / "image.avi")
    assert np.array_equal(read_frames(tmp_path / "image.avi", 1).pixels[0].permute(1, 2, 0).numpy(), frame_pattern(7))
    video = write_video(tmp_path / "video.mp4", 9, "libx264")
    for name in ("video.jpg", "video.avi", "video"):
        shutil.copy(video, tmp_path / name)
        assert_exact(tmp_path / name, 4)


def write_sound(path: Path) -> Path:
    with av.open(str(path), "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    return path


def write_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("clip.txt", "no video\n" * 300)


UNREADABLE = {
    "missing.avi": lambda path: None,
    "empty.avi": lambda path: path.touch(),
    "folder.avi": lambda path: path.mkdir(),
    "pipe.avi": os.mkfifo,
    "dangling.avi": lambda path: path.symlink_to("nowhere"),
    "text.avi": lambda path: path.write_text("no video, a text\n" * 300),
    "text.png": lambda path: path.write_text("no image, a text\n" * 300),
    "zeros.mp4": lambda path: path.write_bytes(bytes(50_000)),
    "noise.mkv": lambda path: path.write_bytes(random.Random(0).randbytes(50_000)),
    "sound.avi": write_sound,
    "playlist.avi": lambda path: path.write_text(
        f"ffconcat version 1.0\nfile {write_video(path.with_name('other.avi')).name}\n"
    ),
    "playlist.m3u8": lambda path: path.write_text(
        f"#EXTM3U\n#EXTINF:9,\n{write_video(path.with_name('other.ts'), codec='mpeg2video').name}\n#EXT-X-ENDLIST\n"
    ),
    "half.avi": lambda path: path.write_bytes(write_video(path).read_bytes()[:6000]),
    "half.mp4": lambda path: path.write_bytes(write_video(path, 200).read_bytes()[:9000]),
    "half.mkv": lambda path: path.write_bytes(write_video(path, 200).read_bytes()[:9000]),
}


def is_named(path: Path) -> bool:
    """Whether reading the file says that something is wrong with it."""
    try:
        return read_frames(path, 8).damage != ""
    except VideoReadError as refusal:
        return repr(str(path)) in str(refusal)


TELLING = (
    "mpeg4.avi",
    "mpeg4-b-frames.avi",
    "h264.avi",
    "mjpeg.avi",
    "mpeg4-b-frames.mp4",
    "h264.mp4",
    "h264-open-groups.mkv",
    "vp9.webm",
    "mpeg1.mpg",
    "mpeg2.ts",
)


@pytest.mark.parametrize("name", TELLING)
def test_a_file_that_is_cut_off_is_named(name, tmp_path):
    codec, options = CODECS[name]
    data = write_video(tmp_path / name, 47, codec, **options).read_bytes()
    for fraction in (0.05, 0.3, 0.56, 0.64, 0.73, 0.85, 0.95, 0.99):
        path = tmp_path / f"cut-{name}"
        path.write_bytes(data[: int(len(data) * fraction)])
        assert is_named(path), fraction
    path.write_bytes(data[:-1])
    assert is_named(path)


def test_the_lost_index_of_an_avi_is_told_apart_from_lost_frames(tmp_path, caplog):
    path = write_video(tmp_path / "video.avi", 47)
    data = path.read_bytes()
    path.write_bytes(data[:-5])
    found = read_frames(path, 8)
    assert (found.total_frames, found.damaged_frames, found.missing_bytes) == (47, 0, 5)
    assert found.damage == "it is cut off: at least 5 bytes are missing at its end"
    assert "video.avi" in caplog.text
    assert "5 bytes are missing" in caplog.text
    position = data.rindex(b"00dc", 0, data.rindex(b"idx1"))
    path.write_bytes(data[:position])
    found = read_frames(path, 8)
    assert (found.total_frames, found.damaged_frames) == (46, 1)
    assert found.damage.startswith("1 of its 46 frames are missing or damaged; it is cut off")
    assert next(read_windows(path, 2, 1.0)).frames.missing_bytes == len(data) - position


def test_frames_overwritten_with_their_headers_are_named(tmp_path):
    path = write_video(tmp_path / "video.avi", 47)
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    start, end = packets[20][0], sum(packets[21])
    data[start : end + 8] = bytes(end + 8 - start)
    path.write_bytes(data)
    assert is_named(path)


@pytest.mark.slow
def test_originals_that_are_cut_off_are_named(data_dir, tmp_path):
    paths = [path for path in sorted((data_dir / "originals").rglob("*.*")) if path.suffix != ".csv"]
    paths += [path for name in ("ucf101", "hmdb51") for path in sorted((data_dir / name / "videos").glob("*/*"))[::50]]
    for source in paths:
        data = source.read_bytes()
        for percent in (1, 10, 30, 50, 56, 62, 68, 73, 80, 90, 95, 98, 99, 99.5):
            path = tmp_path / f"cut{source.suffix}"
            path.write_bytes(data[: int(len(data) * percent / 100)])
            assert is_named(path), (source, percent)


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unreadable_file_is_named(name, tmp_path):
    UNREADABLE[name](tmp_path / name)
    with pytest.raises(VideoReadError) as caught:
        read_frames(tmp_path / name, 8)
    message = str(caught.value)
    assert repr(str(tmp_path / name)) in message
    assert "\n" not in message
    with pytest.raises(VideoReadError):
        list(read_windows(tmp_path / name, 2, 1.0))


def test_a_path_with_a_null_byte_is_an_error_too():
    with pytest.raises(VideoReadError, match=r"null (byte|character)"):
        read_frames("a\0b.avi", 1)


def test_the_error_survives_a_worker_process(tmp_path):
    with pytest.raises(VideoReadError) as caught:
        read_frames(tmp_path / "missing.avi", 1)
    again = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(again, VideoReadError)
    assert str(again) == str(caught.value)
    assert isinstance(again, ValueError)


def test_without_pyav_files_are_refused_and_say_so(tmp_path, monkeypatch):
    path = write_video(tmp_path / "video.avi", 3)
    monkeypatch.setattr(video_container, "av", None)
    with pytest.raises(VideoReadError, match="PyAV is not installed; run: pip install av"):
        read_frames(path, 1)


def test_windows_cover_a_video(tmp_path):
    path = write_video(tmp_path / "video.mp4", 100, "libx264", bf="3")  # 30 frames a second: 3.33 s
    expected = full_decode(path)
    windows = list(read_windows(path, 4, 1.0))
    assert [(round(window.start, 3), round(window.end, 3)) for window in windows] == [
        (0, 1),
        (1, 2),
        (2, 3),
        (2.333, 3.333),
    ]
    for window in windows:
        first = round(window.start * 30)
        assert window.frames.indices.tolist() == (first + segment_indices(30, 4)[0]).tolist()
        assert ((window.frames.times >= window.start - 1e-6) & (window.frames.times < window.end)).all()
        wanted = pixels_of(expected, window.frames.indices)
        assert np.array_equal(window.frames.pixels.permute(0, 2, 3, 1).numpy(), wanted)
    overlapping = list(read_windows(path, 3, 2.0, 0.5))
    assert [round(window.start, 3) for window in overlapping] == [0, 0.5, 1, 1.333]
    for window in overlapping:
        wanted = pixels_of(expected, window.frames.indices)
        assert np.array_equal(window.frames.pixels.permute(0, 2, 3, 1).numpy(), wanted)
    (whole,) = read_windows(path, 3, 60.0)
    assert (whole.start, round(whole.end, 3)) == (0, 3.333)
    assert np.array_equal(whole.frames.indices, segment_indices(100, 3)[0])


def test_windows_of_a_video_with_b_frames_out_of_order(data_dir):
    path = next((data_dir / "originals/hmdb51/golf").iterdir())
    expected = full_decode(path)
    windows = list(read_windows(path, 4, 1.0))
    assert len(windows) == 3
    for window in windows:
        indices = np.minimum(window.frames.indices, len(expected) - 1)
        assert np.array_equal(window.frames.pixels.permute(0, 2, 3, 1).numpy(), pixels_of(expected, indices))


def test_windows_take_frames_by_their_times(tmp_path):
    # One frame a second, then thirty: by number nearly all frames of a window would come from its end.
    times = [*range(0, 120, 30), *range(120, 240)]
    path = write_video(tmp_path / "video.mkv", len(times), "libx264", times)
    seconds = np.array(times) / 30
    for window in read_windows(path, 4, 4.0, 2.0):
        centres = window.start + (np.arange(4) + 0.5) * (window.end - window.start) / 4
        shown = [int(np.flatnonzero(seconds <= centre + 1e-3)[-1]) for centre in centres]
        assert window.frames.indices.tolist() == shown
        wanted = pixels_of(full_decode(path), shown)
        assert np.array_equal(window.frames.pixels.permute(0, 2, 3, 1).numpy(), wanted)


def test_windows_of_a_long_pause_are_left_out(tmp_path):
    path = write_video(tmp_path / "video.mkv", 60, "libx264", [*range(30), *range(930, 960)])
    starts = [round(window.start) for window in read_windows(path, 2, 1.0)]
    assert starts == [0, 31]


def test_windows_after_a_damaged_stretch_keep_their_times(tmp_path, caplog):
    path = write_video(tmp_path / "video.mp4", 600, "libx264", g="30", bf="0")
    expected = full_decode(path)
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for position, size in packets[300:345]:  # 7.5 % of the video, from 10 s on, cannot be decoded
        data[position : position + size] = b"\xff" * size
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        windows = list(read_windows(path, 4, 2.0, 1.0))
    starts = [round(window.start) for window in windows]
    assert starts[:9] == list(range(9))
    assert starts[-6:] == list(range(13, 19))
    assert 10 not in starts
    for window in (*windows[:9], *windows[-6:]):
        wanted = pixels_of(expected, window.frames.indices)
        assert np.array_equal(window.frames.pixels.permute(0, 2, 3, 1).numpy(), wanted)
        assert round(window.start * 30) <= window.frames.indices[0]


def test_windows_of_a_video_that_does_not_decode_from_its_start(tmp_path):
    path = write_video(tmp_path / "video.mp4", 600, "libx264", g="30", bf="0")
    expected = full_decode(path)
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for position, size in packets[:30]:
        data[position : position + size] = b"\xff" * size
    path.write_bytes(data)
    windows = list(read_windows(path, 8, 4.0, 2.0))
    assert [round(window.start) for window in windows] == list(range(0, 18, 2))
    first = 600 - len(full_decode(path))
    assert first >= 30
    wanted = pixels_of(expected, np.maximum(windows[0].frames.indices, first))
    assert np.array_equal(windows[0].frames.pixels.permute(0, 2, 3, 1).numpy(), wanted)


def test_windows_hold_no_more_of_a_long_video_than_a_few_of_them(tmp_path):
    path = write_video(tmp_path / "video.mp4", 3000, "mpeg4")
    tracemalloc.start()
    peaks = []
    for number, _ in enumerate(read_windows(path, 8, 4.0, 2.0)):
        if number in (5, 45):
            peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000


@pytest.mark.parametrize(("window", "stride"), [(0, None), (1, 0), (-1, 1), (float("nan"), 1)])
def test_windows_without_length_are_an_error(window, stride, tmp_path):
    with pytest.raises(ValueError, match="both must be above 0"):
        list(read_windows(write_video(tmp_path / "video.avi", 3), 2, window, stride))


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def thread_count() -> int:
    return len(os.listdir("/proc/self/task"))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts descriptors through /proc")
def test_descriptors_and_threads_stay_bounded(tmp_path):
    good = write_video(tmp_path / "good.mp4", 12, "libx264")
    half = tmp_path / "half.mp4"
    half.write_bytes(good.read_bytes()[:700])
    text = tmp_path / "text.avi"
    text.write_text("text\n" * 300)
    read_frames(good, 2)
    descriptors, threads = open_descriptors(), thread_count()
    for number in range(200):
        if number % 10 < 8:
            read_frames(good, 2)
        elif number % 10 == 8:
            with pytest.raises(VideoReadError):
                read_frames(half if number % 20 == 8 else text, 2)
        else:
            next(read_windows(good, 2, 0.1))  # given up after the first window
    assert open_descriptors() <= descriptors
    assert thread_count() <= threads


def damage(data: bytes, kind: str, generator: random.Random) -> bytes:
    """A file cut off, with 0.02 % to 2 % of its bits flipped, a part overwritten with zeros, or a text instead."""
    if kind == "text":
        return "".join(generator.choices("abc \n\t<>{}#", k=generator.randrange(1, 20_000))).encode()
    if kind == "truncated":
        return data[: int(len(data) * generator.uniform(0.001, 0.99))]
    copy = bytearray(data)
    if kind == "flipped":
        for _ in range(int(len(copy) * 8 * 10 ** generator.uniform(-3.7, -1.7))):
            copy[generator.randrange(len(copy))] ^= 1 << generator.randrange(8)
    else:
        length = int(len(copy) * generator.uniform(0.02, 0.6))
        start = generator.randrange(len(copy) - length)
        copy[start : start + length] = bytes(length)
    return bytes(copy)


@pytest.mark.slow
def test_damaged_files_are_named(data_dir, tmp_path):
    generator = random.Random(0)
    clips = sorted((data_dir / "originals").rglob("*.*"))
    clips = [path for path in clips if path.suffix != ".csv"] + sorted((data_dir / "hmdb51/videos").glob("*/*"))[:10]
    unnamed = []
    for number in range(DAMAGED_COPIES):
        source = clips[number % len(clips)]
        kind = ("truncated", "flipped", "zeros", "text", "wrong extension", "unreadable")[number % 6]
        path = tmp_path / f"{number}{source.suffix}"
        if kind == "unreadable":
            (path.mkdir if number % 4 else path.touch)()
        elif kind == "wrong extension":  # a sound, a text or an archive that is called a video
            write = (write_sound, UNREADABLE["text.avi"], write_archive)[number % 3]
            write(path)
        else:
            path.write_bytes(damage(source.read_bytes(), kind, generator))
        if not is_named(path):
            unnamed.append((number, kind, source.name))
    assert not unnamed


@pytest.mark.slow
def test_a_few_flipped_bits_never_give_blank_pictures(data_dir, tmp_path):
    generator = random.Random(1)
    clips = sorted((data_dir / "hmdb51/videos").glob("*/*"))[::7]
    for number in range(DAMAGED_COPIES):
        source = clips[number % len(clips)]
        data = bytearray(source.read_bytes())
        for _ in range(1 + number % 4):
            data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        path = tmp_path / "damaged.avi"
        path.write_bytes(data)
        try:
            found = read_frames(path, 8)
        except VideoReadError:
            continue
        assert found.pixels.shape[:2] == (8, 3)
        assert found.pixels.float().std() > 1, "a blank picture"
