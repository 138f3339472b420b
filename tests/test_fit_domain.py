import copy

import pytest
import torch

from modeling_dkd import DKDCLIPModel, DKDCLIPProcessor
from tests.test_processing_dkd import save_stock_checkpoint
from tests.tiny_backbones import (
    BACKBONE_KINDS,
    PROJECTION_DIM,
    make_model,
    make_texts,
    make_videos,
    tiny_backbone,
)


@pytest.fixture(params=BACKBONE_KINDS)
def kind(request):
    return request.param


@pytest.fixture
def fit_calls(monkeypatch):
    """Arguments of every call of the head's `fit`, which does nothing."""
    calls = []

    def record(self, video_embeds, text_embeds=None, labels=None, num_components=None, class_names=None):
        calls.append((video_embeds, text_embeds, labels, num_components))
        return self

    monkeypatch.setattr("modeling_dkd.dkd_head.DKDHead.fit", record)
    return calls


def test_fit_domain_embeds_in_chunks_what_the_head_is_fitted_on(fit_calls, kind):
    model = make_model(kind)
    videos, prompts, labels = make_videos(30, 5), make_texts(4, 70), torch.arange(30) % 4
    assert model.fit_domain(videos, prompts, labels=labels, class_names=["a", "b", "c", "d"]) is model
    ((video_embeds, text_embeds, given_labels, num_components),) = fit_calls
    with torch.no_grad():
        torch.testing.assert_close(video_embeds, model.get_video_features(videos), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(text_embeds, model.get_text_features(prompts), rtol=1e-4, atol=1e-5)
    assert given_labels is labels
    assert num_components is None
    assert not video_embeds.requires_grad
    assert not text_embeds.requires_grad


def test_fit_domain_never_runs_more_frames_at_once_than_a_chunk(fit_calls, monkeypatch):
    model, sizes = make_model(), []
    encode = model.get_video_features
    monkeypatch.setattr(model, "get_video_features", lambda videos: sizes.append(len(videos)) or encode(videos))
    model.fit_domain(make_videos(30, 5), make_texts(4))
    assert sizes == [12, 12, 6]


def test_fit_domain_switches_dropout_off_and_every_module_back(fit_calls):
    model = make_model("vision_text_dual_encoder").train()
    model.backbone.vision_model.eval()
    before = [module.training for module in model.modules()]
    for _ in range(2):
        model.fit_domain(make_videos(), make_texts(4))
    assert [module.training for module in model.modules()] == before
    assert torch.equal(fit_calls[0][1], fit_calls[1][1])


def test_fit_domain_takes_embeddings(fit_calls):
    video_embeds, text_embeds = torch.randn(6, 3, PROJECTION_DIM), torch.randn(4, PROJECTION_DIM)
    model = make_model()
    model.fit_domain(video_embeds=video_embeds, text_embeds=text_embeds, num_components=9)
    model.fit_domain(video_embeds=video_embeds)
    assert fit_calls[0][0] is video_embeds
    assert fit_calls[0][1] is text_embeds
    assert fit_calls[0][3] == 9
    assert fit_calls[1][1] is None


def test_class_names_go_to_the_configuration_and_into_the_checkpoint(fit_calls, tmp_path):
    names = ["brush hair", "climb", "swing baseball", "pour", "wave"]
    model = make_model().fit_domain(make_videos(), make_texts(5), class_names=names)
    assert model.config.id2label == dict(enumerate(names))
    assert model.config.label2id == {name: index for index, name in enumerate(names)}
    model.save_pretrained(tmp_path)
    assert DKDCLIPModel.from_pretrained(tmp_path).config.id2label == dict(enumerate(names))
    model.fit_domain(make_videos(), make_texts(5))
    assert model.config.id2label[3] == "pour"
    model.fit_domain(make_videos(), make_texts(3))
    assert model.config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"input_ids": make_texts(2)}, "give pixel_values or video_embeds"),
        (
            {"pixel_values": make_videos(), "video_embeds": torch.zeros(2, 24)},
            "give pixel_values or video_embeds, not",
        ),
        (
            {"pixel_values": make_videos(), "input_ids": make_texts(2), "text_embeds": torch.zeros(2, 24)},
            "give input_ids or text_embeds, not both",
        ),
        ({"pixel_values": make_videos(), "class_names": ["a"]}, "class_names need input_ids or text_embeds"),
        (
            {"pixel_values": make_videos(), "input_ids": make_texts(2), "class_names": ["a"]},
            "class_names has 1 entries for 2 classes",
        ),
        (
            {"pixel_values": make_videos(), "input_ids": make_texts(2), "class_names": "ab"},
            "class_names has 1 entries for 2 classes",
        ),
        (
            {"pixel_values": make_videos(), "input_ids": make_texts(3), "class_names": ["a", "b", "a"]},
            r"class_names\[0\] and class_names\[2\] are both 'a'",
        ),
        ({"pixel_values": torch.zeros(0, 2, 3, 30, 30), "input_ids": make_texts(2)}, "at least one of each"),
    ],
)
def test_fit_domain_refuses_what_does_not_fit(fit_calls, given, message):
    model = make_model()
    before = copy.deepcopy(model.config.id2label)
    with pytest.raises(ValueError, match=message):
        model.fit_domain(**given)
    assert fit_calls == []
    assert model.config.id2label == before


def test_a_copied_model_shares_one_configuration_with_its_head_and_backbone(tmp_path):
    make_model().save_pretrained(tmp_path)
    for model in (copy.deepcopy(make_model()), DKDCLIPModel.from_pretrained(tmp_path)):
        assert model.head.config is model.config
        assert model.backbone.config is model.config.backbone_config


def test_real_clips_go_from_files_to_a_fitted_domain_and_logits(data_dir, tmp_path):
    names = ["Archery", "PlayingPiano", "Surfing"]
    clips = [clip for name in names for clip in sorted((data_dir / "ucf101/videos" / name).iterdir())[:3]]
    stock = save_stock_checkpoint(tmp_path / "stock")
    tiny_backbone("clip").save_pretrained(stock)
    model, processor = DKDCLIPModel.from_backbone(stock), DKDCLIPProcessor.from_backbone(stock, num_frames=4)
    inputs = processor(videos=clips, text=[f"a video of {name}" for name in names])
    model.fit_domain(**inputs, class_names=names)
    with torch.no_grad():
        output = model(**inputs)
    assert output.logits_per_video.shape == (9, 3)
    assert all(value.isfinite().all() for value in output.values())
    assert model.config.id2label[2] == "Surfing"
