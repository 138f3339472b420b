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
_REPEATED = pa.dictionary(pa.int32(), pa.large_binary())
_SCHEMA = pa.schema(
    {
        "path": _REPEATED,
        "name": pa.large_binary(),
        "label": pa.int32(),
        "group": _REPEATED,
        "split": _REPEATED,
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
    def distinct_paths(self) -> list[str]:
        """The files that hold the clips, each once."""
        return [path.decode(errors="surrogatepass") for path in pc.unique(self.columns["path"]).to_pylist()]

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
        columns = self.columns if len(kept) == len(labels) else self.columns.take(kept)
        return ClipTable(columns.set_column(columns.schema.get_field_index("label"), "label", pa.array(values)))

    def sorted_by_name(self) -> "ClipTable":
        """The same clips by name, code point by code point, as Python sorts texts."""
        return ClipTable(self.columns.take(pc.sort_indices(self.columns["name"])))

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
        return next(_records(self.columns.slice(position, 1)))

    def __iter__(self) -> Iterator[VideoRecord]:
        for batch in self.columns.to_batches(max_chunksize=_CHUNK):
            yield from _records(batch)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(own == its for own, its in zip(self, other, strict=True))

    def __repr__(self) -> str:
        return f"ClipTable({len(self)} clips)"


class ClipRows:
    """Collects records into a table without keeping them."""

    def __init__(self) -> None:
        self._batches: list[pa.RecordBatch] = []
        self._records: list[VideoRecord] = []

    def append(self, record: VideoRecord) -> None:
        """Add a row."""
        self._records.append(record)
        if len(self._records) == _CHUNK:
            self._pack()

    def table(self) -> ClipTable:
        """The table of all that was added."""
        self._pack()
        return ClipTable(pa.Table.from_batches(self._batches, _SCHEMA).unify_dictionaries().combine_chunks())

    def _pack(self) -> None:
        columns = zip(*self._records, strict=True) if self._records else [()] * len(_SCHEMA)
        arrays = [_packed(values, field.type) for values, field in zip(columns, _SCHEMA, strict=True)]
        self._batches.append(pa.RecordBatch.from_arrays(arrays, schema=_SCHEMA))
        self._records = []


class ClassedRows:
    """Collects records with the names of their classes, which are numbered in alphabetical order in the end."""

    def __init__(self) -> None:
        self._rows = ClipRows()
        self._numbers: dict[str, int] = {}

    def append(self, record: VideoRecord, class_name: str | None) -> None:
        """Add a row, with the class None where it is not known."""
        number = -1 if class_name is None else self._numbers.setdefault(class_name, len(self._numbers))
        self._rows.append(record._replace(label=number))

    def numbered(self) -> tuple[tuple[str, ...], ClipTable]:
        """The class names, and the table of all that was added, in its order."""
        class_names = tuple(sorted(self._numbers))
        label = {self._numbers[class_name]: label for label, class_name in enumerate(class_names)}
        return class_names, self._rows.table().relabelled(label | {-1: -1})


def _packed(values: Iterable[Any], kind: pa.DataType) -> pa.Array:
    """One column of some records."""
    if kind in (_REPEATED, pa.large_binary()):
        texts = pa.array([value.encode(errors="surrogatepass") for value in values], pa.large_binary())
        return texts.dictionary_encode() if kind == _REPEATED else texts
    return pa.array(values, kind)


def _records(rows: pa.RecordBatch | pa.Table) -> Iterator[VideoRecord]:
    """The records of some rows."""
    columns = []
    for field, column in zip(rows.schema, rows.columns, strict=True):
        if pa.types.is_dictionary(field.type):
            column = column.cast(pa.large_binary())
        values = column.to_pylist()
        texts = pa.types.is_dictionary(field.type) or field.type == pa.large_binary()
        columns.append([value.decode(errors="surrogatepass") for value in values] if texts else values)
    return map(VideoRecord._make, zip(*columns, strict=True))
