"""A device that is not there, so that a machine with a CPU alone sees what an accelerator would refuse.

Values stay on the CPU, but tensors say that they are on a GPU, and refuse what it refuses: to meet tensors of the CPU
that have axes, to be read as numpy and, as Apple's GPU does, to hold float64.
"""

from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


DEVICE = torch.device("cuda")
# What PyTorch takes them for below Python: a device that every build knows.
BENEATH = torch.device("meta")
# What takes tensors of two devices on every accelerator: copies, and positions on the CPU.
CROSSING = {
    torch.ops.aten._to_copy.default,
    torch.ops.aten.copy_.default,
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put_.default,
    torch.ops.aten._index_put_impl_.default,
}


PROPERTIES = {
    torch.Tensor.device.__get__: DEVICE,
    torch.Tensor.is_cuda.__get__: True,
    torch.Tensor.is_meta.__get__: False,
}


class Elsewhere(torch.Tensor):
    """A tensor on the device, around its values on the CPU."""

    @staticmethod
    def __new__(cls, values):
        return torch.Tensor._make_wrapper_subclass(
            cls, values.shape, strides=values.stride(), dtype=values.dtype, device=BENEATH
        )

    def __init__(self, values):
        self.values = values

    def __repr__(self):
        return f"Elsewhere({self.values!r})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} on the device after the test")


class _Kernels(TorchDispatchMode):
    """Every operator: computed on the values, once it is sure that all are on one device."""

    def __init__(self, has_float64):
        super().__init__()
        self.has_float64 = has_float64

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = list(_tensors((args, tuple(kwargs.values()))))
        there = [tensor for tensor in tensors if isinstance(tensor, Elsewhere)]
        here = [tensor for tensor in tensors if not isinstance(tensor, Elsewhere) and tensor.dim()]
        if there and here and func not in CROSSING:
            raise RuntimeError(f"{func} was given tensors of {DEVICE} and of the CPU")
        wanted = kwargs.get("device")
        is_there = bool(there) if wanted is None else torch.device(wanted).type in (DEVICE.type, BENEATH.type)
        args_here, kwargs_here = _on_cpu(args), {name: _on_cpu(value) for name, value in kwargs.items()}
        if wanted is not None:
            kwargs_here["device"] = torch.device("cpu")
        found = func(*args_here, **kwargs_here)
        if func._schema.name.endswith("_"):
            return args[0]
        return self.wrapped(found) if is_there else found

    def wrapped(self, values):
        if isinstance(values, list | tuple):
            return type(values)(self.wrapped(value) for value in values)
        if not isinstance(values, torch.Tensor):
            return values
        if not self.has_float64 and values.dtype == torch.float64:
            raise TypeError("this device has no float64")
        return Elsewhere(values)


def _tensors(values):
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _on_cpu(value):
    if isinstance(value, Elsewhere):
        return value.values
    return type(value)(map(_on_cpu, value)) if type(value) in (list, tuple) else value


class _Calls(TorchFunctionMode):
    """Calls that would look for the device before any operator runs."""

    def __init__(self, kernels):
        super().__init__()
        self.kernels = kernels

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or "cpu").type != "cpu":
            kwargs.pop("device")
            return self.kernels.wrapped(func(*args, **kwargs))
        if args and isinstance(args[0], Elsewhere) and func in PROPERTIES:
            return PROPERTIES[func]
        if getattr(func, "__name__", "") in ("matmul", "__matmul__") and args[0].dim() == 1 and args[1].dim() > 1:
            # PyTorch squeezes the result in place, which a wrapper cannot follow.
            return (args[0][None] @ args[1])[..., 0, :]
        if func is torch.Tensor.new_tensor and isinstance(args[0], Elsewhere):
            return self.kernels.wrapped(torch.tensor(args[1], dtype=args[0].dtype))
        if func is torch.Tensor.tolist and isinstance(args[0], Elsewhere):
            return args[0].values.tolist()
        if func is torch.Tensor.to:
            return self.to(*args, **kwargs)
        if func in (torch.Tensor.numpy, torch.Tensor.__array__) and isinstance(args[0], Elsewhere):
            raise TypeError(f"{DEVICE} tensors are no numpy arrays")
        return func(*args, **kwargs)

    def to(self, tensor, *args, copy=False, **kwargs):
        asked = [*args, *kwargs.values()]
        like = [value for value in asked if isinstance(value, torch.Tensor)]
        dtypes = [value for value in asked if isinstance(value, torch.dtype)] + [value.dtype for value in like]
        places = [torch.device(value) for value in asked if isinstance(value, str | torch.device)]
        device = ([value.device for value in like] + places or [tensor.device])[0]
        dtype = dtypes[0] if dtypes else tensor.dtype
        if device.type == tensor.device.type and dtype == tensor.dtype and not copy:
            return tensor
        return torch.ops.aten._to_copy.default(tensor, dtype=dtype, device=device)


@contextmanager
def stand_in(has_float64=True):
    """Within it tensors can be on `DEVICE`."""
    kernels = _Kernels(has_float64)
    # Modules get new parameters when they move, instead of other values in the old ones.
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with patch("torch.cuda._lazy_init"), _Calls(kernels), kernels:
            yield DEVICE
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwrites)
