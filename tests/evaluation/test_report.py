import json

import pytest
import torch

from modeling_dkd.evaluation.measurement import Measurement
from modeling_dkd.evaluation.report import environment, paired_gain, results, summarise, summary, write_results


def measurement(method, hits, clips=None, seed=0, protocol="full", data="toy", ece=0.1, peak=3.0):
    hits = torch.tensor(hits)
    row = {
        "method": method,
        "data": {"name": data},
        "protocol": protocol,
        "seed": seed,
        "top1": hits.double().mean().item(),
        "top5": 1.0,
        "mean_class": 0.5,
        "ece": ece,
        "n": len(hits),
        "seconds": 0.5,
        "peak_memory_mib": peak,
    }
    clips = torch.arange(len(hits)) if clips is None else torch.tensor(clips)
    return Measurement(row, clips, torch.zeros(len(hits), dtype=torch.int64), 1 - hits.long())


def test_error_of_one_seed_is_that_of_a_mean():
    differences = torch.tensor([1.0, 0, 0, -1, 1, 1], dtype=torch.float64)
    gain, error = paired_gain([differences], [torch.arange(6)])
    assert gain == pytest.approx(2 / 6)
    assert error == pytest.approx(differences.std(correction=0).item() / 6**0.5)


def test_testing_the_same_clips_again_adds_no_certainty_and_other_clips_do():
    differences = torch.tensor([1.0, 0, 0, -1, 1, 1], dtype=torch.float64)
    once = paired_gain([differences], [torch.arange(6)])[1]
    again = paired_gain([differences] * 4, [torch.arange(6)] * 4)[1]
    others = paired_gain([differences] * 4, [torch.arange(6) + 6 * s for s in range(4)])[1]
    assert again == pytest.approx(once)
    assert others == pytest.approx(once / 2)


def test_error_covers_the_truth_about_as_often_as_it_should():
    generator = torch.Generator().manual_seed(0)
    inside = 0
    for _ in range(300):
        chance = torch.rand(200, generator=generator)
        seeds = [torch.randperm(200, generator=generator)[:120] for _ in range(3)]
        outcome = (torch.rand(200, generator=generator) < chance).double()
        gain, error = paired_gain([outcome[s] for s in seeds], seeds)
        inside += abs(gain - 0.5) < 1.96 * error
    assert 0.90 < inside / 300 < 0.99


def test_lines_hold_means_spreads_and_paired_gains():
    lines = summarise(
        [
            measurement("zero-shot", [True, False, False, False], seed=0, ece=0.3),
            measurement("dkd", [True, True, False, False], seed=0, peak=8.0),
            measurement("zero-shot", [True, True], clips=[0, 2], seed=1, ece=0.1),
            measurement("dkd", [True, False], clips=[0, 2], seed=1, peak=None),
        ]
    )
    plain, dkd = lines
    assert (plain.method, plain.gain, plain.gain_error) == ("zero-shot", 0, 0)
    assert dkd.top1 == pytest.approx(0.5)
    assert plain.spread == pytest.approx(torch.tensor([0.25, 1.0]).std().item())
    assert dkd.gain == pytest.approx((0.25 - 0.5) / 2)
    assert dkd.ece_change == pytest.approx(-0.1)
    assert (dkd.num_seeds, dkd.n, dkd.peak_memory_mib) == (2, 3.0, 8.0)


def test_lines_hold_the_worst_single_draw():
    lines = summarise(
        [
            measurement("zero-shot", [True, False, False, False], seed=0, ece=0.3),
            measurement("dkd", [True, True, False, False], seed=0, ece=0.1),
            measurement("zero-shot", [True, True], clips=[0, 2], seed=1, ece=0.1),
            measurement("dkd", [True, False], clips=[0, 2], seed=1, ece=0.25),
        ]
    )
    assert (lines[0].worst_gain, lines[0].worst_ece_change) == (0, 0)
    assert lines[1].worst_gain == pytest.approx(-0.5)
    assert lines[1].worst_ece_change == pytest.approx(0.15)
    assert lines[1].ece_change == pytest.approx(-0.025)


def test_methods_without_zero_shot_beside_them_are_refused():
    with pytest.raises(ValueError, match="toy, protocol full: there is no row 'zero-shot' to compare"):
        summarise([measurement("dkd", [True])])


def test_a_summary_is_results_without_the_single_runs():
    measured = [measurement("zero-shot", [True, False])]
    whole = results(measured, summarise(measured), {"commit": "c"}, [{"map": 0.5}])
    assert whole.pop("rows") == [measured[0].row]
    assert whole == summary(summarise(measured), {"commit": "c"}, [{"map": 0.5}])
    assert whole["summary"][0]["worst_gain"] == 0
    assert "auroc" not in whole["summary"][0]
    assert "search" not in summary([], {})


def test_results_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "results.json"
    write_results(path, {"rows": [{"name": "ä"}]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"rows": [{"name": "ä"}]}
    with pytest.raises(TypeError):
        write_results(path, {"rows": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"rows": [{"name": "ä"}]}
    assert list(path.parent.iterdir()) == [path]


def test_environment_names_code_versions_and_inputs(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"abc")
    described = environment(["evaluate.py", "--x"], [tmp_path / "a.bin"])
    assert described["command"] == ["evaluate.py", "--x"]
    assert described["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert described["inputs"]["a.bin"].startswith("ba7816bf8f01cfea")
    assert "commit" in described
