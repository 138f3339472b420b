"""Every form in which a video comes gives the frames that its path gives."""

import io
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch

from modeling_dkd.frame_sampling import Views
from modeling_dkd.synthetic.clips import DOMAINS, describe_clips, render_clip, write_clip
from modeling_dkd.video_frames import VideoReadError, read_frames
from modeling_dkd.video_inputs import frames_of, list_of_videos


NUM_FRAMES = 4


@pytest.fixture(scope="module")
def clip():
    domain = DOMAINS["combined"]
    return render_clip(domain, describe_clips(domain, 1, 0)[0])


@pytest.fixture(scope="module")
def path(clip, tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "a clip.mp4"
    write_clip(path, clip)
    return path


class Decoder:
    """What torchcodec's VideoDecoder offers."""

    def __init__(self, frames):
        self.frames = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)

    def __len__(self):
        return len(self.frames)

    def get_frames_at(self, indices):
        return SimpleNamespace(data=self.frames[indices])


FORMS = {
    "text": str,
    "path": lambda path: path,
    "bytes": lambda path: path.read_bytes(),
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "open file": lambda path: path.open("rb"),
    "unbuffered file": lambda path: path.open("rb", buffering=0),
    "file in memory": lambda path: io.BytesIO(path.read_bytes()),
    "row with a path": lambda path: {"path": str(path), "bytes": None},
    "row with bytes": lambda path: {"path": "a clip.mp4", "bytes": path.read_bytes()},
    "row with bytes alone": lambda path: {"path": None, "bytes": path.read_bytes()},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("views", [None, Views(3, 1, 2)])
def test_a_file_in_any_form_gives_the_frames_of_its_path(path, form, views):
    video = FORMS[form](path)
    sampled = views or Views(NUM_FRAMES)
    expected = read_frames(path, sampled.num_frames, sampled.num_clips).pixels
    assert list_of_videos(video)[0] is video
    assert torch.equal(torch.cat(frames_of(video, views, NUM_FRAMES)), expected)
    if hasattr(video, "close"):
        video.close()


def test_a_decoder_gives_the_frames_at_the_same_places(clip):
    decoder = Decoder(clip)
    assert list_of_videos(decoder) == [decoder]
    for views in (Views(NUM_FRAMES), Views(3, 1, 2)):
        expected = torch.cat(frames_of(clip, views, NUM_FRAMES))
        assert torch.equal(torch.cat(frames_of(decoder, views, NUM_FRAMES)), expected)
    expected = torch.cat(frames_of(clip, Views(NUM_FRAMES), NUM_FRAMES))
    assert torch.equal(torch.cat(frames_of(decoder, None, NUM_FRAMES)), expected)

    def fail(indices):
        raise RuntimeError("Could not push packet to decoder")

    decoder.get_frames_at = fail
    with pytest.raises(VideoReadError, match="a Decoder cannot read its video: Could not push packet"):
        frames_of(decoder, None, NUM_FRAMES)


def test_a_decoder_of_torchcodec(path):
    decoders = pytest.importorskip("torchcodec.decoders", exc_type=(ImportError, RuntimeError))
    frames = torch.cat(frames_of(decoders.VideoDecoder(str(path)), None, NUM_FRAMES)).float()
    assert (frames - read_frames(path, NUM_FRAMES).pixels.float()).abs().mean() < 2


@pytest.mark.parametrize("decode_files", ["path", "bytes"])
def test_columns_of_datasets_are_lists_of_videos(path, decode_files):
    files = [str(path)] * 3 if decode_files == "path" else [{"path": "x.mp4", "bytes": path.read_bytes()}] * 3
    rows = datasets.Dataset.from_dict({"video": files}).cast_column("video", datasets.Video(decode=False))
    videos = list_of_videos(rows["video"])
    assert len(videos) == 3
    expected = read_frames(path, NUM_FRAMES).pixels
    assert torch.equal(torch.cat(frames_of(videos[2], None, NUM_FRAMES)), expected)
    with pytest.raises(ValueError, match=r"a whole data set; give the column that holds them, one of \['video'\]"):
        list_of_videos(rows)


def test_a_row_of_one_data_set_is_one_video(path):
    row = {"path": str(path), "bytes": None}
    assert list_of_videos(row)[0] is row
    assert list_of_videos([row, row]) == [row, row]


@pytest.mark.parametrize(
    ("video", "message"),
    [
        ({"path": "a.mp4"}, r"a row must have path and bytes.*not \['path'\]"),
        ({"path": None, "bytes": None}, "a row has neither path nor bytes"),
        ({"path": "gone.mp4", "bytes": None}, r"gone\.mp4"),
        ({"path": "name of it.mp4", "bytes": b"no video"}, r"video 'name of it\.mp4': it is in no format"),
        (b"no video", "video 'the bytes of a video': it is in no format"),
        (b"", "video 'the bytes of a video': the file is empty"),
        (io.StringIO("text"), "is open as text; open it as bytes, with mode 'rb'"),
        (3, "not int"),
        (None, "not NoneType"),
    ],
)
def test_what_is_no_video_is_named(video, message):
    with pytest.raises(ValueError, match=message):
        frames_of(video, None, NUM_FRAMES)


def test_a_file_open_as_text_is_refused(path):
    with path.open("r", encoding="utf-8") as file, pytest.raises(ValueError, match=r"a clip\.mp4 is open as text"):
        frames_of(file, None, NUM_FRAMES)


def test_nothing_is_left_behind(path, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    frames_of(path.read_bytes(), None, NUM_FRAMES)
    with pytest.raises(VideoReadError):
        frames_of(b"no video", None, NUM_FRAMES)
    hostile = {"path": "../../" + "x" * 300 + ".m/../p4", "bytes": path.read_bytes()}
    frames_of(hostile, None, NUM_FRAMES)
    assert not list(tmp_path.iterdir())
