"""Decoding of files that strangers upload."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch.nn.functional import interpolate

from ..image_processing_dkd import DKDCLIPImageProcessor
from ..video_frames import VideoReadError, read_frames
from .visitor_process import GivenUp, VisitorProcess


THUMBNAIL_SIDE = 160
MAX_BYTES = 50_000_000
MAX_SECONDS = 30.0

ArrayOfUint8 = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True)
class DecodedClip:
    """Frames of one file.

    Attributes:
        frames: Resized and cropped frames, RGB, (T, 3, H, W) uint8, as `ClipEncoder.embed` takes them.
        thumbnails: The same frames to look at, RGB, (T, h, w, 3) uint8, the longer side at most 160 pixels.
        times: Time of each frame since the first one of the file, (T,) seconds; NaN where the file does not tell.
        damage: What is wrong with the file, in a few words; "" for a sound one.
    """

    frames: ArrayOfUint8
    thumbnails: ArrayOfUint8
    times: np.ndarray[Any, np.dtype[np.float64]]
    damage: str


class UploadDecoder:
    """Decodes one file at a time, in a process of its own.

    Args:
        image_processor: Makes frames ready for the encoder.
        num_frames: Frames taken from each file, at segment centres.
        process: Where files are decoded.
        max_seconds: A file that takes longer is given up.
        max_bytes: Larger files are not opened.
    """

    def __init__(
        self,
        image_processor: DKDCLIPImageProcessor,
        num_frames: int,
        process: VisitorProcess,
        max_seconds: float = MAX_SECONDS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.image_processor = image_processor
        self.num_frames = num_frames
        self.process = process
        self.max_seconds = max_seconds
        self.max_bytes = max_bytes

    def __call__(self, path: str | os.PathLike[str]) -> DecodedClip:
        """Frames of one file.

        Raises:
            VideoReadError: The file is too large, takes too long, or cannot be read; the message names the file
                without its folder.
        """
        # A plain text: to unpickle gradio's own kind the worker would import gradio first.
        path, name = str(Path(path)), Path(path).name
        try:
            size = os.stat(path).st_size
        except OSError as error:
            raise VideoReadError(f"cannot read video {name!r}: {error.strerror}") from error
        if size > self.max_bytes:
            megabytes = f"{size / 1e6:.0f} MB, and at most {self.max_bytes / 1e6:.0f} MB are taken"
            raise VideoReadError(f"cannot read video {name!r}: it has {megabytes}; send a shorter part of it")
        try:
            return self.process(_decode, path, self.num_frames, self.image_processor, max_seconds=self.max_seconds)
        except GivenUp as error:
            raise VideoReadError(f"cannot read video {name!r}: {error}; send a shorter part of it") from error
        except ValueError as error:
            raise VideoReadError(str(error).replace(repr(path), repr(name))) from error


def _decode(path: str, num_frames: int, image_processor: DKDCLIPImageProcessor) -> DecodedClip:
    """Frames of a file, in the worker."""
    found = read_frames(path, num_frames)
    height, width = found.pixels.shape[-2:]
    try:
        frames = image_processor.crop_videos([[found.pixels]])[0]
    except (RuntimeError, MemoryError) as error:  # torch's way to say that there is no memory left
        reason = f"its frames of {width} x {height} pixels take too much memory"
        raise VideoReadError(f"cannot read video {path!r}: {reason}") from error
    scale = min(1.0, THUMBNAIL_SIDE / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    thumbnails = interpolate(found.pixels, size, mode="bilinear", antialias=True).permute(0, 2, 3, 1)
    return DecodedClip(frames.numpy(), np.ascontiguousarray(thumbnails.numpy()), found.times, found.damage)
