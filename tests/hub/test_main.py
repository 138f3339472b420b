import json

import pytest
import yaml

from modeling_dkd.cli import main

from .conftest import CHECKPOINT
from .rows import results_file


def test_help_teaches_the_whole_way(capsys):
    with pytest.raises(SystemExit):
        main(["publish", "--help"])
    shown = capsys.readouterr().out
    for step in ("train.py --config", "evaluate.py --model", "--update_card", "publish --config", "--push"):
        assert step in shown


def test_a_dry_run_prints_and_sends_nothing(folder, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", None)
    assert main(["publish", str(folder), "--repo_id", "owner/tiny"]) == 0
    shown = capsys.readouterr().out
    assert "model.safetensors" in shown
    assert "# dkd-tiny" in shown
    assert "dry run, nothing was sent" in shown
    (folder / "pytorch_model.bin").write_bytes(b"x")
    assert main(["publish", str(folder), "--repo_id", "owner/tiny"]) == 2
    assert "cannot be published:\n  - pytorch_model.bin" in capsys.readouterr().out


def test_a_config_says_folder_and_name(folder, tmp_path, capsys):
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump({"repo_id": "owner/tiny", "run": {"output_dir": str(folder)}}))
    assert main(["publish", "--config", str(config)]) == 0
    assert "model owner/tiny, from" in capsys.readouterr().out
    config.write_text(yaml.safe_dump({"repo_id": "owner/tiny", "run": {"output_dir": str(tmp_path / "none")}}))
    assert main(["publish", "--config", str(config)]) == 2
    assert "make it with: accelerate launch train.py --config" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["publish"], "give either the FOLDER"),
        (["publish", "x", "--config", "y"], "give either the FOLDER"),
        (["publish", "nowhere", "--repo_id", "a/b"], "there is no folder nowhere"),
        (["publish", "--config", "nowhere.yaml"], "cannot read nowhere.yaml"),
        (["card", "nowhere", "--repo_id", "a/b"], "holds no config.json"),
        (["publish-embeddings", "test=nowhere.safetensors"], "--repo_id OWNER/NAME"),
        (["publish-embeddings", "nowhere.safetensors", "--repo_id", "a/b"], "SPLIT=FILE"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_card_needs_to_know_its_repository(folder, capsys):
    assert main(["card", str(folder)]) == 2
    assert "give --repo_id OWNER/NAME" in capsys.readouterr().err


def test_results_of_these_weights_are_added_and_others_refused(folder, tmp_path, capsys):
    own = json.loads(next((CHECKPOINT / "results").glob("*.json")).read_text())
    revision = own["measured"][0]["data"]["revision"]
    for name, contents in {"own": results_file(revision=revision), "other": results_file()}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(contents))
    (tmp_path / "gain.png").write_bytes(b"png")
    arguments = ["card", str(folder), "--repo_id", "owner/tiny", "--results"]
    assert main([*arguments, str(tmp_path / "own.json"), "--figures", str(tmp_path / "gain.png")]) == 0
    card = (folder / "README.md").read_text()
    assert "| ucf101 (" in card
    assert "![figures/gain.png](figures/gain.png)" in card
    assert main([*arguments, str(tmp_path / "other.json")]) == 2
    assert "were measured with the encoders sha256:abc" in capsys.readouterr().err
