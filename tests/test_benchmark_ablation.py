import json
from pathlib import Path

from benchmarks.ablation import Gain, as_json, rows_of


DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_the_gains_of_a_section_are_written_a_line_a_variant_and_read_back():
    gains = {"DKD": {"full": {"a": 0.1, "b": 0.2}, "few": {"a": -0.1}}, "x -> y": {"full": {"a": 0.0}}}
    section = {"environment": {"commit": "c"}, "num_seeds": 5, "gains": gains}
    text = as_json({"parts": section, "particles": section})
    assert json.loads(text) == {"sections": {"parts": section, "particles": section}}
    assert sum(line.startswith('"DKD": ') for line in text.splitlines()) == 2
    assert rows_of(gains)[1:3] == [Gain("DKD", "full", "b", 0.2), Gain("DKD", "few", "a", -0.1)]


def test_the_index_of_the_documents_names_them_all():
    index = (DOCS / "README.md").read_text()
    files = {path.name for path in DOCS.iterdir()} - {"README.md"}
    assert not [name for name in files if name not in index]
