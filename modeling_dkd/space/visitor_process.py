"""A process of its own for all that opens files of strangers; it is ended when it takes too long."""

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from ..embedding.worker_processes import prepare_worker, worker_context


try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

# A small file may hold frames of any size or shape.
MAX_MEMORY_BYTES = 4 << 30


class GivenUp(Exception):
    """There is no result: it took too long, or the process has ended."""


@dataclass(frozen=True)
class Refused:
    """Why a function gave no result, in its own words."""

    reason: str


class VisitorProcess:
    """Calls one function at a time in a worker process; a file can neither stop nor crash the process that asks.

    Args:
        max_memory_bytes: Memory that the worker may take for itself.
    """

    def __init__(self, max_memory_bytes: int = MAX_MEMORY_BYTES) -> None:
        self.max_memory_bytes = max_memory_bytes
        self._process: Any = None
        self._connection: Connection | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """End the worker."""
        with self._lock:
            self._stop()

    def __call__(self, function: Callable[..., Any], *args: Any, max_seconds: float) -> Any:
        """What `function(*args)` gives in the worker; both, and the result, are pickled.

        Raises:
            ValueError: The function raised a ValueError or an OSError, with its message.
            GivenUp: There was no result in time, or the worker ended.
        """
        with self._lock:
            answer = self._answer((function, args), max_seconds)
        if isinstance(answer, Refused):
            raise ValueError(answer.reason)
        return answer

    def _answer(self, call: tuple[Callable[..., Any], tuple[Any, ...]], max_seconds: float) -> Any:
        try:
            connection = self._started()
            connection.send(call)
            if connection.poll(max_seconds):
                return connection.recv()
            reason = f"no result after {max_seconds:g} seconds"
        except (EOFError, OSError):
            reason = "the process that looked at it has ended"
        self._stop()
        raise GivenUp(reason)

    def _started(self) -> Connection:
        """Connection to the worker, which is there and ready."""
        if self._connection is None or not self._process.is_alive():
            self._stop()
            context: Any = worker_context(1)
            self._connection, other_end = context.Pipe()
            self._process = context.Process(target=_work, args=(other_end, self.max_memory_bytes), daemon=True)
            self._process.start()
            other_end.close()
            self._connection.recv()
        return self._connection

    def _stop(self) -> None:
        if self._connection is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._connection = None


def _work(connection: Connection, max_memory_bytes: int) -> None:
    """What the worker does: says that it is ready, then answers calls with results or with reasons why not."""
    prepare_worker()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ended by its parent, not by the Ctrl-C that ends that
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (max_memory_bytes, max_memory_bytes))
    connection.send("ready")
    while True:
        function, args = connection.recv()
        try:
            connection.send(function(*args))
        except (ValueError, OSError) as error:
            connection.send(Refused(str(error)))
