"""How time and memory grow with the size of the input: curves, the exponent of each, and what it should be.

python benchmarks/growth.py                # all curves, minutes on two quiet cores: docs/growth.json, .md and .png
python benchmarks/growth.py --curves fit_samples fit_classes --output /tmp    # some of them
python benchmarks/growth.py --list         # what there is
python benchmarks/growth.py --redraw       # .md and .png anew from the .json

A curve is measured twice, each time in a fresh process with one thread: for seconds (medians of repeats, the sizes
taking turns, so that other work on the machine slows all alike), and for the memory that the process grows by at its
peak, where the allocator gives freed blocks back at once. The exponent is the slope of log cost over log size in the
upper half of the sizes: 1 grows like the input, 0 not at all; constant costs pull it down, so it is compared with the
most that is in order. Memory below 2 MiB is beyond what the system counts exactly and gets no exponent. Embeddings
and weights are random: they do not change what is computed.
"""

import argparse
import copy
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from growth_report import LEAST_MEMORY, MEMORY, SECONDS, compared, too_fast, write_report
from rows import clustered
from tqdm import tqdm

from modeling_dkd import DKDCLIPConfig, DKDCLIPImageProcessor, DKDHead
from modeling_dkd.dkd_head import DKDHeadOutput
from modeling_dkd.evaluation.measurement import growth_of_memory
from modeling_dkd.mixture_options import MixtureOptions
from modeling_dkd.synthetic.clips import write_clip
from modeling_dkd.video_frames import read_frames


DOCS = Path(__file__).resolve().parents[1] / "docs"
# Repeats of each size: at least, at most, and until so many seconds are spent on it.
LEAST_REPEATS, MOST_REPEATS, SECONDS_ENOUGH = 3, 25, 0.5
# The system keeps no freed block that is larger, bytes: what is counted is what is held.
RETURNED_BLOCKS = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}

Work = Callable[[], object]


@dataclass(frozen=True)
class Curve:
    """One quantity that grows.

    Attributes:
        work: What is measured, and the others' sizes.
        varied: What grows, as axis label.
        sizes: Ascending.
        prepare: Size -> what is to be done; may itself take long and is not measured.
        time_limit: Largest exponent of time that is in order.
        memory_limit: The same of memory.
        reason: Why so.
    """

    work: str
    varied: str
    sizes: tuple[int, ...]
    prepare: Callable[[int], Work]
    time_limit: float
    memory_limit: float
    reason: str


def fitting(num_samples: int, num_classes: int, dim: int) -> Work:
    """A fit of so many videos to so many class texts."""
    videos, texts = clustered(num_samples, num_classes, dim)
    return lambda: DKDHead(DKDCLIPConfig(projection_dim=dim)).fit(videos, texts)


def forward(
    videos: int = 8, frames: int = 8, classes: int = 101, prompts: int = 1, steps: int = 1, others: bool = False
) -> Work:
    """A forward of the fitted head, D = 512; `others` asks the fitted classes in another order."""
    options = MixtureOptions(num_rounds=2)  # what a forward costs does not depend on how well the domain was fitted
    domain, texts = clustered(500, classes, 512)
    head = DKDHead(DKDCLIPConfig(projection_dim=512, num_svgd_steps=steps), options).fit(domain, texts)
    generator = torch.Generator().manual_seed(1)
    asked = texts.flip(0) if others else texts
    if prompts > 1:
        asked = asked[:, None] + 0.02 * torch.randn(classes, prompts, 512, generator=generator)
    clips = torch.randn(videos, frames, 512, generator=generator)

    @torch.inference_mode()
    def run() -> DKDHeadOutput:
        return head(clips, asked)

    return run


