"""Frames of extreme shapes; what ordinary ones become is in test_processing_dkd.py."""

import resource

import numpy as np
import pytest
import torch
from transformers import CLIPImageProcessorPil

from modeling_dkd import image_processing_dkd
from modeling_dkd.image_processing_dkd import DKDCLIPImageProcessor


def noise(height: int, width: int, frames: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (frames, 3, height, width), dtype=torch.uint8, generator=torch.manual_seed(0))


@pytest.mark.parametrize("resample", [2, 3])
@pytest.mark.parametrize("crops", [1, 3])
@pytest.mark.parametrize("shape", [(2, 40), (40, 2), (3, 100), (1, 37), (90, 5), (20, 1400)])
def test_a_long_frame_becomes_what_it_becomes_when_all_of_it_is_enlarged(shape, crops, resample, monkeypatch):
    processor = DKDCLIPImageProcessor(resample=resample)
    frames = noise(*shape)
    found = processor.crop_videos([[frames]], crops)
    monkeypatch.setattr(image_processing_dkd, "LONGEST_IN_CROPS", 10**9)
    expected = processor.crop_videos([[frames]], crops)
    difference = (found.int() - expected.int()).abs()
    assert found.shape == expected.shape == (crops, 2, 3, 224, 224)
    assert difference.max() <= 2
    assert difference.float().mean() < 0.02


@pytest.mark.parametrize("shape", [(2, 40), (40, 2)])
def test_a_long_frame_agrees_with_pil(shape):
    backbone = CLIPImageProcessorPil(do_rescale=False, do_normalize=False)
    frames = noise(*shape)
    expected = np.stack(backbone(list(frames.permute(0, 2, 3, 1).numpy()))["pixel_values"])
    found = DKDCLIPImageProcessor.from_image_processor(backbone)(list(frames.permute(0, 2, 3, 1).numpy()))
    assert np.abs(found["pixel_values"].numpy() - expected).max() <= 2


@pytest.mark.parametrize("shape", [(2, 3000), (3000, 2), (1, 60_000), (60_000, 1)])
def test_a_very_long_frame_takes_no_memory(shape):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert DKDCLIPImageProcessor().crop_videos([[noise(*shape, 8)]]).shape == (1, 8, 3, 224, 224)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB; all of it takes 2 GiB and more


def test_a_long_frame_that_no_crop_shortens_is_refused():
    processor = DKDCLIPImageProcessor(do_center_crop=False)
    with pytest.raises(ValueError, match="frames of 3000 x 2 pixels would become 336000 x 224"):
        processor.crop_videos([[noise(2, 3000)]])
    assert processor.crop_videos([[noise(20, 30)]]).shape == (1, 2, 3, 224, 336)
