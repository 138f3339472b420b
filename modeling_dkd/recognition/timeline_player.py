"""A timeline as a page that opens without a network: the video, and beneath it a bar coloured by what is seen."""

import colorsys
import json
import os
from pathlib import Path
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from .timelines import Timeline


TEMPLATE = Path(__file__).with_name("timeline_player.html.jinja")


def player_page(found: Timeline, folder: str | os.PathLike[str], source: str | None = None) -> str:
    """The page, to be written into `folder`, from where it finds the video where it lies.

    It works by mouse, touch and keyboard. Names are shown as they are, whatever characters they hold.

    Args:
        found: What it shows.
        folder: Where it will lie.
        source: Address of the video, "" for none; None: from `folder` to where it lies.
    """
    names = sorted({s.label for s in found.segments if s.label is not None}, key=lambda name: -found.seconds_of(name))
    data = {
        "duration": found.duration,
        "classes": [
            {"name": name, "colour": colour(k), "seconds": found.seconds_of(name)} for k, name in enumerate(names)
        ],
        "segments": [
            {
                "start": round(s.start, 3),
                "end": round(s.end, 3),
                "label": None if s.label is None else names.index(s.label),
                "confidence": round(s.confidence, 4),
            }
            for s in found.segments
        ],
    }
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        video=found.video,
        source=file_address(found.path, folder) if source is None else source,
        duration=f"{found.duration:.3f}",
        remark=found.remark,
        data=json_in_page(data),
    )


def colour(number: int) -> str:
    """The number-th of colours that are well told apart from the few before it, #rrggbb."""
    # Steps of the golden angle around the circle of hues; every third darker, every third lighter.
    red, green, blue = colorsys.hls_to_rgb((0.38 + 0.618034 * number) % 1, (0.45, 0.34, 0.6)[number % 3], 0.62)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def file_address(path: str, folder: str | os.PathLike[str]) -> str:
    """Address of a file as a page in `folder` writes it: relative, so that both can move together."""
    try:
        relative = os.path.relpath(path, folder)
    except ValueError:  # another drive
        return Path(path).as_uri()
    return quote(os.fsencode(relative.replace(os.sep, "/")), safe="/")


def json_in_page(data: object) -> Markup:
    """JSON that no text in it can end the script element of."""
    text = json.dumps(data, ensure_ascii=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))
