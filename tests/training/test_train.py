import gc
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from modeling_dkd import DKDCLIPModel
from modeling_dkd.training import loop, processes
from modeling_dkd.training.command import main
from modeling_dkd.training.config import load_config
from modeling_dkd.training.loop import schedule
from modeling_dkd.training.processes import StopRequest
from modeling_dkd.training.recognizer import Recognizer

from .conftest import forget_processes


def outcome(options):
    """Weights and rows that a run has left."""
    folder = Path(options["run"]["output_dir"])
    return load_file(folder / "model.safetensors"), json.loads((folder / "results.json").read_text())["rows"]


def stop_at(monkeypatch, calls):
    """Have the run told to stop when it asks for the so many-th time."""
    asked = iter(range(1, 10_000))
    monkeypatch.setattr(StopRequest, "__bool__", lambda self: next(asked) >= calls)


@pytest.fixture
def with_dropout(options, backbone_dir, tmp_path):
    """The backbone with dropout, so that a lost random state shows."""
    folder = tmp_path / "dropout"
    shutil.copytree(backbone_dir, folder)
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["attention_dropout"] = 0.3
    (folder / "config.json").write_text(json.dumps(config))
    options["model"] = {"backbone": str(folder), "attn_implementation": "eager"}


def test_a_whole_run(config_file, options, capsys, clips_dir):
    assert main(["--config", str(config_file())]) == 0
    shown = capsys.readouterr().out
    assert "18 training clips, 9 test clips, 3 classes" in shown
    assert "effective batch 6 = 6 clips x 1 passes x 1 processes on cpu; 6 steps in 2 epochs" in shown
    assert "epoch 2: top-1" in shown
    weights, rows = outcome(options)
    methods = ["zero-shot", "dkd", "interpolated-0.5", "interpolated-0.5/dkd", "fine-tuned", "fine-tuned/dkd"]
    assert [row["method"] for row in rows] == methods
    assert all(row["n"] == 9 and row["data"]["frames"] == "2x1x1" and row["data"]["classes"] == 3 for row in rows)
    assert "18 training clips with their labels" in rows[0]["data"]["domain"]
    # Three colours are easily told apart.
    assert rows[5]["top1"] > 0.9
    folder = Path(options["run"]["output_dir"])
    assert not (folder / "checkpoints").exists()
    model = DKDCLIPModel.from_pretrained(folder)
    assert model.config.id2label == {0: "Blue", 1: "Green", 2: "Red"}
    assert model.head.is_fitted
    assert model.config.logit_scale == pytest.approx(float(model.head.logit_scale.detach()))
    assert DKDCLIPModel.from_pretrained(folder / "best").head.is_fitted
    assert weights["head.weights"].tolist() == pytest.approx([6 / 18] * 3)
    saved = yaml.safe_load((folder / "training_config.yaml").read_text())
    assert saved["recipe"]["epochs"] == 2
    card = (folder / "README.md").read_text()
    assert f"| **fine-tuned/dkd** | **{100 * rows[5]['top1']:.2f}** |" in card
    found = {result.metric_name: result.metric_value for result in ModelCard(card).data.eval_results}
    assert [found[f"top-1, {row['method']}"] for row in rows] == [row["top1"] for row in rows]
    prompts = json.loads((folder / "class_prompts.json").read_text())
    assert prompts["Blue"] == ["a photo of a person doing Blue."]
    assert str(folder.parent) not in (folder / "results.json").read_text() + card + yaml.safe_dump(saved)


def test_the_domain_alone(config_file, options):
    options["recipe"]["epochs"] = 0
    options["domain"] = {"use_labels": False}
    options["data"]["test_views"] = "2x3x2"
    assert main(["--config", str(config_file())]) == 0
    weights, rows = outcome(options)
    assert [row["method"] for row in rows] == ["zero-shot", "dkd"]
    assert "without labels" in rows[1]["data"]["domain"]
    assert rows[1]["data"]["frames"] == "2x3x2"
    start = load_file(Path(options["model"]["backbone"]) / "model.safetensors")
    assert all(weights[f"backbone.{name}"].equal(tensor) for name, tensor in start.items())


