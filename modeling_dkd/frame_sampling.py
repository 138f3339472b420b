"""Which frames of a video to take."""

import re
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


ArrayOfInt = np.ndarray[Any, np.dtype[np.int64]]
ArrayOfFloat = np.ndarray[Any, np.dtype[np.float64]]
FRAME_SECONDS = 0.04  # how long a frame is shown of which nothing tells it, such as the only one of a video


@dataclass(frozen=True)
class Views:
    """How many frames, spatial crops and temporal clips a video is looked at with, written "16x3x5"."""

    num_frames: int
    num_crops: int = 1
    num_clips: int = 1

    @classmethod
    def parse(cls, text: str) -> "Views":
        """Reads "FRAMESxCROPSxCLIPS"; crops are 1 (centre) or 3 (both ends and centre of the long side).

        Raises:
            ValueError: `text` is not three positive whole numbers, or crops are neither 1 nor 3.
        """
        match = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})x([1-9]\d{0,5})", str(text))
        if match is None or int(match[2]) not in (1, 3):
            raise ValueError(
                f"views {text!r} must read FRAMESxCROPSxCLIPS with 1 or 3 crops, for example 8x1x1 or 16x3x5"
            )
        return cls(int(match[1]), int(match[2]), int(match[3]))


def is_count(value: Any) -> bool:
    """Whether this is a whole number of at least 1."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 1)


def segment_positions(num_frames: int, num_clips: int = 1, generator: torch.Generator | None = None) -> ArrayOfFloat:
    """Where in a video the frames of each clip lie, in units of its length / (num_clips * num_frames).

    The video is cut into `num_frames` equal segments and each segment into `num_clips` parts; clip c takes the centre
    of the c-th part of every segment, so that each clip spans the whole video.

    Args:
        num_frames: Frames a clip, at least 1.
        num_clips: Clips, at least 1.
        generator: Draws the place inside each part uniformly (training) instead of its centre (tests).

    Returns:
        Positions in units of a part, (num_clips, num_frames), from 0 up to but not including num_clips * num_frames.
    """
    if not (is_count(num_frames) and is_count(num_clips)):
        raise ValueError(
            f"frames and clips must be whole numbers of at least 1, but {num_frames!r} frames and {num_clips!r} clips "
            "were asked"
        )
    parts = np.arange(num_frames * num_clips, dtype=np.float64).reshape(num_frames, num_clips).T
    if generator is None:
        return parts + 0.5
    return parts + torch.rand(parts.shape, generator=generator, dtype=torch.float64).numpy()


def segment_indices(
    total_frames: int, num_frames: int, num_clips: int = 1, generator: torch.Generator | None = None
) -> ArrayOfInt:
    """Indices of the frames to take from a video of `total_frames`, (num_clips, num_frames) int64, ascending.

    Index = floor(position * total_frames / (num_frames * num_clips)), see `segment_positions`: with one clip and no
    generator the frames at (i + 0.5) N / T. A video with fewer frames than asked repeats them.
    """
    if total_frames < 1:
        raise ValueError("a video without frames cannot be sampled")
    return indices_at(segment_positions(num_frames, num_clips, generator), total_frames)


def indices_at(positions: ArrayOfFloat, total_frames: int) -> ArrayOfInt:
    """Indices at positions of `segment_positions` in a video of `total_frames`, int64, shape of `positions`."""
    indices = np.floor(positions * total_frames / positions.size).astype(np.int64)
    return np.minimum(indices, total_frames - 1)


def window_indices(
    times: ArrayOfFloat,
    duration: float,
    num_frames: int,
    window_seconds: float,
    stride: float,
) -> deque[tuple[float, float, ArrayOfInt]]:
    """Start, end and frame indices of each window, in order of start; windows without any frame are left out.

    The frames are those that are to be seen at the centres of `num_frames` equal parts of the window.
    """
    latest = max(0.0, duration - window_seconds)
    count = int(np.ceil(latest / stride - 1e-9)) + 1
    windows: deque[tuple[float, float, ArrayOfInt]] = deque()
    for start in np.minimum(np.arange(count) * stride, latest):
        end = min(float(start) + window_seconds, duration)
        low, high = np.searchsorted(times, [start - 1e-9, end - 1e-9])
        if high > low:
            centres = start + segment_positions(num_frames)[0] * ((end - start) / num_frames)
            shown = np.searchsorted(times, centres + 1e-9, side="right") - 1
            windows.append((float(start), end, np.maximum(shown, low)))
    return windows
