import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize

from modeling_dkd import DKDCLIPConfig, DKDHead
from modeling_dkd.domain_file import DOMAIN_FILE, read_domain
from modeling_dkd.withheld_classes import without_small_classes
from tests.toy_domain import toy_domain


DIM, NUM_CLASSES = 24, 6
# One clip of class 3, two of class 4; class 5 has none.
COUNTS = [12, 9, 8, 1, 2, 0]
LABELS = torch.repeat_interleave(torch.arange(NUM_CLASSES), torch.tensor(COUNTS))
SMALL = torch.tensor(COUNTS) < 5


def make_videos():
    toy = toy_domain(400, NUM_CLASSES, DIM)
    rows = torch.cat([(toy.labels == k).nonzero()[:n, 0] for k, n in enumerate(COUNTS)])
    return toy.videos[rows], toy.texts


VIDEOS, TEXTS = make_videos()


def fit(videos=VIDEOS, labels=LABELS, dim=DIM):
    head = DKDHead(DKDCLIPConfig(projection_dim=dim, logit_scale=60.0))
    return head.fit(videos, TEXTS, labels, class_names=list("abcdef"))


def nearest_clip(tensors, clip):
    """Largest cosine with a clip of anything that can be computed from the file for a class or the domain."""
    texts, anchors = tensors["fitted_texts"], tensors["means"]
    guesses = [anchors, tensors["sums"], tensors["text_targets"], tensors["known_directions"]]
    strength = tensors["class_strength"][:, None].clamp_min(1e-3)
    prior = tensors["domain_mean"] + tensors["anchor_scale"] * (
        tensors["text_scale"][:, None] * (texts - texts.mean(0)) - tensors["mean_direction"]
    )
    guesses.append(prior + (anchors - prior) / strength)  # the mean and the prior, inverted
    within = tensors["second_moments"] - (tensors["sums"].T / tensors["counts"].clamp_min(1e-8)) @ tensors["sums"]
    guesses += [torch.linalg.eigh(matrix.double())[1].T.float() for matrix in (tensors["second_moments"], within)]
    return float(cosine_similarity(torch.cat(guesses), clip[None]).abs().max())


def test_without_a_minimum_the_clip_of_a_class_can_be_computed():
    """Not a wish, but what the file tells; the card says so."""
    state, clip = fit().state_dict(), VIDEOS[int((LABELS == 3).nonzero()[0])]
    assert nearest_clip(state, clip) > 0.9999


def test_with_a_minimum_no_buffer_depends_on_clips_of_small_classes():
    """Whatever they were: every tensor is the same, bit by bit."""
    kept = [without_small_classes(fit(), 5)]
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        videos = VIDEOS.clone()
        videos[SMALL[LABELS]] = normalize(torch.randn(3, DIM, generator=generator), dim=1)
        assert not torch.equal(fit(videos).means, fit().means)
        kept.append(without_small_classes(fit(videos), 5))
    for other in kept[1:]:
        for name, tensor in kept[0].state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name


def test_with_a_minimum_a_clip_cannot_be_recovered():
    state = without_small_classes(fit(), 5).state_dict()
    for row in SMALL[LABELS].nonzero()[:, 0]:
        # No nearer than the rest of the domain, which has a common direction, is to it.
        others = cosine_similarity(VIDEOS[~SMALL[LABELS]].mean(0, keepdim=True), VIDEOS[row][None])
        assert nearest_clip(state, VIDEOS[row]) < max(float(others), 0.98)


def test_withheld_classes_are_back_at_their_text_and_take_part_in_no_clip():
    head = fit()
    kept = without_small_classes(head, 5)
    assert (kept.min_clips, head.min_clips, kept.class_names) == (5, 0, list("abcdef"))
    for name in ("counts", "prior_counts", "weights", "class_strength", "sums"):
        assert not kept.get_buffer(name)[SMALL].any(), name
        assert (kept.get_buffer(name)[~SMALL] != 0).any(), name
    torch.testing.assert_close(kept.text_targets[SMALL], kept.text_bases[SMALL], atol=1e-3, rtol=0)
    assert float(kept.num_samples) == pytest.approx(2 * sum(n for n in COUNTS if n >= 5))
    assert torch.equal(head.means, fit().means)
    logits = kept(VIDEOS, TEXTS).logits_per_video
    assert bool(logits.isfinite().all())
    assert float((logits.argmax(1) == LABELS)[~SMALL[LABELS]].float().mean()) > 0.9


def test_where_few_clips_are_left_one_number_of_the_scatter_within_classes_is_kept():
    few = without_small_classes(fit(VIDEOS[::2], LABELS[::2]), 4)

    def within(head):
        between = (head.sums.T / head.counts.clamp_min(1e-8)) @ head.sums
        values = torch.linalg.eigvalsh((head.second_moments - between).double())
        return float(values.max() / values.clamp_min(1e-9).min())

    videos, texts, _ = toy_domain(150, NUM_CLASSES, DIM)
    head = DKDHead(DKDCLIPConfig(projection_dim=DIM, logit_scale=60.0)).fit(videos, texts)
    plenty = without_small_classes(head, 5)
    assert within(few) == pytest.approx(1, abs=0.05)
    assert within(plenty) > 2
    if bool((head.counts > 8).all()):  # nothing to withhold: the same domain
        torch.testing.assert_close(plenty.means, head.means, atol=1e-3, rtol=0)


def test_unlabelled_clips_and_clips_given_by_hand():
    head = fit(labels=None)
    kept = without_small_classes(head, 3)
    by_hand = without_small_classes(head, 3, VIDEOS)
    for name in ("means", "counts", "sums", "second_moments"):
        torch.testing.assert_close(kept.get_buffer(name), by_hand.get_buffer(name), atol=1e-3, rtol=0)
    counts = kept.counts
    assert bool(((counts == 0) | (counts >= 2.9)).all())


def test_what_cannot_be_withheld(tmp_path):
    with pytest.raises(ValueError, match=r"^min_clips is 1, but must be at least 2"):
        without_small_classes(fit(), 1)
    with pytest.raises(ValueError, match=r"^no class has 500 clips"):
        without_small_classes(fit(), 500)
    with pytest.raises(ValueError, match="there is none"):
        without_small_classes(DKDHead(DKDCLIPConfig(projection_dim=DIM)), 5)
    fit().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="not at hand any more"):
        DKDHead.from_pretrained(tmp_path).save_pretrained(tmp_path, min_clips=5)
    loaded = DKDHead.from_pretrained(tmp_path).update(VIDEOS[:5])
    with pytest.raises(ValueError, match="not at hand any more"):
        without_small_classes(loaded, 5)


def test_the_file_says_what_was_asked_and_an_update_takes_it_back(tmp_path):
    fit().save_pretrained(tmp_path, min_clips=5)
    stored = read_domain(tmp_path / DOMAIN_FILE, "file")
    assert (stored.min_clips, stored.class_names) == (5, list("abcdef"))
    assert not stored.tensors["sums"][SMALL].any()
    head = DKDHead.from_pretrained(tmp_path)
    assert head.min_clips == 5
    assert head.update(VIDEOS[:3]).min_clips == 0
    head.reset()
    assert (head.min_clips, head.encoder) == (0, None)
