import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from modeling_dkd.cli import main
from modeling_dkd.embedding.embedded_checkpoint import CHECKPOINT, HUB_CONFIGS, shipped_code
from modeling_dkd.space.app import export_space
from modeling_dkd.space.example_clips import NUM_DOMAIN, NUM_JOINED, NUM_SHOWN, TIMES_EACH, make_examples
from modeling_dkd.synthetic.clips import ACTIONS, NUM_FRAMES
from modeling_dkd.video_frames import read_frames


REPOSITORY = HUB_CONFIGS.parent
SPACE = HUB_CONFIGS / "space"


def requirements(lines) -> dict[str, Requirement]:
    return {found.name: found for found in map(Requirement, lines)}


def test_the_space_asks_for_what_the_project_is_tested_with():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    pinned = requirements(
        line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if not line.startswith("#")
    )
    own, asked = requirements(project["dependencies"]), requirements((SPACE / "requirements.txt").read_text().split())
    for name, requirement in asked.items():
        version = str(pinned[name].specifier).removeprefix("==")
        assert requirement.specifier.contains(version), name
        assert name == "pillow" or requirement.specifier == own[name].specifier, name
    matter = yaml.safe_load((SPACE / "README.md").read_text().split("---")[1])
    assert matter["sdk"] == "gradio"
    assert matter["sdk_version"] == str(pinned["gradio"].specifier).removeprefix("==")
    assert (SPACE / matter["app_file"]).is_file()


def test_an_exported_space_holds_all_it_takes(tmp_path, capsys):
    folder = tmp_path / "space"
    assert main(["space", "--export", str(folder)]) == 0
    assert "hf upload" in capsys.readouterr().out
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    checkpoint = CHECKPOINT.relative_to(REPOSITORY)
    expected = {"app.py", "README.md", "requirements.txt", "modeling_dkd/space/page.py"}
    assert expected | {f"{checkpoint}/{path.name}" for path in shipped_code()} <= names
    assert f"{checkpoint}/model.safetensors" in names
    assert not [name for name in names if "__pycache__" in name]
    with pytest.raises(ValueError, match="is not empty"):
        export_space(folder)


@pytest.mark.slow
def test_the_tabs_need_nothing_that_a_space_does_not_install(tmp_path):
    """Packages of the project's other extras are hidden, and every tab does its work."""
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = {*requirements((SPACE / "requirements.txt").read_text().split()), "gradio", "modeling-dkd"}
    installed_by_them = {"jinja2", "pyyaml", "filelock"}  # of gradio, transformers and torch
    others = {name for extra in ("eval", "train", "hub") for name in requirements(extras[extra])}
    hidden = sorted({"pyarrow", "sklearn", *others - asked - installed_by_them})
    assert {"datasets", "matplotlib"} <= set(hidden)
    code = f"""
import sys
sys.modules.update(dict.fromkeys({hidden}))
from pathlib import Path
import modeling_dkd.space.page
from modeling_dkd.recognition.encoder import ModelChoice
from modeling_dkd.space.clip_jobs import find_clips, follow_video, recognise_clips
from modeling_dkd.space.example_clips import make_examples
from modeling_dkd.space.clip_folders import ClipFolders
root = Path({str(tmp_path)!r})
examples, folders = make_examples(root / "examples"), ClipFolders(root / "kept")
model = ModelChoice({str(CHECKPOINT)!r}, 4, None)
folder, _ = folders.put(examples.domain[:4], copies=True)
names = folders.clips(folder)
assert recognise_clips(model, folder, names, examples.labels).files
assert follow_video(model, folder, names, examples.labels, 1.0, 0.0).files
assert find_clips(model, folder, names, "growing", examples.labels).files
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


@pytest.mark.slow
def test_examples_are_clips_of_one_domain_to_pick_and_to_fit(tmp_path):
    examples = make_examples(tmp_path)
    assert len(examples.shown) == NUM_SHOWN
    assert len(examples.domain) == NUM_DOMAIN
    assert not {path for path, _ in examples.shown} & set(examples.domain)
    assert examples.labels == list(ACTIONS)
    assert {action for _, action in examples.shown} <= set(ACTIONS)
    assert all(path.is_file() for path in examples.domain)
    joined = read_frames(examples.long_video, 1)
    assert joined.total_frames == NUM_JOINED * TIMES_EACH * NUM_FRAMES


def test_a_model_that_is_not_there_is_told_in_one_sentence(tmp_path, capsys):
    assert main(["space", "--model", str(tmp_path / "absent")]) == 2
    assert re.fullmatch(r"error: no model folder .*absent; .*\n", capsys.readouterr().err)


def test_the_entry_of_the_space_takes_its_variables(monkeypatch):
    source = (SPACE / "app.py").read_text()
    called = []
    monkeypatch.setenv("DKD_MODEL", "openai/clip-vit-base-patch16")
    monkeypatch.setenv("DKD_REVISION", "abc")
    monkeypatch.setattr("modeling_dkd.cli.main", lambda arguments: called.append(arguments) or 0)
    with pytest.raises(SystemExit):
        exec(compile(source, str(Path(SPACE) / "app.py"), "exec"), {"__name__": "__main__"})
    assert called == [["space", "--model", "openai/clip-vit-base-patch16", "--revision", "abc"]]
