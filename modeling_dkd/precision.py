"""Arithmetic in full precision, and tensors that hold no values: on the meta device, fake, or in a graph."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.nn.functional import threshold


Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
# Kinds of devices that hold no float64: Apple's GPUs.
WITHOUT_FLOAT64 = ("mps",)
# Products of what is smaller with coordinates may leave float32's normal range, which ends at 1e-38.
LEAST_PROBABILITY = 1e-30


def full_precision(tensor: Tensor) -> AbstractContextManager:
    """Autocast off on the device of this tensor; "meta" has none."""
    return nullcontext() if tensor.is_meta else torch.autocast(tensor.device.type, enabled=False)


def has_values(tensor: Tensor) -> bool:
    """Whether Python may look at the values: a run of shapes alone has none, and to read them breaks a graph."""
    return not torch.compiler.is_compiling() and not tensor.is_meta and not isinstance(tensor, FakeTensor)


def posterior_of(logits: Tensor) -> Tensor:
    """Softmax over the last axis, with 0 for the least probabilities.

    Where a posterior is sharp nearly all of it are subnormal numbers, with which products take thirty times as long on
    some processors.
    """
    return threshold(logits.softmax(-1), LEAST_PROBABILITY, 0.0)


def widest_float(device: torch.device) -> torch.dtype:
    """float64, or float32 on a device that has none."""
    return torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64


def where_float64_is(
    method: Callable[Concatenate[Any, Arguments], Result],
) -> Callable[Concatenate[Any, Arguments], Result]:
    """The method of a head, which is on the CPU meanwhile where its device has no float64: sums then lose nothing."""

    @wraps(method)
    def method_on_the_cpu(head: Any, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        device = head.logit_bias.device
        if device.type not in WITHOUT_FLOAT64:
            return method(head, *args, **kwargs)
        head.to("cpu")
        try:
            return method(head, *args, **kwargs)
        finally:
            head.to(device)

    return method_on_the_cpu
