"""Encoders of clips whose code comes with their checkpoint: used, saved with their code, loaded without either."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize

from modeling_dkd import DKDCLIPConfig, DKDCLIPModel
from tests.own_code.cosmos_like import CosmosLike, CosmosLikeConfig
from tests.own_code.viclip_like import ViCLIPLike, ViCLIPLikeConfig
from tests.test_remote_code import run_isolated
from tests.tiny_backbones import make_texts


KINDS = {"cosmos": (CosmosLike, CosmosLikeConfig, 7.389056), "viclip": (ViCLIPLike, ViCLIPLikeConfig, 20.0)}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def make_own(kind):
    model_class, config_class, _ = KINDS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class(config_class())
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name not in ("logit_scale", "temp"):
                    parameter.copy_(torch.randn_like(parameter))
    return model.eval()


@pytest.fixture
def stock(kind, tmp_path):
    """Folder of a checkpoint with code of its own."""
    backbone = make_own(kind)
    type(backbone).register_for_auto_class("AutoModel")
    type(backbone.config).register_for_auto_class()
    backbone.save_pretrained(tmp_path / "stock")
    return tmp_path / "stock"


def make_clips(count, seed=1):
    return torch.randn(count, 4, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 20


def own_logits(kind, clips, input_ids):
    model = make_own(kind)
    if kind == "cosmos":
        video = model.get_video_embeddings(clips).visual_proj
        text = model.get_text_embeddings(input_ids, torch.ones_like(input_ids)).text_proj
        return model.logit_scale.exp() * video @ text.T
    return model.get_vid_features(clips) @ normalize(model.text_encoder(input_ids), dim=-1).T / model.temp


@torch.no_grad()
def test_its_logits_are_its_own(kind, stock):
    clips, input_ids = make_clips(3), make_texts(5)
    model = DKDCLIPModel.from_backbone(stock, trust_remote_code=True)
    assert type(model.backbone).__module__.startswith("transformers_modules.")
    assert model.config.projection_dim == 12
    assert model.config.logit_scale == pytest.approx(KINDS[kind][2], rel=1e-5)
    logits = model(clips, input_ids, torch.ones_like(input_ids)).logits_per_video
    torch.testing.assert_close(logits, own_logits(kind, clips, input_ids), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="takes clips of 4 frames, but these have 3"):
        model(clips[:, :3], input_ids)


@torch.no_grad()
def test_texts_shorter_than_the_context_are_filled_as_its_own_tokenizer_does(stock, kind):
    if kind != "viclip":
        pytest.skip("only ViCLIP's text encoder takes one length alone")
    model = DKDCLIPModel.from_backbone(stock, trust_remote_code=True)
    full = torch.tensor([[5, 6, 98, 0, 0, 0, 0, 0, 0, 0, 0]])
    padded = torch.tensor([[5, 6, 98, 98]])  # as CLIP's tokenizer pads, with its end token
    torch.testing.assert_close(
        model.get_text_features(padded, torch.tensor([[1, 1, 1, 0]])), model.backbone.text_encoder(full)
    )


LOAD = """
from safetensors.torch import load_file
import torch
from transformers import AutoModel
inputs = load_file("{root}/inputs.safetensors")
expected = inputs.pop("expected")
model = AutoModel.from_pretrained("{root}/saved", trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules."), type(model)
assert model.head.is_fitted
with torch.no_grad():
    torch.testing.assert_close(model(**inputs).logits_per_video, expected)
model.save_pretrained("{root}/again")
"""


@pytest.mark.slow
def test_saved_it_carries_its_code_and_loads_without_this_package(kind, stock, tmp_path):
    clips, input_ids = make_clips(3), make_texts(5)
    model = DKDCLIPModel.from_backbone(stock, trust_remote_code=True)
    model.fit_domain(make_clips(9, seed=3), input_ids, torch.ones_like(input_ids)).save_pretrained(tmp_path / "saved")
    inputs = {"pixel_values": clips, "input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
    with torch.no_grad():
        save_file(inputs | {"expected": model(**inputs).logits_per_video}, tmp_path / "inputs.safetensors")
    done = run_isolated(LOAD.format(root=tmp_path), tmp_path)
    assert done.returncode == 0, done.stderr
    again, saved = ({path.name for path in (tmp_path / name).iterdir()} for name in ("again", "saved"))
    assert again == saved
    assert f"{kind}_like.py" in saved
    assert load_file(tmp_path / "again/model.safetensors").keys() == model.state_dict().keys()


@torch.no_grad()
def test_its_code_runs_only_where_it_is_trusted(kind, stock, tmp_path):
    clips, input_ids = make_clips(3), make_texts(5)
    model = DKDCLIPModel.from_backbone(stock, trust_remote_code=True)
    model.save_pretrained(tmp_path / "saved")
    inputs = {"pixel_values": clips, "input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
    loaded = DKDCLIPModel.from_pretrained(tmp_path / "saved", trust_remote_code=True)
    torch.testing.assert_close(loaded(**inputs).logits_per_video, model(**inputs).logits_per_video)
    for load in (DKDCLIPModel.from_pretrained, DKDCLIPConfig.from_pretrained):
        with pytest.raises(ValueError, match=r"has a backbone with code of its own \(\w+_like\.\w+\); if you trust"):
            load(tmp_path / "saved")
    elsewhere = json.loads((tmp_path / "saved/config.json").read_text())
    elsewhere["backbone_config"]["auto_map"]["AutoConfig"] = "somebody/else--code.Config"
    (tmp_path / "saved/config.json").write_text(json.dumps(elsewhere))
    with pytest.raises(ValueError, match=r"somebody/else--code\.Config"):
        DKDCLIPModel.from_pretrained(tmp_path / "saved", trust_remote_code=True)
