"""Decoding of files that strangers upload: in a process of its own, which is ended when it takes too long."""

import os
import signal
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from torch.nn.functional import interpolate

from ..embedding.worker_processes import prepare_worker, worker_context
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
        self._process: Any = None
        self._connection: Connection | None = None
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
        try:
            size = os.stat(path).st_size
        except OSError as error:
            raise VideoReadError(f"cannot read video {name!r}: {error.strerror}") from error
        if size > self.max_bytes:
            megabytes = f"{size / 1e6:.0f} MB, and at most {self.max_bytes / 1e6:.0f} MB are taken"
            raise VideoReadError(f"cannot read video {name!r}: it has {megabytes}; send a shorter part of it")
        with self._lock:
            answer = self._answer(path)
        if isinstance(answer, DecodedClip):
            return answer
        raise VideoReadError(answer.replace(repr(path), repr(name)))

    def _answer(self, path: str) -> DecodedClip | str:
        """What the worker makes of a file, or why it makes nothing of it."""
        try:
            connection = self._started()
            connection.send((path, self.num_frames))
            if connection.poll(self.max_seconds):
                return connection.recv()
            reason = f"no result after {self.max_seconds:g} seconds; send a shorter part of it"
        except (EOFError, OSError):
            reason = "the process that decoded it has ended"
        self._stop()
        return f"cannot read video {path!r}: {reason}"

    def _started(self) -> Connection:
        """Connection to the worker, which is there and ready."""
        if self._connection is None or not self._process.is_alive():
            self._stop()
            context: Any = worker_context(1)
            self._connection, other_end = context.Pipe()
            self._process = context.Process(target=_work, args=(other_end, self.image_processor), daemon=True)
            self._process.start()
            other_end.close()
            self._connection.recv()
        return self._connection

    def _stop(self) -> None:
        if self._connection is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._connection = None


def _work(connection: Connection, image_processor: DKDCLIPImageProcessor) -> None:
    """What the worker does: says that it is ready, then answers paths with clips or with reasons why not."""
    prepare_worker()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ended by its parent, not by the Ctrl-C that ends that
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (MAX_WORKER_MEMORY_BYTES, MAX_WORKER_MEMORY_BYTES))
    connection.send("ready")
    while True:
        path, num_frames = connection.recv()
        try:
            connection.send(_decode(path, num_frames, image_processor))
        except VideoReadError as error:
            connection.send(str(error))


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
