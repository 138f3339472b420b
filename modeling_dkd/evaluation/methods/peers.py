"""Methods that DKD is measured against, written from their published formulas.

Each takes a `Task` and returns logits (M, K) of its test clips, whose softmax gives the method's class probabilities,
or, where it moves embeddings, a `DKDHeadOutput`. TransCLIP and StatA are transductive by nature: they are fitted on
the test clips themselves, never on the domain; all others learn from the domain.

Source:
    Zanella et al. 2024, "Boosting Vision-Language Models with Transduction" (TransCLIP).
    Zanella et al. 2025, "Realistic Test-Time Adaptation of Vision-Language Models" (StatA).
    Wang et al. 2024, "A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation" (GDA-CLIP).
    Zhu et al. 2024, "Enhancing Zero-Shot Vision Models by Label-Free Prompt Distribution Learning and Bias
        Correcting" (Frolic).
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...dkd_head import DKDHeadOutput
from ..protocols import Method, Task, compared
from .common_covariance import adapt, dota, oga
from .paper_literal import paper_literal


# log p(x | class) is divided by this before it meets the text prior: with variances near 1/D the raw gap between two
# classes is hundreds of nats and every posterior would be one-hot.
TEMPERATURE = 50.0
NEIGHBOURS = 3
OUTER_ROUNDS = 10
INNER_SWEEPS = 5
SEED_CLIPS = 8
MEAN_SHIFT_STEPS = 5
GDA_WEIGHTS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
GDA_FOLDS = 4
VARIANCE_FLOOR = 1e-3
DEBIASING_ROUNDS = 11
POWER_STEPS, POWER_TOLERANCE = 100, 1e-3
TINY = 1e-12


def zero_shot(task: Task) -> DKDHeadOutput:
    """Plain CLIP: the logit scale times the cosine of mean video and mean text embedding."""
    task = task.pooled()
    return compared(task, task.test, task.asked)


def both_centred(task: Task) -> DKDHeadOutput:
    """Cosines after the domain's mean video and the mean text are taken away, each from its own side."""
    task = task.pooled()
    videos = normalize(task.test - task.domain.mean(0), dim=-1)
    return compared(task, videos, normalize(task.asked - task.text.mean(0), dim=-1))


def transclip(task: Task) -> Tensor:
    """TransCLIP zero-shot: Gaussians with one shared diagonal, a neighbour graph and the text prior, on the test."""
    task = task.pooled()
    videos, prior = task.test, task.text_logits(task.test).log_softmax(1)
    dim = videos.shape[1]
    assigned, variances = prior.exp(), videos.new_full((dim,), 1 / dim)
    top, rows = assigned.topk(min(SEED_CLIPS, len(videos)), dim=0)
    means = normalize((top[..., None] * videos[rows]).mean(0), dim=-1)
    graph = neighbour_graph(videos)
    for _ in range(OUTER_ROUNDS):
        likelihood = shared_log_likelihood(videos, means, variances)
        assigned = _sweeps(assigned, prior, likelihood, graph)
        means = normalize(_weighted_means(assigned, videos), dim=-1)
        variances = _shared_variances(assigned, videos, means)
    return assigned.clamp_min(TINY).log()


def stata(task: Task) -> Tensor:
    """StatA: per-class diagonals pulled to a text anchor by the evidence of each class, on the test."""
    task = task.pooled()
    videos, texts, prior = task.test, task.text, task.text_logits(task.test).log_softmax(1)
    assigned = prior.exp()
    anchor = _shared_variances(assigned, videos, texts)
    means, variances = texts, anchor.expand(len(texts), -1)
    graph = neighbour_graph(videos)
    for _ in range(OUTER_ROUNDS):
        likelihood = class_log_likelihood(videos, means, variances)
        assigned = _sweeps(assigned, prior, likelihood, graph)
        counts = torch.bincount(assigned.argmax(1), minlength=len(texts)).to(videos.dtype)
        trust = (counts / (counts + 1))[:, None]
        own_means = normalize(_weighted_means(assigned, videos), dim=-1)
        means = normalize(trust * own_means + (1 - trust) * texts, dim=-1)
        share = assigned / assigned.sum(0).clamp_min(TINY)
        own = share.T @ videos.square() - 2 * means * (share.T @ videos) + share.sum(0)[:, None] * means.square()
        variances = trust * own.clamp_min(0) + (1 - trust) * (anchor + (texts - means).square())
    return assigned.clamp_min(TINY).log()


def gmm_posterior(task: Task) -> Tensor:
    """Posterior of a shared-diagonal mixture fitted on the domain, with the text prior of each clip."""
    task = task.pooled()
    means, variances = _fit_mixture(task)
    return _posterior(task.test, task, means, variances)


