"""Labels of windows in time as a Markov chain that seldom switches: its evidence, its marginals, its best path.

    chain = choose_chain([posteriors])                      # (N, S) of one video, S labels; no label is asked for
    labels = best_path(posteriors, chain)                   # (N,)

From one window to the next the label stays with probability 1 - q, and with probability q it is drawn anew from the
shares of the labels: p(j | i) = (1 - q) [i = j] + q share_j. What a window says of its label is its posterior,
sharpened or blunted by an exponent b: p_b(k | x) = p(k | x)^b / sum_j p(j | x)^b. Up to what no label changes,

    p(x_1 ... x_N) = sum over paths k of prod_t p(k_t | k_t-1) p_b(k_t | x_t) / share_k_t.

q and b are those for which this evidence is largest, that is for which the windows predict each other best: posteriors
that are too sure of themselves contradict their neighbours and pay for it.

Source:
    Rabiner 1989, "A Tutorial on Hidden Markov Models", sections III A to C; posteriors over shares as scaled
    likelihoods: Bourlard & Morgan 1994, "Connectionist Speech Recognition".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..frame_sampling import ArrayOfFloat, ArrayOfInt


# What is tried: how many windows a label lasts on average, and the exponents of the posteriors.
DURATIONS = np.geomspace(1.0, 1000.0, 25)
EXPONENTS = np.geomspace(0.05, 3.2, 13)
TINY = 1e-12


@dataclass(frozen=True)
class SwitchingChain:
    """How labels follow each other.

    Attributes:
        duration: Windows that a label lasts on average before it is drawn anew, 1 / q, at least 1.
        exponent: b, to which posteriors are raised, above 0.
        shares: Share of each label, (S,), float64, positive, their sum 1.
    """

    duration: float
    exponent: float
    shares: ArrayOfFloat

    @property
    def switch_penalty(self) -> float:
        """What a switch between two labels of average share costs on the best path, in nats; 0 or more."""
        num_labels = len(self.shares)
        return float(np.log1p((self.duration - 1) * num_labels))


def choose_chain(sequences: Sequence[ArrayOfFloat]) -> SwitchingChain:
    """The chain of largest evidence for the posteriors (N, S) of each of some videos, windows in order of time."""
    longest = max(map(len, sequences))
    durations = DURATIONS[max(1, longest) >= DURATIONS]
    best, chosen = -np.inf, (1.0, 1.0)
    for exponent in EXPONENTS if longest > 1 else ():
        shares, ratios = _shares_and_ratios(sequences, exponent)
        evidence = np.sum([_log_evidence(ratio, shares, durations) for ratio in ratios], axis=0)
        if evidence.max() > best:
            best, chosen = evidence.max(), (float(durations[evidence.argmax()]), float(exponent))
    duration, exponent = chosen
    return SwitchingChain(duration, exponent, _shares_and_ratios(sequences, exponent)[0])


def chain_with_penalty(sequences: Sequence[ArrayOfFloat], switch_penalty: float) -> SwitchingChain:
    """The chain in which posteriors count as they are and a switch costs so many nats, 0 or more.

    Raises:
        ValueError: The penalty is negative or no number.
    """
    if not 0 <= switch_penalty < np.inf:
        raise ValueError(f"a switch penalty of {switch_penalty} nats: it must be 0 or more, such as 4")
    shares, _ = _shares_and_ratios(sequences, 1.0)
    # A penalty so large that no video could pay it does not overflow.
    duration = 1 + float(np.expm1(min(switch_penalty, 500.0))) / len(shares)
    return SwitchingChain(duration, 1.0, shares)


def without_repeats(sequences: Sequence[ArrayOfFloat], chain: SwitchingChain, repeats: float) -> SwitchingChain:
    """The chain whose marginals count once what overlapping windows say several times.

    Windows that overlap see the same frames and agree in their errors too, so as independent witnesses they would make
    the marginals too sure: b is divided by how many of them see a frame, at most as many as a label lasts.

    Args:
        sequences: Posteriors (N, S) of each video.
        chain: Chosen for them.
        repeats: Windows that see each frame, at least 1.
    """
    exponent = chain.exponent / min(repeats, chain.duration)
    return SwitchingChain(chain.duration, exponent, _shares_and_ratios(sequences, exponent)[0])


def log_evidence(posteriors: ArrayOfFloat, chain: SwitchingChain) -> float:
    """Log evidence of a chain for posteriors (N, S), nats."""
    ratio = _ratio(_raised(posteriors, chain.exponent), chain.shares)
    return float(_log_evidence(ratio, chain.shares, np.array([chain.duration]))[0])


def marginals(posteriors: ArrayOfFloat, chain: SwitchingChain) -> ArrayOfFloat:
    """Posterior of each window's label given all windows, (N, S), by the forward-backward algorithm."""
    switch, shares = 1 / chain.duration, chain.shares
    ratio = _ratio(_raised(posteriors, chain.exponent), shares)
    forward = np.empty_like(ratio)
    before = shares
    for t, seen in enumerate(ratio):
        before = ((1 - switch) * before + switch * shares) * seen
        before = before / before.sum()
        forward[t] = before
    after = np.ones_like(shares)
    joint = np.empty_like(ratio)
    for t in reversed(range(len(ratio))):
        joint[t] = forward[t] * after
        seen = ratio[t] * after
        after = (1 - switch) * seen + switch * (shares @ seen)
        after = after / after.max()
    return joint / joint.sum(1, keepdims=True)


