"""Checkpoints of an unfinished run: safetensors and JSON in one folder each, which has its name only when it is whole.

    checkpoints/step-00000120-epoch-0003/
        weights.safetensors  optimizer.safetensors  random.safetensors  progress.json

A folder is filled under another name, flushed to the disk and renamed: a process that is killed at any moment leaves
the former checkpoints and perhaps an unfinished folder, which the next one removes.
"""

import json
import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..dkd_head import DKDHead
from ..domain_file import give_usual_mode
from ..embedding.tensor_files import flush
from ..fitted_buffers import BUFFER_AXES
from .parameters import MovingAverage
from .sharding import share_like, whole
from .zero import follow_weights, is_zero, own_part


logger = logging.getLogger(__name__)

KEPT = 2
UNFINISHED = ".unfinished-"


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        epoch: The epoch that is going on, from 0.
        batch: Forward passes of it that are done.
        step: Optimizer steps done in all.
        history: What was measured after each epoch.
        best_epoch: Epoch of the best top-1 so far; -1 before the first.
        best_top1: As a fraction.
        num_processes: That share the run.
        config: All options, against which a resumed run is checked.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = -1
    best_top1: float = -1.0
    num_processes: int = 1
    config: dict[str, Any] = field(default_factory=dict)


class Checkpoints:
    """Everything that a run has to remember, and the folder in which it is kept.

    Args:
        folder: Of all checkpoints of the run.
        accelerator: Every process calls `save` and `resume` alike; the main one writes.
        parameters: The trained parameters by name.
        head: Its fitted buffers belong to the state.
        optimizer: As `accelerator.prepare` gave it; its groups carry `names`.
        average: The moving average.
    """

    def __init__(
        self,
        folder: Path,
        accelerator: Accelerator,
        parameters: Mapping[str, torch.nn.Parameter],
        head: DKDHead,
        optimizer: Any,
        average: MovingAverage,
    ) -> None:
        self.folder = folder
        self.accelerator = accelerator
        self.parameters = dict(parameters)
        self.head = head
        self.optimizer = optimizer
        self.average = average

    def save(self, progress: Progress) -> bool:
        """Write a checkpoint and remove all but the newest two; False, with a warning, where the disk refuses."""
        states = gather_object([_random_state(self.accelerator)])
        weights, optimizer = self._on_main(self._weights()), self._on_main(self._optimizer_state())
        saved = True
        if self.accelerator.is_main_process:
            named = {f"{rank}.{name}": value for rank, state in enumerate(states) for name, value in state.items()}
            saved = self._write(progress, {"weights": weights, "optimizer": optimizer, "random": named})
        self.accelerator.wait_for_everyone()
        return saved

    def _on_main(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The whole of these tensors on the CPU in the main process, nothing in the others."""
        kept = {}
        for name, tensor in tensors.items():
            gathered = whole(tensor.detach())
            if self.accelerator.is_main_process:
                kept[name] = gathered.cpu().contiguous()
        return kept

    def _write(self, progress: Progress, files: Mapping[str, dict[str, Tensor]]) -> bool:
        final = self.folder / f"step-{progress.step:08d}-epoch-{progress.epoch:04d}"
        unfinished = self.folder / f"{UNFINISHED}{final.name}"
        try:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            for name, tensors in files.items():
                save_file(tensors, unfinished / f"{name}.safetensors")
                give_usual_mode(unfinished / f"{name}.safetensors")
            written = asdict(progress) | {"scaler": self.accelerator.scaler and self.accelerator.scaler.state_dict()}
            (unfinished / "progress.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
            for path in (*unfinished.iterdir(), unfinished):
                flush(path)
            if final.exists():  # the same state, or one that could not be read
                shutil.rmtree(final)
            os.replace(unfinished, final)
            flush(self.folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            logger.warning("no checkpoint written at step %d (%s); the former ones are kept", progress.step, error)
            return False
        for old in _complete(self.folder)[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
        return True

    def resume(self, config: dict[str, Any]) -> Progress | None:
        """Go back to the newest checkpoint that can be read; None where there is none.

        Raises:
            ValueError: It belongs to other options or to another number of processes.
        """
        for folder in _complete(self.folder):
            try:
                progress, scaler = _read_progress(folder / "progress.json")
                files = {
                    name: load_file(folder / f"{name}.safetensors") for name in ("weights", "optimizer", "random")
                }
            except (OSError, ValueError, SafetensorError) as error:
                logger.warning("checkpoint %s cannot be read (%s); trying an older one", folder, error)
                continue
            _check_same(progress, config, self.accelerator.num_processes)
            self._restore(files["weights"], files["optimizer"])
            _set_random_state(files["random"], self.accelerator)
            if scaler and self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(scaler)
            return progress
        return None

    def remove(self) -> None:
        """Delete all checkpoints: the run is finished."""
        if self.accelerator.is_main_process:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _weights(self) -> dict[str, Tensor]:
        trained: dict[str, Tensor] = {f"trained.{name}": p for name, p in self.parameters.items()}
        fitted = {f"head.{name}": self.head.get_buffer(name) for name in BUFFER_AXES}
        averaged = {f"average.{name}": tensor for name, tensor in self.average.average.items()}
        return trained | fitted | averaged

    def _optimizer_state(self) -> dict[str, Tensor]:
        """AdamW's tensors as "<parameter>|<what>"; with ZeRO as "<number of the group>|<what>", flat."""
        named = {
            f"{name}|{what}": torch.as_tensor(value)
            for name, state in self._states().items()
            for what, value in state.items()
        }
        if not is_zero(self.optimizer):
            return named
        return {name: self.accelerator.gather(value) if value.dim() else value for name, value in named.items()}

    def _states(self) -> dict[str, dict[str, Any]]:
        """The optimizer's state of each parameter by its name, or of each group by its number."""
        groups = self.optimizer.param_groups
        if is_zero(self.optimizer):
            return {str(i): self.optimizer.state[group["params"][0]] for i, group in enumerate(groups)}
        pairs = [pair for group in groups for pair in zip(group["names"], group["params"], strict=True)]
        return {name: self.optimizer.state[parameter] for name, parameter in pairs}

    @torch.no_grad()
    def _restore(self, weights: dict[str, Tensor], optimizer: dict[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(share_like(weights[f"trained.{name}"], parameter))
        for name, average in self.average.average.items():
            average.copy_(share_like(weights[f"average.{name}"], average))
        for name in BUFFER_AXES:
            tensor = weights[f"head.{name}"]
            self.head.register_buffer(name, tensor.to(self.head.logit_bias.device))
        self.head.write_config()
        states = self._states()
        for key, tensor in optimizer.items():
            name, what = key.rsplit("|", 1)
            if what == "step":  # AdamW keeps its step counts on the CPU, everything else beside the parameter
                states[name][what] = tensor
            elif is_zero(self.optimizer):
                states[name][what] = own_part(tensor, self.accelerator)
            else:
                states[name][what] = share_like(tensor, self.parameters[name])
        follow_weights(self.optimizer)


def _complete(folder: Path) -> list[Path]:
    """Complete checkpoints, the newest first."""
    return sorted(folder.glob("step-*"), reverse=True)


def check_resumable(folder: Path, config: dict[str, Any], num_processes: int) -> None:
    """Refuse what `Checkpoints.resume` would refuse, by how far the run was, without its weights.

    Args:
        folder: Of the checkpoints; there may be none.
        config: Options of the run that is to go on.
        num_processes: How many it is to have.

    Raises:
        ValueError: The newest checkpoint belongs to other options or to another number of processes.
    """
    for checkpoint in _complete(folder):
        with suppress(OSError, ValueError):
            progress, _ = _read_progress(checkpoint / "progress.json")
            break
    else:
        return
    _check_same(progress, config, num_processes)


def _read_progress(path: Path) -> tuple[Progress, dict[str, Any] | None]:
    """How far the run was, and the state of the gradient scaler.

    Raises:
        ValueError: The file holds something else.
        OSError: There is none.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        scaler = stored.pop("scaler")
        progress = Progress(**stored)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path.name} does not say how far the run was: {error}") from error
    for name, usual in asdict(Progress()).items():
        if type(getattr(progress, name)) is not type(usual):
            raise ValueError(f"{path.name}: {name} is {getattr(progress, name)!r}")
    if not isinstance(scaler, dict | None):
        raise ValueError(f"{path.name}: scaler is {scaler!r}")
    return progress, scaler


def _check_same(progress: Progress, config: dict[str, Any], num_processes: int) -> None:
    """Refuse to go on under options that would make another run of it."""
    if progress.num_processes != num_processes:
        raise ValueError(
            f"the run was started with {progress.num_processes} processes and cannot go on with {num_processes}; "
            "resume it as it was started"
        )
    free = {"run.checkpoint_minutes", "run.trackers", "data.num_workers", "data.data_dir", "data.annotations"}
    old, new = _flat(progress.config), _flat(config)
    for name in sorted(old.keys() | new.keys()):
        if name not in free and old.get(name) != new.get(name):
            raise ValueError(
                f"the run was started with {name}={str(old.get(name))[:200]} and cannot go on with {new.get(name)!r}; "
                "leave it as it was, or start anew with another run.output_dir"
            )


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options as "section.option"."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _random_state(accelerator: Accelerator) -> dict[str, Tensor]:
    """State of torch's generators of this process."""
    state = {"cpu": torch.get_rng_state()}
    if accelerator.device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(accelerator.device)
    return state


def _set_random_state(states: dict[str, Tensor], accelerator: Accelerator) -> None:
    rank = accelerator.process_index
    torch.set_rng_state(states[f"{rank}.cpu"])
    if f"{rank}.cuda" in states and accelerator.device.type == "cuda":
        torch.cuda.set_rng_state(states[f"{rank}.cuda"], accelerator.device)
