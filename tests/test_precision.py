import torch

from modeling_dkd.precision import LEAST_PROBABILITY, posterior_of


def test_a_posterior_is_a_softmax_without_the_least_probabilities():
    """Numbers below float32's normal range make products slow on some processors."""
    logits = torch.linspace(0, -110, 23).repeat(2, 1)
    plain = logits.softmax(-1)
    assert ((plain > 0) & (plain < torch.finfo(torch.float32).tiny)).any()
    posterior = posterior_of(logits)
    kept = plain >= LEAST_PROBABILITY
    torch.testing.assert_close(posterior[kept], plain[kept], rtol=0, atol=0)
    assert not posterior[~kept].any()
    assert (~kept).any()