def best_path(posteriors: ArrayOfFloat, chain: SwitchingChain) -> ArrayOfInt:
    """The likeliest sequence of labels, (N,) int64, by the Viterbi algorithm."""
    switch = 1 / chain.duration
    log_ratio = np.log(_ratio(_raised(posteriors, chain.exponent), chain.shares))
    log_stay = np.log(1 - switch + switch * chain.shares)
    log_switch = np.log(switch * chain.shares)
    labels = np.arange(len(chain.shares))
    came_from = np.empty(log_ratio.shape, np.int64)
    score = np.log(chain.shares)
    for t, seen in enumerate(log_ratio):
        # The best of all labels to come from may be the label itself, where staying costs less.
        best = int(score.argmax())
        stays = score + log_stay >= score[best] + log_switch
        came_from[t] = np.where(stays, labels, best)
        score = np.where(stays, score + log_stay, score[best] + log_switch) + seen
    path = np.empty(len(log_ratio), np.int64)
    label = int(score.argmax())
    for t in reversed(range(len(path))):
        path[t] = label
        label = came_from[t, label]
    return path


def _log_evidence(ratio: ArrayOfFloat, shares: ArrayOfFloat, durations: ArrayOfFloat) -> ArrayOfFloat:
    """Log evidence (R,) of chains that differ in their durations (R,), by the forward algorithm."""
    switch = 1 / durations[:, None]
    drawn = switch * shares
    forward = np.broadcast_to(shares, (len(durations), len(shares)))
    lengths = np.empty((len(ratio), len(durations)))
    for t, seen in enumerate(ratio):
        forward = ((1 - switch) * forward + drawn) * seen
        lengths[t] = forward.sum(1)
        forward = forward / lengths[t, :, None]
    return np.log(lengths).sum(0)


def _shares_and_ratios(sequences: Sequence[ArrayOfFloat], exponent: float) -> tuple[ArrayOfFloat, list[ArrayOfFloat]]:
    """Shares (S,), the mean of all raised posteriors, and for each sequence these posteriors over the shares."""
    raised = [_raised(posteriors, exponent) for posteriors in sequences]
    shares = np.maximum(np.concatenate(raised).mean(0), TINY)
    shares /= shares.sum()
    return shares, [_ratio(posteriors, shares) for posteriors in raised]


def _raised(posteriors: ArrayOfFloat, exponent: float) -> ArrayOfFloat:
    logs = exponent * np.log(np.maximum(posteriors, TINY))
    raised: ArrayOfFloat = np.exp(logs - logs.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def _ratio(raised: ArrayOfFloat, shares: ArrayOfFloat) -> ArrayOfFloat:
    return np.maximum(raised / shares, TINY)
