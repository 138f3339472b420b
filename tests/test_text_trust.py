import math
from dataclasses import replace

import pytest
import torch
from torch.distributions import MultivariateNormal
from torch.nn.functional import normalize

from modeling_dkd import DKDCLIPConfig, DKDHead, text_trust
from modeling_dkd.class_mixture import gather_statistics, maximise, text_only_mixture
from modeling_dkd.mixture_options import MixtureOptions
from modeling_dkd.text_trust import fit_best_trust, fit_under_trust
from tests.toy_domain import ToyDomain, accuracy, keep_recent


# On so few axes nothing is worth a nat.
OPTIONS = MixtureOptions(trust_margin=0.01)
FULL = replace(OPTIONS, text_trusts=())
# Scales at which these texts are as sure as they are often right, and far too sure.
FAIR, TOO_SURE = 30.0, 1000.0


def clear_domain(seed=1, num_videos=300, num_classes=8, dim=16):
    """Classes that videos tell apart well, and texts that are a little off."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    classes, video_centre, text_centre = normal(num_classes, dim), normal(dim), normal(dim)
    labels = torch.randint(num_classes, (num_videos,), generator=generator)
    videos = 4 * normalize(video_centre, dim=0) + classes[labels] + 0.3 * normal(num_videos, dim)
    texts = 4 * normalize(text_centre, dim=0) + 0.5 * (classes + normal(num_classes, dim))
    return ToyDomain(normalize(videos, dim=-1), normalize(texts, dim=-1), labels)


def unlabelled(videos):
    return torch.full((len(videos),), -1)


def choose(videos, texts, scale, labels=None, options=OPTIONS):
    labels = unlabelled(videos) if labels is None else labels
    return fit_best_trust(videos, labels, texts, len(videos), scale, options)[0]


def make_head(scale, dim=16, options=None, **config):
    return DKDHead(DKDCLIPConfig(projection_dim=dim, logit_scale=scale, **config), options or OPTIONS).eval()


@pytest.fixture(scope="module", params=[1, 2])
def domain(request):
    return clear_domain(request.param)


@pytest.fixture(scope="module")
def too_sure():
    domain = clear_domain()
    return domain, make_head(TOO_SURE).fit(domain.videos, domain.texts)


def test_texts_that_are_too_sure_are_trusted_less(domain):
    videos, texts, labels = domain
    heads = [make_head(TOO_SURE, options=options).fit(videos, texts) for options in (OPTIONS, FULL)]
    chosen, full = (accuracy(head(videos, texts).logits_per_video, labels) for head in heads)
    assert float(heads[0].text_trust) == pytest.approx(0.1)
    assert float(heads[1].text_trust) == 1
    assert chosen > full
    best = OPTIONS.text_trusts.index(0.1)
    assert heads[0].trust_choice.gain[best] > 2 * heads[0].trust_choice.error[best] > 0


def test_texts_that_are_as_sure_as_they_are_right_keep_the_encoders_scale(domain):
    head = make_head(FAIR).fit(domain.videos, domain.texts)
    assert float(head.text_trust) == 1
    assert (head.trust_choice.gain < 0).all()


def test_less_trust_is_as_good_as_texts_of_a_smaller_scale():
    """The tenth of a scale means what the smaller scale itself does, to the domain and to what is read from it."""
    videos, texts, _ = clear_domain()
    labels = unlabelled(videos)
    less = fit_under_trust(videos, labels, texts, 0.1, 300.0, OPTIONS)
    smaller = fit_under_trust(videos, labels, texts, 1.0, 30.0, OPTIONS)
    for name in ("means", "variances", "counts", "log_frequency", "temperature"):
        one, other = getattr(less.mixture, name), getattr(smaller.mixture, name)
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4, msg=name)
    torch.testing.assert_close(300 * less.prior.directions, 30 * smaller.prior.directions, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(less.prior.bias, smaller.prior.bias, rtol=1e-5, atol=1e-5)


def naive_scores(videos, labels, halves, whole, temperature, scale, options):
    """What C is the mean of, sample by sample, from densities that know nothing of whitening."""
    scores = torch.zeros(len(videos), dtype=torch.float64)
    prior, whitening = whole.prior, whole.mixture.whitening.double()

    def fit(half):
        """The mixture of a half, EM by hand, with the covariance and the prior of the whole."""
        mixture = text_only_mixture(prior, options)
        for _ in range(options.num_rounds):
            statistics = gather_statistics(mixture, prior, videos[half], labels[half], scale, options)
            mixture = maximise(mixture, prior, statistics, None, options)
            mixture = replace(mixture, whitening=whole.mixture.whitening, temperature=temperature)
        return mixture

    def joint(mixture, x):
        by_text = scale * prior.directions.double() @ x + (mixture.log_frequency - prior.bias).double()
        precision = whitening @ whitening.T
        density = torch.stack(
            [MultivariateNormal(m.double(), precision_matrix=precision).log_prob(x) for m in mixture.means]
        )
        density = density + 0.5 * len(x) * math.log(2 * math.pi)
        return by_text.log_softmax(0) + density / temperature

    fits = [fit(half) for half in halves]
    for half, own, other in ((halves[0], *fits), (halves[1], *reversed(fits))):
        for i in half.nonzero()[:, 0].tolist():
            x = videos[i].double()
            assigned = joint(own, x).softmax(0)
            if labels[i] >= 0:
                assigned = torch.zeros_like(assigned)
                assigned[labels[i]] = 1
            scores[i] = assigned @ joint(other, x)
    return scores


@pytest.mark.parametrize("share_labelled", [0, 1])
def test_gains_and_their_errors_equal_a_loop_over_samples(share_labelled):
    videos, texts, labels = clear_domain(num_videos=40, num_classes=4, dim=6)
    labels = torch.where(torch.arange(40) % 3 < share_labelled, labels, -1)
    options = replace(OPTIONS, text_trusts=(0.2,), num_rounds=3, trust_limit=0.5)
    full, less = (fit_under_trust(videos, labels, texts, trust, 50.0, options) for trust in (1.0, 0.2))
    chosen = text_trust.choose_text_trust(videos, labels, full, [less], 50.0, options)
    halves, temperature = text_trust._halves(videos), full.mixture.temperature
    scores = [naive_scores(videos, labels, halves, fit, temperature, 50.0, options) for fit in (less, full)]
    gain = (scores[0] - scores[1]).clamp(-0.5, 0.5)
    assert 0 < int((gain.abs() == 0.5).sum()) < len(gain)
    expected = float(gain.mean()), float(gain.std() / len(gain) ** 0.5)
    assert (float(chosen.gain), float(chosen.error)) == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_a_gain_below_the_margin_keeps_the_encoders_scale():
    videos, texts, _ = clear_domain()
    assert choose(videos, texts, TOO_SURE).trust == 0.1
    chosen = choose(videos, texts, TOO_SURE, options=replace(OPTIONS, trust_margin=1.0))
    assert chosen.trust == 1
    assert chosen.gain.max() > 0


def test_halves_do_not_depend_on_what_else_there_is():
    videos = clear_domain(num_videos=2000).videos
    first, second = text_trust._halves(videos)
    assert (first ^ second).all()
    assert 800 < int(first.sum()) < 1200
    torch.testing.assert_close(text_trust._halves(videos[::7])[0], first[::7])


def test_order_does_not_count_and_nothing_is_random():
    videos, texts, _ = clear_domain()
    order = torch.randperm(len(videos), generator=torch.Generator().manual_seed(3))
    first, again, shuffled = (
        choose(videos, texts, TOO_SURE),
        choose(videos, texts, TOO_SURE),
        choose(videos[order], texts, TOO_SURE),
    )
    assert torch.equal(first.gain, again.gain)
    assert torch.equal(first.error, again.error)
    assert first.trust == again.trust == shuffled.trust == 0.1
    torch.testing.assert_close(first.gain, shuffled.gain, rtol=1e-3, atol=1e-3)


def count_rounds(monkeypatch):
    """Samples of every round of EM from now on, in a list."""
    sizes, gather = [], text_trust.gather_statistics

    def counting(mixture, prior, videos, *others):
        sizes.append(len(videos) if isinstance(videos, torch.Tensor) else sum(map(len, videos)))
        return gather(mixture, prior, videos, *others)

    monkeypatch.setitem(text_trust.fit_class_mixture.__globals__, "gather_statistics", counting)
    monkeypatch.setattr(text_trust, "gather_statistics", counting)
    return sizes


@pytest.mark.parametrize(("scale", "whole_fits"), [(FAIR, 1), (TOO_SURE, 2)])
def test_the_choice_costs_a_bounded_number_of_rounds(scale, whole_fits, monkeypatch):
    """Another fit of the whole only where less trust is chosen, and halves factorise nothing."""
    videos, texts, _ = clear_domain()
    sizes, factorised, cholesky = count_rounds(monkeypatch), [], torch.linalg.cholesky

    def counting(matrix):
        factorised.append(len(matrix))
        return cholesky(matrix)

    monkeypatch.setattr(torch.linalg, "cholesky", counting)
    fit_best_trust(videos, unlabelled(videos), texts, len(videos), scale, OPTIONS)
    candidates = len(OPTIONS.text_trusts)
    whole = (whole_fits + candidates) * OPTIONS.num_rounds
    assert sum(size == len(videos) for size in sizes) == len(factorised) == whole
    assert len(sizes) - whole == 2 * (1 + candidates) * OPTIONS.num_rounds


def test_large_domains_are_compared_on_a_sample(monkeypatch):
    videos, texts, _ = clear_domain(num_videos=500)
    sizes = count_rounds(monkeypatch)
    options = replace(OPTIONS, sample_size=100)
    fit_best_trust(videos, unlabelled(videos), texts, len(videos), FAIR, options)
    assert max(size for size in sizes if size < 500) <= 100


def test_without_candidates_nothing_is_tried(monkeypatch):
    videos, texts, _ = clear_domain()
    sizes = count_rounds(monkeypatch)
    head = make_head(TOO_SURE, options=FULL).fit(videos, texts)
    assert sizes == [300] * OPTIONS.num_rounds
    assert float(head.text_trust) == 1
    assert head.trust_choice.gain.shape == head.trust_choice.error.shape == (0,)


@pytest.mark.parametrize("num_videos", [1, 2, 3])
def test_what_cannot_be_halved_keeps_the_encoders_scale(num_videos):
    videos, texts, _ = clear_domain()
    for sample in (videos[:num_videos], videos[:1].repeat(num_videos, 1)):
        head = make_head(TOO_SURE).fit(sample, texts)
        assert head.trust_choice.gain.isfinite().all()
        assert head.trust_choice.error.isfinite().all()
        assert head(videos, texts).logits_per_video.isfinite().all()
    assert float(make_head(TOO_SURE).fit(videos[:1].repeat(9, 1), texts).text_trust) == 1


def test_logits_stay_the_encoders_scale_times_the_cosine(too_sure):
    (videos, texts, _), head = too_sure
    output = head(videos, texts)
    assert float(head.text_trust) < 1
    assert head.logit_scale.item() == pytest.approx(TOO_SURE)
    expected = TOO_SURE * output.video_embeds @ output.text_embeds.T
    torch.testing.assert_close(output.logits_per_video, expected, rtol=1e-4, atol=1e-3)


def test_new_classes_are_trusted_as_fitted_ones_are(too_sure):
    """Half of the texts are fitted; the trust moves where the others are placed, and not where these are."""
    (videos, texts, _), _ = too_sure
    head = make_head(TOO_SURE).fit(videos, texts[::2])
    placed = {}
    for trust in (1.0, 0.1):
        head.register_buffer("text_trust", torch.tensor(trust))
        placed[trust] = head(videos[:1], texts).text_embeds
    torch.testing.assert_close(placed[1.0][::2], placed[0.1][::2])
    assert not torch.allclose(placed[1.0][1::2], placed[0.1][1::2], atol=1e-3)


def test_it_is_saved_with_the_domain_and_forgotten_with_it(too_sure, tmp_path):
    (videos, texts, _), head = too_sure
    head.save_pretrained(tmp_path)
    loaded = DKDHead.from_pretrained(tmp_path)
    assert torch.equal(loaded.text_trust, head.text_trust)
    assert loaded.trust_choice is None
    torch.testing.assert_close(loaded(videos, texts).logits_per_video, head(videos, texts).logits_per_video)
    loaded.reset()
    assert float(loaded.text_trust) == 1


def test_a_stream_chooses_what_a_fit_to_all_of_it_does(too_sure):
    (videos, texts, _), whole = too_sure
    head = make_head(TOO_SURE).fit(videos[:40], texts)
    head.update(videos[40:150])
    head.update(videos[150:])
    assert head.text_trust == whole.text_trust
    torch.testing.assert_close(head.means, whole.means, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(head.logit_sums, whole.logit_sums, rtol=1e-4, atol=1e-4)


def test_older_samples_keep_the_trust_they_were_gathered_under(too_sure, tmp_path, monkeypatch):
    (videos, texts, _), whole = too_sure
    whole.save_pretrained(tmp_path)
    head = DKDHead.from_pretrained(tmp_path)
    head.update(videos[:200])
    assert torch.equal(head.text_trust, whole.text_trust)
    keep_recent(100, monkeypatch)
    forgetful = make_head(TOO_SURE).fit(videos[:90], texts)
    trust = forgetful.text_trust.clone()
    forgetful.update(videos[90:])
    assert torch.equal(forgetful.text_trust, trust)


def test_labels_speak_against_texts_too():
    """Labels of every sample: the text prior is judged by what they say, and texts of other classes lose trust."""
    videos, texts, labels = clear_domain()
    wrong = texts.roll(1, 0)
    assert choose(videos, wrong, TOO_SURE, labels).trust < 1
    assert choose(videos, texts, FAIR, labels).trust == 1


def test_shards_choose_what_one_tensor_does(too_sure):
    (videos, texts, _), whole = too_sure
    head = make_head(TOO_SURE).fit(videos.split(64), texts)
    assert head.text_trust == whole.text_trust
    torch.testing.assert_close(head.trust_choice.gain, whole.trust_choice.gain, rtol=1e-3, atol=1e-3)


def expected_calibration_error(logits, labels):
    confidence, read = logits.softmax(1).max(1)
    bins, right = (confidence * 15).long().clamp(max=14), (read == labels).double()
    inside = [bins == i for i in range(15) if (bins == i).any()]
    return float(sum((right[b].mean() - confidence[b].double().mean()).abs() * b.double().mean() for b in inside))


def test_a_video_encoder_that_is_too_sure_gains_and_is_calibrated_no_worse(protocols):
    _, videos, labels, texts = next(protocols.real_video_sets())
    logits = {}
    for name, options in (("chosen", MixtureOptions()), ("full", FULL)):
        head = make_head(100.0, videos.shape[1], options).fit(videos, texts)
        logits[name] = head(videos, texts).logits_per_video.detach()
        trust = float(head.text_trust)
        assert trust == pytest.approx(0.1) if name == "chosen" else trust == 1
    assert accuracy(logits["chosen"], labels) >= accuracy(logits["full"], labels) + 0.08
    errors = {name: expected_calibration_error(values, labels) for name, values in logits.items()}
    assert errors["chosen"] <= errors["full"]


@pytest.mark.slow
def test_clip_keeps_its_scale_on_whole_sets(protocols):
    for name, videos, _, texts in protocols.development_sets():
        head = make_head(100.0, videos.shape[1], MixtureOptions()).fit(videos, texts)
        assert float(head.text_trust) == 1, name
        assert (head.trust_choice.gain < 0).all(), name


def test_few_clips_do_not_show_that_less_trust_would_be_better(protocols):
    """A limit: on average a tenth of the scale is better here, and no draw of 64 clips sees it."""
    _, videos, labels, texts = next(protocols.real_video_sets())
    gains = []
    for protocol, _, domain, test, test_labels in protocols.splits(videos, labels, len(texts)):
        if protocol != "few":
            continue
        chosen = make_head(100.0, videos.shape[1], MixtureOptions()).fit(domain, texts)
        tenth = make_head(10.0, videos.shape[1], MixtureOptions(text_trusts=())).fit(domain, texts)
        assert float(chosen.text_trust) == 1
        right = [accuracy(head(test, texts).logits_per_video.detach(), test_labels) for head in (tenth, chosen)]
        gains.append(right[0] - right[1])
    assert len(gains) == 5
    assert sum(gains) / len(gains) > 0.02
