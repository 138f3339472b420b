"""Which parameters train, and with which learning rate and weight decay.

What belongs to the video and what to the text encoder is found by a gradient, and the blocks by being the longest list
of modules, so that nothing here knows the names in any particular backbone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..modeling_dkd import DKDCLIPModel
from .config import RecipeOptions
from .sharding import whole


# Parts of parameter names that stand before the blocks, and whose values are looked up rather than multiplied.
EMBEDDING_NAMES = ("embed", "pre_l")


@dataclass(frozen=True)
class Tower:
    """One encoder.

    Attributes:
        names: Its parameters, by their names in the backbone.
        blocks: Path of the list of its blocks in the backbone.
        num_blocks: Their number.
    """

    names: frozenset[str]
    blocks: str
    num_blocks: int

    def depth(self, name: str) -> int:
        """0 for what stands before the blocks, 1 to num_blocks in them, num_blocks + 1 behind them."""
        if name.startswith(f"{self.blocks}."):
            return 1 + int(name.removeprefix(f"{self.blocks}.").split(".")[0])
        return 0 if any(part in name for part in EMBEDDING_NAMES) else self.num_blocks + 1


def find_tower(backbone: nn.Module, embed: Callable[[], Tensor]) -> Tower:
    """The encoder that `embed` runs through.

    Args:
        backbone: The dual encoder, all of whose encoder parameters ask for gradients.
        embed: Gives some embeddings of it.

    Raises:
        ValueError: There is no list of blocks in it.
    """
    named = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(embed().float().sum(), list(named.values()), allow_unused=True)
    names = frozenset(name for name, g in zip(named, gradients, strict=True) if g is not None)
    lists = {
        path: module
        for path, module in backbone.named_modules()
        if isinstance(module, nn.ModuleList) and any(name.startswith(f"{path}.") for name in names)
    }
    if not lists:
        raise ValueError(
            f"{type(backbone).__name__} has no list of blocks, so it is not known how its parameters follow each "
            "other; use a backbone of transformer blocks"
        )
    blocks = max(lists, key=lambda path: sum(p.numel() for p in lists[path].parameters()))
    return Tower(names, blocks, len(lists[blocks]))


def choose_trainable(model: DKDCLIPModel, video: Tower, text: Tower | None, options: RecipeOptions) -> None:
    """Let gradients flow into what the recipe trains and into nothing else.

    Args:
        model: Changed in place; with "lora" its linear layers are wrapped by peft.
        video: The video encoder.
        text: The text encoder where it is trained, else None.
        options: The recipe.

    Raises:
        ValueError: "lora" without peft, or more blocks than there are.
    """
    if options.trainable == "last_blocks" and options.num_blocks > video.num_blocks:
        raise ValueError(
            f"recipe.num_blocks is {options.num_blocks}, but the video encoder has {video.num_blocks} blocks"
        )
    first = {
        "all": 0,
        "last_blocks": video.num_blocks + 1 - options.num_blocks,
        "head": video.num_blocks + 1,
        "lora": video.num_blocks + 2,
    }[options.trainable]
    for name, parameter in model.backbone.named_parameters():
        in_video = name in video.names and video.depth(name) >= first
        parameter.requires_grad_(in_video or (text is not None and name in text.names))
    if options.trainable == "lora":
        _add_adapters(model.backbone, video, options.lora_rank)
    model.head.log_logit_scale.requires_grad_(True)


def optimizer_groups(
    model: DKDCLIPModel, video: Tower, text: Tower | None, options: RecipeOptions
) -> list[dict[str, Any]]:
    """AdamW's parameter groups: one for each pair of learning rate and weight decay, `names` beside `params`.

    `peak_lr` is learning_rate * layer_decay ** (blocks between the parameter and the output).
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        own = name.removeprefix("backbone.")
        tower = text if text is not None and own in text.names else video
        above = tower.num_blocks + 1 - tower.depth(own) if name.startswith("backbone.") else 0
        rate = options.learning_rate * options.layer_decay**above
        undecayed = parameter.dim() < 2 or any(part in name for part in EMBEDDING_NAMES)
        decay = 0.0 if undecayed else options.weight_decay
        group = groups.setdefault(
            (rate, decay), {"params": [], "names": [], "lr": rate, "peak_lr": rate, "weight_decay": decay}
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def require_peft() -> None:
    """Refuse adapters where what makes them cannot be imported.

    Raises:
        ValueError: The message says what to install.
    """
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise ValueError("recipe.trainable=lora needs peft: pip install peft") from error


def _add_adapters(backbone: nn.Module, video: Tower, rank: int) -> None:
    """Put LoRA adapters on every linear layer of the video encoder's blocks."""
    require_peft()
    from peft import LoraConfig, inject_adapter_in_model

    blocks = backbone.get_submodule(video.blocks)
    targets = [f"{video.blocks}.{path}" for path, m in blocks.named_modules() if isinstance(m, nn.Linear)]
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets), backbone)


def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """All weights under the names they have without adapters, adapters added to the layers they belong to.

    Where the weights are shared out, every process must ask for them, and gets them whole.
    """
    state = {name: whole(tensor.detach()).clone() for name, tensor in model.state_dict().items()}
    for path, module in model.named_modules():
        if hasattr(module, "get_delta_weight") and hasattr(module, "base_layer"):
            state[f"{path}.base_layer.weight"] += whole(module.get_delta_weight("default").detach())
    return {name.replace(".base_layer.", "."): tensor for name, tensor in state.items() if ".lora_" not in name}


class MovingAverage:
    """Exponential moving average of the trained parameters; with decay 0 it keeps nothing and is the weights.

    The averaging is torch's; its AveragedModel copies a whole model, of which only part is trained and may be sharded.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.parameters = dict(parameters)
        self._move = get_ema_multi_avg_fn(decay)
        self.average = {name: p.detach().clone() for name, p in parameters.items()} if decay else {}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average toward the parameters by 1 - decay of the way."""
        if self.average:
            weights: list[Tensor] = [self.parameters[name] for name in self.average]
            self._move(list(self.average.values()), weights, None)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the average and the parameters; a second call undoes the first."""
        for name, average in self.average.items():
            kept = average.clone()
            average.copy_(self.parameters[name])
            self.parameters[name].copy_(kept)
