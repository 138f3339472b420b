"""The head on real CLIP embeddings: what it must reach, and what must not happen to it."""

from functools import cache

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from modeling_dkd import DKDCLIPConfig
from modeling_dkd.dkd_head import DKDHead
from modeling_dkd.evaluation.metrics import expected_calibration_error


# Top-1 in percent with all samples as domain and as test, without labels: plain zero-shot, and the closed-form text
# step ("reference B") that the head has to keep up with.
REFERENCES = {
    "whurs19_clip_rn50": (71.5, 95.4),
    "whurs19_clip_vit-b-32": (81.3, 94.9),
    "ucf101_val_67": (59.2, 71.4),
    "ucf101_val_101": (35.8, 45.9),
    "imagenet500a": (70.5, 69.3),
}
WHU_RS19 = [name for name in REFERENCES if name.startswith("whurs19")]
# What every fast run tests; the other sets are slow.
FAST_SETS = ("whurs19_clip_vit-b-32", "ucf101_val_67")


@pytest.fixture(scope="module")
def development_sets(protocols):
    return {name: (videos, labels, texts) for name, videos, labels, texts in protocols.development_sets()}


@pytest.fixture(
    params=[name if name in FAST_SETS else pytest.param(name, marks=pytest.mark.slow) for name in REFERENCES]
)
def name(request):
    return request.param


@pytest.fixture
def data(name, development_sets):
    return development_sets[name]


@pytest.fixture(scope="module")
def fit_to_all(development_sets):
    """Name of a set -> a head fitted on all of it, made once."""

    @cache
    def fit(name):
        videos, _, texts = development_sets[name]
        return make_head(videos).fit(videos, texts)

    return fit


def make_head(embeds, **options):
    return DKDHead(DKDCLIPConfig(projection_dim=embeds.shape[-1], **options)).eval()


def top1(logits, labels):
    return float((logits.argmax(1) == labels).float().mean()) * 100


def dkd(domain, texts, test, test_labels, labels=None):
    return top1(make_head(domain).fit(domain, texts, labels)(test, texts).logits_per_video, test_labels)


def test_new_classes_are_found_among_fitted_ones(name, data):
    """A domain of every other class is asked for all of them, of which all have videos."""
    videos, labels, texts = data
    new = labels % 2 == 1
    logits = make_head(videos).fit(videos[~new], texts[::2])(videos, texts).logits_per_video
    plain = videos @ texts.T
    assert top1(logits, labels) > top1(plain, labels) + 1
    assert top1(logits[new], labels[new]) > top1(plain[new], labels[new]) - 8


def test_full(name, data, fit_to_all):
    videos, labels, texts = data
    zero_shot, reference = REFERENCES[name]
    assert top1(videos @ texts.T, labels) == pytest.approx(zero_shot, abs=0.1)
    assert top1(fit_to_all(name)(videos, texts).logits_per_video, labels) >= max(zero_shot, reference) - 0.5


@torch.no_grad()
def search(protocols, head, videos, labels, texts, asked):
    """Mean average precision of a head that is asked some of the texts, and of plain CLIP."""
    output = head(videos, texts[asked])
    classes = list(range(len(texts)))[asked]
    scores = output.video_embeds @ output.text_embeds.T, videos @ texts[asked].T
    return [protocols.mean_average_precision(score, labels, classes) for score in scores]


def fit_to_half(videos, texts):
    """A head that knows every second class."""
    return make_head(videos).fit(videos, texts[::2])


def test_texts_find_their_videos_better_than_plain_ones(name, data, protocols, fit_to_all):
    """All classes fitted; and every second one, the others being asked."""
    videos, _, texts = data
    ours, plain = search(protocols, fit_to_all(name), *data, slice(None))
    assert ours >= plain + 10
    ours, plain = search(protocols, fit_to_half(videos, texts), *data, slice(1, None, 2))
    assert ours >= plain + 3


def test_texts_find_real_clips_at_least_as_well(protocols):
    sets = [embeds for name, *embeds in protocols.real_video_sets() if "own classes" in name]
    gains = []
    for videos, labels, texts in sets:
        head = make_head(videos).fit(videos, texts)
        ours, plain = search(protocols, head, videos, labels, texts, slice(None))
        gains.append(ours - plain)
        ours, plain = search(protocols, fit_to_half(videos, texts), videos, labels, texts, slice(1, None, 2))
        assert ours >= plain - 0.5
    assert min(gains) > 1.5


