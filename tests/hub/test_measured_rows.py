import json

import pytest

from modeling_dkd.hub.card_update import as_json
from modeling_dkd.hub.measured_rows import (
    check_results,
    condensed,
    file_name,
    newest_rows,
    publishable,
    rows_of,
    superseded,
    without_local_paths,
)

from .rows import results_file


def test_seeds_become_one_row_with_mean_and_spread():
    zero_shot, dkd = rows_of(results_file(), "results.json")
    assert (zero_shot.top1, zero_shot.gain, zero_shot.seeds, zero_shot.n) == (0.51, None, (0, 1), 50)
    assert dkd.spread == pytest.approx(0.02 / 2**0.5, abs=1e-6)
    assert (dkd.gain, dkd.gain_error, dkd.source) == (0.1, 0.01, "results.json")
    assert (dkd.worst_gain, dkd.worst_ece_change) == (-0.03, 0.07)
    assert (zero_shot.worst_gain, zero_shot.worst_ece_change) == (None, None)
    assert rows_of(results_file(seeds=1), "results.json")[0].spread is None


def test_a_condensed_file_gives_the_same_rows():
    contents = results_file({"zero-shot": 0.5, "transclip": 0.55, "dkd": 0.6})
    kept = json.loads(as_json(condensed(contents)))
    check_results(kept, "kept")
    public = publishable(contents)
    assert rows_of(kept, "results/x.json") == rows_of(public, "results/x.json")
    assert condensed(kept) == kept
    assert file_name(kept) == file_name(contents)
    assert as_json(kept).count("\n") == 3 + len(kept["measured"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.pop("seeds"), "a row lacks seeds"),
        (lambda row: row.update(seeds=3), "a row has seeds '3', which is no list"),
        (lambda row: row.update(spread="x"), "a row has spread 'x', which is no number"),
        (lambda row: row.update(top1=61), "top1 is 61, but accuracies are fractions"),
    ],
)
def test_condensed_rows_are_checked_too(change, message):
    kept = condensed(results_file())
    change(kept["measured"][0])
    with pytest.raises(ValueError, match=message):
        check_results(kept, "x.json")


def test_newer_rows_replace_equal_older_ones_and_leave_others():
    old = results_file({"zero-shot": 0.5, "transclip": 0.55})
    new = results_file({"zero-shot": 0.4, "dkd": 0.6}, date="2026-02-01T00:00:00+00:00")
    found = {row.method: row for row in newest_rows({"results/new.json": new, "results/old.json": old})}
    assert {name: row.source for name, row in found.items()} == {
        "zero-shot": "results/new.json",
        "transclip": "results/old.json",
        "dkd": "results/new.json",
    }
    assert superseded({"results/new.json": new, "results/old.json": old}) == []
    all_new = results_file({"zero-shot": 0.4, "transclip": 0.6}, date="2026-02-01T00:00:00+00:00")
    assert superseded({"results/new.json": all_new, "results/old.json": old}) == ["results/old.json"]


@pytest.mark.parametrize("field", ["split", "classes", "frames", "prompts", "domain"])
def test_other_conditions_are_another_row(field):
    files = {"a": results_file(), "b": results_file(**{field: "other"})}
    assert len(newest_rows(files)) == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/me/x/UCF-101", "UCF-101"),
        ("data.data_dir=/data/videos/UCF-101", "data.data_dir=UCF-101"),
        ("~/clips/", "clips"),
        (r"C:\Users\me\clips", "clips"),
        ("see /home/me/a.json, and /tmp/b/c", "see a.json, and c"),
        ("https://huggingface.co/a/b", "https://huggingface.co/a/b"),
        ("openai/clip-vit-base-patch16", "openai/clip-vit-base-patch16"),
        ("a and/or b, 8/1/1", "a and/or b, 8/1/1"),
        ("</details>", "</details>"),
    ],
)
def test_paths_of_a_machine_are_cut_down(text, expected):
    assert without_local_paths({"x": [text, 1, None]}) == {"x": [expected, 1, None]}


def test_what_is_published_names_no_machine():
    environment = publishable(results_file())["environment"]
    assert environment["command"] == ["evaluate.py", "--model", "tiny"]
    assert "platform" not in environment


def test_file_names_hold_date_and_data():
    assert file_name(results_file()) == "results/20260102T030405-ucf101.json"
    assert file_name(results_file(name="../../evil name")) == "results/20260102T030405-evil-name.json"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("rows"), "no results file"),
        (lambda c: c["rows"][0].pop("n"), "a row lacks n"),
        (lambda c: c["rows"][0].update(top1=61.2), "top1 is 61.2, but accuracies are fractions"),
    ],
)
def test_what_is_no_results_file(change, message):
    contents = results_file()
    change(contents)
    with pytest.raises(ValueError, match=message):
        check_results(contents, "x.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(environment=[]), "environment is no JSON object"),
        (lambda c: c.update(rows=None), "a row is no JSON object but 'None'"),
        (lambda c: c["rows"].append(3), "a row is no JSON object but '3'"),
        (lambda c: c["rows"][0].update(data="x"), "a row has data 'x', which is no object"),
        (lambda c: c["rows"][0].update(top1=[0.5]), r"a row has top1 '\[0.5\]', which is no number"),
        (lambda c: c["rows"][0].update(seed=None), "a row has seed 'None', which is no number"),
        (lambda c: c["rows"][0].update(ece=float("nan")), "a row has ece 'nan', which is no number"),
        (lambda c: c["rows"][0].update(seconds="long"), "a row has seconds 'long', which is no number"),
        (lambda c: c["rows"][0]["data"].update(name=["a"]), r"data has name .*, which is no text"),
        (lambda c: c["summary"][0].update(method=["a"]), "a line of the summary has method"),
        (lambda c: c["summary"][0].pop("method"), "a line of the summary lacks method"),
    ],
)
def test_fields_of_another_kind_are_named(change, message):
    contents = results_file()
    check_results(contents, "results.json")
    change(contents)
    with pytest.raises(ValueError, match=rf"results\.json: {message}"):
        check_results(contents, "results.json")
