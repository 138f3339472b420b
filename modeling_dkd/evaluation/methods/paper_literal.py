"""The paper as it can be read word for word, without what this project had to add: a row of its own in the table.

The mixture is fitted to the outputs alone, without the class texts, as many components as there are classes. The test
videos are one set of particles and the class texts another; each is moved by SVGD toward the mixture, and the cosine
of what comes out is taken. Steps, kernel and strength are the head's own defaults; the paper does not say which it
used.

Source:
    "Domain-Aware Knowledge Debiasing for Generalizable Video Understanding in CLIP", ICASSP 2025.
"""

from torch import Tensor
from torch.nn.functional import normalize

from ...configuration_dkd import DKDCLIPConfig
from ...dkd_head import DKDHeadOutput
from ...gaussian_mixture import fit_gaussian_mixture
from ...svgd import svgd
from ..protocols import Task, compared


def paper_literal(task: Task) -> DKDHeadOutput:
    """Unanchored mixture, SVGD of both branches, cosine. The test clips interact: a result depends on its batch."""
    task = task.pooled()
    mixture, _ = fit_gaussian_mixture(task.domain, min(len(task.text), len(task.domain)))
    options = DKDCLIPConfig(projection_dim=task.text.shape[-1])
    # Of a particle that is alone: video_strength of the way in all steps together.
    step_size = 1 - (1 - options.video_strength) ** (1 / options.num_svgd_steps)

    def moved(particles: Tensor) -> Tensor:
        found = svgd(
            particles,
            mixture.score,
            num_steps=options.num_svgd_steps,
            step_size=step_size,
            kernel=options.svgd_kernel,
            variances=mixture.variances,
        )
        return normalize(found, dim=-1)

    return compared(task, moved(task.test), moved(task.asked))
