"""The backbone's own image settings, applied to the frames of videos in batched torch ops (no torchvision)."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from transformers import BatchFeature
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_transforms import get_size_with_aspect_ratio

from .frame_tensors import frame_tensors
from .precision import widest_float


# PIL's number of a resampling filter -> the mode of torch.nn.functional.interpolate that computes the same.
INTERPOLATION_MODES = {2: "bilinear", 3: "bicubic"}
# A resized side of more crops than this is computed only where a crop sees it; else that would take time and memory.
LONGEST_IN_CROPS = 8
LONGEST_WITHOUT_CROP = 1 << 14  # pixels
PATCH_SIZE = ("patch_size", "max_num_patches")
# The settings, which may also be given for one call.
IMAGE_OPTIONS = (
    "do_resize",
    "size",
    "resample",
    "do_center_crop",
    "crop_size",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
    "fill_color",
)


class DKDCLIPImageProcessor(BaseImageProcessor):
    """Resize, crop, rescale and normalise frames as a CLIP-like backbone expects, in batched torch ops.

    The settings have the names and meanings they have in transformers' image processors, so those of a backbone can be
    copied; pixels agree with its PIL version (differences come from rounding, at most 2 of 255).

    Args:
        size: {"height", "width"}, {"shortest_edge"} or {"shortest_edge", "longest_edge"}, pixels; {"max_height",
            "max_width"}: the largest of the same aspect that fits into these; or {"patch_size", "max_num_patches"}
            (SigLIP 2): the aspect is kept but for whole patches, and at most so many come out.
        resample: PIL's number: 2 bilinear, 3 bicubic.
        crop_size: {"height", "width"}, pixels; a smaller frame is padded.
        rescale_factor: Multiplies pixel values of 0-255.
        image_mean: Subtracted after rescaling, one value a channel, RGB.
        image_std: Divides after that, one value a channel, RGB, above 0.
        fill_color: 0-255, what a smaller frame is padded with; odd margins are then rounded as open_clip rounds them.
            None: black, and margins as in transformers.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012 (transformers reads it as a class attribute)

    def __init__(
        self,
        do_resize: bool = True,
        size: dict[str, int] | None = None,
        resample: int = 3,
        do_center_crop: bool = True,
        crop_size: dict[str, int] | None = None,
        do_rescale: bool = True,
        rescale_factor: float = 1 / 255,
        do_normalize: bool = True,
        image_mean: Sequence[float] = (0.48145466, 0.4578275, 0.40821073),
        image_std: Sequence[float] = (0.26862954, 0.26130258, 0.27577711),
        fill_color: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.do_resize = do_resize
        self.size = _plain_size({"shortest_edge": 224} if size is None else size, "shortest_edge")
        self.resample = int(resample)
        self.do_center_crop = do_center_crop
        self.crop_size = _plain_size(224 if crop_size is None else crop_size, "height", "width")
        self.do_rescale = do_rescale
        self.rescale_factor = rescale_factor
        self.do_normalize = do_normalize
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)
        self.fill_color = fill_color
        self._check()

    def _check(self) -> None:
        known_sizes = ({"height", "width"}, {"shortest_edge"}, {"shortest_edge", "longest_edge"}, set(PATCH_SIZE))
        if self.do_resize and self.size.keys() not in (*known_sizes, {"max_height", "max_width"}):
            raise ValueError(f"size {self.size} must hold height and width, or shortest_edge")
        if self.do_resize and self.resample not in INTERPOLATION_MODES:
            known = ", ".join(f"{number} ({mode})" for number, mode in INTERPOLATION_MODES.items())
            raise ValueError(f"resample {self.resample} is not supported; known are {known}")
        if self.do_center_crop and self.crop_size.keys() != {"height", "width"}:
            raise ValueError(f"crop_size {self.crop_size} must hold height and width")
        if self.fill_color is not None and self.fill_color not in range(256):
            raise ValueError(f"fill_color is {self.fill_color!r}, but must be a whole number from 0 to 255")
        if len(self.image_mean) != 3 or len(self.image_std) != 3 or min(self.image_std) <= 0:
            raise ValueError(
                f"image_mean {self.image_mean} and image_std {self.image_std} must be 3 values, std above 0"
            )

    @classmethod
    def from_image_processor(cls, image_processor: Any) -> "DKDCLIPImageProcessor":
        """Copies the settings of one of transformers' PIL image processors.

        Raises:
            ValueError: It does more than resize, crop, rescale, shift and normalise (padding, several images).
        """
        kind: Any = type(image_processor)
        patches = kind.__name__.startswith("Siglip2ImageProcessor")
        shifts = kind.__name__.startswith("EfficientNetImageProcessor")  # ALIGN's
        steps: tuple[str, ...] = (
            () if patches or shifts else ("_preprocess", "resize", "center_crop", "rescale", "normalize")
        )
        # X-CLIP's goes through the frames of a video, FLAVA's can also make what its pre-training needs.
        if kind.__name__.startswith(("VideoMAEImageProcessor", "FlavaImageProcessor")):
            steps = steps[1:]
        if not issubclass(kind, PilBackend) or any(
            getattr(kind, step) is not getattr(PilBackend, step) for step in steps
        ):
            raise ValueError(
                f"the backbone's image processor {kind.__name__} has steps of its own, which are not supported; use a "
                "backbone whose images are resized, cropped, rescaled and normalised alone"
            )
        mean, std = _three_values(image_processor.image_mean, 0.0), _three_values(image_processor.image_std, 1.0)
        normalised = bool(image_processor.do_normalize)
        if shifts:
            mean, std = _efficientnet_mean_and_std(image_processor, mean, std)
            normalised = True
        return cls(
            do_resize=bool(image_processor.do_resize),
            size={name: getattr(image_processor, name) for name in PATCH_SIZE} if patches else image_processor.size,
            resample=image_processor.resample if image_processor.resample is not None else 2,
            do_center_crop=bool(image_processor.do_center_crop),
            crop_size=image_processor.crop_size,
            do_rescale=bool(image_processor.do_rescale),
            rescale_factor=image_processor.rescale_factor,
            do_normalize=normalised,
            image_mean=mean,
            image_std=std,
        )

    def with_settings(self, settings: dict[str, Any]) -> "DKDCLIPImageProcessor":
        """A copy with some settings changed.

        Raises:
            ValueError: A setting is unknown or has a value that it cannot have.
        """
        if unknown := sorted(settings.keys() - set(IMAGE_OPTIONS)):
            raise ValueError(f"unknown options {unknown}; known are {', '.join(IMAGE_OPTIONS)}")
        return type(self)(**{name: getattr(self, name) for name in IMAGE_OPTIONS} | settings)

    def preprocess(self, images: Any, return_tensors: str | None = "pt", **kwargs: Any) -> BatchFeature:
        """Pixel values (N, 3, H, W) float32 of one image or a list of images; `kwargs` are settings for this call."""
        if kwargs:
            return self.with_settings(kwargs).preprocess(images, return_tensors)
        many = isinstance(images, list | tuple) or getattr(images, "ndim", 3) == 4
        videos = [[image] for image in (images if many else [images])]
        pixel_values = self.preprocess_videos([frame_tensors(video) for video in videos])
        return BatchFeature({"pixel_values": pixel_values[:, 0]}, tensor_type=return_tensors)

    def preprocess_videos(self, videos: list[list[torch.Tensor]], num_crops: int = 1) -> torch.Tensor:
        """Model inputs of several videos.

        Args:
            videos: As for `crop_videos`.
            num_crops: 1 (centre), or 3 (both ends and the centre of the long side).

        Returns:
            Pixel values, (len(videos) * num_crops, T, 3, height, width) float32, the crops of a video side by side.
        """
        return self.normalise(self.crop_videos(videos, num_crops))

    def crop_videos(self, videos: list[list[torch.Tensor]], num_crops: int = 1) -> torch.Tensor:
        """Resized and cropped frames of several videos, a quarter of the bytes that the model's inputs take.

        Args:
            videos: For each video its frames in order as tensors (n, 3, H, W) uint8, 0-255, RGB, where sizes may
                differ from tensor to tensor; all videos have the same number T of frames.
            num_crops: 1 (centre), or 3 (both ends and the centre of the long side).

        Returns:
            Pixels, (len(videos) * num_crops, T, 3, height, width) uint8, the crops of a video side by side.
        """
        if num_crops == 3 and (not self.do_center_crop or "shortest_edge" not in self.size):
            raise ValueError("3 crops need a backbone that crops after keeping the aspect; this one has a single view")
        counts = sorted({sum(len(frames) for frames in video) for video in videos})
        if len(counts) != 1:
            raise ValueError(
                f"the videos have different numbers of frames, {counts}; give num_frames to sample the same"
            )
        pixels: torch.Tensor | None = None
        for row, video in enumerate(videos):
            start = 0
            for frames in video:
                views = self._resized_views(frames, num_crops)
                if pixels is None:
                    shape = (len(videos) * num_crops, counts[0], *views[0].shape[1:])
                    pixels = torch.empty(shape, dtype=torch.uint8, device=frames.device)
                for crop, view in enumerate(views):
                    if view.shape[1:] != pixels.shape[2:]:
                        raise ValueError(
                            "frames have different sizes after preprocessing; this backbone keeps their aspect, so "
                            "process videos of one aspect at a time"
                        )
                    pixels[row * num_crops + crop, start : start + len(view)].copy_(view)
                start += len(frames)
        if pixels is None:
            raise ValueError("a video without frames cannot be preprocessed")
        return pixels

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixel values (factor * x - mean) / std, float32, of pixels (..., 3, H, W) uint8, 0-255.

        Raises:
            TypeError: The pixels are of another dtype; they may have been normalised already.
        """
        if pixels.dtype != torch.uint8:
            raise TypeError(f"pixels are {pixels.dtype}, not torch.uint8; normalise frames once, as they were cropped")
        factor = self.rescale_factor if self.do_rescale else 1.0
        mean = torch.tensor(self.image_mean if self.do_normalize else [0.0] * 3, dtype=torch.float64)
        std = torch.tensor(self.image_std if self.do_normalize else [1.0] * 3, dtype=torch.float64)
        pixel_values = pixels.float()
        scale = (factor / std).to(pixel_values)[:, None, None]
        shift = (mean / std).to(pixel_values)[:, None, None]
        return pixel_values.mul_(scale).sub_(shift)

    def _resized_views(self, frames: torch.Tensor, num_crops: int) -> list[torch.Tensor]:
        """Crops of the resized frames, (n, 3, height, width) uint8 each.

        Of a very long and thin frame most would be enlarged to be thrown away, so only what a crop sees is made.
        """
        height, width = frames.shape[-2:]
        target = self._target_size(height, width) if self.do_resize else (height, width)
        if target == (height, width):
            return self._views(frames, num_crops)
        if self.do_center_crop:
            longest = LONGEST_IN_CROPS * max(self.crop_size.values())
            if max(target) > longest and max(target) > max(height, width):
                return self._enlarged_views(frames, target, num_crops)
        elif max(target) > LONGEST_WITHOUT_CROP:
            raise ValueError(
                f"frames of {width} x {height} pixels would become {target[1]} x {target[0]}, because this backbone "
                "keeps their aspect and does not crop; cut the frames first"
            )
        return self._views(self._resize(frames, target), num_crops)

    def _enlarged_views(self, frames: torch.Tensor, target: tuple[int, int], num_crops: int) -> list[torch.Tensor]:
        """The same of frames that become very long: along that side only the pixels of each crop are computed."""
        long_side = -1 if target[1] > target[0] else -2
        length, size = target[long_side], self.crop_size["width" if long_side == -1 else "height"]
        middle = (length - size) // 2
        views = []
        for start in (0, middle, length - size) if num_crops == 3 else (middle,):
            first, weights = _stretch_weights(
                frames.shape[long_side], length, start, size, INTERPOLATION_MODES[self.resample]
            )
            seen = frames.narrow(long_side, first, weights.shape[1])
            if long_side == -1:  # rounding after each direction, columns first, as everywhere
                view = self._resize(_weighted(seen, -1, weights), (target[0], size))
            else:
                view = _weighted(self._resize(seen, (seen.shape[-2], target[1])), -2, weights)
            views += self._views(view, 1)
        return views

    def _resize(self, frames: torch.Tensor, target: tuple[int, int]) -> torch.Tensor:
        """Resized frames, uint8; rounds after each direction, as PIL does."""
        mode = INTERPOLATION_MODES[self.resample]
        if frames.device.type == "cpu":
            return torch.nn.functional.interpolate(frames, target, mode=mode, antialias=True)
        pixels = frames.float()
        for size in ((frames.shape[-2], target[1]), target):
            pixels = torch.nn.functional.interpolate(pixels, size, mode=mode, antialias=True).round_().clamp_(0, 255)
        return pixels.to(torch.uint8)

    def _target_size(self, height: int, width: int) -> tuple[int, int]:
        if "height" in self.size:
            return self.size["height"], self.size["width"]
        if "max_num_patches" in self.size:
            return _whole_patches(height, width, self.size["patch_size"], self.size["max_num_patches"])
        if "max_height" in self.size:
            ratio = max(height / self.size["max_height"], width / self.size["max_width"])
            return round(height / ratio), round(width / ratio)
        edge = self.size["shortest_edge"]
        if "longest_edge" in self.size:
            return get_size_with_aspect_ratio((height, width), edge, self.size["longest_edge"])
        return (edge, int(edge * width / height)) if height <= width else (int(edge * height / width), edge)

    def _views(self, frames: torch.Tensor, num_crops: int) -> list[torch.Tensor]:
        if not self.do_center_crop:
            return [frames]
        height, width = frames.shape[-2:]
        crop_height, crop_width = self.crop_size["height"], self.crop_size["width"]
        # Odd margins: PIL processors round the crop's corner down and the padding of a small frame up; torchvision
        # rounds the corner to the nearest even number and the padding down.
        pad_height, pad_width = max(0, crop_height - height), max(0, crop_width - width)
        up = int(self.fill_color is None)
        pad_top, pad_left = (pad_height + up) // 2, (pad_width + up) // 2
        if pad_height or pad_width:
            margins = (pad_left, pad_width - pad_left, pad_top, pad_height - pad_top)
            frames = torch.nn.functional.pad(frames, margins, value=self.fill_color or 0)
        top, left = (height - crop_height) // 2 + pad_top, (width - crop_width) // 2 + pad_left
        if self.fill_color is not None:
            top, left = round((frames.shape[-2] - crop_height) / 2), round((frames.shape[-1] - crop_width) / 2)
        tops, lefts = [top] * num_crops, [left] * num_crops
        if num_crops == 3 and height > width:
            tops = [0, top, frames.shape[-2] - crop_height]
        elif num_crops == 3:
            lefts = [0, left, frames.shape[-1] - crop_width]
        return [frames[..., y : y + crop_height, x : x + crop_width] for y, x in zip(tops, lefts, strict=True)]


def _stretch_weights(old: int, length: int, start: int, size: int, mode: str) -> tuple[int, torch.Tensor]:
    """How pixels `start` to `start + size` come about when `old` pixels are resized to `length`, which are more.

    Each is a weighting of its two or four nearest old pixels, at the borders of those that there are.

    Returns:
        The first old pixel that takes part, and weights (size, number of old pixels from there), float64.
    """
    places = (torch.arange(start, start + size, dtype=torch.float64) + 0.5) * (old / length) - 0.5
    reach = {"bilinear": 1, "bicubic": 2}[mode]
    first = max(0, math.floor(float(places[0])) - reach + 1)
    last = min(old, math.floor(float(places[-1])) + reach + 1)
    weights = _interpolation_weights(torch.arange(first, last) - places[:, None], mode)
    return first, weights / weights.sum(1, keepdim=True)


def _weighted(frames: torch.Tensor, side: int, weights: torch.Tensor) -> torch.Tensor:
    """Weightings (new, old) of the pixels along one side, uint8; off by 1 at most where there is no float64."""
    dtype = widest_float(frames.device)
    mixed = frames.movedim(side, -1).to(dtype) @ weights.T.to(frames.device, dtype)
    return mixed.movedim(-1, side).round_().clamp_(0, 255).to(torch.uint8)


def _interpolation_weights(distances: torch.Tensor, mode: str) -> torch.Tensor:
    """Weight of a pixel at a distance, as PIL has it: linear, or Keys' cubic with a = -0.5."""
    x = distances.abs()
    if mode == "bilinear":
        return (1 - x).clamp_min(0)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _plain_size(size: Any, *edges: str) -> dict[str, int]:
    """A size as a dict of the entries that are set (transformers has its own class); one number is for all `edges`."""
    if isinstance(size, int):
        return dict.fromkeys(edges, size)
    return {name: int(value) for name, value in dict(size).items() if value is not None}


