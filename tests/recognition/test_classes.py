import pytest

from modeling_dkd.recognition.classes import read_classes


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("class\ngolf\nwalk\n", "'class' is the heading of a table"),
        ("Class Name\ngolf\nwalk\n", "'Class Name' is the heading of a table"),
        ("label,description\ngolf,a person hits a ball\nwalk,a person walks\n", "'label,description' is the heading"),
        ("id;name\n0;golf\n1;walk\n", "'id;name' is the heading of a table"),
        ("golf,a person hits a ball\nwalk,a person walks\n", "'golf,a person hits a ball' holds several names"),
        ("golf\t0\nwalk\t1\n", r"'golf\t0' holds several names"),
        ("red, green\n", "'red, green' holds several names"),
        ("golf\nwalk,\n", "'walk,' holds several names"),
        ("# of the kitchen\npour\nstir\n", "'# of the kitchen' is a comment"),
    ],
)
def test_a_table_is_not_taken_for_a_list_of_classes(tmp_path, text, line):
    file = tmp_path / "classes.txt"
    file.write_text(text)
    with pytest.raises(ValueError, match="one class a line and nothing else") as raised:
        read_classes(file)
    assert f"{file}: the line {line}" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("1 ApplyEyeMakeup\n2 ApplyLipstick\n3 Archery\n", ["ApplyEyeMakeup", "ApplyLipstick", "Archery"]),
        ("0. golf\n1. walk\n2. shoot ball\n", ["golf", "walk", "shoot ball"]),
        ("1 person\n2 persons\n", ["1 person", "2 persons"]),
        ("2 people\n3 people\n5 people\n", ["2 people", "3 people", "5 people"]),
        ("golf\nwalk\n100 m sprint\n", ["golf", "walk", "100 m sprint"]),
        ("\ufeffgolf\r\n\r\n  walk slowly, alone \r\n", ["golf", "walk slowly, alone"]),
        ("golf\nname\n", ["golf", "name"]),
    ],
)
def test_names_are_lines_without_the_numbers_of_official_lists(tmp_path, text, names):
    file = tmp_path / "classes.txt"
    file.write_text(text, encoding="utf-8", newline="")
    assert read_classes(file) == names
