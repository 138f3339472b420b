"""Small video files of one colour each, which `own_encoder.py` tells apart."""

from pathlib import Path

import av
import numpy as np


COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}


def write_clip(path: Path, colour: str, number: int = 0, size: tuple[int, int] = (32, 24), frames: int = 5) -> Path:
    """One clip; `number` makes its colour a little different."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).normal(COLOURS[colour], 12, (frames, size[1], size[0], 3))
    # A plain file object: FFmpeg takes some characters of a name for more than that.
    with path.open("wb") as file, av.open(file, "w", "avi") as container:
        stream = container.add_stream("mpeg4", 10)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for frame in pixels.clip(0, 255).astype(np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
    return path


def write_clips(folder: Path, count: int = 9) -> list[Path]:
    """Clips of the three colours in turn, named `00_red.avi` and on."""
    names = list(COLOURS)
    return [write_clip(folder / f"{i:02d}_{names[i % 3]}.avi", names[i % 3], i) for i in range(count)]
