"""Labelled synthetic clips: a source domain and target domains that differ from it in a named way.

    python -m modeling_dkd.synthetic.clips --domain combined --clips 600 --seed 0 --output clips

An object performs an action (the label) over a scene (the context). An image encoder sees frames one by one, so each
frame is a long exposure: the object leaves a fading trail of where, how large and how turned it was during the past
moments, as motion blur does in a real camera. The trail is what makes an action visible in a single frame; without it
no frame tells left from right.

In the source domain every action has a scene in which it is usually seen, as in real collections of videos. An encoder
trained there learns that too, and is wrong where the domain is another: each target domain changes one thing, and
"combined" all.

Clip i of a seed draws its action, scene, object, track, camera and noise from separate random streams, so that two
domains differ in nothing but what their definitions name, and a clip does not depend on how many are made.
"""

import argparse
import csv
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from tqdm import tqdm

from .motions import MOTIONS, FloatArray, Track, draw_track
from .scenes import SOURCE_SCENES, UNSEEN_SCENES, draw_scene


ACTIONS = tuple(MOTIONS)
CLASS_TEMPLATES = (
    "something {action}",
    "a video of something {action}",
    "an object {action}",
    "a clip of an object {action}",
)
SHAPES = ("circle", "square", "triangle", "star")
SIDE = 64
NUM_FRAMES = 16
FRAME_RATE = 8
TRAIL_MOMENTS = 9
SCENE_MARGIN = 10
MANY_CLIPS = 500

Colours = dict[str, tuple[float, float, float]]
SOURCE_COLOURS: Colours = {
    "red": (1.0, 0.3, 0.25),
    "yellow": (1.0, 0.95, 0.2),
    "white": (1.0, 1.0, 1.0),
    "cyan": (0.25, 0.9, 0.95),
    "pink": (1.0, 0.55, 0.85),
}
OTHER_COLOURS: Colours = {
    "orange": (1.0, 0.65, 0.15),
    "lime": (0.6, 1.0, 0.25),
    "lavender": (0.75, 0.6, 1.0),
    "mint": (0.5, 1.0, 0.8),
}
# Scenes are dimmer than the object in front of them.
SCENE_BRIGHTNESS = 0.45


@dataclass(frozen=True)
class Domain:
    """Where clips come from: what is seen, how often, and through which camera.

    Attributes:
        scenes: Names of the scenes that occur.
        usual_scene_share: Probability that an action is seen in its usual scene instead of any scene.
        usual_scene_offset: Action k is usually seen in scene (k + offset) of `scenes`.
        colours: Colours of the objects, RGB from 0 to 1.
        light: Gain of each colour channel, RGB.
        gamma: Exponent on the linear picture; above 1 is darker.
        shake: Standard deviation of the camera's place from frame to frame, pixels.
        noise: Standard deviation of the sensor noise, picture values from 0 to 1.
        tail: Exponent a of class frequencies proportional to (1 + rank)^-a; 0 means all equally often.
    """

    scenes: tuple[str, ...] = tuple(SOURCE_SCENES)
    usual_scene_share: float = 0.4
    usual_scene_offset: int = 0
    colours: tuple[str, ...] = tuple(SOURCE_COLOURS)
    light: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    shake: float = 0.5
    noise: float = 0.01
    tail: float = 0.0


SOURCE = Domain()
SHIFTS: dict[str, dict[str, Any]] = {
    "scenes": {"scenes": tuple(UNSEEN_SCENES)},
    "palette": {"colours": tuple(OTHER_COLOURS), "light": (1.0, 0.85, 0.7), "gamma": 1.2},
    "camera": {"shake": 2.5, "noise": 0.1},
    "frequencies": {"tail": 0.7},
    "rebound": {"usual_scene_offset": 3},
}
DOMAINS: dict[str, Domain] = {
    "source": SOURCE,
    **{name: replace(SOURCE, **changes) for name, changes in SHIFTS.items()},
    "combined": replace(SOURCE, **{field: value for changes in SHIFTS.values() for field, value in changes.items()}),
}
DOMAIN_SUMMARIES: dict[str, str] = {
    "source": "what the encoder was trained on",
    "scenes": "unseen scenes",
    "palette": "other object colours and light",
    "camera": "camera shake and noise",
    "frequencies": "other class frequencies",
    "rebound": "actions tied to other scenes than before",
    "combined": "all of these at once",
}
DEFAULT_TARGET = "combined"


@dataclass(frozen=True)
class ClipDescription:
    """What is to be seen in one clip; with its domain it decides every pixel."""

    index: int
    seed: int
    action: str
    scene: str
    shape: str
    colour: str

    @property
    def file_name(self) -> str:
        """Place of the clip below its domain's folder: one folder for each action."""
        return f"{self.action.replace(' ', '_')}/clip_{self.seed:03d}_{self.index:05d}.mp4"


