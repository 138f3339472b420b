import pytest
import torch
from safetensors.torch import load_file

from modeling_dkd.cli import main
from modeling_dkd.training.interpolation import interpolate, is_weight


def test_interpolation_meets_both_ends():
    start = {"a": torch.zeros(3), "n": torch.tensor([1])}
    tuned = {"a": torch.tensor([1.0, 2.0, -4.0]), "n": torch.tensor([7])}
    assert interpolate(start, tuned, 0.0)["a"].equal(start["a"])
    assert interpolate(start, tuned, 1.0)["a"].equal(tuned["a"])
    assert interpolate(start, tuned, 0.5)["a"].tolist() == [0.5, 1.0, -2.0]
    assert interpolate(start, tuned, 0.5)["n"].item() == 7


def test_weights_of_two_architectures_are_named():
    with pytest.raises(ValueError, match="the start weights have no b: they are of another architecture"):
        interpolate({"a": torch.zeros(3)}, {"a": torch.zeros(3), "b": torch.zeros(1)}, 0.5)
    with pytest.raises(ValueError, match=r"a has the shapes \(3,\) and \(4,\)"):
        interpolate({"a": torch.zeros(3)}, {"a": torch.zeros(4)}, 0.5)


def test_the_command_meets_both_ends(backbone_dir, config_file, tmp_path, monkeypatch, capsys):
    """A real fine-tuned model with a fitted domain; what is written is safetensors, and has no domain."""
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config", str(config_file()), "--set", "recipe.epochs=1", "recipe.learning_rate=0.1"]) == 0
    tuned = load_file(tmp_path / "out/model.safetensors")
    states = {}
    for share in ("0", "0.25", "1"):
        assert main(["interpolate", str(backbone_dir), "out", "--share", share, "--output", f"at-{share}"]) == 0
        states[share] = load_file(tmp_path / f"at-{share}/model.safetensors")
    start = {f"backbone.{name}": tensor for name, tensor in load_file(backbone_dir / "model.safetensors").items()}
    moved = 0
    for name, tensor in tuned.items():
        if not is_weight(name) or name not in start:
            continue
        assert states["0"][name].equal(start[name])
        assert states["1"][name].equal(tensor)
        torch.testing.assert_close(states["0.25"][name], 0.75 * start[name] + 0.25 * tensor)
        moved += not start[name].equal(tensor)
    assert moved > 5
    assert tuned["head.weights"].numel() == 3
    assert states["1"]["head.weights"].numel() == 0
    assert "without a domain" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--share", "1.5", "--output", "new"), "--share is 1.5, but must be from 0 to 1"),
        (("--share", "0.5", "--output", "."), ". is there already; give a new folder"),
        (("--share", "0.5", "--output", "new"), "no model folder nowhere/at/all"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["interpolate", "nowhere/at/all", "nowhere/at/all", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
