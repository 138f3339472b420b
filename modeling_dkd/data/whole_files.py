"""Results in files that are whole or not there: a reader, a full disk or a kill never leaves half of one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write a file that takes its place once it is whole; one that was there before stays until then.

    with whole_file(Path("table.csv")) as unfinished:
        unfinished.write_text(text, encoding="utf-8")

    Args:
        path: The file to come. What is written to lies beside it, under a name of the same ending. A link stays one,
            and what is no file, such as a pipe or /dev/stdout, is written to itself.

    Raises:
        OSError: The disk refuses (the message names the file); nothing is left of the new one.
    """
    if path.exists() and (not path.is_file() or path.parent == Path("/dev")):
        yield path
        return
    place = Path(os.path.realpath(path))
    unfinished = place.with_name(f".{place.stem[:40]}.{os.getpid()}.unfinished{place.suffix}")
    try:
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, place)
    except OSError as error:
        raise cannot_be_written(path, error) from error
    finally:
        unfinished.unlink(missing_ok=True)


def cannot_be_written(path: Path, error: OSError) -> OSError:
    """What the disk refuses, in a sentence that names the file; the system's own often does not."""
    return OSError(f"{path} cannot be written: {error.strerror or error}; make room or name another place")
