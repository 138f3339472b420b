"""Texts, tables, JSON and YAML that users write and programs damage: their contents, or a sentence with their name."""

import codecs
import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml


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
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
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
    try:
        return json.loads(read_text(path))
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
