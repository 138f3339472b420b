"""Runs that are shared, stopped or killed, each in processes of its own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from accelerate.utils import is_deepspeed_available
from safetensors.torch import load_file

from modeling_dkd import DKDCLIPModel
from modeling_dkd.evaluation.command import main as evaluate
from modeling_dkd.training.command import main
from modeling_dkd.training.processes import has_cpp_compiler

from .conftest import forget_processes, run_options


pytestmark = pytest.mark.slow
PATIENCE = 300  # seconds; to compile takes minutes where two cores are shared
ON_CPU = {"ACCELERATE_USE_CPU": "true"}
needs_deepspeed = pytest.mark.skipif(not is_deepspeed_available(), reason="deepspeed is not installed")

LAUNCH_FILES = Path(__file__).resolve().parents[2] / "hub_configs/accelerate"
LAUNCHES = {
    "data parallel": ("--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
    "compiled": ("--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--dynamo_backend", "aot_eager"),
    "sharded": ("--config_file", str(LAUNCH_FILES / "fsdp2.yaml")),
    "zero": ("--config_file", str(LAUNCH_FILES / "deepspeed_zero2.yaml")),
    "zero 1": ("--config_file", str(LAUNCH_FILES / "deepspeed_zero2.yaml"), "--zero_stage", "1"),
    "gradients sharded": ("--config_file", str(LAUNCH_FILES / "fsdp2.yaml"), "--fsdp_reshard_after_forward", "false"),
}


TEXTS = {"train_text_encoder": True, "accumulation_steps": 3}


def two_processes(launch="data parallel"):
    """The launcher, on a port of its own: tests run side by side."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return ("-m", "accelerate.commands.launch", *LAUNCHES[launch], "--main_process_port", port)


def weights(options):
    return load_file(Path(options["run"]["output_dir"]) / "model.safetensors")


def finish(process):
    """Its output, once it has ended well."""
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    return out


def newest_step(options):
    """That of the newest checkpoint, 0 where there is none."""
    folder = Path(options["run"]["output_dir"]) / "checkpoints"
    return max((int(path.name.split("-")[1]) for path in folder.glob("step-*")), default=0)


def wait_for_step(options, step):
    """Until a checkpoint of this step or a later one is there."""
    end = time.monotonic() + PATIENCE
    while newest_step(options) < step:
        assert time.monotonic() < end, f"no checkpoint of step {step}"
        time.sleep(0.01)


def same(found, expected):
    assert found.keys() == expected.keys()
    assert all(found[name].equal(tensor) for name, tensor in expected.items())


@pytest.fixture(scope="session")
def expected_weights(clips_dir, backbone_dir, tmp_path_factory):
    """Weights of the run that nothing happened to."""
    folder = tmp_path_factory.mktemp("reference")
    options = run_options(clips_dir, backbone_dir, folder / "out")
    options["recipe"]["epochs"] = 6
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(options))
    forget_processes()
    assert main(["--config", str(config)]) == 0
    return weights(options)


@pytest.fixture
def reference(options, expected_weights):
    """The same, for a run with these options that something will happen to."""
    options["recipe"]["epochs"] = 6
    options["run"]["checkpoint_minutes"] = 0
    return expected_weights


def test_a_run_that_is_stopped_twice_and_killed_goes_on_to_the_same_bits(config_file, options, reference, start):
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = start(config_file(), "--resume")
        wait_for_step(options, newest_step(options) + 2)
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == code, err
        assert "checkpoint written to" in err
        assert "Traceback" not in err
    process = start(config_file(), "--resume")
    wait_for_step(options, newest_step(options) + 2)
    process.kill()
    process.communicate(timeout=PATIENCE)
    # Killed while a checkpoint was written: what is left of it is passed over.
    unfinished = Path(options["run"]["output_dir"]) / "checkpoints" / ".unfinished-step-00000010-epoch-0003"
    unfinished.mkdir(exist_ok=True)
    (unfinished / "weights.safetensors").write_bytes(b"half")
    assert main(["--config", str(config_file()), "--resume"]) == 0
    same(weights(options), reference)


