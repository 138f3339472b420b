import os
import re
import signal
from pathlib import Path

import pytest
from accelerate import Accelerator, DistributedType
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from safetensors import SafetensorError

from modeling_dkd.training.command import main
from modeling_dkd.training.config import load_config
from modeling_dkd.training.processes import (
    StopRequest,
    only_run_in,
    processes_asked_of_launcher,
    start_processes,
    take_sharding_request,
)
from modeling_dkd.training.zero import zero_plugin


@pytest.mark.parametrize(
    ("command", "number"),
    [
        ("python /bin/accelerate launch --cpu --num_processes 2 train.py", 2),
        ("python /bin/accelerate launch --num-processes=3 train.py", 3),
        ("python -m accelerate.commands.launch --num_processes 4 train.py", 4),
        ("python /bin/accelerate-launch --num_processes 6 train.py", 6),
        ("python /bin/accelerate launch train.py", 1),
        ("python /bin/accelerate launch --num_processes", 1),
        ("bash launch --num_processes 5", 1),
        ("", 1),
    ],
)
def test_number_of_processes_on_a_command_line(command, number):
    assert processes_asked_of_launcher(command.split()) == number


def test_fewer_processes_than_asked_for(config_file, monkeypatch):
    monkeypatch.setattr(
        "modeling_dkd.training.processes._parent_command",
        lambda: ["python", "accelerate", "launch", "--cpu", "--num_processes", "2", "train.py"],
    )
    with pytest.raises(ValueError, match=r"2 processes were asked for, but 1 would train; .*--multi_gpu"):
        start_processes(load_config(config_file()))


@pytest.mark.parametrize(
    ("variables", "setting", "message"),
    [
        ("ACCELERATE_USE_FSDP", "seed=0", r"version 1 of FSDP; launch it with hub_configs/accelerate/fsdp2\.yaml"),
        ("ACCELERATE_USE_FSDP FSDP_OFFLOAD_PARAMS", "seed=0", "leave out fsdp_offload_params"),
        ("ACCELERATE_USE_FSDP", "mixed_precision=fp16", r"FSDP runs with recipe\.mixed_precision=bf16 or no"),
    ],
)
def test_sharding_that_is_refused(config_file, monkeypatch, variables, setting, message):
    for variable in variables.split():
        monkeypatch.setenv(variable, "true")
    monkeypatch.setenv("FSDP_VERSION", "1" if "version" in message else "2")
    section = "run" if setting == "seed=0" else "recipe"
    with pytest.raises(ValueError, match=message):
        take_sharding_request(load_config(config_file(), [f"{section}.{setting}"]))


@pytest.mark.parametrize(
    ("variable", "value", "setting", "message"),
    [
        ("ZERO_STAGE", "3", "run.seed=0", "ZeRO stage 1 or 2, not 3; to share out weights as well, use FSDP2"),
        ("OFFLOAD_OPTIMIZER_DEVICE", "cpu", "run.seed=0", r"offload_optimizer_device=cpu; .*deepspeed_zero2\.yaml"),
        ("CONFIG_FILE", "ds.json", "run.seed=0", r"no DeepSpeed option config_file=ds\.json; launch it with"),
        ("ZERO_STAGE", "2", "recipe.mixed_precision=fp16", r"DeepSpeed runs with recipe\.mixed_precision=bf16 or no"),
    ],
)
def test_zero_that_is_refused(config_file, monkeypatch, variable, value, setting, message):
    monkeypatch.setattr("modeling_dkd.training.zero.is_deepspeed_available", lambda: True)
    monkeypatch.setenv(f"ACCELERATE_DEEPSPEED_{variable}", value)
    with pytest.raises(ValueError, match=message):
        zero_plugin(load_config(config_file(), [setting]))


@pytest.mark.parametrize(
    ("launcher", "message"),
    [
        ({}, r"inductor needs a C\+\+ compiler for a CPU, and there is none: install g\+\+"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, "FSDP runs with .* and without --dynamo_backend"),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "WORLD_SIZE": "2"}, "DeepSpeed runs without --dynamo_backend"),
    ],
)
def test_compiling_that_is_refused(config_file, monkeypatch, capsys, launcher, message):
    monkeypatch.setattr("modeling_dkd.training.processes.zero_plugin", lambda config: "plugin")
    for variable, value in {"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR", "CXX": "absent-c++", **launcher}.items():
        monkeypatch.setenv(variable, value)
    assert main(["--config", str(config_file())]) == 2
    assert re.search(f"error: .*{message}", capsys.readouterr().err)


