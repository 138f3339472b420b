"""Stock checkpoints whose frames are made ready in a way of their own: pixels, number of frames, texts."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate
from transformers import FlavaImageProcessorPil, Owlv2ImageProcessorPil, VideoMAEImageProcessorPil

from modeling_dkd import DKDCLIPModel, DKDCLIPProcessor
from modeling_dkd.embedding.clip_encoder import ClipEncoder
from modeling_dkd.image_processing_dkd import DKDCLIPImageProcessor
from tests.more_backbones import CONFIGS, NUM_FRAMES, more_backbone
from tests.test_processing_dkd import make_tokenizer, random_video


SIZES = {"size": {"shortest_edge": 30}, "crop_size": {"height": 30, "width": 30}}


def save_stock(folder, kind, image_processor=None, settings=None, name="preprocessor_config.json"):
    CONFIGS[kind]().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    if image_processor is not None:
        image_processor.save_pretrained(folder)
    if settings is not None:
        (folder / name).write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("height_and_width", [(41, 53), (53, 40), (30, 77)])
def test_xclip_frames_are_those_of_its_own_processor(tmp_path, height_and_width):
    own = VideoMAEImageProcessorPil(**SIZES)
    processor = DKDCLIPProcessor.from_backbone(save_stock(tmp_path, "xclip", own))
    video = random_video(NUM_FRAMES, *height_and_width)
    expected = own([Image.fromarray(frame) for frame in video], return_tensors="pt")["pixel_values"]
    found = processor(videos=[video])["pixel_values"]
    assert found.shape == expected.shape == (1, NUM_FRAMES, 3, 30, 30)
    assert (found - expected).abs().max() <= 2 / 255 / min(processor.image_processor.image_std) + 1e-5


def test_flava_images_are_those_of_its_own_processor(tmp_path):
    size = {"height": 30, "width": 30}
    own = FlavaImageProcessorPil(size=size, crop_size=size)
    processor = DKDCLIPProcessor.from_backbone(save_stock(tmp_path, "flava", own))
    image = Image.fromarray(random_video(1)[0])
    expected = own(image, return_tensors="pt")["pixel_values"]
    found = processor(images=image)["pixel_values"][:, 0]
    assert (found - expected).abs().max() <= 2 / 255 / min(processor.image_processor.image_std) + 1e-5


def test_videoprism_frames_are_scaled_and_not_normalised(tmp_path):
    settings = {"video_processor_type": "LlavaOnevisionVideoProcessor", "size": {"height": 30, "width": 30}}
    folder = save_stock(tmp_path, "videoprism", settings=settings, name="video_preprocessor_config.json")
    processor = DKDCLIPProcessor.from_backbone(folder)
    video = random_video(NUM_FRAMES)
    pixels = torch.from_numpy(video).permute(0, 3, 1, 2)
    expected = interpolate(pixels, (30, 30), mode="bicubic", antialias=True).float() / 255
    torch.testing.assert_close(processor(videos=[video])["pixel_values"][0], expected)
    assert processor(text=["swim"])["input_ids"].shape == (1, 11)


def test_tipsv2_settings_are_read_where_its_processor_cannot_be_made(tmp_path):
    settings = {"image_processor_type": "Tipsv2ImageProcessor", "size": {"height": 30, "width": 30}}
    processor = DKDCLIPProcessor.from_backbone(save_stock(tmp_path, "tipsv2", settings=settings))
    assert (processor.num_frames, processor.clip_frames, processor.text_padding) == (8, None, "max_length")
    found = processor(images=Image.fromarray(random_video(1)[0]))["pixel_values"]
    assert found.shape == (1, 1, 3, 30, 30)
    assert 0 <= found.min() < 0.2 < 0.8 < found.max() <= 1
    assert processor.image_processor.resample == 2


def test_owlv2_images_are_refused_when_the_processor_is_made(tmp_path):
    with pytest.raises(ValueError, match="Owlv2ImageProcessorPil has steps of its own"):
        DKDCLIPProcessor.from_backbone(save_stock(tmp_path, "owlv2", Owlv2ImageProcessorPil()))


@pytest.fixture
def clip_processor(tmp_path):
    return DKDCLIPProcessor.from_backbone(save_stock(tmp_path, "xclip", VideoMAEImageProcessorPil(**SIZES)))


def test_the_processor_takes_the_frames_that_the_backbone_wants(clip_processor, tmp_path):
    assert (clip_processor.num_frames, clip_processor.clip_frames) == (NUM_FRAMES, NUM_FRAMES)
    assert clip_processor(videos=[random_video(9)], num_frames=NUM_FRAMES)["pixel_values"].shape[1] == NUM_FRAMES
    assert clip_processor(videos=[random_video(9)], views="4x1x2")["pixel_values"].shape[:2] == (2, NUM_FRAMES)
    clip_processor.save_pretrained(tmp_path / "saved")
    assert DKDCLIPProcessor.from_pretrained(tmp_path / "saved").clip_frames == NUM_FRAMES


@pytest.mark.parametrize("inputs", [{"videos": [random_video(9)]}, {"images": random_video(1)[0]}])
def test_another_number_of_frames_is_refused_by_the_processor(clip_processor, inputs):
    with pytest.raises(ValueError, match=r"this backbone takes clips of 4 frames, not of [19]; give num_frames=4"):
        clip_processor(**inputs)


def test_another_number_of_frames_is_refused_when_it_is_made(tmp_path):
    folder = save_stock(tmp_path, "xclip", VideoMAEImageProcessorPil(**SIZES))
    with pytest.raises(ValueError, match="takes clips of 4 frames, not of 8; give num_frames=4"):
        DKDCLIPProcessor.from_backbone(folder, num_frames=8)
    more_backbone("xclip").save_pretrained(folder)
    with pytest.raises(ValueError, match=r"takes clips of 4 frames, not of 8: give 4 frames \(--frames 4, or views"):
        ClipEncoder.load(str(folder), "8x1x1", None, torch.float32, torch.device("cpu"))


def test_views_of_a_clip_are_its_particles(tmp_path):
    folder = save_stock(tmp_path, "xclip", VideoMAEImageProcessorPil(**SIZES))
    more_backbone("xclip").save_pretrained(folder)
    encoder = ClipEncoder.load(str(folder), None, None, torch.float32, torch.device("cpu"))
    assert encoder.views == "4x1x1"
    frames = torch.from_numpy(random_video(8, 30, 30)).permute(0, 3, 1, 2)
    several = ClipEncoder.load(str(folder), "4x1x2", None, torch.float32, torch.device("cpu")).embed(frames[None])
    each = [encoder.embed(part[None]) for part in frames.split(NUM_FRAMES)]
    assert several.shape == (1, 2, 24)
    torch.testing.assert_close(several, torch.cat(each, 1), rtol=1e-4, atol=1e-5)


def test_a_saved_model_of_clips_and_its_processor_work_together(tmp_path):
    folder = save_stock(tmp_path / "stock", "xclip", VideoMAEImageProcessorPil(**SIZES))
    more_backbone("xclip").save_pretrained(folder)
    model, processor = DKDCLIPModel.from_backbone(folder), DKDCLIPProcessor.from_backbone(folder)
    inputs = processor(videos=[random_video(4, seed=s) for s in range(6)], text=["swim", "run"])
    model.fit_domain(**inputs)
    for part in (model, processor):
        part.save_pretrained(tmp_path / "ours")
    encoder = ClipEncoder.load(str(tmp_path / "ours"), None, None, torch.float32, torch.device("cpu"))
    assert encoder.views == "4x1x1"
    assert encoder.encode(["swim"]).shape == (1, 24)


def test_the_largest_of_the_same_aspect_that_fits():
    settings = {"size": {"max_height": 30, "max_width": 30}, "crop_size": {"height": 30, "width": 30}}
    processor = DKDCLIPImageProcessor(**settings, fill_color=114, do_normalize=False, do_rescale=False)
    pixels = processor(np.zeros((20, 40, 3), dtype=np.uint8))["pixel_values"][0]
    assert pixels.shape == (3, 30, 30)
    rows = pixels.mean((0, 2))
    assert rows[:7].eq(114).all()  # the odd row of the border is below
    assert rows[7:22].eq(0).all()
    assert rows[22:].eq(114).all()
    with pytest.raises(ValueError, match="fill_color is 300, but must be a whole number from 0 to 255"):
        DKDCLIPImageProcessor(fill_color=300)
