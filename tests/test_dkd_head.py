import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from modeling_dkd import DKDCLIPConfig, embedding_inputs
from modeling_dkd.dkd_head import DKDHead, DKDHeadOutput
from modeling_dkd.fitted_buffers import BUFFER_AXES, UNFITTED
from modeling_dkd.mixture_options import MixtureOptions
from modeling_dkd.svgd import kernel_and_slope
from modeling_dkd.text_frame import filled, without_axis
from modeling_dkd.text_prior import TextPrior, debias_texts, sum_logits
from tests.fitted_heads import (
    BIAS,
    DIM,
    FITTED,
    NUM_CLASSES,
    OPTIONS,
    OUTPUTS,
    SCALE,
    TOY,
    assert_bit_equal_domain,
    assert_equal_outputs,
    fitted_head,
    make_head,
    plain,
    plain_logits,
    shared_fit,
    spread,
)
from tests.toy_domain import accuracy, toy_domain


@pytest.fixture(scope="module")
def head():
    return fitted_head().eval()


@pytest.fixture(params=[None, 4], ids=["videos", "frames"])
def videos(request):
    return TOY.videos[:20] if request.param is None else spread(TOY.videos[:20], request.param)


@pytest.fixture(params=[None, 3], ids=["texts", "prompts"])
def texts(request):
    return TOY.texts if request.param is None else spread(TOY.texts, request.param)


def test_never_fitted_it_is_plain_clip(videos, texts):
    output = make_head()(videos, texts)
    torch.testing.assert_close(output.logits_per_video, plain_logits(videos, texts))
    torch.testing.assert_close(output.video_embeds, plain(videos))
    torch.testing.assert_close(output.text_embeds, plain(texts))
    assert torch.equal(output.strength, torch.zeros(len(videos)))


def test_room_for_a_domain_alone_changes_nothing(videos, texts):
    """Buffers of some size, nothing in them: what loading a checkpoint starts from."""
    head = make_head(num_components=5)
    assert not head.is_fitted
    torch.testing.assert_close(head(videos, texts).logits_per_video, plain_logits(videos, texts))
    assert UNFITTED.keys() == BUFFER_AXES.keys()
    for name, value in UNFITTED.items():
        assert (head.get_buffer(name) == value).all()


def test_output_contract(head, videos, texts):
    output = head(videos, texts)
    assert isinstance(output, DKDHeadOutput)
    batch_size, num_classes = len(videos), len(texts)
    shapes = [(batch_size, num_classes), (batch_size, DIM), (num_classes, DIM), (batch_size,), (batch_size,)]
    assert [tuple(getattr(output, name).shape) for name in OUTPUTS] == shapes
    assert all(getattr(output, name).dtype == torch.float32 for name in OUTPUTS)
    torch.testing.assert_close(output.video_embeds.norm(dim=-1), torch.ones(batch_size))
    torch.testing.assert_close(output.text_embeds.norm(dim=-1), torch.ones(num_classes))
    cosines = output.video_embeds @ output.text_embeds.T
    torch.testing.assert_close(output.logits_per_video, SCALE * cosines + BIAS)
    assert ((output.strength > 0) & (output.strength <= 1)).all()
    assert (output.strength.max() - output.strength.min()) > 1e-3


def posterior(head, videos):
    texts = head.text_bases + head.class_strength[:, None] * (head.text_targets - head.text_bases)
    return (SCALE * videos @ texts.T).softmax(1)


def test_a_text_ranks_videos_by_its_part_of_the_posterior(head, videos, texts):
    """For fitted and new texts: how sure texts are, which is their common norm, and where videos lie on the axis that
    evens out norms change no order of videos."""
    asked = torch.cat([plain(texts), toy_domain(seed=5).texts])
    output = head(videos, asked)
    torch.testing.assert_close(output.video_embeds @ head.norm_axis, torch.zeros(len(videos)), rtol=0, atol=1e-6)
    surer = copy.deepcopy(head)
    surer.text_norm *= 2
    cosines, other = (o.video_embeds @ o.text_embeds.T for o in (output, surer(videos, asked)))
    assert torch.equal(cosines.argsort(0), other.argsort(0))
    assert cosines.abs().mean() > 1.5 * other.abs().mean()
    shifted = plain(videos) + 0.3 * head.norm_axis
    torch.testing.assert_close(head(shifted, asked).video_embeds, output.video_embeds, rtol=0, atol=0.02)


