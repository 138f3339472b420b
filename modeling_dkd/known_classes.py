"""Whether a video is of one of the classes asked: the domain as a mixture that has room for everything else.

The domain as a whole is one Gaussian, the background. A class is the same Gaussian, shifted along its text by
`separation` standard deviations; a video that no such shift explains better belongs to the background.

| | shape | |
|---|---|---|
| `videos`, `directions` | (B, D), (K, D) | unit videos; texts less their common part, scaled to a unit deviation |
| `scores` | (B, K) | z, how many standard deviations a video lies along a text |
| `background`, `separation` | () | what is fitted |

With the domain's mean m and covariance C, the mean text t and a text t_k,

    d_k = (t_k - share t) / sqrt((t_k - share t)^T C (t_k - share t)),     z_k(x) = d_k . (x - m)
    p(x) proportional to N(x; m, C) [ background + sum_k (1 - background) / K exp(separation z_k - separation^2 / 2) ]

where exp(...) is N(x; m + separation C d_k, C) / N(x; m, C). Both numbers are fitted by expectation-maximisation to
unlabelled videos of the domain. What is asked is the posterior of the classes asked.
"""

import torch
from torch import Tensor

from .class_mixture import AllReduce
from .mixture_options import MixtureOptions


def known_directions(
    text_embeds: Tensor, fitted_texts: Tensor, domain_mean: Tensor, second_moment: Tensor, options: MixtureOptions
) -> Tensor:
    """Directions d of texts (J, D), each by itself: (J, D).

    Args:
        text_embeds: (J, D), unit norm.
        fitted_texts: (K, D), whose mean is the common part. With few of them it is as much what just these classes
            have in common, and less of it is taken off.
        domain_mean: (D,).
        second_moment: (D, D), mean of x x^T over the domain.
        options: Constants.
    """
    num_classes = len(fitted_texts)
    share = num_classes / (num_classes + options.unbiased_prior_classes)
    directions = text_embeds - share * fitted_texts.mean(0)
    variances = (directions @ second_moment * directions).sum(1) - (directions @ domain_mean).square()
    # Videos that do not differ along a text say nothing about it: their z is near 0.
    return directions / (variances.clamp_min(0) + options.rounding_variance).sqrt()[:, None]


def fit_background(scores: Tensor, all_reduce: AllReduce = lambda sums: sums) -> tuple[Tensor, Tensor]:
    """`background` and `separation`, () each, that make scores (n, K) of the domain's videos likely.

    Args:
        scores: z of all fitted classes; n is 0 where this process has no videos.
        all_reduce: Sums a tensor over processes that each hold a part of the videos.
    """
    num_classes = scores.shape[1]
    background, separation = scores.new_full((), 0.5), scores.new_full((), 3.0)
    for _ in range(20):
        assigned = background_and_classes(class_log_odds(scores, background, separation, num_classes))
        of_classes = assigned[:, 1:]
        sums = torch.stack([assigned[:, 0].sum(), of_classes.sum(), (of_classes * scores).sum()])
        num_background, num_known, total = all_reduce(sums.double()).to(scores.dtype)
        # One pseudo-sample of each keeps both possible.
        background = (num_background + 1) / (num_background + num_known + 2)
        separation = (total + 3) / (num_known + 1)
    return background, separation


def class_log_odds(scores: Tensor, background: Tensor, separation: Tensor, num_classes: int) -> Tensor:
    """Log p(class | x) / p(background | x) for scores (..., J), where each of `num_classes` has the same weight."""
    weight = (1 - background) / (num_classes * background)
    return separation * scores - 0.5 * separation.square() + weight.log()


def background_and_classes(log_odds: Tensor) -> Tensor:
    """Posterior (B, 1 + J) of the background and of classes with log odds (B, J) against it."""
    return torch.cat([torch.zeros_like(log_odds[:, :1]), log_odds], 1).softmax(1)
