"""Decoding of files that strangers upload: in a process of its own, which is ended when it takes too long."""

import multiprocessing
import os
import threading
from dataclasses import dataclass
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import numpy as np
from torch.nn.functional import interpolate

from ..data.worker_processes import prepare_worker, worker_context
from ..image_processing_dkd import DKDCLIPImageProcessor
from ..video_frames import VideoReadError, read_frames


try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

THUMBNAIL_SIDE = 160
MAX_BYTES = 50_000_000
MAX_SECONDS = 30.0
# A small file may hold frames of any size or shape.
MAX_WORKER_MEMORY_BYTES = 4 << 30

ArrayOfUint8 = np.ndarray[Any, np.dtype[np.uint8]]
ArrayOfFloat32 = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class DecodedClip:
    """Frames of one file.

    Attributes:
        pixel_values: Frames as the encoder takes them, (T, 3, H, W) float32.
        thumbnails: The same frames to look at, RGB, (T, h, w, 3) uint8, the longer side at most 160 pixels.
        times: Time of each frame since the first one of the file, (T,) seconds; NaN where the file does not tell.
        damage: What is wrong with the file, in a few words; "" for a sound one.
    """

    pixel_values: ArrayOfFloat32
    thumbnails: ArrayOfUint8
    times: np.ndarray[Any, np.dtype[np.float64]]
    damage: str


class UploadDecoder:
    """Decodes one file at a time in a worker process; a file can neither stop nor crash the process that asks.

    Args:
        image_processor: Makes frames ready for the encoder.
        num_frames: Frames taken from each file, at segment centres.
        max_seconds: A file that takes longer is given up.
        max_bytes: Larger files are not opened.
    """

    def __init__(
        self,
        image_processor: DKDCLIPImageProcessor,
        num_frames: int,
        max_seconds: float = MAX_SECONDS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.image_processor = image_processor
        self.num_frames = num_frames
        self.max_seconds = max_seconds
        self.max_bytes = max_bytes
        self._pool: Pool | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """End the worker."""
        with self._lock:
            self._stop()

    def __call__(self, path: str | os.PathLike[str]) -> DecodedClip:
        """Frames of one file.

        Raises:
            VideoReadError: The file is too large, takes too long, or cannot be read; the message names the file
                without its folder.
        """
        # A plain text: to unpickle gradio's own kind the worker would import gradio first.
        path, name = str(Path(path)), Path(path).name
        with self._lock:
            try:
                size = os.stat(path).st_size
                if size > self.max_bytes:
                    megabytes = f"{size / 1e6:.0f} MB, and at most {self.max_bytes / 1e6:.0f} MB are taken"
                    raise VideoReadError(f"cannot read video {name!r}: it has {megabytes}; send a shorter part of it")
                work = self._started().apply_async(_decode, (path, self.num_frames))
                return work.get(self.max_seconds)
            except multiprocessing.TimeoutError as error:
                self._stop()
                reason = f"no result after {self.max_seconds:g} seconds; send a shorter part of it"
                raise VideoReadError(f"cannot read video {name!r}: {reason}") from error
            except OSError as error:
                raise VideoReadError(f"cannot read video {name!r}: {error.strerror}") from error
            except VideoReadError as error:
                raise VideoReadError(str(error).replace(repr(path), repr(name))) from error

    def _started(self) -> Pool:
        """The worker, which is there and ready."""
        if self._pool is None:
            context: Any = worker_context(1)
            self._pool = context.Pool(1, _start_worker, (self.image_processor,))
            self._pool.apply(_is_ready)
        return self._pool

    def _stop(self) -> None:
        if self._pool is not None:
            self._pool.terminate()
            self._pool.join()
            self._pool = None


def _start_worker(image_processor: DKDCLIPImageProcessor) -> None:
    """What the worker process does first."""
    global _image_processor
    _image_processor = image_processor
    prepare_worker()
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (MAX_WORKER_MEMORY_BYTES, MAX_WORKER_MEMORY_BYTES))


def _is_ready() -> bool:
    """Answers once the worker has started."""
    return True


def _decode(path: str, num_frames: int) -> DecodedClip:
    """Frames of a file, in the worker."""
    found = read_frames(path, num_frames)
    height, width = found.pixels.shape[-2:]
    try:
        pixel_values = _image_processor.preprocess_videos([[found.pixels]])[0]
    except (RuntimeError, MemoryError) as error:  # torch's way to say that there is no memory left
        reason = f"its frames of {width} x {height} pixels take too much memory"
        raise VideoReadError(f"cannot read video {path!r}: {reason}") from error
    scale = min(1.0, THUMBNAIL_SIDE / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    thumbnails = interpolate(found.pixels, size, mode="bilinear", antialias=True).permute(0, 2, 3, 1)
    return DecodedClip(pixel_values.numpy(), np.ascontiguousarray(thumbnails.numpy()), found.times, found.damage)


_image_processor: DKDCLIPImageProcessor
