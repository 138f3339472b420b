import json

import pytest

from modeling_dkd.data.plain_files import parse_yaml, read_json, read_yaml


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


def test_a_file_that_is_not_there_is_named(tmp_path):
    for read in (read_json, read_yaml):
        with pytest.raises(ValueError, match=r"cannot read .*absent: .*No such file"):
            read(tmp_path / "absent")