def domain_called(name: str) -> Domain:
    """The domain of a name, or a ValueError that lists the names."""
    if name not in DOMAINS:
        raise ValueError(f"no synthetic domain is called {name!r}; choose one of: {', '.join(DOMAINS)}")
    return DOMAINS[name]


def class_prompts() -> list[list[str]]:
    """The prompts of every action of `ACTIONS`, one list each; they say nothing of scene or object."""
    return [[template.format(action=action) for template in CLASS_TEMPLATES] for action in ACTIONS]


def usual_actions(domain: Domain, scene: str) -> list[str]:
    """The actions whose usual scene this is; empty for a scene that does not occur."""
    usual = [domain.scenes[(k + domain.usual_scene_offset) % len(domain.scenes)] for k in range(len(ACTIONS))]
    return [action for action, where in zip(ACTIONS, usual, strict=True) if where == scene]


def class_frequencies(domain: Domain) -> FloatArray:
    """Probability of each action of `ACTIONS`, (actions,); which are frequent is fixed by a seeded order."""
    ranks = np.random.default_rng(7).permutation(len(ACTIONS))
    weights = (1.0 + ranks) ** -domain.tail
    return weights / weights.sum()


def _stream(seed: int, index: int, name: str) -> Generator:
    """The random stream of one property of one clip."""
    names = ("action", "scene", "object", "track", "detail", "camera", "noise")
    return np.random.default_rng([seed, index, names.index(name)])


def describe_clips(domain: Domain, num_clips: int, seed: int) -> list[ClipDescription]:
    """Draw what each of `num_clips` clips shows; the first of them do not depend on how many are asked for."""
    cumulative = np.cumsum(class_frequencies(domain))
    descriptions = []
    for index in range(num_clips):
        chosen = int(
            np.searchsorted(cumulative, _stream(seed, index, "action").uniform() * cumulative[-1], side="right")
        )
        usual, any_scene = _stream(seed, index, "scene").uniform(size=2)
        scene = chosen + domain.usual_scene_offset
        if usual >= domain.usual_scene_share:
            scene = int(any_scene * len(domain.scenes))
        shape, colour = _stream(seed, index, "object").uniform(size=2)
        descriptions.append(
            ClipDescription(
                index=index,
                seed=seed,
                action=ACTIONS[chosen],
                scene=domain.scenes[scene % len(domain.scenes)],
                shape=SHAPES[int(shape * len(SHAPES))],
                colour=domain.colours[int(colour * len(domain.colours))],
            )
        )
    return descriptions


def _shape_distance(shape: str, x: FloatArray, y: FloatArray) -> FloatArray:
    """Distance from the edge of a shape of radius 1, negative inside; exact enough for edges one pixel wide."""
    if shape == "circle":
        return np.hypot(x, y) - 1
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.88
    if shape == "triangle":
        return np.maximum(y - 0.65, 0.87 * np.abs(x) - 0.5 * y - 0.62)
    radius, turn = np.hypot(x, y), np.arctan2(y, x)
    return radius * (1.1 - 0.35 * np.cos(5 * turn)) - 1


def object_masks(shape: str, track: Track) -> FloatArray:
    """How far the object covers each pixel at each moment: (moments, SIDE, SIDE), 0 to 1."""
    pixels = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE
    x, y, size, angle, aspect, opacity = (
        a.astype(np.float32)[..., None, None]
        for a in (track.x, track.y, track.size, track.angle, track.aspect, track.opacity)
    )
    dx, dy = pixels[None, :] - x, pixels[:, None] - y
    cos, sin, stretch = np.cos(angle), np.sin(angle), np.sqrt(aspect)
    along, across = (dx * cos + dy * sin) / (size * stretch), (dy * cos - dx * sin) * stretch / size
    covered = np.clip(0.5 - _shape_distance(shape, along, across) * size * SIDE, 0, 1) * opacity
    return covered.max(0)


def long_exposure(masks: FloatArray) -> FloatArray:
    """Coverage of each frame, the newest moment strongest and older ones fading: (NUM_FRAMES, SIDE, SIDE), 0 to 1."""
    frames = 0.55 * masks[TRAIL_MOMENTS:]
    fading = 0.8 ** np.arange(1, TRAIL_MOMENTS + 1)
    for age, weight in enumerate((fading / fading.sum()).tolist(), start=1):  # floats of Python keep float32
        frames += 0.9 * weight * masks[TRAIL_MOMENTS - age : len(masks) - age]
    return np.minimum(frames, 1)


def _seen_windows(picture: FloatArray, places: NDArray[np.int64]) -> FloatArray:
    """The part of a picture larger than the frame that the camera sees in each frame."""
    return np.stack([picture[top : top + SIDE, left : left + SIDE] for top, left in places])