@pytest.mark.parametrize("options", [{}, {"num_svgd_steps": 3}, {"svgd_kernel": "imq"}, {"svgd_kernel": "none"}])
def test_a_video_goes_its_strength_of_the_way_to_its_target(options):
    head = shared_fit(**options)
    output = head(TOY.videos, TOY.texts)
    target = posterior(head, TOY.videos) @ head.means
    strength = output.strength[:, None]
    expected = without_axis((1 - strength) * TOY.videos + strength * target, head.norm_axis)
    expected = normalize(expected, dim=-1)
    torch.testing.assert_close(output.video_embeds, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"num_svgd_steps": 3}, {"svgd_kernel": "imq"}, {"svgd_kernel": "none"}])
def test_a_text_goes_its_strength_of_the_way_to_its_target(options):
    head = shared_fit(**options)
    strength = head.class_strength[:, None]
    expected = (1 - strength) * head.text_bases + strength * head.text_targets
    expected = normalize(filled(expected, head._frame()), dim=-1)
    torch.testing.assert_close(head(TOY.videos, TOY.texts).text_embeds, expected, rtol=1e-4, atol=1e-5)


def test_strength_is_small_without_support_and_far_from_the_domain():
    head = fitted_head()
    usual = head(TOY.videos, TOY.texts).strength
    strange = head(-TOY.videos, TOY.texts).strength
    assert strange.mean() < 0.4 * usual.mean()
    few = make_head().fit(TOY.videos[:4], TOY.texts)
    assert few(TOY.videos, TOY.texts).strength.mean() < 0.5 * usual.mean()
    assert few.class_strength.mean() < head.class_strength.mean()


@pytest.mark.parametrize("limit", [0.0, 0.5, 1.0])
def test_video_strength_is_an_upper_limit(limit):
    head = fitted_head(video_strength=limit)
    output = head(TOY.videos, TOY.texts)
    assert output.strength.max() <= limit
    if limit == 0:
        expected = normalize(without_axis(TOY.videos, head.norm_axis), dim=-1)
        torch.testing.assert_close(output.video_embeds, expected)


@pytest.mark.parametrize("seed", range(3))
def test_it_helps_on_toy_domains(seed):
    videos, texts, labels = toy_domain(400, seed=seed, dim=48, noise=1.6)
    zero_shot = accuracy(videos @ texts.T, labels)
    assert accuracy(make_head(48).fit(videos, texts)(videos, texts).logits_per_video, labels) > zero_shot
    labelled = make_head(48).fit(videos[::2], texts, labels[::2])
    assert accuracy(labelled(videos[1::2], texts).logits_per_video, labels[1::2]) > zero_shot


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(20)), size=st.integers(1, 20), frames=st.sampled_from([None, 2, 5]))
def test_a_sample_does_not_depend_on_its_batch(order, size, frames):
    head = FITTED
    videos = TOY.videos[:20] if frames is None else spread(TOY.videos[:20], frames)
    whole = head(videos, TOY.texts)
    chosen = torch.tensor(order[:size])
    part = head(videos[chosen], TOY.texts)
    torch.testing.assert_close(part.video_embeds, whole.video_embeds[chosen], rtol=0, atol=1e-5)
    torch.testing.assert_close(part.strength, whole.strength[chosen], rtol=0, atol=1e-5)
    torch.testing.assert_close(part.logits_per_video, whole.logits_per_video[chosen], rtol=0, atol=SCALE * 1e-5)


