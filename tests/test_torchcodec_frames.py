"""torchcodec as backend: the same frames, or a refusal; with a stand-in where it is not installed."""

import sys
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from PIL import Image

from modeling_dkd import torchcodec_frames
from modeling_dkd.frame_sampling import Views
from modeling_dkd.video_frames import VideoReadError, read_frames
from modeling_dkd.video_inputs import frames_of


FILMS = {
    "h264.mp4": ("libx264", {"bf": "3"}),
    "h264.mkv": ("libx264", {"bf": "3", "x264-params": "open-gop=1:keyint=12"}),
    "hevc.mov": ("libx265", {"x265-params": "open-gop=1:keyint=12:bframes=3:log-level=none"}),
    "vp9.webm": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
}


def write_film(path, codec, options=None, pix_fmt="yuv420p", matrix=None):
    """30 frames of a bar that moves."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, width=64, height=48, options=options or {})
        stream.pix_fmt, stream.codec_context.thread_count = pix_fmt, 1
        if matrix is not None:
            stream.set_display_matrix(matrix)
        for number in range(30):
            rgb = np.full((48, 64, 3), 40, np.uint8)
            rgb[8 : 20 + number % 20, 2 * number % 64 :, number % 3] = 60 + 6 * number
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode(None))
    return path


class StandIn:
    """What the backend uses of torchcodec's VideoDecoder, by PyAV."""

    def __init__(self, source, stream_index, dimension_order, num_ffmpeg_threads):
        assert (dimension_order, num_ffmpeg_threads) == ("NHWC", 1)
        with av.open(source) as container:
            frames = list(container.decode(container.streams[stream_index]))
            self.pixels = [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in frames]
            self.times = [frame.time for frame in frames]

    def __len__(self):
        return len(self.pixels)

    def get_frames_at(self, indices):
        times = torch.tensor([self.times[index] for index in indices], dtype=torch.float64)
        return SimpleNamespace(data=torch.stack([self.pixels[index] for index in indices]), pts_seconds=times)


@pytest.fixture
def stand_in(monkeypatch):
    """Puts a stand-in in the place of torchcodec; gives the class, to be spoilt."""
    decoder = type("Spoilt", (StandIn,), {})
    monkeypatch.setattr(torchcodec_frames, "video_decoder", lambda: decoder)
    monkeypatch.setattr("modeling_dkd.video_frames.video_decoder", lambda: decoder)
    return decoder


@pytest.fixture
def film(tmp_path):
    codec, options = FILMS["h264.mp4"]
    return write_film(tmp_path / "film; #1.mp4", codec, options)


def assert_same(path, num_frames, num_clips=1):
    expected, found = (
        read_frames(path, num_frames, num_clips),
        read_frames(path, num_frames, num_clips, backend="torchcodec"),
    )
    assert (found.pixels.int() - expected.pixels.int()).abs().max() <= 2
    assert found.pixels.stride() == expected.pixels.stride()
    assert np.array_equal(found.indices, expected.indices)
    np.testing.assert_allclose(found.times, expected.times, atol=1e-9)
    assert (found.total_frames, found.damage) == (expected.total_frames, expected.damage)


@pytest.mark.parametrize("name", FILMS)
def test_frames_are_ours(name, tmp_path, stand_in):
    codec, options = FILMS[name]
    path = write_film(tmp_path / name, codec, options)
    for num_frames, num_clips in ((8, 1), (3, 2), (40, 1)):
        assert_same(path, num_frames, num_clips)


def test_a_generator_moves_the_same_frames(film, stand_in):
    expected, found = (
        read_frames(film, 4, generator=torch.Generator().manual_seed(5), backend=backend)
        for backend in ("pyav", "torchcodec")
    )
    assert np.array_equal(found.indices, expected.indices)


def test_files_in_other_forms_are_read_by_it_too(film, stand_in, monkeypatch):
    used = []
    monkeypatch.setattr(stand_in, "get_frames_at", lambda *asked: used.append(asked) or StandIn.get_frames_at(*asked))
    views = Views(3, 1, 2)
    for video in (film, film.read_bytes()):
        assert torch.equal(frames_of(video, views, 8)[0], frames_of(video, views, 8, "torchcodec")[0])
    assert len(used) == 2


def fewer(self):
    return len(self.pixels) - 1


def next_ones(self, indices):
    return StandIn.get_frames_at(self, [min(index + 1, len(self) - 1) for index in indices])


