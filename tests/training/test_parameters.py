import pytest
import torch
from torch import nn

from modeling_dkd.training.config import RecipeOptions
from modeling_dkd.training.parameters import (
    MovingAverage,
    choose_trainable,
    find_tower,
    merged_state,
    optimizer_groups,
)

from ..tiny_backbones import make_model, make_texts, make_videos


def towers(model):
    video = find_tower(model.backbone, lambda: model.get_video_features(make_videos(1, 1)))
    return video, find_tower(model.backbone, lambda: model.get_text_features(make_texts(3)))


def trained(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2", "metaclip_2", "vision_text_dual_encoder"])
def test_towers_share_nothing_and_cover_the_encoders(kind):
    model = make_model(kind)
    video, text = towers(model)
    assert not video.names & text.names
    assert video.num_blocks == text.num_blocks == 2
    assert "vision" in video.blocks
    assert "text" in text.blocks
    left = {n for n, p in model.backbone.named_parameters() if p.requires_grad} - video.names - text.names
    assert all("pooler" in name or "bias" in name for name in left), left  # unused pooler, key biases
    depths = {name: video.depth(name) for name in video.names}
    assert set(depths.values()) == {0, 1, 2, 3}
    assert all(depth == 0 for name, depth in depths.items() if "patch_embed" in name)
    assert all(depth == 3 for name, depth in depths.items() if "projection" in name and "patch" not in name)


@pytest.mark.parametrize(
    ("trainable", "depths"), [("all", {0, 1, 2, 3}), ("last_blocks", {2, 3}), ("head", {3})], ids=str
)
def test_what_is_trained(trainable, depths):
    model = make_model()
    video, _ = towers(model)
    choose_trainable(model, video, None, RecipeOptions(trainable=trainable, num_blocks=1))
    names = trained(model)
    assert "head.log_logit_scale" in names
    own = {name.removeprefix("backbone.") for name in names - {"head.log_logit_scale"}}
    assert own <= video.names
    assert {video.depth(name) for name in own} == depths


def test_more_blocks_than_there_are():
    model = make_model()
    with pytest.raises(ValueError, match=r"recipe\.num_blocks is 9, but the video encoder has 2 blocks"):
        choose_trainable(model, towers(model)[0], None, RecipeOptions(trainable="last_blocks", num_blocks=9))


def test_layer_wise_learning_rates_and_weight_decay():
    model = make_model()
    video, text = towers(model)
    options = RecipeOptions(train_text_encoder=True, layer_decay=0.5, learning_rate=0.8, weight_decay=0.1)
    choose_trainable(model, video, text, options)
    groups = optimizer_groups(model, video, text, options)
    found = {name: (g["lr"], g["weight_decay"]) for g in groups for name in g["names"]}
    assert set(found) == trained(model)
    assert found["backbone.visual_projection.weight"] == (0.8, 0.1)
    assert found["head.log_logit_scale"] == (0.8, 0.0)
    assert found["backbone.vision_model.embeddings.patch_embedding.weight"] == (0.1, 0.0)
    block = "backbone.{}_model.encoder.layers.{}.mlp.fc1.{}"
    assert found[block.format("vision", 1, "weight")] == (0.4, 0.1)
    assert found[block.format("text", 0, "weight")] == (0.2, 0.1)
    assert found[block.format("text", 0, "bias")] == (0.2, 0.0)


def test_adapters_merge_into_the_layers():
    pytest.importorskip("peft")
    model = make_model()
    plain = {name: t.clone() for name, t in model.state_dict().items()}
    video, _ = towers(model)
    options = RecipeOptions(trainable="lora", lora_rank=2)
    choose_trainable(model, video, None, options)
    names = trained(model)
    assert all("lora_" in name for name in names - {"head.log_logit_scale"})
    assert len(names) == 1 + 2 * 2 * 6  # A and B on six linear layers of two blocks
    before = merged_state(model)
    assert before.keys() == plain.keys()
    assert all(before[name].equal(plain[name]) for name in plain)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    clean = make_model()
    clean.load_state_dict(merged_state(model))
    videos = make_videos()
    expected = model.get_video_features(videos)
    torch.testing.assert_close(clean.get_video_features(videos), expected, rtol=1e-4, atol=1e-5)
    assert not expected.allclose(make_model().get_video_features(videos), atol=1e-2)
    assert {g["lr"] for g in optimizer_groups(model, video, None, options)} == {options.learning_rate}


def test_lora_without_peft(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    model = make_model()
    with pytest.raises(ValueError, match="needs peft: pip install peft"):
        choose_trainable(model, towers(model)[0], None, RecipeOptions(trainable="lora"))


def test_moving_average():
    weight = nn.Parameter(torch.tensor([0.0]))
    average = MovingAverage({"w": weight}, 0.9)
    with torch.no_grad():
        weight.fill_(1.0)
    average.update()
    torch.testing.assert_close(average.average["w"], torch.tensor([0.1]))
    average.swap()
    torch.testing.assert_close(weight.detach(), torch.tensor([0.1]))
    average.swap()
    assert weight.item() == 1
    none = MovingAverage({"w": weight}, 0.0)
    none.update()
    none.swap()
    assert weight.item() == 1
