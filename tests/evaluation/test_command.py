import csv
import io
import json

import numpy as np
import pytest
import torch

from modeling_dkd.embedding.embedding_cache import EmbeddingSet, write_embeddings
from modeling_dkd.evaluation.command import build_parser, main
from modeling_dkd.evaluation.names import BASELINES

from .methods.test_peers import clustered_task


@pytest.fixture
def cache(tmp_path):
    """A cache of 120 clips of 5 classes, and a writer of variants of it."""
    task, labels = clustered_task(num_clips=120)

    def write(name="toy", frames=None, **changes):
        videos = task.test if frames is None else task.test[:, None].repeat(1, frames, 1)
        parts = {"video_embeds": videos, "labels": labels, "text_embeds": task.text}
        metadata = {"class_names": list("abcde"), "split": "1 test", "backbone": "toy-clip", "logit_scale": 10.0}
        path = tmp_path / f"{name}.safetensors"
        write_embeddings(path, EmbeddingSet(**(parts | {"metadata": metadata} | changes)))
        return str(path)

    return write


def run(capsys, *arguments):
    """Exit code, standard output and standard error of a run in this process."""
    try:
        code = main([str(a) for a in arguments])
    except SystemExit as left:
        code = left.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_results_hold_every_row_of_the_contract(cache, tmp_path, capsys):
    output = tmp_path / "new" / "results.json"
    code, out, err = run(capsys, "--embeddings", cache(), "--seeds", 2, "--output", output)
    assert code == 0, err
    results = json.loads(output.read_text())
    assert set(results) == {"environment", "rows", "summary"}
    assert {"commit", "versions", "command", "inputs"} <= set(results["environment"])
    methods = ["zero-shot", "both_centred", "dkd"]
    expected = [("full", 0), *((p, s) for p in ("induct", "quarter", "few", "imbal") for s in (0, 1))]
    assert [(r["protocol"], r["seed"], r["method"]) for r in results["rows"]] == [
        (*e, m) for e in expected for m in methods
    ]
    row = results["rows"][0]
    assert row["data"]["name"] == "toy"
    assert (row["data"]["classes"], row["data"]["split"], row["data"]["backbone"]) == (5, "1 test", "toy-clip")
    assert set(row["per_class"]) == set("abcde")
    assert row["n"] == 120
    assert all(0 <= row[name] <= 1 for name in ("top1", "top5", "mean_class", "ece"))
    assert row["mean_class"] == pytest.approx(np.mean(list(row["per_class"].values())), abs=1e-5)
    assert len(results["summary"]) == 15
    assert f"{100 * row['top1']:.2f}" in out
    assert "worst row" in out


def test_two_runs_give_the_same_figures(cache, tmp_path, capsys):
    written = []
    for name in ("a.json", "b.json"):
        arguments = ("--embeddings", cache(), "--protocols", "few", "--seeds", 1, "--output", tmp_path / name)
        assert run(capsys, *arguments, "--baselines", "--ablations")[0] == 0
        rows = json.loads((tmp_path / name).read_text())["rows"]
        written.append([{k: v for k, v in row.items() if k not in ("seconds", "peak_memory_mib")} for row in rows])
    assert written[0] == written[1]
    assert tuple(row["method"] for row in written[0])[2:11] == BASELINES[:-1]  # gda needs shots
    assert {"dkd", "dkd/video_only", "dkd/text_only"} <= {row["method"] for row in written[0]}


