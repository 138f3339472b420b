import argparse
import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from modeling_dkd.data.hub_stream import StreamPiece
from modeling_dkd.data.official_splits import half_class_split
from modeling_dkd.embedding.embedding_cache import read_embeddings
from modeling_dkd.evaluation.command import add_video_arguments, main
from modeling_dkd.evaluation.measurement import Plan, measure_set
from modeling_dkd.evaluation.methods.peers import zero_shot
from modeling_dkd.evaluation.videos import chance_notes, embed_for_evaluation
from modeling_dkd.modeling_dkd import DKDCLIPModel
from modeling_dkd.processing_dkd import DKDCLIPProcessor

from ..made_up_sets import COLOURS, tar_of, write_video
from ..tiny_checkpoint import save_tiny_clip


ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("Archery", "Punch", "Surfing")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return save_tiny_clip(tmp_path_factory.mktemp("model") / "tiny-clip")


@pytest.fixture
def video_folder(data_dir, tmp_path):
    """Three classes of real clips, four clips each for training and for testing."""
    for name in CLASSES:
        clips = sorted((data_dir / "ucf101/videos" / name).iterdir())[:8]
        for part, chosen in (("train", clips[:4]), ("test", clips[4:])):
            (tmp_path / "videos" / part / name).mkdir(parents=True)
            for clip in chosen:
                shutil.copy2(clip, tmp_path / "videos" / part / name)
    return tmp_path / "videos"


def options(model, dataset, data_dir, cache, *more):
    parser = argparse.ArgumentParser()
    add_video_arguments(parser)
    given = [
        "--model",
        model,
        "--dataset",
        dataset,
        "--data_dir",
        data_dir,
        "--cache_dir",
        cache,
        "--num_workers",
        "0",
    ]
    return parser.parse_args([str(value) for value in (*given, *more)])


def bytes_of(folder):
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_training_and_test_clips_become_domain_and_test(model_folder, video_folder, tmp_path, capsys):
    args = options(
        model_folder, "folder", video_folder, tmp_path / "cache", "--frames", "3x1x1", "--templates", "clip_kinetics"
    )
    sets = embed_for_evaluation(args)
    assert "24 clips embedded, 0 known from before, 0 damaged" in capsys.readouterr().err
    assert sets.test.video_embeds.shape == sets.domain.video_embeds.shape == (12, 3, 24)
    assert sets.test.text_embeds.shape == (3, 28, 24)
    assert sets.test.labels.tolist() == sets.domain.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert sets.test.metadata["class_names"] == list(CLASSES)
    assert sets.test.metadata["split"] == "1 test"
    assert sets.test.metadata["prompts"] == "clip_kinetics (28 templates)"
    assert all(name.startswith("test/") for name in sets.test.metadata["names"])
    assert not set(sets.test.metadata["names"]) & set(sets.domain.metadata["names"])
    read = read_embeddings(sets.files[0])
    torch.testing.assert_close(read.video_embeds, sets.test.video_embeds, rtol=0, atol=0)
    assert read.metadata == sets.test.metadata
    again = embed_for_evaluation(args)
    assert "0 clips embedded, 24 known from before" in capsys.readouterr().err
    torch.testing.assert_close(again.test.video_embeds, sets.test.video_embeds, rtol=0, atol=0)


def test_embeddings_are_those_of_the_model(model_folder, video_folder, tmp_path):
    args = options(model_folder, "folder", video_folder, tmp_path / "cache", "--frames", "2x3x2", "--transductive")
    sets = embed_for_evaluation(args)
    assert sets.domain is None
    model, processor = DKDCLIPModel.from_backbone(model_folder), DKDCLIPProcessor.from_backbone(model_folder)
    paths = [str(video_folder / name) for name in sets.test.metadata["names"]]
    with torch.inference_mode():
        pixel_values = processor(videos=paths, views="2x3x2")["pixel_values"]
        videos = model.get_video_features(pixel_values).reshape(12, 12, 24)
        prompts = [[f"a photo of a person doing {name}."] for name in CLASSES]
        texts = model.get_text_features(**processor(text=prompts))
    torch.testing.assert_close(sets.test.video_embeds, videos, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sets.test.text_embeds, texts, rtol=1e-4, atol=1e-5)


