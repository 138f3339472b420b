import pytest
import torch
from torch.nn.functional import normalize

from modeling_dkd.class_covariance import effective_dimension, shrunk_covariance
from modeling_dkd.class_mixture import fit_class_mixture, maximise
from modeling_dkd.domain_statistics import DomainStatistics
from modeling_dkd.mixture_options import MixtureOptions
from modeling_dkd.text_prior import debias_texts, sum_logits


OPTIONS = MixtureOptions()


@pytest.mark.parametrize("num_samples", [100, 2000])
def test_the_effective_dimension_is_corrected_for_the_number_of_samples(num_samples):
    """Ten axes with variance 1 and 100 with 0.01: 11^2 / 10.01, but for the prior; the samples' own ratio is less."""
    videos = torch.randn(num_samples, 110, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    videos[:, 10:] *= 0.1
    statistics = DomainStatistics(torch.tensor(float(num_samples)).double(), torch.zeros(()), *torch.zeros(3, 1))
    dimension = effective_dimension(statistics, videos.T @ videos / num_samples, OPTIONS)
    expected = (num_samples * 11**2 / 10.01 + 110) / (num_samples + 1)
    assert float(dimension) == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize("samples", [torch.zeros(4, 5), torch.eye(5)[:1], torch.eye(5)])
def test_the_effective_dimension_is_at_most_that_of_the_space(samples):
    """No spread, one sample and orthogonal ones: nothing says that some axes vary more than others."""
    statistics = DomainStatistics(torch.tensor(float(len(samples))).double(), torch.zeros(()), *torch.zeros(3, 1))
    assert float(effective_dimension(statistics, samples.T @ samples / len(samples), OPTIONS)) == 5


@pytest.mark.parametrize("labelled", [False, True])
def test_float32_is_enough_for_s_where_it_is_worst(labelled):
    """Each axis is there twice, with hundreds of samples: the scatter is singular, and with labels counts in full."""
    generator = torch.Generator().manual_seed(0)
    classes, labels = torch.randn(5, 24, generator=generator), torch.arange(20_000) % 5
    halves = 4 + classes[labels] + torch.rand(24, generator=generator) * torch.randn(20_000, 24, generator=generator)
    videos, texts = (normalize(torch.cat([half, half], 1), dim=1) for half in (halves, classes))
    labels = labels if labelled else torch.full_like(labels, -1)
    prior = debias_texts(texts, sum_logits(videos, texts, 60.0, OPTIONS), OPTIONS)
    mixture, statistics, second_moments = fit_class_mixture(videos, prior, labels, 60.0, OPTIONS)
    mixture = maximise(mixture, prior, statistics, second_moments, OPTIONS)

    # By hand in float64, sample sums as they are.
    counts, means = statistics.counts[:, None], mixture.means.double()
    cross = statistics.sums.T @ means
    scatter = (second_moments - cross - cross.T + (counts * means).T @ means) / statistics.num_samples
    covariance = shrunk_covariance(statistics, scatter, OPTIONS)
    differences = means - means.mean(0)
    expected = torch.linalg.solve(covariance, differences.T).T
    found = mixture.precision_times(differences.float()).double()
    assert (found - expected).norm() < 1e-3 * expected.norm()