def darker(self, indices):
    batch = StandIn.get_frames_at(self, indices)
    return SimpleNamespace(data=batch.data // 2, pts_seconds=batch.pts_seconds)


def turned(self, indices):
    batch = StandIn.get_frames_at(self, indices)
    return SimpleNamespace(data=batch.data.transpose(1, 2), pts_seconds=batch.pts_seconds)


def failing(self, indices):
    raise RuntimeError("No more frames.\nmany lines of C++")


@pytest.mark.parametrize(
    ("method", "fault", "reason"),
    [
        ("__len__", fewer, "torchcodec counts 29 frames instead of 30"),
        ("get_frames_at", next_ones, "frames of other times than were asked for"),
        ("get_frames_at", darker, "shows its first frame otherwise than PyAV"),
        ("get_frames_at", turned, "shows its first frame otherwise than PyAV"),
        ("get_frames_at", failing, r"torchcodec cannot decode it: No more frames\.; leave"),
    ],
)
def test_other_frames_are_refused(film, stand_in, method, fault, reason):
    setattr(stand_in, method, fault)
    with pytest.raises(VideoReadError, match=f"film; #1.mp4': .*{reason}.*leave out backend$|{reason} out backend$"):
        read_frames(film, 4, backend="torchcodec")


def test_kinds_that_it_reads_otherwise_are_refused(tmp_path, stand_in):
    kinds = {
        "avi files": write_film(tmp_path / "a.avi", "mpeg4"),
        "mpeg4, of which": write_film(tmp_path / "a.mp4", "mpeg4"),
        "yuv420p10le": write_film(tmp_path / "b.mkv", "libx264", pix_fmt="yuv420p10le"),
    }
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    kinds["image files"] = tmp_path / "a.png"
    for reason, path in kinds.items():
        read_frames(path, 2)
        with pytest.raises(VideoReadError, match=f"torchcodec is not used for .*{reason}.*; leave out backend"):
            read_frames(path, 2, backend="torchcodec")


def test_damaged_files_are_refused(film, stand_in):
    data = film.read_bytes()
    with av.open(str(film)) as container:
        hole = [packet.pos for packet in container.demux(video=0) if packet.size][10]
    for damaged in (data[:-20], data[:hole] + bytes(20) + data[hole + 20 :]):
        film.write_bytes(damaged)
        with pytest.raises(VideoReadError, match="torchcodec is not used for damaged files"):
            read_frames(film, 2, backend="torchcodec")


@pytest.mark.parametrize("matrix", [(-1, 0, 0, 1), (0, 1, 1, 0), (1, 1, -1, 1)])
def test_mirrored_films_are_refused(tmp_path, stand_in, matrix):
    a, b, c, d = (number << 16 for number in matrix)
    write_film(tmp_path / "a.mp4", "libx264", matrix=[a, b, 0, c, d, 0, 0, 0, 1 << 30])
    with pytest.raises(VideoReadError, match="not used for mirrored films"):
        read_frames(tmp_path / "a.mp4", 1, backend="torchcodec")


def test_without_torchcodec_it_says_what_to_do(film, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(ValueError, match="torchcodec is not installed; run: pip install torchcodec, or leave out"):
        read_frames(film, 2, backend="torchcodec")
    assert read_frames(film, 2).total_frames == 30


def test_torchcodec_that_does_not_load_is_told(film, tmp_path, monkeypatch):
    (tmp_path / "torchcodec").mkdir()
    (tmp_path / "torchcodec/__init__.py").write_text("raise RuntimeError('Could not load libtorchcodec')")
    for name in ("torchcodec", "torchcodec.decoders"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="does not load; it needs FFmpeg's shared libraries"):
        read_frames(film, 2, backend="torchcodec")


def test_no_other_backend(film):
    with pytest.raises(ValueError, match="backend must be one of pyav, torchcodec, not 'decord'"):
        read_frames(film, 2, backend="decord")


@pytest.mark.slow
def test_every_real_file_reads_the_same_or_is_refused(data_dir, tmp_path):
    pytest.importorskip("torchcodec.decoders", exc_type=(ImportError, RuntimeError))
    films = [write_film(tmp_path / name, codec, options) for name, (codec, options) in FILMS.items()]
    paths = [path for part in ("originals", "cases") for path in sorted((data_dir / part).rglob("*.*"))]
    read, refused = [], {}
    for path in [*films, *filter(Path.is_file, paths)]:
        try:
            read_frames(path, 5, 2, backend="torchcodec")
        except VideoReadError as error:
            refused[path.name] = str(error)
        else:
            assert_same(path, 5, 2)
            read.append(path.name)
    originals = {
        path.name for path in (data_dir / "originals/other_formats").iterdir() if path.suffix in (".mp4", ".mkv")
    }
    cases = {"late1s.mkv", "copyts_cut.mkv", "tag.mkv", "thumb_track_first.mkv", "rot90.mp4"}
    assert set(read) == {*FILMS, *originals, *cases}
    assert "mirrored" in refused["hflip.mp4"]
    assert all("torchcodec is not used for" in reason for name, reason in refused.items() if name.endswith(".avi"))
