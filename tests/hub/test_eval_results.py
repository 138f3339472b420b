import pytest
import yaml
from huggingface_hub import EvalResult, parse_eval_result_entries
from huggingface_hub.repocard_data import eval_results_to_model_index

from modeling_dkd.hub.eval_results import eval_results, merge_entry_files, merged_entries, merged_eval_results
from modeling_dkd.hub.measured_rows import rows_of

from .rows import results_file


def test_the_models_own_rows_are_entries_with_their_data():
    rows = rows_of(results_file({"zero-shot": 0.5, "transclip": 0.55, "dkd": 0.6}), "results.json")
    zero_shot, dkd = eval_results(rows)
    assert (zero_shot.metric_name, zero_shot.metric_value) == ("top-1, zero-shot", 0.51)
    assert (dkd.metric_name, dkd.metric_value) == ("top-1, dkd", 0.61)
    assert (dkd.dataset_type, dkd.dataset_split, dkd.dataset_revision) == ("ucf101", "1 test", "sha256:data")
    assert dkd.dataset_config == "3 classes, 8x1x1, a photo of {}., given, domain: the training clips (inductive)"
    assert dkd.metric_args == {"seeds": 2, "n": 50, "results": "results.json"}


def test_a_data_set_is_one_entry_of_the_model_index():
    results = eval_results(rows_of(results_file(), "results.json"))
    index = eval_results_to_model_index("x", results)
    (entry,) = index[0]["results"]
    assert [metric["name"] for metric in entry["metrics"]] == ["top-1, zero-shot", "top-1, dkd"]


def test_only_what_measures_the_same_is_replaced():
    foreign = EvalResult("video-classification", "kinetics", "Kinetics", "accuracy", 0.3, metric_name="top-1, dkd")
    old = eval_results(rows_of(results_file(), "a"))
    other_domain = eval_results(rows_of(results_file(domain="other"), "b"))
    new = eval_results(rows_of(results_file({"dkd": 0.7}, data_revision="sha256:newer"), "c"))
    merged = merged_eval_results([foreign, *old, *other_domain], new)
    assert len(merged) == 5
    assert foreign in merged
    values = [result.metric_value for result in merged if result.metric_name == "top-1, dkd"]
    assert values == [0.3, 0.71, 0.61]


def test_fields_that_somebody_made_lists_do_not_stand_in_the_way():
    odd = EvalResult(["video"], "kinetics", "Kinetics", "accuracy", 0.3, dataset_config=["a"])
    new = eval_results(rows_of(results_file(), "a"))
    assert merged_eval_results([odd], new) == [odd, *new]


def test_entries_are_read_back_by_the_hub_library():
    (text,) = merge_entry_files({}, rows_of(results_file(), "results.json")).values()
    entries = parse_eval_result_entries(yaml.safe_load(text))
    assert [entry.value for entry in entries] == [0.51, 0.61]
    assert all(entry.dataset_id == "ucf101" and entry.dataset_revision == "sha256:data" for entry in entries)
    assert len({entry.task_id for entry in entries}) == 2
    assert "N 50, 2 seeds; results.json" in entries[1].notes


def test_entries_of_others_stay():
    foreign = "- dataset: {id: cais/hle, task_id: default}\n  value: 20.9\n  verifyToken: abc\n"
    rows = rows_of(results_file(), "a")
    path = ".eval_results/ucf101.yaml"
    first = merge_entry_files({path: foreign}, rows)[path]
    again = merge_entry_files({path: first}, rows_of(results_file({"dkd": 0.8}), "b"))[path]
    entries = parse_eval_result_entries(yaml.safe_load(again))
    assert [(entry.dataset_id, entry.value, entry.verify_token) for entry in entries] == [
        ("cais/hle", 20.9, "abc"),
        ("ucf101", 0.51, None),
        ("ucf101", 0.81, None),
    ]


@pytest.mark.parametrize("text", ["a: b", "- 1", "- {value: 3}", "[", "!!python/object/apply:os.getcwd []"])
def test_what_is_no_list_of_entries(text):
    with pytest.raises(ValueError, match=r"x\.yaml is no list of evaluation results"):
        merged_entries(text, [], "x.yaml")
