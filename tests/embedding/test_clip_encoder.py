import pytest
import torch
from torch.nn.functional import cosine_similarity

from modeling_dkd import DKDCLIPModel
from modeling_dkd.embedding.clip_encoder import ClipEncoder
from modeling_dkd.embedding.embedded_checkpoint import CHECKPOINT
from tests.tiny_backbones import IMAGE_SIZE, tiny_backbone
from tests.tiny_checkpoint import save_tiny_clip


def load(dtype):
    return ClipEncoder.load(str(CHECKPOINT), "4x1x1", None, dtype, torch.device("cpu"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_smaller_type_is_for_the_products_of_the_image_encoder_alone(dtype):
    exact, fast = load(torch.float32), load(dtype)
    assert fast.model.dtype == torch.float32
    assert fast.weights_hash == exact.weights_hash
    assert fast.key() == exact.key() | {"dtype": str(dtype).removeprefix("torch.")}
    side = exact.model.config.backbone_config.vision_config.image_size
    clips = torch.randint(0, 256, (6, 4, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected, found = exact.embed(clips), fast.embed(clips).float()
    rounded = DKDCLIPModel.from_pretrained(CHECKPOINT, dtype=dtype).eval()
    with torch.inference_mode():
        all_small = rounded.get_video_features(exact.reader.normalise(clips).to(dtype)).float()
    # In float32 a cosine cannot tell apart what differs by less than 3e-4.
    error, error_all_small = (
        1 - cosine_similarity(e.double(), expected.double(), dim=-1).mean() for e in (found, all_small)
    )
    assert 0 < error < error_all_small
    assert error < 1e-4
    texts = ["a person jumping", "a dog"]
    assert torch.equal(fast.encode(texts), exact.encode(texts))


@pytest.fixture
def convolutional(tmp_path):
    """A folder with ALIGN, whose image encoder is an EfficientNet; its values are as large as a trained one's."""
    folder = save_tiny_clip(tmp_path / "convolutional")
    backbone = tiny_backbone("align")
    with torch.no_grad():
        for convolution in convolutions_of(backbone):
            convolution.weight.normal_(std=convolution.weight[0].numel() ** -0.5)
    backbone.save_pretrained(folder)
    return folder


def convolutions_of(model):
    return [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]


def test_convolutions_run_with_the_channels_last_and_embed_as_before(convolutional, tmp_path):
    encoder = ClipEncoder.load(str(convolutional), "2x1x1", None, torch.float32, torch.device("cpu"))
    passed_on = []
    for convolution in convolutions_of(encoder.model):
        convolution.register_forward_hook(lambda module, inputs, output: passed_on.append(output))
    shape = (3, 2, 3, IMAGE_SIZE, IMAGE_SIZE)
    clips = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = encoder.embed(clips)
    assert len(passed_on) > 3
    assert all(output.is_contiguous(memory_format=torch.channels_last) for output in passed_on)
    plain = DKDCLIPModel.from_backbone(convolutional).eval()
    assert not any(c.weight.is_contiguous(memory_format=torch.channels_last) for c in convolutions_of(plain)[:1])
    with torch.inference_mode():
        expected = plain.get_video_features(encoder.reader.normalise(clips))
    assert expected.std() > 0.03
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    # What is kept and what is compared are values, in whatever layout.
    assert encoder.model.encoder_identity().weights == plain.encoder_identity().weights
    assert encoder.weights_hash == ClipEncoder(plain, encoder.processor, "", None, "2x1x1").weights_hash
    for model, folder in ((encoder.model, "ours"), (plain, "plain")):
        model.save_pretrained(tmp_path / folder)
    plain.to(memory_format=torch.channels_last)
    assert torch.equal(plain.get_video_features(encoder.reader.normalise(clips)), found)
    ours, plainly = ((tmp_path / folder / "model.safetensors").read_bytes() for folder in ("ours", "plain"))
    assert ours == plainly
