"""The training step: train.py's loop beside a bare PyTorch loop of the same step and transformers.Trainer.

All three train the embedded checkpoint on synthetic clips with the same loss, AdamW, learning rates, clipping and
batch size. The clips are decoded once and held in memory, so that no decoding hides what a loop costs. On a CPU,
seconds are those of the process with one thread, which other work on the machine does not lengthen. Checkpoints are
left out, for their share depends on the length of an epoch; what one costs is told beside it.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from modeling_dkd.synthetic.clips import generate_clips
from modeling_dkd.training import loop
from modeling_dkd.training.checkpoints import Progress
from modeling_dkd.training.clips import TrainingClips
from modeling_dkd.training.config import load_config
from modeling_dkd.training.processes import StopRequest, start_processes

from .rows import REPOSITORY, Row, compare, digits


CLIPS = {"train": 128, "test": 32}
ROUNDS = 12
clock = time.perf_counter if torch.accelerator.is_available() else time.process_time


class HeldClips(TrainingClips):
    """Training clips that are decoded once."""

    def __init__(self, clips: TrainingClips) -> None:
        self.records = clips.records
        self.samples = [clips[(0, i)] for i in tqdm(range(len(clips)), desc="decoding", unit="clip", leave=False)]

    def __getitem__(self, key: tuple[int, int]) -> Any:
        return self.samples[key[1]]


class Samples(Dataset):
    """The same clips as a user's data set gives them."""

    def __init__(self, clips: HeldClips) -> None:
        self.samples = clips.samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> dict[str, Any]:
        frames, record = self.samples[position]
        return {"pixel_values": frames, "labels": record.label}


class Loss(nn.Module):
    """The loss that the loop takes, as a module that Trainer can train."""

    def __init__(self, run: loop.Run) -> None:
        super().__init__()
        self.recognizer = run.recognizer
        self.smoothing, self.weight = run.config.recipe.label_smoothing, run.config.domain.loss_weight

    def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Clips and labels to the mean loss."""
        plain, moved = (
            cross_entropy(logits, labels, label_smoothing=self.smoothing) for logits in self.recognizer(pixel_values)
        )
        return {"loss": torch.lerp(plain, moved, self.weight)}


def new_run(data_dir: Path, name: str) -> loop.Run:
    """A run that is ready for its first step: clips in memory, the domain fitted."""
    overrides = [f"data.data_dir={data_dir}", f"run.output_dir={data_dir / name}", "data.num_workers=0"]
    config = load_config(
        REPOSITORY / "hub_configs/dkd-tiny.yaml", [*overrides, f"model.backbone={REPOSITORY}/hub_configs/dkd-tiny"]
    )
    run = loop.prepare(config, start_processes(config), resume=False)
    run.fit_domain()
    return replace(run, clips=HeldClips(run.clips))


def adamw(run: loop.Run) -> torch.optim.AdamW:
    """A fresh optimizer over the groups of the run."""
    groups = run.optimizer.param_groups
    return torch.optim.AdamW(
        [{"params": g["params"], "lr": g["peak_lr"], "weight_decay": g["weight_decay"]} for g in groups]
    )


def our_epoch(run: loop.Run, saving: list[float]) -> Callable[[], float]:
    """Seconds of `train_epoch` without its checkpoints, whose seconds are added to a list."""
    progress, save = Progress(), run.checkpoints.save

    def timed_save(progress: Progress) -> bool:
        start = clock()
        saved = save(progress)
        saving.append(clock() - start)
        return saved

    run.checkpoints.save = timed_save  # type: ignore[method-assign]

    def train() -> float:
        progress.batch, already = 0, sum(saving)
        start = clock()
        loop.train_epoch(run, progress, 0, StopRequest())
        return clock() - start - (sum(saving) - already)

    return train


def bare_epoch(run: loop.Run) -> Callable[[], float]:
    """Seconds of the loop that one would write without any library above PyTorch."""
    recipe, loss, optimizer = run.config.recipe, Loss(run), adamw(run)
    total = run.steps_per_epoch * recipe.epochs
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: loop.schedule(i, total, recipe.warmup_share))
    parameters = [p for p in loss.parameters() if p.requires_grad]
    loader = DataLoader(Samples(run.clips), recipe.batch_size, shuffle=True, drop_last=True)  # type: ignore[arg-type]

    def train() -> float:
        start = clock()
        loss.train()
        for batch in loader:
            value = loss(**batch)["loss"]
            value.backward()
            nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        return clock() - start

    return train


class Stopwatch(TrainerCallback):
    """Seconds from the first step to the last, without what Trainer sets up before."""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start."""
        self.start = clock()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Stop."""
        self.seconds = clock() - self.start


def trainer_epoch(run: loop.Run, folder: Path) -> Callable[[], float]:
    """Seconds of one epoch of transformers.Trainer."""
    recipe = run.config.recipe
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=recipe.batch_size,
        dataloader_drop_last=True,
        max_grad_norm=recipe.max_grad_norm,
        lr_scheduler_type="cosine",
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=not torch.accelerator.is_available(),
    )
    stopwatch = Stopwatch()
    samples = Samples(run.clips)  # type: ignore[arg-type]
    trainer = Trainer(
        Loss(run), arguments, train_dataset=samples, callbacks=[stopwatch], optimizers=(adamw(run), None)
    )
    trainer.remove_callback(PrinterCallback)

    def train() -> float:
        trainer.train()
        return stopwatch.seconds

    return train


def measure() -> list[Row]:
    """Clips a second of each loop, an epoch each in turn, and what a checkpoint costs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds, saving = alternating_epochs()
    finally:
        torch.set_num_threads(threads)
    rates = {name: [CLIPS["train"] / value for value in values] for name, values in seconds.items()}
    names = {"bare": "bare PyTorch loop of the same step", "trainer": "transformers.Trainer"}
    what = "training step of train.py, dkd-tiny, batch of 32, clips in memory"
    rows = [compare(what, rates["ours"], names[name], rates[name], "clips/s") for name in names]
    checkpoint = digits(statistics.median(saving))
    return [*rows, Row("checkpoint of train.py, dkd-tiny", checkpoint, "", None, "s", rounds=len(saving))]


def alternating_epochs() -> tuple[dict[str, list[float]], list[float]]:
    """Seconds of the epochs of each loop, and of the checkpoints."""
    saving: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed, (part, number) in enumerate(CLIPS.items()):
            for _ in tqdm(generate_clips(folder / part, "source", number, seed), total=number, desc=part, leave=False):
                pass
        loops = {
            "ours": our_epoch(new_run(folder, "ours"), saving),
            "bare": bare_epoch(new_run(folder, "bare")),
            "trainer": trainer_epoch(new_run(folder, "trainer"), folder / "trainer"),
        }
        seconds: dict[str, list[float]] = {name: [] for name in loops}
        for index in tqdm(range(ROUNDS + 1), desc="epochs of train.py / PyTorch / Trainer", unit="round", leave=False):
            # Whoever comes first in a round meets the same machine as the others over all rounds.
            order = list(loops)[index % 3 :] + list(loops)[: index % 3]
            for name in order:
                epoch = loops[name]()
                if index:  # the first round warms up
                    seconds[name].append(epoch)
    return seconds, saving
