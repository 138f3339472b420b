"""Dual encoders beyond CLIP and SigLIP: their own logits, fitting, saving, and what is refused and how."""

import copy

import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    BertConfig,
    Blip2Config,
    Blip2Model,
    BlipModel,
    FlavaForPreTraining,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
)

from modeling_dkd import DKDCLIPConfig, DKDCLIPModel
from modeling_dkd.dual_encoder import check_dual_encoder, clip_frames, probe
from tests.more_backbones import CONFIGS, NUM_FRAMES, make_clips, more_backbone
from tests.test_remote_code import run_isolated
from tests.tiny_backbones import (
    CLIP_TEXT,
    TEXT,
    TRUNK,
    VISION,
    VOCAB_SIZE,
    make_texts,
    make_videos,
    tiny_backbone,
)


KINDS = (*CONFIGS, "blip_retrieval")
CLIP_KINDS = ("xclip", "videoprism")


def from_stock(kind, folder, **options):
    more_backbone(kind).save_pretrained(folder)
    return DKDCLIPModel.from_backbone(folder, **options)


def own_logits(kind, backbone, pixel_values, input_ids):
    """What the model's own forward says of clips or images (B, ...) and texts (K, L), where it is a cosine."""
    inputs = {"pixel_values": pixel_values, "input_ids": input_ids}
    if kind == "xclip":
        backbone = copy.deepcopy(backbone)
        backbone.prompts_generator.alpha.data.zero_()  # without what it sees in the video its texts are the base texts
        return backbone(**inputs).logits_per_video
    if kind == "flava":
        whole = FlavaForPreTraining(backbone.config).eval()
        whole.flava = backbone
        mask = torch.ones_like(input_ids)
        many = max(len(pixel_values), len(input_ids))  # it wants as many images as texts
        rows = {
            "pixel_values": pixel_values.repeat(many, 1, 1, 1)[:many],
            "input_ids": input_ids.repeat(many, 1)[:many],
        }
        output = whole(**rows, attention_mask=mask.repeat(many, 1)[:many], return_loss=False)
        return output.contrastive_logits_per_image[: len(pixel_values), : len(input_ids)]
    if kind == "blip_retrieval":  # the model has a cosine and no scale; its configuration names one
        return 14.284856 * backbone(**inputs, use_itm_head=False).itm_score
    return backbone(**inputs).logits_per_image


def inputs_of(kind):
    pixels = make_clips(3) if kind in CLIP_KINDS else make_videos(3, 1).squeeze(1)
    return pixels, make_texts(5)


