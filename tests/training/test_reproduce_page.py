"""Every command of docs/reproduce.md, as it stands there, on small made-up data in the places that it names."""

import json
import re
import shlex
from pathlib import Path

import pytest

from benchmarks.recipe_cost import CLIPS, IMAGE, TEXT, cost, with_table
from modeling_dkd.cli import main
from modeling_dkd.data.listed_sets import PUBLISHED
from modeling_dkd.data.official_splits import HMDB51_COUNTS, UCF101_COUNTS, read_hmdb51_split, read_ucf101_split
from modeling_dkd.training.config import load_config

from .. import made_up_sets
from ..made_up_sets import write_video
from ..tiny_checkpoint import save_tiny_clip
from .conftest import ROOT, forget_processes


PAGE = (ROOT / "docs/reproduce.md").read_text()
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
SMALL = ["data.allow_missing=true", "data.num_workers=0", "recipe.batch_size=4", "recipe.accumulation_steps=1"]
SMALL += ["recipe.mixed_precision=no"]


def arguments_of(command):
    """What `dkd` gets for a command of the page, with as little work as there is in it."""
    words = shlex.split(command.removeprefix("accelerate launch ").removeprefix("python "))
    if words[0] == "dkd":
        return words[1:]
    name = words[0].removesuffix(".py")
    if name == "evaluate":
        return [name, *words[1:], "--allow_missing", "--num_workers", "0", "--seeds", "1"]
    trains = load_config(ROOT / words[words.index("--config") + 1], ["data.data_dir=x"]).recipe.epochs
    return [name, *words[1:], *SMALL, *(["recipe.epochs=1"] if trains else [])]


@pytest.fixture
def made_up(data_dir, tmp_path, monkeypatch):
    """The folders of the page, with a few clips each; the owners' lists of UCF101 and HMDB51 are the true ones."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hub_configs").symlink_to(ROOT / "hub_configs")
    save_tiny_clip(tmp_path / "openai/clip-vit-base-patch16")
    made_up_sets.as_archives(made_up_sets.kinetics(tmp_path / "k400"))
    new = {f"new class {i}": (i, 255 - i, 90) for i in range(161)} | made_up_sets.COLOURS
    made_up_sets.kinetics(tmp_path / "k600", new, (("val", 1),))
    for folder, lists, entries in (
        ("UCF-101", "ucfTrainTestlist", read_ucf101_split(data_dir / "annotations", 1)[1]),
        ("hmdb51_org", "testTrainMulti_7030_splits", read_hmdb51_split(data_dir / "annotations", 1)[1]),
    ):
        (tmp_path / lists).symlink_to(data_dir / "annotations" / ("ucf101" if "ucf" in lists else "hmdb51"))
        for split, number in (("train", 12), ("test", 6)):
            chosen = [entry for entry in entries if entry.split == split]
            for i, entry in enumerate(chosen[:: len(chosen) // number][:number]):
                write_video((tmp_path / folder / entry.name).with_suffix(".mp4"), [(20 * i, 90, 90)] * 4, i)
    return tmp_path


@pytest.mark.slow
def test_every_command_runs_in_the_order_of_the_page(made_up, capsys):
    assert len(COMMANDS) == 9
    for command in COMMANDS:
        forget_processes()
        assert main(arguments_of(command)) == 0, command
    out = capsys.readouterr().out
    assert out.count("zero-shot") >= 8
    assert "160 drawn with seed 0" in out
    for name, pretrained in (("b16-k400", False), ("b16-k400-ucf101", True), ("b16-k400-hmdb51", True)):
        rows = json.loads(Path(f"runs/clip-vit-{name}/results.json").read_text())["rows"]
        assert {"zero-shot", "dkd", "fine-tuned", "fine-tuned/dkd"} <= {row["method"] for row in rows}
        assert ("k400" in rows[0]["data"]["backbone"]) == pretrained


def test_the_table_is_the_computed_one():
    assert with_table(PAGE) == PAGE
    assert "| clip-vit-b16-k400 |" in PAGE


def test_cost_follows_from_the_sizes_of_the_encoders():
    """ViT-B/16 and B/32 as published: 17.6 and 4.4 billion products an image, 86 million weights."""
    assert IMAGE["b16"].flops / 2e9 == pytest.approx(17.6, rel=0.03)
    assert IMAGE["b32"].flops / 2e9 == pytest.approx(4.4, rel=0.03)
    assert IMAGE["b16"].parameters == pytest.approx(86e6, rel=0.02)
    assert TEXT.parameters == pytest.approx(38e6, rel=0.02)
    assert {
        "kinetics400": PUBLISHED["kinetics400"][1:],
        "ucf101": UCF101_COUNTS[1],
        "hmdb51": HMDB51_COUNTS[1],
    } == CLIPS
    path = ROOT / "hub_configs/clip-vit-b16-k400.yaml"
    once, twice = (cost(load_config(path, [f"recipe.epochs={n}"]), path.stem) for n in (10, 20))
    assert 1.8 < twice.flops / once.flops < 2
    assert twice.memory == once.memory
    assert twice.hours(100, 16) > once.hours(200, 16)