def updating(length: int, refit: bool) -> Work:
    """One more batch of 64 in a stream that has so many videos, with or without another look at the recent ones."""
    batch, dim = 64, 128
    num_fitted = 8 * length // 9  # at which an eighth more is `length`
    videos, texts = clustered(length + batch, 101, dim)
    head = DKDHead(DKDCLIPConfig(projection_dim=dim)).fit(videos[: min(num_fitted, 256)], texts)
    head.update(videos[min(num_fitted, 256) : num_fitted] if refit else videos[min(num_fitted, 256) : length])
    if refit:
        head.update(videos[num_fitted : length - batch // 2])
    last = videos[length:].clone()
    return lambda: copy.deepcopy(head).update(last)


def reading(num_frames: int, clip_length: int) -> Work:
    """Decode and crop so many frames of a clip of 320 x 240 pixels."""
    generator = torch.Generator().manual_seed(0)
    scene = torch.randint(256, (30, 40 + clip_length, 3), generator=generator, dtype=torch.uint8)
    scene = scene.repeat_interleave(8, 0).repeat_interleave(8, 1)
    path = Path(tempfile.gettempdir()) / f"growth-{os.getpid()}-{clip_length}.mp4"
    if not path.exists():
        write_clip(path, torch.stack([scene[:, 8 * at : 8 * at + 320] for at in range(clip_length)]).numpy())
    processor = DKDCLIPImageProcessor()
    return lambda: processor.crop_videos([[read_frames(path, num_frames).pixels]])


CURVES = {
    "fit_samples": Curve(
        "DKDHead.fit, K = 101, D = 128",
        "videos N",
        (1000, 3000, 10_000, 30_000, 60_000, 100_000, 200_000),
        lambda size: fitting(size, 101, 128),
        1,
        1,
        "each round passes over the videos once, in chunks of 4,096; what is held beside the data does not grow "
        "with N (here the unit copy of the data is counted)",
    ),
    "fit_classes": Curve(
        "DKDHead.fit, N = 4,000, D = 128",
        "classes K",
        (10, 30, 100, 300, 600, 1000, 2000),
        lambda size: fitting(4000, size, 128),
        1,
        1,
        "products N x K x D; no K x K",
    ),
    "fit_dimensions": Curve(
        "DKDHead.fit, N = 4,000, K = 101",
        "dimensions D",
        (64, 128, 256, 384, 512, 768, 1024),
        lambda size: fitting(4000, 101, size),
        3,
        2,
        "by design: one covariance D x D, whose sum takes N D^2 and whose factorisation D^3",
    ),
    "forward_videos": Curve(
        "DKDHead forward, 8 frames, K = 101, D = 512",
        "videos N",
        (16, 64, 256, 512, 1024, 2048),
        lambda size: forward(videos=size),
        1,
        1,
        "each video by itself",
    ),
    "forward_classes": Curve(
        "DKDHead forward of the fitted classes, 8 videos x 8 frames, D = 512",
        "classes K",
        (30, 100, 300, 600, 1000, 2000),
        lambda size: forward(classes=size),
        1,
        1,
        "each text by itself: K D^2",
    ),
    "forward_other_classes": Curve(
        "DKDHead forward of the same classes in another order",
        "classes K",
        (30, 100, 300, 600, 1000, 2000),
        lambda size: forward(classes=size, others=True),
        2,
        2,
        "by design: a text is looked for among the fitted ones, K x K cosines",
    ),
    "forward_frames": Curve(
        "DKDHead forward, 8 videos, K = 101, D = 512",
        "frames a clip T",
        (2, 4, 8, 16, 32, 64, 128),
        lambda size: forward(frames=size),
        2,
        2,
        "by design: SVGD's kernel between the frames of a clip, T x T, within a clip only",
    ),
    "forward_prompts": Curve(
        "DKDHead forward, 8 videos x 8 frames, K = 101, D = 512",
        "prompts a class P",
        (2, 4, 8, 16, 32, 64, 128),
        lambda size: forward(prompts=size),
        2,
        2,
        "by design: SVGD's kernel between the prompts of a class, P x P, within a class only",
    ),
    "forward_steps": Curve(
        "DKDHead forward, 64 videos x 8 frames, K = 101, D = 512",
        "SVGD steps",
        (1, 2, 4, 8, 16, 32, 64),
        lambda size: forward(videos=64, steps=size),
        1,
        0,
        "one step after the other, nothing of a step is kept",
    ),
    "update": Curve(
        "DKDHead.update with 64 videos, K = 101, D = 128",
        "videos of the stream so far",
        (1024, 2048, 8192, 16_384, 32_768, 65_536),
        lambda size: updating(size, refit=False),
        0,
        0,
        "statistics, and the last 4,096 videos",
    ),
    "update_refit": Curve(
        "The same, where the stream has grown by an eighth and the last 4,096 videos are looked at again",
        "videos of the stream so far",
        (1024, 2048, 8192, 16_384, 32_768, 65_536),
        lambda size: updating(size, refit=True),
        0,
        0,
        "a fit to at most 4,096 videos, ever more rarely",
    ),
    "read_frames": Curve(
        "Decoding and cropping of a clip of 256 frames, 320 x 240",
        "frames asked",
        (2, 4, 8, 16, 32, 64, 128),
        lambda size: reading(size, 256),
        1,
        1,
        "every frame up to the last is decoded once, those asked are converted and cropped",
    ),
    "read_length": Curve(
        "Decoding and cropping of 8 frames, 320 x 240",
        "frames of the clip",
        (32, 64, 128, 256, 512, 1024),
        lambda size: reading(8, size),
        1,
        1,
        "decoded in sequence; of the clip only the compressed packets and the frames asked are held",
    ),
}


def exponent(sizes: Sequence[float], costs: Sequence[float], least: float = 0.0) -> float | None:
    """Slope of log cost over log size, least squares, in the upper half of the sizes (at least three of them).

    Args:
        sizes: Ascending, > 0.
        costs: One a size.
        least: Costs that are not above it are not known well enough.

    Returns:
        The slope; None where one of these costs is not above `least`.
    """
    upper = max(3, (len(sizes) + 1) // 2)
    if min(costs[-upper:]) <= least:
        return None
    x, y = (torch.tensor(values[-upper:], dtype=torch.float64).log() for values in (sizes, costs))
    x = x - x.mean()
    return float((x @ y) / (x @ x))


def time_curve(curve: Curve, sizes: Sequence[int]) -> list[list[float]]:
    """Seconds of the repeats of each size, the sizes taking turns; the smallest goes once before, uncounted."""
    works = [curve.prepare(size) for size in sizes]
    seconds: list[list[float]] = [[] for _ in works]
    works[0]()
    for repeat in range(MOST_REPEATS):
        for work, own in zip(works, seconds, strict=True):
            if repeat < LEAST_REPEATS or sum(own) < SECONDS_ENOUGH:
                start = time.perf_counter()
                work()
                own.append(time.perf_counter() - start)
    return seconds


def memory_curve(curve: Curve, sizes: Sequence[int]) -> list[list[float]]:
    """MiB by which the process grew at its peak for each size; the smallest goes once before, uncounted."""
    curve.prepare(sizes[0])()
    growths: list[list[float]] = []
    for size in sizes:
        growth = growth_of_memory(curve.prepare(size))[1]
        growths.append([] if growth is None else [growth])
    return growths


def in_child(name: str, what: str, sizes: Sequence[int]) -> list[list[float]]:
    """The measurements of a curve, made by a fresh process."""
    command = [sys.executable, __file__, "--child", what, "--curves", name, "--sizes", *map(str, sizes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(RETURNED_BLOCKS if what == MEMORY else {})}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env={**environment, "TMPDIR": folder}
        )
    return json.loads(done.stdout)


def measure(name: str, most: int | None = None) -> dict[str, Any]:
    """All that is told of a curve; sizes above `most` are left out."""
    curve = CURVES[name]
    sizes = [size for size in curve.sizes if most is None or size <= most]
    if len(sizes) < 3:
        raise ValueError(f"{name} has sizes {', '.join(map(str, curve.sizes))}; --most {most} leaves fewer than three")
    seconds = in_child(name, SECONDS, sizes)
    growths = in_child(name, MEMORY, sizes)
    medians = [statistics.median(own) for own in seconds]
    spreads = [max(own) - min(own) for own in seconds]
    # Where the system does not tell the growth there is none to report.
    mib = [statistics.median(own) for own in growths] if all(growths) else None
    return {
        "work": curve.work,
        "varied": curve.varied,
        "sizes": sizes,
        "seconds": [round(value, 6) for value in medians],
        "seconds_spread": [round(value, 6) for value in spreads],
        "mib": None if mib is None else [round(value, 2) for value in mib],
        "repeats": [len(own) for own in seconds],
        "time_exponent": _rounded(exponent(sizes, medians)),
        "memory_exponent": None if mib is None else _rounded(exponent(sizes, mib, LEAST_MEMORY)),
        "time_limit": curve.time_limit,
        "memory_limit": curve.memory_limit,
        "reason": curve.reason,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def measured(names: Sequence[str], most: int | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The curves one after the other, each told on standard output."""
    for name in tqdm(names, unit="curve"):
        row = measure(name, most)
        tqdm.write(
            f"{name:22s} {row['sizes'][0]:>6,} to {row['sizes'][-1]:>7,}   time {compared(row, 'time'):>9s}   "
            f"memory {compared(row, 'memory'):>9s}   {' and '.join(too_fast(row)) or 'in order'}"
        )
        yield name, row


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", nargs="+", choices=CURVES, metavar="NAME", help="which (default: all, see --list)")
    parser.add_argument("--list", action="store_true", help="name the curves and leave")
    parser.add_argument("--most", type=int, metavar="SIZE", help="leave out larger sizes, for a quick look")
    parser.add_argument("--output", type=Path, default=DOCS, metavar="DIR", help="for growth.* (default: docs)")
    parser.add_argument("--redraw", action="store_true", help="measure nothing: page and figure of DIR/growth.json")
    parser.add_argument("--child", choices=(SECONDS, MEMORY), help=argparse.SUPPRESS)
    parser.add_argument("--sizes", type=int, nargs="+", help=argparse.SUPPRESS)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write; 1 where something grows faster than it may."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    names = options.curves or list(CURVES)
    if options.child:
        look = time_curve if options.child == SECONDS else memory_curve
        print(json.dumps(look(CURVES[names[0]], options.sizes)))
        return 0
    if options.list:
        for name in names:
            curve = CURVES[name]
            print(f"{name:22s} {curve.varied}, {curve.sizes[0]:,} to {curve.sizes[-1]:,}: {curve.work}")
        return 0
    path = options.output / "growth.json"
    if options.redraw:
        if not path.is_file():
            parser.error(f"there is no {path} to redraw; measure first, without --redraw")
        write_report(json.loads(path.read_text(encoding="utf-8")), options.output)
        return 0
    environment = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
    }
    try:
        curves = dict(measured(names, options.most))
    except ValueError as error:
        parser.error(str(error))
    write_report({"environment": environment, "curves": curves}, options.output)
    print(f"written to {options.output}: growth.json, growth.md, growth.png")
    return int(any(map(too_fast, curves.values())))


if __name__ == "__main__":
    sys.exit(main())
