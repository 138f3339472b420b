import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from tests.tiny_backbones import (
    BACKBONE_KINDS,
    MAX_TOKENS,
    TRUNK,
    make_model,
    make_texts,
    make_videos,
    own_logits,
    tiny_backbone,
)


@pytest.fixture(params=BACKBONE_KINDS)
def kind(request):
    return request.param


@torch.no_grad()
def test_unfitted_on_images_it_gives_the_logits_of_its_backbone(kind):
    images, input_ids = make_videos(5, 1).squeeze(1), make_texts(4)
    expected = own_logits(tiny_backbone(kind), images, input_ids)
    output = make_model(kind)(images, input_ids)
    torch.testing.assert_close(output.logits_per_video, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.logits_per_text, output.logits_per_video.T)


@torch.no_grad()
@pytest.mark.parametrize("num_frames", [1, 2, 3, 7])
def test_unfitted_a_video_is_the_mean_of_its_normalised_frames(num_frames):
    model, videos, input_ids = make_model(), make_videos(4, num_frames), make_texts(5)
    frames = torch.stack([model.backbone.get_image_features(video).pooler_output for video in videos])
    expected = normalize(normalize(frames, dim=-1).mean(1), dim=-1)
    output = model(videos, input_ids)
    torch.testing.assert_close(output.video_embeds, expected, rtol=1e-5, atol=1e-6)
    assert output.logits_per_video.shape == (4, 5)
    assert torch.count_nonzero(output.strength) == 0


@torch.no_grad()
def test_unfitted_a_class_is_the_mean_of_its_normalised_prompts():
    model, prompts = make_model(), make_texts(5, 3)
    texts = torch.stack([model.backbone.get_text_features(prompt).pooler_output for prompt in prompts])
    expected = normalize(normalize(texts, dim=-1).mean(1), dim=-1)
    output = model(make_videos(), prompts)
    torch.testing.assert_close(output.text_embeds, expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_an_image_is_a_video_of_one_frame():
    model, videos, input_ids = make_model(), make_videos(3, 1), make_texts(4)
    torch.testing.assert_close(
        model(videos, input_ids).logits_per_video, model(videos.squeeze(1), input_ids).logits_per_video
    )


@torch.no_grad()
def test_frames_and_prompts_stay_where_they_were(kind):
    model, videos, prompts = make_model(kind), make_videos(2, 3), make_texts(4, 5)
    frame_embeds, prompt_embeds = model.get_video_features(videos), model.get_text_features(prompts)
    dim = model.config.projection_dim
    assert frame_embeds.shape == (2, 3, dim)
    assert prompt_embeds.shape == (4, 5, dim)
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(frame_embeds[1, 2], model.get_video_features(videos[1:, 2])[0, 0], **close)
    torch.testing.assert_close(prompt_embeds[3, 1], model.get_text_features(prompts[3, 1:2])[0], **close)
    assert not torch.allclose(frame_embeds[1, 2], frame_embeds[0, 2], **close)


@torch.no_grad()
def test_padding_of_prompts_does_not_matter_when_masked(kind):
    if kind.startswith("siglip"):
        pytest.skip("SigLIP pools the last token and is trained on padding")
    model, input_ids = make_model(kind), make_texts(2, 3)
    padded = torch.cat([input_ids[..., :-2], input_ids[..., -1:], torch.ones_like(input_ids[..., :1])], dim=-1)
    mask = (torch.arange(MAX_TOKENS) < MAX_TOKENS - 1).long().expand(padded.shape)
    torch.testing.assert_close(
        model.get_text_features(padded, mask), model.get_text_features(padded[..., :-1]), rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
def test_golden_logits():
    output = make_model()(make_videos(2, 3), make_texts(4, 2))
    expected = torch.tensor(GOLDEN_LOGITS)
    torch.testing.assert_close(output.logits_per_video, expected, rtol=0, atol=1e-4)


GOLDEN_LOGITS = [[-0.860550, -1.126807, -0.890319, -0.407615], [-0.945598, -1.120044, -0.932567, -0.258590]]


@torch.no_grad()
def test_outputs_can_come_as_a_tuple():
    model, videos, input_ids = make_model(), make_videos(), make_texts(4)
    output, as_tuple = model(videos, input_ids), model(videos, input_ids, return_dict=False)
    assert list(output) == ["logits_per_video", "logits_per_text", "video_embeds", "text_embeds", "strength", "known"]
    assert torch.equal(as_tuple[0], output.logits_per_video)
    assert len(as_tuple) == 6


def test_loss_is_the_cross_entropy_with_the_classes_that_were_given():
    model, videos, labels = make_model(), make_videos(3, 2), torch.tensor([3, 0, 3])
    losses = []
    for seed, num_classes in [(2, 4), (3, 4), (4, 6)]:
        output = model(videos, make_texts(num_classes, seed=seed), labels=labels)
        torch.testing.assert_close(output.loss, cross_entropy(output.logits_per_video, labels))
        losses.append(output.loss.item())
    assert len({round(loss, 4) for loss in losses}) == 3
    assert model(videos, make_texts(4)).loss is None


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 4]), r"labels\[1\] is 4, but the classes are 0 to 3"),
        (torch.tensor([-1, 0]), r"labels\[0\] is -1, but the classes are 0 to 3"),
        (torch.tensor([0]), r"labels must be int64 of shape \(2,\), one a video, not torch.int64 of \(1,\)"),
        (torch.tensor([0.0, 1.0]), r"labels must be int64 of shape \(2,\), one a video, not torch.float32 of \(2,\)"),
    ],
)
def test_labels_that_name_no_class_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        make_model()(make_videos(2), make_texts(4), labels=labels)


