"""Who embeds which batch, told by files beside the shards: processes and machines that share a folder share the work.

A claim is a file that only one can create. Its holder touches it again and again; one that nobody has touched for
`PATIENCE` seconds, or whose process is known to be gone, belongs to whoever takes it away first. Two that embed
one batch all the same, after a pause for instance, write the same bytes.
"""

import os
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from ..data.whole_files import cannot_be_written


HEARTBEAT = 10.0  # seconds between two touches
PATIENCE = 120.0  # of a claim that is not touched; storages show changes of others after up to a minute
BOOT = Path("/proc/sys/kernel/random/boot_id")
PROCESS_NAMESPACE = Path("/proc/self/ns/pid")


class BatchClaims:
    """The claims that this process holds in a folder; a context in which they are kept alive.

    Args:
        folder: Of the shards, on storage that all share.
        heartbeat: Seconds between two touches.
        patience: Seconds after which an untouched claim is taken over.
    """

    def __init__(self, folder: Path, heartbeat: float = HEARTBEAT, patience: float = PATIENCE) -> None:
        self.folder = folder
        self.patience = patience
        self.heartbeat = heartbeat
        self.held: set[Path] = set()
        self.processes = visible_processes()
        self.owner = f"{self.processes} {os.getpid()} {uuid.uuid4().hex}"
        self._ended = threading.Event()
        self._keeper = threading.Thread(target=self._keep_alive, name="keep_claims_alive", daemon=True)

    def __enter__(self) -> "BatchClaims":
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._keeper.join()
        for path in list(self.held):
            self._release(path)

    def free(self, names: Sequence[str], is_done: Callable[[str], bool]) -> Iterator[int]:
        """Positions of the batches that are neither done nor claimed by others, each claimed before it is given."""
        for position, name in enumerate(names):
            if not is_done(name) and self.take(name):
                if is_done(name):  # between the two looks
                    self.release(name)
                else:
                    yield position

    def take(self, name: str) -> bool:
        """Claim a batch; False where another holds it."""
        path = self._path(name)
        return self._create(path) or (self._remove_if_lost(path) and self._create(path))

    def remove_lost(self) -> None:
        """Remove the claims of those who are gone, also on batches that they finished before they gave them back."""
        for path in self.folder.glob("*.claim"):
            self._remove_if_lost(path)

    def release(self, name: str) -> None:
        """Give a claim back: the batch is done, or cannot be."""
        self._release(self._path(name))

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.claim"

    def _create(self, path: Path) -> bool:
        try:
            with open(path, "x", encoding="utf-8") as file:
                self.held.add(path)
                file.write(self.owner)
        except FileExistsError:
            return False
        except OSError as error:
            if path in self.held:  # an empty claim would be waited for
                self.held.remove(path)
                path.unlink(missing_ok=True)
            raise cannot_be_written(path, error) from error
        return True

    def _release(self, path: Path) -> None:
        self.held.discard(path)
        with suppress(OSError):
            if path.read_text(encoding="utf-8") == self.owner:  # it may have been taken over
                path.unlink()

    def _remove_if_lost(self, path: Path) -> bool:
        """Take a claim away from a holder that is gone; True for one of those who find it lost."""
        if not self._is_lost(path):
            return False
        taken = path.with_name(f"{path.name}.unfinished-{uuid.uuid4().hex}")
        try:
            os.rename(path, taken)
        except OSError:
            return False
        taken.unlink(missing_ok=True)
        return True

    def _is_lost(self, path: Path) -> bool:
        """Whether the holder of a claim is gone."""
        try:
            processes, pid, _ = path.read_text(encoding="utf-8").split()
            if processes == self.processes and not _is_alive(int(pid)):
                return True
        except (OSError, ValueError):
            pass  # gone by now, or torn: its age decides
        try:
            return self._storage_time() - path.stat().st_mtime > self.patience
        except OSError:
            return False

    def _storage_time(self) -> float:
        """Seconds by the clock of the storage, which stamps all claims, whatever the clocks of machines say."""
        clock = self.folder / f"clock.unfinished-{uuid.uuid4().hex}"
        clock.touch()
        try:
            return clock.stat().st_mtime
        finally:
            clock.unlink(missing_ok=True)

    def _keep_alive(self) -> None:
        while not self._ended.wait(self.heartbeat):
            for path in list(self.held):
                with suppress(OSError):
                    os.utime(path)


def visible_processes() -> str:
    """A name for all processes whose numbers mean the same here: those of a machine or of a container, while it runs.

    Containers can have the name of their machine and numbers of their own (docker --network host). After a new start
    a machine or container has another name, and nothing but the age of its former claims tells that they are lost.
    """
    host = socket.gethostname()
    if sys.platform != "linux":
        return host
    try:
        return "/".join((host, BOOT.read_text(encoding="ascii").strip(), os.readlink(PROCESS_NAMESPACE)))
    except OSError:
        return f"{host}/{uuid.uuid4().hex}"  # like nobody else's


def _is_alive(pid: int) -> bool:
    """Whether a process runs, of those whose numbers mean the same here."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