@pytest.mark.parametrize(
    ("launch", "recipe", "also_stopped"),
    [
        ("data parallel", {"ema_decay": 0.5}, True),
        ("compiled", {}, True),
        ("sharded", {"ema_decay": 0.5}, True),
        ("sharded", {"trainable": "lora", "ema_decay": 0.5}, False),
        ("gradients sharded", TEXTS | {"activation_checkpointing": True}, False),
        pytest.param("zero", {"trainable": "lora", "ema_decay": 0.5}, True, marks=needs_deepspeed),
        pytest.param("zero", TEXTS, False, marks=needs_deepspeed),
        pytest.param(
            "zero 1", {"activation_checkpointing": True, "accumulation_steps": 3}, False, marks=needs_deepspeed
        ),
    ],
)
def test_two_processes_with_half_the_batch_train_as_one(config_file, options, start, launch, recipe, also_stopped):
    """And stopped and resumed they end in the bits in which they end undisturbed."""
    # Seven epochs of three passes.
    options["recipe"] |= {"epochs": 7, "batch_size": 6, "learning_rate": 1e-4, **recipe}
    assert main(["--config", str(config_file())]) == 0
    alone = weights(options)
    shutil.rmtree(options["run"]["output_dir"])
    options["recipe"]["batch_size"] = 3
    shown = finish(start(config_file(), launcher=two_processes(launch), **ON_CPU))
    passes = recipe.get("accumulation_steps", 1)
    shared = {"data parallel": "", "compiled": "", "zero": ", AdamW's state shared out"}.get(
        launch.removesuffix(" 1"), ", trained weights shared out"
    )
    told = f"effective batch {6 * passes} = 3 clips x {passes} passes x 2 processes on cpu{shared}; "
    assert f"{told}{21 // passes} steps in 7 epochs" in shown
    together = weights(options)
    # Of the head its means: other buffers are divided by variances, which makes rounding larger.
    for name in [name for name in alone if not name.startswith("head.")] + ["head.log_logit_scale", "head.means"]:
        torch.testing.assert_close(
            together[name], alone[name], rtol=1e-3, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}"
        )
    rows = json.loads((Path(options["run"]["output_dir"]) / "results.json").read_text())["rows"]
    assert all(row["n"] == 9 for row in rows)
    if not also_stopped:
        return
    shutil.rmtree(options["run"]["output_dir"])
    options["run"]["checkpoint_minutes"] = 0
    process = start(config_file(), launcher=two_processes(launch), **ON_CPU)
    wait_for_step(options, 4)
    process.terminate()
    process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert not (Path(options["run"]["output_dir"]) / "results.json").exists()
    finish(start(config_file(), "--resume", launcher=two_processes(launch), **ON_CPU))
    same(weights(options), together)


@pytest.mark.skipif(not has_cpp_compiler(), reason="torch's compiler needs a C++ compiler for a CPU")
def test_a_run_that_is_compiled_stops_goes_on_and_loads_as_any_other(config_file, options, start):
    options["recipe"] |= {"epochs": 30, "learning_rate": 1e-4}
    assert main(["--config", str(config_file())]) == 0
    expected = weights(options)
    shutil.rmtree(options["run"]["output_dir"])
    options["run"]["checkpoint_minutes"] = 0
    launcher = ("-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1")
    launcher += ("--mixed_precision", "no", "--dynamo_backend", "inductor")
    process = start(config_file(), launcher=launcher, **ON_CPU)
    wait_for_step(options, 2)
    process.terminate()
    process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert newest_step(options) < 90
    finish(start(config_file(), "--resume", launcher=launcher, **ON_CPU))
    found = weights(options)
    assert found.keys() == expected.keys()
    for name in [name for name in expected if not name.startswith("head.")] + ["head.log_logit_scale"]:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-4)
    DKDCLIPModel.from_pretrained(options["run"]["output_dir"])