@pytest.mark.slow
def test_videos_of_classes_that_are_not_asked_are_told_apart(protocols, development_sets):
    """Half of the classes asked and fitted, videos of all of them in the domain; five draws of classes."""
    sets = {name: embeds for name, *embeds in protocols.real_video_sets() if "own classes" in name}
    gains = []
    for videos, labels, texts in [*development_sets.values(), *sets.values()]:
        areas = []
        for seed in range(5):
            asked = protocols.half_asked(len(texts), seed)
            plain = videos @ texts[asked].T
            known = make_head(videos).fit(videos, texts[asked])(videos, texts[asked]).known
            scores = known, (100 * plain).softmax(1).amax(1), plain.amax(1)
            areas.append([protocols.unknown_auroc(score, labels, asked) for score in scores])
        ours, *others = np.mean(areas, 0)
        gains.append(ours - max(others))
    assert np.mean(gains) >= 4, gains
    assert min(gains) >= -0.5, gains


@pytest.mark.slow
def test_25_rows(protocols, development_sets):
    """Top-1 and calibration beside plain zero-shot: the mean of all rows, the worst row, the worst single draw."""
    gains, errors = {}, {}
    for name, (videos, labels, texts) in development_sets.items():
        for protocol, _, domain, test, test_labels in protocols.splits(videos, labels, len(texts), seeds=2):
            logits = make_head(domain).fit(domain, texts)(test, texts).logits_per_video.detach()
            plain = 100 * test @ texts.T
            gains.setdefault((name, protocol), []).append(top1(logits, test_labels) - top1(plain, test_labels))
            ours, theirs = (expected_calibration_error(x.numpy(), test_labels.numpy()) for x in (logits, plain))
            errors.setdefault((name, protocol), []).append((ours, theirs))
    rows = {row: np.mean(values) for row, values in gains.items()}
    assert len(rows) == 25
    assert np.mean(list(rows.values())) >= 11, rows
    assert min(rows.values()) >= -0.5, rows
    ours, theirs = np.mean([np.mean(draws, 0) for draws in errors.values()], 0)
    assert ours <= theirs, errors
    assert max(ours - theirs for draws in errors.values() for ours, theirs in draws) <= 0.1, errors


@pytest.mark.slow
def test_labels_of_half_of_the_samples_help(name, data):
    videos, labels, texts = data
    order = torch.randperm(len(videos), generator=torch.Generator().manual_seed(0))
    domain, test = order[: len(order) // 2], order[len(order) // 2 :]
    results = []
    for share in (0, 0.5, 1):
        known = torch.rand(len(domain), generator=torch.Generator().manual_seed(1)) < share
        given = torch.where(known, labels[domain], -1)
        results.append(dkd(videos[domain], texts, videos[test], labels[test], given))
    assert min(results[1:]) >= results[0] - 2, results
    if name != "imagenet500a":  # two samples a class
        # A point, or a fifth of the errors where few are left.
        assert results[2] >= results[0] + min(1, 0.2 * (100 - results[0])), results


@pytest.mark.slow
@pytest.mark.parametrize("shots", [1, 2, 4])
def test_few_shots_of_every_class_are_no_worse_than_none(data, shots):
    videos, labels, texts = data
    chosen = torch.cat([(labels == k).nonzero()[:shots, 0] for k in range(len(texts))])
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[chosen] = False
    if not rest.any():
        pytest.skip("no class has more samples than that")
    reached = dkd(videos[chosen], texts, videos[rest], labels[rest], labels[chosen])
    assert reached >= top1(videos[rest] @ texts.T, labels[rest]) - 1


@pytest.mark.slow
@pytest.mark.parametrize(("num_samples", "loss"), [(1, 5), (4, 1), (16, 1)])
def test_a_domain_of_very_few_samples_does_little_harm(data, num_samples, loss):
    """A single sample tells where the domain's cone is, but not which axes vary in it."""
    videos, labels, texts = data
    for seed in range(3 if videos.shape[1] <= 512 else 1):  # a fit of many axes costs much
        order = torch.randperm(len(videos), generator=torch.Generator().manual_seed(seed))
        reached = dkd(videos[order[:num_samples]], texts, videos, labels)
        assert reached >= top1(videos @ texts.T, labels) - loss


def order_of_stream(kind, labels):
    """Positions (N,) of the samples as a stream brings them."""
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(labels), generator=generator)
    if kind == "random":
        return order
    if kind == "sorted by class":
        return labels.argsort(stable=True)
    blocks = [block for k in labels.unique() for block in order[labels[order] == k].split(16)]
    return torch.cat([blocks[i] for i in torch.randperm(len(blocks), generator=generator)])


