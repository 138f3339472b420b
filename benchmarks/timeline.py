"""Who does what when in a made-up video of 30 minutes, smoothed and not, with a domain and without; no label is used.

Clips of the demo's combined domain lie one after the other, an action lasting about six clips of 2 s, and the embedded
checkpoint looks at them. Figures are means of three videos.
"""

from collections.abc import Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import NamedTuple

import av
import numpy as np
from tqdm import tqdm

from modeling_dkd.evaluation.metrics import calibration_error
from modeling_dkd.recognition.encoder import load_encoder
from modeling_dkd.recognition.segments import Segment, segment_f1
from modeling_dkd.recognition.timelines import Timeline, timeline
from modeling_dkd.synthetic.clips import (
    ACTIONS,
    DOMAINS,
    FRAME_RATE,
    NUM_FRAMES,
    SIDE,
    ClipDescription,
    class_frequencies,
    describe_clips,
    render_clip,
)

from .rows import Row, digits


SEEDS = (0, 1, 2)
NUM_CLIPS = 900
CLIPS_AN_ACTION = 6.0
CLIP_SECONDS = NUM_FRAMES / FRAME_RATE
DOMAIN = "combined"
# Seconds of a window and from one to the next: a clip each, and the default.
WINDOWS = ((2.0, 2.0), (4.0, 2.0))


class Scores(NamedTuple):
    """Of one video, percent, and how many segments were found; calibration is the error of the confidences."""

    right: float
    f1: float
    calibration: float
    segments: int


def measure() -> list[Row]:
    with TemporaryDirectory() as folder:
        videos = [(write_video(Path(folder) / f"seed_{seed}.mp4", seed)) for seed in tqdm(SEEDS, desc="videos")]
        return [row for window, stride in WINDOWS for row in rows_of(videos, window, stride, Path(folder) / "cache")]


def long_video(seed: int) -> list[ClipDescription]:
    """What its clips show, in order."""
    random, domain = np.random.default_rng(seed), DOMAINS[DOMAIN]
    pool: dict[str, list[ClipDescription]] = {action: [] for action in ACTIONS}
    for clip in reversed(describe_clips(domain, 6 * NUM_CLIPS, 100 + seed)):
        pool[clip.action].append(clip)
    clips: list[ClipDescription] = []
    while len(clips) < NUM_CLIPS:
        shares = class_frequencies(domain) * [
            bool(pool[action]) and (not clips or clips[-1].action != action) for action in ACTIONS
        ]
        action = ACTIONS[random.choice(len(ACTIONS), p=shares / shares.sum())]
        lasting = min(int(random.geometric(1 / CLIPS_AN_ACTION)), NUM_CLIPS - len(clips), len(pool[action]))
        clips += [pool[action].pop() for _ in range(lasting)]
    return clips


def write_video(path: Path, seed: int) -> tuple[Path, list[Segment]]:
    """The file, and its true segments."""
    clips = long_video(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FRAME_RATE)
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = SIDE, SIDE, "yuv420p", 600_000
        stream.codec_context.thread_count = 1
        for frames in map(partial(render_clip, DOMAINS[DOMAIN]), clips):
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path, list(true_segments(clips))


def true_segments(clips: list[ClipDescription]) -> Iterator[Segment]:
    start = 0.0
    for action, run in groupby(clip.action for clip in clips):
        end = start + CLIP_SECONDS * len(list(run))
        yield Segment(start, end, action, 1.0)
        start = end


def scores(found: Timeline, true: list[Segment]) -> Scores:
    """A window is right where its label is the true one at its centre."""
    ends = np.array([segment.end for segment in true])
    centres = (found.starts + found.ends) / 2
    labels = [true[i].label for i in np.minimum(np.searchsorted(ends, centres, side="right"), len(true) - 1)]
    right = np.array([a == b for a, b in zip(found.window_labels, labels, strict=True)])
    starts = np.array([segment.start for segment in found.segments])
    sure = np.array([found.segments[i].confidence for i in np.searchsorted(starts, centres, side="right") - 1])
    gap = calibration_error(sure, right)
    return Scores(100 * float(right.mean()), 100 * segment_f1(found.segments, true), 100 * gap, len(found.segments))


def rows_of(videos: list[tuple[Path, list[Segment]]], window: float, stride: float, cache: Path) -> list[Row]:
    """Windows right and F1 of segments: smoothed and not, with a domain and without."""
    encoder = load_encoder()
    look = partial(timeline, classes=list(ACTIONS), model=encoder, window=window, stride=stride, reject_below=0.0)
    found = {
        (adapt, smooth): [
            scores(
                look([path], adapt=adapt, switch_penalty=None if smooth else 0.0, cache_dir=cache).timelines[0], true
            )
            for path, true in videos
        ]
        for adapt in (True, False)
        for smooth in (True, False)
    }
    num_true = fmean(len(true) for _, true in videos)
    rows = []
    for measure_name, what, sign in (
        ("right", "windows right", 1),
        ("f1", "F1 of segments, overlap 0.5", 1),
        ("calibration", "calibration error of windows, the lower the better", -1),
    ):
        for adapt, smooth, other in (
            (True, False, "DKD, each window for itself"),
            (False, True, "zero-shot, smoothed"),
            (False, False, "zero-shot, each window for itself"),
        ):
            ours = [getattr(one, measure_name) for one in found[True, True]]
            others = [getattr(one, measure_name) for one in found[adapt, smooth]]
            counts = [fmean(one.segments for one in found[key]) for key in ((True, True), (adapt, smooth))]
            note = (
                f"smallest gain {min(sign * (a - b) for a, b in zip(ours, others, strict=True)):+.1f}; segments "
                f"{counts[0]:.0f} / {counts[1]:.0f}, true ones {num_true:.0f}; 900 clips, 18 classes"
            )
            what_is = f"{what}, {window:g} s every {stride:g} s, DKD smoothed"
            rows.append(Row(what_is, digits(fmean(ours)), other, digits(fmean(others)), "%", None, len(videos), note))
    return rows
