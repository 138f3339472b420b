"""The processes of a run: that as many run as were asked for, and that they stop when they are told to."""

import gc
import logging
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import FrameType

import psutil
import torch
from accelerate import Accelerator, DistributedType, InitProcessGroupKwargs
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import DeepSpeedPlugin, DynamoBackend, TorchDynamoPlugin, gather_object
from filelock import FileLock, Timeout

from .config import TrainingConfig
from .zero import zero_plugin


logger = logging.getLogger(__name__)

SUPPORTED = (
    DistributedType.NO,
    DistributedType.MULTI_CPU,
    DistributedType.MULTI_GPU,
    DistributedType.DEEPSPEED,
)
LAUNCH_ON_CPU = (
    "ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes {} --num_machines 1 train.py ..."
)


class Stopped(Exception):
    """The run was told to stop and has done so; `signal_number` says by what."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.signal_number = signal_number


def start_processes(config: TrainingConfig) -> Accelerator:
    """The accelerator of this process, once it is certain that as many processes run as were asked for.

    Raises:
        ValueError: Fewer run than were asked for, they run in a way that is not supported, or a tracker is unknown.
    """
    zero = check_launch(config)
    asked, on_cpu = asked_processes(), not torch.accelerator.is_available()
    # One process may wait long for another that writes or measures.
    group = InitProcessGroupKwargs(timeout=timedelta(hours=6))
    if zero and on_cpu:
        # Where accelerate is told of a CPU, it passes over DeepSpeed in silence.
        os.environ.pop("ACCELERATE_USE_CPU", None)
        group.backend = "gloo"
    accelerator = Accelerator(
        cpu=on_cpu and zero is None,
        deepspeed_plugin=zero,
        mixed_precision="no" if zero else config.recipe.mixed_precision,
        gradient_accumulation_steps=config.recipe.accumulation_steps,
        log_with=list(config.run.trackers) or None,
        project_dir=config.run.output_dir,
        kwargs_handlers=[group],
    )
    if accelerator.num_processes != asked:
        raise ValueError(
            f"{asked} processes were asked for, but {accelerator.num_processes} would train; "
            f"on a CPU start them with: {LAUNCH_ON_CPU.format(asked)}"
        )
    if accelerator.distributed_type not in SUPPORTED:
        raise ValueError(
            f"training runs on one process or with data parallelism, not with {accelerator.distributed_type.value}; "
            "choose multi-GPU in accelerate config, as hub_configs/accelerate/multi_gpu.yaml does"
        )
    return accelerator


def check_launch(config: TrainingConfig) -> DeepSpeedPlugin | None:
    """Refuse what this machine or the way of launching does not allow; gives what DeepSpeed is built from, if asked.

    Raises:
        ValueError: A tracker or a compiler is not there, or options do not go together.
    """
    check_trackers(config.run.trackers)
    on_cpu = not torch.accelerator.is_available()
    if config.recipe.mixed_precision == "fp16" and on_cpu:
        # accelerate would train in float32 without a word
        raise ValueError("recipe.mixed_precision=fp16 needs a GPU; on a CPU set it to bf16 or no")
    zero = zero_plugin(config) if _is_set("ACCELERATE_USE_DEEPSPEED") else None
    backend = compiler_backend()
    if zero and backend != DynamoBackend.NO:
        raise ValueError("DeepSpeed runs without --dynamo_backend; launch it without")
    if on_cpu and backend == DynamoBackend.INDUCTOR and not has_cpp_compiler():
        raise ValueError(
            "--dynamo_backend inductor needs a C++ compiler for a CPU, and there is none: install g++, "
            "or launch without the option"
        )
    return zero


def asked_processes() -> int:
    """How many processes were asked for, of whoever launches them."""
    return max(int(os.environ.get("WORLD_SIZE", "1")), processes_asked_of_launcher(_parent_command()))


def end_processes() -> None:
    """Leave the process group; call it when nothing of the run is left, neither its model nor an exception out of it.

    Whoever refers to the group last closes it, and closing waits for its threads. DistributedDataParallel would do so
    while it holds Python's global lock, for which one of these threads may be waiting in turn, to give back a tensor:
    neither would end. Closed from here, as the last, the lock is free.
    """
    gc.collect()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def processes_asked_of_launcher(command: list[str]) -> int:
    """How many processes `accelerate launch` was told to start, by its command line; 1 where it does not say.

    With --cpu it starts one process whatever the number, and nothing else tells the number to that process.
    """
    options = launcher_options(command) or []
    for option, following in zip(options, [*options[1:], ""], strict=False):
        found = re.fullmatch(r"--num[_-]processes(?:=(\d+))?", option)
        if found:
            number = found[1] or following
            return int(number) if number.isdigit() else 1
    return 1


def launcher_options(command: list[str]) -> list[str] | None:
    """What follows `accelerate launch` on a command line; None where it is another command."""
    for i, part in enumerate(command):
        if part == "launch" and i and Path(command[i - 1]).name.startswith("accelerate"):
            return command[i + 1 :]
        if part == "accelerate.commands.launch" or part.endswith(
            ("accelerate-launch", "accelerate/commands/launch.py")
        ):
            return command[i + 1 :]
    return None


def take_sharding_request(config: TrainingConfig) -> bool:
    """Whether `accelerate launch` was told to share out the weights (FSDP2); it is not asked again.

    Accelerate itself must not see the wish: on a CPU it would pass over it in silence, and on GPUs it would share out
    numbers such as the logit scale, which cannot be. A wish for DeepSpeed stays, but where one process is alone.

    Raises:
        ValueError: They are to be shared out in a way that is not supported, or together with an option that is not.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)
    if not _is_set("ACCELERATE_USE_FSDP"):
        return False
    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise ValueError(
            f"training does not run with version {version} of FSDP; launch it with "
            "hub_configs/accelerate/fsdp2.yaml, which asks for version 2"
        )
    if _is_set("FSDP_OFFLOAD_PARAMS"):
        raise ValueError("training keeps its weights on the GPUs; leave out fsdp_offload_params")
    if config.recipe.mixed_precision == "fp16" or compiler_backend() != DynamoBackend.NO:
        raise ValueError("FSDP runs with recipe.mixed_precision=bf16 or no and without --dynamo_backend; change these")
    del os.environ["ACCELERATE_USE_FSDP"]
    return True