@pytest.mark.parametrize("numbers", [1, 3 * 5 * DIM])
def test_many_videos_are_moved_some_at_a_time(numbers, monkeypatch):
    videos = spread(TOY.videos[:20], 5)
    whole = FITTED(videos, TOY.texts)
    monkeypatch.setattr(embedding_inputs, "NUMBERS_AT_ONCE", numbers)
    sizes = []
    move_videos = FITTED._move_videos
    monkeypatch.setattr(FITTED, "_move_videos", lambda frames: sizes.append(len(frames)) or move_videos(frames))
    pieces = FITTED(videos, TOY.texts)
    assert sizes == ([1] * 20 if numbers == 1 else [3] * 6 + [2])
    for name in OUTPUTS:
        torch.testing.assert_close(getattr(pieces, name), getattr(whole, name), rtol=0, atol=SCALE * 1e-5)


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(NUM_CLASSES + 4)), size=st.integers(1, NUM_CLASSES + 4))
def test_a_text_does_not_depend_on_which_others_are_asked(order, size):
    """Subsets, other orders, and classes that were not fitted among those that were."""
    texts = torch.cat([TOY.texts, toy_domain(num_classes=4, seed=8).texts])
    whole = FITTED(TOY.videos[:5], texts)
    chosen = torch.tensor(order[:size])
    part = FITTED(TOY.videos[:5], texts[chosen])
    torch.testing.assert_close(part.text_embeds, whole.text_embeds[chosen], rtol=0, atol=1e-5)
    torch.testing.assert_close(part.logits_per_video, whole.logits_per_video[:, chosen], rtol=0, atol=SCALE * 1e-5)


def test_classes_with_the_same_text_are_named(caplog):
    texts = TOY.texts.clone()
    texts[4] = texts[1] + 1e-4
    names = ["pour", "Brush Hair", "run", "jump", "BrushHair", "sit"]
    make_head().fit(TOY.videos, TOY.texts, class_names=names)
    assert not caplog.records
    head = make_head().fit(TOY.videos, texts, class_names=names)
    (told,) = caplog.records
    assert "classes have the same text for this encoder" in told.message
    assert "'Brush Hair' and 'BrushHair'" in told.message
    assert head.class_names == names


def test_identical_texts_take_positions_in_order():
    """Class 6 has the words of class 0, but samples of its own, which labels tell apart."""
    texts = torch.cat([TOY.texts, TOY.texts[:1]])
    labels = TOY.labels.clone()
    doubled = (labels == 0).nonzero()[::2, 0]
    labels[doubled] = NUM_CLASSES
    head = make_head().fit(TOY.videos, texts, labels)
    fitted = head(TOY.videos, texts).text_embeds
    assert (fitted[0] - fitted[-1]).norm() > 0.01

    def asked(*classes):
        return head(TOY.videos, texts[list(classes)]).text_embeds

    torch.testing.assert_close(asked(3, 0, 1, 6), fitted[[3, 0, 1, 6]], rtol=0, atol=1e-5)
    torch.testing.assert_close(asked(6, 2, 0), fitted[[0, 2, 6]], rtol=0, atol=1e-5)
    torch.testing.assert_close(asked(6), fitted[[0]], rtol=0, atol=1e-5)
    torch.testing.assert_close(asked(0, 0, 0), fitted[[0, 6, 6]], rtol=0, atol=1e-5)


def test_nearly_the_same_text_is_the_nearest_fitted_class(head):
    generator = torch.Generator().manual_seed(0)
    reworded = normalize(TOY.texts + 0.004 * torch.randn(TOY.texts.shape, generator=generator), dim=-1)
    cosines = (reworded * TOY.texts).sum(1)
    assert 0.999 < cosines.min() < 0.99999
    expected = head(TOY.videos, TOY.texts)
    assert_equal_outputs(head(TOY.videos, reworded), expected)


def test_new_classes_stay_near_plain_clip():
    """Texts that were not fitted are debiased and carried over, but no samples of theirs move them."""
    videos, texts, labels = toy_domain(400, num_classes=10, dim=48)
    known = labels < 5
    head = make_head(48).fit(videos[known], texts[:5])
    new_videos, new_labels = videos[~known], labels[~known] - 5
    output = head(new_videos, texts[5:])
    assert output.logits_per_video.isfinite().all()
    assert accuracy(output.logits_per_video, new_labels) > accuracy(new_videos @ texts[5:].T, new_labels) - 0.03