@torch.no_grad()
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "videoprism"])
def test_unfitted_it_gives_the_logits_of_its_backbone(kind, tmp_path):
    pixels, input_ids = inputs_of(kind)
    expected = own_logits(kind, more_backbone(kind), pixels, input_ids)
    output = from_stock(kind, tmp_path)(pixels, input_ids)
    torch.testing.assert_close(output.logits_per_video, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_videoprism_gives_its_own_probabilities_over_the_videos(tmp_path):
    clips, input_ids = inputs_of("videoprism")
    model = from_stock("videoprism", tmp_path, logit_scale=20.0)
    own = more_backbone("videoprism")(pixel_values_videos=clips, input_ids=input_ids, temperature=1 / 20)
    logits = model(clips, input_ids).logits_per_video
    torch.testing.assert_close(logits.softmax(0), own.logits_per_video, rtol=1e-4, atol=1e-5)
    assert DKDCLIPModel.from_backbone(tmp_path).config.logit_scale == 100  # it has none of its own


@torch.no_grad()
def test_xclip_with_the_texts_of_each_video_gives_its_own_logits_too(tmp_path):
    clips, input_ids = inputs_of("xclip")
    model = from_stock("xclip", tmp_path)
    own = model.backbone(pixel_values=clips, input_ids=input_ids)
    rows = [
        model.head(model.get_video_features(clip[None]), texts).logits_per_video[0]
        for clip, texts in zip(clips, own.text_embeds, strict=True)
    ]
    torch.testing.assert_close(torch.stack(rows), own.logits_per_video, rtol=1e-5, atol=1e-5)
    # And these are not the logits of the base texts, which are the same for all videos.
    assert not torch.allclose(own.logits_per_video, model(clips, input_ids).logits_per_video, atol=1e-2)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_fitted_saved_and_loaded(kind, tmp_path):
    pixels, input_ids = inputs_of(kind)
    model = from_stock(kind, tmp_path / "stock")
    before = model(pixels, input_ids).logits_per_video
    model.fit_domain(make_clips(8) if kind in CLIP_KINDS else make_videos(8, 2), input_ids)
    after = model(pixels, input_ids).logits_per_video
    assert after.isfinite().all()
    assert not torch.allclose(before, after, atol=1e-3)
    model.save_pretrained(tmp_path / "ours")
    loaded = DKDCLIPModel.from_pretrained(tmp_path / "ours")
    assert type(loaded.backbone) is type(model.backbone)
    torch.testing.assert_close(loaded(pixels, input_ids).logits_per_video, after)


LOAD_EACH = """
from pathlib import Path
import torch
from safetensors.torch import load_file
from transformers import AutoModel
for folder in sorted(Path("{root}").glob("saved_*")):
    given = load_file(folder / "given.safetensors")
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    with torch.no_grad():
        found = model(given["pixel_values"], given["input_ids"]).logits_per_video
    torch.testing.assert_close(found, given["expected"], msg=lambda text: folder.name + ": " + text)
    print(folder.name)
"""


@pytest.mark.slow
def test_they_load_with_automodel_where_this_package_is_not_installed(tmp_path):
    for kind in KINDS:
        pixels, input_ids = inputs_of(kind)
        model = from_stock(kind, tmp_path / kind)
        model.fit_domain(make_clips(8) if kind in CLIP_KINDS else make_videos(8, 2), input_ids)
        model.save_pretrained(tmp_path / f"saved_{kind}")
        with torch.no_grad():
            given = {
                "pixel_values": pixels,
                "input_ids": input_ids,
                "expected": model(pixels, input_ids).logits_per_video,
            }
        save_file(given, tmp_path / f"saved_{kind}/given.safetensors")
    done = run_isolated(LOAD_EACH.format(root=tmp_path), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == sorted(f"saved_{kind}" for kind in KINDS)


@torch.no_grad()
@pytest.mark.parametrize("kind", CLIP_KINDS)
def test_a_clip_is_one_particle_and_several_clips_of_a_video_are_several(kind, tmp_path):
    model = from_stock(kind, tmp_path)
    clips = make_clips(6)
    embeds = model.get_video_features(clips)
    assert embeds.shape == (6, 1, model.config.projection_dim)
    together = model.get_video_features(clips.unflatten(0, (2, 3)))
    torch.testing.assert_close(together, embeds.squeeze(1).unflatten(0, (2, 3)), rtol=1e-4, atol=1e-5)
    model.fit_domain(clips.unflatten(0, (2, 3)), make_texts(5))
    assert model.head.is_fitted


@torch.no_grad()
def test_clips_of_an_image_encoder_are_all_their_frames():
    model = DKDCLIPModel(DKDCLIPConfig(backbone_config=tiny_backbone("clip").config)).eval()
    clips = make_videos(4, 3)
    frames = model.get_video_features(clips.reshape(2, 6, *clips.shape[2:]))
    assert torch.equal(model.get_video_features(clips.unflatten(0, (2, 2))), frames)


@pytest.mark.parametrize("kind", CLIP_KINDS)
@pytest.mark.parametrize("num_frames", [1, 3, 2 * NUM_FRAMES])
def test_a_wrong_number_of_frames_names_the_right_one(kind, num_frames, tmp_path):
    model = from_stock(kind, tmp_path)
    message = rf"takes clips of {NUM_FRAMES} frames, but these have {num_frames}; give {NUM_FRAMES} frames"
    with pytest.raises(ValueError, match=message):
        model(make_clips(2, num_frames), make_texts(3))
    with pytest.raises(ValueError, match=message):
        model.fit_domain(make_clips(2, num_frames), make_texts(3))


def test_an_image_is_no_clip(tmp_path):
    with pytest.raises(ValueError, match="takes clips of 4 frames, but these have 1"):
        from_stock("xclip", tmp_path)(make_clips(1)[0, :1], make_texts(3))


def test_no_temporal_transformer_over_clips_that_are_embedded_whole(tmp_path):
    with pytest.raises(ValueError, match="XCLIPModel sees the frames of a clip together by itself"):
        from_stock("xclip", tmp_path, num_temporal_layers=1)
    with pytest.raises(ValueError, match="leave num_temporal_layers at 0"):
        from_stock("xclip", tmp_path).add_temporal_transformer(1, 4)


@pytest.mark.parametrize("kind", ["xclip", "clip"])
def test_gradients_reach_the_video_encoder(kind, tmp_path):
    backbone = more_backbone(kind) if kind in CONFIGS else tiny_backbone(kind)
    backbone.save_pretrained(tmp_path)
    model = DKDCLIPModel.from_backbone(tmp_path).train()
    model(make_clips(3), make_texts(4), labels=torch.tensor([0, 2, 3])).loss.backward()
    reached = {name.split(".")[1] for name, weight in model.named_parameters() if weight.grad is not None}
    assert {"vision_model", "visual_projection", "text_model"} <= reached


def blip_2():
    config = Blip2Config(
        vision_config=VISION,
        qformer_config=TRUNK | {"vocab_size": VOCAB_SIZE, "encoder_hidden_size": 32},
        text_config=TEXT | {"model_type": "opt", "ffn_dim": 37, "word_embed_proj_dim": 32, "bos_token_id": 2},
        num_query_tokens=4,
    )
    return Blip2Model(config)


def tokens_for_images():
    class Tokens(VisionTextDualEncoderModel):
        def get_image_features(self, pixel_values):
            return self.vision_model(pixel_values).last_hidden_state

    towers = (tiny_backbone("clip").config.vision_config, BertConfig(**CLIP_TEXT))
    config = VisionTextDualEncoderConfig.from_vision_text_configs(*towers)
    return Tokens(config)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (blip_2, r"the backbone Blip2Model cannot embed one image and one text by themselves \(AttributeError: "),
        (
            tokens_for_images,
            r"the backbone Tokens gives \(1, 26, 32\) for one image and \(1, 512\) for one text, not one",
        ),
    ],
)
def test_what_would_fail_at_the_first_video_is_refused_at_once(backbone, message):
    with pytest.raises(ValueError, match=message) as caught:
        probe(backbone().eval())
    assert "\n" not in str(caught.value)


