import json
from dataclasses import fields
from pathlib import Path

import pytest

from benchmarks.ablation import CONSTANTS, other_constants
from benchmarks.ablation_page import SECTIONS, Change, as_json, markdown, rows_of
from modeling_dkd.mixture_options import MixtureOptions


DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_the_changes_of_a_section_are_written_a_line_a_variant_and_read_back():
    changes = {"DKD": {"full": {"a": 0.1, "b": 0.2}, "few": {"a": -0.1}}, "x -> y": {"full": {"a": 0.0}}}
    section = {"environment": {"commit": "c"}, "num_seeds": 5, "changes": changes}
    text = as_json({"parts": section, "particles": section})
    assert json.loads(text) == {"sections": {"parts": section, "particles": section}}
    assert sum(line.startswith('"DKD": ') for line in text.splitlines()) == 2
    assert rows_of(changes)[1:3] == [Change("DKD", "full", "b", 0.2), Change("DKD", "few", "a", -0.1)]


def test_every_constant_is_tried_on_the_rows_where_it_acts():
    named = [name for names in CONSTANTS.values() for name in names]
    assert sorted(named) == sorted(field.name for field in fields(MixtureOptions))
    for section, names in CONSTANTS.items():
        variants = other_constants(section)
        assert variants.pop("DKD") == {}
        for name in names:
            default = getattr(MixtureOptions(), name)
            others = [values[name] for values in variants.values() if name in values]
            assert len(others) >= 2
            assert default not in others


@pytest.mark.parametrize("figure", ["gain", "ece_change"])
def test_the_table_names_the_worst_row_and_what_matters(figure):
    name = next(name for name, section in SECTIONS.items() if section.figure == figure and name in CONSTANTS)
    changes = {"DKD": {"full": {"a": 0.10, "b": -0.02}}, "x -> y": {"full": {"a": 0.15, "b": 0.01}}}
    made_with = {"date": "2026-01-01T00:00:00", "commit": "0123456789"}
    page = markdown("", {name: {"environment": made_with, "num_seeds": 1, "changes": changes}})
    worst = "-2.0, b, full" if figure == "gain" else "+10.0, a, full"
    assert f"| DKD | +4.0 | +4.00 | {worst} |" in page
    assert "differ from DKD's by more than 1 point: x -> y (+4.00)." in page


def test_the_index_of_the_documents_names_them_all():
    index = (DOCS / "README.md").read_text()
    files = {path.name for path in DOCS.iterdir()} - {"README.md", "__pycache__"}
    assert not [name for name in files if name not in index]
