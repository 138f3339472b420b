"""Pictures of an image file: one of a still, all of one that moves or has pages (APNG, AVIF, GIF, TIFF, WebP)."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .frame_sampling import ArrayOfFloat


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
