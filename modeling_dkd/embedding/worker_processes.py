"""The processes that share the work, and the decoding workers of each.

Workers are never made by forking a process in which torch has already computed. The threads of torch do not live on in
a fork, but the locks they held do: a worker forked after an encoder has run may wait for ever. Workers are forked from
a clean server instead, which has imported what they need, once for all of them.
"""

import multiprocessing
import os
import signal
import threading
from datetime import timedelta
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:  # it takes seconds to import, which decoding workers need not wait for
    from accelerate import Accelerator

NEEDED_BY_WORKERS = ("modeling_dkd.embedding.clip_embedding", "modeling_dkd.embedding.clip_encoder")


def shared_accelerator() -> "Accelerator":
    """The processes that share the work; waiting for the slowest of them may take days.

    Raises:
        ValueError: Several were launched, but in a way that has each do all the work.
    """
    import torch
    from accelerate import Accelerator, InitProcessGroupKwargs

    patience = InitProcessGroupKwargs(timeout=timedelta(days=7))
    accelerator = Accelerator(cpu=not torch.accelerator.is_available(), kwargs_handlers=[patience])
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != launched:
        raise ValueError(
            f"{launched} processes were launched, but each would do all the work; on a CPU set ACCELERATE_USE_CPU=true"
        )
    return accelerator


def worker_context(num_workers: int) -> BaseContext | None:
    """The `multiprocessing_context` of a DataLoader.

    What goes to the workers is pickled, and a script that uses them needs its `if __name__ == "__main__":`.

    Args:
        num_workers: Workers of the DataLoader.

    Returns:
        A clean server, which runs from now on, or fresh processes on systems without one; None without workers, as
        DataLoader wants it.
    """
    if not num_workers:
        return None
    if not _can_fork():
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver, resource_tracker  # which not every system can import

    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(NEEDED_BY_WORKERS))
    resource_tracker.ensure_running()  # before the block: its start lets interrupts through again
    # The server and its workers inherit what is blocked: Ctrl-C, which a terminal sends to all, is for their parent.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def start_server(num_workers: int) -> None:
    """Let a server import what workers need, for seconds, while the caller does other things; it returns at once.

    It imports nothing slow here, so that a command can call it before its own imports.

    Args:
        num_workers: Workers that a DataLoader will have; without any there is nothing to start.
    """
    worker_context(num_workers)


def _can_fork() -> bool:
    return "forkserver" in multiprocessing.get_all_start_methods()


def prepare_worker(_: int = 0) -> None:
    """The `worker_init_fn` of a DataLoader: one thread a worker, which ends when the process it works for is gone.

    DataLoader's own watch looks at the process that a worker was forked from; that is the server, which outlives a
    killed run for as long as it has workers.
    """
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, name="end_with_parent", daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
