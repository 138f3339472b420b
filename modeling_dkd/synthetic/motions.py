"""What the object of a synthetic clip does: one track of pose over time for each action.

A track is made of pieces (most actions have one, "splitting" two, "bursting" six), each with a centre, a size, an
angle, an aspect and an opacity at every moment. Lengths are shares of the picture's side, x to the right and y
downward, angles in radians.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray


FloatArray = NDArray[np.floating]


@dataclass(frozen=True)
class Track:
    """Pose of every piece at every moment; each array is (pieces, moments).

    Attributes:
        x: Centre, share of the picture's width, 0 is the left edge.
        y: Centre, share of the picture's height, 0 is the upper edge.
        size: Radius, share of the picture's side.
        angle: Turn of the shape, radians.
        aspect: Width over height of the shape at equal area.
        opacity: 0 (not there) to 1.
    """

    x: FloatArray
    y: FloatArray
    size: FloatArray
    angle: FloatArray
    aspect: FloatArray
    opacity: FloatArray


@dataclass(frozen=True)
class Pose:
    """Random choices that every action starts from; `pace` 1 is the usual speed and `phase` is in turns, 0 to 1."""

    x: float
    y: float
    size: float
    angle: float
    pace: float
    phase: float
    sign: float


def _track(pose: Pose, moments: FloatArray, **changes: FloatArray | float) -> Track:
    """A resting object, with the given properties replaced; (moments,) and scalars are spread over pieces and time."""
    values: dict[str, FloatArray | float] = {
        "x": pose.x,
        "y": pose.y,
        "size": pose.size,
        "angle": pose.angle,
        "aspect": 1.0,
        "opacity": 1.0,
    }
    values.update(changes)
    pieces = max(np.shape(v)[0] if np.ndim(v) == 2 else 1 for v in values.values())
    shape = (pieces, len(moments))
    return Track(**{name: np.broadcast_to(np.asarray(v, dtype=np.float64), shape) for name, v in values.items()})


def _triangle_wave(turns: FloatArray) -> FloatArray:
    """A zigzag between -1 and 1 with period 1."""
    return 4 * np.abs(turns - np.floor(turns + 0.5)) - 1


def _moving(dx: float, dy: float) -> Callable[[Pose, FloatArray], Track]:
    """The track of an object that crosses the picture; it starts on the side that it leaves."""

    def track(pose: Pose, moments: FloatArray) -> Track:
        way = pose.pace * 0.45 * (moments - 0.5)
        return _track(pose, moments, x=pose.x + dx * way, y=pose.y + dy * way)

    return track


def _turning(pose: Pose, moments: FloatArray) -> Track:
    return _track(pose, moments, angle=pose.angle + pose.sign * pose.pace * 2.6 * moments, aspect=2.0)


def _growing(pose: Pose, moments: FloatArray) -> Track:
    return _track(pose, moments, size=pose.size * 1.15 * np.exp(pose.pace * 0.9 * (moments - 0.5)))


def _shrinking(pose: Pose, moments: FloatArray) -> Track:
    return _track(pose, moments, size=pose.size * 1.15 * np.exp(pose.pace * 0.9 * (0.5 - moments)))


def _bouncing(pose: Pose, moments: FloatArray) -> Track:
    height = np.abs(np.sin(np.pi * (pose.pace * 1.6 * moments + pose.phase)))
    return _track(pose, moments, x=pose.x + pose.sign * 0.35 * (moments - 0.5), y=pose.y + 0.16 - 0.34 * height)


def _zigzagging(pose: Pose, moments: FloatArray) -> Track:
    side = 0.11 * _triangle_wave(pose.pace * 2.2 * moments + pose.phase)
    return _track(pose, moments, x=pose.x + pose.sign * 0.5 * (moments - 0.5), y=pose.y + side)


def _circling(pose: Pose, moments: FloatArray) -> Track:
    turn = 2 * np.pi * (pose.sign * pose.pace * 1.1 * moments + pose.phase)
    return _track(pose, moments, x=pose.x + 0.17 * np.cos(turn), y=pose.y + 0.17 * np.sin(turn))


def _swinging(pose: Pose, moments: FloatArray) -> Track:
    swing = 0.95 * np.sin(2 * np.pi * (pose.pace * 1.0 * moments + pose.phase))
    return _track(
        pose, moments, x=pose.x + 0.32 * np.sin(swing), y=pose.y - 0.2 + 0.32 * np.cos(swing), angle=pose.angle - swing
    )


def _blinking(pose: Pose, moments: FloatArray) -> Track:
    lit = np.sin(2 * np.pi * (pose.pace * 2.5 * moments + pose.phase)) > -0.2
    return _track(pose, moments, opacity=np.where(lit, 0.75, 0.1))


def _shaking(pose: Pose, moments: FloatArray) -> Track:
    turn = 2 * np.pi * pose.pace * moments
    return _track(
        pose,
        moments,
        x=pose.x + 0.05 * np.sin(7.1 * turn + 6 * pose.phase),
        y=pose.y + 0.05 * np.sin(5.3 * turn + 9 * pose.phase),
    )


def _halves(pose: Pose, moments: FloatArray, distance: FloatArray) -> Track:
    """Two half-sized pieces at a distance on either side of the centre."""
    sides = np.array([[-1.0], [1.0]])
    return _track(
        pose,
        moments,
        x=pose.x + sides * distance * np.cos(pose.angle),
        y=pose.y + sides * distance * np.sin(pose.angle),
        size=pose.size * 0.75,
    )


def _splitting(pose: Pose, moments: FloatArray) -> Track:
    return _halves(pose, moments, np.clip(0.16 + pose.pace * 0.26 * (moments - 0.5), 0.0, None))


def _joining(pose: Pose, moments: FloatArray) -> Track:
    return _halves(pose, moments, np.clip(0.16 - pose.pace * 0.26 * (moments - 0.5), 0.0, None))


def _bursting(pose: Pose, moments: FloatArray) -> Track:
    directions = pose.angle + 2 * np.pi * np.arange(6)[:, None] / 6
    distance = 0.08 + 0.26 * np.mod(pose.pace * moments + pose.phase, 1.0)
    return _track(
        pose,
        moments,
        x=pose.x + distance * np.cos(directions),
        y=pose.y + distance * np.sin(directions),
        size=pose.size * 0.4,
    )


def _stretching(pose: Pose, moments: FloatArray) -> Track:
    return _track(
        pose, moments, aspect=np.exp(0.9 + 0.5 * np.sin(2 * np.pi * (pose.pace * moments + pose.phase))), angle=0.0
    )


def _standing_still(pose: Pose, moments: FloatArray) -> Track:
    return _track(pose, moments)


MOTIONS: dict[str, Callable[[Pose, FloatArray], Track]] = {
    "moving left": _moving(-1, 0),
    "moving right": _moving(1, 0),
    "moving up": _moving(0, -1),
    "moving down": _moving(0, 1),
    "turning": _turning,
    "growing": _growing,
    "shrinking": _shrinking,
    "bouncing": _bouncing,
    "zigzagging": _zigzagging,
    "circling": _circling,
    "swinging": _swinging,
    "blinking": _blinking,
    "shaking": _shaking,
    "splitting": _splitting,
    "joining": _joining,
    "bursting": _bursting,
    "stretching": _stretching,
    "standing still": _standing_still,
}


def draw_track(action: str, moments: FloatArray, rng: Generator) -> Track:
    """The track of one object that performs an action from a random start.

    Args:
        action: A key of `MOTIONS`.
        moments: Times to evaluate, (moments,), in clip lengths: the clip itself lasts from 0 to 1.
        rng: Source of the random start; the same draws are made for every action.

    Returns:
        The track, every array (pieces, moments).

    Raises:
        ValueError: The action is not one of `MOTIONS`.
    """
    if action not in MOTIONS:
        raise ValueError(f"no motion is known for the action {action!r}; choose one of: {', '.join(MOTIONS)}")
    x, y = rng.uniform(0.42, 0.58, 2)
    pose = Pose(
        x=float(x),
        y=float(y),
        size=float(rng.uniform(0.11, 0.16)),
        angle=float(rng.uniform(0, 2 * np.pi)),
        pace=float(rng.uniform(0.75, 1.25)),
        phase=float(rng.uniform()),
        sign=float(rng.choice([-1.0, 1.0])),
    )
    return MOTIONS[action](pose, moments)
