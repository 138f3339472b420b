"""Classes as users give them, and which clips they have labelled already."""

import os
from collections.abc import Sequence
from pathlib import Path

from ..data.plain_files import read_table, read_text
from .clip_listing import Clip, shown


def read_classes(given: str | os.PathLike[str] | Sequence[str]) -> list[str]:
    """Names of the classes.

    Args:
        given: A file with one class a line, names with commas between them, or a list of names.

    Raises:
        ValueError: There is no class, one stands twice, or the file cannot be read.
    """
    if isinstance(given, str | os.PathLike):
        text = os.fspath(given)
        if os.path.isfile(text):
            names, place = read_text(text).removeprefix("\ufeff").splitlines(), text
        elif isinstance(given, os.PathLike) or os.path.isdir(text) or _is_file_name(text):
            raise ValueError(f"no file {text}; give a file with one class a line, or names with commas between them")
        else:
            names, place = text.split(","), "the classes"
    else:
        names, place = list(given), "the classes"
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"class names must be texts, not {names!r:.100}")
    names = [name.strip() for name in names if name.strip()]
    if not names:
        raise ValueError(f"{place}: no class in it; give at least two names")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{place}: {name!r} stands twice; give each class its own name")
        seen.add(name)
    return names


def _is_file_name(text: str) -> bool:
    return "," not in text and (os.sep in text or Path(text).suffix in (".txt", ".csv", ".json"))


def read_labels(file: str | os.PathLike[str], clips: Sequence[Clip], class_names: Sequence[str]) -> dict[str, int]:
    """Which clips are labelled, path -> number of the class.

    Args:
        file: CSV with the columns clip and label. A clip is written as tables name it, as a path, or as the end of one
            that fits a single clip. Rows without a label are passed over.
        clips: Those to recognise.
        class_names: Those asked.

    Raises:
        ValueError: The file cannot be read, or a row names no clip, several, another class or a second label (the
            message names the line).
    """
    name = os.fspath(file)
    number = {label: k for k, label in enumerate(class_names)}
    by_name = {clip.name: clip.path for clip in clips}
    paths = {clip.path for clip in clips}
    by_end: dict[str, list[str]] = {}
    for clip in clips:
        by_end.setdefault(os.path.basename(clip.path), []).append(clip.path)
    labels: dict[str, int] = {}
    for line, row in _rows(name):
        label = row["label"].strip()
        if not label:
            continue
        if label not in number:
            few = ", ".join(list(class_names)[:10]) + (" ..." if len(class_names) > 10 else "")
            raise ValueError(f"{name}, line {line}: {label[:100]!r} is no class that is asked; these are {few}")
        named = row["clip"]
        path = _path_of(named, by_name, paths, by_end)
        if isinstance(path, int):
            found = "none" if not path else f"{path}"
            raise ValueError(f"{name}, line {line}: {named[:200]!r} fits {found} of the {len(clips)} clips; name one")
        if labels.setdefault(path, number[label]) != number[label]:
            raise ValueError(f"{name}, line {line}: {named[:200]!r} has another label above")
    if not labels:
        raise ValueError(f"{name} labels no clip; fill in the column label")
    return labels


def _rows(name: str) -> list[tuple[int, dict[str, str]]]:
    """Line number and columns of each row."""
    columns, rows = read_table(name)
    lacking = [column for column in ("clip", "label") if column not in columns]
    if lacking:
        raise ValueError(f"{name}: no column {lacking[0]}; its columns are {', '.join(columns) or 'none'}")
    return rows


def _path_of(clip: str, by_name: dict[str, str], paths: set[str], by_end: dict[str, list[str]]) -> str | int:
    """Path of the one clip that is meant, or how many may be."""
    if clip in by_name:
        return by_name[clip]
    if (absolute := os.path.abspath(clip)) in paths:
        return absolute
    end = os.sep + clip.lstrip("./")
    ending = [path for path in by_end.get(os.path.basename(clip), []) if shown(path).endswith(end)]
    return ending[0] if len(ending) == 1 else len(ending)