def test_several_files_end_in_one_summary_and_figures_of_each(cache, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("modeling_dkd.evaluation.rows.ABLATIONS", ("averaged_first", "video_only"))
    (tmp_path / "other").mkdir()
    files = cache(), cache("framed", frames=3), cache("other/toy")
    figures = tmp_path / "figures"
    options = ("--protocols", "full", "--ablations", "--figures", figures)
    code, out, _ = run(capsys, "--embeddings", *files, *options)
    assert code == 0
    assert [line.split(",")[0] for line in out.splitlines() if "120 clips" in line] == ["toy", "framed", "other-toy"]
    assert out.count("dkd/averaged_first") == 1 + 1  # a line of the framed set, and the summary
    assert out.count("dkd/video_only") == 3 + 1
    summary = out[out.index("all rows") :]
    assert [line.split()[:2] for line in summary.splitlines() if line.startswith("both_centred")] == [
        ["both_centred", "3"]
    ]
    assert len(list(figures.glob("*.png"))) == 6


def test_explanations_are_written_for_every_set(cache, tmp_path, capsys):
    names = [f"clip_{i}.avi" for i in range(120)]
    metadata = {"names": names, "class_names": list("abcde"), "logit_scale": 10.0}
    files, folder = (cache(metadata=metadata), cache("framed", frames=3)), tmp_path / "new" / "explained"
    options = ("--protocols", "induct", "--seeds", 2, "--explain", folder, "--output", tmp_path / "results.json")
    code, _, err = run(capsys, "--embeddings", *files, *options)
    assert code == 0, err
    assert {path.name for path in folder.iterdir()} == {
        f"{name}-induct-explanation.{kind}" for name in ("toy", "framed") for kind in ("txt", "json", "png")
    }
    assert err.count("explanation: ") == 6
    explained = json.loads((folder / "toy-induct-explanation.json").read_text())
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    first = {r["method"]: r["top1"] for r in rows if r["data"]["name"] == "toy" and r["seed"] == 0}
    assert explained["accuracy_before"] == pytest.approx(first["zero-shot"], abs=1e-5)
    assert explained["accuracy_after"] == pytest.approx(first["dkd"], abs=1e-5)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(0))
    assert {clip["name"] for clip in explained["clips"]} <= {names[i] for i in order[60:].tolist()}


def test_shots_are_never_tested(cache, tmp_path, capsys):
    output = tmp_path / "results.json"
    options = ("--shots", 3, "--seeds", 2, "--baselines", "gda", "--protocols", "full", "induct", "--output", output)
    assert run(capsys, "--embeddings", cache(), *options)[0] == 0
    rows = json.loads(output.read_text())["rows"]
    full = [row for row in rows if row["protocol"] == "full"]
    assert {row["n"] for row in full} == {120 - 15}
    assert {row["seed"] for row in full} == {0, 1}
    assert {row["n"] for row in rows if row["protocol"] == "induct"} == {60}
    assert {row["shots"] for row in rows} == {3}
    assert "gda" in {row["method"] for row in rows}


def test_a_domain_of_its_own_tests_every_clip(cache, tmp_path, capsys):
    output, text = tmp_path / "results.json", torch.eye(5, 13)
    domain = cache("domain", video_embeds=torch.rand(40, 13), labels=torch.full((40,), -1), text_embeds=text)
    code, _, err = run(capsys, "--embeddings", cache(), "--domain", domain, "--output", output)
    assert code == 0, err
    rows = json.loads(output.read_text())["rows"]
    assert {(r["protocol"], r["n"], r["n_domain"]) for r in rows} == {("given", 120, 40)}
    assert "40 clips" in rows[0]["data"]["domain"]


def test_the_logit_scale_of_the_cache_is_used(cache, tmp_path, capsys):
    errors = []
    for name, scale in (("soft", 1.0), ("hard", 100.0)):
        output = tmp_path / f"{name}.json"
        file = cache(name, metadata={"logit_scale": scale})
        assert run(capsys, "--embeddings", file, "--protocols", "full", "--output", output)[0] == 0
        errors.append(json.loads(output.read_text())["rows"][0])
    assert errors[0]["top1"] == errors[1]["top1"]
    assert errors[0]["ece"] != errors[1]["ece"]