KINDS = ("random", "correlated", "sorted by class")
# Each batch costs a fit, and that of many axes much.
BATCHES = {"whurs19_clip_rn50": 256, "whurs19_clip_vit-b-32": 64, "ucf101_val_67": 128}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "first", "batch"),
    [(name, kind, 64, batch) for name, batch in BATCHES.items() for kind in KINDS]
    + [("whurs19_clip_vit-b-32", "random", 8, 16), ("whurs19_clip_vit-b-32", "random", 1, 1)],
)
def test_a_stream_helps_on_its_way_and_ends_near_a_fit_to_the_whole(name, data, fit_to_all, kind, first, batch):
    """Each batch is read with what was learned up to it."""
    videos, labels, texts = data
    order = order_of_stream(kind, labels)
    head = make_head(videos).fit(videos[order[:first]], texts)
    logits = [head(videos[order[:first]], texts).logits_per_video]
    for part in order[first:].split(batch):
        logits.append(head.update(videos[part])(videos[part], texts).logits_per_video)
    zero_shot = top1(videos @ texts.T, labels)
    assert top1(torch.cat(logits), labels[order]) >= zero_shot + 1
    reached, whole = (top1(h(videos, texts).logits_per_video, labels) for h in (head, fit_to_all(name)))
    assert reached >= whole - 2


def test_embeddings_that_were_centred_stay_near_their_own_zero_shot(data):
    """No cone is left then, along which the classes' constants could be carried."""
    videos, labels, texts = data
    videos, texts = (normalize(embeds - embeds.mean(0), dim=-1) for embeds in (videos, texts))
    assert dkd(videos, texts, videos, labels) >= top1(videos @ texts.T, labels) - 3


def test_classes_that_were_not_fitted_stay_near_zero_shot(data):
    """Fitted on one half of the classes, asked about the other."""
    videos, labels, texts = data
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0))
    fitted, new = order[: len(texts) // 2], order[len(texts) // 2 :]
    of_fitted, of_new = torch.isin(labels, fitted), torch.isin(labels, new)
    place = torch.full((len(texts),), -1)
    place[new] = torch.arange(len(new))
    head = make_head(videos).fit(videos[of_fitted], texts[fitted])
    reached = top1(head(videos[of_new], texts[new]).logits_per_video, place[labels[of_new]])
    assert reached >= top1(videos[of_new] @ texts[new].T, place[labels[of_new]]) - 1


def test_domains_without_texts_are_plain_clip(data):
    videos, labels, texts = data
    output = make_head(videos).fit(videos[:300])(videos, texts)
    assert (output.strength == 0).all()
    assert top1(output.logits_per_video, labels) == pytest.approx(top1(videos @ texts.T, labels), abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", WHU_RS19)
def test_prompts_as_particles(name, data_dir):
    """Twelve prompts a class; repeating one of them is no catastrophe."""
    features = np.load(data_dir / "features" / f"{name}.npz")
    videos = normalize(torch.from_numpy(features["image_f"].astype(np.float32)), dim=-1)
    labels = torch.from_numpy(features["labels"]).long()
    prompts = torch.from_numpy(features["text_prompts"].astype(np.float32)).transpose(0, 1)
    averaged = normalize(normalize(prompts, dim=-1).mean(1), dim=-1)
    assert dkd(videos, prompts, videos, labels) == pytest.approx(dkd(videos, averaged, videos, labels), abs=1)
    repeated = prompts[:, :1].expand(-1, 12, -1)
    once = dkd(videos, prompts[:, 0], videos, labels)
    assert dkd(videos, repeated, videos, labels) == pytest.approx(once, abs=0.2)
    one_more = torch.cat([repeated, prompts[:, 1:2]], 1)
    averaged = normalize(normalize(one_more, dim=-1).mean(1), dim=-1)
    assert dkd(videos, one_more, videos, labels) == pytest.approx(dkd(videos, averaged, videos, labels), abs=0.5)


def test_frames_as_particles(data_dir):
    """Four frames a clip, and the same with the first frame five times, as short clips are filled up."""
    features = np.load(data_dir / "features/ucf101_14_effnetlite0_conse_dev.npz")
    frames, texts = (torch.from_numpy(features[key].astype(np.float32)) for key in ("conse", "text14"))
    labels = torch.from_numpy(features["labels"]).long()
    head = make_head(frames).fit(frames, texts)
    assert top1(head(frames, texts).logits_per_video, labels) >= 44.18
    for particles in (frames, torch.cat([frames, frames[:, :1].expand(-1, 4, -1)], 1)):
        averaged = normalize(normalize(particles, dim=-1).mean(1), dim=-1)
        output, expected = head(particles, texts), head(averaged, texts)
        assert (output.video_embeds * expected.video_embeds).sum(1).min() > 0.999
