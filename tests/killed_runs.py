"""Two runs that share a folder, of which one is killed on its way and begun anew."""

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path


def share_with_a_kill(
    work: Callable[[Path, Path], None], root: Path, folder: Path, is_unfinished: Callable[[], bool]
) -> None:
    """Let two processes do the work of `root` in `folder`; the first is killed when that has five shards.

    Args:
        work: A function of its module, called with both.
        root: What there is to read.
        folder: Where they write.
        is_unfinished: Whether something was left to do at the kill, without which this would test nothing.
    """
    context = multiprocessing.get_context("spawn")

    def begin():
        process = context.Process(target=work, args=(root, folder))
        process.start()
        return process

    processes = [begin(), begin()]
    deadline = time.monotonic() + 60
    while len(list(folder.glob("*.safetensors"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    processes[0].kill()
    processes[0].join()
    assert is_unfinished()
    processes[0] = begin()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
