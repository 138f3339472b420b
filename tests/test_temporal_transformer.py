import pytest
import torch

from modeling_dkd import DKDCLIPModel
from modeling_dkd.temporal_transformer import TemporalTransformer

from .tiny_backbones import make_model, make_videos


def trained(dim=6, num_layers=2, num_frames=4, dtype=torch.float64):
    """Weights none of which is zero."""
    torch.manual_seed(0)
    transformer = TemporalTransformer(dim, num_layers, num_frames).to(dtype)
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return transformer


def test_it_starts_as_the_identity():
    transformer = TemporalTransformer(6, 2, 4)
    frames = torch.randn(3, 4, 6)
    assert transformer(frames).equal(frames)
    # The last layer learns in the first step, all others in the second.
    transformer(frames).square().sum().backward()
    assert transformer.output.weight.grad.abs().sum() > 0


def test_gradients():
    transformer = trained()
    frames = torch.randn(2, 4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(transformer, frames)
    names, parameters = zip(*transformer.named_parameters(), strict=True)

    def output(*values):
        return torch.func.functional_call(transformer, dict(zip(names, values, strict=True)), (frames.detach(),))

    assert torch.autograd.gradcheck(output, tuple(p.detach().clone().requires_grad_() for p in parameters))


def test_the_order_of_frames_matters():
    transformer, frames = trained(), torch.randn(2, 4, 6, dtype=torch.float64)
    forward, backward = transformer(frames).mean(1), transformer(frames.flip(1)).mean(1)
    assert not forward.allclose(backward, rtol=1e-2)
    with torch.no_grad():
        transformer.position_embeds.zero_()
    torch.testing.assert_close(transformer(frames.flip(1)).flip(1), transformer(frames))


def test_the_length_of_embeddings_passes_through():
    transformer, frames = trained(), torch.randn(2, 4, 6, dtype=torch.float64)
    torch.testing.assert_close(transformer(100 * frames), 100 * transformer(frames), rtol=1e-3, atol=1e-3)


def test_views_do_not_see_each_other():
    transformer, frames = trained(), torch.randn(2, 12, 6, dtype=torch.float64)
    views = torch.cat([transformer(view) for view in frames.split(4, dim=1)], 1)
    torch.testing.assert_close(transformer(frames), views)


@pytest.mark.parametrize("length", [1, 3, 7])
def test_other_numbers_of_frames_are_one_view(length):
    transformer = trained()
    frames = torch.randn(2, length, 6, dtype=torch.float64)
    moved = transformer(frames)
    assert moved.shape == frames.shape
    assert moved.isfinite().all()
    if length > 1:
        changed = frames.clone()
        changed[:, 0] = torch.randn(6, dtype=torch.float64)
        assert not transformer(changed)[:, -1].allclose(moved[:, -1])


def test_a_model_with_it_starts_as_it_was_and_is_saved_with_it(tmp_path):
    model, videos = make_model(), make_videos(3, 4)
    before = model.get_video_features(videos)
    model.add_temporal_transformer(2, 4)
    assert model.get_video_features(videos).equal(before)
    assert model.temporal.position_embeds.std() > 0.01
    assert model.temporal.blocks[0].perceptron_input.weight.std() > 0.01
    with torch.no_grad():
        model.temporal.output.weight.normal_(std=0.3)
    after = model.get_video_features(videos)
    assert not after.allclose(before, atol=1e-2)
    model.save_pretrained(tmp_path)
    loaded = DKDCLIPModel.from_pretrained(tmp_path)
    assert (loaded.config.num_temporal_layers, loaded.config.num_temporal_frames) == (2, 4)
    torch.testing.assert_close(loaded.get_video_features(videos), after)
    half = DKDCLIPModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.get_video_features(videos).dtype == torch.bfloat16


def test_a_checkpoint_without_it_loads_as_the_identity(tmp_path):
    model, videos = make_model(), make_videos(3, 4)
    model.save_pretrained(tmp_path)
    loaded = DKDCLIPModel.from_pretrained(tmp_path, num_temporal_layers=1, num_temporal_frames=4)
    torch.testing.assert_close(loaded.get_video_features(videos), model.get_video_features(videos))
    assert loaded.temporal.blocks[0].perceptron_input.weight.std() > 0.01


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match="num_temporal_frames is 0, but must be an integer >= 1"):
        make_model().add_temporal_transformer(1, 0)
    with pytest.raises(ValueError, match="num_temporal_layers is -1, but must be an integer >= 0"):
        make_model().add_temporal_transformer(-1, 4)
