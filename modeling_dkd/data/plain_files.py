"""Texts, tables, JSON and YAML that users write and programs damage: their contents, or a sentence with their name."""

import codecs
import csv
import io
import json
import os
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml


_SIGN = re.compile(r"\s*([\[\]{},:]?)\s*")


def read_text(path: str | os.PathLike) -> str:
    """Text of a file in UTF-8, or in UTF-16 with a byte-order mark; the mark, which editors put there, is left out.

    Raises:
        ValueError: It cannot be read.
    """
    try:
        if Path(path).exists() and not Path(path).is_file():  # a pipe would be waited for
            raise ValueError("it is no file")
        content = Path(path).read_bytes()
        encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        where = f"{error.reason} at byte {error.start}"
        raise ValueError(f"cannot read {path}: it is no text in UTF-8 ({where})") from error
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else None
        raise ValueError(f"cannot read {path}: {why or error}") from error


def read_table(path: str | os.PathLike) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Columns of a CSV, and its rows with the number of the line in which each ends.

    Values have commas, semicolons or tabs between them, as spreadsheets write them: what the first line has most of.
    Names of columns are stripped and in small letters, values are as written; a value that is not there is "".

    Raises:
        ValueError: It cannot be read or is no CSV.
    """
    columns, rows = open_table(path)
    return columns, list(rows)


def open_table(path: str | os.PathLike) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """As `read_table`, but each row is read when it is asked for, and found to be none of a CSV only then."""
    text = read_text(path)
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    # A StringIO would take four bytes a letter.
    lines = io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8", newline="")
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    try:
        columns = [name.strip().lower() for name in next(reader, [])]
    except csv.Error as error:
        raise ValueError(f"cannot read the CSV {path}: {error}") from error

    def rows() -> Iterator[tuple[int, dict[str, str]]]:
        padding = [""] * len(columns)
        try:
            for row in reader:
                if row:
                    yield reader.line_num, dict(zip(columns, row + padding, strict=False))
        except csv.Error as error:
            raise ValueError(f"cannot read the CSV {path}: {error}") from error

    return columns, rows()


def read_json(path: str | os.PathLike) -> Any:
    """Content of a JSON file.

    Raises:
        ValueError: It cannot be read or is no JSON.
    """
    with _named_json(path):
        return json.loads(read_text(path))


def json_entries(path: str | os.PathLike, *keys: str) -> Iterator[Any]:
    """Entries of the list, or keys and values of the object, that a JSON file has under these keys.

    Each is made when it is asked for, and found to be no JSON only then: a million take far more than their text.

    Raises:
        ValueError: The file cannot be read or is no JSON.
        KeyError: There is nothing under a key.
        TypeError: There is neither a list nor an object.
    """
    with _named_json(path):
        text = read_text(path)
        behind = yield from _entries(text, 0, keys)
        if not keys and behind < len(text):
            raise json.JSONDecodeError("Extra data", text, behind)


def _entries(text: str, at: int, keys: Sequence[str]) -> Generator[Any, None, int]:
    """Entries under the keys, in the value that begins at a position, and then where it ends.

    What other keys have is passed over, and what comes behind the entries is not looked at.
    """
    decode = json.JSONDecoder(object_hook=(lambda _: None) if keys else None).raw_decode
    opened, at = _sign(text, at)
    if opened not in ("[", "{"):
        raise TypeError("there is neither a list nor an object where one should be")
    end = "]" if opened == "[" else "}"
    sign = ","
    if text.startswith(end, at):
        sign, at = _sign(text, at)
    while sign == ",":
        key = None
        if opened == "{":
            key, at = decode(text, at)
            _, at = _sign(text, at, ":")
        if keys and key == keys[0]:
            return (yield from _entries(text, at, keys[1:]))
        value, at = decode(text, at)
        if not keys:
            yield value if opened == "[" else (key, value)
        sign, at = _sign(text, at, f",{end}")
    if keys:
        raise KeyError(keys[0])
    return at


def _sign(text: str, at: int, expected: str = "") -> tuple[str, int]:
    """The sign that comes next, one of those expected, and where what comes after it begins."""
    found = _SIGN.match(text, at)
    assert found  # an empty text matches
    if expected and (not found[1] or found[1] not in expected):
        raise json.JSONDecodeError(f"Expecting {' or '.join(map(repr, expected))}", text, at)
    return found[1], found.end()


@contextmanager
def _named_json(path: str | os.PathLike) -> Iterator[None]:
    """Whatever is wrong with a JSON file is told with its name."""
    try:
        yield
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    except ValueError as error:  # of numbers with thousands of digits, json says nothing of the place
        raise ValueError(str(error) if str(path) in str(error) else f"{path} is not valid JSON: {error}") from error


def read_yaml(path: str | os.PathLike) -> Any:
    """Content of a YAML file, plain values alone.

    Raises:
        ValueError: It cannot be read or is no YAML.
    """
    text = read_text(path)
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise ValueError(f"cannot read {path}: {error}") from error


def parse_yaml(text: str) -> Any:
    """Value of a YAML text, plain values alone.

    Raises:
        ValueError: It is no YAML, in one line.
    """
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())[:500]) from error
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        # What PyYAML lets through where a tag or a date promises something else than follows.
        raise ValueError(f"a value in it is not what it is written as ({str(error)[:200]})") from error
