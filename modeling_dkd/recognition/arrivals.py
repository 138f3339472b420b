"""Which files of a folder have arrived whole: they have stopped changing, and nobody writes to them any more."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from ..data.video_files import files_below, is_video
from .clip_listing import Clip, shown


try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Arrival:
    """A file as it was seen.

    Attributes:
        clip: Its name relative to the folder, and where it is.
        changed: Time of last change, nanoseconds since 1970.
        size: Bytes.
        still_for: Seconds since it was first seen like this.
    """

    clip: Clip
    changed: int
    size: int
    still_for: float


class Arrivals:
    """Looks at a folder again and again.

    Args:
        folder: With sub-folders of any depth; hidden files and those without a video's extension are passed over.
        settle: A file has arrived once it was the same for so many seconds.
    """

    def __init__(self, folder: Path, settle: float) -> None:
        self.folder = folder
        self.settle = settle
        self._seen: dict[str, tuple[int, int, float]] = {}

    def look(self) -> tuple[list[Arrival], int]:
        """Files that have arrived, by name, and how many others are there.

        Raises:
            ValueError: The folder is gone, or holds a link to a folder that it lies in.
        """
        if not self.folder.is_dir():
            raise ValueError(f"there is no folder {shown(str(self.folder))}")
        now = time.monotonic()
        seen: dict[str, tuple[int, int, float]] = {}
        arrived = []
        for file in files_below(self.folder):
            if not is_video(file):
                continue
            path = os.path.abspath(file)
            try:
                status = os.stat(path)
            except OSError:  # it has gone, or is a link to nowhere
                continue
            state = (status.st_mtime_ns, status.st_size)
            before = self._seen.get(path)
            since = before[2] if before is not None and before[:2] == state else now
            seen[path] = (*state, since)
            if now - since >= self.settle and not is_written_to(path):
                clip = Clip(shown(file.relative_to(self.folder).as_posix()), path)
                arrived.append(Arrival(clip, *state, now - since))
        self._seen = seen
        return arrived, len(seen) - len(arrived)


def is_written_to(path: str) -> bool:
    """Whether somebody on this machine has the file open for writing; False where that cannot be told.

    Linux grants a read lease on a file only while nobody has it open for writing.
    """
    if fcntl is None or not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        # Who opens it for writing now sends a signal, which by default ends the process; this one is passed over.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:  # another's file, or a file system without leases
        return False
    finally:
        os.close(descriptor)
    return False
