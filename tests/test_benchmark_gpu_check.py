import pytest
import torch

from benchmarks import gpu_check
from benchmarks.gpu_check import Check, main, outcome, table


CPU = torch.device("cpu")


def test_a_device_that_gives_something_else_is_told():
    same = outcome(Check("same", lambda device: [torch.ones(2)], 1e-3), CPU)
    other = Check("other", lambda device: [torch.ones(2)], 1e-3, lambda device: [torch.tensor([1.0, 1.1])])
    lost = Check("lost", lambda device: [torch.ones(2)], 1e-3, lambda device: [torch.tensor([1.0, torch.nan])])

    def fail(device):
        raise RuntimeError("no kernel\nfor this")

    failed = Check("failed", lambda device: [torch.ones(2)], 1e-3, fail)
    found = [same, *(outcome(check, CPU) for check in (other, lost, failed))]
    assert [done.is_right for done in found] == [True, False, False, False]
    lines = table(found, CPU).splitlines()[2:]
    assert [line.split("|")[-2].strip() for line in lines] == ["same", "NOT THE SAME", "NOT THE SAME", "no kernel"]


def test_exit_codes(monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, "checks", lambda: [Check("right", lambda device: [torch.ones(1)], 0.0)])
    assert main(["--device", "cpu"]) == 0
    wrong = Check("wrong", lambda device: [torch.ones(1)], 0.0, lambda device: [torch.zeros(1)])
    monkeypatch.setattr(gpu_check, "checks", lambda: [wrong])
    assert main(["--device", "cpu"]) == 1
    assert "| wrong | 1.0e+00 |" in capsys.readouterr().out
    assert main(["--device", "nothing"]) == 2
    assert capsys.readouterr().err.startswith("error: there is no device 'nothing'")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own
def test_the_whole_check_of_a_cpu_against_itself(monkeypatch, capsys):
    for name, size in {"VIDEOS": 200, "NEW_VIDEOS": 50, "CLASSES": 11, "DIM": 32}.items():
        monkeypatch.setattr(gpu_check, name, size)
    assert main(["--device", "cpu"]) == 0, capsys.readouterr().out
    lines = capsys.readouterr().out.splitlines()[2:]
    assert len(lines) == len(gpu_check.checks())
    assert all(line.endswith("| same |") for line in lines)
