import copy
import json
import math
import os
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertConfig, BertModel

from modeling_dkd import DKDCLIPConfig, DKDCLIPModel
from modeling_dkd.domain_file import FORMAT_VERSION
from modeling_dkd.embedding.embedded_checkpoint import CHECKPOINT
from tests.tiny_backbones import (
    ALL_KINDS,
    BACKBONE_KINDS,
    MAX_TOKENS,
    TEXT,
    make_model,
    make_texts,
    make_videos,
    own_logits,
    tiny_backbone,
    tiny_backbone_config,
)


@pytest.fixture(params=BACKBONE_KINDS)
def kind(request):
    return request.param


@torch.no_grad()
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_stock_checkpoint_loads_with_its_weights_and_similarity(kind, tmp_path):
    stock = tiny_backbone(kind)
    stock.save_pretrained(tmp_path)
    model = DKDCLIPModel.from_backbone(tmp_path)
    assert type(model.backbone) is type(stock)
    assert not model.training
    weights = model.backbone.state_dict()
    assert weights.keys() == stock.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in stock.state_dict().items())
    scale = 1 / stock.temperature if kind == "align" else stock.logit_scale.exp()
    torch.testing.assert_close(model.head.logit_scale, scale.reshape(()))
    if hasattr(stock, "logit_bias"):
        torch.testing.assert_close(model.head.logit_bias, stock.logit_bias.reshape(()))
    images, input_ids = make_videos(3, 1).squeeze(1), make_texts(4)
    torch.testing.assert_close(
        model(images, input_ids).logits_per_video, own_logits(stock, images, input_ids), rtol=1e-5, atol=1e-5
    )


def test_options_of_the_stock_loader_and_of_dkd_are_told_apart(tmp_path):
    tiny_backbone("clip").save_pretrained(tmp_path)
    model = DKDCLIPModel.from_backbone(tmp_path, logit_scale=9, dtype=torch.float16)
    assert model.head.logit_scale.item() == pytest.approx(9)
    assert model.backbone.dtype == torch.float16


def test_a_stock_checkpoint_with_weights_missing_is_refused(tmp_path):
    tiny_backbone("clip").save_pretrained(tmp_path)
    drop_weights(tmp_path, "visual_projection")
    with pytest.raises(ValueError, match=r"lacks 1 of the backbone's weights \(the first is visual_projection.weight"):
        DKDCLIPModel.from_backbone(tmp_path)


def test_a_backbone_that_is_no_dual_encoder_is_refused(tmp_path):
    BertModel(BertConfig(**TEXT, max_position_embeddings=MAX_TOKENS)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="BertModel has no get_image_features and no get_text_features; give a dual"):
        DKDCLIPModel.from_backbone(tmp_path)


def test_a_backbone_that_embeds_tokens_instead_of_images_is_refused(monkeypatch):
    model = make_model("clip")
    monkeypatch.setattr(model.backbone, "get_image_features", lambda pixel_values: torch.zeros(2, 26, 32))
    with pytest.raises(ValueError, match=r"the backbone CLIPModel gives \(2, 26, 32\) for 2 inputs, not one"):
        model(make_videos(2, 1), make_texts(4))


def test_each_way_of_loading_says_when_the_other_is_meant(tmp_path):
    tiny_backbone("clip").save_pretrained(tmp_path / "stock")
    make_model().save_pretrained(tmp_path / "dkd")
    with pytest.raises(ValueError, match="is a DKD checkpoint already; load it with from_pretrained"):
        DKDCLIPModel.from_backbone(tmp_path / "dkd")
    with pytest.raises(ValueError, match=r"DKDCLIPModel needs a config with a backbone_config.*from_backbone"):
        DKDCLIPModel.from_pretrained(tmp_path / "stock")


def test_a_model_needs_a_backbone():
    with pytest.raises(ValueError, match="DKDCLIPModel needs a config with a backbone_config"):
        DKDCLIPModel(DKDCLIPConfig())


def test_a_backbone_of_another_size_than_the_config_says_is_named():
    config = tiny_backbone_config("clip")
    with pytest.raises(ValueError, match="projection_dim is 12, but the backbone's embeddings have 24 dimensions"):
        DKDCLIPConfig(backbone_config=config, projection_dim=12)
    model = make_model()
    model.config.projection_dim = 12
    with pytest.raises(ValueError, match="the backbone's embeddings have 24 dimensions, but projection_dim is 12"):
        model(make_videos(), make_texts(4))


def drop_weights(folder, prefix):
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith(prefix)}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


