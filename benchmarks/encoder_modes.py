"""The image side of encoders with the channels last and compiled, beside PyTorch as it is, on one thread of a CPU.

Frames are of real clips and weights random, with batch statistics of these frames, so that no activation fades away.
Seconds are those of the process, which other work on the machine does not lengthen. Commands lay the channels last by
themselves. An encoder of one's own is left as it is, such as one in LiteRT, which knows neither.
"""

import copy
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import CLIPConfig, PreTrainedConfig

from modeling_dkd import DKDCLIPConfig, DKDCLIPModel
from modeling_dkd.embedding.clip_encoder import lay_channels_last
from modeling_dkd.image_processing_dkd import DKDCLIPImageProcessor
from modeling_dkd.open_clip_backbone import OpenClipConfig
from modeling_dkd.training.processes import has_cpp_compiler
from modeling_dkd.video_frames import read_frames

from .plain_loop import FRAMES
from .rows import Row, alternate, compare, digits
from .video_input import small_clips


CLASSES, ROUNDS = 101, 3
CLIPS = {"ViT-B/32": 8, "RN50 of open_clip": 2}
EAGER, LAST, COMPILED, BOTH = "eager", "channels last", "compiled", "compiled, channels last"
Side = Callable[[Tensor], Tensor]


def measure() -> list[Row]:
    """Every encoder in every mode.

    Raises:
        ValueError: open_clip is not installed, or there are no clips.
    """
    if find_spec("open_clip") is None:
        raise ValueError('open_clip is not installed; run: pip install "modeling-dkd[open_clip]"')
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [row for name in CLIPS for row in one_encoder(name)]
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def one_encoder(name: str) -> list[Row]:
    """Clips a second of each mode beside eager, and whether the embeddings agree."""
    model, clips = new_model(name), frames_of_clips(CLIPS[name])
    settle(model, clips)
    last = copy.deepcopy(model)
    lay_channels_last(last)
    sides: dict[str, Side] = {EAGER: model.get_video_features, LAST: last.get_video_features}
    first_batch = 0.0
    with fresh_compiler():
        if has_cpp_compiler():
            sides |= {mode: torch.compile(sides[of], fullgraph=True) for mode, of in ((COMPILED, EAGER), (BOTH, LAST))}
            start = time.perf_counter()
            sides[COMPILED](clips)
            first_batch = time.perf_counter() - start
        runs = {mode: partial(run, clips) for mode, run in sides.items()}
        seconds = alternate(ROUNDS, runs, clock=time.process_time)
        found = {mode: run(clips) for mode, run in sides.items()}
    what = f"{name}, {len(clips)} clips x {FRAMES} frames"
    rates = {mode: [len(clips) / value for value in values] for mode, values in seconds.items()}
    rows = []
    for mode in (LAST, COMPILED, BOTH):
        if mode not in sides:
            rows.append(Row(f"{what}, {mode}", None, EAGER, None, "clips/s", note="no C++ compiler"))
            continue
        note = agreement(found[mode], found[EAGER])
        if mode == COMPILED:
            note += f"; the first batch takes {first_batch:.0f} s"
        rows.append(compare(f"{what}, {mode}", rates[mode], EAGER, rates[EAGER], "clips/s", note))
    return rows


def new_model(name: str) -> DKDCLIPModel:
    """The encoder with an unfitted head; random weights, the same each time."""
    if name == "ViT-B/32":
        config: PreTrainedConfig = CLIPConfig(vision_config={"patch_size": 32})
    else:
        import open_clip

        config = OpenClipConfig(model_cfg=open_clip.get_model_config("RN50"))
    torch.manual_seed(0)
    return DKDCLIPModel(DKDCLIPConfig(backbone_config=config)).eval()


def frames_of_clips(count: int) -> Tensor:
    """Pixel values (count, T, 3, 224, 224) of clips that are spread over the classes."""
    clips = [[read_frames(path, FRAMES).pixels] for path in small_clips(count)[:count]]
    if not clips:
        raise ValueError("no clips of UCF101; name the folder of the data in DKD_DATA")
    processor = DKDCLIPImageProcessor()
    return processor.normalise(processor.crop_videos(clips))


def settle(model: DKDCLIPModel, clips: Tensor) -> None:
    """Give every batch norm the statistics of these clips, and residual branches their part."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    for norm in norms:
        nn.init.ones_(norm.weight)
        norm.momentum = 1.0
        norm.train()
    model.get_video_features(clips)
    model.eval()


def agreement(found: Tensor, expected: Tensor) -> str:
    """Largest difference of unit embeddings, and how many clips have the same nearest of random texts."""
    generator = torch.Generator().manual_seed(0)
    texts = normalize(torch.randn(CLASSES, expected.shape[-1], generator=generator), dim=-1)
    embeds, wanted = (normalize(side.double().mean(1), dim=-1).float() for side in (found, expected))
    same = int(((embeds @ texts.T).argmax(1) == (wanted @ texts.T).argmax(1)).sum())
    difference = digits(float((embeds - wanted).abs().max()))
    return f"largest difference of unit embeddings {difference}, same top-1 on {same} of {len(wanted)} clips"


@contextmanager
def fresh_compiler() -> Iterator[None]:
    """Nothing is kept that was compiled before, in this process or on the disk."""
    torch.compiler.reset()
    with TemporaryDirectory() as folder, patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=folder):
        yield
    torch.compiler.reset()
