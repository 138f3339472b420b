"""Heads fitted on the toy domain, and what their tests compare."""

import copy
from functools import cache

import torch
from torch.nn.functional import normalize

from modeling_dkd import DKDCLIPConfig
from modeling_dkd.dkd_head import DKDHead
from modeling_dkd.fitted_buffers import BUFFER_AXES
from modeling_dkd.mixture_options import MixtureOptions
from tests.toy_domain import toy_domain


DIM, NUM_CLASSES, SCALE, BIAS = 24, 6, 60.0, -1.5
OUTPUTS = ("logits_per_video", "video_embeds", "text_embeds", "strength", "known")
TOY = toy_domain()
OPTIONS = MixtureOptions()


def make_head(dim=DIM, **options):
    return DKDHead(DKDCLIPConfig(projection_dim=dim, logit_scale=SCALE, logit_bias=BIAS, **options))


def fitted_head(labels=None, **options):
    return make_head(**options).fit(TOY.videos, TOY.texts, labels)


FITTED = fitted_head()
UNTOUCHED = copy.deepcopy(FITTED)


@cache
def shared_fit(**options):
    """A head fitted with these options, for tests that only look at it."""
    return fitted_head(**options)


def spread(embeds, num_particles, seed=3, size=0.05):
    """Particles (..., P, D) around each embedding, of any length."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(*embeds.shape[:-1], num_particles, embeds.shape[-1], generator=generator)
    lengths = 0.5 + torch.rand(*embeds.shape[:-1], num_particles, 1, generator=generator)
    return (embeds.unsqueeze(-2) + size * noise) * lengths


def plain(embeds):
    """Normalise, average over particles, normalise."""
    embeds = normalize(embeds, dim=-1)
    return normalize(embeds.mean(1), dim=-1) if embeds.dim() == 3 else embeds


def plain_logits(videos, texts):
    return SCALE * plain(videos) @ plain(texts).T + BIAS


def assert_equal_outputs(one, other, **tolerance):
    for name in OUTPUTS:
        torch.testing.assert_close(getattr(one, name), getattr(other, name), **tolerance)


def assert_bit_equal_domain(one, other):
    assert one.config.num_components == other.config.num_components
    for name in BUFFER_AXES:
        assert torch.equal(getattr(one, name), getattr(other, name)), name
