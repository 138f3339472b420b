"""Which clips to label next: those that stand for most of what the model is not sure of.

    for suggestion in suggest(["archive"], encoder, class_names, count=20):
        ...                                                         # suggestion.clip, suggestion.guess

Each clip is worth 1 - (p_1 - p_2), how little its two likeliest classes are apart, and a labelled clip covers another by
the square of the cosine between them once the domain's mean is taken off. Clips are chosen one after the other, each the
one that adds most to what is covered: uncertain ones, in dense places, and no two of one kind.

    cover(chosen) = sum_i worth_i max_{j in chosen} max(0, cos(x_i - mean, x_j - mean))^2

Source:
    Wei, Iyer & Bilmes 2015, "Submodularity in Data Subset Selection and Active Learning"; the greedy choice is within
    1 - 1/e of the best one: Nemhauser, Wolsey & Fisher 1978.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .clip_cache import ClipCache, default_cache_folder
from .clip_listing import list_clips
from .clip_search import ClipEmbeddings
from .encoder import Encoder


# Of more clips so many, drawn at random with a fixed seed, are compared with each other.
MAX_CANDIDATES = 8192
LEAST_WORTH = 1e-3


class Suggestion(NamedTuple):
    """A clip to label.

    Attributes:
        clip: Its name.
        path: Where it is.
        guess: Class that it is taken for now.
        confidence: Probability of that class, 0 to 1.
    """

    clip: str
    path: str
    guess: str
    confidence: float


class SuggestionRun(NamedTuple):
    """What a run found.

    Attributes:
        suggestions: The one that gains most first; a shorter list is the beginning of a longer one.
        damaged: Name and reason of the clips that could not be read.
    """

    suggestions: list[Suggestion]
    damaged: dict[str, str]


def suggest(
    paths: Sequence[str | os.PathLike[str]],
    encoder: Encoder,
    class_names: Sequence[str],
    text_embeds: Tensor | None = None,
    *,
    count: int = 20,
    labels: dict[str, int] | None = None,
    cache_folder: str | os.PathLike[str] | None = None,
    num_workers: int = 2,
) -> SuggestionRun:
    """The clips whose labels help most.

    Args:
        paths: Files, folders or lists, as in `list_clips`.
        encoder: What embeds, from `load_encoder`.
        class_names: Names of the K classes.
        text_embeds: Their embeddings, (K, D) or (K, P, D); None: of the encoder's own prompts.
        count: How many clips; fewer come where there are not so many.
        labels: Path -> class of the clips that are labelled already.
        cache_folder: Where embeddings are kept; None: `default_cache_folder()`.
        num_workers: Decoding processes.

    Raises:
        ValueError: The count is below 1, there are fewer than two classes, or no clip can be read.
        OSError: The disk refuses.
    """
    if count < 1:
        raise ValueError(f"{count} clips to label: ask for at least 1")
    if len(class_names) < 2:
        raise ValueError("clips are chosen by which classes they may be of; name at least two classes")
    clips = list_clips(paths)
    cache = ClipCache(cache_folder or default_cache_folder(), encoder)
    pool = ClipEmbeddings(cache, clips, num_workers)
    if not pool.rows:
        name, reason = next(iter(pool.damaged.items()))
        raise ValueError(f"none of {len(clips)} clips can be read; {name}: {reason}")
    if text_embeds is None:
        text_embeds = encoder.embed_texts(encoder.prompts(class_names))
    given = torch.tensor([(labels or {}).get(row.path, -1) for row in pool.rows])
    video_embeds = torch.cat(list(pool))
    head = encoder.new_head().fit(video_embeds, text_embeds, given)
    with torch.inference_mode():
        posteriors = head(video_embeds, text_embeds).logits_per_video.softmax(1)
    chosen = most_helpful(video_embeds, posteriors, count, (given >= 0).nonzero()[:, 0])
    best = posteriors.max(1)
    return SuggestionRun(
        [
            Suggestion(pool.rows[i].clip, pool.rows[i].path, class_names[int(best.indices[i])], float(best.values[i]))
            for i in chosen.tolist()
        ],
        pool.damaged,
    )


def most_helpful(video_embeds: Tensor, posteriors: Tensor, count: int, labelled: Tensor | None = None) -> Tensor:
    """Positions of the clips to label, the most helpful first, (at most count,), int64.

    Args:
        video_embeds: (N, D), unit norm.
        posteriors: Probabilities of the classes, (N, K), K at least 2.
        count: How many.
        labelled: Positions of those that are labelled already and cover what is like them.
    """
    num_clips = len(video_embeds)
    labelled = torch.zeros(0, dtype=torch.int64) if labelled is None else labelled
    unlabelled = torch.ones(num_clips, dtype=torch.bool)
    unlabelled[labelled] = False
    candidates = unlabelled.nonzero()[:, 0]
    if len(candidates) > MAX_CANDIDATES:
        drawn = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(0))[:MAX_CANDIDATES]
        candidates = candidates[drawn.sort().values]
    best_two = posteriors[candidates].float().topk(2, dim=1).values
    worth = 1 - (best_two[:, 0] - best_two[:, 1]) + LEAST_WORTH
    centred = normalize(video_embeds - video_embeds.mean(0), dim=1)
    own = centred[candidates]
    likeness = (own @ own.T).clamp_min(0).square()
    covered = torch.zeros(len(candidates))
    for start in range(0, len(labelled), 1024):
        others = centred[labelled[start : start + 1024]]
        covered = torch.maximum(covered, (own @ others.T).clamp_min(0).square().amax(1))
    chosen: list[int] = []
    for _ in range(min(count, len(candidates))):
        gain = (likeness - covered).clamp_min(0) @ worth
        gain[chosen] = -1
        chosen.append(int(gain.argmax()))
        covered = torch.maximum(covered, likeness[chosen[-1]])
    return candidates[chosen]