def test_zero_needs_deepspeed_and_two_processes(config_file, monkeypatch, capsys):
    monkeypatch.setattr("modeling_dkd.training.zero.is_deepspeed_available", lambda: False)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with monkeypatch.context() as two:
        two.setenv("WORLD_SIZE", "2")
        assert main(["--config", str(config_file())]) == 2
        assert "error: DeepSpeed is not installed: pip install deepspeed" in capsys.readouterr().err
    assert main(["--config", str(config_file()), "--set", "recipe.epochs=0"]) == 0
    assert "1 processes on cpu; 0 steps" in capsys.readouterr().out


def test_sharding_is_asked_for_once_and_needs_two_processes(config_file, monkeypatch, capsys):
    assert not take_sharding_request(load_config(config_file()))
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert take_sharding_request(load_config(config_file()))
    assert not take_sharding_request(load_config(config_file()))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert main(["--config", str(config_file()), "--set", "recipe.epochs=0"]) == 0
    assert "1 processes on cpu; 0 steps" in capsys.readouterr().out


def test_fp16_needs_a_gpu(config_file, capsys):
    assert main(["--config", str(config_file()), "--set", "recipe.mixed_precision=fp16"]) == 2
    assert "error: recipe.mixed_precision=fp16 needs a GPU; on a CPU set it to bf16 or no" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("multi_gpu", DistributedType.MULTI_GPU),
        ("fsdp2", DistributedType.FSDP),
        ("deepspeed_zero2", DistributedType.DEEPSPEED),
    ],
)
def test_launch_files_are_such_that_accelerate_reads(name, kind):
    path = Path(__file__).resolve().parents[2] / f"hub_configs/accelerate/{name}.yaml"
    config = load_config_from_file(str(path))
    assert config.distributed_type == kind
    assert config.deepspeed_config == ({"zero_stage": 2} if name == "deepspeed_zero2" else {})
    parser = launch_command_parser()
    arguments = parser.parse_args(["--config_file", str(path), "--num_processes", "4", "train.py", "--config", "x"])
    checked, _, _ = _validate_launch_command(arguments)
    assert checked.num_processes == 4
    assert checked.multi_gpu == (name == "multi_gpu")
    assert (checked.use_fsdp, checked.use_deepspeed) == (name == "fsdp2", name == "deepspeed_zero2")
    if checked.use_fsdp:
        assert (checked.fsdp_version, checked.fsdp_reshard_after_forward) == (2, True)


def test_trackers_are_named(config_file):
    with pytest.raises(ValueError, match=r"run\.trackers names 'tensorbord'; known are .*tensorboard"):
        start_processes(load_config(config_file(), ["run.trackers=[tensorbord]"]))
    with pytest.raises(ValueError, match="the tracker 'aim' is not installed: pip install aim"):
        start_processes(load_config(config_file(), ["run.trackers=[aim]"]))


def test_a_signal_is_remembered_once():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop
        assert stop.signal_number == signal.SIGTERM
        # A second one acts as it would without.
        assert signal.getsignal(signal.SIGTERM) == before
    assert signal.getsignal(signal.SIGTERM) == before


def test_two_runs_in_one_folder(config_file, tmp_path, capsys):
    accelerator = Accelerator(cpu=True)
    with only_run_in(tmp_path / "out", accelerator):
        with (
            pytest.raises(ValueError, match=r"another run is going on in .*out; wait for its end or give another"),
            only_run_in(tmp_path / "out", accelerator),
        ):
            pytest.fail("both were let in")
        with only_run_in(tmp_path / "other", accelerator):
            pass
        assert main(["--config", str(config_file())]) == 2
        assert "another run is going on" in capsys.readouterr().err
    with only_run_in(tmp_path / "out", accelerator):
        pass


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory .* lower recipe.batch_size"),
        (SafetensorError("No space left on device"), "cannot be written to .*No space left.*--resume"),
    ],
)
def test_what_a_machine_runs_out_of_is_one_line(config_file, monkeypatch, capsys, error, message):
    def fail(*_):
        raise error

    monkeypatch.setattr("modeling_dkd.training.loop.train", fail)
    assert main(["--config", str(config_file())]) == 2
    assert re.search(message, capsys.readouterr().err)
