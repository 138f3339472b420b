"""Frames as they are given (a list, an array, PIL images, paths) as uint8 RGB tensors with channels first."""

import os
from typing import Any

import numpy as np
import torch

from .frame_sampling import Views, segment_indices
from .video_frames import VideoFrames, read_frames


try:
    from PIL import Image

    PIL_IMAGE: tuple[Any, ...] = (Image.Image,)
except ImportError:
    PIL_IMAGE = ()


def frame_tensors(video: Any, views: Views | None = None) -> list[torch.Tensor]:
    """Frames of one video as (n, 3, H, W) uint8 tensors, neighbours of one size joined; sampled where `views` asks."""
    if isinstance(video, VideoFrames):
        video = video.pixels
    count = len(video) if isinstance(video, list | tuple) or (is_array(video) and video.ndim == 4) else 0
    if not count:
        raise ValueError(
            f"a video must be frames in a list or an array (T, H, W, C) or (T, C, H, W), not {describe(video)}"
        )
    chosen = None if views is None else segment_indices(count, views.num_frames, views.num_clips).reshape(-1)
    if is_array(video):
        return [_rgb_tensor(video if chosen is None else video[chosen])]
    frames = [video[index] for index in range(count)] if chosen is None else [video[index] for index in chosen]
    return join_equal_sizes([_rgb_tensor(frame) for frame in frames])


def join_equal_sizes(frames: list[torch.Tensor]) -> list[torch.Tensor]:
    """Concatenates neighbouring tensors (n, 3, H, W) of the same size, so that they are resized together."""
    groups: list[list[torch.Tensor]] = []
    for frame in frames:
        if groups and groups[-1][0].shape[1:] == frame.shape[1:]:
            groups[-1].append(frame)
        else:
            groups.append([frame])
    return [torch.cat(group) for group in groups]


def _rgb_tensor(frames: Any) -> torch.Tensor:
    """One frame or an array of frames as (n, 3, H, W) uint8, 0-255, RGB."""
    if isinstance(frames, str | os.PathLike):
        return read_frames(frames, 1).pixels
    if isinstance(frames, PIL_IMAGE):
        return torch.from_numpy(np.array(frames.convert("RGB"))).permute(2, 0, 1)[None]
    if not is_array(frames) or frames.ndim not in (2, 3, 4):
        raise ValueError(
            f"a frame must be a PIL image, an array (H, W, C) or (C, H, W) or a path, not {describe(frames)}"
        )
    tensor = torch.from_numpy(np.ascontiguousarray(frames)) if isinstance(frames, np.ndarray) else frames.detach()
    if tensor.ndim == 2:
        tensor = tensor[None]
    if tensor.ndim == 3:
        tensor = tensor[None]
    last, first = tensor.shape[-1] in (1, 3, 4), tensor.shape[1] in (1, 3, 4)
    if not (last or first):
        raise ValueError(
            f"a frame must have 1, 3 or 4 channels, first or last, but its shape is {tuple(frames.shape)}"
        )
    if last and not (first and isinstance(frames, torch.Tensor)):  # both fit: torch keeps channels first, numpy last
        tensor = tensor.permute(0, 3, 1, 2)
    if 0 in tensor.shape:
        raise ValueError(f"a frame of shape {tuple(frames.shape)} has no pixels")
    tensor = _as_uint8(tensor[:, :3])
    return tensor.expand(-1, 3, -1, -1) if tensor.shape[1] == 1 else tensor


def _as_uint8(frames: torch.Tensor) -> torch.Tensor:
    if frames.dtype == torch.uint8:
        return frames
    low, high = frames.min().item(), frames.max().item()
    if frames.is_floating_point():
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"floating-point frames must lie between 0 and 1, but reach from {low:g} to {high:g}; pass uint8"
            )
        return (frames * 255).round_().to(torch.uint8)
    if low < 0 or high > 255:
        raise ValueError(f"integer frames must lie between 0 and 255, but reach from {low} to {high}")
    return frames.to(torch.uint8)


def describe(value: Any) -> str:
    """Type and size of a value, for an error message."""
    shape = f" of shape {tuple(value.shape)}" if is_array(value) else ""
    length = f" of length {len(value)}" if isinstance(value, list | tuple) else ""
    return f"{type(value).__name__}{shape}{length}"


def is_array(value: Any) -> bool:
    """Whether a value is a numpy array or a tensor."""
    return isinstance(value, np.ndarray | torch.Tensor)
