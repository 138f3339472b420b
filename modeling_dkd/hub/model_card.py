"""The model card: facts in, Markdown out; and the part of a card that new results replace.

text = render_card(read_facts(folder, "dkd/clip-vit-b16-ucf101"))
text = with_results(text, rows)
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml
from huggingface_hub import ModelCard, ModelCardData

from ..domain_card import escape_markdown
from .card_facts import MODEL_TYPE, PROMPTS_FILE, CardFacts
from .eval_results import TASK, eval_results, merged_eval_results
from .measured_rows import MeasuredRow, SearchRow


TEMPLATE = Path(__file__).with_suffix(".md.jinja")
RESULTS_START, RESULTS_END = "<!-- results: start -->", "<!-- results: end -->"
NOT_EVALUATED = "Not evaluated: no results file lies in this repository."
METHODS = {
    "zero-shot": "the encoders alone, without a domain",
    "both_centred": "mean video and mean text taken away, nothing else",
    "transclip": "TransCLIP, fitted on the test clips",
    "stata": "StatA, fitted on the test clips",
    "gda": "Gaussian discriminant analysis on labelled clips",
    "gmm": "posterior of a mixture with the text prior",
    "mean_shift": "mean shift",
    "dkd": "DKD: a head fitted on the domain that the row names",
    "fine-tuned": "fine-tuned encoders, without a domain",
    "fine-tuned/dkd": "fine-tuned encoders with DKD",
}


def format_bytes(count: int) -> str:
    """A size for people: KB below one MB."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} KB"


def template(path: Path) -> jinja2.Template:
    """A template from a file, with the filters that make values safe in Markdown, Python and tables."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(path.parent),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # the filter md escapes for Markdown, which autoescape does not
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"md": escape_markdown, "py": json.dumps, "size": format_bytes}
    return environment.get_template(path.name)


def render_card(facts: CardFacts) -> str:
    """The whole card: metadata with the model-index, and prose from the template."""
    body = template(TEMPLATE).render(
        facts=facts, prompts_file=PROMPTS_FILE, results=f"{RESULTS_START}\n{NOT_EVALUATED}\n{RESULTS_END}"
    )
    text = f"---\n{metadata(facts).to_yaml()}\n---\n\n{body}"
    return with_results(text, facts.rows, searches=facts.searches) if facts.rows else text


def metadata(facts: CardFacts) -> ModelCardData:
    """The card's YAML without results."""
    licence: dict[str, Any] = {"license": "apache-2.0"}
    if facts.base_model:
        link = f"https://huggingface.co/{facts.base_model}"
        licence = {"license": "other", "license_name": "that-of-the-base-model", "license_link": link}
    elif not facts.trained_from_nothing:
        licence = {"license": "unknown"}
    return ModelCardData(
        **licence,
        library_name="transformers",
        pipeline_tag=TASK,
        tags=["dkd", "video", "zero-shot", "action-recognition", facts.model_type, MODEL_TYPE],
        base_model=facts.base_model,
        model_name=facts.name,
    )


def with_results(
    text: str,
    rows: Sequence[MeasuredRow],
    new: Sequence[MeasuredRow] | None = None,
    searches: Sequence[SearchRow] = (),
) -> str:
    """A card with its table of results and its model-index brought up to date, all else as it was.

    Args:
        text: A card with metadata; one without a place for results gets it at its end.
        rows: All rows of the repository, for the table.
        new: Those that go into the model-index, whose other entries stay; None for `rows`.
        searches: Rows of search of the repository, for the table.

    Raises:
        ValueError: The metadata cannot be read.
    """
    try:
        card = ModelCard(text)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"the metadata of the card cannot be read: {' '.join(str(error).split())}") from error
    data: Any = card.data
    data.model_name = data.model_name or "DKD"
    present: list = list(data.eval_results or [])
    data.eval_results = merged_eval_results(present, eval_results(rows if new is None else new))
    section = f"{RESULTS_START}\n{results_section(rows, searches)}\n{RESULTS_END}"
    body = card.text.lstrip("\n")
    start, end = body.find(RESULTS_START), body.find(RESULTS_END)
    if 0 <= start < end:
        body = body[:start] + section + body[end + len(RESULTS_END) :]
    else:
        body = f"{body.rstrip()}\n\n## Results\n\n{section}\n"
    return f"---\n{data.to_yaml()}\n---\n\n{body}"


def results_section(rows: Sequence[MeasuredRow], searches: Sequence[SearchRow] = ()) -> str:
    """All rows as tables, and what stands behind them."""
    if not rows:
        return NOT_EVALUATED
    # Rows of one data set under one set of conditions form a block; many blocks share their conditions.
    conditions = list(dict.fromkeys(_described(row) for row in rows))
    blocks = dict.fromkeys((row.data["name"], _described(row)) for row in rows)
    lines = [
        "Accuracies in percent, mean over seeds; sd between seeds. Gain: paired difference of top-1 to zero-shot on",
        "the same clips, in points, with its standard error; worst: of the worst seed, as for the rise of the",
        "calibration error (ECE) over zero-shot's. (1), (2) ...: see below.",
        "",
        "| data | protocol | method | top-1 | sd | gain | worst | top-5 | mean class | ECE | worst | seeds | N |",
        f"|---|---|---|{'---:|' * 10}",
    ]
    for name, condition in blocks:
        title = f"{escape_markdown(name)} ({conditions.index(condition) + 1})"
        for row in rows:
            if row.data["name"] == name and _described(row) == condition:
                lines.append(_table_row(row, title))
                title = ""
    lines += ["", *(f"{number}. {condition}" for number, condition in enumerate(conditions, 1))]
    lines += [*_open_table(rows), *_search_table(searches)]
    everything: list[MeasuredRow | SearchRow] = [*rows, *searches]
    methods = [m for m in dict.fromkeys(row.method for row in everything) if m in METHODS]
    lines += ["", "Methods: " + "; ".join(f"{escape_markdown(m)}: {METHODS[m]}" for m in methods) + "."]
    lines += ["", "Where the figures come from:", ""]
    lines += [f"- {line}" for line in dict.fromkeys(_origin(row) for row in everything)]
    return "\n".join(lines)