def test_the_logit_scale_may_be_given_where_the_file_does_not_tell_it(cache, tmp_path, capsys):
    rows = []
    for file, given in ((cache("told", metadata={"logit_scale": 5.0}), []), (cache(), ["--logit_scale", "5"])):
        output = tmp_path / "rows.json"
        assert run(capsys, "--embeddings", file, "--protocols", "full", "--output", output, *given)[0] == 0
        rows.append([(row["method"], row["top1"], row["ece"]) for row in json.loads(output.read_text())["rows"]])
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--embeddings", "{cache}", "--logit_scale", "0"], "'0' is not a finite number above 0"),
        (["--embeddings", "{cache}", "--logit_scale", "nan"], "'nan' is not a finite number above 0"),
        (["--model", "x", "--logit_scale", "5"], "--logit_scale belongs to --embeddings"),
        ([], "nothing to evaluate: give --embeddings FILE"),
        (["--embeddings", "absent.npz"], "absent.npz: no such file"),
        (["--embeddings", "absent.npz+none.npz"], "absent.npz: no such file"),
        (
            ["--embeddings", "{cache}", "{cache}", "{cache}"],
            "is given twice and its rows would be mixed up: add title=",
        ),
        (
            ["--embeddings", "{cache}:video_embeds=image_f"],
            "no array 'image_f'; it holds labels, text_embeds, video_em",
        ),
        (
            ["--embeddings", "{cache}:images=image_f"],
            "'images' is nothing that a file can hold: choose from video_emb",
        ),
        (["--embeddings", "{cache}", "--video_key", "x"], "with FILE:video_embeds=NAME"),
        (["--embeddings", "{cache}+absent.npz:text_embeds=x"], "absent.npz: no such file"),
        (["--embeddings", "{cache}", "--format", "html"], "invalid choice: 'html'"),
        (["--embeddings", "{cache}", "--method", "absent.py:f"], "there is no Python file absent.py"),
        (["--embeddings", "{cache}", "--method", "{cache}"], "give FILE.py:FUNCTION"),
        (["--embeddings", "{cache}", "--summary", "{folder}"], "is a folder; name a file"),
        (["--embeddings", "{cache}", "--protocols", "half"], "'half' (choose from 'full', 'induct'"),
        (["--embeddings", "{cache}", "--seeds", "0"], "'0' is not a whole number above 0"),
        (["--embeddings", "{cache}", "--shots", "x"], "'x' is not a whole number above 0"),
        (["--embeddings", "{cache}", "--baselines", "gda"], "gda learns from labelled clips"),
        (["--embeddings", "{cache}", "--baselines", "knn"], "invalid choice: 'knn'"),
        (["--embeddings", "{cache}", "--shots", "500"], "--shots 500 leaves no clip to test"),
        (["--embeddings", "{cache}", "--domain", "{cache}", "--shots", "2"], "must not be tested"),
        (["--embeddings", "{cache}", "--domain", "{cache}", "--protocols", "few"], "leave one out"),
        (["--embeddings", "{cache}", "{cache}", "--domain", "{cache}"], "goes with one --embeddings file"),
        (["--embeddings", "{cache}", "--model", "x"], "leave one out"),
        (["--model", "x", "--text_key", "y"], "--text_key belongs to --embeddings"),
        (["--embeddings", "{cache}", "--output", "{folder}"], "is a folder; name a file"),
        (["--embeddings", "{cache}", "--figures", "{cache}"], "--figures: the folder"),
        (["--embeddings", "{cache}", "--explain", "{cache}"], "--explain: the folder"),
        (["--embed", "{cache}"], "unrecognized arguments: --embed"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(cache, tmp_path, capsys, arguments, message):
    filled = [a.replace("{cache}", cache()).replace("{folder}", str(tmp_path)) for a in arguments]
    code, out, err = run(capsys, *filled)
    assert code == 2
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert out == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_embeds": None, "metadata": {}}, "there are no class texts"),
        ({"labels": torch.full((120,), -1)}, "120 clips have no label and cannot be tested"),
    ],
)
def test_sets_that_cannot_be_tested_are_refused(cache, capsys, changes, message):
    code, _, err = run(capsys, "--embeddings", cache(**changes))
    assert (code, message in err) == (2, True)


def test_a_method_that_breaks_is_named(cache, capsys, monkeypatch):
    monkeypatch.setattr("modeling_dkd.evaluation.rows.dkd", lambda task: torch.full((len(task.test), 5), torch.nan))
    code, _, err = run(capsys, "--embeddings", cache(), "--protocols", "full")
    sentence = "error: dkd on toy, protocol full, seed 0: returns NaN or infinity, first for test clip 0\n"
    assert (code, err) == (2, sentence)