RECIPES = {
    "plain": {},
    "everything": {"accumulation_steps": 3, "batch_size": 2, "ema_decay": 0.8, "mixup_alpha": 0.4, "layer_decay": 0.8}
    | {"train_text_encoder": True, "mixed_precision": "bf16", "cutmix_alpha": 1.0, "activation_checkpointing": True},
}


@pytest.mark.slow
@pytest.mark.usefixtures("with_dropout")
@pytest.mark.parametrize(("recipe", "calls"), [("plain", 4), ("everything", 2), ("everything", 4)])
def test_a_resumed_run_ends_in_the_same_bits(config_file, options, monkeypatch, capsys, recipe, calls):
    options["recipe"] |= RECIPES[recipe]
    options["model"]["temporal_layers"] = int(recipe == "everything")
    options["domain"] = {"refit_steps": 2}
    config = str(config_file())
    assert main(["--config", config]) == 0
    expected, rows = outcome(options)
    shutil.rmtree(options["run"]["output_dir"])
    with monkeypatch.context() as patch:
        stop_at(patch, calls)
        assert main(["--config", config]) == 143
    assert "go on with --resume" in capsys.readouterr().err
    assert main(["--config", config]) == 2
    assert "holds an unfinished run; go on with it with --resume" in capsys.readouterr().err
    assert main(["--config", config, "--resume"]) == 0
    found, found_rows = outcome(options)
    assert all(found[name].equal(tensor) for name, tensor in expected.items())
    assert [row["top1"] for row in found_rows] == [row["top1"] for row in rows]
    assert main(["--config", config, "--resume"]) == 2
    assert "holds a finished run; give another run.output_dir" in capsys.readouterr().err


@pytest.mark.slow
def test_a_temporal_transformer_is_trained_and_saved(config_file, options):
    options["model"]["temporal_layers"] = 1
    options["data"]["num_frames"], options["data"]["test_views"] = 2, "2x1x2"
    assert main(["--config", str(config_file())]) == 0
    weights, rows = outcome(options)
    assert weights["temporal.output.weight"].abs().sum() > 0
    del options["model"]["temporal_layers"]
    options["recipe"]["epochs"] = 0
    options["run"]["output_dir"] += "-plain"
    assert main(["--config", str(config_file())]) == 0
    plain = outcome(options)[1][0]
    assert (rows[0]["method"], rows[0]["ece"]) == ("zero-shot", plain["ece"])  # nothing but the mean before training


def test_the_start_is_the_same_wherever_it_is_loaded(config_file):
    config = load_config(config_file(), ["model.temporal_layers=1"])
    first, second = (loop.load_encoder(config, Accelerator(cpu=True)).model.state_dict() for _ in range(2))
    assert all(first[name].equal(tensor) for name, tensor in second.items())
    assert first["temporal.blocks.0.perceptron_input.weight"].std() > 0.01


@pytest.mark.parametrize(("calls", "setting", "code"), [(10_000, "", 0), (3, "", 143), (10_000, "=19", 2)])
def test_the_process_group_is_left_when_nothing_of_the_run_is_left(
    config_file, options, monkeypatch, calls, setting, code
):
    def living():
        gc.collect()
        return {id(thing) for thing in gc.get_objects() if type(thing) is Recognizer}

    before, at_the_end = living(), []
    monkeypatch.setattr(processes, "end_processes", lambda: at_the_end.append(living() - before))
    stop_at(monkeypatch, calls)
    options["recipe"]["epochs"] = 1
    overrides = ["--set", f"recipe.batch_size{setting}"] if setting else []
    assert main(["--config", str(config_file()), *overrides]) == code
    assert at_the_end == [set()]


def test_a_loss_that_is_not_finite_names_the_clips(config_file, options, monkeypatch, capsys):
    def infinite(run, batch, progress):
        loss, counts = batch_loss(run, batch, progress)
        if progress.step == 1:
            counts[0] = float("nan")
            names.extend(batch.names)
        return loss, counts

    batch_loss, names = loop.batch_loss, []
    monkeypatch.setattr(loop, "batch_loss", infinite)
    assert main(["--config", str(config_file())]) == 2
    message = capsys.readouterr().err
    assert "error: the loss is nan in a batch of the clips" in message
    assert len(names) == 6
    assert all(name in message for name in names)


