"""A table that only grows, for results that come one by one: what stands in it is done, whatever happened to the run.

It has the columns of every table and two more, `modified` and `bytes`, by which a file that was replaced is told from
the one before. Its last line may have been cut off when the machine went down; it is taken off when the log is opened.
"""

import csv
import io
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..data.whole_files import cannot_be_written
from .prediction_table import COLUMNS, csv_lines, json_lines, row_of
from .predictions import Prediction


FORMATS = (".csv", ".jsonl")
LOG_COLUMNS = (*COLUMNS, "modified", "bytes")


class ResultLog:
    """The table, held by one process at a time; use it in a `with`.

    Args:
        path: Ends in .csv or .jsonl; made when the first row comes.

    Attributes:
        done: `key` of every clip in it -> whether it could be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: dict[tuple[str, str, int], bool] = {}
        self._is_csv = path.suffix.lower() == ".csv"
        self._lock = FileLock(f"{path}.lock")

    def __enter__(self) -> "ResultLog":
        """Take the lock and read what is done.

        Raises:
            ValueError: Another process holds it, or it is another table.
            OSError: It cannot be read or written.
        """
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise ValueError(f"another dkd watch writes to {self.path}; give another --output") from error
        try:
            self._read()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def add(self, results: Sequence[tuple[Prediction, int, int]]) -> None:
        """Append rows, all of them or, where the disk refuses, none.

        Args:
            results: Predictions with the time of last change (nanoseconds) and size (bytes) of their files.

        Raises:
            OSError: The disk refuses.
        """
        rows: list[dict[str, Any]] = [
            row_of(prediction) | {"modified": instant(changed), "bytes": size} for prediction, changed, size in results
        ]
        is_new = not self.path.exists() or not self.path.stat().st_size
        text = csv_lines(rows, LOG_COLUMNS, header=is_new) if self._is_csv else json_lines(rows)
        with self.path.open("ab") as file:
            before = file.tell()
            try:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                os.truncate(self.path, before)
                raise cannot_be_written(self.path, error) from error
        self.done |= {(row["clip"], row["modified"], row["bytes"]): not row["error"] for row in rows}

    def _read(self) -> None:
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        end = _end_of_last_row(content, self._is_csv)
        if end < len(content):
            os.truncate(self.path, end)
        try:
            text = content[:end].decode()
            lines = text.split("\n") if not self._is_csv else []
            rows = (
                csv.DictReader(io.StringIO(text, newline="")) if self._is_csv else map(json.loads, filter(None, lines))
            )
            self.done = {(row["clip"], row["modified"], int(row["bytes"])): not row["error"] for row in rows}
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            why = f"it has no column {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{self.path} is no table of dkd watch ({why}); give another --output") from error


def key(name: str, changed: int, size: int) -> tuple[str, str, int]:
    """What a clip is known by in a log: name, time of last change (nanoseconds) and size."""
    return name, instant(changed), size


def instant(nanoseconds: int) -> str:
    """A time since 1970 as a text, to the nanosecond."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def nanoseconds(text: str) -> int:
    """The number that `instant` was given."""
    whole, _, rest = text.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp()) * 1_000_000_000 + int(rest)


def _end_of_last_row(content: bytes, is_csv: bool) -> int:
    """Where the last whole row ends; a line break between quotes ends none."""
    end, quotes, start = 0, 0, 0
    while (found := content.find(b"\n", start)) >= 0:
        quotes += content.count(b'"', start, found) if is_csv else 0
        start = found + 1
        if quotes % 2 == 0:
            end = start
    return end
