"""Seconds of reading 5 s out of a long film, at its beginning, in its middle and near its end, and of all of it.

python -m benchmarks.film_parts --json docs/film_parts.json      # films of 240 s: 2 minutes
python -m benchmarks.film_parts --seconds 20

The films are noise that moves, encoded as they come in data sets: H.264 in MP4 with a key frame at least every 250
frames, which is decoded from the last one on, and MPEG-4 in AVI, which is decoded from its start.
"""

import argparse
import json
import platform
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from modeling_dkd.video_frames import read_frames


FILMS = {"H.264 in MP4": ("film.mp4", "libx264", {"preset": "veryfast"}), "MPEG-4 in AVI": ("film.avi", "mpeg4", {})}
PLACES = (0.01, 0.5, 0.95)  # of the film, where a part begins
PART_SECONDS, NUM_FRAMES, RATE, WIDTH, HEIGHT, ROUNDS = 5.0, 8, 30, 320, 240, 3


def make_film(path: Path, codec: str, options: dict[str, str], seconds: int) -> None:
    """Noise that moves to the left, and changes a little."""
    draw = np.random.default_rng(0)
    noise = draw.integers(0, 255, (HEIGHT, 2 * WIDTH, 3), np.uint8)
    grain = draw.integers(0, 24, (16, HEIGHT, WIDTH, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.thread_count = WIDTH, HEIGHT, "yuv420p", 1
        for number in range(seconds * RATE):
            shift = number % WIDTH
            picture = noise[:, shift : shift + WIDTH] // 2 + grain[number % len(grain)]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def processor_seconds(path: Path, span: tuple[float, float] | None) -> float:
    """Of reading some frames, the least of a few rounds."""
    taken = []
    for _ in range(ROUNDS):
        start = time.process_time()
        read_frames(path, NUM_FRAMES, span=span)
        taken.append(time.process_time() - start)
    return min(taken)


def measure(seconds: int) -> list[dict[str, Any]]:
    """A row a film."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for film, (name, codec, options) in FILMS.items():
            path = Path(folder) / name
            make_film(path, codec, options, seconds)
            starts = [place * seconds for place in PLACES]
            parts = [processor_seconds(path, (start, start + PART_SECONDS)) for start in starts]
            rows.append({"film": film, "parts": parts, "whole": processor_seconds(path, None)})
    return rows


def main(argv: list[str] | None = None) -> None:
    """Measure and print, or write, the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=240, metavar="N", help="length of the films (default: 240)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the rows are written")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    contents = {
        "python": platform.python_version(),
        "av": av.__version__,
        "seconds": options.seconds,
        "begin": PLACES,
        "part_seconds": PART_SECONDS,
        "frames": NUM_FRAMES,
        "rows": measure(options.seconds),
    }
    text = json.dumps(contents, indent=2) + "\n"
    print(text) if options.json is None else options.json.write_text(text)


if __name__ == "__main__":
    main()
