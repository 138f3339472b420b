"""Where results may go: looked at before the work, not after it."""

import os
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path


TABLE_ENDINGS = (".csv", ".jsonl", ".parquet")
SHEET_ENDINGS = (".png", ".html", ".htm")


def table_to_write(path: str | os.PathLike[str]) -> Path:
    """The path of a table to come, its folder made.

    Raises:
        ValueError: As in `file_to_write`, or what writes Parquet is not installed.
        OSError: Nobody may write there.
    """
    table = file_to_write("--output", path, TABLE_ENDINGS)
    if table.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        raise ValueError(f"--output {table}: Parquet needs pyarrow; run: pip install pyarrow, or write .csv or .jsonl")
    return table


def file_to_write(option: str, path: str | os.PathLike[str], endings: Sequence[str]) -> Path:
    """The path of a file to come, its folder made.

    Args:
        option: What the user gave the path for, for messages.
        path: The file.
        endings: What its name may end in, such as ".csv".

    Raises:
        ValueError: It has another ending, is a folder, or lies where no folder can be made.
        OSError: Nobody may write there.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(
            f"{option} {path} is a folder; give the name of a file in it, such as {path / f'x{endings[0]}'}"
        )
    if path.suffix.lower() not in endings:
        *others, last = endings
        choice = f"{', '.join(others)} or {last}" if others else last
        raise ValueError(f"{option} {path}: give a name that ends in {choice}")
    _make_folder(option, path, path.parent)
    _require_writable(option, path, path.parent)
    if path.exists():
        _require_writable(option, path, path)
    return path


def folder_to_fill(option: str, path: str | os.PathLike[str]) -> Path:
    """The path of a folder for files to come, made if need be.

    Raises:
        ValueError: It is a file, or lies where no folder can be made.
        OSError: Nobody may write there.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{option} {path} is a file; give the name of a folder, which is made if need be")
    _make_folder(option, path, path)
    _require_writable(option, path, path)
    return path


def _make_folder(option: str, path: Path, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{option} {path}: a part of this path is a file, no folder; give another place") from error
    except OSError as error:
        raise OSError(
            f"{option} {path}: no folder can be made there ({error.strerror}); give another place"
        ) from error


def _require_writable(option: str, path: Path, place: Path) -> None:
    """Refuse a place that takes no file; a folder is asked by making one in it, which vanishes at once."""
    try:
        if place.is_dir():
            tempfile.TemporaryFile(dir=place).close()
        is_writable, why = os.access(place, os.W_OK), ""
    except OSError as error:
        is_writable, why = False, f" ({error.strerror})"
    if not is_writable:
        raise OSError(f"{option} {path} cannot be written there{why}; give another place")
