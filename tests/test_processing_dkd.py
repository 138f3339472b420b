import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoProcessor,
    CLIPImageProcessorPil,
    CLIPTokenizer,
    ConvNextImageProcessorPil,
    EfficientNetImageProcessorPil,
    Siglip2ImageProcessorPil,
    SiglipImageProcessorPil,
)
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from modeling_dkd import DKDCLIPImageProcessor, DKDCLIPProcessor
from modeling_dkd.frame_sampling import segment_indices
from modeling_dkd.video_frames import VideoReadError, read_frames
from tests.tiny_backbones import tiny_backbone_config


RAW = {"do_rescale": False, "do_normalize": False}
BACKBONE_SETTINGS = {
    "clip": CLIPImageProcessorPil(**RAW),
    "clip-336": CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}, **RAW),
    "siglip-bicubic": SiglipImageProcessorPil(**RAW),
    "siglip-bilinear": SiglipImageProcessorPil(resample=2, size={"height": 256, "width": 256}, **RAW),
}
# Files under originals/ whose sizes differ, and sizes cut out of their frames (None: whole).
SOURCES = {
    "320x240": ("ucf101/Archery/v_Archery_g18_c07.avi", None),
    "portrait": ("other_formats/Ask-Anything__making_cake.mp4", None),
    "1280x720": ("other_formats/Ask-Anything__jesse_dance.mp4", None),
    "340x256": ("other_formats/mmaction2__part_0.mp4", None),
    "tiny": ("other_formats/mmaction2__part_0.mp4", (5, 7)),
    "small-odd": ("ucf101/Archery/v_Archery_g18_c07.avi", (129, 97)),
}


