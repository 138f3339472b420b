from itertools import product

import numpy as np
import pytest

from modeling_dkd.recognition.switching_chain import (
    SwitchingChain,
    best_path,
    chain_with_penalty,
    choose_chain,
    log_evidence,
    marginals,
    without_repeats,
)


def made_up(num_windows: int, num_labels: int, duration: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels that last so many windows on average, and noisy posteriors of them."""
    random = np.random.default_rng(seed)
    labels = [0]
    while len(labels) < num_windows:
        labels.append(int(random.integers(num_labels)) if random.uniform() < 1 / duration else labels[-1])
    logits = random.normal(size=(num_windows, num_labels)) * 1.5
    logits[np.arange(num_windows), labels] += 1.5
    return np.array(labels), np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


@pytest.fixture
def small():
    _, posteriors = made_up(6, 3, 2.0, 1)
    return posteriors, SwitchingChain(2.5, 0.7, np.array([0.5, 0.3, 0.2]))


def path_probabilities(posteriors, chain):
    """Every path and its joint probability with what was seen, by the definition."""
    raised = posteriors**chain.exponent
    ratio = raised / raised.sum(1, keepdims=True) / chain.shares
    switch = 1 / chain.duration
    found = {}
    for path in product(range(len(chain.shares)), repeat=len(posteriors)):
        probability = chain.shares[path[0]] * ratio[0, path[0]]
        for t in range(1, len(path)):
            stays = (1 - switch) * (path[t] == path[t - 1])
            probability *= (stays + switch * chain.shares[path[t]]) * ratio[t, path[t]]
        found[path] = probability
    return found


def test_evidence_marginals_and_path_are_those_of_all_paths_tried(small):
    posteriors, chain = small
    paths = path_probabilities(posteriors, chain)
    total = sum(paths.values())
    assert log_evidence(posteriors, chain) == pytest.approx(np.log(total))
    expected = np.zeros_like(posteriors)
    for path, probability in paths.items():
        expected[np.arange(len(path)), path] += probability / total
    np.testing.assert_allclose(marginals(posteriors, chain), expected, atol=1e-12)
    assert tuple(best_path(posteriors, chain)) == max(paths, key=paths.get)


@pytest.mark.parametrize("seed", range(5))
def test_the_path_is_the_best_of_all_whatever_the_penalty(seed):
    _, posteriors = made_up(7, 3, 3.0, seed)
    for penalty in (0.0, 0.5, 2.0, 5.0):
        chain = chain_with_penalty([posteriors], penalty)
        assert chain.switch_penalty == pytest.approx(penalty)
        paths = path_probabilities(posteriors, chain)
        assert paths[tuple(best_path(posteriors, chain))] == pytest.approx(max(paths.values()))


def test_a_free_switch_leaves_each_window_to_itself_and_a_dear_one_allows_none():
    _, posteriors = made_up(200, 4, 5.0, 0)
    assert np.array_equal(best_path(posteriors, chain_with_penalty([posteriors], 0)), posteriors.argmax(1))
    for penalty in (300.0, 1e6):
        assert len(set(best_path(posteriors, chain_with_penalty([posteriors], penalty)))) == 1


@pytest.mark.parametrize("duration", [4.0, 20.0])
def test_what_is_chosen_without_labels_is_nearly_what_labels_would_choose(duration):
    right = {"raw": [], "chosen": [], "best": []}
    for seed in range(5):
        labels, posteriors = made_up(600, 6, duration, seed)
        chain = choose_chain([posteriors])
        assert duration / 2 < chain.duration < 2 * duration
        right["raw"].append((posteriors.argmax(1) == labels).mean())
        right["chosen"].append((best_path(posteriors, chain) == labels).mean())
        tried = [best_path(posteriors, chain_with_penalty([posteriors], penalty)) for penalty in range(1, 9)]
        right["best"].append(max((path == labels).mean() for path in tried))
    raw, chosen, best = (np.mean(right[name]) for name in ("raw", "chosen", "best"))
    assert chosen > raw + 0.1
    assert chosen > best - 0.05


def test_posteriors_that_are_too_sure_are_blunted():
    _, posteriors = made_up(600, 6, 8.0, 0)
    overconfident = posteriors**6 / (posteriors**6).sum(1, keepdims=True)
    plain, blunted = choose_chain([posteriors]), choose_chain([overconfident])
    assert plain.exponent / 10 < blunted.exponent < plain.exponent / 3
    assert np.mean(best_path(posteriors, plain) == best_path(overconfident, blunted)) > 0.95


def test_windows_that_say_nothing_of_each_other_are_left_alone():
    random = np.random.default_rng(0)
    posteriors = random.dirichlet(np.full(5, 0.3), 500)
    chain = choose_chain([posteriors])
    assert np.mean(best_path(posteriors, chain) == posteriors.argmax(1)) > 0.9


def test_several_videos_share_a_chain_and_a_short_one_needs_none():
    parts = [made_up(150, 4, 6.0, seed)[1] for seed in range(3)]
    together = choose_chain(parts)
    assert np.isclose(together.shares.sum(), 1)
    assert 3 < together.duration < 12
    single = choose_chain([parts[0][:1]])
    assert (single.duration, single.exponent) == (1, 1)
    assert best_path(parts[0][:1], single).tolist() == [int(parts[0][0].argmax())]


def test_certain_posteriors_do_no_harm():
    posteriors = np.eye(4)[np.repeat([0, 2, 1], 20)]
    chain = choose_chain([posteriors])
    assert np.array_equal(best_path(posteriors, chain), posteriors.argmax(1))
    assert np.isfinite(marginals(posteriors, chain)).all()


@pytest.mark.parametrize("penalty", [-1.0, float("nan"), float("inf")])
def test_a_penalty_that_is_none_is_refused(penalty, small):
    with pytest.raises(ValueError, match="it must be 0 or more"):
        chain_with_penalty([small[0]], penalty)


@pytest.mark.parametrize("repeats", [2, 4])
def test_windows_that_say_the_same_are_no_surer_than_one_of_them(repeats):
    _, posteriors = made_up(1000, 6, 8.0, 0)
    sure = marginals(posteriors, choose_chain([posteriors])).max(1).mean()
    again = np.repeat(posteriors, repeats, 0)
    chain = choose_chain([again])
    rows, path = np.arange(len(again)), best_path(again, chain)
    assert marginals(again, chain)[rows, path].mean() > sure + 0.06
    assert marginals(again, without_repeats([again], chain, repeats))[rows, path].mean() < sure + 0.02


def test_windows_that_are_not_smoothed_repeat_nothing(small):
    posteriors, _ = small
    alone = chain_with_penalty([posteriors], 0.0)
    np.testing.assert_allclose(
        marginals(posteriors, without_repeats([posteriors], alone, 4.0)), posteriors, atol=1e-12
    )
