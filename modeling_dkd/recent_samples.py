"""The last samples of a stream, which are looked at again; of those before them only statistics remain.

What a sample is taken for depends on what is known of the domain. In a stream the first samples come when nothing is
known yet, and a mixture that never looks at them again holds on to its first mistakes. So the last
`RECENT_SAMPLES` are kept, and the mixture is fitted to them from the texts on whenever the domain has grown by
`REFIT_GROWTH`. Up to that many samples a stream ends where one `fit` to all of them does, in whatever order they came.
"""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from .class_mixture import ClassMixture, gather_statistics
from .domain_statistics import DomainStatistics, OlderSamples, sum_second_moments
from .mixture_options import MixtureOptions
from .text_prior import TextPrior


# The last samples of a stream that are kept, and by which share a domain grows until they are all looked at again; in
# between new samples are added to the statistics. Both trade time and memory, not what is learned in the end.
RECENT_SAMPLES = 4096
REFIT_GROWTH = 1 / 8


@dataclass(frozen=True)
class RecentSamples:
    """Samples that can be looked at again.

    Attributes:
        videos: (n, D), unit norm, float32.
        labels: (n,), int64, -1 for unlabelled.
        older: What remains of the samples before them; None where there were none.
        num_samples: Of all of them and of `older`, a labelled one counted `labelled_weight` times.
        num_fitted: The same when the mixture was last fitted to all of them.
    """

    videos: Tensor
    labels: Tensor
    older: OlderSamples | None
    num_samples: float
    num_fitted: float

    def is_due(self) -> bool:
        """Whether it is time to look at them again."""
        return self.num_samples >= (1 + REFIT_GROWTH) * self.num_fitted

    def followed_by(
        self, videos: Tensor, mixture: ClassMixture, prior: TextPrior, logit_scale: float, options: MixtureOptions
    ) -> "RecentSamples":
        """With unlabelled videos (m, D) after them; those at the front that are too many leave their statistics."""
        own = self.to(videos.device)
        num_samples = own.num_samples + len(videos)
        videos = torch.cat([own.videos, videos])
        labels = torch.nn.functional.pad(own.labels, (0, len(videos) - len(own.labels)), value=-1)
        excess, older = max(0, len(videos) - RECENT_SAMPLES), own.older
        if excess:
            gone, gone_labels = videos[:excess], labels[:excess]
            statistics = gather_statistics(mixture, prior, gone, gone_labels, logit_scale, options)
            second_moments = sum_second_moments(gone, gone_labels, prior.offsets, options)
            if older is not None:
                statistics, second_moments = older.statistics + statistics, older.second_moments + second_moments
            older = OlderSamples(statistics, second_moments, mixture.log_frequency)
            # Copies: a view would keep all of a large batch in memory.
            videos, labels = videos[excess:].clone(), labels[excess:].clone()
        return replace(own, videos=videos, labels=labels, older=older, num_samples=num_samples)

    def to(self, device: torch.device) -> "RecentSamples":
        """The same on another device."""
        older = self.older
        if older is not None:
            statistics = (getattr(older.statistics, field.name).to(device) for field in fields(DomainStatistics))
            older = OlderSamples(
                DomainStatistics(*statistics), older.second_moments.to(device), older.log_frequency.to(device)
            )
        return replace(self, videos=self.videos.to(device), labels=self.labels.to(device), older=older)