def test_gradients_reach_every_trainable_weight(kind):
    model = make_model(kind).train()
    model(make_videos(3), make_texts(4, 2), labels=torch.tensor([0, 2, 3])).loss.backward()
    without = [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
    assert without == []
    assert all(weight.grad.isfinite().all() for weight in model.parameters() if weight.requires_grad)
    frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    assert frozen == {"backbone.logit_scale"} | ({"backbone.logit_bias"} if kind.startswith("siglip") else set())


def test_activation_checkpointing_changes_memory_and_nothing_else(kind):
    plain, checkpointed = make_model(kind).train(), make_model(kind).train()
    for model in (plain, checkpointed):  # dropout of BERT-like encoders would make two runs differ
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    switches = ("activation_checkpointing", "gradient_checkpointing")  # the name now and in older releases
    switch = next(name for name in switches if hasattr(checkpointed, f"{name}_enable"))
    getattr(checkpointed, f"{switch}_enable")()
    assert getattr(checkpointed, f"is_{switch}")
    calls = []
    for module in checkpointed.modules():
        if getattr(module, "gradient_checkpointing", False):
            module._gradient_checkpointing_func = _counting(module._gradient_checkpointing_func, calls)
    inputs = {"pixel_values": make_videos(), "input_ids": make_texts(4), "labels": torch.tensor([1, 2])}
    losses = [model(**inputs).loss for model in (plain, checkpointed)]
    for loss in losses:
        loss.backward()
    assert len(calls) == 2 * TRUNK["num_hidden_layers"]
    torch.testing.assert_close(*losses)
    for (name, weight), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(weight.grad, other.grad, msg=lambda text, name=name: f"{name}: {text}")
    getattr(checkpointed, f"{switch}_disable")()
    assert not getattr(checkpointed, f"is_{switch}")


def _counting(function, calls):
    def counted(*args, **kwargs):
        calls.append(1)
        return function(*args, **kwargs)

    return counted


@pytest.mark.parametrize(
    ("pixel_values", "input_ids", "message"),
    [
        (torch.zeros(3, 30, 30), make_texts(2), r"pixel_values must be .* not \(3, 30, 30\)"),
        (torch.zeros(2, 0, 3, 30, 30), make_texts(2), r"at least one of each, not \(2, 0, 3, 30, 30\)"),
        (torch.zeros(0, 3, 3, 30, 30), make_texts(2), r"at least one of each, not \(0, 3, 3, 30, 30\)"),
        (
            torch.zeros(2, 1, 3, 30, 30, dtype=torch.uint8),
            make_texts(2),
            "torch.uint8; prepare them with the processor",
        ),
        (make_videos(), make_texts(2)[0], r"input_ids must be .* not \(11,\)"),
        (make_videos(), make_texts(0), r"at least one of each, not \(0, 11\)"),
        (make_videos(), make_texts(2, 0), r"at least one of each, not \(2, 0, 11\)"),
    ],
)
def test_inputs_of_a_wrong_shape_are_refused(pixel_values, input_ids, message):
    with pytest.raises(ValueError, match=message):
        make_model()(pixel_values, input_ids)


def test_a_mask_must_fit_the_tokens():
    with pytest.raises(ValueError, match=r"attention_mask is \(2, 11\), but input_ids are \(2, 3, 11\)"):
        make_model()(make_videos(), make_texts(2, 3), attention_mask=torch.ones(2, 11, dtype=torch.int64))


def test_siglip2_needs_whole_patches():
    with pytest.raises(ValueError, match="frames are 31 x 30, but SigLIP 2 needs multiples of its patch size 6"):
        make_model("siglip2")(torch.zeros(1, 1, 3, 31, 30), make_texts(2))