def test_nan_weights_are_a_loss_that_is_not_finite(config_file, options, monkeypatch, capsys):
    def poisoned(run, progress):
        describe(run, progress)
        with torch.no_grad():
            run.encoder.model.backbone.visual_projection.weight.fill_(float("nan"))

    describe = loop.describe
    monkeypatch.setattr(loop, "describe", poisoned)
    assert main(["--config", str(config_file())]) == 2
    assert "error: the loss is nan in a batch of the clips train/" in capsys.readouterr().err


@pytest.fixture
def fp16_on_a_cpu(monkeypatch):
    """Half precision with a scaled loss as on a GPU, which accelerate itself gives to GPUs alone."""

    def started(config):
        AcceleratorState._reset_state(reset_partial_state=True)
        accelerator = start_processes(config)
        accelerator.state._mixed_precision, accelerator.native_amp = "fp16", True
        # So large that the first steps overflow and are left out.
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
        scalers.append(accelerator.scaler)
        return accelerator

    scalers, start_processes = [], loop.start_processes
    monkeypatch.setattr(loop, "start_processes", started)
    return scalers


@pytest.mark.slow
def test_fp16_leaves_out_steps_that_overflow_and_resumes_with_its_scale(
    config_file, options, monkeypatch, fp16_on_a_cpu
):
    options["recipe"] |= {"epochs": 5, "ema_decay": 0.8}
    config = str(config_file())
    assert main(["--config", config]) == 0
    expected, rows = outcome(options)
    assert rows[-1]["top1"] > 0.6
    scale = fp16_on_a_cpu[0].get_scale()
    assert scale < 2.0**24
    shutil.rmtree(options["run"]["output_dir"])
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        assert main(["--config", config]) == 143
    assert main(["--config", config, "--resume"]) == 0
    assert fp16_on_a_cpu[-1].get_scale() == scale
    found, _ = outcome(options)
    assert all(found[name].equal(tensor) for name, tensor in expected.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher", [{}, {"ACCELERATE_DYNAMO_BACKEND": "AOT_EAGER"}], ids=["checkpointing", "compiled"]
)
def test_what_saves_memory_or_time_changes_no_weights(config_file, options, monkeypatch, launcher):
    # Code generation would need a C++ compiler; what is captured and differentiated is the same.
    compiled, compiler = [], torch.compile

    def compile_module(module, **how):
        compiled.append((type(module), how["backend"]))
        return compiler(module, **how | {"fullgraph": True})

    monkeypatch.setattr(torch, "compile", compile_module)
    options["recipe"] |= {"epochs": 1, "learning_rate": 1e-4}
    assert main(["--config", str(config_file())]) == 0
    expected, _ = outcome(options)
    forget_processes()
    options["run"]["output_dir"] += "-changed"
    options["recipe"]["activation_checkpointing"] = not launcher
    for variable, value in launcher.items():
        monkeypatch.setenv(variable, value)
    assert main(["--config", str(config_file())]) == 0
    found, _ = outcome(options)
    assert compiled == ([(Recognizer, "aot_eager")] if launcher else [])
    assert found.keys() == expected.keys()
    for name in [name for name in expected if not name.startswith("head.")] + ["head.log_logit_scale"]:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-5)


def test_validation_every_other_epoch_and_after_the_last(config_file, options, capsys):
    options["recipe"]["epochs"] = 3
    options["run"]["validation_epochs"] = 2
    assert main(["--config", str(config_file())]) == 0
    shown = capsys.readouterr().out
    assert [number for number in range(1, 4) if f"epoch {number}: top-1" in shown] == [2, 3]


