import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import modeling_dkd
from modeling_dkd import DKDCLIPModel, DKDCLIPProcessor
from modeling_dkd.embedding.embedded_checkpoint import CHECKPOINT, ENTRANCES, copy_code, shipped_code
from modeling_dkd.synthetic.clips import ACTIONS, SOURCE, class_prompts, describe_clips, render_clip
from modeling_dkd.synthetic.tiny_backbone import (
    TinyBackboneConfig,
    build_model,
    build_processor,
    contrastive_loss,
    main,
    save_checkpoint,
    source_frames,
    train,
)
from modeling_dkd.synthetic.tiny_captions import build_tokenizer
from tests.test_remote_code import run_isolated


SHORT = replace(TinyBackboneConfig(), num_clips=6, num_steps=3, num_text_steps=2, batch_size=4)


@pytest.fixture(scope="module")
def source():
    return source_frames(SHORT, build_processor(build_tokenizer()))


def test_training_twice_gives_the_same_weights(source):
    torch.manual_seed(1)
    first = train(SHORT, *source).state_dict()
    torch.manual_seed(2)
    second = train(SHORT, *source).state_dict()
    other = train(replace(SHORT, seed=1), *source).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["visual_projection.weight"], other["visual_projection.weight"])


def test_training_moves_the_weights(source):
    start = build_model(SHORT).state_dict()
    end = train(SHORT, *source).state_dict()
    moved = [name for name in start if not torch.equal(start[name], end[name])]
    assert len(moved) > 0.9 * sum(value.is_floating_point() for value in start.values())


def test_guessed_captions_move_the_text_encoder_alone(source):
    true, guessed = (train(replace(SHORT, guessed_share=share), *source).state_dict() for share in (0.0, 1.0))
    differing = {name.split(".")[0] for name in true if not torch.equal(true[name], guessed[name])}
    assert {"text_model", "text_projection"} <= differing <= {"text_model", "text_projection", "logit_scale"}


def test_source_frames_come_from_the_files(source):
    frames, descriptions = source
    again, _ = source_frames(SHORT, build_processor(build_tokenizer()))
    assert frames.shape == (6, 8, 3, 48, 48)
    assert torch.equal(frames, again)
    assert descriptions == describe_clips(SOURCE, 6, SHORT.clip_seed)


def test_loss_of_single_pairs_is_cross_entropy_both_ways():
    torch.manual_seed(0)
    logits = torch.randn(5, 5, dtype=torch.float64)
    labels = torch.arange(5)
    both = [torch.nn.functional.cross_entropy(x, labels) for x in (logits, logits.T)]
    torch.testing.assert_close(contrastive_loss(logits, torch.eye(5, dtype=torch.bool)), sum(both) / 2)


def test_loss_is_least_when_all_true_captions_win():
    is_true = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    scores = [contrastive_loss(scale * is_true, is_true) for scale in (0.0, 5.0, 50.0)]
    assert scores[0] > scores[1] > scores[2]
    assert contrastive_loss(50.0 * torch.eye(3), is_true) > scores[2]


def test_the_embedded_checkpoint_is_small_and_was_trained_by_this_configuration():
    assert (CHECKPOINT / "model.safetensors").stat().st_size < 4_000_000
    recorded = json.loads((CHECKPOINT / "training_config.json").read_text())
    assert recorded == asdict(TinyBackboneConfig())


def test_what_ships_is_what_saving_a_model_and_its_processor_copies(tmp_path):
    DKDCLIPModel.from_pretrained(CHECKPOINT).save_pretrained(tmp_path)
    DKDCLIPProcessor.from_pretrained(CHECKPOINT).save_pretrained(tmp_path)
    package = Path(modeling_dkd.__file__).parent
    assert {path.name for path in shipped_code()} == {path.name for path in package.glob("*.py")} - set(ENTRANCES)
    for folder in (tmp_path, CHECKPOINT):
        found = {path.name: path.read_bytes() for path in folder.glob("*.py")}
        assert found == {path.name: path.read_bytes() for path in shipped_code()}


