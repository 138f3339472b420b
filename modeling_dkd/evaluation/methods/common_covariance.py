"""Peers of 2025 that give every class a Gaussian with one full covariance: OGA, DOTA and ADAPT, from their formulas.

Each learns from the domain and then answers for one test clip at a time. OGA and DOTA were published for streams, in
which a clip is answered with what came before it; here the whole domain has been seen, which is never less. x is a
clip, t_k the text of class k, both of unit norm, p the softmax of the plain logits; its entropy tells how sure it is.
The Gaussians' logits are x' L mu_k - mu_k' L mu_k / 2 with the precision L. Every constant has one value for all
sets; where the authors chose it for each set, that is said.

Source:
    Fuchs et al. 2025, "Online Gaussian Test-Time Adaptation of Vision-Language Models" (OGA).
    Han et al. 2025, "DOTA: Distributional Test-Time Adaptation of Vision-Language Models" (DOTA).
    Zhang et al. 2025, "Backpropagation-Free Test-Time Adaptation via Probabilistic Gaussian Alignment" (ADAPT).
"""

import torch
from torch import Tensor

from ..protocols import Task


OGA_CACHE, OGA_TEMPERATURE = 8, 0.01
# The authors chose rho and eta on a validation set: one pair for all sets here.
DOTA_SIGMA, DOTA_EPSILON, DOTA_RHO, DOTA_ETA = 1e-4, 1e-4, 0.02, 0.1
DOTA_BATCH = 64
# The authors chose the scale for each set, 10 to 100; 70 is theirs for UCF101.
ADAPT_BANK, ADAPT_MEAN_SHARE, ADAPT_SCALE = 6, 0.9, 70.0


def oga(task: Task) -> Tensor:
    """OGA: means and covariance of the 8 surest clips read as each class; log z = log p + 0.01 log N."""
    task = task.pooled()
    prior = task.text_logits(task.domain).softmax(1)
    cached, read_as = surest(prior, OGA_CACHE)
    clips, dim = task.domain[cached], task.domain.shape[1]
    counts = torch.bincount(read_as, minlength=len(task.text))
    sums = torch.zeros_like(task.text).index_add_(0, read_as, clips)
    means = torch.where(counts[:, None] >= 2, sums / counts[:, None].clamp_min(1), task.text)
    precision = dim * torch.eye(dim)
    if (counts > 2).any():
        offsets = clips - means[read_as]
        precision = ridge_precision(offsets) if len(clips) <= 4 * dim else _inverse(offsets.T.cov())
    likelihood = discriminant(task.test, means, precision)
    return task.text_logits(task.test).log_softmax(1) + OGA_TEMPERATURE * likelihood


def dota(task: Task) -> Tensor:
    """DOTA: running weighted means and covariances of each class, the covariances averaged over the classes.

    Clips arrive 64 at a time, in a fixed random order; those that arrive together meet the same means.
    """
    task = task.pooled()
    order = torch.randperm(len(task.domain), generator=torch.Generator().manual_seed(0))
    num_classes, dim = task.text.shape
    counts, means = torch.ones(num_classes), task.text
    shares = torch.cat([task.text_logits(task.domain[order]).softmax(1), torch.ones(1, num_classes)])
    # counts_k S_k only ever grows by weight (x - mean)(x - mean)', so with the last counts known
    # mean_k S_k is one sum over clips and classes: no D x D matrix a class.
    final_weights = 1 / (num_classes * shares.sum(0))
    covariance = DOTA_SIGMA * final_weights.sum() * torch.eye(dim)
    for start in range(0, len(order), DOTA_BATCH):
        batch = order[start : start + DOTA_BATCH]
        clips, given = task.domain[batch], shares[start : start + len(batch)]
        weights = given * final_weights
        crossed = (weights.T @ clips).T @ means
        covariance = covariance + clips.T @ (weights.sum(1, keepdim=True) * clips) - crossed - crossed.T
        covariance = covariance + means.T @ (weights.sum(0)[:, None] * means)
        total = counts + given.sum(0)
        means = (counts[:, None] * means + given.T @ clips) / total[:, None]
        counts = total
    precision = torch.linalg.inv((1 - DOTA_EPSILON) * covariance + DOTA_EPSILON * torch.eye(dim))
    weight = min(DOTA_RHO * float(counts.mean()), DOTA_ETA)
    return task.text_logits(task.test) + weight * discriminant(task.test, means, precision)


def adapt(task: Task) -> Tensor:
    """ADAPT, transductive form: the 6 surest clips read as each class, and the votes of the clips kept, s = 70.

    m_k = (sum_bank p_k x + sum_all p_k x) / (the same without x), mu_k = 0.9 m_k + 0.1 t_k, t_k where nothing is read
    as k. g = log softmax of the Gaussians + s / (2 M) sum_j (x . b_j) p_j of its class, less its maximum; the score is
    the plain logit times exp(g / s).
    """
    task = task.pooled()
    prior = task.text_logits(task.domain).softmax(1)
    kept, read_as = surest(prior, ADAPT_BANK)
    bank = task.domain[kept]
    own = torch.zeros(len(bank), len(task.text))
    own[torch.arange(len(bank)), read_as] = prior[kept, read_as]
    weights = (own.sum(0) + prior.sum(0))[:, None]
    means = ADAPT_MEAN_SHARE * (own.T @ bank + prior.T @ task.domain) / weights + (1 - ADAPT_MEAN_SHARE) * task.text
    is_read = torch.bincount(read_as, minlength=len(task.text)) > 0
    means = torch.where(is_read[:, None], means, task.text)
    precision = ridge_precision(bank - means[read_as])
    gain = discriminant(task.test, means, precision).log_softmax(1)
    gain = gain + ADAPT_SCALE / (2 * len(bank)) * (task.test @ bank.T) @ own
    gain = gain - gain.amax(1, keepdim=True)
    return task.text_logits(task.test) * (gain / ADAPT_SCALE).exp()


def surest(posteriors: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Up to `count` clips of least entropy among those read as each class: their indices and classes, both (n,)."""
    entropy = -(posteriors * posteriors.clamp_min(torch.finfo(posteriors.dtype).tiny).log()).sum(1)
    read_as = posteriors.argmax(1)
    order = entropy.argsort(stable=True)
    kept = torch.cat([order[read_as[order] == k][:count] for k in read_as.unique().tolist()])
    return kept, read_as[kept]


def discriminant(videos: Tensor, means: Tensor, precision: Tensor) -> Tensor:
    """Log density (n, K) but for what all classes share: x' L mu_k - mu_k' L mu_k / 2."""
    weights = means @ precision
    return videos @ weights.T - (weights * means).sum(1) / 2


def ridge_precision(offsets: Tensor) -> Tensor:
    """Empirical-Bayes ridge D ((n - 1) S + tr(S) I)^-1 with the covariance S of offsets (n, D)."""
    num_offsets, dim = offsets.shape
    centred = offsets - offsets.mean(0)
    scatter = centred.T @ centred
    return dim * _inverse(scatter + scatter.trace() / max(num_offsets - 1, 1) * torch.eye(dim))


def _inverse(matrix: Tensor) -> Tensor:
    """Moore-Penrose inverse of a symmetric matrix: 0 for offsets that are all alike, whose spread is 0."""
    return torch.linalg.pinv(matrix, hermitian=True)
