import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from modeling_dkd import DKDCLIPConfig, DKDCLIPModel, DKDHead
from modeling_dkd.hub.card_facts import read_facts
from modeling_dkd.hub.measured_rows import condensed, publishable, rows_of, search_rows_of
from modeling_dkd.hub.model_card import NOT_EVALUATED, code_span, escape_markdown, render_card, with_results
from modeling_dkd.synthetic.clips import generate_clips

from .conftest import CHECKPOINT, run_python
from .rows import results_file


@pytest.fixture(scope="module")
def facts():
    return read_facts(CHECKPOINT, "owner/tiny")


def test_a_card_without_results_says_so(facts):
    card = render_card(replace(facts, rows=()))
    assert NOT_EVALUATED in card
    assert "model-index" not in card
    assert not re.search(r"\d\d\.\d\d", card.split("## Results")[1].split("## Limits")[0])


def test_figures_are_those_of_the_rows(facts):
    rows = rows_of(results_file({"zero-shot": 0.5, "transclip": 0.55, "dkd": 0.6}), "results/x.json")
    card = render_card(replace(facts, rows=tuple(rows)))
    assert "| ucf101 (1) | given | zero-shot | 51.00 | 1.41 |  |  | 90.00 | 50.00 | 10.00 |  | 2 | 50 |" in card
    figures = "**61.00** | 1.41 | +10.00 ± 1.00 | -3.00 | 90.00 | 60.00 | 10.00 | +7.00 | 2 | 50 |"
    assert f"|  |  | **dkd** | {figures}" in card
    assert "transclip" in card
    parsed = {result.metric_name: result.metric_value for result in ModelCard(card).data.eval_results}
    assert parsed["top-1, dkd"] == 0.61
    assert set(parsed) == {"top-1, zero-shot", "top-1, dkd"}
    assert "`results/x.json` by `evaluate.py --model" in card


def test_search_and_clips_of_none_of_the_classes_stand_in_tables_of_their_own(facts):
    contents = results_file({"zero-shot": 0.5, "dkd": 0.6})
    for row in contents["rows"]:
        row |= {"auroc": 0.6 + 0.1 * row["seed"], "known_ece": 0.2}
    data = contents["rows"][0]["data"]
    contents["search"] = [
        {"method": "dkd", "data": data, "texts": "new", "map": 0.123, "recall_at_1": 0.5, "n": 50, "queries": 3}
    ]
    rows, searches = rows_of(contents, "results/x.json"), search_rows_of(contents, "results/x.json")
    card = render_card(replace(facts, rows=tuple(rows), searches=tuple(searches)))
    assert "| ucf101 | zero-shot | 65.0 | 20.0 | 2 |" in card
    assert "| ucf101 | new | **dkd** | 12.3 | 50.0 | 50 |" in card
    # Top-1 among half of the classes is no figure to be compared with that of others.
    assert not ModelCard(card).data.eval_results
    kept = condensed(contents)
    assert search_rows_of(kept, "results/x.json") == search_rows_of(publishable(contents), "results/x.json")
    assert rows_of(kept, "x")[0].auroc == pytest.approx(0.65)
    without = render_card(replace(facts, rows=tuple(rows_of(results_file(), "a")), searches=()))
    assert "AUROC" not in without
    assert "Search by text" not in without


