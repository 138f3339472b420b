"""Class names as people write them: `BasketballDunk` and `brush_hair` become `Basketball Dunk` and `brush hair`."""

import re


def readable_class_name(name: str) -> str:
    """Words of a class name, separated by single spaces.

    A capital after a small letter or digit starts a word, and so does the last capital of a run before a small letter
    (`PushUPSFast` -> `Push UPS Fast`). Underscores, hyphens and slashes separate words. The case is kept, since most
    tokenizers lower it themselves and the others know proper names.

    Raises:
        ValueError: Nothing is left of the name.
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    words = re.sub(r"[\s_\-/]+", " ", spaced).strip()
    if not words:
        raise ValueError(f"class name {name!r} holds no letters; rename the folder or the label")
    return words


def name_key(name: str) -> str:
    """What two spellings of one class share: its letters and digits in lower case (`Hand_Stand` and `HandStand`)."""
    return re.sub(r"[\W_]+", "", name).casefold()


def spelling_key(name: str) -> str:
    """What two names share whose prompts are the same text: words and signs in small letters (`Brush Hair `)."""
    try:
        return readable_class_name(name).casefold()
    except ValueError:  # no letters; nothing else is spelled so
        return name
