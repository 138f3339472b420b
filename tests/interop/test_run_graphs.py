"""The runner of an exported folder, which has numpy alone."""

import numpy as np
import pytest
import torch

from modeling_dkd import DKDCLIPConfig, DKDHead
from modeling_dkd.frame_sampling import segment_indices
from modeling_dkd.image_processing_dkd import DKDCLIPImageProcessor
from modeling_dkd.interop import run_graphs
from modeling_dkd.interop.export_folder import pixel_settings


DIM = 8


def embeds(*shape):
    return np.random.default_rng(0).normal(size=(*shape, DIM)).astype(np.float32)


def with_value(array, index, value):
    array = array.copy()
    array[index] = value
    return array


BAD = {
    "not a number": with_value(embeds(3, 2), (2, 1, 5), np.nan),
    "infinite": with_value(embeds(3), (1, 0), np.inf),
    "zero": with_value(embeds(3), 1, 0),
    "particles that cancel": np.stack([embeds(2), -embeds(2)], 1),
    "another D": embeds(3)[:, 1:],
    "one axis": embeds(),
    "four axes": embeds(1, 1, 2),
    "none": embeds(0),
    "no particles": embeds(2, 0),
}


@pytest.mark.parametrize("name", BAD)
def test_what_the_head_refuses_is_refused_in_its_words(name):
    with pytest.raises(ValueError, match="video_embeds") as refused:
        DKDHead(DKDCLIPConfig(projection_dim=DIM))(torch.from_numpy(BAD[name]), torch.from_numpy(embeds(2)))
    with pytest.raises(ValueError, match="video_embeds") as also_refused:
        run_graphs.unit_particles(BAD[name], "video_embeds", DIM)
    assert str(also_refused.value) == str(refused.value)


@pytest.mark.parametrize("dtype", [np.int64, bool, np.complex64])
def test_embeddings_are_floats(dtype):
    with pytest.raises(ValueError, match="text_embeds must be an array of floats"):
        run_graphs.unit_particles(np.ones((2, DIM), dtype), "text_embeds", DIM)


def test_lengths_that_float32_does_not_hold_are_no_trouble():
    given = embeds(3, 2).astype(np.float64)
    found = run_graphs.unit_particles(given * 1e100, "video_embeds", DIM)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, run_graphs.unit_particles(given, "video_embeds", DIM), rtol=1e-6)


@pytest.mark.parametrize("total", [1, 2, 5, 8, 31, 1000])
@pytest.mark.parametrize("num_frames", [1, 4, 7])
def test_it_takes_the_frames_that_the_processor_takes(total, num_frames):
    assert (
        run_graphs.segment_indices(total, {"num_frames": num_frames}) == segment_indices(total, num_frames)[0].tolist()
    )


@pytest.mark.parametrize(
    "options",
    [
        {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}},
        {"size": {"shortest_edge": 19}, "crop_size": {"height": 24, "width": 22}, "resample": 2},  # padded
        {"size": {"height": 21, "width": 26}, "do_center_crop": False, "do_normalize": False},
        {"size": {"height": 30, "width": 30}, "crop_size": {"height": 21, "width": 26}, "rescale_factor": 1 / 127.5},
        {"do_resize": False, "crop_size": {"height": 24, "width": 24}},
    ],
)
@pytest.mark.parametrize("shape", [(36, 64), (50, 31), (24, 24)])
def test_frames_are_prepared_as_the_processor_does(options, shape):
    images = DKDCLIPImageProcessor(**options)
    clips = list(np.random.default_rng(0).integers(0, 256, (2, 5, *shape, 3), np.uint8))
    if not images.do_resize:
        with pytest.raises(ValueError, match="no fixed size"):
            pixel_settings(images)
        return
    expected = images.preprocess_videos([[torch.from_numpy(clip[[0, 2, 4]]).permute(0, 3, 1, 2)] for clip in clips])
    height, width = expected.shape[-2:]
    about = {"num_frames": 3, "height": height, "width": width, "preprocessing": pixel_settings(images)}
    found = run_graphs.prepare(clips, about)
    assert found.dtype == np.float32
    assert found.shape == tuple(expected.shape)
    step = max(about["preprocessing"]["scale"])
    assert np.abs(found - expected.numpy()).max() <= 2.01 * step


def test_no_clips_at_all_are_refused():
    with pytest.raises(ValueError, match="there are no clips; give at least one"):
        run_graphs.prepare([], {})


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        ([], "clip 1 has no frames"),
        ([np.zeros((4, 4, 3))], r"frames of clip 1 must be \(H, W, 3\) uint8, RGB, not float64"),
        ([np.zeros((3, 4, 4), np.uint8)], "frames of clip 1 must be"),
        ([np.zeros((0, 4, 3), np.uint8)], "frames of clip 1 must be"),
    ],
)
def test_other_frames_are_refused(clip, message):
    about = {"num_frames": 1, "height": 4, "width": 4}
    about["preprocessing"] = {"shortest_edge": 4, "size": None, "resample": 3, "scale": [1] * 3, "shift": [0] * 3}
    with pytest.raises(ValueError, match=message):
        run_graphs.prepare([[np.zeros((4, 4, 3), np.uint8)], clip], about)


def test_pixels_of_another_form_are_refused():
    about = {"num_frames": 2, "height": 4, "width": 5, "dim": DIM}
    graphs = run_graphs.Graphs(about, embeds(1, 1), lambda inputs: {"frame_embeds": BAD["not a number"]}, None)
    right = np.zeros((3, 2, 3, 4, 5), np.float32)
    for wrong in (right[:, :1], right[..., :4], right[0], right[:0]):
        with pytest.raises(ValueError, match=r"pixel_values must be \(videos, 2, 3, 4, 5\), at least one"):
            graphs.recognise(wrong)
    with pytest.raises(ValueError, match="pixel_values are int64; prepare them"):
        graphs.recognise(right.astype(np.int64))
    with pytest.raises(ValueError, match=r"video_embeds\[2, 1, 5\] is not finite"):
        graphs.recognise(right)
