"""A long video made of stretches of one colour, which `own_encoder.py` tells apart; tables read back."""

import csv
import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from .colour_clips import COLOURS


RATE = 10


def write_long_video(path: Path, stretches: Sequence[tuple[str, float]], codec: str = "mpeg4") -> Path:
    """Stretches of (colour, seconds), one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    colours = [colour for colour, seconds in stretches for _ in range(round(RATE * seconds))]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, RATE, options={"g": "10"})
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        stream.codec_context.time_base = Fraction(1, RATE)
        stream.codec_context.thread_count = 1
        for number, colour in enumerate(colours):
            pixels = random.normal(COLOURS[colour], 12, (24, 32, 3)).clip(0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV."""
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