def compiler_backend() -> DynamoBackend:
    """What compiles the forward pass, as `accelerate launch --dynamo_backend` says; DynamoBackend.NO for nothing."""
    return TorchDynamoPlugin().backend


def has_cpp_compiler() -> bool:
    """Whether there is the C++ compiler that inductor needs for a CPU: what CXX names, or the usual one."""
    usual = "clang++" if sys.platform == "darwin" else "g++"
    return shutil.which(os.environ.get("CXX", usual)) is not None


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in ("1", "true", "yes")


def check_trackers(names: tuple[str, ...]) -> None:
    """Refuse a tracker that accelerate would pass over in silence."""
    known = sorted(LOGGER_TYPE_TO_CLASS)
    available = [str(getattr(tracker, "value", tracker)) for tracker in get_available_trackers()]
    for name in names:
        if name not in known:
            raise ValueError(f"run.trackers names {name!r}; known are {', '.join(known)}")
        if name not in available:
            raise ValueError(f"the tracker {name!r} is not installed: pip install {name}")


def require_free_output(folder: Path, resume: bool) -> None:
    """Refuse to begin anew where a run has been.

    Raises:
        ValueError: The folder holds an unfinished run that is not to be resumed, or a finished one.
    """
    unfinished = (folder / "checkpoints").is_dir()
    if unfinished and not resume:
        raise ValueError(
            f"{folder} holds an unfinished run; go on with it with --resume, or give another run.output_dir"
        )
    if not unfinished and (folder / "results.json").exists():
        raise ValueError(f"{folder} holds a finished run; give another run.output_dir")


@contextmanager
def only_run_in(folder: Path, accelerator: Accelerator) -> Iterator[None]:
    """Keep other runs out of an output folder; whatever ends this one, the system then lets the next one in.

    Raises:
        ValueError: Another run is in it (in every process alike).
        OSError: The folder cannot be written to.
    """
    # Publishing leaves .cache/ out.
    lock = FileLock(folder / ".cache" / "run.lock")
    taken = False
    if accelerator.is_main_process:
        (folder / ".cache").mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            taken = True
        except NotImplementedError:
            logger.warning("the file system of %s has no locks: see that no other run writes to it", folder)
    if any(gather_object([taken])):
        raise ValueError(f"another run is going on in {folder}; wait for its end or give another run.output_dir")
    try:
        yield
    finally:
        lock.release()


class StopRequest:
    """Remembers SIGTERM and SIGINT, and the end of a launcher that does not hand signals on, until they are asked for.

    Use it as a context: handlers are put back at its end. A second signal acts as it would without it.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self.launcher = None if launcher_options(_parent_command()) is None else os.getppid()
        self._former: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._former[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def __bool__(self) -> bool:
        if self.launcher is not None and os.getppid() != self.launcher and not self.signal_number:
            self.signal_number = signal.SIGTERM
        return self.signal_number != 0

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)  # type: ignore[arg-type] # what signal.signal gave back
        self._former = {}


def _parent_command() -> list[str]:
    """Command line of the parent process; empty where the system does not tell."""
    with suppress(psutil.Error):
        return psutil.Process(os.getppid()).cmdline()
    return []
