"""Wall and processor seconds of a command and of all that it starts, on Linux.

python -m benchmarks.spent COMMAND ...                      # prints {"wall": ..., "processor": ..., "code": ...}

Decoding workers are children of a server that outlives the command for a moment. As orphans they come to this process,
which waits for them; so it has to be one of its own, without other children.
"""

import ctypes
import json
import os
import resource
import subprocess
import sys
import time


PR_SET_CHILD_SUBREAPER = 36


def main(command: list[str]) -> None:
    """Run it, with its output on standard error, and print what it took."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    start = time.perf_counter()
    code = subprocess.call(command, stdout=sys.stderr)
    wall = time.perf_counter() - start
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(json.dumps({"wall": wall, "processor": used.ru_utime + used.ru_stime, "code": code}))


if __name__ == "__main__":
    main(sys.argv[1:])
