"""ZeRO by DeepSpeed: each process keeps its share of AdamW's state (stage 1) and of the gradients too (stage 2).

`accelerate launch` says that it is wanted. The engine clips, steps and clears the gradients within
`accelerator.backward`; weights stay whole in each process. Checkpoints are those of every other run, not DeepSpeed's,
which are pickles: AdamW's state is gathered for them, one flat tensor a parameter group.
"""

import os
from typing import Any

import torch
from accelerate import Accelerator, DeepSpeedPlugin
from accelerate.utils import is_deepspeed_available
from accelerate.utils.deepspeed import DeepSpeedOptimizerWrapper
from torch import Tensor, nn

from .config import TrainingConfig


LAUNCH_FILE = "hub_configs/accelerate/deepspeed_zero2.yaml"


def zero_plugin(config: TrainingConfig) -> DeepSpeedPlugin:
    """What accelerate builds the engine from: the stage as it was launched, everything else from the run's options.

    Raises:
        ValueError: DeepSpeed is not installed, or is to do what is not supported.
    """
    recipe = config.recipe
    stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    if not is_deepspeed_available():
        raise ValueError("DeepSpeed is not installed: pip install deepspeed")
    if stage not in ("1", "2"):
        raise ValueError(f"training runs with ZeRO stage 1 or 2, not {stage}; to share out weights as well, use FSDP2")
    for option in ("offload_optimizer_device", "offload_param_device", "config_file"):
        value = os.environ.get(f"ACCELERATE_DEEPSPEED_{option.upper()}", "none")
        if value != "none":
            raise ValueError(f"training takes no DeepSpeed option {option}={value}; launch it with {LAUNCH_FILE}")
    if recipe.mixed_precision == "fp16":
        raise ValueError("DeepSpeed runs with recipe.mixed_precision=bf16 or no; change it")
    plugin = DeepSpeedPlugin(
        gradient_accumulation_steps=recipe.accumulation_steps,
        gradient_clipping=recipe.max_grad_norm,
        zero_stage=int(stage),
    )
    plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = recipe.batch_size
    # As without the engine: weights stay float32, and gradients are summed in float32.
    plugin.deepspeed_config["torch_autocast"] = {
        "enabled": recipe.mixed_precision == "bf16",
        "dtype": "bfloat16",
        "lower_precision_safe_modules": [],
    }
    return plugin


def start_engine(
    recognizer: nn.Module, optimizer: torch.optim.Optimizer, accelerator: Accelerator
) -> tuple[nn.Module, Any]:
    """The engine around a `Recognizer`, and what stands for its optimizer."""
    # At the start the engine sends every weight as bytes, which a single number cannot be viewed as (0.19.8). Those
    # marked are left out; all processes have loaded the same weights anyway.
    numbers: list[Any] = [p for p in recognizer.parameters() if p.dim() == 0]
    for number in numbers:
        number.ds_optim_param = True
    wrapped, stepped = accelerator.prepare(recognizer, optimizer)
    for number in numbers:
        del number.ds_optim_param
    return wrapped, stepped


def is_zero(optimizer: Any) -> bool:
    """Whether an optimizer steps within DeepSpeed's engine."""
    return isinstance(optimizer, DeepSpeedOptimizerWrapper)


def follow_weights(optimizer: Any) -> None:
    """Tell the engine, which steps a copy of its share, that the weights were changed by others."""
    if is_zero(optimizer):
        optimizer.optimizer.refresh_fp32_params()


def own_part(values: Tensor, accelerator: Accelerator) -> Tensor:
    """This process's share of a flat tensor of all processes, on its device."""
    return values.chunk(accelerator.num_processes)[accelerator.process_index].to(accelerator.device).clone()