@torch.no_grad()
def test_saving_and_loading_gives_the_same_bits(kind, tmp_path):
    model = make_model(kind)
    model.save_pretrained(tmp_path)
    loaded, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is DKDCLIPModel
    assert not any(info.values())
    assert not loaded.training
    inputs = make_videos(), make_texts(4, 2)
    assert torch.equal(loaded(*inputs).logits_per_video, model(*inputs).logits_per_video)
    assert not loaded.backbone.logit_scale.requires_grad


@torch.no_grad()
def test_without_a_head_in_the_checkpoint_the_head_comes_up_unfitted(tmp_path):
    model = make_model("siglip")
    model.save_pretrained(tmp_path)
    drop_weights(tmp_path, "head.")
    loaded, info = DKDCLIPModel.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] == {f"head.{name}" for name in model.head.state_dict()}
    for name, value in model.head.state_dict().items():
        torch.testing.assert_close(loaded.head.state_dict()[name], value)
    inputs = make_videos(), make_texts(4)
    torch.testing.assert_close(loaded(*inputs).logits_per_video, model(*inputs).logits_per_video)


def test_a_checkpoint_that_lacks_weights_of_the_encoders_is_refused(tmp_path):
    make_model().save_pretrained(tmp_path)
    drop_weights(tmp_path, "backbone.text_projection")
    with pytest.raises(ValueError, match=r"lacks 1 of the backbone's weights .*backbone.text_projection.weight"):
        DKDCLIPModel.from_pretrained(tmp_path)


def test_a_checkpoint_of_another_dimension_says_so(tmp_path):
    make_model().save_pretrained(tmp_path)
    other = DKDCLIPConfig.from_pretrained(tmp_path)
    other.projection_dim = other.backbone_config.projection_dim = 12
    with pytest.raises(ValueError, match=r"of shape .*24.*\(projection_dim=12, num_components=0\) says .*12"):
        DKDCLIPModel.from_pretrained(tmp_path, config=other)
    with pytest.raises(ValueError, match="projection_dim is 12, but the backbone's embeddings have 24 dimensions"):
        DKDCLIPModel.from_pretrained(tmp_path, projection_dim=12)


@torch.no_grad()
def test_a_fitted_domain_is_part_of_the_checkpoint(kind, tmp_path):
    model, inputs = make_model(kind), (make_videos(), make_texts(5, 2))
    model.fit_domain(make_videos(12, 2, seed=3), inputs[1])
    assert model.config.num_components >= 5
    model.save_pretrained(tmp_path)
    loaded, info = DKDCLIPModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert loaded.head.is_fitted
    assert loaded.config.num_components == model.config.num_components
    assert all(torch.equal(loaded.head.state_dict()[name], value) for name, value in model.head.state_dict().items())
    for name, value in model(*inputs).items():
        assert torch.equal(loaded(*inputs)[name], value), name


def test_a_checkpoint_of_another_number_of_components_says_so(tmp_path):
    model = make_model().fit_domain(make_videos(12, 2), make_texts(5))
    count = model.config.num_components
    model.save_pretrained(tmp_path)
    message = rf"of shape .*{count}.*\(projection_dim=24, num_components={count + 2}\) says .*{count + 2}"
    with pytest.raises(ValueError, match=message) as caught:
        DKDCLIPModel.from_pretrained(tmp_path, num_components=count + 2)
    assert "\n" not in str(caught.value)


@torch.no_grad()
def test_a_domain_missing_from_the_checkpoint_leaves_plain_clip(tmp_path):
    inputs = make_videos(), make_texts(5)
    expected = make_model()(*inputs)
    make_model().fit_domain(make_videos(12, 2), inputs[1]).save_pretrained(tmp_path)
    drop_weights(tmp_path, "head.")
    loaded = DKDCLIPModel.from_pretrained(tmp_path)
    assert not loaded.head.is_fitted
    torch.testing.assert_close(loaded(*inputs).logits_per_video, expected.logits_per_video)


@pytest.fixture(scope="module")
def fitted_checkpoint(tmp_path_factory):
    """Folder of a checkpoint with a domain of 5 classes, and its weights."""
    folder = tmp_path_factory.mktemp("fitted")
    make_model().fit_domain(make_videos(12, 2), make_texts(5)).save_pretrained(folder)
    return folder, load_file(folder / "model.safetensors")


UNFITTED = make_model().head
HEAD_NAMES = sorted(UNFITTED.state_dict())