def test_equivariance_of_fit_to_orders_of_samples_and_classes():
    samples, classes = torch.randperm(len(TOY.videos)), torch.randperm(NUM_CLASSES)
    place = classes.argsort()
    for labels in (None, TOY.labels):
        expected = fitted_head(labels)(TOY.videos[:20], TOY.texts)
        given_labels = None if labels is None else place[labels[samples]]
        head = make_head().fit(TOY.videos[samples], TOY.texts[classes], given_labels)
        tolerance = {"rtol": 1e-3, "atol": 1e-3}
        output = head(TOY.videos[:20], TOY.texts)
        assert_equal_outputs(output, expected, **tolerance)
        torch.testing.assert_close(head.class_strength[place], fitted_head(labels).class_strength, **tolerance)


def test_fit_averages_particles_and_ignores_their_lengths():
    frames, prompts = spread(TOY.videos, 4), spread(TOY.texts, 3)
    expected = make_head().fit(plain(frames), plain(prompts))
    head = make_head().fit(frames, prompts)
    for name in BUFFER_AXES:
        torch.testing.assert_close(getattr(head, name), getattr(expected, name), rtol=1e-3, atol=1e-4, msg=name)
    output = head(3 * frames, 0.1 * prompts)
    assert_equal_outputs(output, head(frames, prompts), rtol=1e-4, atol=1e-4)


