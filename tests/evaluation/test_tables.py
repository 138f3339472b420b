import csv
import io
import re

import pytest

from modeling_dkd.evaluation.report import summarise
from modeling_dkd.evaluation.tables import (
    against_best,
    csv_table,
    open_table,
    search_table,
    set_table,
    summary_table,
    text_table,
    titled,
)

from .test_report import measurement


def rows_of_two_sets():
    worse, better = [True, False, False, False], [True, True, True, False]
    return summarise(
        [
            measurement("zero-shot", worse, data="a"),
            measurement("transclip", better, data="a"),
            measurement("dkd", better, data="a"),
            measurement("zero-shot", better, data="b", protocol="few"),
            measurement("transclip", better, data="b", protocol="few"),
            measurement("dkd", worse, data="b", protocol="few"),
        ]
    )


def test_tables_say_percent_gain_and_the_worst_row():
    lines = rows_of_two_sets()
    table = set_table(lines[:3]).splitlines()
    assert table[2].split() == ["full", "zero-shot", "25.00", "100.00", "50.00", "10.00", "0.50", "3"]
    cells = ["dkd", "75.00", "+50.00", "25.00", "+50.00", "100.00", "50.00", "10.00", "+0.00", "0.50", "3"]
    assert table[4].split() == cells
    summary = summary_table(lines).splitlines()
    assert [row.split()[0] for row in summary[2:]] == ["transclip", "dkd"]
    assert summary[3].split()[:3] == ["dkd", "2", "+0.00"]
    assert summary[3].endswith("-50.00  b, few")
    assert summary[3].split()[-8:-2] == ["+0.00", "+0.00", "0.50", "3", "-50.00", "-50.00"]


def test_against_best_needs_every_peer():
    lines = rows_of_two_sets()
    assert against_best(lines, "dkd", ("transclip", "stata")) is None
    assert against_best(lines, "dkd", ()) is None
    said = against_best(lines, "dkd", ("transclip",))
    assert said.splitlines()[1:] == [
        "  all rows: mean -25.00, worst -50.00 (b, few)",
        "  without few: mean +0.00, worst +0.00 (a, full)",
    ]


def test_markdown_takes_names_literally():
    table = text_table(("set", "top-1"), [("a|b_c*", "1.00")], num_left=1, style="md").splitlines()
    assert table[1] == re.sub("[^|:]", "-", table[1])
    assert [cell.strip() for cell in re.split(r"(?<!\\)\|", table[2])[1:-1]] == ["a\\|b\\_c\\*", "1.00"]
    assert table[1].count(":") == 2  # words to the left, figures to the right
    assert titled("what", "| a |", "md") == "**what**\n\n| a |"


@pytest.mark.parametrize("style", ["text", "md", "latex"])
def test_a_table_without_rows_has_its_header(style):
    assert "top-1" in text_table(("set", "top-1"), [], num_left=1, style=style)


def test_latex_is_a_tabular_with_escaped_names():
    table = set_table(rows_of_two_sets()[:3], "latex")
    assert table.startswith("\\begin{tabular}{ll")
    assert "\\toprule" in table
    assert "zero-shot" in table
    assert text_table(("a_b",), [("50 %",)], 1, style="latex").count("\\%") == 1
    assert titled("what", "x", "latex") == "% what\nx"


def test_csv_has_every_figure_of_every_line():
    lines = rows_of_two_sets()
    read = list(csv.DictReader(io.StringIO(csv_table([vars(line) for line in lines]))))
    assert [row["method"] for row in read] == [line.method for line in lines]
    assert float(read[2]["gain"]) == lines[2].gain
    assert read[2]["auroc"] == ""
    assert csv_table([{"a": 1}, {"a": "x,y", "b": 2}]) == 'a,b\n1,\n"x,y",2'


def open_lines():
    def of(data, method, hits, auroc, cosine):
        measured = measurement(method, hits, data=data, protocol="open")
        rejected = {"rejected_unknown": 0.75, "rejected_known": 0.25}
        measured.row.update({"auroc": auroc, "auroc_cosine": cosine, "known_ece": auroc / 10} | rejected)
        return measured

    return summarise(
        [
            of("a", "zero-shot", [True, False], 0.6, 0.7),
            of("a", "dkd", [True, True], 0.8, 0.5),
            of("b", "zero-shot", [True, False], 0.9, 0.3),
            of("b", "dkd", [True, False], 0.85, 0.5),
            of("b", "transclip", [True, False], 0.5, None),
        ]
    )


def test_rejection_is_compared_with_the_better_of_softmax_and_cosine():
    table = open_table(open_lines()).splitlines()
    cells = {tuple(line.split("  ")[0:1] + line.split()[1:2]): line.split() for line in table[2:7]}
    assert cells["a", "dkd"][2:] == ["100.00", "+50.00", "80.00", "+10.00", "50.00", "8.00", "75.00", "25.00"]
    assert cells["b", "dkd"][2:] == ["50.00", "+0.00", "85.00", "-5.00", "50.00", "8.50", "75.00", "25.00"]
    assert cells["b", "zero-shot"][2:] == ["50.00", "90.00", "+0.00", "30.00", "9.00", "75.00", "25.00"]
    means = [line.split() for line in table if line.startswith(("mean", "worst"))]
    assert ["mean", "of", "sets", "dkd", "75.00", "+25.00", "82.50", "+2.50", "8.25", "75.00", "25.00"] in means
    assert ["worst", "set", "dkd", "-5.00", "8.50"] in means


def test_search_is_compared_with_zero_shot_of_the_same_texts():
    def row(data, texts, method, found):
        recalls = {"recall_at_1": 0.1, "recall_at_5": 0.2, "recall_at_10": 0.3}
        return {"data": {"name": data}, "texts": texts, "method": method, "map": found, "queries": 9} | recalls

    rows = [row(d, t, m, v) for d, t, m, v in (
        ("a", "fitted", "zero-shot", 0.5), ("a", "fitted", "dkd", 0.9), ("a", "new", "zero-shot", 0.4),
        ("a", "new", "dkd", 0.3), ("b", "fitted", "zero-shot", 0.5), ("b", "fitted", "dkd", 0.6),
    )]  # fmt: skip
    table = [line.split() for line in search_table(rows).splitlines()]
    assert ["a", "fitted", "dkd", "9", "90.00", "+40.00", "10.00", "20.00", "30.00"] in table
    assert ["a", "new", "dkd", "9", "30.00", "-10.00", "10.00", "20.00", "30.00"] in table
    assert ["mean", "of", "sets", "fitted", "dkd", "+25.00"] in table
    assert ["worst", "set", "fitted", "dkd", "+10.00"] in table
    assert not any(line[:2] == ["mean", "of"] for line in (x.split() for x in search_table(rows[:4]).splitlines()))


@pytest.mark.parametrize("style", ["text", "md", "latex"])
def test_every_table_has_every_style(style):
    mark = {"text": "----", "md": "|:---", "latex": "\\toprule"}[style]
    for table in (set_table, summary_table, open_table):
        assert mark in table(open_lines(), style)
