"""A comparison as HTML: bars, frames and remarks, in which nothing that a visitor typed is taken for markup."""

import base64
import html
import io

import numpy as np
from PIL import Image

from ..data.counting import counted
from .comparison import Clip, Comparison


MAX_ROWS = 12
CSS = """
.dkd { font-variant-numeric: tabular-nums; }
.dkd table { width: 100%; border: 0 !important; border-collapse: collapse; margin: 0; table-layout: fixed; }
.dkd tr { border: 0 !important; }
.dkd th, .dkd td { border: 0 !important; padding: 0.3rem 0.4rem; text-align: left; vertical-align: middle; }
.dkd thead th { font-weight: 600; }
.dkd tbody th { font-weight: 400; }
.dkd .label { width: 34%; overflow-wrap: anywhere; }
.dkd .moved { width: 5.2rem; text-align: right; }
.dkd .best { font-weight: 700; }
.dkd .track { background: var(--border-color-primary); border-radius: 3px; height: 0.7rem; }
.dkd .bar { height: 100%; border-radius: 3px; min-width: 1px; }
.dkd .zero-shot .bar { background: #8c8c8c; }
.dkd .known .bar { background: #1b7837; }
.dkd .share { font-size: 0.85em; }
.dkd .frames { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 0.4rem; max-width: 30rem; }
.dkd figure { margin: 0; text-align: center; font-size: 0.8em; }
.dkd figure img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: #000; }
.dkd .clips { table-layout: auto; }
.dkd .clips th, .dkd .clips td { border-bottom: 1px solid var(--border-color-primary) !important; }
.dkd .clips th:first-child { width: 40%; }
.dkd .clips tbody th, .dkd .clips .error { overflow-wrap: anywhere; }
.dkd .clips td del { display: none; }
.dkd .clips .changed td:last-child { text-decoration: line-through; }
.dkd .frames.matches { grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); max-width: none; }
.dkd .matches figcaption { overflow-wrap: anywhere; }
.dkd-player { width: 100%; height: 42rem; border: 1px solid var(--border-color-primary); border-radius: 6px; }
.dkd .note { margin: 0.4rem 0; }
.dkd .error { color: #b2182b; font-weight: 600; }
.dark .dkd .error { color: #ff8a80; }
.dark .dkd .known .bar { background: #5aae61; }
#examples .grid-container { grid-template-columns: repeat(3, minmax(0, 1fr)) !important; }
#examples .caption-label { max-width: 100%; font-size: 0.7rem; padding: 0.15rem 0.4rem; }
#examples .grid-wrap { height: auto !important; min-height: 0 !important; max-height: none !important; }
@media (max-width: 520px) {
  .dkd th, .dkd td { padding: 0.3rem 0.2rem; }
  .dkd .moved { width: 3.6rem; }
  .dkd .label { width: 30%; }
  .dkd .clips { font-size: 0.8rem; table-layout: fixed; }
  .dkd .clips th:first-child { width: 36%; }
  .dkd .clips th:nth-child(2) { width: 30%; }
  .dkd .clips td { overflow-wrap: anywhere; }
  .dkd .clips th:nth-child(5), .dkd .clips td:nth-child(5) { display: none; }
  .dkd .clips td del { display: block; }
  .gradio-container .app { padding-left: 1rem !important; padding-right: 1rem !important; }
  .tab-container button { padding: 0 0.25rem !important; font-size: 0.85rem; }
}
"""


def escaped(text: str) -> str:
    """Text that no browser and no template takes for markup."""
    return html.escape(text).translate({ord(mark): f"&#{ord(mark)};" for mark in "{}$`"})


def note(text: str, is_error: bool = False) -> str:
    """One remark."""
    kind, role = ("note error", "alert") if is_error else ("note", "status")
    return f'<div class="dkd"><p class="{kind}" role="{role}">{escaped(text)}</p></div>'


def comparison_table(comparison: Comparison) -> str:
    """Bars of plain zero-shot beside those of DKD, the likeliest labels of DKD first."""
    order = np.argsort([-share for share in comparison.dkd], kind="stable").tolist()
    best = max(range(len(order)), key=comparison.zero_shot.__getitem__), order[0]
    strengths = comparison.text_strengths
    rows = []
    for index in order[:MAX_ROWS]:
        cells = [f'<th scope="row" class="label">{escaped(comparison.labels[index])}</th>']
        for kind, shares, winner in zip(
            ("zero-shot", "known"), (comparison.zero_shot, comparison.dkd), best, strict=True
        ):
            cells.append(_bar(kind, shares[index], index == winner))
        if strengths is not None:
            cells.append(f'<td class="moved">{strengths[index]:.2f}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    head = '<th class="label">label</th><th>zero-shot</th><th>DKD</th>'
    head += '<th class="moved">text moved</th>' if strengths is not None else ""
    rest = len(order) - MAX_ROWS
    more = f'<p class="note">{rest} less likely labels are not shown.</p>' if rest > 0 else ""
    return (
        f'<div class="dkd"><p class="note" role="status">{_summary(comparison)}</p>'
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{more}</div>"
    )


def clip_frames(clip: Clip) -> str:
    """The frames that were used; they are part of the page, so that no file of a visitor stays behind."""
    figures = []
    for frame, time in zip(clip.thumbnails, clip.times.tolist(), strict=True):
        caption = "" if np.isnan(time) else f"<figcaption>{time:.2f} s</figcaption>"
        figures.append(f'<figure><img alt="frame" src="{_data_uri(frame)}">{caption}</figure>')
    damage = f" ({clip.damage})" if clip.damage else ""
    return (
        f'<div class="dkd"><p class="note">{counted(len(figures), "frame")} of {escaped(clip.name + damage)}</p>'
        f'<div class="frames">{"".join(figures)}</div></div>'
    )


def _summary(comparison: Comparison) -> str:
    if not comparison.domain:
        return "No domain is known, so DKD is plain zero-shot. Give it clips of your domain below."
    moved = f"the video was moved with strength {comparison.video_strength:.2f}"
    return f"Domain: {escaped(comparison.domain)}; {moved} (0: not at all, 1: all the way)."


def _bar(kind: str, share: float, is_best: bool) -> str:
    percent = f"{100 * share:.1f}"
    best = " best" if is_best else ""
    return (
        f'<td class="{kind}{best}"><div class="track"><div class="bar" style="width:{percent}%"></div></div>'
        f'<span class="share">{percent} %</span></td>'
    )


def _data_uri(frame: np.ndarray) -> str:
    """A picture as part of a page."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
