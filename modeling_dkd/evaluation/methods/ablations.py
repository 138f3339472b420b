"""DKD with parts taken away: rows `dkd/<name>`.

An ablation is a dict of `DKDCLIPConfig` options, or a function of the task that returns what a head does.
"""

from functools import partial
from typing import Any

from ...dkd_head import DKDHeadOutput
from ..protocols import Method, Task, compared, pool
from .dkd import dkd, unfitted_head


def video_only(task: Task) -> DKDHeadOutput:
    """The videos as DKD moves them against the plain texts."""
    moved = dkd(task).video_embeds
    assert moved is not None
    return compared(task, moved, pool(task.asked))


def text_only(task: Task) -> DKDHeadOutput:
    """The plain videos against the texts as DKD moves them."""
    moved = dkd(task).text_embeds
    assert moved is not None
    return compared(task, pool(task.test), moved)


def unanchored(task: Task) -> DKDHeadOutput:
    """The mixture fitted without the class texts, as many components as classes or, where these are fewer, clips."""
    head = unfitted_head(task).fit(task.domain, num_components=min(len(task.text), len(task.domain)))
    return head(task.test, task.asked)


def averaged_first(task: Task) -> DKDHeadOutput:
    """Frames and prompts averaged before the head sees them, instead of one particle each."""
    return dkd(task.pooled())


ABLATIONS: dict[str, dict[str, Any] | Method] = {
    "video_only": video_only,
    "text_only": text_only,
    "unanchored": unanchored,
    "averaged_first": averaged_first,
    "kernel_none": {"svgd_kernel": "none"},
    "kernel_imq": {"svgd_kernel": "imq"},
    "three_steps": {"num_svgd_steps": 3},
    "full_video_step": {"video_strength": 1.0},
}
# These change how the frames of a clip and the prompts of a class act on each other: nothing where there is one each.
ON_PARTS = ("averaged_first", "kernel_none", "kernel_imq")


def ablation(name: str) -> Method:
    """The method behind a name of `ABLATIONS`."""
    chosen = ABLATIONS[name]
    return partial(dkd, **chosen) if isinstance(chosen, dict) else chosen
