"""A training state of a few numbers, whose checkpoint is damaged or interrupted."""

import json
import logging
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator

from modeling_dkd.configuration_dkd import DKDCLIPConfig
from modeling_dkd.dkd_head import DKDHead
from modeling_dkd.training.checkpoints import Checkpoints, Progress
from modeling_dkd.training.parameters import MovingAverage


CONFIG = {"recipe": {"epochs": 3}, "run": {"seed": 0}}
FOLDER = "checkpoints"


def progress_text() -> str:
    """What progress.json of a sound checkpoint holds."""
    progress = Progress(epoch=1, batch=2, step=3, history=[{"epoch": 1, "top1": 0.5}], best_epoch=0, config=CONFIG)
    return json.dumps(asdict(progress) | {"scaler": None}, indent=1)


def small_state(folder: Path) -> Checkpoints:
    """Checkpoints of a linear layer and a head without a domain."""
    layer = torch.nn.Linear(3, 2)
    trained = dict(layer.named_parameters())
    accelerator = Accelerator(cpu=True)
    groups = [{"params": list(trained.values()), "names": list(trained)}]
    optimizer = accelerator.prepare(torch.optim.AdamW(groups))
    head = DKDHead(DKDCLIPConfig(projection_dim=3))
    return Checkpoints(folder / FOLDER, accelerator, trained, head, optimizer, MovingAverage(trained, 0.0))


def read_progress(folder: Path) -> None:
    """Resume with a damaged newest checkpoint: an older one must be found, or one sentence must say what is wrong.

    Raises:
        AssertionError: The older checkpoint was not found.
    """
    logging.getLogger("modeling_dkd").setLevel(logging.ERROR)
    damaged = folder / FOLDER / "step-00000003-epoch-0001" / "progress.json"
    text = damaged.read_bytes()
    checkpoints = small_state(folder)
    for step in (2, 3):
        checkpoints.save(Progress(epoch=1, step=step, config=CONFIG))
    damaged.write_bytes(text)
    resumed = checkpoints.resume(CONFIG)
    assert resumed is not None, "no checkpoint was found though an older one is there"
