"""Write a card, or bring new results into the card of a folder or of a Hub repository and leave the rest as it is.

write_card(Path("runs/dkd-tiny"), "dkd/dkd-tiny")                        # the whole card, from the facts of the folder
update_folder(Path("runs/dkd-tiny"), read_results(Path("results.json")))     # evaluate.py --update_card does this
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard

from ..data.plain_files import read_text
from ..data.whole_files import whole_file
from .card_facts import read_facts
from .eval_results import ENTRIES_FOLDER, merge_entry_files, merged_eval_results
from .measured_rows import (
    MEASURED,
    RESULTS_FILE,
    RESULTS_FOLDER,
    SEARCH,
    MeasuredRow,
    check_results,
    condensed,
    file_name,
    newest_rows,
    newest_search_rows,
    read_folder,
    rows_of,
    superseded,
)
from .model_card import render_card, with_results


CARD = "README.md"


def is_card_file(name: str) -> bool:
    """Whether a file of the repository is one that results are read from or written to."""
    folder, _, file = name.rpartition("/")
    in_folder = (folder == RESULTS_FOLDER and file.endswith(".json")) or (
        folder == ENTRIES_FOLDER and file.endswith(".yaml")
    )
    return name in (CARD, RESULTS_FILE) or in_folder


def updated(texts: Mapping[str, str], contents: Mapping[str, Any]) -> dict[str, str | None]:
    """What changes in a repository when results are added: its card, its entries, and the results themselves.

    Args:
        texts: Path inside the repository -> text, of the files for which `is_card_file` holds.
        contents: Results as evaluate.py writes them.

    Returns:
        Path -> new text, or None for a results file of which no row counts any more.

    Raises:
        ValueError: There is no card, or a file that is there cannot be read.
    """
    check_results(contents, "the new results")
    if CARD not in texts:
        raise ValueError(f"there is no {CARD} to update; write one with: dkd card FOLDER")
    contents = condensed(contents)
    name = file_name(contents)
    files = {path: _loaded(path, text) for path, text in texts.items() if path.endswith(".json")} | {name: contents}
    new = rows_of(contents, name)
    entries = {path: text for path, text in texts.items() if path.startswith(f"{ENTRIES_FOLDER}/")}
    changes: dict[str, str | None] = dict.fromkeys(superseded(files))
    card = with_results(texts[CARD], newest_rows(files), new, newest_search_rows(files))
    changes |= {name: as_json(contents), CARD: card}
    return changes | merge_entry_files(entries, new)


def _loaded(name: str, text: str) -> dict[str, Any]:
    """A results file of the repository."""
    try:
        contents = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} in the repository is not valid JSON: {error}") from error
    check_results(contents, name)
    return dict(contents)


def read_texts(folder: Path) -> dict[str, str]:
    """The files of a folder that results are read from or written to."""
    patterns = (CARD, RESULTS_FILE, f"{RESULTS_FOLDER}/*.json", f"{ENTRIES_FOLDER}/*.yaml")
    found = [path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()]
    return {path.relative_to(folder).as_posix(): read_text(path) for path in found}


def update_folder(folder: Path, contents: Mapping[str, Any]) -> list[str]:
    """Bring results into the card of a folder; returns the paths that changed."""
    changes = updated(read_texts(folder), contents)
    write_texts(folder, changes)
    return sorted(changes)


def add_results(folder: Path, contents: Mapping[str, Any]) -> None:
    """Put a results file beside the weights, without touching the card."""
    check_results(contents, "the new results")
    contents = condensed(contents)
    files = read_folder(folder) | {file_name(contents): contents}
    write_texts(folder, {**dict.fromkeys(superseded(files)), file_name(contents): as_json(contents)})


def write_card(folder: Path, repo_id: str) -> str:
    """Write the whole card and the `.eval_results` of a folder, and return the card.

    Entries of the model-index and of `.eval_results` that were not made here stay.
    """
    facts = read_facts(folder, repo_id)
    text = render_card(facts)
    texts = read_texts(folder)
    foreign = [result for result in _eval_results_in(texts.get(CARD)) if not _is_own(result)]
    if foreign:
        card = ModelCard(text)
        data: Any = card.data
        data.eval_results = merged_eval_results(foreign, data.eval_results or [])
        data.model_name = facts.name
        text = f"---\n{data.to_yaml()}\n---\n\n{card.text.lstrip()}"
    entries = {path: old for path, old in texts.items() if path.startswith(f"{ENTRIES_FOLDER}/")}
    write_texts(folder, {CARD: text, **merge_entry_files(entries, facts.rows)})
    return text


def _eval_results_in(text: str | None) -> list[EvalResult]:
    """The model-index of a card; empty where there is none that can be read."""
    if text is None:
        return []
    try:
        data: Any = ModelCard(text, ignore_metadata_errors=True).data
        return list(data.eval_results or [])
    except (ValueError, yaml.YAMLError):
        return []


def _is_own(result: EvalResult) -> bool:
    """Whether a result names the file it comes from, as ours do."""
    return bool((result.metric_args or {}).get("results"))


def weights_revision(folder: Path) -> str:
    """How results name the encoders of a folder: the hash of their weights."""
    import torch

    from ..embedding.clip_encoder import ClipEncoder  # imports the whole model, which the rest here need not wait for

    return ClipEncoder.load(str(folder), "1x1x1", None, torch.float32, torch.device("cpu")).revision


def check_weights(rows: list[MeasuredRow], revision: str | None, where: str) -> None:
    """Refuse figures that were measured with other encoders than those of the card.

    Args:
        rows: What was measured; each names the revision of its encoders.
        revision: Of the encoders in the repository; None where it cannot be told.
        where: The repository, for the message.

    Raises:
        ValueError: A row names no encoders, or others.
    """
    for row in rows:
        measured = row.data.get("revision")
        if measured is None:
            raise ValueError(
                f"the results on {row.data['name']} do not say which encoders they belong to, so they cannot go into "
                f"the card of {where}; measure with --model, or on a cache that evaluate.py wrote"
            )
        if revision is not None and measured != revision:
            raise ValueError(
                f"the results on {row.data['name']} were measured with the encoders {measured}, but {where} holds "
                f"{revision}: measure again with --model {where}"
            )


def write_texts(folder: Path, changes: Mapping[str, str | None]) -> None:
    """Write or remove files, each in one go."""
    for name, text in changes.items():
        path = folder / name
        if text is None:
            path.unlink(missing_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as unfinished:
            unfinished.write_text(text, encoding="utf-8")


def as_json(contents: Mapping[str, Any]) -> str:
    """Text of condensed results, a line for each row."""
    lists = [
        f'"{kept}": [\n' + ",\n".join(json.dumps(row, ensure_ascii=False) for row in contents[kept]) + "\n]"
        for kept in (MEASURED, SEARCH)
        if kept in contents
    ]
    environment = json.dumps(contents["environment"], ensure_ascii=False)
    return f'{{"environment": {environment},\n' + ",\n".join(lists) + "}\n"