def mean_shift(task: Task) -> DKDHeadOutput:
    """Test clips follow the mixture's score to its modes (SVGD without neighbours), texts stay.

    One preconditioned step of size 1 is x <- sum_k r_k(x) mean_k, with the responsibilities r of `gmm_posterior`.
    """
    task = task.pooled()
    means, variances = _fit_mixture(task)
    particles = task.test
    for _ in range(MEAN_SHIFT_STEPS):
        responsibilities = _posterior(particles, task, means, variances).softmax(1)
        particles = normalize(responsibilities @ means, dim=-1)
    return compared(task, particles, task.asked)


def gda(task: Task) -> Tensor:
    """GDA-CLIP: linear discriminant of the labelled domain clips added to the zero-shot logits.

    The weight between both is chosen by cross-validation on the shots, 1 where there is one shot a class.

    Raises:
        ValueError: No domain clip is labelled.
    """
    if task.domain_labels is None or not (task.domain_labels >= 0).any():
        raise ValueError("gda needs labelled domain clips: give --shots")
    task = task.pooled()
    assert task.domain_labels is not None
    labelled = task.domain_labels >= 0
    shots, labels = task.domain[labelled], task.domain_labels[labelled]
    weight = _choose_gda_weight(shots, labels, task)
    return task.text_logits(task.test) + weight * _discriminant(shots, labels, task.text, task.test)


def frolic_bias(task: Task) -> Tensor:
    """The label-bias part of Frolic alone: how often the text prior names each class of the domain is taken out.

    Column k of P is the mean posterior of the clips read as class k, but for those whose two best logits are nearer
    than 1 / K. The prior pi solves pi = P pi; logits -= log pi, eleven times over, as the released script does. Its
    prompt distributions and its other logits are not part of this row.
    """
    task = task.pooled()
    logits, tested = task.text_logits(task.domain), task.text_logits(task.test)
    num_classes = len(task.text)
    for _ in range(DEBIASING_ROUNDS if num_classes > 1 else 0):
        best = logits.topk(2, dim=1).values
        sure = best[:, 0] - best[:, 1] > 1 / num_classes
        bias = (label_prior(logits[sure]) + TINY).log()
        logits, tested = logits - bias, tested - bias
    return tested


def label_prior(logits: Tensor) -> Tensor:
    """The distribution (K,) that the mean posteriors of the clips read as each class reproduce; logits (n, K)."""
    posteriors, read_as = logits.softmax(1), logits.argmax(1)
    num_classes = logits.shape[1]
    assigned = torch.nn.functional.one_hot(read_as, num_classes).to(logits.dtype)
    columns = posteriors.T @ assigned / assigned.sum(0).clamp_min(1)
    prior = torch.full((num_classes,), 1 / num_classes)
    for _ in range(POWER_STEPS):
        moved = columns @ prior
        moved = moved / moved.sum().clamp_min(TINY)
        if (moved - prior).abs().sum() < POWER_TOLERANCE:
            break
        prior = moved
    return prior


BASELINES: dict[str, Method] = {
    "transclip": transclip,
    "stata": stata,
    "gmm": gmm_posterior,
    "mean_shift": mean_shift,
    "oga": oga,
    "dota": dota,
    "adapt": adapt,
    "frolic_bias": frolic_bias,
    "paper_literal": paper_literal,
    "gda": gda,
}


def neighbour_graph(videos: Tensor) -> Tensor:
    """Cosine of each clip (n, D) to its nearest others as a sparse (n, n), in blocks of rows."""
    count = min(NEIGHBOURS, len(videos) - 1)
    values, columns = [], []
    for start in range(0, len(videos), 1024):
        cosines = videos[start : start + 1024] @ videos.T
        cosines[torch.arange(len(cosines)), torch.arange(start, start + len(cosines))] = -torch.inf
        nearest = cosines.topk(count, dim=1)
        values.append(nearest.values)
        columns.append(nearest.indices)
    rows = torch.arange(len(videos)).repeat_interleave(count)
    indices = torch.stack([rows, torch.cat(columns).flatten()])
    size = (len(videos), len(videos))
    return torch.sparse_coo_tensor(indices, torch.cat(values).flatten(), size, check_invariants=True).coalesce()


