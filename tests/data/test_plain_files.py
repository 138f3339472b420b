import json

import pytest

from modeling_dkd.data.plain_files import json_entries, parse_yaml, read_json, read_table, read_yaml


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['true']",
        "!!timestamp x",
        "!!bool maybe",
        "!!int a",
        "2001-99-99",
        "9" * 5000,
        "[" * 5000,
        "a: b: c",
        "{[]: 1}",
        "<<: 3",
        "\0",
    ],
)
def test_a_yaml_file_gives_plain_values_or_one_sentence_with_its_name(tmp_path, text):
    path = tmp_path / "options.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"cannot read .*options\.yaml: ") as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_yaml_values():
    assert parse_yaml("a: [1, 2.5, no, null]") == {"a": [1, 2.5, False, None]}


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe", b"[" * 100_000, b"9" * 5000, b"\0", b"{'a': 1}"])
def test_a_json_file_gives_its_content_or_its_name(tmp_path, content):
    path = tmp_path / "options.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"options\.json"):
        read_json(path)
    path.write_text(json.dumps({"a": 1}))
    assert read_json(path) == {"a": 1}


@pytest.mark.parametrize("indent", [None, 2])
def test_entries_of_a_json_file_come_one_by_one(tmp_path, indent):
    path = tmp_path / "list.json"
    entries = [{"id": "1", "of": [{}, []]}, {"id": 'a "} ]'}, 3, None, "é", [], -1.5e3]
    content = {"info": {"list": 1}, "a": {"b": {"list": entries, "c": {}}, "list": 4}, "none": [], "nothing": {}}
    path.write_text(json.dumps(content, indent=indent), encoding="utf-8-sig")
    for keys in ((), ("info",), ("a",), ("a", "b"), ("nothing",)):
        value = content
        for key in keys:
            value = value[key]
        assert list(json_entries(path, *keys)) == list(value.items())
    assert list(json_entries(path, "a", "b", "list")) == entries
    assert list(json_entries(path, "none")) == []
    for keys in (("b",), ("a", "info"), ("nothing", "a")):
        with pytest.raises(KeyError, match=keys[-1]):
            list(json_entries(path, *keys))
    with pytest.raises(TypeError, match="neither a list nor an object"):
        list(json_entries(path, "a", "list"))
    path.write_text("  [ 1 , 2 ]  ")
    assert list(json_entries(path)) == [1, 2]


@pytest.mark.parametrize(
    "content",
    [
        "[1",
        "[1,",
        "[1 2]",
        "[1;2]",
        "[1][2]",
        "[] 3",
        "[\0]",
        "[{'a': 1}]",
        '{"a" 1}',
        '{"a": 1]',
        '{"a": 1',
        '{"a"',
        '{"a": }',
        "{a: 1}",
    ],
)
def test_entries_of_what_is_no_json_are_refused_with_its_name(tmp_path, content):
    path = tmp_path / "list.json"
    for text in (content, f"[{'9' * 5000}]", "[" * 100_000):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"list\.json is not valid JSON: "):
            list(json_entries(path))


def test_entries_are_given_up_to_where_a_json_file_is_torn(tmp_path):
    path = tmp_path / "list.json"
    path.write_text('[{"id": 1}, {"id": 2}, {"id"')
    entries = json_entries(path)
    assert [next(entries), next(entries)] == [{"id": 1}, {"id": 2}]
    with pytest.raises(ValueError, match=r"list\.json is not valid JSON: .*line 1 column 29"):
        next(entries)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_a_table_is_read_as_spreadsheets_write_it(encoding, delimiter, line_end, tmp_path):
    path = tmp_path / "table.csv"
    lines = [["Path ", " LABEL", "more"], ['"a, b; c\td.mp4"', " é ", "1"], [], ["b.mp4", "walk"]]
    path.write_bytes(line_end.join(delimiter.join(line) for line in lines).encode(encoding))
    columns, rows = read_table(path)
    assert columns == ["path", "label", "more"]
    assert [(line, row["path"], row["label"].strip(), row["more"]) for line, row in rows] == [
        (2, "a, b; c\td.mp4", "é", "1"),
        (4, "b.mp4", "walk", ""),
    ]


def test_a_table_that_is_none_is_named(tmp_path):
    path = tmp_path / "table.csv"
    for content in (b"path\n\xff\xfe\n", b'path\n"' + b"a" * 200_000):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"cannot read .*table\.csv"):
            read_table(path)
    path.write_bytes(b"")
    assert read_table(path) == ([], [])


def test_a_file_that_is_not_there_is_named(tmp_path):
    for read in (read_json, read_table, read_yaml, lambda path: list(json_entries(path))):
        with pytest.raises(ValueError, match=r"cannot read .*absent: .*No such file"):
            read(tmp_path / "absent")
