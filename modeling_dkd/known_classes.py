"""Whether a video is of one of the classes asked, learned from videos of which nobody says so.

A video of a class lies far along the class's text, one of none lies along some text by chance. How far chance goes is
seen in the known videos themselves: without its own text, such a video is one of none. So the second best score of the
one kind and the best of the other are drawn from the same distribution (an empirical null, Efron 2004).

| | shape | |
|---|---|---|
| `videos`, `directions` | (B, D), (K, D) | unit videos; texts less their common part, scaled to a unit deviation |
| `scores` | (B, K) | z, how many standard deviations a video lies along a text |
| `slope`, `offset`, `floor` | () | what is fitted |

With the domain's mean m and covariance C, the mean text t, of which a share is what all texts have in common, and a
text t_k,

    d_k = (t_k - share t) / sqrt((t_k - share t)^T C (t_k - share t)),     z_k(x) = d_k . (x - m)

A part of the domain is recognised: its best score ~ N(high, v), its second best ~ N(low, v). Of all other videos the
best ~ N(low, v). Fitted by expectation-maximisation,

    p(recognised | x) = sigmoid(slope max_k z_k(x) + offset),     slope = (high - low) / v

Videos of classes asked of which another text is the best look like those of none. Of the known ones a share c has its
own text as the best, c being the mean of max_k softmax(slope z)_k; so there are 1 / c times as many known videos as
recognised ones, and floor is the share of known ones among the others. With classes that were not asked as rivals,

    p(known | x) = [ floor + (1 - floor) p(recognised | x) ] sum over k asked of softmax(slope z(x))_k
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .class_covariance import ROUNDING_VARIANCE
from .domain_statistics import AllReduce
from .mixture_options import MixtureOptions
from .precision import posterior_of


@dataclass(frozen=True)
class KnownModel:
    """How scores make the probability to be known.

    Attributes:
        slope: (), log odds of being recognised a deviation of the best score.
        offset: (), the same at 0.
        floor: (), probability to be known for a video that is not recognised.
    """

    slope: Tensor
    offset: Tensor
    floor: Tensor

    def probability(self, scores: Tensor, asked: Tensor) -> Tensor:
        """Of being of a class asked, (B,).

        Args:
            scores: z of all classes, asked or not, (B, J).
            asked: Whether each is, as 0 or 1, (J,).
        """
        recognised = (self.slope * scores.amax(1) + self.offset).sigmoid()
        share = posterior_of(self.slope * scores) @ asked
        return ((self.floor + (1 - self.floor) * recognised) * share).clamp(0, 1)


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
    directions = text_embeds - options.common_share_of(len(fitted_texts)) * fitted_texts.mean(0)
    # Of the covariance, entry by entry: the difference of two large sums would be rounding.
    covariance = second_moment - domain_mean[:, None] * domain_mean
    variances = (directions @ covariance * directions).sum(1)
    # Videos that do not differ along a text say nothing about it: their z is near 0.
    return directions / (variances.clamp_min(0) + ROUNDING_VARIANCE).sqrt()[:, None]


def fit_known(scores: Tensor, all_reduce: AllReduce = lambda sums: sums) -> KnownModel:
    """The model that makes scores of a domain's videos likely.

    Args:
        scores: z of all fitted classes (n, K); n is 0 where this process has no videos.
        all_reduce: Sums a tensor over processes that each hold a part of the videos.
    """
    rivals = min(1, scores.shape[1] - 1)
    highest = scores.topk(1 + rivals).values.double()
    best, second = highest[:, 0], rivals * highest[:, -1]
    per_video = torch.stack([torch.ones_like(best), best, second, second.square()])
    num_videos, sum_best, best_squares = all_reduce(torch.stack([per_video[0].sum(), best.sum(), best.square().sum()]))
    high, low, variance, share = num_videos.new_tensor([3.0, 1.0, 1.0, 0.5])
    for _ in range(50):
        slope = (high - low) / variance
        offset = share.logit() - slope * (high + low) / 2
        assigned = (slope * best + offset).sigmoid()
        num_high, sum_high, sum_second, second_squares = all_reduce(per_video @ assigned)
        # Low are the best scores of the videos that are not recognised and the second best of those that are.
        num_low, sum_low = num_videos - (1 - rivals) * num_high, sum_best - sum_high + sum_second
        # One pseudo-video of each kind, at the start's mean and deviation, keeps both possible.
        share = (num_high + 1) / (num_videos + 2)
        high, low = (sum_high + 3) / (num_high + 1), (sum_low + 1) / (num_low + 1)
        spread = high * sum_high + low * sum_low
        deviations = best_squares + second_squares - 2 * spread + high**2 * num_high + low**2 * num_low
        variance = (deviations + 2) / (num_high + num_low + 2)
    confidence = all_reduce((slope * scores).softmax(1).amax(1).sum(dtype=torch.float64))
    known = torch.minimum(share * (num_videos + 1) / (confidence + 1), (num_videos + 1) / (num_videos + 2))
    return KnownModel(*(value.to(scores.dtype) for value in (slope, offset, (known - share) / (1 - share))))
