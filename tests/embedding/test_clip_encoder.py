import pytest
import torch
from torch.nn.functional import cosine_similarity

from modeling_dkd import DKDCLIPModel
from modeling_dkd.embedding.clip_encoder import ClipEncoder
from modeling_dkd.embedding.embedded_checkpoint import CHECKPOINT


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
