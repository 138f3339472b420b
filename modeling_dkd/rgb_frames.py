"""Decoded frames as upright RGB arrays: one size, turned and flipped as the file asks."""

from typing import Any

import numpy as np

from .video_container import av


class RgbConverter:
    """Turns decoded frames of one file into upright RGB arrays, (H, W, 3) uint8, all as large as the first."""

    def __init__(self) -> None:
        self.reformatter = av.video.reformatter.VideoReformatter()
        self.size: tuple[int, int] | None = None

    def __call__(self, frame: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """One frame as an array."""
        if self.size is None:
            self.size = (frame.width, frame.height)
        width, height = self.size
        rgb: Any = self.reformatter.reformat(frame, width=width, height=height, format="rgb24", threads=1).to_ndarray()
        try:
            upright = _upright(rgb, _display_matrix(frame))
        except ValueError:  # the turn alone is known then
            turns, rest = divmod(frame.rotation, 90)
            upright = np.rot90(rgb, turns) if rest == 0 else rgb
        return np.ascontiguousarray(upright)


def _display_matrix(frame: Any) -> tuple[int, int, int, int] | None:
    """a, b, c, d of a decoded frame's display matrix, None where it has none.

    Raises:
        ValueError: The frame carries side data of a kind that this PyAV does not know.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return None
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    return a, b, c, d


def is_only_turned(frame: Any) -> bool:
    """Whether a frame is known to be shown as stored or turned by right angles, neither mirrored nor oblique."""
    try:
        matrix = _display_matrix(frame)
    except ValueError:
        return False
    if matrix is None:
        return True
    a, b, c, d = matrix
    return a * d - b * c > 0 and (a == d == 0 or b == c == 0)


def _upright(rgb: np.ndarray[Any, Any], matrix: tuple[int, int, int, int] | None) -> np.ndarray[Any, Any]:
    """A picture (H, W, 3) turned and flipped as its display matrix says; as stored where that is no right angle.

    The matrix carries a point (x, y) as stored to (a x + c y, b x + d y) as shown: c and b swap the two directions,
    and a negative number reverses one.
    """
    if matrix is None:
        return rgb
    a, b, c, d = matrix
    if max(abs(a), abs(d)) * 100 < min(abs(b), abs(c)):
        rgb, a, d = rgb.transpose(1, 0, 2), c, b
    elif max(abs(b), abs(c)) * 100 > min(abs(a), abs(d)):
        return rgb
    return rgb[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
