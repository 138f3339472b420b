"""Pictures of an image file: one of a still, all of one that moves or has pages (APNG, AVIF, GIF, TIFF, WebP)."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .file_suffixes import IMAGE_SUFFIXES
from .frame_sampling import FRAME_SECONDS, ArrayOfFloat, ArrayOfInt, window_indices
from .video_results import VideoFrames, VideoReadError, VideoWindow, refuse_if_damaged, unreadable, warn_of_damage


try:
    from PIL import Image, ImageOps
except ImportError:  # FFmpeg reads still images too
    Image = None  # type: ignore[assignment]


# What Pillow raises for a file that is cut off or damaged.
UNREADABLE = (OSError, SyntaxError, ValueError, TypeError, EOFError)
# Other formats with several pictures hold views or previews of one, not moments (a phone's MPO, an icon).
FORMATS_THAT_MOVE = frozenset({"AVIF", "GIF", "PNG", "TIFF", "WEBP"})
SUBFILE_TYPE, REDUCED = 254, 1  # TIFF: the page is a smaller copy of another


class PictureFile:
    """An image file that Pillow knows.

    Attributes:
        announced: Number of pictures by its header.
        times: Time of each picture that `pictures` has given since the first one, (n,) seconds; NaN for pages.
    """

    def __init__(self, path: Path, image: Any) -> None:
        self.path = path
        with warnings.catch_warnings(record=True) as warned:  # all that tells of a TIFF file that ends among its pages
            warnings.simplefilter("always")
            count = getattr(image, "n_frames", 1) if image.format in FORMATS_THAT_MOVE else 1
        self.pages_lost = int(bool(warned))  # at least
        self.moves = count > 1
        # The first picture of an animated PNG may stand for the others where only one can be shown.
        self.first = int(self.moves and bool(getattr(image, "default_image", False)))
        self.announced = count - self.first
        self.smaller_copies = 0
        self.durations: list[float] = []

    @classmethod
    def open(cls, path: Path) -> "PictureFile | None":
        """The file, or None if Pillow knows it not (a video with a wrong name, perhaps)."""
        if Image is None:
            return None
        try:
            with Image.open(path) as image:
                return cls(path, image)
        except (*UNREADABLE, Image.DecompressionBombError):
            return None

    def pictures(self) -> Iterator[torch.Tensor]:
        """RGB pictures in order, (3, H, W) uint8, upright.

        Raises:
            OSError, SyntaxError, ValueError, TypeError, EOFError: What follows is cut off or damaged.
        """
        self.durations, self.smaller_copies = [], 0
        with Image.open(self.path) as image:
            for number in range(self.first, self.first + self.announced):
                if self.moves:
                    image.seek(number)
                if getattr(image, "tag_v2", {}).get(SUBFILE_TYPE, 0) & REDUCED and number:
                    self.smaller_copies += 1
                    continue
                upright = ImageOps.exif_transpose(image).convert("RGB")
                self.durations.append(float(image.info.get("duration") or 0) / 1000)
                yield torch.from_numpy(np.array(upright)).permute(2, 0, 1)

    @property
    def total(self) -> int:
        """Pictures that should be there; known when all have been passed over."""
        return self.announced + self.pages_lost - self.smaller_copies

    @property
    def times(self) -> ArrayOfFloat:
        """Times of the pictures given so far."""
        starts = np.concatenate([[0.0], np.cumsum(self.durations[:-1])])
        return starts if any(self.durations) or len(starts) == 1 else np.full(len(starts), np.nan)


class PictureFrames:
    """An image file, its pictures as frames."""

    def __init__(self, file: PictureFile) -> None:
        self.file = file

    def read(self, indices_of: Callable[[int], ArrayOfInt]) -> VideoFrames:
        """The pictures at `indices_of(number of pictures)`."""
        indices = indices_of(self.file.announced)
        kept, total = self._take(set(indices.tolist()))
        if total != self.file.announced:
            indices = indices_of(total)
            kept, total = self._take(set(indices.tolist()))
        damaged = self._lost(total)
        warn_of_damage(self.file.path, damaged, total, 0)
        return self._frames(kept, indices, total, damaged)

    def frames_between(self, start: float, end: float) -> tuple[int, int]:
        """Refuses: lists of parts are of films."""
        raise unreadable(self.file.path, f"it is an image file, of which no part from {start:g} to {end:g} s is taken")

    def windows(self, num_frames: int, window_seconds: float, stride: float) -> Iterator[VideoWindow]:
        """Windows in order of their start."""
        total = self._take(set())[1]
        times, damaged = self.file.times, self._lost(total)
        if np.isnan(times).any():
            raise unreadable(self.file.path, "its pages carry no times; take frames by number instead")
        duration = times[-1] + (self.file.durations[-1] or FRAME_SECONDS)
        chosen = list(window_indices(times, duration, num_frames, window_seconds, stride))
        kept, _ = self._take({index for _, _, indices in chosen for index in indices.tolist()})
        warn_of_damage(self.file.path, damaged, total, 0)
        for start, end, indices in chosen:
            yield VideoWindow(start, end, self._frames(kept, indices, total, damaged))

    def _take(self, wanted: set[int]) -> tuple[dict[int, torch.Tensor], int]:
        """The wanted pictures by index, and how many there are."""
        kept: dict[int, torch.Tensor] = {}
        count, size = 0, None
        try:
            for picture in self.file.pictures():
                size = size or picture.shape
                if picture.shape != size:
                    raise unreadable(self.file.path, "its pages have different sizes")
                if count in wanted:
                    kept[count] = picture
                count += 1
        except VideoReadError:
            raise
        except UNREADABLE as error:
            if not count:
                raise unreadable(self.file.path, f"its picture cannot be decoded: {error}") from error
        return kept, count

    def _lost(self, total: int) -> int:
        lost = self.file.total - total
        refuse_if_damaged(self.file.path, lost, self.file.total)
        return lost

    def _frames(self, kept: dict[int, torch.Tensor], indices: ArrayOfInt, total: int, damaged: int) -> VideoFrames:
        pixels = torch.stack([kept[index].permute(1, 2, 0) for index in indices.tolist()]).permute(0, 3, 1, 2)
        return VideoFrames(pixels, indices, self.file.times[indices], total, damaged)


def may_be_an_image(path: Path) -> bool:
    """Whether a file is called an image, or begins as one of the formats of which FFmpeg may see one picture alone."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    try:
        with open(path, "rb") as file:
            start = file.read(12)
    except OSError:
        return False  # opening it again will say why
    return start.startswith((b"II*\0", b"MM\0*", b"\x89PNG")) or start[8:12] in (b"WEBP", b"avif", b"avis")
