import shutil

import pytest
import torch

from modeling_dkd import DKDCLIPConfig, DKDCLIPModel, DKDHead
from tests.tiny_backbones import (
    BACKBONE_KINDS,
    make_model,
    make_texts,
    make_videos,
    tiny_backbone,
)


# SigLIP 2 resizes its positions image by image, to sizes read from a tensor: transformers' code cannot be traced.
TRACEABLE = [kind for kind in BACKBONE_KINDS if kind != "siglip2"]
TRACEABLE = [kind if kind == "siglip" else pytest.param(kind, marks=pytest.mark.slow) for kind in TRACEABLE]


@pytest.fixture(params=BACKBONE_KINDS)
def kind(request):
    return request.param


@torch.no_grad()
def test_the_attention_implementation_is_passed_to_the_encoders(tmp_path):
    tiny_backbone("clip").save_pretrained(tmp_path / "stock")
    eager = DKDCLIPModel.from_backbone(tmp_path / "stock", attn_implementation="eager")
    eager.save_pretrained(tmp_path / "dkd")
    sdpa = DKDCLIPModel.from_pretrained(tmp_path / "dkd", attn_implementation="sdpa")
    again = DKDCLIPModel.from_pretrained(tmp_path / "dkd", attn_implementation="eager")
    inputs = make_videos(), make_texts(4)
    for model, name in [(eager, "eager"), (sdpa, "sdpa"), (again, "eager")]:
        assert model.config._attn_implementation == name
        assert model.backbone.config._attn_implementation == name
        assert model.backbone.vision_model.config._attn_implementation == name
        assert model.backbone.text_model.config._attn_implementation == name
    torch.testing.assert_close(sdpa(*inputs).logits_per_video, eager(*inputs).logits_per_video, rtol=1e-4, atol=1e-5)
    sdpa.set_attn_implementation("eager")
    assert sdpa.backbone.vision_model.config._attn_implementation == "eager"
    with pytest.raises(ValueError, match="attn_implementation"):
        DKDCLIPModel.from_pretrained(tmp_path / "dkd", attn_implementation="sparkling")


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_encoder_keeps_a_float32_head(kind, dtype, tmp_path):
    make_model(kind).save_pretrained(tmp_path)
    model = DKDCLIPModel.from_pretrained(tmp_path, dtype=dtype)
    assert model.dtype == dtype
    assert {tensor.dtype for tensor in model.head.state_dict().values()} == {torch.float32}
    assert {weight.dtype for weight in model.backbone.parameters()} == {dtype}
    output = model(make_videos(), make_texts(4, 2))
    expected = make_model(kind)(make_videos(), make_texts(4, 2))
    assert {value.dtype for value in output.values()} == {torch.float32}
    torch.testing.assert_close(output.logits_per_video, expected.logits_per_video, rtol=0, atol=0.1)
    model.save_pretrained(tmp_path / "again")
    reloaded = DKDCLIPModel.from_pretrained(tmp_path / "again")
    assert reloaded.dtype == dtype
    assert torch.equal(reloaded(make_videos(), make_texts(4, 2)).logits_per_video, output.logits_per_video)


@torch.no_grad()
def test_the_stock_checkpoint_loads_in_half_precision(tmp_path):
    tiny_backbone("siglip").save_pretrained(tmp_path)
    model = DKDCLIPModel.from_backbone(tmp_path, dtype=torch.bfloat16)
    assert model.backbone.dtype == torch.bfloat16
    assert {tensor.dtype for tensor in model.head.state_dict().values()} == {torch.float32}


@torch.no_grad()
def test_casting_the_model_leaves_the_head_in_float32():
    for cast in (lambda model: model.to(torch.bfloat16), lambda model: model.half()):
        model = cast(make_model())
        assert model.backbone.dtype != torch.float32
        assert {buffer.dtype for buffer in model.head.buffers()} == {torch.float32}
        assert model(make_videos(), make_texts(4)).logits_per_video.dtype == torch.float32


