import pickle
import random

import numpy as np
import pytest

from modeling_dkd.data import clip_table
from modeling_dkd.data.clip_table import ClassedRows, ClipTable
from modeling_dkd.data.video_files import VideoRecord


def clips(number):
    """Names in no order, some outside of ASCII and some no UTF-8, as file systems allow."""
    draw = random.Random(0)
    odd = ("é", "\udcff", "\U0001f600", "\uffff", "Z", "a b")
    return [
        VideoRecord(
            f"/clips/{i % 5}.tar",
            f"{draw.choice(odd)}/{draw.randrange(10**6)}-{i}.mp4",
            i % 7 - 1,
            f"group {i % 3}",
            ("train", "test", "unused", "")[i % 4],
            i / 8,
            i / 4,
            512 * i,
            i,
        )
        for i in range(number)
    ]


@pytest.fixture(params=[7, 100], autouse=True)
def chunks(request, monkeypatch):
    """Tables are made of pieces: of some here, and of one."""
    monkeypatch.setattr(clip_table, "_CHUNK", request.param)


def test_it_is_the_sequence_of_its_records():
    records = clips(40)
    table = ClipTable.of(records)
    assert list(table) == records
    assert table == records
    assert table == ClipTable.of(iter(records))
    assert table != records[:-1]
    assert table != [*records[:-1], records[0]]
    assert [table[i] for i in range(-40, 40)] == records + records
    assert type(table[3].label) is int
    assert records[5] in table
    with pytest.raises(IndexError):
        table[40]


def test_parts_of_it_are_tables():
    records = clips(40)
    table = ClipTable.of(records)
    for where in (slice(3, 30), slice(None, None, -7), slice(40, 50)):
        assert table[where] == records[where]
        assert isinstance(table[where], ClipTable)
    assert table[np.array([5, 0, 39])] == [records[5], records[0], records[39]]
    assert table.of_split("test") == [record for record in records if record.split == "test"]
    assert table.of_split("nowhere") == ()
    assert table.splits == {"train", "test", "unused", ""}
    assert sorted(table.distinct_paths) == [f"/clips/{i}.tar" for i in range(5)]
    new_label = {4: 0, 2: 1}
    expected = [r._replace(label=new_label[r.label]) for r in records if r.label in new_label]
    assert table.relabelled(new_label) == expected
    assert table.relabelled(new_label).labels.tolist() == [record.label for record in expected]


def test_splits_and_places_of_clips_are_replaced():
    records = clips(40)
    table = ClipTable.of(records)
    new_split = {"train": "test", "test": "unused", "other": "train"}
    resplit = table.with_splits(new_split)
    assert resplit == [record._replace(split=new_split.get(record.split, record.split)) for record in records]
    assert resplit.splits == {"test", "unused", ""}
    assert len(resplit.of_split("unused")) == 20  # those that were and those that were called test
    others = ClipTable.of(records[::-1])
    expected = [r._replace(path=o.path, offset=o.offset, size=o.size) for r, o in zip(table, others, strict=True)]
    assert table.with_files(others.columns) == expected


def test_classes_are_numbered_in_the_order_asked():
    rows = ClassedRows()
    for record, name in zip(clips(5), ("walk", None, "run", "walk", "jump"), strict=True):
        rows.append(record, name)
    assert rows.class_names == ("jump", "run", "walk")
    assert rows.numbered(("walk", "swim", "run")).labels.tolist() == [0, -1, 2, 0, -1]
    assert rows.numbered(()) == ()  # they were handed out


def test_it_is_sorted_as_python_sorts_texts():
    records = clips(60)
    assert ClipTable.of(records).sorted_by_name() == sorted(records, key=lambda record: record.name)


def test_an_empty_one_is_false():
    table = ClipTable.of()
    assert not table
    assert table == ()
    assert (
        table.sorted_by_name()
        == table.of_split("train")
        == table.relabelled({0: 1})
        == table[:5]
        == table.with_splits({})
        == ()
    )
    assert table.splits == set()


def test_it_goes_to_other_processes_as_columns():
    records = clips(40)
    sent = pickle.dumps(ClipTable.of(records))
    assert pickle.loads(sent) == records
    assert b"VideoRecord" not in sent