def test_blip_2_is_refused_when_it_is_loaded(tmp_path):
    blip_2().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="Blip2Model cannot embed one image and one text"):
        DKDCLIPModel.from_backbone(tmp_path)


def test_a_retrieval_checkpoint_of_blip_is_no_blip_model(tmp_path):
    model = from_stock("blip_retrieval", tmp_path)
    assert model.config.projection_dim == 20
    assert not isinstance(model.backbone, BlipModel)


def test_an_encoder_of_clips_must_say_of_how_many_frames(monkeypatch):
    backbone = more_backbone("xclip")
    monkeypatch.setattr("modeling_dkd.dual_encoder.FRAME_COUNTS", ())
    with pytest.raises(ValueError, match="XCLIPModel does not say how many frames its clips have"):
        check_dual_encoder(backbone)
    assert clip_frames(tiny_backbone("clip")) is None


def test_pe_video_is_refused_where_transformers_lost_its_methods():
    class PeVideoModel(torch.nn.Module):  # the real one needs timm
        pass

    with pytest.raises(
        ValueError, match=r"PeVideoModel has no get_image_features and no get_text_features in transformers \d"
    ):
        check_dual_encoder(PeVideoModel())


def test_sizes_without_a_projection_are_read_from_the_towers():
    for kind in ("tipsv2", "videoprism"):
        assert DKDCLIPConfig(backbone_config=CONFIGS[kind]()).projection_dim == TRUNK["hidden_size"]
