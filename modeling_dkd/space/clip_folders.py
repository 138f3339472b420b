"""Clips that visitors leave for as long as they ask about them: a folder for each set, deleted before long."""

import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from ..file_suffixes import VIDEO_SUFFIXES


KEEP_SECONDS = 600
CHECK_EVERY_SECONDS = 30
MAX_CLIPS = 60
MAX_BYTES_TOGETHER = 200_000_000
MAX_FOLDERS = 30
CLIPS = "clips"


class ClipFolders:
    """Folders of clips below one folder; each is deleted once it has not been used for a while, or others need room.

    Args:
        root: Where they are; made if need be.
        keep_seconds: How long a folder stays after it was last used.
        max_clips: Clips in one folder.
        max_bytes: Bytes of all clips in one folder.
        max_folders: Folders of all visitors together; where there are more, those go first that were used longest ago.
    """

    def __init__(
        self,
        root: Path,
        keep_seconds: float = KEEP_SECONDS,
        max_clips: int = MAX_CLIPS,
        max_bytes: int = MAX_BYTES_TOGETHER,
        max_folders: int = MAX_FOLDERS,
    ) -> None:
        self.root = root
        self.keep_seconds = keep_seconds
        self.max_clips = max_clips
        self.max_bytes = max_bytes
        self.max_folders = max_folders
        root.mkdir(parents=True, exist_ok=True)

    def put(self, paths: Sequence[str | os.PathLike[str]], copies: bool = False) -> tuple[Path | None, list[str]]:
        """Move clips into a new folder, and delete what is not taken.

        Args:
            paths: Files.
            copies: Copy them instead, and delete nothing.

        Returns:
            The folder, None where no clip was taken; and why clips were left out.
        """
        folder = Path(tempfile.mkdtemp(dir=self.root))
        (folder / CLIPS).mkdir()
        self.forget_old()
        left_out, size = [], 0
        names: set[str] = set()
        for given in paths:
            path = Path(given)
            added = path.stat().st_size if path.is_file() else 0
            if path.suffix.lower() not in VIDEO_SUFFIXES:  # lists and tables would name other files
                left_out.append(f"{path.name!r} is no video")
            elif len(names) == self.max_clips:
                left_out.append(f"{path.name!r}, for at most {self.max_clips} clips are taken")
            elif size + added > self.max_bytes:
                left_out.append(f"{path.name!r}, for at most {self.max_bytes / 1e6:.0f} MB are taken together")
            else:
                name = _free_name(path, names)
                names.add(name.casefold())
                size += added
                (shutil.copyfile if copies else shutil.move)(path, folder / CLIPS / name)
            if not copies:
                path.unlink(missing_ok=True)
        if not names:
            self.forget(folder)
        return (folder if names else None), left_out

    def clips(self, folder: Path | None) -> list[str]:
        """Names of the clips in a folder, which counts as used now; none where it is gone."""
        if folder is None or not folder.is_dir():
            return []
        os.utime(folder)
        return sorted(os.listdir(folder / CLIPS))

    def forget(self, folder: Path | None) -> None:
        """Delete a folder, if it is there."""
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def forget_old(self) -> None:
        """Delete the folders that have not been used for a while, or for which there is no room."""
        used = []
        for entry in os.scandir(self.root):
            with contextlib.suppress(FileNotFoundError):  # forgotten by its visitor meanwhile
                used.append((entry.stat().st_mtime, entry.path))
        used.sort(reverse=True)
        oldest = time.time() - self.keep_seconds
        for place, (seconds, path) in enumerate(used):
            if seconds < oldest or place >= self.max_folders:
                self.forget(Path(path))

    def watch(self) -> None:
        """Do so every now and then, for as long as there is a root."""

        def go_on() -> None:
            while self.root.is_dir():
                self.forget_old()
                time.sleep(CHECK_EVERY_SECONDS)

        threading.Thread(target=go_on, name="forget_old_clips", daemon=True).start()


def _free_name(path: Path, taken: set[str]) -> str:
    """The file's name, numbered where another file has it."""
    name, number = path.name, 1
    while name.casefold() in taken:
        number += 1
        name = f"{path.stem}-{number}{path.suffix}"
    return name
