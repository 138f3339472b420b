"""Lets a torchvision that was built for another torch be imported: its transforms need none of its operators."""

from importlib.util import find_spec

import torch


LIBRARIES = []  # a library takes its operators along when it is collected


def declare_missing_operators() -> None:
    """Declare the operators whose absence stops the import, if torchvision is installed and its own do not load."""
    if find_spec("torchvision") is None:
        return
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        LIBRARIES.append(torch.library.Library("torchvision", "DEF"))
        for name in ("nms", "qnms"):
            LIBRARIES[-1].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