def test_the_order_of_frames_and_prompts_does_not_count(head):
    frames, prompts = spread(TOY.videos, 4), spread(TOY.texts, 3)
    expected = head(frames, prompts)
    assert_equal_outputs(head(frames.flip(1), prompts.flip(1)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernel", ["rbf", "imq", "none"])
@pytest.mark.parametrize("noise", [0, 1e-7, 1e-5, 1e-3])
@pytest.mark.parametrize("num_particles", [2, 3, 8])
def test_frames_and_prompts_that_are_all_but_the_same_act_as_one(kernel, noise, num_particles):
    """A still video, or a prompt that stands twice; one particle of them is a little further off."""
    head = shared_fit(svgd_kernel=kernel)
    generator = torch.Generator().manual_seed(0)

    def repeat(embeds):
        particles = embeds[:, None] + noise * torch.randn(len(embeds), num_particles, DIM, generator=generator)
        particles[:, 0] += 2 * noise
        return particles

    videos, texts = repeat(TOY.videos), repeat(TOY.texts)
    output, expected = head(videos, texts), head(plain(videos), plain(texts))
    assert_equal_outputs(output, expected, rtol=0, atol=1e-4 if noise < 1e-3 else 0.1)


@pytest.mark.parametrize("kernel", ["rbf", "imq", "none"])
def test_a_repeated_last_frame_does_not_throw_a_clip_about(kernel):
    """Short clips are filled up so; most pairs of frames coincide then."""
    head = shared_fit(svgd_kernel=kernel)
    frames = spread(TOY.videos, 3)
    frames = torch.cat([frames, frames[:, -1:].expand(-1, 5, -1)], 1)
    output, expected = head(frames, TOY.texts), head(plain(frames), TOY.texts)
    assert (output.video_embeds * expected.video_embeds).sum(1).min() > 0.995


def test_frames_and_prompts_interact():
    frames, prompts = spread(TOY.videos, 4, size=0.2), spread(TOY.texts, 3, size=0.2)
    alone, together = (make_head(svgd_kernel=kernel).fit(frames, prompts) for kernel in ("none", "rbf"))
    assert (alone(frames, prompts).video_embeds - together(frames, prompts).video_embeds).abs().max() > 1e-4
    assert (alone(frames, prompts).text_embeds - together(frames, prompts).text_embeds).abs().max() > 1e-4


def test_fitting_again_forgets_and_is_deterministic():
    head = fitted_head(TOY.labels)
    given_videos, given_texts = TOY.videos.clone(), TOY.texts.clone()
    head.fit(given_videos, given_texts)
    assert_bit_equal_domain(head, fitted_head())
    assert torch.equal(given_videos, TOY.videos)
    assert torch.equal(given_texts, TOY.texts)
    given_texts.zero_()
    assert_bit_equal_domain(head, fitted_head())


def test_fit_writes_the_number_of_components():
    head = make_head()
    assert head.fit(TOY.videos, TOY.texts) is head
    assert head.config.num_components == NUM_CLASSES
    assert head.is_fitted
    assert float(head.weights.sum()) == pytest.approx(1)
    assert head.class_strength.shape == (NUM_CLASSES,)
    torch.testing.assert_close(head.weights * len(TOY.videos), head.counts)
    head.fit(TOY.videos, TOY.texts[:4])
    assert head.config.num_components == 4


def test_reset_is_plain_clip_again(videos, texts):
    head = fitted_head()
    head.class_names = ["a"] * NUM_CLASSES
    assert head.reset() is head
    assert_bit_equal_domain(head, make_head())
    assert head.class_names is None
    assert_equal_outputs(head(videos, texts), make_head()(videos, texts), rtol=0, atol=0)


def test_a_copy_is_another_head():
    head = fitted_head()
    other = copy.deepcopy(head)
    assert_bit_equal_domain(other, head)
    other.reset()
    assert head.config.num_components == NUM_CLASSES
    assert_bit_equal_domain(head, fitted_head())


def test_heads_of_one_config_do_not_mix():
    config = DKDCLIPConfig(projection_dim=DIM, logit_scale=SCALE, logit_bias=BIAS)
    before = copy.deepcopy(config)
    fitted, other = DKDHead(config), DKDHead(config)
    fitted.fit(TOY.videos, TOY.texts)
    assert fitted.config.num_components == NUM_CLASSES
    assert config == before
    assert other.config == before
    torch.testing.assert_close(other(TOY.videos, TOY.texts).logits_per_video, plain_logits(TOY.videos, TOY.texts))
    assert not other.is_fitted
    other.reset()
    assert_equal_outputs(fitted(TOY.videos, TOY.texts), FITTED(TOY.videos, TOY.texts), rtol=0, atol=0)


@pytest.mark.parametrize("cast", ["bfloat16", "half", "double", "to"])
def test_the_domain_stays_float32(cast):
    head = fitted_head()
    head = head.to(torch.bfloat16) if cast == "to" else getattr(head, cast)()
    assert all(tensor.dtype == torch.float32 for tensor in head.state_dict().values())
    assert_bit_equal_domain(head, FITTED)
    assert_equal_outputs(head(TOY.videos, TOY.texts), FITTED(TOY.videos, TOY.texts), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_embeddings_of_any_float_dtype(dtype, head):
    videos, texts = TOY.videos.to(dtype), TOY.texts.to(dtype)
    output = head(videos, texts)
    assert output.logits_per_video.dtype == torch.float32
    assert_equal_outputs(output, head(videos.float(), texts.float()), rtol=0, atol=1e-5)
    fitted = make_head().fit(videos, texts)
    agreement = fitted(TOY.videos, TOY.texts).logits_per_video.argmax(1) == output.logits_per_video.argmax(1)
    assert agreement.float().mean() > 0.95


@pytest.mark.parametrize("factor", [1e-9, 1e-3, 1e9])
def test_lengths_of_embeddings_do_not_count(head, factor):
    expected = head(TOY.videos, TOY.texts)
    assert_equal_outputs(head(factor * TOY.videos, factor * TOY.texts), expected, rtol=1e-4, atol=1e-4)
    assert_equal_outputs(head(1e60 * TOY.videos.double(), TOY.texts), expected, rtol=1e-4, atol=1e-4)


def test_autocast_changes_no_output(videos, texts):
    with torch.autocast("cpu", torch.bfloat16):
        output = FITTED(videos, texts)
    assert_equal_outputs(output, FITTED(videos, texts), rtol=0, atol=0)


def test_autocast_changes_no_fit():
    with torch.autocast("cpu", torch.bfloat16):
        head = fitted_head()
        head.update(TOY.videos[:30])
        unanchored = make_head().fit(TOY.videos, num_components=3)
    assert_bit_equal_domain(head, fitted_head().update(TOY.videos[:30]))
    assert_bit_equal_domain(unanchored, make_head().fit(TOY.videos, num_components=3))


@pytest.mark.parametrize("fitted", [False, True])
def test_gradients_flow_to_videos_texts_and_the_scale(fitted, videos):
    """Texts of new classes; those of fitted ones are constants but for how their prompts differ."""
    head = fitted_head() if fitted else make_head()
    videos = videos.clone().requires_grad_()
    texts = toy_domain(seed=8).texts.requires_grad_()
    output = head(videos, texts)
    torch.nn.functional.cross_entropy(output.logits_per_video, TOY.labels[:20]).backward()
    for gradient in (videos.grad, texts.grad, head.log_logit_scale.grad):
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0
    assert (videos.grad.flatten(1).norm(dim=1) > 0).all()


def test_gradients_flow_through_prompts_of_fitted_classes_and_identical_frames(head):
    prompts = spread(TOY.texts, 3, size=0.2).requires_grad_()
    frames = TOY.videos[:5, None].repeat(1, 3, 1).requires_grad_()
    head(frames, prompts).logits_per_video.square().sum().backward()
    for gradient in (prompts.grad, frames.grad):
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0
    head.zero_grad()


@pytest.mark.parametrize("video_strength", [0.0, 1.0])
def test_gradients_are_finite_at_both_ends_of_the_strength(video_strength):
    head = fitted_head(video_strength=video_strength, num_svgd_steps=2)
    videos = TOY.videos.clone().requires_grad_()
    head(videos, TOY.texts).logits_per_video.sum().backward()
    assert videos.grad.isfinite().all()


def test_nothing_that_is_fitted_needs_gradients_and_fit_leaves_the_graph_alone():
    videos = TOY.videos.clone().requires_grad_()
    head = make_head().fit(videos, TOY.texts)
    head.update(videos)
    assert not any(head.get_buffer(name).requires_grad for name in BUFFER_AXES)


def test_a_domain_fitted_under_inference_mode_can_be_trained_with():
    head = make_head()
    with torch.inference_mode():
        head.fit(TOY.videos.clone(), TOY.texts.clone())
        inferred = head(TOY.videos, TOY.texts).logits_per_video
    output = head(TOY.videos.clone().requires_grad_(), TOY.texts)
    output.logits_per_video.sum().backward()
    assert head.log_logit_scale.grad.isfinite()
    torch.testing.assert_close(output.logits_per_video.detach(), inferred)


def test_a_prior_of_ones_own_takes_the_place_of_debiasing():
    """Texts as they are: what the default makes of them where no share of their differences counts as bias."""

    def as_they_are(texts, logit_sums, options):
        assert logit_sums.shape == (3, len(texts))
        assert options.debiased_share == 0.5
        return TextPrior(texts - texts.mean(0), torch.ones(len(texts)), torch.zeros(len(texts)))

    config = DKDCLIPConfig(projection_dim=DIM, logit_scale=SCALE)
    own = DKDHead(config, prior=as_they_are).fit(TOY.videos, TOY.texts)
    expected = DKDHead(config, MixtureOptions(debiased_share=0.0)).fit(TOY.videos, TOY.texts)
    torch.testing.assert_close(own.means, expected.means, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(own.means, FITTED.means, rtol=1e-3, atol=1e-3)
    assert torch.equal(own.update(TOY.videos[:5]).text_scale, torch.ones(NUM_CLASSES))


def test_a_kernel_of_ones_own_takes_the_place_of_the_named_one():
    frames = spread(TOY.videos[:5], 4)
    config = DKDCLIPConfig(projection_dim=DIM, logit_scale=SCALE, svgd_kernel="none")
    own = DKDHead(config, svgd_kernel=lambda distances, bandwidth: kernel_and_slope(distances, "imq", bandwidth))
    config.svgd_kernel = "imq"
    expected = DKDHead(config).fit(TOY.videos, TOY.texts)(frames, TOY.texts).video_embeds
    assert torch.equal(own.fit(TOY.videos, TOY.texts)(frames, TOY.texts).video_embeds, expected)


@pytest.mark.parametrize(("num_videos", "expected"), [(1, 1), (15, 3), (40, 4), (150, 9)])
def test_without_texts_it_describes_the_domain_and_moves_nothing(num_videos, expected, videos, texts):
    head = make_head().fit(TOY.videos[:num_videos])
    assert head.config.num_components == expected
    assert head.means.shape == (expected, DIM)
    assert float(head.weights.sum()) == pytest.approx(1)
    torch.testing.assert_close(head.weights @ head.means, TOY.videos[:num_videos].mean(0), rtol=1e-3, atol=1e-4)
    output = head(videos, texts)
    torch.testing.assert_close(output.logits_per_video, plain_logits(videos, texts), rtol=1e-4, atol=1e-4)
    assert torch.equal(output.strength, torch.zeros(len(videos)))
    assert torch.equal(head.class_strength, torch.zeros(expected))


def test_without_texts_the_number_of_components_may_be_given():
    assert make_head().fit(TOY.videos[:3], num_components=5).means.shape == (5, DIM)


@pytest.mark.parametrize("num_components", [None, 3])
def test_without_texts_videos_that_are_all_the_same_are_plain_clip_too(num_components):
    head = make_head().fit(TOY.videos[:1].expand(20, -1), num_components=num_components)
    logits = head(TOY.videos, TOY.texts).logits_per_video
    torch.testing.assert_close(logits, plain_logits(TOY.videos, TOY.texts), rtol=1e-4, atol=1e-4)


def test_processes_with_a_part_each_get_the_same_head():
    """As far as one process can see: sums that come back doubled are those of every sample twice."""
    doubled = make_head().fit(TOY.videos, TOY.texts, all_reduce=lambda sums: 2 * sums)
    twice = make_head().fit(TOY.videos.repeat(2, 1), TOY.texts)
    output, expected = (head(TOY.videos, TOY.texts) for head in (doubled, twice))
    assert_equal_outputs(output, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("video_strength", [0.0, 0.3, 1.0])
def test_confidence_of_moved_videos_rises_with_the_predictions_that_changed(video_strength):
    """Moving a video toward its classes makes it more confident; the texts make up for that."""
    videos, texts, _ = toy_domain(300)
    head = make_head(video_strength=video_strength).fit(videos, texts)
    plain, moved = SCALE * videos @ texts.T, head(videos, texts).logits_per_video - BIAS
    changed = (plain.argmax(1) != moved.argmax(1)).float().mean()
    before, after = (logits.softmax(1).amax(1).mean() for logits in (plain, moved))
    assert changed > 0.02
    prior = debias_texts(texts, sum_logits(videos, texts, SCALE, OPTIONS), OPTIONS)
    by_text = SCALE * videos @ prior.directions.T - prior.bias + head.log_frequency
    expected = before + OPTIONS.expected_gain * torch.minimum(changed, 1 - before - changed)
    expected = torch.maximum(expected, by_text.softmax(1).amax(1).mean())
    torch.testing.assert_close(after, expected, rtol=0, atol=0.01)


def test_golden_logits():
    """Written by this code; a change here changes the results of every fitted model, so it must be meant."""
    output = fitted_head()(spread(TOY.videos[:2], 3), spread(TOY.texts[:4], 2))
    expected = torch.tensor([[3.359, -5.473, 1.984, 0.727], [7.550, -3.595, 1.740, 2.182]])
    torch.testing.assert_close(output.logits_per_video, expected, rtol=0, atol=0.02)
