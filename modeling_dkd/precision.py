"""Arithmetic in full precision, and tensors that hold no values: on the meta device, fake, or in a graph."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch._subclasses import FakeTensor


def full_precision(tensor: Tensor) -> AbstractContextManager:
    """Autocast off on the device of this tensor; "meta" has none."""
    return nullcontext() if tensor.is_meta else torch.autocast(tensor.device.type, enabled=False)


def has_values(tensor: Tensor) -> bool:
    """Whether Python may look at the values: a run of shapes alone has none, and to read them breaks a graph."""
    return not torch.compiler.is_compiling() and not tensor.is_meta and not isinstance(tensor, FakeTensor)
