"""docs/cost.md rounds what the benchmarks measured."""

import json
import re
from itertools import chain
from pathlib import Path

import pytest

from benchmarks.clip_index import LAYOUTS


ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs/cost.md").read_text()
SECTIONS = json.loads((ROOT / "benchmarks/results.json").read_text())["sections"]
ROWS = [row for section in SECTIONS.values() for row in section["rows"]]
SHARDS = json.loads((ROOT / "docs/fit_from_shards.json").read_text())
(MILLION,) = (row for row in SHARDS["rows"] if row["samples"] == 1_000_000)
BOTH = "compiled, channels last"


def measured(what, other=""):
    """Ours, the other's, and how many times better ours is, of the first row that begins so."""
    row = next(row for row in ROWS if row["what"].startswith(what) and row["other"].startswith(other))
    return row["ours"], row["others"], row["ratio"]["median"]


def ratio(what, other=""):
    return measured(what, other)[2]


def beside_peers(size):
    """Seconds of a fit, and how many times as long TransCLIP and StatA take."""
    rows = [measured(f"DKD fit and predict, {size} x 512", peer) for peer in ("TransCLIP", "StatA")]
    return rows[0][0], *(row[2] for row in rows)


def head_share():
    ours, encoder, _ = measured("fitted head forward")
    return ours, 100 * ours / encoder


@pytest.mark.parametrize(
    ("pattern", "values"),
    [
        (r"D = 512 \| (\S+) ms, (\S+) %", head_share()),
        (r"101 classes \| (\S+) s; scikit.* texts: (\S+) s for the 3 rounds", measured("DKDHead.fit, 10,000")[:2]),
        (r"(\S+) s for all ten", [measured("DKDHead.fit, 10,000", "scikit-learn GaussianMixture(diag), 10")[1]]),
        (r"101 classes \| (\S+) s; TransCLIP.* classifies, (\S+) s", measured("DKDHead.fit, 1,000")[:2]),
        (r"100 classes \| (\S+) s and .*; TransCLIP (\S+), StatA (\S+) times as long", beside_peers("100,000")),
        (r"at 1,000 \| (\S+) s, TransCLIP (\S+) and StatA (\S+) times as long", beside_peers("10,000")),
        (r"times as long / (\S+) s, (\S+) and (\S+) times", beside_peers("1,000")),
        (r"and (\S+) GiB; TransCLIP", [measured("DKD memory growth, 100,000")[0] / 1024]),
        (r"both (\S+) times the memory", [ratio("DKD memory growth, 100,000")]),
        (r"1,000 classes \| (\S+) minutes, (\S+) GiB", (MILLION["seconds"] / 60, MILLION["peak_bytes"] / 2**30)),
        (r"which gives (\S+) % of them another class", [100 * SHARDS["whole"]["changed_share"]]),
        (r"training step \| (\S+) of a bare", [ratio("training step", "bare")]),
        (r"loop's rate, (\S+) of transformers.Trainer's", [ratio("training step", "transformers")]),
        (r"Decoding alone is (\S+) times", [ratio("decode, 25 original clips", "decord2")]),
    ],
)
def test_figures_of_the_text(pattern, values):
    found = re.search(pattern, " ".join(TEXT.split()))
    assert found
    assert [float(value) for value in found.groups()] == pytest.approx(list(values), rel=0.06)


def test_the_table_of_loops():
    """Two loops beside the same run of ours are one row."""
    expected = []
    for clips in ("23 original clips", "98 UCF101"):
        expected += [measured(f"preprocess, {clips}"), measured(f"decode + preprocess, {clips}")]
        with_workers = f"decode + preprocess, 2 workers, {clips}"
        ours, one, better = measured(with_workers, "load_video + CLIPImageProcessor, no workers")
        _, other, than_other = measured(with_workers, "load_video + CLIPImageProcessor, 2 workers")
        expected.append((ours, one, other, better, than_other))
    tiny, large = (
        f"evaluate.py on raw clips, {size} clips x 8 frames, {m}" for size, m in ((448, "tiny"), (112, "ViT"))
    )
    expected += [measured(tiny), measured(large), measured(f"{large}-B/32, bfloat16")]
    rows = re.findall(r"^\| [^|]+ \| ([\d.]+) \| ([\d. /]+) \| ([\d. /]+) \|$", TEXT, re.MULTILINE)
    said = [[float(value) for cell in row for value in cell.split(" / ")] for row in rows]
    assert [len(row) for row in said] == [len(row) for row in expected]
    assert list(chain(*said)) == pytest.approx(list(chain(*expected)), rel=0.03)


