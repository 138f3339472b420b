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
SMALL_BATCH = ("recipe.batch_size=1", "recipe.accumulation_steps=1")


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
    made_up_sets.kinetics(tmp_path / "k600", new, (("test", 1),))
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


def test_every_command_can_be_checked_without_network_and_data(tmp_path, monkeypatch, capsys):
    """From an empty folder: what it would load, train and write is told, and nothing is there afterwards."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hub_configs").symlink_to(ROOT / "hub_configs")
    for command in COMMANDS:
        words = command.removeprefix("accelerate launch ").removeprefix("python ").removeprefix("dkd ")
        name, *rest = shlex.split(words)
        assert main([name.removesuffix(".py"), *rest, "--dry-run"]) == 0, command
        told = capsys.readouterr()
        assert not told.err
        assert "dry run, nothing was loaded, trained or written" in told.out
        assert "clip-vit-b" in told.out
        assert [path.name for path in tmp_path.iterdir()] == ["hub_configs"], command
    trained = next(command for command in COMMANDS if "b16-k400.yaml" in command)
    assert main([*shlex.split(trained.removeprefix("accelerate launch ").replace(".py", "", 1)), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"model +openai/clip-vit-base-patch16 \(no folder here", told)
    assert re.search(r"data +kinetics400 in k400 \(not here\), lists in k400/annotations \(not here\)", told)
    assert re.search(r"trained +all, text encoder too; 10 epochs, batches of 32 clips x 8 passes", told)
    assert re.search(r"written +runs/clip-vit-b16-k400\n", told)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train --set data.data_dir=x recipe.epoch=3", "unknown option recipe.epoch; did you mean recipe.epochs?"),
        ("train --set data.data_dir=x data.templates=sngle", "no template file sngle; give a file or one of single"),
        ("train --set data.data_dir=x model.backbone=a/b/c", "no model folder a/b/c; give one, or a repository"),
        ("train --set data.data_dir=x run.trackers=[board]", "run.trackers names 'board'; known are"),
        ("train --set data.data_dir=x run.output_dir=done", "done holds a finished run; give another run.output_dir"),
        ("train", "where are the videos? give their folder with --set data.data_dir=DIR"),
        ("train --set data.data_dir=done", "no lists of kinetics400: looked for CSV files"),
        ("train --set data.data_dir=x model.backbone=./done", "cannot load the model ./done: "),
        ("evaluate --model a/b --data_dir x", "--model needs --dataset; see dkd evaluate --help"),
        (
            "evaluate --model a/b --dataset folder --data_dir x --split 2",
            "--split belongs to ucf101 and hmdb51, not to",
        ),
        (
            "evaluate --model a/b --dataset folder --data_dir x --logit_scale 9",
            "--logit_scale belongs to --embeddings",
        ),
        (
            "evaluate --model a/b --dataset folder --data_dir done",
            "no videos with a known video ending (there are .json (1)) in done",
        ),
        ("evaluate --model own.py --dataset folder --data_dir x", "--model own.py names a file; add what to call in"),
        ("evaluate --model a/b --dataset folder --data_dir x --output done", "--output: done is a folder; name a"),
        ("evaluate --model a/b --dataset folder --data_dir x --update_card done", "done holds no README.md; write"),
        ("evaluate --model open_clip:b --dataset folder --data_dir x", "cannot load the model open_clip:b: open_clip"),
        ("evaluate --embeddings a b --domain c", "--domain goes with one --embeddings file, and 2 are given"),
        ("evaluate", "nothing to evaluate: give --embeddings FILE"),
        ("interpolate a b/c/d --share 0.5 --output new", "no model folder b/c/d; give one, or a repository"),
    ],
)
def test_a_dry_run_says_in_a_line_what_is_wrong(command, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "done").mkdir()
    (tmp_path / "done/results.json").write_text("{}")
    name, *rest = command.split()
    config = ["--config", str(ROOT / "hub_configs/clip-vit-b16-k400.yaml")] if name == "train" else []
    assert main([name, *config, *rest, "--dry-run"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_a_dry_run_counts_the_clips_that_are_here(tmp_path, capsys):
    folder = tmp_path / "clips"
    for part, number in (("train", 3), ("test", 2)):
        for i in range(number):
            write_video(folder / part / "a" / f"{i}.mp4", [(20 * i, 90, 90)] * 2, i)
    config = ["--config", str(ROOT / "hub_configs/clip-vit-b16-k400.yaml"), "--dry-run", "--set", *SMALL_BATCH]
    assert main(["train", *config, "data.dataset=folder", f"data.data_dir={folder}"]) == 0
    assert f"folder in {folder}: 3 training and 2 test clips\n" in capsys.readouterr().out
    assert main(["evaluate", "--model", "a/b", "--dataset", "folder", "--data_dir", str(folder), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert f"folder in {folder}; 2 test clips, 3 train clips" in told
    assert re.search(r"rows +zero-shot, both_centred, dkd; seeds 0 to 4", told)
    assert main(["evaluate", "--embeddings", str(folder), "x.npz", "--baselines", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert f"{folder}, x.npz (not here)" in told
    assert "dkd, all peers; seeds" in told


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


def test_a_dry_run_tells_what_is_missing_and_counts_clips_in_archives(tmp_path, capsys):
    config = ["--config", str(ROOT / "hub_configs/clip-vit-b16-k400.yaml"), "--dry-run", "--set", *SMALL_BATCH]
    k400 = made_up_sets.kinetics(tmp_path / "k400")
    for file in sorted((k400 / "train").rglob("*.mp4"))[:2]:
        file.unlink()
    (k400 / "train_part_0.tar.gz").write_bytes(b"not decompressed yet")
    assert main(["train", *config, f"data.data_dir={k400}"]) == 0
    told = capsys.readouterr()
    assert "10 training and 6 test clips" in told.out
    assert re.search(
        r"note: train: 2 of 12 kinetics400 clips are missing .*abseiling.*\.tar\.gz .* it is compressed.*; left out\n",
        told.err,
    )
    options = ["--model", "a/b", "--dataset", "kinetics400", "--data_dir", str(k400), "--allow_missing", "--dry-run"]
    assert main(["evaluate", *options]) == 0
    assert "note: train: 2 of 12 kinetics400 clips are missing under" in capsys.readouterr().err
    archives = made_up_sets.webdataset(tmp_path / "archives")
    assert main(["train", *config, "data.dataset=hub", f"data.data_dir={archives}"]) == 0
    assert "12 training and 4 test clips" in capsys.readouterr().out
    options = ["--model", "a/b", "--dataset", "hub", "--data_dir", str(archives), "--dry-run"]
    assert main(["evaluate", *options]) == 0
    assert "4 test clips, 12 train clips" in capsys.readouterr().out


def test_a_dry_run_says_where_a_part_has_no_clip_of_the_classes(tmp_path, capsys):
    folder = tmp_path / "clips"
    for name in ("train/a/1", "test/a/2", "test/b/3"):
        write_video(folder / f"{name}.mp4", [(90, 90, 90)] * 2)
    (tmp_path / "asked.txt").write_text("b\n")
    options = ["--model", "a/b", "--dataset", "folder", "--data_dir", str(folder), "--classes"]
    options.append(str(tmp_path / "asked.txt"))
    assert main(["evaluate", *options, "--dry-run"]) == 2
    assert "has no train clips of the classes asked; --transductive takes" in capsys.readouterr().err
    assert main(["evaluate", *options, "--transductive", "--dry-run"]) == 0
