"""Which clips to label next: those that stand for most of what the model is not sure of.

    for suggestion in suggest(["archive"], "activities.txt", count=20).suggestions:
        print(suggestion.clip, suggestion.guess)

Each clip is worth 1 - (p_1 - p_2), how little its two likeliest classes are apart, and a labelled clip covers another
by the square of the cosine between them once the domain's mean is taken off. Clips are chosen one after the other,
each the one that adds most to what is covered: uncertain ones, in dense places, and no two of one kind.

    cover(chosen) = sum_i worth_i max_{j in chosen} max(0, cos(x_i - mean, x_j - mean))^2

Source:
    Wei, Iyer & Bilmes 2015, "Submodularity in Data Subset Selection and Active Learning"; the greedy choice is within
    1 - 1/e of the best one: Nemhauser, Wolsey & Fisher 1978.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .asked import Classes, PathLike, asked, none_readable
from .classes import read_labels
from .clip_cache import ClipCache, default_cache_folder
from .clip_listing import list_clips
from .clip_search import ClipEmbeddings
from .doubts import same_text_doubts, without_log_of_same_texts
from .encoder import Model


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
        notes: What else the user should know.
    """

    suggestions: list[Suggestion]
    damaged: dict[str, str]
    notes: list[str]


def suggest(
    paths: Sequence[PathLike],
    classes: Classes,
    model: Model = None,
    *,
    count: int = 20,
    labelled: PathLike | None = None,
    templates: PathLike | None = None,
    descriptions: PathLike | None = None,
    cache_dir: PathLike | None = None,
    batch_size: int | None = None,
    num_workers: int = 2,
) -> SuggestionRun:
    """The clips whose labels help most.

    Args:
        paths: Files, folders, lists and tables, as in `list_clips`.
        classes: A file with one class a line, names with commas between them, or a list; at least two.
        model: What embeds: what `load_encoder` gives, or the name that it takes.
        count: How many clips; fewer come where there are not so many.
        labelled: CSV (clip, label) of the clips that are labelled already.
        templates: Prompt templates, as in `load_templates`; None: the encoder's own.
        descriptions: JSON file with descriptions of the classes, instead of templates.
        cache_dir: Where embeddings are kept; None: `default_cache_folder()`.
        batch_size: Clips that are decoded and encoded together; None: what suits the encoder.
        num_workers: Decoding processes. With any, a script needs its `if __name__ == "__main__":`.

    Raises:
        ValueError: The count is below 1, there are fewer than two classes, no clip can be read, or as in `recognise`.
        OSError: The disk refuses; what was embedded is kept.
    """
    if count < 1:
        raise ValueError(f"{count} clips to label: ask for at least 1")
    listing = list_clips(paths)
    encoder, question, _ = asked(classes, model, templates=templates, descriptions=descriptions)
    names, text_embeds = question.class_names, question.text_embeds
    if len(names) < 2:
        raise ValueError("clips are chosen by which classes they may be of; name at least two classes")
    labels = {} if labelled is None else read_labels(labelled, listing.clips, names)
    cache = ClipCache(cache_dir or default_cache_folder(), encoder)
    pool = ClipEmbeddings(cache, listing.clips, batch_size, num_workers)
    if not pool.rows:
        raise none_readable(pool.damaged)
    given = torch.tensor([labels.get(row.path, -1) for row in pool.rows])
    video_embeds = torch.cat(list(pool))
    with without_log_of_same_texts():
        head = encoder.new_head().fit(video_embeds, text_embeds, given)
    with torch.inference_mode():
        posteriors = head(video_embeds, text_embeds).logits_per_video.softmax(1)
    chosen = most_helpful(video_embeds, posteriors, count, (given >= 0).nonzero()[:, 0])
    best = posteriors.max(1)
    suggestions = [
        Suggestion(pool.rows[i].clip, pool.rows[i].path, names[int(best.indices[i])], float(best.values[i]))
        for i in chosen.tolist()
    ]
    return SuggestionRun(suggestions, pool.damaged, [*listing.notes, *same_text_doubts(question)])


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