def test_the_table_of_encoder_modes():
    rows = {row["what"]: row for row in SECTIONS["encoder_modes"]["rows"]}
    said = re.findall(r"^\| (ViT-B/32|RN50 [^|]+) \| (\S+) \| (\S+) \| (\S+) \| (\d+) s \|$", TEXT, re.MULTILINE)
    assert len(said) == 2
    for encoder, *ratios, seconds in said:
        found = [row for what, row in rows.items() if what.startswith(f"{encoder}, ")]
        assert [row["what"].partition(" frames, ")[2] for row in found] == ["channels last", "compiled", BOTH]
        assert [float(ratio) for ratio in ratios] == pytest.approx(
            [row["ratio"]["median"] for row in found], abs=0.006
        )
        assert found[1]["note"].endswith(f"; the first batch takes {seconds} s")
    for row in rows.values():
        difference, same, number = re.search(r"embeddings (\S+), same top-1 on (\d+) of (\d+)", row["note"]).groups()
        assert float(difference) < 2e-6
        assert same == number
    vit = rows["ViT-B/32, 8 clips x 8 frames, compiled"]
    first_batch = float(re.search(r"takes (\d+) s", vit["note"])[1])
    (clips,) = re.findall(r"what about (\d+) clips of ViT-B/32 save", " ".join(TEXT.split()))
    assert int(clips) == pytest.approx(first_batch / (1 / vit["others"] - 1 / vit["ours"]), rel=0.05)


def test_the_page_of_export_has_the_measured_runtimes():
    text = (ROOT / "docs/export.md").read_text()
    said = re.findall(r"^\| (ONNX|OpenVINO|PyTorch), (\w+) \| (\S+) \| (\S+) \|$", text, re.MULTILINE)
    rows = SECTIONS["export"]["rows"]
    timed = {row["what"].partition(",")[0]: row for row in rows if "ViT-B/32" in row["what"]}
    assert {f"{runtime} {precision}" for runtime, precision, *_ in said} == set(timed)
    for runtime, precision, times, cosine in said:
        row = timed[f"{runtime} {precision}"]
        assert float(times) == pytest.approx(row["ratio"]["median"], abs=0.006)
        assert row["note"].endswith(f": {cosine}")
    answers = [row for row in rows if "embedded checkpoint" in row["what"]]
    assert len(answers) == len(timed)
    assert all(row["note"].startswith("200 of 200 answers") for row in answers)


def test_the_page_of_recognising_has_what_chosen_labels_are_worth():
    said = re.findall(
        r"^\| (20|50|100) \| (\S+) \| (\S+) \| (\S+) \|$", (ROOT / "docs/recognise.md").read_text(), re.M
    )
    assert [count for count, *_ in said] == ["20", "50", "100"]
    for count, *figures in said:
        rows = [row for row in SECTIONS["label_suggestions"]["rows"] if f": {count} labels" in row["what"]]
        gains = [row["ours"] - row["others"] for row in rows]
        assert len(gains) == 7
        assert figures == [f"{value:+.1f}" for value in (sum(gains) / 7, min(gains), max(gains))]


def test_what_a_million_clips_cost_is_as_measured():
    contents = json.loads((ROOT / "docs/clip_index.json").read_text())
    assert contents["clips"] == 1_000_000
    assert {row["layout"] for row in contents["rows"]} == set(LAYOUTS)
    assert f"({' / '.join({'archives': 'tar archives'}.get(layout, layout) for layout in LAYOUTS)})" in TEXT

    def cells(what, key, unit):
        rows = [
            row for layout in LAYOUTS for row in contents["rows"] if (row["layout"], row["what"]) == (layout, what)
        ]
        return " / ".join(f"{row[key] / unit:.0f}" for row in rows)

    read, plan, again = "reading the index", "the plan of embedding", "a run with nothing left to embed"
    assert f"| {cells(read, 'processor_seconds', 1)} s, {cells(read, 'peak_bytes', 2**20)} MiB (" in TEXT
    end = f"{cells(again, 'processor_seconds', 1)} s, {cells(again, 'peak_bytes', 2**20)} MiB in all |"
    assert f"| {cells(plan, 'processor_seconds', 1)} s / {end}" in TEXT


def test_what_a_part_of_a_film_costs_is_as_measured():
    contents = json.loads((ROOT / "docs/film_parts.json").read_text())
    assert (contents["seconds"], contents["part_seconds"], contents["frames"]) == (240, 5, 8)
    assert contents["begin"] == [0.01, 0.5, 0.95]
    said = [
        " / ".join(f"{seconds:.2f}" for seconds in row["parts"]) + f", all of it {row['whole']:.2f} s"
        for row in contents["rows"]
    ]
    assert f"H.264 in MP4 {said[0]}; MPEG-4 in AVI, which is decoded from its start, {said[1]} (" in TEXT