def _whole_patches(height: int, width: int, patch_size: int, max_num_patches: int) -> tuple[int, int]:
    """Largest size of about the same aspect in whole patches, bisected as SigLIP 2's own processor does."""

    def scaled(scale: float, length: int) -> int:
        return max(patch_size, math.ceil(length * scale / patch_size) * patch_size)

    lowest, highest = 1e-6, 100.0
    while highest - lowest >= 1e-5:
        middle = (lowest + highest) / 2
        fits = (scaled(middle, height) / patch_size) * (scaled(middle, width) / patch_size) <= max_num_patches
        lowest, highest = (middle, highest) if fits else (lowest, middle)
    return scaled(lowest, height), scaled(lowest, width)


def _efficientnet_mean_and_std(
    image_processor: Any, mean: list[float], std: list[float]
) -> tuple[list[float], list[float]]:
    """Mean and deviation that do in one step what EfficientNet does in up to three after rescaling.

    It subtracts 1 (`rescale_offset`), normalises (`do_normalize`) and divides by the deviation (`include_top`).
    """
    if not image_processor.do_normalize:
        mean = [0.0] * 3
    divisions = int(bool(image_processor.do_normalize)) + int(bool(image_processor.include_top))
    offset = 1.0 if image_processor.rescale_offset and image_processor.do_rescale else 0.0
    return [offset + value for value in mean], [value**divisions for value in std]


def _three_values(values: Any, default: float) -> list[float]:
    if values is None:
        return [default] * 3
    return [float(values)] * 3 if isinstance(values, int | float) else [float(value) for value in values]
