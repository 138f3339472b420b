import pytest
import torch

from modeling_dkd import DKDCLIPConfig, DKDHead, precision, recent_samples
from modeling_dkd.image_processing_dkd import DKDCLIPImageProcessor
from modeling_dkd.mixture_options import MixtureOptions
from tests.stand_in_device import stand_in
from tests.tiny_backbones import make_model, make_texts, make_videos


DIM = 16
# Every operator costs a call of Python here.
FEW_ROUNDS = MixtureOptions(num_rounds=2)


pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="it stands in for a GPU that is there")


@pytest.fixture(params=[True, False], ids=["float64", "no_float64"])
def device(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(precision, "WITHOUT_FLOAT64", ("cuda",))
    with stand_in(has_float64=request.param) as device:
        yield device


def embeddings(num_videos, num_classes=5):
    generator = torch.Generator().manual_seed(0)
    texts = torch.randn(num_classes, DIM, generator=generator) + 2
    chosen = torch.randint(num_classes, (num_videos,), generator=generator)
    videos = texts[chosen, None] + torch.randn(num_videos, 3, DIM, generator=generator)
    return videos, texts, chosen


def assert_same_there(found, expected, device, tolerance=1e-5):
    for name, value in expected.items():
        assert found[name].device.type == device.type, name
        torch.testing.assert_close(found[name].cpu(), value, rtol=tolerance, atol=tolerance)


def new_head():
    return DKDHead(DKDCLIPConfig(projection_dim=DIM), FEW_ROUNDS)


@pytest.mark.parametrize("has_float64", [True, False])
def test_the_stand_in_refuses_what_a_device_refuses(has_float64):
    with stand_in(has_float64) as device:
        _refuses(device, has_float64)


def _refuses(device, has_float64):
    there, here = torch.ones(3, device=device), torch.ones(3)
    assert there.device.type == device.type
    assert ((there + 1) * torch.tensor(2.0)).cpu().tolist() == [4, 4, 4]
    with pytest.raises(RuntimeError, match="and of the CPU"):
        there + here
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()
    if not has_float64:
        with pytest.raises(TypeError, match="float64"):
            there.double()
    else:
        assert there.double().dtype == torch.float64


@pytest.mark.parametrize("labelled", [False, True])
def test_a_head_is_fitted_updated_and_used_on_its_device(device, labelled, monkeypatch):
    monkeypatch.setattr(recent_samples, "RECENT_SAMPLES", 60)
    videos, texts, classes = embeddings(90)
    labels = torch.where(torch.arange(40) % 4 == 0, classes[:40], -1) if labelled else None
    expected, head = new_head(), new_head().to(device)
    expected.fit(videos[:40], texts, labels)
    head.fit(videos[:40].to(device), texts.to(device), labels)
    new_texts = torch.cat([texts, texts.flip(1)])
    assert_same_there(head.state_dict(), expected.state_dict(), device)
    for batch in videos[40:].split(25):  # more than are kept: the oldest leave their statistics
        expected.update(batch)
        head.update(batch.to(device))
    assert_same_there(head.state_dict(), expected.state_dict(), device)
    found = head(videos[:7].to(device), new_texts.to(device))
    assert_same_there(found._asdict(), expected(videos[:7], new_texts)._asdict(), device)


def test_embeddings_of_the_cpu_may_be_fitted_on_a_device(device):
    videos, texts, _ = embeddings(40)
    head = new_head().to(device).fit(list(videos.split(9)), texts)
    assert_same_there(head.state_dict(), new_head().fit(list(videos.split(9)), texts).state_dict(), device)


def test_unknown_classes_are_fitted_on_a_device(device):
    videos, _, _ = embeddings(40)
    head = new_head().to(device).fit(videos.to(device), num_components=3)
    assert_same_there(head.state_dict(), new_head().fit(videos, num_components=3).state_dict(), device)


def test_a_domain_is_saved_and_loaded_on_a_device(device, tmp_path):
    videos, texts, _ = embeddings(40)
    head = new_head().to(device).fit(videos.to(device), texts.to(device))
    head.save_pretrained(tmp_path)
    again = new_head().to(device)
    again.load_state_dict(DKDHead.from_pretrained(tmp_path).state_dict())
    assert_same_there(again.state_dict(), {name: value.cpu() for name, value in head.state_dict().items()}, device)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2"])
def test_a_model_embeds_fits_and_compares_on_its_device(device, kind):
    options = {"num_temporal_layers": 1, "num_temporal_frames": 2}  # fewer than the clips have: interpolated
    expected, model = make_model(kind, **options), make_model(kind, **options).to(device)
    expected.head.options = model.head.options = FEW_ROUNDS
    videos, texts = make_videos(8, 3), make_texts(4, 2)
    expected.fit_domain(videos, texts)
    model.fit_domain(videos, texts)  # the videos may stay in main memory
    found = model(videos.to(device), texts.to(device), labels=torch.arange(8).remainder(4).to(device))
    # The kernels of attention differ, and `known` of a few random clips is steep.
    assert_same_there(found, expected(videos, texts, labels=torch.arange(8) % 4), device, tolerance=1e-4)


def test_frames_are_prepared_on_their_device(device):
    frames = torch.randint(0, 256, (2, 3, 40, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    long = torch.randint(0, 256, (1, 3, 8, 400), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    processor = DKDCLIPImageProcessor(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})
    for clip in (frames, long):
        found = processor.preprocess_videos([[clip.to(device)]], num_crops=3)
        assert found.device.type == device.type
        expected = processor.preprocess_videos([[clip]], num_crops=3)
        # 1 of 255: weights of uint8 kernels are rounded themselves.
        assert (found.cpu() - expected).abs().max() <= 1.01 * max(1 / 255 / std for std in processor.image_std)
