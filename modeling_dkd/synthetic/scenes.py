"""The backgrounds of synthetic clips: one picture of random detail for each named scene.

A scene is an RGB picture (height, width, 3), float64 from 0 to 1, x to the right and y downward.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray


FloatArray = NDArray[np.floating]
Colour = tuple[float, float, float]


def _gradient(side: int, top: Colour, bottom: Colour) -> FloatArray:
    """A picture that goes from one colour above to another below."""
    share = np.linspace(0, 1, side)[:, None, None]
    return np.broadcast_to(np.array(top) * (1 - share) + np.array(bottom) * share, (side, side, 3)).copy()


def _patches(side: int, cells: int, rng: Generator) -> FloatArray:
    """Smooth random blotches between -1 and 1, (side, side), about `cells` across."""
    grid = rng.uniform(-1, 1, (cells + 1, cells + 1))
    at = np.linspace(0, cells - 1e-6, side)
    low, share = np.floor(at).astype(int), at - np.floor(at)
    rows = grid[low] * (1 - share)[:, None] + grid[low + 1] * share[:, None]
    return rows[:, low] * (1 - share) + rows[:, low + 1] * share


def _axes(side: int) -> tuple[FloatArray, FloatArray]:
    """Coordinates (x, y) from 0 to 1, broadcastable to (side, side)."""
    axis = np.linspace(0, 1, side)
    return axis[None, :], axis[:, None]


def _sky(side: int, rng: Generator) -> FloatArray:
    clouds = np.clip(_patches(side, 4, rng), 0, 1)[..., None]
    return _gradient(side, (0.35, 0.58, 0.88), (0.7, 0.82, 0.95)) * (1 - 0.7 * clouds) + 0.66 * clouds


def _meadow(side: int, rng: Generator) -> FloatArray:
    return _gradient(side, (0.35, 0.58, 0.25), (0.2, 0.42, 0.14)) + 0.1 * rng.uniform(-1, 1, (side, side, 1))


def _sea(side: int, rng: Generator) -> FloatArray:
    _, y = _axes(side)
    waves = np.sin(2 * np.pi * (9 * y + 0.35 * _patches(side, 5, rng) + rng.uniform()))
    return _gradient(side, (0.1, 0.38, 0.5), (0.04, 0.2, 0.36)) + 0.09 * waves[..., None]


def _desert(side: int, rng: Generator) -> FloatArray:
    x, y = _axes(side)
    dunes = np.sin(2 * np.pi * (3 * y + 0.4 * x + 0.3 * _patches(side, 3, rng) + rng.uniform()))
    return _gradient(side, (0.85, 0.72, 0.48), (0.72, 0.55, 0.33)) + 0.07 * dunes[..., None]


def _city(side: int, rng: Generator) -> FloatArray:
    picture = _gradient(side, (0.42, 0.44, 0.5), (0.5, 0.5, 0.53))
    edges = np.arange(0, side + 1, side // 8)
    for left in edges[:-1]:
        top = int(side * rng.uniform(0.25, 0.7))
        picture[top:, left : left + side // 8] = rng.uniform(0.16, 0.4)
    return picture


def _snow(side: int, rng: Generator) -> FloatArray:
    flakes = rng.uniform(size=(side, side, 1)) > 0.96
    return _gradient(side, (0.7, 0.74, 0.8), (0.88, 0.9, 0.93)) + 0.12 * flakes


def _forest(side: int, rng: Generator) -> FloatArray:
    x, _ = _axes(side)
    trunks = np.sin(2 * np.pi * (7 * x + 0.3 * _patches(side, 4, rng) + rng.uniform())) > 0.45
    return np.where(trunks[..., None], (0.27, 0.18, 0.1), _gradient(side, (0.14, 0.32, 0.16), (0.1, 0.22, 0.1)))


def _room(side: int, rng: Generator) -> FloatArray:
    picture = _gradient(side, (0.72, 0.64, 0.58), (0.64, 0.56, 0.5))
    floor = int(side * rng.uniform(0.62, 0.75))
    picture[floor:] = (0.42, 0.28, 0.18)
    left = int(side * rng.uniform(0.1, 0.6))
    picture[side // 5 : side // 2, left : left + side // 4] = (0.8, 0.86, 0.9)
    return picture


def _lava(side: int, rng: Generator) -> FloatArray:
    glow = np.clip(1 - 3 * np.abs(_patches(side, 6, rng)), 0, 1)[..., None]
    return np.array((0.2, 0.08, 0.06)) * (1 - glow) + np.array((0.9, 0.38, 0.08)) * glow


def _tiles(side: int, rng: Generator) -> FloatArray:
    x, y = _axes(side)
    light = (np.floor(6 * x + rng.uniform()) + np.floor(6 * y + rng.uniform())) % 2
    return np.where(light[..., None] > 0, (0.74, 0.74, 0.7), (0.42, 0.44, 0.5))


def _sunset(side: int, rng: Generator) -> FloatArray:
    _, y = _axes(side)
    bands = np.sin(2 * np.pi * (5 * y + 0.2 * _patches(side, 3, rng)))
    return _gradient(side, (0.42, 0.2, 0.46), (0.92, 0.5, 0.3)) + 0.05 * bands[..., None]


def _bricks(side: int, rng: Generator) -> FloatArray:
    x, y = _axes(side)
    row = np.floor(9 * y + rng.uniform())
    joint = (np.mod(9 * y, 1) < 0.14) | (np.mod(4.5 * x + 0.5 * (row % 2), 1) < 0.08)
    return np.where(joint[..., None], (0.66, 0.62, 0.58), (0.56, 0.27, 0.2)) + 0.05 * _patches(side, 8, rng)[..., None]


def _night(side: int, rng: Generator) -> FloatArray:
    stars = rng.uniform(size=(side, side, 1)) > 0.985
    return _gradient(side, (0.04, 0.04, 0.12), (0.1, 0.1, 0.24)) + 0.6 * stars


def _swamp(side: int, rng: Generator) -> FloatArray:
    pools = (_patches(side, 5, rng) > 0.1)[..., None]
    return np.where(pools, (0.2, 0.27, 0.24), (0.36, 0.37, 0.17)) + 0.05 * rng.uniform(-1, 1, (side, side, 1))


SOURCE_SCENES: dict[str, Callable[[int, Generator], FloatArray]] = {
    "the sky": _sky,
    "a meadow": _meadow,
    "the sea": _sea,
    "a desert": _desert,
    "a city": _city,
    "the snow": _snow,
    "a forest": _forest,
    "a room": _room,
}
UNSEEN_SCENES: dict[str, Callable[[int, Generator], FloatArray]] = {
    "the lava": _lava,
    "the tiles": _tiles,
    "a sunset": _sunset,
    "the bricks": _bricks,
    "the night": _night,
    "a swamp": _swamp,
}


def draw_scene(scene: str, side: int, rng: Generator) -> FloatArray:
    """A picture of a named scene with random detail.

    Args:
        scene: A key of `SOURCE_SCENES` or `UNSEEN_SCENES`.
        side: Height and width in pixels.
        rng: Source of the detail.

    Returns:
        RGB picture, (side, side, 3), 0 to 1.

    Raises:
        ValueError: The scene is not known.
    """
    painters = SOURCE_SCENES | UNSEEN_SCENES
    if scene not in painters:
        raise ValueError(f"no scene is called {scene!r}; choose one of: {', '.join(painters)}")
    return np.clip(painters[scene](side, rng), 0, 1)