# Every sixth in a fast run: all go the same way.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (n % 6 > 0)) for n, name in enumerate(HEAD_NAMES)]
)
def test_a_checkpoint_with_part_of_a_domain_never_loads_as_fitted(fitted_checkpoint, tmp_path, name, caplog):
    folder, weights = fitted_checkpoint
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    tensor = weights.pop(f"head.{name}")
    try:
        save_file(weights | {f"head.{name}": torch.stack([tensor, tensor])}, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match=rf"head\.{name} of shape"):
            DKDCLIPModel.from_pretrained(tmp_path)
        save_file(weights, tmp_path / "model.safetensors")
    finally:
        weights[f"head.{name}"] = tensor
    message = rf"lacks head\.{name}: it is not a domain of this version of DKD; fit the domain again\."
    with pytest.raises(ValueError, match=message):
        DKDCLIPModel.from_pretrained(tmp_path)
    with caplog.at_level("WARNING"):
        model = DKDCLIPModel.from_pretrained(tmp_path, ignore_mismatched_sizes=True)
    assert "It is loaded as plain CLIP." in caplog.text
    assert not model.head.is_fitted
    assert model.config.num_components == 0
    for other in set(HEAD_NAMES) - {"log_logit_scale", "logit_bias"}:
        assert torch.equal(model.head.get_buffer(other), UNFITTED.get_buffer(other)), other


def test_a_domain_of_another_size_than_the_configuration_says_is_never_half_loaded(fitted_checkpoint, tmp_path):
    shutil.copytree(fitted_checkpoint[0], tmp_path, dirs_exist_ok=True)
    for num_components in (0, 3):
        with pytest.raises(ValueError, match=rf"num_components={num_components}\) says"):
            DKDCLIPModel.from_pretrained(tmp_path, num_components=num_components)
        options = {"num_components": num_components, "ignore_mismatched_sizes": True}
        model = DKDCLIPModel.from_pretrained(tmp_path, **options)
        assert torch.equal(model.head.variances, make_model().head.variances)
        assert not model.head.is_fitted


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("format_version", FORMAT_VERSION + 1, f"has format_version {FORMAT_VERSION + 1} instead of {FORMAT_VERSION}"),
        ("means", float("nan"), "has values in means that are not finite"),
        ("variances", 0.0, "has values in variances that are not above 0"),
    ],
)
def test_a_domain_of_another_version_or_with_impossible_values_is_refused(
    fitted_checkpoint, tmp_path, name, value, fault
):
    folder, weights = fitted_checkpoint
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    broken = weights | {f"head.{name}": torch.full_like(weights[f"head.{name}"], value)}
    save_file(broken, tmp_path / "model.safetensors")
    with pytest.raises(
        ValueError, match=f"^{re.escape(f'{tmp_path} {fault}: it is not a domain of this version of')}"
    ):
        DKDCLIPModel.from_pretrained(tmp_path)
    assert not DKDCLIPModel.from_pretrained(tmp_path, ignore_mismatched_sizes=True).head.is_fitted


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64])
@pytest.mark.parametrize("name", ["text_bases", "known_floor", "log_logit_scale"])
def test_a_domain_that_was_rounded_is_refused(fitted_checkpoint, tmp_path, name, dtype):
    folder, weights = fitted_checkpoint
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    rounded = weights | {f"head.{name}": weights[f"head.{name}"].to(dtype)}
    save_file(rounded, tmp_path / "model.safetensors")
    fault = f"has head.{name} of {dtype} instead of torch.float32: it is not a domain of this version of DKD"
    with pytest.raises(ValueError, match=f"^{re.escape(f'{tmp_path} {fault}')}"):
        DKDCLIPModel.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"^the state dict {re.escape(fault)}"):
        DKDCLIPModel.from_pretrained(None, config=DKDCLIPConfig.from_pretrained(tmp_path), state_dict=dict(rounded))
    with pytest.raises(RuntimeError, match=rf"the state dict has {name} of {dtype} instead of torch\.float32"):
        make_model().load_state_dict(rounded)
    assert not DKDCLIPModel.from_pretrained(tmp_path, ignore_mismatched_sizes=True).head.is_fitted


def test_an_encoder_may_be_rounded_and_a_domain_be_wider(fitted_checkpoint, tmp_path):
    folder, weights = fitted_checkpoint
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    save_file(
        {name: value.double() if name.startswith("head.") else value.half() for name, value in weights.items()},
        tmp_path / "model.safetensors",
    )
    model = DKDCLIPModel.from_pretrained(tmp_path)
    assert torch.equal(model.head.means, weights["head.means"])


