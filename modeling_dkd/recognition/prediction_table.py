"""Predictions as a table: CSV, JSON lines or Parquet, with the same columns."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..data.whole_files import whole_file
from .predictions import NUM_RUNNERS_UP, Prediction


NUMBERS = ("confidence", "known", "zero_shot_confidence")
COLUMNS = (
    *("clip", "label", "confidence", "known", "zero_shot_label", "zero_shot_confidence"),
    *(f"label_{place}" for place in range(2, 2 + NUM_RUNNERS_UP)),
    "error",
)


def row_of(prediction: Prediction) -> dict[str, Any]:
    """Values of the columns; None for what there is not."""
    runners_up = [*prediction.runners_up, *[None] * (NUM_RUNNERS_UP - len(prediction.runners_up))]
    row = {name: getattr(prediction, name) for name in COLUMNS[:6]}
    row |= {name: None if row[name] is None else round(row[name], 6) for name in NUMBERS}
    row |= dict(zip(COLUMNS[6:-1], runners_up, strict=True))
    return row | {"error": prediction.error or None}


def csv_lines(rows: Iterable[dict[str, Any]], columns: Sequence[str], header: bool) -> str:
    """CSV with a header or without."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def json_lines(rows: Iterable[dict[str, Any]]) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_table(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write a table whole or not at all.

    Args:
        path: Ends in .csv, .jsonl or .parquet, one of `TABLE_ENDINGS`.
        predictions: One a row.

    Raises:
        OSError: The disk refuses; a table that was there before stays.
    """
    rows = [row_of(prediction) for prediction in predictions]
    with whole_file(path) as unfinished:
        if path.suffix.lower() == ".parquet":
            _write_parquet(unfinished, rows)
        else:
            is_csv = path.suffix.lower() == ".csv"
            text = csv_lines(rows, COLUMNS, header=True) if is_csv else json_lines(rows)
            unfinished.write_text(text, encoding="utf-8", newline="")


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [pa.field(name, pa.float64() if name in NUMBERS else pa.string()) for name in COLUMNS]
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(fields)), path)
