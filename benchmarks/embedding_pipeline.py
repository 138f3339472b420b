"""Clips to embeddings beside an encoder of given speed: how near that comes to the slower of decoding and encoder.

The encoder is a stand-in that waits and needs no processor, as a GPU would; its embeddings are zeros. What could be
had is the smaller of two rates: the same workers with nothing behind them, in the same round, and the stand-in's own.
"""

import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from accelerate import Accelerator
from torch import Tensor

from modeling_dkd.data.video_files import VideoRecord
from modeling_dkd.embedding.clip_embedding import embed_clips
from modeling_dkd.embedding.clip_encoder import ClipEncoder
from modeling_dkd.embedding.clip_shards import ClipShards

from .backbones import save_backbone
from .plain_loop import FRAMES
from .raw_clips import copied_clips
from .rows import Row, alternate, compare


NUM_CLIPS, WORKERS, BATCH, ROUNDS = 448, 2, 16, 3
ENCODERS = (20, 40, 1000)  # clips a second: slower than two decoding processes, about as fast, far faster
ALONE = "workers alone"


def measure() -> list[Row]:
    """Clips a second of whole runs, the start of their workers included."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = save_backbone("tiny", folder / "model")
        reader = ClipEncoder.load(str(model), f"{FRAMES}x1x1", None, torch.float32, torch.device("cpu")).reader
        copied = copied_clips(folder / "clips", NUM_CLIPS)
        records = [VideoRecord(str(folder / "clips" / path), path, 0) for path, _ in copied]

        def run(rate: float) -> None:
            with TemporaryDirectory(dir=folder) as place:
                embed = partial(stand_in, rate=rate)
                shards = ClipShards(place)
                embed_clips(records, records, reader, embed, shards, Accelerator(cpu=True), BATCH, WORKERS, False)

        sides = {ALONE: partial(run, float("inf"))} | {f"{rate}": partial(run, rate) for rate in ENCODERS}
        seconds = alternate(ROUNDS, sides)
    rates = {side: [NUM_CLIPS / value for value in values] for side, values in seconds.items()}
    return [
        compare(
            f"embed_clips, encoder of {rate} clips/s, {NUM_CLIPS} clips x {FRAMES} frames, {WORKERS} workers",
            rates[f"{rate}"],
            "the slower of the encoder and of the workers alone",
            [min(rate, alone) for alone in rates[ALONE]],
            "clips/s",
        )
        for rate in ENCODERS
    ]


def stand_in(clips: list[Tensor], rate: float) -> Tensor:
    """Zeros (n, T, 1) after the time that an encoder of so many clips a second would take."""
    time.sleep(len(clips) / rate)
    return torch.zeros(len(clips), len(clips[0]), 1)