def test_a_corrupt_clip_is_named_and_can_be_left_out(config_file, options, clips_dir, tmp_path, capsys):
    copy = tmp_path / "clips"
    shutil.copytree(clips_dir, copy)
    for part in ("train", "test"):
        (copy / part / "Red" / "Red_1.avi").write_bytes(b"no video at all")
    options["data"]["data_dir"] = str(copy)
    options["recipe"]["epochs"] = 1
    assert main(["--config", str(config_file())]) == 2
    message = capsys.readouterr().err
    assert "error: 1 clips cannot be read, the first is train/Red/Red_1.avi: cannot read video" in message
    assert "--set data.allow_missing=true" in message
    assert main(["--config", str(config_file()), "--resume", "--set", "data.allow_missing=true"]) == 0
    weights, rows = outcome(options)
    assert weights["head.weights"].tolist() == pytest.approx([6 / 17, 6 / 17, 5 / 17])
    assert rows[0]["n"] == 8
    assert "(8 of 9 clips)" in rows[0]["data"]["split"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("recipe.batch_size=19", "18 training clips do not fill one effective batch of 19; lower recipe.batch_size"),
        ("model.backbone=/absent/model", "no model folder /absent/model"),
        ("data.data_dir=./absent", "no such folder: absent"),
        ("data.classes=[Purple]", "has no class 'Purple'"),
        ("data.templates=absent.txt", "no template file absent.txt"),
        ("model.attn_implementation=flash_attention_2", "flash_attention_2 is not possible: "),
        ("model.attn_implementation=quick", "model.attn_implementation=quick is not possible: "),
        ("recipe.trainable=last_blocks", "recipe.num_blocks is 4, but the video encoder has 2 blocks"),
    ],
)
def test_one_line_for_what_the_user_must_change(config_file, capsys, setting, message):
    assert main(["--config", str(config_file()), "--set", setting]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown
    assert shown.strip().splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("setting", "resumed"),
    [
        ("recipe.batch_size=19", False),
        ("recipe.accumulation_steps=4", False),
        ("recipe.mixed_precision=fp16", False),
        ("recipe.trainable=lora", False),
        ("model.backbone=own.py:load", False),
        ("data.classes=[Purple]", False),
        ("augmentation.classes_without_flip=[Purple]", False),
        ("run.trackers=[board]", False),
        ("recipe.learning_rate=0.5", True),
    ],
)
def test_a_dry_run_refuses_what_the_run_refuses(config_file, options, capsys, monkeypatch, setting, resumed):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "peft", None)
    command = ["--config", str(config_file())]
    if resumed:
        with monkeypatch.context() as context:
            stop_at(context, 1)
            assert main(command) > 128
        assert main([*command, "--resume", "--dry-run"]) == 0
        command.append("--resume")
    capsys.readouterr()
    said = []
    for kind in (["--dry-run"], []):
        assert main([*command, *kind, "--set", setting]) == 2
        said.append(capsys.readouterr().err.strip().splitlines()[-1])
    assert said[0] == said[1]
    assert said[0].startswith("error: ")


def test_a_dry_run_counts_the_processes_that_it_is_launched_with(config_file, capsys, monkeypatch):
    command = ["--config", str(config_file()), "--dry-run"]
    assert main(command) == 0
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert main(command) == 2
    assert "18 training clips do not fill one effective batch of 24" in capsys.readouterr().err
    assert main([*command, "--set", "recipe.epochs=0"]) == 0


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"ACCELERATE_USE_FSDP": "true"}, "training does not run with version 1 of FSDP"),
        ({"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR", "CXX": "absent"}, "--dynamo_backend inductor needs a C++ compiler"),
    ],
)
def test_a_dry_run_refuses_a_launch_that_the_run_refuses(config_file, capsys, monkeypatch, environment, message):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for kind in (["--dry-run"], []):
        assert main(["--config", str(config_file()), *kind]) == 2
        assert f"error: {message}" in capsys.readouterr().err


def test_schedule():
    rates = [schedule(step, 100, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1
    assert rates[55] == pytest.approx(0.5)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[99] < 0.001
    assert schedule(0, 1, 0.0) == 1


def test_a_fit_that_ends_before_its_card_goes_on(config_file, options, monkeypatch, capsys):
    options["recipe"]["epochs"] = 0
    card = "modeling_dkd.training.repository.write_card"

    def fail(*_):
        raise OSError("No space left on device")

    with monkeypatch.context() as context:
        context.setattr(card, fail)
        assert main(["--config", str(config_file())]) == 2
    output = Path(options["run"]["output_dir"])
    assert (output / "results.json").is_file()
    assert main(["--config", str(config_file())]) == 2
    assert "holds an unfinished run; go on with it with --resume" in capsys.readouterr().err
    assert main(["--config", str(config_file()), "--resume"]) == 0
    assert (output / "README.md").is_file()
    assert not (output / "checkpoints").exists()
