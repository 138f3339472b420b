"""Small pictures of clips and moments, and sheets of them to look at: PNG, or a page that opens without a network."""

import base64
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import av
import jinja2
from PIL import Image, ImageDraw, ImageFont

from ..data.whole_files import whole_file
from ..video_container import CONTAINERS
from ..video_frames import VideoReadError, read_frames
from .output_places import SHEET_ENDINGS
from .timeline_player import file_address


TEMPLATE = Path(__file__).with_name("contact_sheet.html.jinja")
WIDTH, HEIGHT = 240, 135
MARGIN, CAPTION_LINES, LINE = 10, 2, 16
COLUMNS = 5


class Picture(NamedTuple):
    """What one place of a sheet shows.

    Attributes:
        path: The clip.
        seconds: Time of the frame since the first one; None: the middle.
        title: First line beneath it.
        note: Second line beneath it.
    """

    path: str
    seconds: float | None
    title: str
    note: str


def thumbnail(path: str, seconds: float | None = None) -> Image.Image:
    """One upright frame, at most WIDTH x HEIGHT pixels; grey where the file cannot be read.

    Args:
        path: The clip.
        seconds: Time of the frame since the first one, for which a long video is not decoded from its start; None: the
            middle frame.
    """
    try:
        image = _middle(path) if seconds is None else _frame_at(path, seconds)
    except (VideoReadError, av.FFmpegError, OSError, ValueError):
        return Image.new("RGB", (WIDTH, HEIGHT), "#8c8c8c")
    image.thumbnail((WIDTH, HEIGHT))
    return image


def _middle(path: str) -> Image.Image:
    return Image.fromarray(read_frames(path, 1).pixels[0].permute(1, 2, 0).numpy())


def _frame_at(path: str, seconds: float) -> Image.Image:
    """The first frame at or after a time, else the last one, decoded from the key frame before it."""
    options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
    with av.open(f"file:{path}", options=options, metadata_errors="replace") as container:
        stream = container.streams.video[0]
        base = float(stream.time_base or 1)
        target = (stream.start_time or 0) + seconds / base
        container.seek(int(target), stream=stream)
        frame = None
        for frame in container.decode(stream):
            if frame.pts is not None and frame.pts >= target:
                break
        if frame is None:
            raise VideoReadError(f"cannot read video {path!r}: no frame at {seconds:.1f} s")
        return frame.to_image().rotate(frame.rotation, expand=True)


def write_sheet(pictures: Sequence[Picture], path: str | os.PathLike[str], heading: str) -> None:
    """Pictures in rows, with two lines beneath each.

    Args:
        pictures: What is shown, in reading order.
        path: A file ending in .png or .html.
        heading: What stands above them.

    Raises:
        ValueError: The file has another ending.
        OSError: The disk refuses.
    """
    path = Path(path)
    if path.suffix.lower() == ".png":
        image = sheet_image(pictures, heading)
        with whole_file(path) as unfinished:
            image.save(unfinished)
    elif path.suffix.lower() in SHEET_ENDINGS:
        text = sheet_page(pictures, heading, path.parent)
        with whole_file(path) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    else:
        raise ValueError(f"a sheet is a .png or a .html file, not {path.name}")


def sheet_image(pictures: Sequence[Picture], heading: str) -> Image.Image:
    """The sheet as one picture."""
    columns = min(COLUMNS, max(1, len(pictures)))
    rows = -(-len(pictures) // columns)
    wide, high = WIDTH + MARGIN, HEIGHT + CAPTION_LINES * LINE + MARGIN
    sheet = Image.new("RGB", (max(MARGIN + columns * wide, 400), 40 + rows * high), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    draw.text((MARGIN, 12), _fitting(heading, sheet.width - 2 * MARGIN, font), "black", ImageFont.load_default(16))
    for number, picture in enumerate(pictures):
        left, top = MARGIN + number % columns * wide, 40 + number // columns * high
        image = thumbnail(picture.path, picture.seconds)
        sheet.paste(image, (left + (WIDTH - image.width) // 2, top + (HEIGHT - image.height) // 2))
        for line, text in enumerate((picture.title, picture.note)):
            shown = _fitting(text, WIDTH, font)
            draw.text((left, top + HEIGHT + line * LINE), shown, "black" if line == 0 else "#666666", font)
    return sheet


def _fitting(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The end of a text in one line, as much as fits: ends of paths tell more than their beginnings."""
    text = " ".join(text.split())
    shown = text
    while shown and font.getlength(shown) > width:
        shown = "…" + shown.lstrip("…")[1:]
        if shown == "…":
            break
    return shown


def sheet_page(pictures: Sequence[Picture], heading: str, folder: str | os.PathLike[str]) -> str:
    """The sheet as a page in `folder`, whose pictures lead to the clips where they lie."""
    cards = [
        {
            "image": data_address(thumbnail(p.path, p.seconds)),
            "href": file_address(p.path, folder) + (f"#t={p.seconds:.3f}" if p.seconds is not None else ""),
            "title": p.title,
            "note": p.note,
        }
        for p in pictures
    ]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(heading=heading, cards=cards)


def data_address(image: Image.Image) -> str:
    """A picture as an address that holds it, JPEG."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
