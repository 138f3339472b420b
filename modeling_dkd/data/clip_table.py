"""Clips as a table: columns for all of them, from which a record is made when it is asked for.

A million records as Python objects take a GiB and as long to hand to each decoding process; as columns they are some
hundred MiB that are copied at once.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .video_files import VideoRecord


# Names and paths may hold what is no UTF-8, so all texts are bytes here; paths of archives, groups and splits repeat.
TEXT = pa.large_binary()
REPEATED = pa.dictionary(pa.int32(), TEXT)
_SCHEMA = pa.schema(
    {
        "path": REPEATED,
        "name": TEXT,
        "label": pa.int32(),
        "group": REPEATED,
        "split": REPEATED,
        "start": pa.float64(),
        "end": pa.float64(),
        "offset": pa.int64(),
        "size": pa.int64(),
    }
)
_CHUNK = 2**14  # records that are Python objects at a time


class ClipTable(Sequence[VideoRecord]):
    """A sequence of `VideoRecord`s, equal to any other of the same records.

    Args:
        columns: One for each field of a record.
    """

    def __init__(self, columns: pa.Table) -> None:
        self.columns = columns

    @classmethod
    def of(cls, records: Iterable[VideoRecord] = ()) -> "ClipTable":
        """The table of these records, in their order."""
        rows = ClipRows()
        for record in records:
            rows.append(record)
        return rows.table()

    @property
    def labels(self) -> np.ndarray:
        """Class of each clip, (N,) int32; -1 unknown."""
        return self.columns["label"].to_numpy()

    @property
    def distinct_paths(self) -> Iterator[str]:
        """The files that hold the clips, each once."""
        return (path.as_py().decode(errors="surrogatepass") for path in pc.unique(self.columns["path"]))

    @property
    def splits(self) -> set[str]:
        """The splits that occur."""
        return {split.decode() for split in pc.unique(self.columns["split"]).to_pylist()}

    def of_split(self, split: str) -> "ClipTable":
        """The clips of one split."""
        return ClipTable(self.columns.filter(pc.equal(self.columns["split"], split.encode())))

    def relabelled(self, new_label: dict[int, int]) -> "ClipTable":
        """The clips whose label is a key, with the label that it leads to."""
        labels = self.labels
        kept = np.flatnonzero(np.isin(labels, list(new_label)))
        values = np.array([new_label[label] for label in labels[kept].tolist()], dtype=np.int32)
        table = self if len(kept) == len(labels) else self[kept]
        return table._with("label", pa.array(values))

    def with_splits(self, new_split: dict[str, str]) -> "ClipTable":
        """The same clips, each split that is a key called what it leads to."""
        column = self.columns["split"].combine_chunks()
        names = [split.decode() for split in column.dictionary.to_pylist()]
        renamed = _packed([new_split.get(name, name) for name in names], TEXT).take(column.indices)
        return self._with("split", renamed.dictionary_encode())

    def with_files(self, files: pa.Table) -> "ClipTable":
        """The same clips in other places: the columns path, offset and size, a row a clip."""
        return self._with("path", files["path"])._with("offset", files["offset"])._with("size", files["size"])

    def sorted_by_name(self) -> "ClipTable":
        """The same clips by name, code point by code point, as Python sorts texts."""
        return ClipTable(self.columns.take(pc.sort_indices(self.columns["name"])))

    def _with(self, name: str, column: pa.Array | pa.ChunkedArray) -> "ClipTable":
        """The same clips with another column of this name."""
        return ClipTable(self.columns.set_column(self.columns.schema.get_field_index(name), name, column))

    def __len__(self) -> int:
        return self.columns.num_rows

    @overload
    def __getitem__(self, where: int) -> VideoRecord: ...

    @overload
    def __getitem__(self, where: slice | np.ndarray) -> "ClipTable": ...

    def __getitem__(self, where: int | slice | np.ndarray) -> "VideoRecord | ClipTable":
        """The record at a position, or the table of those at several."""
        if isinstance(where, slice):
            where = np.arange(len(self))[where]
        if isinstance(where, np.ndarray):
            return ClipTable(self.columns.take(where))
        position = range(len(self))[where]
        return next(self._records(self.columns.slice(position, 1)))

    def __iter__(self) -> Iterator[VideoRecord]:
        return self._records(self.columns)

    @staticmethod
    def _records(columns: pa.Table) -> Iterator[VideoRecord]:
        return map(VideoRecord._make, rows_of(columns))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(own == its for own, its in zip(self, other, strict=True))

    def __repr__(self) -> str:
        return f"ClipTable({len(self)} clips)"


class Rows:
    """Collects tuples into a table without keeping them."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._batches: list[pa.RecordBatch] = []
        self._rows: list[tuple] = []

    def append(self, row: tuple) -> None:
        """Add a row, with a value for each column."""
        self._rows.append(row)
        if len(self._rows) == _CHUNK:
            self._pack()

    def table(self) -> pa.Table:
        """The table of all that was added, which is not kept here."""
        self._pack()
        batches, self._batches = self._batches, []
        return pa.Table.from_batches(batches, self._schema).unify_dictionaries().combine_chunks()

    def _pack(self) -> None:
        columns = zip(*self._rows, strict=True) if self._rows else [()] * len(self._schema)
        arrays = [_packed(values, field.type) for values, field in zip(columns, self._schema, strict=True)]
        self._batches.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        self._rows = []


class ClipRows:
    """Collects records into a table without keeping them."""

    def __init__(self) -> None:
        self._rows = Rows(_SCHEMA)

    def append(self, record: VideoRecord) -> None:
        """Add a row."""
        self._rows.append(record)

    def table(self) -> ClipTable:
        """The table of all that was added, which is not kept here."""
        return ClipTable(self._rows.table())


class ClassedRows:
    """Collects records with the names of their classes, which are numbered in the end."""

    def __init__(self) -> None:
        self._rows = ClipRows()
        self._numbers: dict[str, int] = {}

    def append(self, record: VideoRecord, class_name: str | None) -> None:
        """Add a row, with the class None where it is not known."""
        number = -1 if class_name is None else self._numbers.setdefault(class_name, len(self._numbers))
        self._rows.append(record._replace(label=number))

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that occur, in alphabetical order."""
        return tuple(sorted(self._numbers))

    def numbered(self, class_names: Sequence[str]) -> ClipTable:
        """The table of all that was added, in its order, with the classes numbered in this one; others are unknown."""
        label = dict.fromkeys([-1, *self._numbers.values()], -1)
        label |= {self._numbers[name]: i for i, name in enumerate(class_names) if name in self._numbers}
        return self._rows.table().relabelled(label)


def rows_of(table: pa.Table) -> Iterator[tuple]:
    """The rows of a table of `Rows`, of which a few are Python objects at a time."""
    for batch in table.to_batches(max_chunksize=_CHUNK):
        yield from zip(*map(_values, batch.columns), strict=True)


def _packed(values: Iterable[Any], kind: pa.DataType) -> pa.Array:
    """One column of some rows."""
    if kind in (REPEATED, TEXT):
        texts = pa.array([value.encode(errors="surrogatepass") for value in values], TEXT)
        return texts.dictionary_encode() if kind == REPEATED else texts
    return pa.array(values, kind)


def _values(column: pa.Array) -> list:
    """The values of a column of some rows."""
    if column.type not in (REPEATED, TEXT):
        return column.to_pylist()
    return [text.decode(errors="surrogatepass") for text in column.cast(TEXT).to_pylist()]
