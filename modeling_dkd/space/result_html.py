"""What was made of several clips or a long video as HTML, in which nothing that a visitor gave is taken for markup."""

import base64
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ..data.counting import counted
from ..recognition.clip_search import Match
from ..recognition.predictions import Prediction, Recognition
from ..recognition.thumbnails import data_address
from .comparison_html import escaped


# Larger videos are not sent back to the visitor, who has them.
MAX_VIDEO_BYTES = 8_000_000
VIDEO_TYPES = {".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm", ".mov": "video/mp4"}


def predictions_html(found: Recognition) -> str:
    """A table with one clip a row, those that could not be read among them."""
    changed = sum(p.is_changed for p in found.read)
    summary = (
        f"{counted(len(found.read), 'clip')} recognised, {len(found.damaged)} that cannot be read; domain: "
        f"{found.described}; labels that differ from plain zero-shot: {changed}."
    )
    # What there is to do follows in terms of the command.
    doubts = [doubt.partition(";")[0] for doubt in found.doubts]
    notes = "".join(f'<p class="note" role="note">{escaped(doubt[:1].upper() + doubt[1:])}.</p>' for doubt in doubts)
    head = "<th>clip</th><th>label</th><th>sure</th><th>known</th><th>zero-shot</th>"
    rows = "".join(map(_row, found.predictions))
    return (
        f'<div class="dkd"><p class="note" role="status">{escaped(summary)}</p>{notes}'
        f'<table class="clips"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _row(prediction: Prediction) -> str:
    name = f'<th scope="row">{escaped(prediction.clip)}</th>'
    if prediction.error:
        return f'<tr>{name}<td colspan="4" class="error">{escaped(prediction.error)}</td></tr>'
    kind = ' class="changed"' if prediction.is_changed else ""
    shares = "".join(
        f"<td>{'' if value is None else f'{100 * value:.0f} %'}</td>"
        for value in (prediction.confidence, prediction.known)
    )
    label, plain = escaped(prediction.label or ""), escaped(prediction.zero_shot_label or "")
    if prediction.is_changed:
        label += f"<del>{plain}</del>"  # where there is no room for the last column
    return f"<tr{kind}>{name}<td>{label}</td>{shares}<td>{plain}</td></tr>"


def matches_html(matches: Sequence[Match], pictures: Sequence[Image.Image]) -> str:
    """Pictures of the best matches, best first."""
    figures = [
        f'<figure><img alt="" src="{data_address(picture)}"><figcaption>{match.score:.3f} {escaped(match.clip)}'
        "</figcaption></figure>"
        for match, picture in zip(matches, pictures, strict=True)
    ]
    told = "The score is a cosine: it ranks what one text finds, and says nothing across texts."
    return (
        f'<div class="dkd"><p class="note" role="status">The {len(figures)} best matches. {told}</p>'
        f'<div class="frames matches">{"".join(figures)}</div></div>'
    )


def player_frame(page: str) -> str:
    """A page within the page, which can reach nothing outside of itself."""
    return f'<iframe class="dkd-player" title="timeline" sandbox="allow-scripts" srcdoc="{escaped(page)}"></iframe>'


def video_address(path: Path) -> str:
    """A video as an address that holds it; "" for one that is too large or that browsers do not play."""
    kind = VIDEO_TYPES.get(path.suffix.lower())
    if kind is None or path.stat().st_size > MAX_VIDEO_BYTES:
        return ""
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
