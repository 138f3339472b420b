"""Exported graphs: a ViT-B/32 and its fitted head in other runtimes and precisions, beside PyTorch in float32.

One thread each; seconds are those of the process, which other work on the machine does not lengthen. Weights are
random, so the agreement that stands in the notes is of embeddings alone. What the precision does to answers is
measured with the trained weights of the embedded checkpoint, on synthetic clips of a shifted domain.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from modeling_dkd import DKDCLIPModel, DKDCLIPProcessor
from modeling_dkd.synthetic.clips import ACTIONS, class_prompts, describe_clips, domain_called, render_clip

from .backbones import TINY, save_backbone
from .rows import Row, alternate, clustered, compare, digits, milliseconds


VIDEOS, FRAMES, CLASSES, CLIPS = 2, 8, 101, 200
ROUNDS = 4
# From pixel values to logits and moved embeddings of videos.
Runs = dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]]
REFERENCE = "PyTorch float32"


def measure() -> list[Row]:
    """Time of a batch in each runtime, then what each makes of trained weights."""
    missing = [name for name in ("onnxscript", "onnxruntime", "openvino") if find_spec(name) is None]
    if missing:
        raise ValueError(f'{missing[0]} is not installed; run: pip install "modeling-dkd[export]"')
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        return _time_rows(Path(folder)) + _answer_rows(Path(folder))


@torch.no_grad()
def _time_rows(folder: Path) -> list[Row]:
    """ViT-B/32 with random weights, 8 frames a clip, 101 classes."""
    model = DKDCLIPModel.from_backbone(save_backbone("vit-b32", folder / "backbone"))
    domain, texts = clustered(2000, CLASSES, model.config.projection_dim)
    model.head.fit(domain, texts)
    pixel_values = torch.randn(VIDEOS, FRAMES, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    runs = _runs(model, texts[:, None], pixel_values, folder / "vit")
    sides = {name: partial(run, pixel_values) for name, run in runs.items()}
    seconds = alternate(ROUNDS, sides, clock=time.process_time)
    expected = runs[REFERENCE](pixel_values)[1]
    rows = []
    for name, run in runs.items():
        if name == REFERENCE:
            continue
        least = float(cosine_similarity(run(pixel_values)[1], expected).min())
        note = f"smallest cosine with the embeddings of {REFERENCE}: {least:.6f}"
        what = f"{name}, ViT-B/32 and fitted head, {VIDEOS} clips x {FRAMES} frames, {CLASSES} classes"
        times = milliseconds(seconds[name]), milliseconds(seconds[REFERENCE])
        rows.append(compare(what, times[0], REFERENCE, times[1], "ms", note))
    return rows


@torch.no_grad()
def _answer_rows(folder: Path) -> list[Row]:
    """Clips recognised rightly by the embedded checkpoint, with a domain of other clips, seed 0."""
    model, processor = DKDCLIPModel.from_pretrained(TINY).eval(), DKDCLIPProcessor.from_pretrained(TINY)
    domain = domain_called("combined")
    clips = describe_clips(domain, 2 * CLIPS, seed=0)
    inputs = processor(videos=[render_clip(domain, clip) for clip in clips], num_frames=4, text=class_prompts())
    model.fit_domain(inputs.pixel_values[:CLIPS], inputs.input_ids, inputs.get("attention_mask"))
    pixel_values = inputs.pixel_values[CLIPS:]
    truth = torch.tensor([ACTIONS.index(clip.action) for clip in clips[CLIPS:]])
    runs = _runs(model, model.head.fitted_texts[:, None], pixel_values, folder / "tiny")
    found = {name: run(pixel_values)[0].argmax(1) for name, run in runs.items()}
    right = {name: 100 * float((labels == truth).float().mean()) for name, labels in found.items()}
    return [
        Row(
            f"{name}, embedded checkpoint, {CLIPS} synthetic clips, domain of {CLIPS} others: right",
            digits(right[name]),
            REFERENCE,
            digits(right[REFERENCE]),
            "%",
            note=f"{int((labels == found[REFERENCE]).sum())} of {CLIPS} answers are the same",
        )
        for name, labels in found.items()
        if name != REFERENCE
    ]


def _runs(model: DKDCLIPModel, text_embeds: Tensor, pixel_values: Tensor, folder: Path) -> Runs:
    """What runs a model in each runtime and precision."""
    from modeling_dkd.interop.onnx_graphs import export_frames_to_logits, quantise_encoder

    folder.mkdir()
    path, rounded = folder / "float32.onnx", folder / "int8.onnx"
    export_frames_to_logits(model, text_embeds, pixel_values, path)
    shutil.copyfile(path, rounded)
    quantise_encoder(rounded)

    def torch_run(pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        moved = model.head(model.get_video_features(pixel_values).float(), text_embeds)
        return moved.logits_per_video, moved.video_embeds

    def torch_bfloat16(pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            return torch_run(pixel_values)

    return {
        REFERENCE: torch_run,
        "PyTorch bfloat16": torch_bfloat16,
        "ONNX float32": _onnx(path),
        "ONNX int8": _onnx(rounded),
        "OpenVINO float32": _openvino(path, "f32"),
        "OpenVINO bfloat16": _openvino(path, "bf16"),
    }


def _onnx(path: Path) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """A graph in onnxruntime."""
    from modeling_dkd.interop.run_graphs import start_onnx

    return _first_two(start_onnx(path, 1))


def _openvino(path: Path, precision: str) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The same graph in OpenVINO."""
    from modeling_dkd.interop.run_graphs import start_openvino

    return _first_two(start_openvino(path, 1, precision))


def _first_two(run: Callable[[list[np.ndarray]], dict[str, np.ndarray]]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Logits and moved embeddings of a graph, as tensors."""

    def first_two(pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        found = run([pixel_values.numpy()])
        return torch.from_numpy(found["logits_per_video"]), torch.from_numpy(found["moved_video_embeds"])

    return first_two