def test_other_views_and_other_weights_do_not_share_a_cache(model_folder, video_folder, tmp_path, capsys):
    other_weights = save_tiny_clip(tmp_path / "elsewhere/tiny-clip", seed=1)
    moved = shutil.copytree(model_folder, tmp_path / "moved/tiny-clip")
    expected = (
        (model_folder, "1x1x1", 12),
        (model_folder, "2x1x1", 12),
        (other_weights, "1x1x1", 12),
        (moved, "1x1x1", 0),
    )
    for model, frames, num_embedded in expected:
        embed_for_evaluation(
            options(model, "folder", video_folder, tmp_path / "c", "--frames", frames, "--transductive")
        )
        assert f": {num_embedded} clips embedded" in capsys.readouterr().err


def test_a_dkd_checkpoint_embeds_as_its_backbone_whatever_its_domain(model_folder, video_folder, tmp_path, capsys):
    model, processor = DKDCLIPModel.from_backbone(model_folder), DKDCLIPProcessor.from_backbone(model_folder)
    model.fit_domain(video_embeds=torch.rand(9, 24), text_embeds=torch.rand(3, 24), class_names=CLASSES)
    for part in (model, processor):
        part.save_pretrained(tmp_path / "fitted/tiny-clip")
    for folder, num_embedded in ((model_folder, 12), (tmp_path / "fitted/tiny-clip", 0)):
        given = (folder, "folder", video_folder, tmp_path / "cache", "--frames", "1x1x1", "--transductive")
        embed_for_evaluation(options(*given))
        assert f"{num_embedded} clips embedded" in capsys.readouterr().err


@pytest.mark.parametrize("dataset", ["csv", "hub"])
def test_lists_and_hub_data_sets_are_embedded(model_folder, video_folder, tmp_path, monkeypatch, dataset):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")
    place = video_folder
    if dataset == "csv":
        place = tmp_path / "clips.csv"
        rows = [f"{path},{path.parent.name},{path.parts[-3]}" for path in sorted(video_folder.rglob("*.avi"))]
        place.write_text("\n".join(["path,label,split", *rows]))
    sets = embed_for_evaluation(options(model_folder, dataset, place, tmp_path / "cache", "--frames", "1x1x1"))
    assert (len(sets.test.labels), len(sets.domain.labels)) == (12, 12)
    assert sets.test.metadata["class_names"] == list(CLASSES)
    assert sets.test.labels.bincount().tolist() == [4, 4, 4]


def packed_archives(root, parts=("train", "test")):
    """Compressed archives, which can only be streamed; the second clip of each is damaged, its class the second."""
    for number, part in enumerate(parts):
        members = {}
        for k, name in enumerate(COLOURS):
            clip = write_video(root / "clip.mp4", [COLOURS[name]] * 3, 10 * number + k)
            members |= {f"{k}.cls": name.encode(), f"{k}.mp4": b"no video" if k == 1 else clip.read_bytes()}
            clip.unlink()
        archive = tar_of(root / f"{part}.tar", members)
        (root / f"{part}.tgz").write_bytes(gzip.compress(archive.read_bytes()))
        archive.unlink()
    return root


def test_what_can_only_be_streamed_is(model_folder, tmp_path, capsys):
    given = (model_folder, "hub", packed_archives(tmp_path / "set"), tmp_path / "cache", "--frames", "1x1x1")
    with pytest.raises(ValueError, match=r"2 of 6 clips cannot be read: test/1\.mp4, train/1\.mp4; all are in"):
        embed_for_evaluation(options(*given))
    sets = embed_for_evaluation(options(*given, "--allow_missing"))
    assert "set: 0 clips embedded, 4 known from before, 2 damaged" in capsys.readouterr().err
    assert sets.test.metadata["names"] == ["test/0.mp4", "test/2.mp4"]
    assert sets.test.metadata["class_names"] == list(COLOURS)
    assert sets.test.metadata["split"] == "1 test (2 of 3 clips)"
    assert sets.test.labels.tolist() == sets.domain.labels.tolist() == [0, 2]
    classes = tmp_path / "classes.txt"
    classes.write_text("abseiling\ntai chi\n")
    asked = embed_for_evaluation(options(*given, "--classes", classes))  # of which no clip is damaged
    assert asked.test.video_embeds.equal(sets.test.video_embeds)
    classes.write_text("abseiling\njuggling\n")
    with pytest.raises(ValueError, match="juggling"):
        embed_for_evaluation(options(*given, "--classes", classes))


