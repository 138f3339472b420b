"""What is seen while a run trains."""

import time
from typing import Any

from accelerate import Accelerator
from torch import Tensor
from tqdm.auto import tqdm


class StepBar:
    """Progress bar over all steps of the run: loss, top-1 of plain CLIP, clips a second and the time left.

    Args:
        accelerator: Its main process shows the bar and writes the same to the trackers.
        optimizer: Whose learning rate is written.
        step: Steps that are done.
        total: Steps of the whole run.
    """

    def __init__(self, accelerator: Accelerator, optimizer: Any, step: int, total: int) -> None:
        self.accelerator = accelerator
        self.optimizer = optimizer
        self.step = step
        shown = None if accelerator.is_main_process else True
        self.bar = tqdm(total=total, initial=step, unit="step", desc="training", disable=shown)
        self.smoothed: Tensor | None = None
        self.clips, self.started = 0.0, time.monotonic()

    def advance(self, told: Tensor) -> None:
        """One step further, given summed loss, hits and clips of all processes."""
        self.step += 1
        counts = told[:3]
        self.smoothed = counts if self.smoothed is None else 0.9 * self.smoothed + 0.1 * counts
        self.clips += float(counts[2])
        loss, hits = (self.smoothed[:2] / self.smoothed[2]).tolist()
        speed = self.clips / (time.monotonic() - self.started)
        self.bar.set_postfix_str(f"loss {loss:.3f}, top-1 {hits:.1%}, {speed:.1f} clips/s", refresh=False)
        self.bar.update()
        own = {"train/loss": float(counts[0] / counts[2]), "train/top1": float(counts[1] / counts[2])}
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        self.accelerator.log(own | {"train/learning_rate": rate, "train/clips_per_second": speed}, step=self.step)

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()