@torch.no_grad()
def test_autocast_reaches_the_encoders_but_not_the_head():
    model, seen = make_model(), {}
    model.head.register_forward_hook(lambda module, inputs, output: seen.update(inputs=inputs, output=output))
    with torch.autocast("cpu", torch.bfloat16):
        output = model(make_videos(), make_texts(4))
    assert seen["inputs"][0].dtype == torch.bfloat16
    assert output.logits_per_video.dtype == torch.float32
    expected = model.head(*(embeds.float() for embeds in seen["inputs"]))
    torch.testing.assert_close(output.logits_per_video, expected.logits_per_video, rtol=1e-5, atol=1e-5)


def test_everything_moves_with_the_model_to_another_device(kind):
    model = make_model(kind).to("meta")
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}
    left = [
        (name, key)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, torch.Tensor)
    ]
    assert left == []


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def assert_same(actual, expected):
    assert list(actual) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: name + text)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("kind", TRACEABLE)
def test_inference_compiles_as_one_graph(kind):
    model, inputs = make_model(kind), (make_videos(), make_texts(4, 2))
    expected = model(*inputs)
    assert_same(torch.compile(model, fullgraph=True, backend="aot_eager")(*inputs), expected)


@torch.no_grad()
@pytest.mark.parametrize("kind", TRACEABLE)
def test_inference_exports(kind):
    model, inputs = make_model(kind), {"pixel_values": make_videos(), "input_ids": make_texts(4, 2)}
    expected = model(**inputs)
    assert_same(torch.export.export(model, (), inputs).module()(**inputs), expected)


@pytest.fixture
def fitted():
    inputs = {"pixel_values": make_videos(), "input_ids": make_texts(5, 2)}
    return make_model().fit_domain(make_videos(12, 3, seed=4), inputs["input_ids"]), inputs


@pytest.mark.slow
@torch.no_grad()
def test_a_fitted_model_compiles_as_one_graph(fitted):
    model, inputs = fitted
    expected = model(**inputs)
    assert_same(torch.compile(model, fullgraph=True, backend="aot_eager")(**inputs), expected)


@pytest.mark.slow
@torch.no_grad()
def test_a_fitted_model_exports(fitted):
    model, inputs = fitted
    assert_same(torch.export.export(model, (), inputs).module()(**inputs), model(**inputs))


@torch.no_grad()
def test_one_export_serves_any_number_of_videos_and_classes():
    model, inputs = make_model(), {"pixel_values": make_videos(3, 2), "input_ids": make_texts(4, 2)}
    dynamic = {name: {0: torch.export.Dim.DYNAMIC} for name in inputs}
    exported = torch.export.export(model, (), inputs, dynamic_shapes=dynamic).module()
    others = {"pixel_values": make_videos(5, 2, seed=7), "input_ids": make_texts(6, 2, seed=8)}
    assert_same(exported(**others), model(**others))


@torch.no_grad()
def test_one_export_of_a_fitted_head_serves_any_number_of_videos_frames_classes_and_prompts():
    generator = torch.Generator().manual_seed(0)
    videos = torch.randn(40, 3, 16, generator=generator) + torch.randn(16, generator=generator)
    texts = torch.randn(5, 2, 16, generator=generator)
    head = DKDHead(DKDCLIPConfig(projection_dim=16)).fit(videos, texts)
    any_number = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    exported = torch.export.export(head, (videos[:4], texts), dynamic_shapes=(any_number, any_number)).module()
    new_texts = torch.cat([texts, torch.randn(3, 2, 16, generator=generator)])
    more_frames, more_prompts = torch.cat([videos, videos.flip(0)], 1)[:7], torch.cat([texts, texts.flip(0)], 1)[:3]
    for inputs in [(videos[:9, :2], new_texts), (more_frames, texts[[4, 0]]), (videos[:3], more_prompts)]:
        assert_same(exported(*inputs)._asdict(), head(*inputs)._asdict())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="the default compiler needs g++")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own
@torch.no_grad()
def test_inference_compiles_with_the_default_compiler():
    model = make_model()
    compiled, image_side = (torch.compile(side, fullgraph=True) for side in (model, model.get_video_features))
    for num_videos in (2, 5):
        inputs = make_videos(num_videos, 3), make_texts(4, 2)
        assert_same(compiled(*inputs), model(*inputs))
        embeds = image_side(inputs[0])
        torch.testing.assert_close(embeds, model.get_video_features(inputs[0]), rtol=1e-4, atol=1e-5)
