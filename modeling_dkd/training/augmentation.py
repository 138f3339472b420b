"""Random crop, mirror and colour of a clip, the same for all of its frames, on uint8 pixels before preprocessing."""

from typing import Any

import torch
from torch import Tensor

from .config import AugmentationOptions


LUMA = (0.299, 0.587, 0.114)


def augment(
    frames: Tensor, options: AugmentationOptions, may_flip: bool, images: Any, generator: torch.Generator
) -> Tensor:
    """Frames of one clip, changed at random but all alike.

    Args:
        frames: (T, 3, H, W) uint8, 0-255, RGB.
        options: What may change and how much.
        may_flip: Whether mirroring leaves the class what it is.
        images: The image processor that comes next; the crop has the aspect of what it gives out.
        generator: Draws everything; the same number of draws whatever the options.

    Returns:
        (T, 3, h, w) uint8.
    """
    area, top, left, flip, *colours = torch.rand(7, generator=generator).tolist()
    if options.min_crop_area < 1:
        height, width = _crop_size(frames.shape[-2:], _aspect(images), options, area)
        y, x = int(top * (frames.shape[-2] - height + 1)), int(left * (frames.shape[-1] - width + 1))
        frames = frames[..., y : y + height, x : x + width]
    if may_flip and flip < options.flip_probability:
        frames = frames.flip(-1)
    if options.colour_jitter:
        factors = [1 + options.colour_jitter * (2 * draw - 1) for draw in colours]
        frames = _change_colours(frames, *factors)
    return frames


def _aspect(images: Any) -> float:
    """Width over height of what the image processor gives out."""
    target = images.crop_size if images.do_center_crop else images.size
    return target["width"] / target["height"] if "height" in target else 1.0


def _crop_size(shape: Any, aspect: float, options: AugmentationOptions, draw: float) -> tuple[int, int]:
    """Height and width of a crop whose area is a random share of the largest one of this aspect."""
    height, width = shape
    largest = min(height, width / aspect)
    share = options.min_crop_area + draw * (1 - options.min_crop_area)
    cropped = largest * share**0.5
    return max(1, round(cropped)), max(1, min(width, round(cropped * aspect)))


def _change_colours(frames: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    """Multiply brightness, distance from the clip's mean luma, and distance from each pixel's own luma."""
    pixels = frames.float() * brightness
    luma = (pixels * torch.tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    mean = luma.mean()
    # saturation: luma + saturation (pixel - luma); contrast: mean + contrast (that - mean).
    pixels = (pixels * saturation + luma * (1 - saturation)) * contrast + mean * (1 - contrast)
    return pixels.round_().clamp_(0, 255).to(torch.uint8)