def test_help_teaches_by_example():
    text = build_parser().format_help()
    for wanted in (
        "examples",
        "--baselines",
        "ucf101_object_prompts_vitb32.npz",
        "embeddings:",
        "protocols:",
        "rows:",
        "FILE:NAME=ARRAY",
        "text_rows",
        "def nearest_text(task):",
    ):
        assert wanted in text
    assert max(map(len, text.splitlines())) < 120


def test_the_class_texts_that_are_lacking_are_named_with_what_there_is(tmp_path, capsys):
    np.savez(tmp_path / "toy.npz", video_embeds=np.ones((2, 3)), labels=np.array([0, 1]), words=np.eye(2, 3))
    code, _, err = run(capsys, "--embeddings", tmp_path / "toy.npz")
    assert code == 2
    assert "no class texts among labels, video_embeds, words: name the array with --text_key NAME" in err


def test_files_with_different_names_go_together_in_one_run(tmp_path, capsys):
    task, labels = clustered_task(num_clips=60)
    np.savez(tmp_path / "a.npz", image_f=task.test, labels=labels, text=task.text)
    np.savez(tmp_path / "b.npz", val_f=task.test, val_l=labels, frames=task.test[:, None].repeat(1, 2, 1))
    np.savez(tmp_path / "c.npz", text=task.text, class_id=np.arange(5))
    output = tmp_path / "results.json"
    code, _, err = run(
        capsys,
        "--embeddings",
        tmp_path / "a.npz",
        f"{tmp_path}/b.npz:video_embeds=val_f,labels=val_l+{tmp_path}/c.npz",
        f"{tmp_path}/b.npz:title=framed,video_embeds=frames,labels=val_l+{tmp_path}/c.npz:text_embeds=text",
        *("--video_key", "image_f", "--text_key", "text", "--logit_scale", 10),
        *("--protocols", "full", "--output", output),
    )
    assert code == 0, err
    rows = json.loads(output.read_text())["rows"]
    found = {row["data"]["name"]: row["top1"] for row in rows if row["method"] == "zero-shot"}
    assert found.keys() == {"a", "b+c", "framed"}
    assert len(set(found.values())) == 1
    assert list(json.loads(output.read_text())["environment"]["inputs"]) == ["a.npz", "b.npz", "c.npz"]


def test_labels_of_another_list_than_the_texts_are_told(cache, capsys):
    labels = clustered_task(num_clips=120)[1]
    file = cache(labels=(labels + 1) % 5)
    code, _, err = run(capsys, "--embeddings", file, "--protocols", "full")
    assert code == 0
    assert "note: toy, full, seed 0: zero-shot top-1" in err
    assert "labels and class texts are not those of one list" in err


def test_search_has_rows_of_its_own(cache, tmp_path, capsys):
    output, small = tmp_path / "results.json", tmp_path / "summary.json"
    options = ("--protocols", "full", "--search", "--baselines", "--output", output, "--summary", small)
    code, out, err = run(capsys, "--embeddings", cache(), *options)
    assert code == 0, err
    results = json.loads(output.read_text())
    embedding_rows = ["zero-shot", "both_centred", "mean_shift", "paper_literal", "dkd"]
    assert [(row["texts"], row["method"]) for row in results["search"]] == [
        (texts, method) for texts in ("fitted", "new") for method in embedding_rows
    ]
    plain = results["search"][0]
    assert (plain["queries"], plain["n"], plain["data"]["name"]) == (5, 120, "toy")
    assert results["search"][5]["queries"] == 2
    assert f"{100 * plain['map']:.2f}" in out[out.index("search: each class text") :]
    assert {row["protocol"] for row in results["rows"]} == {"full"}
    assert json.loads(small.read_text()) == {k: v for k, v in results.items() if k != "rows"}