@pytest.mark.parametrize(("dim", "num_classes"), [(64, 100), (33, 100)])
def test_the_size_of_a_domain_is_what_saving_it_takes(facts, tmp_path, dim, num_classes):
    torch.manual_seed(0)
    head = DKDHead(DKDCLIPConfig(projection_dim=dim)).fit(torch.randn(150, dim), torch.randn(num_classes, dim))
    head.save_pretrained(tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    assert replace(facts, projection_dim=dim).bytes_with_100_classes == pytest.approx(file.stat().st_size, rel=0.1)


def test_the_example_asks_for_classes_of_the_model_in_their_own_words(facts):
    assert facts.example_labels == ["moving left", "moving right", "moving up"]
    assert facts.example_template == "something {}"
    others = replace(facts, prompts={"a": ["one"], "b": ["two"], "c": ["three"]})
    assert others.example_template == replace(facts, prompts={}).example_template == "a video of a person {}."


def test_markup_in_names_stays_text(facts):
    evil = 'a|b <script>alert(1)</script> **x** `y` [z](http://w) "quoted"\n\n# heading'
    rows = rows_of(results_file(name=evil, domain=evil, prompts=evil), "results.json")
    card = render_card(replace(facts, rows=tuple(rows), recipe={evil: evil}))
    body = ModelCard(card).text
    assert "<script>" not in body
    assert "\n# heading" not in body
    table = [line for line in body.splitlines() if line.startswith(("| a", "|  |  |"))]
    assert table
    assert all(len(re.findall(r"(?<!\\)\|", line)) in (3, 14) for line in table)
    assert escape_markdown("a\\|b") == "a\\\\\\|b"
    assert code_span("a ` b") == "`` a ` b ``"


def test_a_name_cannot_leave_the_example(facts):
    card = render_card(replace(facts, repo_id='x"\n```\nimport os'))
    assert "\n```\nimport os" not in card
    assert card.count("```python") == 3


@pytest.mark.parametrize(
    ("changes", "expected", "said"),
    [
        ({"trained_from_nothing": True}, {"license": "apache-2.0"}, "Code and weights are under Apache-2.0"),
        ({"trained_from_nothing": False}, {"license": "unknown"}, "licence of those that they derive from"),
        (
            {"base_model": "openai/clip-vit-base-patch16", "trained_from_nothing": False},
            {"license": "other", "base_model": "openai/clip-vit-base-patch16"},
            "stay under its licence",
        ),
    ],
)
def test_the_licence_is_not_invented(facts, changes, expected, said):
    card = ModelCard(render_card(replace(facts, **changes)))
    assert expected.items() <= card.data.to_dict().items()
    assert said in card.text


def test_new_results_leave_the_rest_of_a_card_alone(facts):
    before = render_card(replace(facts, rows=tuple(rows_of(results_file(), "a"))))
    before = before.replace("## Limits and biases", "My own words, with **markup**.\n\n## Limits and biases")
    new = rows_of(results_file({"dkd": 0.7}), "b")
    after = with_results(before, new)
    cut = re.compile(r"<!-- results: start.*results: end -->", re.DOTALL)
    assert cut.sub("", ModelCard(before).text) == cut.sub("", ModelCard(after).text)
    assert "**71.00**" in after
    assert "**61.00**" not in after
    values = {r.metric_name: r.metric_value for r in ModelCard(after).data.eval_results}
    assert (values["top-1, zero-shot"], values["top-1, dkd"]) == (0.51, 0.71)
    assert with_results(after, new) == after


def test_a_card_written_by_hand_gets_a_place_for_results():
    card = "---\nlicense: mit\nlanguage: en\n---\n\n# Mine\n\nWords.\n"
    after = with_results(card, rows_of(results_file(), "a"))
    assert after.index("Words.") < after.index("## Results")
    assert ModelCard(after).data.license == "mit"
    assert ModelCard(after).data.to_dict()["language"] == "en"


def test_metadata_that_cannot_be_read_is_named():
    with pytest.raises(ValueError, match="metadata of the card cannot be read"):
        with_results("---\n- a\n---\n", [])


def test_the_support_of_a_fitted_domain_is_told(tmp_path, folder):
    model = DKDCLIPModel.from_pretrained(folder)
    torch.manual_seed(0)
    dim = model.config.projection_dim
    texts = torch.randn(3, dim)
    videos = texts[torch.tensor([0] * 8 + [1] * 4)] + 0.3 * torch.randn(12, dim)
    labels = torch.tensor([0] * 8 + [1] * 2 + [-1] * 2)
    model.head.fit(videos, texts, labels)
    model.config.id2label = {0: "walk", 1: "a|b", 2: "absent"}
    model.save_pretrained(folder)
    facts = read_facts(folder, "owner/tiny")
    assert (facts.domain.num_samples, facts.domain.num_labelled, facts.domain.num_unsupported) == (12, 10, 1)
    assert sum(clips for _, clips, _ in facts.domain.classes) == pytest.approx(12, rel=1e-3)
    card = render_card(facts)
    assert "12 clips, the labels of 10 of them used; 3\nclasses, 1 of them" in card
    assert re.search(r"^\| walk \| \d\.\d \| 0\.\d\d \|\n\| a\\\|b \| ", card, re.MULTILINE)
    assert "What it was fitted on is not recorded." in card


def test_weights_in_shards_are_counted(folder):
    before = read_facts(folder, "owner/tiny")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for k in range(2):
        save_file(dict(list(weights.items())[k::2]), folder / f"model-0000{k + 1}-of-00002.safetensors")
    assert read_facts(folder, "owner/tiny").num_parameters == before.num_parameters


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{}", "not a dkd_clip one"),
        ("config.json", "[", "is not valid JSON"),
        ("config.json", None, r"holds no config\.json"),
        ("model.safetensors", None, r"holds no \*\.safetensors"),
        ("model.safetensors", "x", "no readable safetensors file"),
        ("training_config.yaml", "[", "cannot read"),
    ],
)
def test_folders_that_hold_no_model(folder, name, content, message):
    (folder / name).unlink(missing_ok=True)
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_facts(folder, "owner/tiny")


def test_the_embedded_card_is_what_the_facts_give():
    card = (CHECKPOINT / "README.md").read_text()
    assert card == render_card(read_facts(CHECKPOINT, "hub_configs/dkd-tiny"))


def test_the_embedded_card_is_parsed_back_to_the_figures_of_its_results():
    (path,) = (CHECKPOINT / "results").glob("*.json")
    rows = rows_of(json.loads(path.read_text()), f"results/{path.name}")
    assert {row.method for row in rows} >= {"zero-shot", "dkd"}
    parsed = ModelCard.load(CHECKPOINT / "README.md").data.eval_results
    values = {(r.dataset_type, r.metric_name): r.metric_value for r in parsed}
    own = [row for row in rows if row.method in ("zero-shot", "dkd") and row.protocol == "induct"]
    assert values == {(row.data["name"], f"top-1, {row.method}"): row.top1 for row in own}
    for file in (CHECKPOINT / ".eval_results").glob("*.yaml"):
        entries = yaml.safe_load(file.read_text())
        assert {entry["value"] for entry in entries} == {
            row.top1 for row in own if row.data["name"] == Path(file).stem
        }


@pytest.mark.slow
def test_the_examples_of_the_embedded_card_run_as_written(tmp_path):
    (tmp_path / "hub_configs").symlink_to(CHECKPOINT.parent)
    clips = [path for path, _ in generate_clips(tmp_path / "clips", "source", 2, seed=0)]
    for path, name in zip(clips, ("clip.mp4", "another.mp4"), strict=True):
        path.rename(tmp_path / name)
    code = "\n".join(re.findall(r"```python\n(.*?)```", (CHECKPOINT / "README.md").read_text(), re.DOTALL))
    done = run_python("-c", code, cwd=tmp_path, HF_HOME=str(tmp_path / "hf"), HF_HUB_OFFLINE="1")
    named = re.search(r"^(.+) [01]\.\d+$", done.stdout, re.MULTILINE)
    assert named[1] in json.loads((CHECKPOINT / "class_prompts.json").read_text())