END_OFTEN = """
import sys
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from modeling_dkd.training.processes import end_processes

def train():
    model = DistributedDataParallel(torch.nn.Linear(3, 3))
    for _ in range(3):
        model(torch.randn(2, 3)).sum().backward()
    distributed.all_reduce(torch.ones(3))
    distributed.barrier()

rank, store = int(sys.argv[1]), sys.argv[2]
for number in range(25):
    distributed.init_process_group("gloo", init_method=f"file://{store}-{number}", rank=rank, world_size=2)
    train()
    end_processes()
"""


def test_two_processes_end_every_time(tmp_path):
    # Closed while the model lives, the group hung within 20 times on a busy machine.
    command = [sys.executable, "-c", END_OFTEN]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    both = [subprocess.Popen([*command, str(rank), str(tmp_path / "store")], env=environment) for rank in range(2)]
    try:
        assert [process.wait(timeout=2 * PATIENCE) for process in both] == [0, 0]
    finally:
        for process in both:
            process.kill()
            process.wait()


def test_a_corrupt_clip_of_the_second_process_is_named(config_file, options, clips_dir, tmp_path, start):
    copy = tmp_path / "clips"
    shutil.copytree(clips_dir, copy)
    (copy / "train" / "Blue" / "Blue_1.avi").write_bytes(b"no video at all")
    options["data"]["data_dir"] = str(copy)
    options["recipe"]["batch_size"] = 3
    process = start(config_file(), launcher=two_processes(), **ON_CPU)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert "error: 1 clips cannot be read, the first is train/Blue/Blue_1.avi" in err


def test_a_launcher_that_would_start_fewer_processes_is_found_out(config_file, start):
    launcher = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2")
    process = start(config_file(), launcher=launcher)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert "error: 2 processes were asked for, but 1 would train; on a CPU start them with" in err


def test_a_worker_that_dies(config_file, options, clips_dir, start):
    options["data"]["num_workers"] = 1
    options["recipe"]["epochs"] = 200
    process = start(config_file())
    wait_for_step(options, 3)
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end:
        with suppress(psutil.NoSuchProcess):
            # Workers are children of the server that starts them.
            for server in psutil.Process(process.pid).children():
                for worker in server.children():
                    worker.kill()
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2, err
    assert "error: a decoding process died" in err
    assert "Traceback" not in err


LOAD = """
import sys
from transformers import AutoModel, AutoProcessor
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
processor = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
prompts = [f"a photo of a person doing {name}." for name in model.config.id2label.values()]
inputs = processor(videos=[sys.argv[2]], text=prompts)
logits = model(**inputs).logits_per_video
print(type(model).__module__.split(".")[0], model.config.id2label[int(logits.argmax())])
"""


def test_the_output_loads_elsewhere_without_this_package(config_file, options, clips_dir, tmp_path):
    options["model"]["temporal_layers"] = 1
    assert main(["--config", str(config_file())]) == 0
    clip = clips_dir / "test" / "Green" / "Green_1.avi"
    done = subprocess.run(
        [sys.executable, "-I", "-c", LOAD, options["run"]["output_dir"], str(clip)],
        cwd=tmp_path,
        env=os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["transformers_modules", "Green"]


def test_evaluate_gives_the_same_figures(config_file, options, clips_dir, tmp_path):
    options["model"]["temporal_layers"] = 1
    options["domain"] = {"use_labels": False}
    options["recipe"]["epochs"] = 1
    assert main(["--config", str(config_file())]) == 0
    folder = options["run"]["output_dir"]
    arguments = ["--model", folder, "--dataset", "folder", "--data_dir", str(clips_dir), "--frames", "2x1x1"]
    arguments += ["--cache_dir", str(tmp_path / "cache"), "--num_workers", "0"]
    forget_processes()
    assert evaluate([*arguments, "--output", str(tmp_path / "evaluated.json")]) == 0
    evaluated = {r["method"]: r for r in json.loads((tmp_path / "evaluated.json").read_text())["rows"]}
    own = {r["method"]: r for r in json.loads((Path(folder) / "results.json").read_text())["rows"]}
    for name, plain in (("zero-shot", "fine-tuned"), ("dkd", "fine-tuned/dkd")):
        assert evaluated[name]["top1"] == own[plain]["top1"]
        assert evaluated[name]["ece"] == pytest.approx(own[plain]["ece"], abs=1e-4)