def shared_log_likelihood(videos: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    """Log density (n, K) up to a term of the clip alone; one diagonal (D,) for all classes."""
    scale = variances.rsqrt()
    centre = means.mean(0)
    whitened, whitened_means = (videos - centre) * scale, (means - centre) * scale
    return whitened @ whitened_means.T - whitened_means.square().sum(1) / 2


def class_log_likelihood(videos: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    """Log density (n, K) up to a constant; one diagonal (K, D) a class."""
    centre = videos.mean(0)
    videos, means, precisions = videos - centre, means - centre, variances.reciprocal()
    distances = videos.square() @ precisions.T - 2 * videos @ (means * precisions).T
    return -(distances + (means.square() * precisions).sum(1) + variances.log().sum(1)) / 2


def _sweeps(assigned: Tensor, prior: Tensor, likelihood: Tensor, graph: Tensor) -> Tensor:
    """Jacobi sweeps of the assignment: text prior, likelihood and the votes of neighbours both ways."""
    backward = graph.t().coalesce()
    for _ in range(INNER_SWEEPS):
        votes = (torch.sparse.mm(graph, assigned) + torch.sparse.mm(backward, assigned)) / (2 * NEIGHBOURS)
        assigned = (prior + likelihood / TEMPERATURE + votes).softmax(1)
    return assigned


def _weighted_means(assigned: Tensor, videos: Tensor) -> Tensor:
    """Mean of the clips of each class (K, D); the mean of all for a class that nothing is assigned to."""
    counts = assigned.sum(0)[:, None]
    return torch.where(counts > TINY, (assigned.T @ videos) / counts.clamp_min(TINY), videos.mean(0))


def _shared_variances(assigned: Tensor, videos: Tensor, means: Tensor) -> Tensor:
    """Mean over clips of the squared distance to the assigned mean, an axis at a time (D,).

    Kept above a share of the spread of all clips: with more classes than clips each clip is a mean of its own.
    """
    centre = videos.mean(0)
    videos, means = videos - centre, means - centre
    total = videos.square().sum(0)
    variances = (total - 2 * ((assigned.T @ videos) * means).sum(0) + assigned.sum(0) @ means.square()) / len(videos)
    return variances.clamp_min(VARIANCE_FLOOR * float(total.mean()) / len(videos) + TINY)


def _fit_mixture(task: Task) -> tuple[Tensor, Tensor]:
    """Means (K, D) and shared variances (D,) of the domain by EM, the text prior of each clip kept throughout."""
    videos, prior = task.domain, task.text_logits(task.domain).log_softmax(1)
    assigned = prior.exp()
    for _ in range(OUTER_ROUNDS):
        means = _weighted_means(assigned, videos)
        variances = _shared_variances(assigned, videos, means)
        assigned = (prior + shared_log_likelihood(videos, means, variances) / TEMPERATURE).softmax(1)
    return means, variances


def _posterior(videos: Tensor, task: Task, means: Tensor, variances: Tensor) -> Tensor:
    """Unnormalised log posterior (n, K): text prior of the clip plus its tempered likelihood."""
    return task.text_logits(videos) + shared_log_likelihood(videos, means, variances) / TEMPERATURE


def _discriminant(shots: Tensor, labels: Tensor, texts: Tensor, videos: Tensor) -> Tensor:
    """x.w_k + b_k (n, K) of a Gaussian discriminant with the empirical-Bayes ridge precision."""
    num_shots, dim = shots.shape
    means = torch.stack(
        [shots[labels == k].mean(0) if (labels == k).any() else _unseen_mean(shots, t) for k, t in enumerate(texts)]
    )
    centred = shots - means[labels]
    covariance = centred.T @ centred / max(num_shots - 1, 1)
    trace = covariance.trace()
    if trace <= TINY:  # one shot a class has no spread inside a class: the spread of all shots stands in
        centred = shots - shots.mean(0)
        covariance = centred.T @ centred / max(num_shots - 1, 1)
        trace = covariance.trace().clamp_min(TINY)
    ridge = (num_shots - 1) * covariance + trace * torch.eye(dim)
    weights = dim * torch.linalg.solve(ridge, means.T).T
    return videos @ weights.T - (means * weights).sum(1) / 2


def _unseen_mean(shots: Tensor, text: Tensor) -> Tensor:
    """Mean of a class without shots: its 64 nearest shots with 16 copies of its text."""
    nearest = (shots @ text).topk(min(64, len(shots))).indices
    return (shots[nearest].sum(0) + 16 * text) / (len(nearest) + 16)


def _choose_gda_weight(shots: Tensor, labels: Tensor, task: Task) -> float:
    """Weight with the most right answers on held-out shots; the smaller one where two are equal."""
    place = torch.zeros_like(labels)  # the how-manieth shot of its class each one is
    for k in labels.unique().tolist():
        place[labels == k] = torch.arange(int((labels == k).sum()))
    num_folds = min(GDA_FOLDS, int(place.max()) + 1)
    if num_folds < 2:
        return 1.0
    right = torch.zeros(len(GDA_WEIGHTS))
    for fold in range(num_folds):
        held_out = place % num_folds == fold
        base = task.text_logits(shots[held_out])
        extra = _discriminant(shots[~held_out], labels[~held_out], task.text, shots[held_out])
        for j, weight in enumerate(GDA_WEIGHTS):
            right[j] += ((base + weight * extra).argmax(1) == labels[held_out]).sum()
    return GDA_WEIGHTS[int(right.argmax())]