def test_open_asks_half_of_the_classes_and_tells_the_rest(cache, tmp_path, capsys):
    output = tmp_path / "results.json"
    options = ("--protocols", "full", "open", "--seeds", 2, "--baselines", "transclip", "--output", output)
    code, out, err = run(capsys, "--embeddings", cache(), *options)
    assert code == 0, err
    rows = json.loads(output.read_text())["rows"]
    opened = [row for row in rows if row["protocol"] == "open"]
    assert [(row["seed"], row["method"]) for row in opened] == [
        (seed, method) for seed in (0, 1) for method in ("zero-shot", "both_centred", "transclip", "dkd")
    ]
    for row in opened:
        assert row["n"] + row["n_unknown"] == row["n_domain"] == 120
        assert len(row["per_class"]) == row["data"]["classes"] == 2
        assert 0 <= row["auroc"] <= 1
        assert (row["auroc_cosine"] is None) == (row["method"] == "transclip")
    assert not any("auroc" in row for row in rows if row["protocol"] == "full")
    assert "over plain" in out[out.index("open: half of the classes") :]


def test_open_works_with_labelled_clips(cache, tmp_path, capsys):
    output = tmp_path / "results.json"
    options = ("--protocols", "open", "--seeds", 1, "--shots", 3, "--baselines", "gda", "--output", output)
    code, _, err = run(capsys, "--embeddings", cache(), *options)
    assert code == 0, err
    rows = {row["method"]: row for row in json.loads(output.read_text())["rows"]}
    assert rows["gda"]["n"] + rows["gda"]["n_unknown"] == 120 - 15
    assert rows["gda"]["top1"] >= rows["zero-shot"]["top1"] - 0.1


OWN = """
import torch
from modeling_dkd.evaluation.methods.peers import zero_shot

def plain(task):
    logits = zero_shot(task).logits_per_video
    task.test.zero_()
    return logits

def again(task):  # after another one has written into its task
    return zero_shot(task).logits_per_video

def wrong_shape(task):
    return torch.zeros(3, 4)

def not_finite(task):
    return torch.full((len(task.test), len(task.text)), torch.nan)

def no_tensor(task):
    return [1, 2]

def raises(task):
    return torch.linalg.inv(task.test)

number = 3
"""


def test_a_method_of_ones_own_is_a_row_beside_zero_shot(cache, tmp_path, capsys):
    (tmp_path / "own.py").write_text(OWN)
    output = tmp_path / "results.json"
    options = ("--protocols", "induct", "--seeds", 2, "--output", output)
    options = ("--method", f"{tmp_path}/own.py:plain", f"{tmp_path}/own.py:again", *options)
    code, out, err = run(capsys, "--embeddings", cache(), *options)
    assert code == 0, err
    rows = json.loads(output.read_text())["rows"]
    assert [row["method"] for row in rows[:4]] == ["zero-shot", "both_centred", "dkd", "plain"]
    assert {row["method"] for row in rows} == {"zero-shot", "both_centred", "dkd", "plain", "again"}
    own, reference = ([row["per_class"] for row in rows if row["method"] == m] for m in ("again", "zero-shot"))
    assert own == reference
    assert next(line for line in out.splitlines() if line.split()[:1] == ["plain"]).count("+0.00") == 3


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            "wrong_shape",
            "wrong_shape on toy, protocol full, seed 0: returns shape (3, 4), not (120, 5): a row for each",
        ),
        ("not_finite", "not_finite on toy, protocol full, seed 0: returns NaN or infinity, first for test clip 0"),
        ("no_tensor", "no_tensor on toy, protocol full, seed 0: returns list, not a torch tensor of logits (120, 5)"),
        ("raises", "own.py:raises fails: RuntimeError: linalg.inv: A must be batches of square matrices"),
        ("raises", "line 23 of own.py"),
        ("absent", "has no function 'absent'; it has zero_shot, plain, again, wrong_shape"),
        ("number", "has no function 'number'"),
    ],
)
def test_what_a_method_of_ones_own_does_wrong_is_told_in_a_line(cache, tmp_path, capsys, function, message):
    (tmp_path / "own.py").write_text(OWN)
    options = ("--method", f"{tmp_path}/own.py:{function}", "--protocols", "full")
    code, _, err = run(capsys, "--embeddings", cache(), *options)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"), [("def f(:", "SyntaxError"), ("import absent_module", "No module named")]
)
def test_a_file_that_cannot_be_loaded_is_told(cache, tmp_path, capsys, text, message):
    (tmp_path / "own.py").write_text(text)
    code, _, err = run(capsys, "--embeddings", cache(), "--method", f"{tmp_path}/own.py:f")
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_a_method_must_not_take_the_name_of_another_row(cache, tmp_path, capsys):
    (tmp_path / "own.py").write_text("def dkd(task): pass")
    code, _, err = run(capsys, "--embeddings", cache(), "--method", f"{tmp_path}/own.py:dkd")
    assert (code, "a row is called 'dkd' already; rename the function" in err) == (2, True)


