"""The card of a domain on the Hub: a table of its classes, a picture of it, and what it tells about single clips."""

import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from torch import Tensor

from .domain_file import DOMAIN_FILE, StoredDomain, read_domain
from .mixture_options import MixtureOptions


CARD_FILE, PICTURE_FILE = "README.md", "classes.svg"
# Classes that a picture shows, and how large, in pixels.
BARS, BAR_HEIGHT, NAME_WIDTH, BAR_WIDTH = 40, 18, 220, 360
# A class with fewer clips is named in the card.
FEW_CLIPS = 5


def escape_markdown(value: Any) -> str:
    """Any value as one line of Markdown text that is neither markup nor HTML, nor ends a table cell."""
    text = " ".join(str(value).split())
    return re.sub(r"([\\`*_\[\]|~#!])", r"\\\1", html.escape(text, quote=False))


def clips_per_class(tensors: Mapping[str, Tensor]) -> tuple[float, float, list[float]]:
    """Number of clips of a domain, how many of them were labelled, and clips of each of its K components."""
    # The head counts a labelled clip several times.
    num_labelled = float(tensors["num_labelled"]) / MixtureOptions().labelled_weight
    num_clips = float(tensors["num_samples"]) - float(tensors["num_labelled"]) + num_labelled
    counts = tensors["counts"]
    if not num_clips:  # components that are no classes: only their counts are kept
        num_clips = float(counts.sum())
    return num_clips, num_labelled, (num_clips * counts / counts.sum()).tolist()


def write_domain_card(folder: str | Path, repo_id: str) -> str:
    """Write the card of the domain in a folder, and its picture beside it; returns the card.

    Args:
        folder: Holds the file of a domain.
        repo_id: What the card calls it, as owner/name.

    Raises:
        ValueError: There is no domain.
    """
    path = Path(folder) / DOMAIN_FILE
    domain = read_domain(path, str(path))
    card = render_domain_card(domain, repo_id, path.stat().st_size)
    (Path(folder) / CARD_FILE).write_text(card, encoding="utf-8")
    (Path(folder) / PICTURE_FILE).write_text(render_picture(domain), encoding="utf-8")
    return card


def render_domain_card(domain: StoredDomain, repo_id: str, num_bytes: int) -> str:
    """The card of a domain as Markdown with metadata."""
    num_clips, num_labelled, clips = clips_per_class(domain.tensors)
    encoder = domain.encoder
    base = encoder.name if encoder is not None and "/" in encoder.name else None
    data = ModelCardData(
        library_name="modeling-dkd",
        pipeline_tag="video-classification",
        tags=["dkd", "dkd-domain", "video", "zero-shot", "action-recognition"],
        base_model=base,
        base_model_relation="adapter" if base else None,
    )
    strengths = domain.tensors["class_strength"].tolist()
    names = component_names(domain)
    rows = sorted(zip(names, clips, strengths, strict=True), key=lambda row: -row[1])
    table = [f"| {escape_markdown(name)} | {count:.1f} | {strength:.2f} |" for name, count, strength in rows]
    labelled = f", {num_labelled:.0f} of them labelled" if num_labelled else ", none of them labelled"
    return "\n".join(
        [
            f"---\n{data.to_yaml()}\n---\n",
            f"# {escape_markdown(repo_id.rsplit('/', 1)[-1])}\n",
            f"A domain for DKD, which makes a CLIP-like dual encoder a video action recogniser that knows where it "
            f"works: statistics of {num_clips:.0f} video clips{labelled}, {len(names)} classes, {num_bytes / 1e3:.0f} "
            "kB. It holds no video and no frame.\n",
            "## Use\n",
            f"It belongs to the encoder {escape_markdown(encoder)}; another one is refused.\n"
            if encoder is not None
            else "Which encoder it belongs to was not written down; embeddings of another one mean nothing to it.\n",
            "```python",
            "from modeling_dkd import DKDCLIPModel\n",
            f"model = DKDCLIPModel.from_backbone({base or 'OWNER/ENCODER'!r})",
            f"model.load_domain({repo_id!r})  # revision=... pins a commit",
            "```\n",
            f"With embeddings alone: `DKDHead.from_pretrained({repo_id!r})`. On the command line: "
            f"`dkd recognise CLIPS --model {base or 'MODEL'} --domain {repo_id}`.\n",
            "## Classes\n",
            f"![Clips of each class]({PICTURE_FILE})\n",
            "Clips: how many spoke for the class, by responsibility. Strength: weight of these clips in the class's "
            "mean, 0 (its text alone) to 1.\n",
            "| class | clips | strength |",
            "|---|---:|---:|",
            *table,
            "",
            "## What it tells about single clips\n",
            _disclosure(domain, rows),
            "",
        ]
    )


def component_names(domain: StoredDomain) -> list[str]:
    """Names of the K components: of classes, or numbers where none are known."""
    kind = "class" if float(domain.tensors["anchored"]) > 0 else "component"
    numbered = [f"{kind} {k}" for k in range(len(domain.tensors["counts"]))]
    return domain.class_names or numbered


def _disclosure(domain: StoredDomain, rows: list[tuple[str, float, float]]) -> str:
    """What can be computed from the file about single clips."""
    if domain.min_clips:
        withheld = sum(count == 0 for _, count, _ in rows)
        return (
            f"Classes of fewer than {domain.min_clips} clips were withheld: their clips were left out before the fit, "
            f"and {withheld} classes of the table are at their text alone. Of the others the file has the mean "
            f"embedding of at least {domain.min_clips} clips each, and the scatter of all clips together."
        )
    few = [name for name, count, _ in rows if 0.5 <= count < FEW_CLIPS]
    named = ", ".join(escape_markdown(name) for name in few[:10]) + (" ..." if len(few) > 10 else "")
    said = (
        "Means and scatter of embeddings can be computed from the file. The mean of a class with one clip is the "
        "embedding of this clip, from which its subject can be told and its picture be guessed; few clips hardly hide "
        "each other. "
    )
    said += f"Classes with fewer than {FEW_CLIPS} clips: {named or 'none'}. "
    return said + "`min_clips` of `push_to_hub` withholds such classes."


def render_picture(domain: StoredDomain) -> str:
    """Clips of each class as horizontal bars, an SVG picture; the classes with most clips where there are many."""
    _, _, clips = clips_per_class(domain.tensors)
    rows = sorted(zip(component_names(domain), clips, strict=True), key=lambda row: -row[1])[:BARS]
    most = max(count for _, count in rows) or 1.0
    width, height = NAME_WIDTH + BAR_WIDTH + 70, BAR_HEIGHT * len(rows) + 30
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{NAME_WIDTH}" y="16" font-weight="bold">clips of each class ({len(rows)} of {len(clips)})</text>',
    ]
    for row, (name, count) in enumerate(rows):
        y, length = 26 + BAR_HEIGHT * row, BAR_WIDTH * count / most
        short = name if len(name) <= 32 else f"{name[:31]}…"
        # What XML cannot hold at all, such as control characters, is left out.
        shown = html.escape("".join(sign for sign in short if sign.isprintable()))
        lines += [
            f'<text x="{NAME_WIDTH - 6}" y="{y + 12}" text-anchor="end">{shown}</text>',
            f'<rect x="{NAME_WIDTH}" y="{y}" width="{length:.1f}" height="{BAR_HEIGHT - 4}" fill="#4477aa"/>',
            f'<text x="{NAME_WIDTH + length + 4:.1f}" y="{y + 12}">{count:.1f}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])
