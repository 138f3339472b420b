"""Example clips of the Space, made by the project itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from ..synthetic.clips import ACTIONS, DEFAULT_TARGET, FRAME_RATE, NUM_FRAMES, generate_clips
from ..video_frames import read_frames


NUM_SHOWN = 6
NUM_DOMAIN = 60
NUM_JOINED, TIMES_EACH = 24, 4


@dataclass(frozen=True)
class ExampleClips:
    """Clips to pick.

    Attributes:
        shown: Files to classify, and what each shows.
        domain: Unlabelled files of the same domain.
        labels: What can be seen in them.
        template: Prompt that fits the labels.
        long_video: A video in which some of them follow each other.
    """

    shown: list[tuple[Path, str]]
    domain: list[Path]
    labels: list[str]
    template: str
    long_video: Path


def make_examples(folder: Path) -> ExampleClips:
    """Write the clips of the default target domain into a folder; takes about a second."""
    clips = list(generate_clips(folder, DEFAULT_TARGET, NUM_DOMAIN + 40, seed=11))
    domain, rest = clips[:NUM_DOMAIN], clips[NUM_DOMAIN:]
    of_action = {description.action: path for path, description in reversed(rest)}
    shown = [(of_action[action], action) for action in ACTIONS if action in of_action][:NUM_SHOWN]
    long_video = join_clips([path for path, _ in rest[:NUM_JOINED]], folder / "long video.mp4")
    return ExampleClips(shown, [path for path, _ in domain], list(ACTIONS), "something {}", long_video)


def join_clips(paths: Sequence[Path], path: Path, times: int = TIMES_EACH) -> Path:
    """Write one video of clips that follow each other, each shown some times, as browsers play it."""
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    clips = [read_frames(clip, NUM_FRAMES).pixels.permute(0, 2, 3, 1).numpy() for clip in paths]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=FRAME_RATE)
        stream.height, stream.width = clips[0].shape[1:3]
        stream.pix_fmt, stream.thread_count = "yuv420p", 1
        for frame in (frame for clip in clips for _ in range(times) for frame in clip):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path