def render_clip(domain: Domain, description: ClipDescription) -> NDArray[np.uint8]:
    """Draw the frames of one clip.

    Args:
        domain: Decides light, camera and noise.
        description: Decides action, scene, object and every random detail.

    Returns:
        RGB frames, (NUM_FRAMES, SIDE, SIDE, 3), uint8.
    """
    stream = partial(_stream, description.seed, description.index)
    moments = np.arange(-TRAIL_MOMENTS, NUM_FRAMES) / (NUM_FRAMES - 1)
    track = draw_track(description.action, moments, stream("track"))
    offsets = np.clip(stream("camera").normal(size=(NUM_FRAMES, 2)) * domain.shake, -SCENE_MARGIN, SCENE_MARGIN)
    places = np.rint(offsets).astype(np.int64)
    covered = long_exposure(object_masks(description.shape, track))
    # The camera moves the object together with the scene behind it.
    covered = np.stack(
        [np.roll(c, (-top, -left), axis=(0, 1)) for c, (top, left) in zip(covered, places, strict=True)]
    )
    picture = draw_scene(description.scene, SIDE + 2 * SCENE_MARGIN, stream("detail")).astype(np.float32)
    behind = SCENE_BRIGHTNESS * _seen_windows(picture, places + SCENE_MARGIN)
    colour = np.array((SOURCE_COLOURS | OTHER_COLOURS)[description.colour], dtype=np.float32)
    frames = behind + covered[..., None] * (colour - behind)
    frames = (frames * np.array(domain.light, dtype=np.float32)) ** domain.gamma
    frames += domain.noise * stream("noise").standard_normal(frames.shape, dtype=np.float32)
    return np.rint(np.clip(frames, 0, 1) * 255).astype(np.uint8)


def write_clip(path: Path, frames: NDArray[np.uint8]) -> None:
    """Encode RGB frames (frames, height, width, 3) as an MPEG-4 file at `FRAME_RATE` frames a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FRAME_RATE)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.bit_rate, stream.thread_count = "yuv420p", 600_000, 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _render_and_write(folder: Path, domain: Domain, description: ClipDescription) -> Path:
    path = folder / description.file_name
    write_clip(path, render_clip(domain, description))
    return path


@contextmanager
def clip_writers(num_clips: int) -> Iterator[Executor]:
    """Two threads that write clips; for many two processes, in which nothing waits for the interpreter of this one.

    Raises:
        OSError: A process died.
    """
    if num_clips < MANY_CLIPS:
        pool: Executor = ThreadPoolExecutor(2)
    else:
        pool = ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), _prepare_writer)
    try:
        yield pool
    except BrokenProcessPool as error:
        raise OSError("a process that writes clips died; out of memory? Make fewer clips") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare_writer() -> None:
    """Leave an interrupt to the process that this one works for, and end where that is gone, killed perhaps."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        multiprocessing.parent_process().join()  # type: ignore[union-attr]
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def start_clips(
    writers: Executor, folder: Path, domain_name: str, num_clips: int, seed: int
) -> Iterator[tuple[Path, ClipDescription]]:
    """As `generate_clips`, by `clip_writers` that begin at once, whether or not a clip is asked for."""
    domain = domain_called(domain_name)
    if num_clips < 1:
        raise ValueError(f"the number of clips must be at least 1, not {num_clips}")
    descriptions = describe_clips(domain, num_clips, seed)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "clips.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "scene", "shape", "colour"])
        writer.writerows([d.file_name, d.action, d.scene, d.shape, d.colour] for d in descriptions)
    written = writers.map(partial(_render_and_write, folder, domain), descriptions, chunksize=10)
    return zip(written, descriptions, strict=True)


def generate_clips(
    folder: Path, domain_name: str, num_clips: int, seed: int
) -> Iterator[tuple[Path, ClipDescription]]:
    """Write labelled clips into one folder for each action, and `clips.csv` with what each shows.

    Two threads share the work, or two processes from 500 clips on, for which a script needs its
    `if __name__ == "__main__":`. The files do not depend on it.

    Args:
        folder: Where `<action>/clip_<seed>_<index>.mp4` and `clips.csv` go; made if absent.
        domain_name: A key of `DOMAINS`.
        num_clips: How many, at least 1.
        seed: Any integer from 0; other seeds give other clips of the same domain.

    Yields:
        File and description of each clip, in order, as soon as it is written.

    Raises:
        ValueError: Unknown domain, or a number of clips below 1.
        OSError: A clip cannot be written, or a process that writes them died.
    """
    with clip_writers(num_clips) as writers:
        yield from start_clips(writers, folder, domain_name, num_clips, seed)


def main(argv: list[str] | None = None) -> int:
    """Command line of the generator; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m modeling_dkd.synthetic.clips", description="make synthetic clips")
    parser.add_argument("--output", type=Path, required=True, help="folder for the clips")
    parser.add_argument("--domain", default=DEFAULT_TARGET, help=f"one of: {', '.join(DOMAINS)}")
    parser.add_argument("--clips", type=int, default=600, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="other seeds give other clips")
    arguments = parser.parse_args(argv)
    try:
        clips = generate_clips(arguments.output, arguments.domain, arguments.clips, arguments.seed)
        for _ in tqdm(clips, total=arguments.clips, unit="clip", desc=arguments.domain):
            pass
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