@pytest.mark.parametrize(
    ("weights", "fault"), [([0.0] * 5, "is not fitted"), ([1.5, -0.5, 0, 0, 0], "has weights that are no shares")]
)
def test_a_domain_whose_weights_are_no_distribution_is_refused(fitted_checkpoint, tmp_path, weights, fault):
    folder, stored = fitted_checkpoint
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    save_file(stored | {"head.weights": torch.tensor(weights)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=f"{fault}.*: it is not a domain of this version"):
        DKDCLIPModel.from_pretrained(tmp_path)


def test_a_model_comes_from_weights_in_memory_alone(fitted_checkpoint):
    folder, weights = fitted_checkpoint
    config = DKDCLIPConfig.from_pretrained(folder)
    loaded = DKDCLIPModel.from_pretrained(None, config=config, state_dict=dict(weights))
    assert torch.equal(loaded.head.text_bases, weights["head.text_bases"])
    lacking = {name: value for name, value in weights.items() if name != "head.text_bases"}
    with pytest.raises(ValueError, match=r"^the state dict lacks head\.text_bases"):
        DKDCLIPModel.from_pretrained(None, config=config, state_dict=lacking)


def test_a_shard_that_is_cut_off_is_named(tmp_path):
    make_model().save_pretrained(tmp_path, max_shard_size="20KB")
    shard = max(tmp_path.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(OSError, match=rf"{re.escape(str(shard))} is not a whole safetensors file .*copy or download"):
        DKDCLIPModel.from_pretrained(tmp_path)


def test_a_configuration_that_speaks_of_a_domain_that_is_not_there_gives_a_warning(
    fitted_checkpoint, tmp_path, caplog
):
    shutil.copytree(fitted_checkpoint[0], tmp_path, dirs_exist_ok=True)
    drop_weights(tmp_path, "head.")
    with caplog.at_level("WARNING"):
        model = DKDCLIPModel.from_pretrained(tmp_path)
    assert f"{tmp_path} holds no domain, though its configuration has num_components=5" in caplog.text
    assert (model.head.is_fitted, model.config.num_components) == (False, 0)


def test_an_unfitted_checkpoint_of_before_a_buffer_came_still_loads(tmp_path):
    make_model().save_pretrained(tmp_path)
    drop_weights(tmp_path, "head.format_version")
    model = DKDCLIPModel.from_pretrained(tmp_path)
    assert not model.head.is_fitted
    assert float(model.head.format_version) == FORMAT_VERSION


def test_models_of_one_configuration_do_not_mix():
    backbone = tiny_backbone("clip")
    config = DKDCLIPConfig(backbone_config=backbone.config)
    before = copy.deepcopy(config)
    fitted, other = DKDCLIPModel(config, backbone), DKDCLIPModel(config, tiny_backbone("clip"))
    names = list("abcde")
    fitted.fit_domain(make_videos(12, 2), make_texts(5), class_names=names)
    assert config == before
    assert other.config.num_components == 0
    assert other.config.id2label == before.id2label
    assert (fitted.config.num_components, list(fitted.config.id2label.values())) == (5, names)


def test_a_trained_logit_scale_is_in_the_configuration_of_what_is_saved(tmp_path):
    model = make_model(logit_scale=13.9)
    model.save_pretrained(tmp_path / "as it was")
    assert json.loads((tmp_path / "as it was/config.json").read_text())["logit_scale"] == 13.9
    with torch.no_grad():
        model.head.log_logit_scale.fill_(math.log(5))
    model.head.logit_bias.fill_(-0.5)
    model.save_pretrained(tmp_path / "trained")
    config = json.loads((tmp_path / "trained/config.json").read_text())
    assert (config["logit_scale"], config["logit_bias"]) == (pytest.approx(5), -0.5)
    loaded = DKDCLIPModel.from_pretrained(tmp_path / "trained")
    assert torch.equal(loaded.head.logit_scale, model.head.logit_scale)


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_weights_can_be_read_by_whom_the_umask_lets(tmp_path, umask):
    before = os.umask(umask)
    try:
        make_model().save_pretrained(tmp_path, max_shard_size="20KB")
    finally:
        os.umask(before)
    files = list(tmp_path.glob("*.safetensors"))
    assert len(files) > 1
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~umask}


@torch.no_grad()
def test_a_model_takes_over_a_domain_that_was_saved_alone(tmp_path):
    names = list("abcde")
    model = make_model().fit_domain(make_videos(12, 2), make_texts(5), class_names=names)
    model.head.save_pretrained(tmp_path)
    other = make_model()
    assert other.load_domain(tmp_path) is other
    assert other.config.id2label == dict(enumerate(names))
    assert other.config.num_components == 5
    inputs = make_videos(), make_texts(5)
    assert torch.equal(other(*inputs).logits_per_video, model(*inputs).logits_per_video)
    other.save_pretrained(tmp_path / "whole")
    assert DKDCLIPModel.from_pretrained(tmp_path / "whole").head.is_fitted
    siglip = make_model("siglip")
    with pytest.raises(
        ValueError, match=r"belongs to the encoder without a name \(.*D 24\), but this model's encoder is .*D "
    ):
        siglip.load_domain(tmp_path)
    assert not siglip.head.is_fitted


def test_the_embedded_checkpoint_has_every_buffer():
    _, info = DKDCLIPModel.from_pretrained(CHECKPOINT, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