def test_copies_are_brought_up_to_date_and_right_ones_left_alone(tmp_path):
    copy_code(tmp_path)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    (tmp_path / "svgd.py").write_text("stale")
    (tmp_path / "no_longer_shipped.py").write_text("stale")
    (tmp_path / "config.json").write_text("{}")
    copy_code(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in written} | {"config.json"}
    assert (tmp_path / "svgd.py").read_bytes() == (Path(modeling_dkd.__file__).parent / "svgd.py").read_bytes()
    assert all(path.stat().st_mtime_ns == t for path, t in written.items() if path.name != "svgd.py")


def files_below(folder):
    return {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix != ".pyc" and path.is_file()
    }


def without_version(content):
    """The bytes of a file, but for the version of transformers that wrote it."""
    return re.sub(rb'"transformers_version": "[^"]+"', b"", content)


def test_refreshing_keeps_the_weights_and_renews_the_code(tmp_path):
    folder = tmp_path / "dkd-tiny"
    shutil.copytree(CHECKPOINT, folder)
    before = load_file(folder / "model.safetensors")
    (folder / "dkd_head.py").write_text("stale")
    (folder / "no_longer_shipped.py").write_text("stale")
    assert main(["--output", str(folder), "--refresh"]) == 0
    after = load_file(folder / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("backbone."))
    names = files_below(CHECKPOINT)
    assert files_below(folder) == names
    for name in names - {"model.safetensors"}:
        assert without_version((folder / name).read_bytes()) == without_version((CHECKPOINT / name).read_bytes()), name


def test_refreshing_nothing_is_refused(tmp_path, capsys):
    assert main(["--output", str(tmp_path), "--refresh"]) == 2
    assert "no model.safetensors" in capsys.readouterr().err


def test_the_embedded_checkpoint_recognises_source_clips():
    model = DKDCLIPModel.from_pretrained(CHECKPOINT)
    processor = DKDCLIPProcessor.from_pretrained(CHECKPOINT)
    descriptions = describe_clips(SOURCE, 100, 2)
    labels = torch.tensor([ACTIONS.index(d.action) for d in descriptions])
    inputs = processor(videos=[render_clip(SOURCE, d) for d in descriptions], text=class_prompts(), num_frames=4)
    with torch.inference_mode():
        predicted = model(**inputs).logits_per_video.argmax(1)
    assert (predicted == labels).float().mean() > 0.6


LOAD_EMBEDDED = """
import torch
from transformers import AutoModel, AutoProcessor
processor = AutoProcessor.from_pretrained({folder!r}, trust_remote_code=True)
model, info = AutoModel.from_pretrained({folder!r}, trust_remote_code=True, output_loading_info=True)
assert not any(info.values()), info
clip = torch.zeros(4, 3, 64, 64, dtype=torch.uint8)
inputs = processor(videos=[clip], text=["something turning", "an object growing"])
with torch.no_grad():
    print(tuple(model(**inputs).logits_per_video.shape))
"""


@pytest.mark.slow
def test_the_embedded_checkpoint_loads_as_remote_code(tmp_path):
    done = run_isolated(LOAD_EMBEDDED.format(folder=str(CHECKPOINT)), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "(1, 2)" in done.stdout


def test_a_saved_checkpoint_gives_the_backbones_own_logits(source, tmp_path):
    backbone = train(SHORT, *source)
    save_checkpoint(backbone, tmp_path)
    model = DKDCLIPModel.from_pretrained(tmp_path)
    tokens = build_tokenizer()(["something turning", "an object growing"], padding=True, return_tensors="pt")
    images = source[0][:2, 0].float()
    with torch.inference_mode():
        expected = backbone(pixel_values=images, **tokens).logits_per_image
        torch.testing.assert_close(
            model(pixel_values=images, **tokens).logits_per_video, expected, atol=1e-4, rtol=1e-4
        )
