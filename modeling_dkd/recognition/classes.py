"""Classes as users give them, and which clips they have labelled already."""

import os
import re
from collections.abc import Sequence

from ..data.class_names import name_key, spelling_key
from ..data.counting import counted
from ..data.plain_files import read_table, read_text
from .clip_listing import Clip, shown


SEPARATOR = re.compile(r"[,;\t]")
# Number and name of a line such as "1 ApplyEyeMakeup".
NUMBERED = re.compile(r"(\d{1,6})[.:)]?\s+(.+)")
# What the first line of a list holds that was taken from a table, as `name_key` gives it.
HEADINGS = {
    *("action", "actions", "activities", "activity", "categories", "category", "class", "classes", "classid"),
    *("classname", "classnames", "description", "descriptions", "label", "labels", "name", "names"),
}


def require_classes(classes: object, domain: object) -> None:
    """Refuse a question without classes: none are given, and there is no domain that has some.

    Raises:
        ValueError: So it is.
    """
    if classes is None and domain is None:
        raise ValueError("no classes: give --classes, a file with one class a line, or names with commas between them")


def read_classes(given: str | os.PathLike[str] | Sequence[str]) -> list[str]:
    """Names of the classes.

    Args:
        given: A file with one class a line, names with commas between them, or a list of names.

    Raises:
        ValueError: There is no class, one stands twice or in two spellings, the file cannot be read, is a table or has
            commas or semicolons where lines should end, or a single name is no file.
    """
    if isinstance(given, str | os.PathLike):
        names, place = _classes_in(os.fspath(given), isinstance(given, os.PathLike))
    else:
        names, place = list(given), "the classes"
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"class names must be texts, not {names!r:.100}")
    names = [name.strip() for name in names if name.strip()]
    if not names:
        raise ValueError(f"{place}: no class in it; give at least two names")
    spelled: dict[str, str] = {}
    for name in names:
        other = spelled.setdefault(spelling_key(name), name)
        if other is not name:
            how = "stands twice" if other == name else f"and {other!r} are the same words in two spellings"
            raise ValueError(f"{place}: {name!r} {how}; name each class once")
    return names


def _classes_in(text: str, is_path: bool) -> tuple[list[str], str]:
    """Names in a file, or with commas between them, and what to call that place."""
    if os.path.isfile(text):
        return _names_in_lines(text), text
    if os.path.isdir(text):
        raise ValueError(
            f"--classes {text} is a folder; give a file with one class a line, or names with commas between"
        )
    if is_path or ("," not in text and text.strip()):
        raise ValueError(
            f"--classes {text}: there is no such file, and it is a single name; give a file with one class a line, "
            "or names with commas between them"
        )
    return text.split(","), "the classes"


def _names_in_lines(file: str) -> list[str]:
    """The lines of a file that are names; running numbers before all of them, as official lists have, are left out."""
    lines = [line.strip() for line in read_text(file).splitlines() if line.strip()]
    is_table = all(SEPARATOR.search(line) for line in lines)
    for number, line in enumerate(lines):
        if number == 0 and any(name_key(cell) in HEADINGS for cell in SEPARATOR.split(line)):
            what = "is the heading of a table"
        elif is_table or line.endswith((",", ";")):
            what = "holds several names or a comma"
        elif line.startswith("#"):
            what = "is a comment"
        else:
            continue
        raise ValueError(
            f"{file}: the line {line[:100]!r} {what}; write one class a line and nothing else, and what describes the "
            "classes into a JSON file (--descriptions)"
        )
    numbered = [match for match in map(NUMBERED.fullmatch, lines) if match]
    numbers = [int(match[1]) for match in numbered]
    is_numbered = len(lines) > 2 and numbers in (list(range(len(lines))), list(range(1, 1 + len(lines))))
    return [match[2] for match in numbered] if is_numbered else lines


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
            found = f"{path or 'none'} of {counted(len(clips), 'clip')}"
            raise ValueError(f"{name}, line {line}: {named[:200]!r} fits {found}; name one")
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