def make_tokenizer(max_length: int = 11) -> CLIPTokenizer:
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["<|startoftext|>", *letters, *(letter + "</w>" for letter in letters), "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=max_length)


def save_stock_checkpoint(folder: Path, kind: str = "clip", image_processor=None) -> Path:
    """Configuration, image processor and tokenizer as a stock checkpoint has them (no weights)."""
    tiny_backbone_config(kind).save_pretrained(folder)
    size = {"shortest_edge": 30} if kind == "clip" else {"height": 30, "width": 30}
    default = CLIPImageProcessorPil(size=size, crop_size={"height": 30, "width": 30})
    (image_processor or default).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def random_video(num_frames: int = 5, height: int = 41, width: int = 53, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


@pytest.fixture
def processor() -> DKDCLIPProcessor:
    image_processor = DKDCLIPImageProcessor(size={"shortest_edge": 30}, crop_size={"height": 30, "width": 30})
    return DKDCLIPProcessor(image_processor, make_tokenizer(), num_frames=4)


@pytest.mark.parametrize("source", SOURCES)
def test_pixels_are_those_of_the_backbones_pil_processor(data_dir, source):
    name, size = SOURCES[source]
    pixels = read_frames(data_dir / "originals" / name, 3).pixels
    if size is not None:
        pixels = pixels[:, :, : size[0], : size[1]]
    frames = list(pixels.permute(0, 2, 3, 1).numpy())
    for name, backbone in BACKBONE_SETTINGS.items():
        expected = np.stack(backbone(frames, input_data_format="channels_last")["pixel_values"]).astype(np.float64)
        found = DKDCLIPImageProcessor.from_image_processor(backbone)(frames, return_tensors="np")["pixel_values"]
        assert found.shape == expected.shape
        difference = np.abs(found - expected)
        assert difference.max() <= 2, name
        assert difference.mean() <= 0.1, name


@pytest.mark.parametrize("size", [(240, 320), (427, 320), (5, 7), (1, 1), (37, 500)])
def test_pixels_of_noise_are_those_of_the_pil_processor(size):
    frames = list(random_video(2, *size))
    for backbone in BACKBONE_SETTINGS.values():
        expected = np.stack(backbone(frames, input_data_format="channels_last")["pixel_values"]).astype(np.float64)
        found = DKDCLIPImageProcessor.from_image_processor(backbone)(frames, return_tensors="np")["pixel_values"]
        difference = np.abs(found - expected)
        assert difference.max() <= 2
        assert difference.mean() <= 0.1


@pytest.mark.parametrize("size", [(30, 41), (41, 30), (29, 31), (20, 50), (50, 21), (7, 9)])
def test_crop_and_padding_are_exact(size):
    backbone = CLIPImageProcessorPil(do_resize=False, crop_size={"height": 27, "width": 30})
    frames = list(random_video(2, *size))
    expected = backbone(frames, return_tensors="pt", input_data_format="channels_last")["pixel_values"]
    found = DKDCLIPImageProcessor.from_image_processor(backbone)(frames)["pixel_values"]
    torch.testing.assert_close(found, expected.float())


def test_frames_are_normalised_once():
    processor = DKDCLIPImageProcessor.from_image_processor(CLIPImageProcessorPil())
    pixels = torch.full((1, 3, 4, 4), 200, dtype=torch.uint8)
    with pytest.raises(TypeError, match=r"pixels are torch\.float32, not torch\.uint8"):
        processor.normalise(processor.normalise(pixels))


def test_normalised_values_are_those_of_the_pil_processor():
    backbone = CLIPImageProcessorPil(do_resize=False, image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.6, 0.7])
    frames = list(random_video(2, 224, 224))
    found = DKDCLIPImageProcessor.from_image_processor(backbone)(frames)["pixel_values"]
    torch.testing.assert_close(found, backbone(frames, return_tensors="pt")["pixel_values"].float())


@pytest.mark.parametrize("size", [(240, 320), (320, 240), (100, 100), (9, 200)])
def test_siglip2_frames_fill_whole_patches_as_its_own_processor(size):
    backbone = Siglip2ImageProcessorPil(patch_size=6, max_num_patches=25, **RAW)
    frames = list(random_video(2, *size))
    expected = backbone(frames, return_tensors="np", input_data_format="channels_last")
    image_processor = DKDCLIPImageProcessor.from_image_processor(backbone)
    found = image_processor(frames, return_tensors="np")["pixel_values"]
    rows, columns = expected["spatial_shapes"][0]
    assert found.shape == (2, 3, rows * 6, columns * 6)
    patches = found.reshape(2, 3, rows, 6, columns, 6).transpose(0, 2, 4, 3, 5, 1).reshape(2, rows * columns, -1)
    difference = np.abs(patches - expected["pixel_values"][:, : rows * columns])
    assert difference.max() <= 2


@pytest.mark.parametrize("rescale_offset", [True, False])
@pytest.mark.parametrize("do_normalize", [True, False])
@pytest.mark.parametrize("include_top", [True, False])
def test_align_frames_are_shifted_as_by_its_own_processor(rescale_offset, do_normalize, include_top):
    backbone = EfficientNetImageProcessorPil(
        size={"height": 37, "width": 31},
        do_center_crop=True,
        crop_size={"height": 29, "width": 23},
        resample=2,
        rescale_factor=2 / 255,
        rescale_offset=rescale_offset,
        do_normalize=do_normalize,
        include_top=include_top,
    )
    frames = list(random_video(2))
    expected = backbone(frames, return_tensors="np", input_data_format="channels_last")["pixel_values"]
    found = DKDCLIPImageProcessor.from_image_processor(backbone)(frames, return_tensors="np")["pixel_values"]
    step = 2 / 255 / min(backbone.image_std) ** (do_normalize + include_top)  # of one grey level
    assert found.shape == (2, 3, 29, 23)
    assert np.abs(found - expected).max() <= 2.01 * step
    assert np.abs(found - expected).mean() <= 0.1 * step


def test_every_form_of_a_video_gives_the_same(processor):
    video = random_video()
    expected = processor(videos=[[Image.fromarray(frame) for frame in video]])["pixel_values"]
    assert expected.shape == (1, 5, 3, 30, 30)
    first = torch.from_numpy(video).permute(0, 3, 1, 2)
    forms = {
        "list of PIL frames": [Image.fromarray(frame) for frame in video],
        "list of arrays": list(video),
        "list of tensors, channels first": list(first),
        "array": video,
        "array, channels first": np.ascontiguousarray(first.numpy()),
        "tensor": first,
        "tensor, channels last": torch.from_numpy(video),
        "batch": video[None],
        "batch of tensors": first[None],
        "list of videos": [list(video)],
        "floating point": video / np.float32(255),
        "double precision": video / 255,
        "other integers": video.astype(np.int64),
        "transparent": [np.concatenate([frame, np.full_like(frame[..., :1], 9)], axis=-1) for frame in video],
    }
    for form, value in forms.items():
        found = processor(videos=value)["pixel_values"]
        assert torch.equal(found, expected), form
    assert processor(videos=[video, video])["pixel_values"].shape == (2, 5, 3, 30, 30)


def test_grey_frames_have_three_equal_channels(processor):
    grey = random_video()[..., 0]
    expected = processor(videos=[np.repeat(grey[..., None], 3, axis=-1)])["pixel_values"]
    assert torch.equal(processor(videos=[[Image.fromarray(frame) for frame in grey]])["pixel_values"], expected)
    assert torch.equal(processor(videos=[grey[..., None]])["pixel_values"], expected)
    assert torch.equal(processor(videos=[list(grey)])["pixel_values"], expected)


def test_frames_of_different_sizes_keep_their_order(processor):
    small, large = random_video(2, 33, 40, seed=1), random_video(2, 60, 35, seed=2)
    mixed = processor(videos=[[small[0], large[0], large[1], small[1]]])["pixel_values"]
    alone = [processor(images=frame)["pixel_values"][0, 0] for frame in (small[0], large[0], large[1], small[1])]
    assert torch.equal(mixed[0], torch.stack(alone))


def test_an_image_is_a_video_of_one_frame(processor, tmp_path):
    image = Image.fromarray(random_video()[0])
    image.save(tmp_path / "image.png")
    expected = processor(videos=[[image]])["pixel_values"]
    assert expected.shape == (1, 1, 3, 30, 30)
    for form in (image, [image], np.array(image), tmp_path / "image.png", [str(tmp_path / "image.png")]):
        assert torch.equal(processor(images=form)["pixel_values"], expected)
    assert processor(images=[image, image])["pixel_values"].shape == (2, 1, 3, 30, 30)
    video = processor(videos=tmp_path / "image.png")["pixel_values"]
    assert torch.equal(video, expected.expand(1, 4, 3, 30, 30))


def test_num_frames_takes_segment_centres_and_repeats(processor):
    video = random_video(10)
    every = processor(videos=[video])["pixel_values"][0]
    assert torch.equal(processor(videos=[video], num_frames=4)["pixel_values"][0], every[[1, 3, 6, 8]])
    assert torch.equal(processor(videos=[video[:2]], num_frames=4)["pixel_values"][0], every[[0, 0, 1, 1]])
    mixed = processor(videos=[video, list(video[:3])], num_frames=3)["pixel_values"]
    assert mixed.shape == (2, 3, 3, 30, 30)


def test_views_are_clips_of_crops(processor):
    video = random_video(12, 40, 60) // 3 + 80  # far from 0 and 255, where clipping would depend on the direction
    found = processor(videos=[video, video[::-1]], views="3x3x2")["pixel_values"]
    assert found.shape == (2 * 2 * 3, 3, 3, 30, 30)
    indices = segment_indices(12, 3, 2)
    for clip in range(2):
        frames = video[indices[clip]]
        assert torch.equal(found[clip * 3 + 1], processor(videos=[frames])["pixel_values"][0])
        # 40 x 60 becomes 30 x 45: the outer crops are the first and the last 30 columns
        whole = DKDCLIPImageProcessor(size={"shortest_edge": 30}, do_center_crop=False)(list(frames))["pixel_values"]
        assert torch.equal(found[clip * 3], whole[..., :30])
        assert torch.equal(found[clip * 3 + 2], whole[..., -30:])
    portrait = processor(videos=[video.transpose(0, 2, 1, 3)], views="3x3x2")["pixel_values"]
    torch.testing.assert_close(portrait, found[:6].transpose(-1, -2), atol=2 / 255 / 0.26, rtol=0)
    assert not torch.equal(found[0], found[2])


def test_views_of_a_squared_backbone_have_no_crops():
    image_processor = DKDCLIPImageProcessor.from_image_processor(SiglipImageProcessorPil())
    processor = DKDCLIPProcessor(image_processor, make_tokenizer())
    with pytest.raises(ValueError, match="3 crops need a backbone that crops"):
        processor(videos=[random_video()], views="4x3x1")
    assert processor(videos=[random_video()], views="4x1x2")["pixel_values"].shape == (2, 4, 3, 224, 224)


def test_a_path_gives_the_frames_of_the_file(processor, data_dir):
    path = data_dir / "originals/ucf101/Punch/v_Punch_g14_c04.avi"
    frames = read_frames(path, 4)
    expected = processor(videos=[frames.pixels])["pixel_values"]
    assert torch.equal(processor(videos=str(path))["pixel_values"], expected)
    assert torch.equal(processor(videos=[path, frames])["pixel_values"], expected.expand(2, -1, -1, -1, -1))
    assert processor(videos=path, num_frames=7)["pixel_values"].shape == (1, 7, 3, 30, 30)
    assert processor(videos=path, views="2x3x2")["pixel_values"].shape == (6, 2, 3, 30, 30)


def test_texts_and_prompts(processor):
    batch = processor(text=["swim", "a dance"])
    assert batch.keys() == {"input_ids", "attention_mask"}
    assert batch["input_ids"].shape == (2, 8)
    assert batch["attention_mask"].sum(1).tolist() == [6, 8]
    single = processor(text="swim")["input_ids"]
    assert torch.equal(single[0], batch["input_ids"][0, :6])
    prompts = processor(text=[["swim", "a dance"], ["run", "x"], ["jump", "b"]])
    assert prompts["input_ids"].shape == prompts["attention_mask"].shape == (3, 2, 8)
    assert torch.equal(prompts["input_ids"][0], batch["input_ids"])
    assert processor(text="a very long description of it")["input_ids"].shape == (1, 11)
    assert processor(text="swim", padding="max_length")["input_ids"].shape == (1, 11)


def test_video_and_text_in_one_call(processor):
    batch = processor(text=["a", "b"], videos=[random_video()], return_tensors="np")
    assert batch.keys() == {"pixel_values", "input_ids", "attention_mask"}
    assert {name: value.dtype for name, value in batch.items()} == {
        "pixel_values": np.float32,
        "input_ids": np.int64,
        "attention_mask": np.int64,
    }


@pytest.mark.parametrize("how", ["flat", "images_kwargs", "videos_kwargs"])
def test_image_settings_may_be_given_for_one_call(processor, how):
    videos, settings = [random_video()], {"do_rescale": False, "crop_size": 9, "image_mean": [0.1, 0.2, 0.3]}
    other = DKDCLIPProcessor(processor.image_processor.with_settings(settings), processor.tokenizer)
    given = settings if how == "flat" else {how: settings}
    batch = processor(videos=videos, text=["a"], **given)
    assert batch["pixel_values"].shape[-2:] == (9, 9)
    assert torch.equal(batch["pixel_values"], other(videos=videos)["pixel_values"])
    images = processor.image_processor.preprocess(random_video()[0], **settings)["pixel_values"]
    assert torch.equal(images[0], other(images=random_video()[0])["pixel_values"][0, 0])
    assert processor.image_processor.do_rescale
    with pytest.raises(ValueError, match=r"unknown options \['rescale'\]; known are do_resize, "):
        processor.image_processor.preprocess(random_video()[0], rescale=False)


def test_options_in_groups_are_those_by_themselves(processor):
    videos, text = [random_video()], ["a", "b c d"]
    flat = processor(
        videos=videos,
        text=text,
        num_frames=3,
        max_length=9,
        padding="max_length",
        return_tensors="np",
        do_rescale=False,
    )
    grouped = processor(
        videos=videos,
        text=text,
        text_kwargs={"max_length": 9, "padding": "max_length"},
        videos_kwargs={"num_frames": 3, "do_rescale": False},
        common_kwargs={"return_tensors": "np"},
    )
    assert flat.keys() == grouped.keys()
    assert all(np.array_equal(flat[name], grouped[name]) for name in flat)
    assert flat["input_ids"].shape == (2, 9)
    assert processor(videos=videos, videos_kwargs={"views": "2x1x2"})["pixel_values"].shape[:2] == (2, 2)


BAD_INPUTS = [
    ({}, "give videos, images or text"),
    ({"videos": [random_video()], "images": random_video()[0]}, "not both"),
    ({"videos": []}, "the list of videos is empty"),
    ({"videos": 3}, "not int"),
    ({"videos": [[]]}, "not list of length 0"),
    ({"videos": [random_video(), random_video(3)]}, r"different numbers of frames, \[3, 5\]; give num_frames"),
    ({"videos": [random_video() * 1.0]}, "floating-point frames must lie between 0 and 1, but reach from 0 to 255"),
    ({"videos": [np.full((2, 8, 8, 3), np.nan)]}, "floating-point frames must lie between 0 and 1"),
    ({"videos": [random_video().astype(np.int64) - 9]}, "integer frames must lie between 0 and 255"),
    (
        {"videos": [np.zeros((2, 8, 8, 5), np.uint8)]},
        r"1, 3 or 4 channels, first or last, but its shape is \(2, 8, 8, 5\)",
    ),
    ({"videos": [np.zeros((2, 0, 8, 3), np.uint8)]}, "has no pixels"),
    ({"videos": [["a", 7]]}, "no such file|No such file"),
    ({"videos": [[7]]}, "a frame must be a PIL image"),
    ({"videos": [random_video()], "num_frames": 0}, "of at least 1, but 0 frames"),
    ({"videos": [random_video()], "views": "8x2x1"}, "'8x2x1' must read FRAMESxCROPSxCLIPS"),
    ({"videos": [random_video()], "views": "8x1x1", "num_frames": 8}, "not both"),
    ({"videos": [random_video()], "num_frame": 4}, r"unknown options \['num_frame'\]; known are .*num_frames"),
    ({"videos": [random_video()], "text": "a", "num_frame": 4}, r"unknown options \['num_frame'\]"),
    ({"text": "a", "max_lenght": 4}, r"unknown options \['max_lenght'\]"),
    ({"text": "a", "return_offsets_mapping": True}, r"unknown options \['return_offsets_mapping'\]"),
    ({"text": "a", "num_frames": 4}, "num_frames is an option for frames, which is not given"),
    ({"videos": [random_video()], "backend": "torchcodec"}, "backend is an option for files, but these frames are"),
    ({"videos": [__file__], "backend": "decord"}, "backend must be one of pyav, torchcodec, not 'decord'"),
    ({"text": "a", "do_rescale": False}, "do_rescale is an option for frames, which is not given"),
    ({"videos": [random_video()], "padding": True}, "padding is an option for text, which is not given"),
    ({"videos": [random_video()], "videos_kwargs": {"fps": 2}}, "videos_kwargs has no option 'fps'; it has do_resize"),
    ({"text": "a", "text_kwargs": {"do_rescale": 1}}, "text_kwargs has no option 'do_rescale'"),
    (
        {"videos": [random_video()], "do_rescale": 1, "images_kwargs": {"do_rescale": 1}},
        "do_rescale is given twice, once of them in images_kwargs",
    ),
    ({"videos": [random_video()], "num_frames": 3, "videos_kwargs": {"num_frames": 3}}, "num_frames is given twice"),
    ({"videos": [random_video()], "crop_size": {"edge": 3}}, "crop_size {'edge': 3} must hold height and width"),
    ({"text": []}, "the list of texts is empty"),
    ({"text": [["a", "b"], ["c"]]}, r"same number of prompts, at least one; found \[1, 2\]"),
    ({"text": [["a"], "b"]}, r"text\[1\] must be a list of texts, not str"),
    ({"text": ["b", ["a"]]}, "text must hold texts alone, not list of length 1"),
    ({"text": ["a", None]}, "text must hold texts alone, not NoneType"),
    ({"text": [1, 2]}, r"text\[0\] must be a list of texts, not int"),
    ({"text": {"a": 1}}, "text must be a list of texts, not dict"),
    ({"text": b"a"}, "text must be a list of texts, not bytes"),
    ({"text": Path("a")}, "text must be a list of texts, not PosixPath"),
    ({"videos": [random_video()], "num_frames": 2.0}, "of at least 1, but 2.0 frames"),
    ({"videos": [random_video()], "num_frames": "4"}, "of at least 1, but '4' frames"),
    ({"videos": [random_video()], "num_frames": True}, "of at least 1, but True frames"),
    ({"videos": [random_video()], "views": (8, 1, 1)}, "must read FRAMESxCROPSxCLIPS"),
]


@pytest.mark.parametrize(("inputs", "message"), BAD_INPUTS)
def test_bad_input_is_named(processor, inputs, message):
    with pytest.raises(ValueError, match=message):
        processor(**inputs)


def test_a_bad_file_is_named(processor, tmp_path):
    with pytest.raises(VideoReadError, match=r"missing\.mp4"):
        processor(videos=[tmp_path / "missing.mp4"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": {"max_height": 3}}, "must hold height and width, or shortest_edge"),
        ({"resample": 1}, r"resample 1 is not supported; known are 2 \(bilinear\), 3 \(bicubic\)"),
        ({"crop_size": {"shortest_edge": 3}}, "crop_size"),
        ({"image_std": [0.2, 0.0, 0.1]}, "std above 0"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        DKDCLIPImageProcessor(**options)


def test_from_backbone_takes_settings_and_tokenizer(tmp_path):
    backbone = CLIPImageProcessorPil(size={"shortest_edge": 33}, crop_size={"height": 31, "width": 30}, resample=2)
    processor = DKDCLIPProcessor.from_backbone(save_stock_checkpoint(tmp_path, image_processor=backbone), num_frames=3)
    assert processor.num_frames == 3
    assert processor.image_processor.size == {"shortest_edge": 33}
    assert processor.image_processor.crop_size == {"height": 31, "width": 30}
    assert processor.image_processor.resample == 2
    assert processor.max_text_length == 11
    batch = processor(videos=[random_video()], text="swim")
    assert batch["pixel_values"].shape == (1, 5, 3, 31, 30)
    assert torch.equal(batch["input_ids"], make_tokenizer()("swim", return_tensors="pt")["input_ids"])


def test_from_backbone_reads_old_settings(tmp_path):
    save_stock_checkpoint(tmp_path)
    old = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 36, "crop_size": 30, "resample": 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(old))
    image_processor = DKDCLIPProcessor.from_backbone(tmp_path).image_processor
    assert image_processor.size == {"shortest_edge": 36}
    assert image_processor.crop_size == {"height": 30, "width": 30}
    assert image_processor.image_mean == CLIPImageProcessorPil.image_mean


def test_siglip_texts_are_padded_to_full_length(tmp_path):
    processor = DKDCLIPProcessor.from_backbone(
        save_stock_checkpoint(tmp_path, "siglip", SiglipImageProcessorPil(size={"height": 30, "width": 30}))
    )
    assert processor(text=["swim"])["input_ids"].shape == (1, 11)
    assert processor.image_processor.do_center_crop is False


def test_from_backbone_leaves_room_for_offset_positions(tmp_path):
    folder = save_stock_checkpoint(tmp_path, "altclip")
    make_tokenizer(max_length=512).save_pretrained(folder)
    assert DKDCLIPProcessor.from_backbone(folder).max_text_length == 11  # 13 positions, the first two not for tokens


def test_a_backbone_with_steps_of_its_own_is_refused(tmp_path):
    folder = save_stock_checkpoint(tmp_path, image_processor=ConvNextImageProcessorPil())
    with pytest.raises(ValueError, match="ConvNextImageProcessorPil has steps of its own"):
        DKDCLIPProcessor.from_backbone(folder)


def test_saved_and_loaded_processor_gives_the_same(processor, tmp_path):
    processor.image_processor.resample = 2
    processor.text_padding = "max_length"
    processor.save_pretrained(tmp_path)
    shipped = {
        "processing_dkd.py",
        "image_processing_dkd.py",
        "video_frames.py",
        "frame_sampling.py",
        "container_length.py",
        "counted_packets.py",
        "video_decoding.py",
    }
    assert shipped <= {file.name for file in tmp_path.iterdir()}
    inputs = {"videos": [random_video()], "text": ["swim", "a dance"]}
    expected = processor(**inputs)
    for loaded in (DKDCLIPProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert isinstance(loaded, DKDCLIPProcessor)
        assert (loaded.num_frames, loaded.text_padding) == (4, "max_length")
        assert loaded.image_processor.to_dict() == processor.image_processor.to_dict()
        found = loaded(**inputs)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert isinstance(AutoImageProcessor.from_pretrained(tmp_path), DKDCLIPImageProcessor)
    assert DKDCLIPProcessor.from_pretrained(tmp_path, num_frames=6).num_frames == 6


REMOTE = """
import sys
sys.modules["modeling_dkd"] = None  # importing the package fails
import numpy as np, torch
from transformers import AutoProcessor
from transformers.models.auto.image_processing_auto import AutoImageProcessor
processor = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
image_processor = AutoImageProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
assert type(processor).__name__ == "DKDCLIPProcessor", type(processor)
assert type(image_processor).__name__ == "DKDCLIPImageProcessor", type(image_processor)
assert type(processor).__module__.startswith("transformers_modules."), type(processor).__module__
video = np.load(sys.argv[2], allow_pickle=False)
batch = processor(videos=[video], text=["swim", "a dance"])
np.savez(sys.argv[3], **{name: value.numpy() for name, value in batch.items()})
processor.save_pretrained(sys.argv[4])
"""


@pytest.mark.slow
def test_a_fresh_process_without_the_package_gives_the_same(processor, tmp_path):
    saved, again, elsewhere = tmp_path / "saved", tmp_path / "again", tmp_path / "elsewhere"
    elsewhere.mkdir()
    processor.save_pretrained(saved)
    video = random_video()
    np.save(tmp_path / "video.npy", video)
    expected = processor(videos=[video], text=["swim", "a dance"])
    for folder in (saved, again):  # what remote code saves must load again
        arguments = [folder, tmp_path / "video.npy", tmp_path / "batch.npz", tmp_path / "again"]
        run = subprocess.run(
            [sys.executable, "-I", "-c", REMOTE, *map(str, arguments)],
            cwd=elsewhere,
            env={"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "PATH": ""},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert run.returncode == 0, run.stderr
        with np.load(tmp_path / "batch.npz", allow_pickle=False) as batch:
            assert set(batch) == set(expected)
            assert all(np.array_equal(batch[name], expected[name].numpy()) for name in expected)
