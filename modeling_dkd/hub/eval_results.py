"""Measured rows in both forms that the Hub reads: the card's model-index and `.eval_results/*.yaml`.

Both carry plain zero-shot beside DKD; each entry names its method. Entries of others are left alone:
only what has the same data set, configuration, split and metric is replaced.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml, parse_eval_result_entries

from .measured_rows import MeasuredRow


TASK = "video-classification"
ENTRIES_FOLDER = ".eval_results"
# The model with its encoders as they came, fine-tuned or in between, each without and with its domain.
OWN_METHODS = re.compile(r"dkd|(zero-shot|fine-tuned|interpolated-[\d.]+)(/dkd)?")


def eval_results(rows: Iterable[MeasuredRow]) -> list[EvalResult]:
    """Top-1 of the model's own rows, without and with a domain, as fractions for the model-index: what people compare.

    The Hub joins those of one data set under one set of conditions into one entry. Peers, other measures and what was
    fitted on what stand in the card's table.
    """
    return [
        EvalResult(
            task_type=TASK,
            task_name="Video action recognition",
            dataset_type=_dataset_id(row),
            dataset_name=str(row.data["name"]),
            dataset_config=f"{_config(row)}, {_domain(row)}",
            dataset_split=str(row.data.get("split") or "all"),
            dataset_revision=row.data.get("data_revision"),
            metric_type="accuracy",
            metric_name=f"top-1, {row.method}",
            metric_value=row.top1,
            metric_args={"seeds": len(row.seeds), "n": row.n, "results": row.source},
        )
        for row in own_rows(rows)
    ]


def own_rows(rows: Iterable[MeasuredRow]) -> list[MeasuredRow]:
    """Rows of the model itself and of its plain encoders; peers are measured beside it, but are not it.

    Those of the protocol `open` ask half of the classes of a set, and are told apart by other figures than top-1.
    """
    return [row for row in rows if OWN_METHODS.fullmatch(row.method) and row.auroc is None]


def merged_eval_results(present: Iterable[EvalResult], new: Iterable[EvalResult]) -> list[EvalResult]:
    """Present results with the new ones in the places of those that measure the same."""
    merged = {_identity(result): result for result in present}
    # A data set that has changed since is another revision, but its older figure must not stand beside the newer one.
    merged |= {_identity(result): result for result in new}
    return list(merged.values())


def _identity(result: EvalResult) -> tuple[str, ...]:
    """What a figure is of; as text, for a card that somebody has edited may hold lists."""
    parts = (
        result.task_type,
        result.dataset_type,
        result.dataset_config,
        result.dataset_split,
        result.metric_type,
        result.metric_name,
    )
    return tuple(map(str, parts))


def entry_files(rows: Iterable[MeasuredRow]) -> dict[str, list[EvalResultEntry]]:
    """Top-1 of the same rows as entries of `.eval_results/`, one file a data set.

    Returns:
        Path inside the repository -> entries.
    """
    files: dict[str, list[EvalResultEntry]] = {}
    for row in own_rows(rows):
        name = re.sub(r"[^A-Za-z0-9]+", "-", str(row.data["name"])).strip("-").lower() or "data"
        seeds = f"{len(row.seeds)} seed" + ("s" if len(row.seeds) > 1 else "")
        entry = EvalResultEntry(
            dataset_id=_dataset_id(row),
            task_id=f"{row.data.get('split') or 'all'}, {_config(row)}, {row.method}, {_domain(row)}",
            value=row.top1,
            dataset_revision=row.data.get("data_revision"),
            date=row.date or None,
            notes=f"top-1 accuracy, {row.method}; {_domain(row)}; N {row.n:g}, {seeds}; {row.source}",
        )
        files.setdefault(f"{ENTRIES_FOLDER}/{name}.yaml", []).append(entry)
    return files


def merged_entries(present: str, new: Sequence[EvalResultEntry], name: str) -> str:
    """Text of an `.eval_results` file with the new entries in the places of those of the same data set and task.

    Raises:
        ValueError: The present text is not such a file.
    """
    try:
        loaded = yaml.safe_load(present) or []
        if not isinstance(loaded, list):
            raise ValueError("it is no list")
        kept = parse_eval_result_entries(loaded)
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{name} is no list of evaluation results ({error}): mend or remove it") from error
    merged = {(entry.dataset_id, entry.task_id): entry for entry in [*kept, *new]}
    return yaml.safe_dump(eval_result_entries_to_yaml(list(merged.values())), sort_keys=False, allow_unicode=True)


def merge_entry_files(present: Mapping[str, str], rows: Iterable[MeasuredRow]) -> dict[str, str]:
    """Texts of the `.eval_results` files that the rows touch.

    Args:
        present: Path inside the repository -> text, of the files that are there.
        rows: What was measured.
    """
    return {name: merged_entries(present.get(name, ""), new, name) for name, new in entry_files(rows).items()}


def _dataset_id(row: MeasuredRow) -> str:
    """The data set as the Hub would call it: a name without blanks."""
    return re.sub(r"\s+", "-", str(row.data["name"]).strip())


def _config(row: MeasuredRow) -> str:
    """Label space, views, prompts and protocol: what makes two figures on one split comparable."""
    data: Mapping[str, Any] = row.data
    prompts = data.get("prompts")
    shown = f"{len(prompts)} prompts" if isinstance(prompts, list) else prompts
    parts = (f"{data.get('classes')} classes", data.get("frames"), shown, row.protocol_name)
    return ", ".join(str(part) for part in parts if part)


def _domain(row: MeasuredRow) -> str:
    """What DKD and the peers were fitted on."""
    return f"domain: {row.data.get('domain') or 'not recorded'}"
