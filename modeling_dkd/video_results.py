"""What reading a video gives: frames, windows, or an error that names the file; and its damage in words."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from .frame_sampling import ArrayOfFloat, ArrayOfInt


logger = logging.getLogger(__name__)

# Above this share of lost or damaged frames a file is refused instead of read with a warning.
DAMAGE_LIMIT = 0.1


class VideoReadError(ValueError):
    """A file cannot be read as a video; the message names the file and the reason."""


@dataclass(frozen=True)
class VideoFrames:
    """Frames taken from one file.

    Attributes:
        pixels: RGB frames, (T, 3, H, W) uint8, 0-255, channels last in memory.
        indices: Position of each frame in the full decode, (T,) int64.
        times: Time of each frame since the first one, (T,) seconds, float64; NaN where the file does not tell.
        total_frames: Number of frames that the file holds, by its packets where a part of it was decoded.
        damaged_frames: Lost or damaged frames that were met on the way; 0 for a sound file. Codecs carry no checksums,
            so a few flipped bits can pass for another valid picture.
        missing_bytes: Bytes that the file lacks at its end, at least; 0 for a sound file.
    """

    pixels: torch.Tensor
    indices: ArrayOfInt
    times: ArrayOfFloat
    total_frames: int
    damaged_frames: int = 0
    missing_bytes: int = 0

    @property
    def damage(self) -> str:
        """What is wrong with the file, as far as it was read, in a few words; "" for a sound one."""
        return damage_in_words(self.damaged_frames, self.total_frames, self.missing_bytes)


@dataclass(frozen=True)
class VideoWindow:
    """One window of a long video: `start` and `end` in seconds since its first frame, and frames of it."""

    start: float
    end: float
    frames: VideoFrames


def unreadable(path: Path, reason: str) -> VideoReadError:
    """The error that says of a file why it cannot be read."""
    return VideoReadError(f"cannot read video {str(path)!r}: {reason}")


def refuse_if_damaged(path: Path, damaged: int, total: int) -> None:
    """Raises VideoReadError where more than `DAMAGE_LIMIT` of the frames is damaged."""
    if damaged > DAMAGE_LIMIT * total:
        raise unreadable(
            path, f"{damaged} of its {total} frames are missing or damaged; the file is cut off or corrupt"
        )


def warn_of_damage(path: Path, damaged: int, total: int, lacking: int) -> None:
    """Logs what is wrong with a file that is read all the same."""
    if damaged or lacking:
        logger.warning("video %r: %s", str(path), damage_in_words(damaged, total, lacking))


def damage_in_words(damaged_frames: int, total_frames: int, lacking: int) -> str:
    """Damage of a file in words, "" for none."""
    reasons = []
    if damaged_frames:
        reasons.append(f"{damaged_frames} of its {total_frames} frames are missing or damaged")
    if lacking:
        reasons.append(f"it is cut off: at least {lacking} bytes are missing at its end")
    return "; ".join(reasons)