@pytest.mark.parametrize(("style", "sign"), [("md", "**toy, 120 clips"), ("latex", "% toy, 120 clips")])
def test_tables_can_be_pasted(cache, capsys, style, sign):
    code, out, _ = run(capsys, "--embeddings", cache(), "--protocols", "full", "--format", style)
    assert code == 0
    assert out.startswith(sign)


def test_csv_is_one_table_on_standard_output(cache, tmp_path, capsys):
    options = ("--protocols", "full", "few", "--seeds", 1, "--format", "csv", "--output", tmp_path / "results.json")
    code, out, _ = run(capsys, "--embeddings", cache(), *options)
    assert code == 0
    read = list(csv.DictReader(io.StringIO(out)))
    lines = json.loads((tmp_path / "results.json").read_text())["summary"]
    assert [(row["protocol"], row["method"]) for row in read] == [(x["protocol"], x["method"]) for x in lines]
    assert [float(row["gain"]) for row in read] == pytest.approx([x["gain"] for x in lines], abs=1e-6)


IMAGES, FRAMES = "video_embeds=image_f,text_embeds=text_avg", "labels=val_l,text_embeds=text_mapped_from_minilm"
ALL_CLASSES = "text_embeds=text_all,text_rows=class_id"
PROMPTS = "ucf101_object_prompts_vitb32.npz:text_embeds=text,class_names=class_name"


@pytest.mark.parametrize(
    ("file", "options", "expected"),
    [
        (f"whurs19_clip_rn50.npz:{IMAGES}", [], 0.7154),
        ("whurs19_clip_vit-b-32.npz", ["--video_key", "image_f", "--text_key", "text_avg"], 0.8129),
        (f"ucf101_openai_vitb32_dev.npz:video_embeds=val_f,{FRAMES}", [], 0.3583),
        (f"ucf101_openai_vitb32_dev.npz:{FRAMES},video_embeds=train16_f,labels=train16_l", [], 0.3601),
        ("imagenet500a_openai_vitb32.npz", ["--video_key", "image_f", "--text_key", "text"], 0.7045),
        ("ucf101_14_effnetlite0_conse_dev.npz:video_embeds=conse,text_embeds=text14", [], 0.4418),
        ("ucf101_14_effnetlite0_conse_dev.npz:video_embeds=conse,text_embeds=text101,labels=labels101", [], 0.25),
        ("ucf101_14_movinet_conse.npz:video_embeds=clip_f,text_embeds=text", [], 0.8160),
        (f"ucf101_14_movinet_conse.npz:video_embeds=clip_f,{ALL_CLASSES}", [], 0.7453),
        (f"ucf101_14_movinet_conse.npz:video_embeds=video_f,{ALL_CLASSES}", [], 0.667),
        (f"ucf101_openai_vitb32_dev.npz:video_embeds=val_f,labels=val_l+{PROMPTS}", [], 0.592),
    ],
)
def test_zero_shot_figures_of_the_real_files_come_out(
    data_dir, tmp_path, capsys, monkeypatch, file, options, expected
):
    monkeypatch.chdir(data_dir / "features")
    monkeypatch.setattr("modeling_dkd.evaluation.rows.dkd", lambda task: task.pooled().test @ task.pooled().text.T)
    output = tmp_path / "results.json"
    code, _, err = run(capsys, "--embeddings", file, *options, "--protocols", "full", "--output", output)
    assert code == 0, err
    row = json.loads(output.read_text())["rows"][0]
    assert row["method"] == "zero-shot"
    assert row["top1"] == pytest.approx(expected, abs=5e-5 if expected not in (0.592, 0.667) else 6e-4)
