"""Prompts of the classes: templates filled with readable class names, or descriptions that the user brings.

    prompts = class_prompts(["BasketballDunk", "brush_hair"], load_templates("clip_ucf101"))     # (K, P) strings

Every class gets the same number P of prompts, so that their embeddings are (K, P, D): particles of the text branch.
"""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from .class_names import name_key, readable_class_name
from .plain_files import read_json, read_text


SINGLE_TEMPLATE = "a photo of a person doing {}."
TEMPLATE_SETS = ("single", "bare", "clip_ucf101", "clip_kinetics")


def load_templates(name_or_file: str | Path) -> list[str]:
    """Templates with one `{}` each for the class name.

    Args:
        name_or_file: "single" (`a photo of a person doing {}.`), "bare" (`{}`, for captions), "clip_ucf101" (the 48
            published with CLIP for UCF101), "clip_kinetics" (its 28 for Kinetics), or a file: a JSON list, or text
            with one template a line.

    Raises:
        ValueError: Neither a known name nor a readable file, no templates in it, or one without exactly one `{}`.
    """
    if name_or_file == "single":
        return [SINGLE_TEMPLATE]
    if name_or_file == "bare":
        return ["{}"]
    if name_or_file in TEMPLATE_SETS:
        carried = json.loads(files(__package__).joinpath("prompt_templates.json").read_text(encoding="utf-8"))
        return list(carried[str(name_or_file)])
    path = Path(name_or_file)
    if not path.is_file():
        raise ValueError(f"no template file {path}; give a file or one of {', '.join(TEMPLATE_SETS)}")
    if path.suffix.lower() == ".json":
        templates = read_json(path)
    else:
        templates = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not isinstance(templates, list) or not templates or not all(isinstance(item, str) for item in templates):
        raise ValueError(f"{path} must hold a list of templates, such as {SINGLE_TEMPLATE!r}")
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f"{path}: template {template[:100]!r} must hold {{}} exactly once, for the class name")
    return templates


def class_prompts(class_names: Sequence[str], templates: Sequence[str]) -> list[list[str]]:
    """Prompts of every class, K lists of P strings, the class names made readable."""
    readable = [readable_class_name(name) for name in class_names]
    return [[template.replace("{}", name) for template in templates] for name in readable]


def description_prompts(class_names: Sequence[str], json_file: str | Path, dataset: str = "") -> list[list[str]]:
    """Descriptions of every class from a JSON file that the user brings, K lists of P strings.

    The file holds {class: text or list of texts} or [{"class": ..., "description" or "descriptions": ...}], at the top
    or under the name of the data set. Classes are found by their letters and digits alone (`shoot bow` describes
    `shoot_bow`). P is the largest number of texts of a class; classes with fewer repeat theirs in turn.

    Raises:
        ValueError: The file cannot be read or has another form, or a class has no description (five are named).
    """
    path = Path(json_file)
    content = read_json(path)
    if isinstance(content, dict) and dataset in content and isinstance(content[dataset], dict | list):
        content = content[dataset]
    texts = {name_key(name): _texts(path, name, value) for name, value in _described(path, content)}
    missing = [name for name in class_names if not texts.get(name_key(name))]
    if missing:
        raise ValueError(
            f"{path} describes {len(class_names) - len(missing)} of {len(class_names)} classes; "
            f"it lacks {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}"
        )
    rows = [texts[name_key(name)] for name in class_names]
    num_prompts = max(map(len, rows))
    return [[row[i % len(row)] for i in range(num_prompts)] for row in rows]


def _described(path: Path, content: Any) -> list[tuple[str, Any]]:
    """(class, text or texts) of both accepted forms."""
    if isinstance(content, Mapping):
        return list(content.items())
    if isinstance(content, list) and all(isinstance(item, dict) and "class" in item for item in content):
        return [(str(item["class"]), item.get("descriptions", item.get("description"))) for item in content]
    raise ValueError(f'{path} must hold {{class: description}} or [{{"class": ..., "description": ...}}]')


def _texts(path: Path, name: str, value: Any) -> list[str]:
    """The texts of one class, blank ones left out; ValueError for anything else."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{path}: the description of {name!r} is neither a text nor a list of texts")
    return [text.strip() for text in texts if text.strip()]
