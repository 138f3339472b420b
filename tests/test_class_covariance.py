import pytest
import torch

from modeling_dkd.class_covariance import effective_dimension
from modeling_dkd.domain_statistics import DomainStatistics
from modeling_dkd.mixture_options import MixtureOptions


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
