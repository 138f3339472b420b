"""Models of open_clip: pixels, tokens and logits are its own; saved they are remote code like any other."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from modeling_dkd import DKDCLIPModel, DKDCLIPProcessor
from modeling_dkd.embedding.clip_encoder import ClipEncoder
from modeling_dkd.embedding.encoder_sources import load_source
from modeling_dkd.recognition.encoder import load_encoder
from tests.test_processing_dkd import random_video
from tests.test_remote_code import run_isolated


open_clip = pytest.importorskip("open_clip")

SIDE, DIM = 32, 24
MODEL = {
    "embed_dim": DIM,
    "vision_cfg": {"image_size": SIDE, "layers": 2, "width": 32, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 4, "layers": 1},
}
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
MODES = {
    "shortest": {"resize_mode": "shortest", "interpolation": "bicubic"},
    "squash": {"resize_mode": "squash", "interpolation": "bilinear"},
    "longest": {"resize_mode": "longest", "interpolation": "bicubic", "fill_color": 114},
}
TEXTS = ["A man playing VIOLIN!", "a caf&eacute; &amp;  bar", "running " * 30]
# Without a word about its random weights.
pytestmark = pytest.mark.filterwarnings("ignore")


def make_checkpoint(folder, mode="shortest", **changes):
    """A folder as open_clip pushes it, with random weights."""
    folder.mkdir()
    preprocess = {"size": SIDE, "mean": MEAN, "std": STD, **MODES[mode]}
    config = {"model_cfg": MODEL | changes, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
        model.logit_scale.data.fill_(1.7)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return f"open_clip:local-dir:{folder}"


def own(name):
    model, _, preprocess = open_clip.create_model_and_transforms(name.removeprefix("open_clip:"))
    return model.eval(), preprocess, open_clip.get_tokenizer(name.removeprefix("open_clip:"))


@pytest.mark.parametrize("mode", MODES)
def test_pixels_are_its_own(mode, tmp_path):
    name = make_checkpoint(tmp_path / "model", mode)
    preprocess = own(name)[1]
    processor = DKDCLIPProcessor.from_backbone(name)
    for height, width in [(41, 53), (53, 41), (37, 100), (33, 32), (90, 31), (20, 25), (64, 47)]:
        image = random_video(1, height, width)[0]
        found = processor(images=[image])["pixel_values"][0, 0]
        difference = (found - preprocess(Image.fromarray(image))).abs() * torch.tensor(STD)[:, None, None] * 255
        assert difference.max() <= 2.001, (height, width)


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"init_logit_bias": -2.5, "custom_text": True}])
def test_tokens_and_logits_are_its_own(changes, tmp_path):
    name = make_checkpoint(tmp_path / "model", **changes)
    model, _, tokenizer = own(name)
    processor, ours = DKDCLIPProcessor.from_backbone(name), DKDCLIPModel.from_backbone(name)
    tokens = processor(text=TEXTS)
    assert torch.equal(tokens["input_ids"], tokenizer(TEXTS))
    images = torch.randn(3, 3, SIDE, SIDE)
    expected = model.logit_scale.exp() * model.encode_image(images, normalize=True) @ model.encode_text(
        tokenizer(TEXTS), normalize=True
    ).T + changes.get("init_logit_bias", 0.0)
    torch.testing.assert_close(ours(images, **tokens).logits_per_video, expected, rtol=1e-5, atol=1e-5)
    assert not ours.backbone.logit_scale.requires_grad


@torch.no_grad()
def test_it_is_fitted_saved_and_loaded(tmp_path):
    name = make_checkpoint(tmp_path / "model", "longest")
    model, processor = DKDCLIPModel.from_backbone(name), DKDCLIPProcessor.from_backbone(name)
    inputs = processor(videos=[random_video(3, seed=seed) for seed in range(8)], text=TEXTS)
    before = model(**inputs).logits_per_video
    after = model.fit_domain(**inputs)(**inputs).logits_per_video
    assert not torch.allclose(before, after, atol=1e-3)
    for part in (model, processor):
        part.save_pretrained(tmp_path / "saved")
    loaded, again = (kind.from_pretrained(tmp_path / "saved") for kind in (DKDCLIPModel, DKDCLIPProcessor))
    inputs_again = again(videos=[random_video(3, seed=seed) for seed in range(8)], text=TEXTS)
    assert all(torch.equal(inputs_again[key], value) for key, value in inputs.items())
    torch.testing.assert_close(loaded(**inputs_again).logits_per_video, after)


LOAD = """
import torch
lib = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    try:
        lib.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    except RuntimeError:
        pass
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor
given = load_file("{root}/given.safetensors")
model = AutoModel.from_pretrained("{root}/saved", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("{root}/saved", trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules."), type(model)
assert type(processor).__module__.startswith("transformers_modules."), type(processor)
with torch.no_grad():
    found = model(given["pixel_values"], **processor(text={texts!r})).logits_per_video
torch.testing.assert_close(found, given["expected"])
"""


@pytest.mark.slow
def test_it_loads_where_this_package_is_not_installed(tmp_path):
    name = make_checkpoint(tmp_path / "model")
    model, processor = DKDCLIPModel.from_backbone(name), DKDCLIPProcessor.from_backbone(name)
    for part in (model, processor):
        part.save_pretrained(tmp_path / "saved")
    images = torch.randn(3, 3, SIDE, SIDE)
    with torch.no_grad():
        expected = model(images, **processor(text=TEXTS)).logits_per_video
    save_file({"pixel_values": images, "expected": expected}, tmp_path / "given.safetensors")
    done = run_isolated(LOAD.format(root=tmp_path, texts=TEXTS), tmp_path)
    assert done.returncode == 0, done.stderr


def test_commands_take_it_by_name(tmp_path):
    name = make_checkpoint(tmp_path / "model")
    encoder = load_encoder(name, num_frames=3)
    assert (encoder.name, encoder.dim, encoder.num_frames) == (name, DIM, 3)
    assert encoder.logit_scale == pytest.approx(np.exp(1.7), rel=1e-5)
    frames = torch.from_numpy(random_video(3)).permute(0, 3, 1, 2)
    videos = encoder.embed_videos([encoder.prepare(frames)])
    texts = encoder.embed_texts(encoder.prompts(["swim", "run"]))
    assert (videos.shape, texts.shape) == ((1, 3, DIM), (2, 1, DIM))
    assert encoder.num_cut(TEXTS) == 1


def test_the_key_names_weights_and_preprocessing(tmp_path):
    def key(name):
        source = load_source(name, "3x1x1", None, torch.float32, torch.device("cpu"))
        assert isinstance(source, ClipEncoder)
        return source.key()

    first, other_size = make_checkpoint(tmp_path / "a"), make_checkpoint(tmp_path / "b", "squash")
    assert key(first)["preprocessing"]["size"] == {"shortest_edge": SIDE}
    assert key(first)["preprocessing"] != key(other_size)["preprocessing"]
    weights = load_file(tmp_path / "a/open_clip_model.safetensors")
    weights["logit_scale"] += 1
    (tmp_path / "c").mkdir()
    (tmp_path / "c/open_clip_config.json").write_bytes((tmp_path / "a/open_clip_config.json").read_bytes())
    save_file(weights, tmp_path / "c/open_clip_model.safetensors")
    assert key(first)["weights"] != key(f"open_clip:local-dir:{tmp_path}/c")["weights"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("open_clip:ViT-B-32", "write open_clip:hf-hub:OWNER/NAME or open_clip:local-dir:FOLDER"),
        ("open_clip:local-dir:nowhere", r"the folder has no open_clip_config\.json"),
        ("open_clip:hf-hub:owner/name", "cannot load the model open_clip:hf-hub:owner/name"),
        ("open_clip:local-dir:{root}/no_weights", r"has no open_clip_model\.safetensors; other kinds of weights"),
        ("open_clip:local-dir:{root}/odd", r"resize_mode 'shortest' to 32 x 48 is not supported"),
        ("open_clip:local-dir:{root}/broken", "is no configuration of open_clip"),
    ],
)
def test_what_cannot_be_loaded_is_refused_in_one_sentence(name, message, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    make_checkpoint(tmp_path / "odd")
    config = json.loads((tmp_path / "odd/open_clip_config.json").read_text())
    for folder in ("no_weights", "broken"):
        (tmp_path / folder).mkdir()
    (tmp_path / "no_weights/open_clip_config.json").write_text(json.dumps(config))
    (tmp_path / "broken/open_clip_config.json").write_text("{}")
    config["preprocess_cfg"]["size"] = [32, 48]
    (tmp_path / "odd/open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message) as caught:
        load_encoder(name.format(root=tmp_path))
    assert "\n" not in str(caught.value)