def _open_table(rows: Sequence[MeasuredRow]) -> list[str]:
    """How well clips of none of the classes are told; nothing where that was not measured."""
    measured = [row for row in rows if row.auroc is not None and row.known_ece is not None]
    if not measured:
        return []
    return [
        "",
        "Clips of none of the classes, in percent. Half of the classes are asked, and clips of all are there",
        "(protocol open). AUROC: of `known`, without a domain of the largest probability, as what tells clips of the",
        "classes asked from the others; and its calibration error.",
        "",
        "| data | method | AUROC | calibration error | seeds |",
        "|---|---|---:|---:|---:|",
        *(
            f"| {escape_markdown(row.data['name'])} | {_bold(row.method)} | {100 * (row.auroc or 0):.1f} "
            f"| {100 * (row.known_ece or 0):.1f} | {len(row.seeds)} |"
            for row in measured
        ),
    ]


def _search_table(searches: Sequence[SearchRow]) -> list[str]:
    """How well texts find their clips; nothing where that was not measured."""
    if not searches:
        return []
    return [
        "",
        "Search by text, in percent. The domain: the clips that are searched, unlabelled. New texts: the domain was",
        "fitted with every second text, and the others search.",
        "",
        "| data | texts | method | mean average precision | first clip right | N |",
        "|---|---|---|---:|---:|---:|",
        *(
            f"| {escape_markdown(row.data['name'])} | {escape_markdown(row.texts)} | {_bold(row.method)} "
            f"| {100 * row.map:.1f} | {100 * row.recall_at_1:.1f} | {row.n:g} |"
            for row in searches
        ),
    ]


def _bold(method: str) -> str:
    """The name of a method, bold for DKD."""
    name = escape_markdown(method)
    return f"**{name}**" if method.split("/")[-1] == "dkd" else name


def _table_row(row: MeasuredRow, title: str) -> str:
    """One method; its block is named in the first row alone."""
    bold = "**" if row.method.split("/")[-1] == "dkd" else ""
    gain = "" if row.gain is None else f"{100 * row.gain:+.2f} ± {100 * (row.gain_error or 0):.2f}"
    cells = (
        title,
        escape_markdown(row.protocol_name) if title else "",
        f"{bold}{escape_markdown(row.method)}{bold}",
        f"{bold}{100 * row.top1:.2f}{bold}",
        "" if row.spread is None else f"{100 * row.spread:.2f}",
        gain,
        _points(row.worst_gain),
        f"{100 * row.top5:.2f}",
        f"{100 * row.mean_class:.2f}",
        f"{100 * row.ece:.2f}",
        _points(row.worst_ece_change),
        str(len(row.seeds)),
        f"{row.n:g}",
    )
    return f"| {' | '.join(cells)} |"


def _points(difference: float | None) -> str:
    return "" if difference is None else f"{100 * difference:+.2f}"


def _described(row: MeasuredRow) -> str:
    """Everything that makes figures comparable, as a sentence."""
    data = row.data
    prompts = data.get("prompts")
    said = f"{len(prompts)} prompts" if isinstance(prompts, list) else prompts
    parts = (
        f"split {data['split']}" if data.get("split") else None,
        f"{data.get('classes')} classes",
        f"{data['frames']} frames x crops x clips" if data.get("frames") else None,
        f"prompts: {said}" if said else None,
        f"domain: {data.get('domain')}",
        f"encoders {data.get('backbone')} {data.get('revision') or ''}".rstrip() if data.get("backbone") else None,
    )
    text = ", ".join(str(part) for part in parts if part)
    return escape_markdown(f"protocol {row.protocol_name}, {text}")


def _origin(row: MeasuredRow | SearchRow) -> str:
    """The results file, what wrote it and with which versions."""
    environment = row.environment
    versions = environment.get("versions") or {}
    command = " ".join(str(part) for part in environment.get("command") or ())
    used = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers") if versions.get(name))
    parts = (
        f"commit {environment['commit']}" if environment.get("commit") else None,
        used or None,
        f"threads: {environment['threads']}" if environment.get("threads") else None,
        str(environment.get("date") or "") or None,
    )
    said = escape_markdown("; ".join(part for part in parts if part))
    ran = f" by {code_span(command)}" if command else ""
    return f"{code_span(row.source)}{ran}; {said}"


def code_span(text: str) -> str:
    """Text as inline code, whatever backticks it holds."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * (longest + 1)
    padding = " " if longest else ""
    return f"{fence}{padding}{' '.join(text.split())}{padding}{fence}"
