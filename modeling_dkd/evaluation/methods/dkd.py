"""DKD as a method beside its peers: a head fitted on the domain clips of a task, then run on its test clips."""

from typing import Any

from ...configuration_dkd import DKDCLIPConfig
from ...dkd_head import DKDHead, DKDHeadOutput
from ...mixture_options import MixtureOptions
from ..protocols import Task


def dkd(task: Task, **options: Any) -> DKDHeadOutput:
    """What a head fitted on the domain returns for the test clips, options as in `unfitted_head`."""
    return fitted_head(task, **options)(task.test, task.asked)


def fitted_head(task: Task, **options: Any) -> DKDHead:
    """A head fitted on the domain of a task, options as in `unfitted_head`."""
    return unfitted_head(task, **options).fit(
        task.domain, task.text, labels=task.domain_labels, class_names=task.class_names
    )


def unfitted_head(task: Task, mixture_options: MixtureOptions | None = None, **options: Any) -> DKDHead:
    """A head for the embeddings of a task, options as in `DKDCLIPConfig`, and the constants of its mixture."""
    config = DKDCLIPConfig(projection_dim=task.text.shape[-1], logit_scale=task.logit_scale, **options)
    return DKDHead(config, mixture_options).eval()
