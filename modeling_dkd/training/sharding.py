"""FSDP2: each process keeps its share of every trained weight, of its gradient and of AdamW's state.

`accelerate launch` says that it is wanted; the sharding itself is torch's `fully_shard`, which runs on a CPU as well
as on GPUs. Frozen weights and numbers such as the logit scale stay whole in each process.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(recognizer: nn.Module, blocks: Iterable[nn.Module], accelerator: Accelerator) -> None:
    """Share out the trained weights of a `Recognizer` in place: each block by itself, what is left together.

    As accelerate's FSDP_RESHARD_AFTER_FORWARD says, gathered weights are let go after the forward pass or, "false",
    kept until the backward pass is over, as ZeRO-2 does.
    """
    for parameter in recognizer.parameters():  # fully_shard takes no other layout
        parameter.data = parameter.data.contiguous()
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    kept = {p for p in recognizer.parameters() if p.dim() == 0 or not p.requires_grad}
    for module in (*blocks, recognizer):
        fully_shard(module, mesh=mesh, ignored_params=kept, reshard_after_forward=_lets_go())
    register_fsdp_forward_method(recognizer, "embed")

    def average_gradient(parameter: Tensor) -> None:
        """Also right when gradients add up over passes: what was averaged before stays what it is."""
        parameter.grad = accelerator.reduce(parameter.grad, "mean")

    for parameter in kept:
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(average_gradient)


@contextmanager
def gathered(recognizer: nn.Module) -> Iterator[None]:
    """Every process has all weights whole in here, and needs no other process to embed with them."""
    parts = [module for module in recognizer.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()
            part.set_reshard_after_forward(_lets_go(), recurse=False)


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor, gathered from all processes where it is shared out; all of them must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def share_like(values: Tensor, pattern: Tensor) -> Tensor:
    """Whole values on the device of another tensor, shared out as it is."""
    values = values.to(pattern.device)
    if isinstance(pattern, DTensor):
        return distribute_tensor(values, pattern.device_mesh, pattern.placements)
    return values


def _lets_go() -> bool:
    return os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() != "false"