def test_only_the_parts_that_are_used_are_streamed(model_folder, tmp_path, monkeypatch):
    read = []
    batches = StreamPiece.batches
    monkeypatch.setattr(StreamPiece, "batches", lambda self, size: read.append(self.file) or batches(self, size))
    place = packed_archives(tmp_path / "set")
    more = ("--frames", "1x1x1", "--allow_missing")
    embed_for_evaluation(options(model_folder, "hub", place, tmp_path / "cache", "--transductive", *more))
    assert read == ["test.tgz"]
    place = packed_archives(tmp_path / "whole", ["a", "b"])
    with pytest.raises(ValueError, match="whole has no train and test parts to take domain and test from: add"):
        embed_for_evaluation(options(model_folder, "hub", place, tmp_path / "cache", *more))
    assert read == ["test.tgz"]
    sets = embed_for_evaluation(options(model_folder, "hub", place, tmp_path / "cache", "--transductive", *more))
    assert read == ["test.tgz", "a.tgz", "b.tgz"]
    assert sets.test.metadata["split"] == "all clips (4 of 6 clips)"


def test_the_official_split_says_how_many_of_its_clips_are_there(model_folder, data_dir, tmp_path):
    names = ["Punch/v_Punch_g08_c01.avi", "Punch/v_Punch_g20_c02.avi", "Surfing/v_Surfing_g09_c01.avi"]
    for name in names:
        (tmp_path / "UCF-101" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(data_dir / "ucf101/videos" / name, tmp_path / "UCF-101" / name)
    lists = ("--annotations", data_dir / "annotations", "--frames", "1x1x1", "--split")
    given = (model_folder, "ucf101", tmp_path, tmp_path / "cache", *lists)
    with pytest.raises(ValueError, match="3732 of 3734 ucf101 clips are missing"):
        embed_for_evaluation(options(*given, "2"))
    sets = embed_for_evaluation(options(*given, "2", "--allow_missing"))
    assert sets.test.metadata["names"] == [names[0], names[2]]
    assert sets.test.metadata["split"] == "2 test (2 of 3734 clips)"
    assert sets.domain.metadata["split"] == "2 train (1 of 9586 clips)"
    assert len(sets.test.text_embeds) == 101
    with pytest.raises(ValueError, match="3783 of 3783 ucf101 clips are missing"):
        embed_for_evaluation(options(*given, "1", "--allow_missing"))
    sets = embed_for_evaluation(options(*given, "all", "--transductive", "--allow_missing"))
    assert sets.test.metadata["split"] == "all clips (3 of 13320 clips)"
    classes = sets.test.metadata["class_names"]
    seed = next(seed for seed in range(10) if "Surfing" in half_class_split(classes, seed))
    half = embed_for_evaluation(options(*given, "2", "--transductive", "--allow_missing", "--half_split", seed))
    assert half.test.metadata["split"].startswith(f"2 half {seed} test (")
    assert len(half.test.metadata["class_names"]) == len(half.test.text_embeds) == 50


def damage(video_folder):
    """Spoil six of the 24 clips, each in its own way; names as results have them."""
    test, train = (sorted((video_folder / part / "Punch").iterdir()) for part in ("test", "train"))
    test[0].write_bytes(b"")
    test[1].write_text("this is no video")
    test[2].write_bytes(test[2].read_bytes()[:3000])
    train[0].write_bytes(bytes(5000))
    train[1].unlink()
    train[1].symlink_to(video_folder / "nowhere")
    train[2].unlink()
    train[2].mkdir()
    return {path.relative_to(video_folder).as_posix() for path in (*test[:3], *train[:2])}


@pytest.mark.parametrize("num_workers", ["0", pytest.param("2", marks=pytest.mark.slow)])
def test_damaged_clips_are_fatal_or_left_out_by_name(model_folder, video_folder, tmp_path, num_workers):
    damaged = damage(video_folder)
    given = (
        model_folder,
        "folder",
        video_folder,
        tmp_path / "cache",
        "--frames",
        "1x1x1",
        "--num_workers",
        num_workers,
    )
    with pytest.raises(ValueError, match=r"5 of 23 clips cannot be read: .*damaged\.json.*--allow_missing"):
        embed_for_evaluation(options(*given))
    (report,) = (tmp_path / "cache").rglob("damaged.json")
    assert json.loads(report.read_text())["left_out"].keys() == damaged
    sets = embed_for_evaluation(options(*given, "--allow_missing"))
    assert sets.test.metadata["split"] == "1 test (9 of 12 clips)"
    assert set(sets.test.metadata["damaged"]) | set(sets.domain.metadata["damaged"]) == damaged
    assert len(sets.domain.labels) == 9


def test_what_does_not_go_together_is_refused_in_one_sentence(model_folder, video_folder, tmp_path):
    def refused(message, *more, model=model_folder, dataset="folder", folder=video_folder):
        with pytest.raises(ValueError, match=message) as caught:
            embed_for_evaluation(options(model, dataset, folder, tmp_path / "cache", *more))
        assert "\n" not in str(caught.value)

    refused("--split belongs to ucf101 and hmdb51", "--split", "2")
    refused("--annotations are the lists of a data set's owners", "--annotations", "lists")
    refused("leaves no training clips: add --transductive", "--split", "all", dataset="ucf101")
    refused("has no train and test parts", folder=video_folder / "test")
    refused("no model folder .*nowhere", model=tmp_path / "nowhere")
    refused("Unrecognized model", model=tmp_path)
    refused("views '8' must read FRAMESxCROPSxCLIPS", "--frames", "8")
    refused("no lists of UCF101", dataset="ucf101")
    refused("no template file", "--templates", "nowhere")
    refused("--batch_size must be at least 1", "--batch_size", "0")
    args = options(model_folder, "folder", video_folder, tmp_path)
    args.data_dir = None
    with pytest.raises(ValueError, match="--model needs --data_dir"):
        embed_for_evaluation(args)


def test_figures_near_chance_are_called_so(model_folder, video_folder, tmp_path):
    sets = embed_for_evaluation(options(model_folder, "folder", video_folder, tmp_path / "cache", "--transductive"))
    measured = list(measure_set("clips", sets.test, {"zero-shot": zero_shot}, Plan(["full"])))
    assert measured[0].row["n"] == 12
    assert "near chance (1 of 3 classes: 33.33%" in "".join(chance_notes(measured))
    measured[0].row["top1"] = 1.0
    assert chance_notes(measured) == []


@pytest.mark.slow
def test_videos_are_explained_by_their_names(model_folder, video_folder, tmp_path):
    where = ("--data_dir", str(video_folder), "--cache_dir", str(tmp_path / "cache"), "--num_workers", "0")
    arguments = ("--model", str(model_folder), "--dataset", "folder", *where, "--explain", str(tmp_path / "explained"))
    assert main(list(arguments)) == 0
    written = {path.suffix: path for path in (tmp_path / "explained").iterdir()}
    assert set(written) == {".txt", ".json", ".png"}
    explained = json.loads(written[".json"].read_text())
    assert explained["num_clips"] == 12
    assert all(clip["name"].startswith("test/") for clip in explained["clips"])
    assert {of_class["name"] for of_class in explained["classes"]} == set(CLASSES)


SCRIPT = """
import argparse, sys
from modeling_dkd.evaluation.command import add_video_arguments
from modeling_dkd.evaluation.videos import embed_for_evaluation

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    add_video_arguments(parser)
    embed_for_evaluation(parser.parse_args())
"""


def start(tmp_path, model_folder, video_folder, cache, launcher=()):
    script = tmp_path / "embed.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    given = ("--model", model_folder, "--dataset", "folder", "--data_dir", video_folder, "--cache_dir", cache)
    command = [
        sys.executable,
        *launcher,
        script,
        *given,
        "--batch_size",
        "1",
        "--num_workers",
        "1",
        "--frames",
        "32x1x1",
    ]
    return subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.slow
def test_kill_and_sharing_leave_the_same_cache(model_folder, video_folder, tmp_path):
    given = (model_folder, "folder", video_folder, tmp_path / "whole", "--batch_size", "1", "--frames", "32x1x1")
    embed_for_evaluation(options(*given))
    expected = bytes_of(tmp_path / "whole")
    killed = start(tmp_path, model_folder, video_folder, tmp_path / "killed")
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("killed/*/shards/*.safetensors"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    num_kept = len(list(tmp_path.glob("killed/*/shards/*.safetensors")))
    assert 3 <= num_kept < 24
    resumed = start(tmp_path, model_folder, video_folder, tmp_path / "killed")
    errors = resumed.communicate(timeout=300)[1]
    assert f"{24 - num_kept} clips embedded, {num_kept} known from before" in errors
    left = {name: digest for name, digest in bytes_of(tmp_path / "killed").items() if "unfinished" not in name}
    assert left == expected
    launcher = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1")
    launcher += ("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "29631")
    shared = start(tmp_path, model_folder, video_folder, tmp_path / "shared", launcher)
    errors = shared.communicate(timeout=300)[1]
    assert shared.returncode == 0, errors
    assert errors.count("24 clips embedded, 0 known from before") == 1
    assert bytes_of(tmp_path / "shared") == expected
