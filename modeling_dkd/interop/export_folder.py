"""A fitted model as a folder that runs without PyTorch: two graphs, the classes, a runner and a README."""

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from ..domain_file import give_usual_mode
from ..image_processing_dkd import DKDCLIPImageProcessor
from . import run_graphs
from .frozen_classes import FrozenClasses
from .onnx_graphs import export_embeds_to_logits, export_frames_to_logits, quantise_encoder


README = Path(__file__).with_name("exported_readme.md")
RUNNER = Path(run_graphs.__file__)
# Largest difference from PyTorch, of cosines, embeddings and probabilities, with which float32 graphs are written.
TOLERANCE = 1e-4


def export_folder(frozen: FrozenClasses, folder: Path, target: str, int8: bool = False) -> dict[str, Any]:
    """Write the folder, and run its graphs beside the model on frames of noise.

    Args:
        frozen: Model and classes.
        folder: Made if need be.
        target: "onnx" or "openvino".
        int8: Whether the encoder multiplies in int8; ONNX alone.

    Returns:
        What graphs.json says.

    Raises:
        ValueError: The encoder cannot be traced, keeps the aspect of frames, or the graphs give something else than
            the model.
        OSError: The disk refuses.
    """
    settings = pixel_settings(frozen.processor.image_processor)
    example = _noise(frozen, num_videos=3)
    folder = folder.resolve()
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        _write_graphs(frozen, example, unfinished, target, int8)
        save_file({"text_embeds": frozen.text_embeds.contiguous()}, unfinished / run_graphs.TEXTS)
        give_usual_mode(unfinished / run_graphs.TEXTS)
        about = _about(frozen, example, settings, target, int8)
        _write_json(unfinished / run_graphs.ABOUT, about)
        about["largest_difference"] = _differences(frozen, example, unfinished, int8)
        _write_json(unfinished / run_graphs.ABOUT, about)
        shutil.copyfile(RUNNER, unfinished / RUNNER.name)
        (unfinished / "README.md").write_text(_readme(about), encoding="utf-8")
        unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return about


def _write_graphs(frozen: FrozenClasses, example: Tensor, folder: Path, target: str, int8: bool) -> None:
    """Both graphs in the format of a runtime."""
    frames, embeds = (folder / f"{name}.onnx" for name in run_graphs.GRAPHS)
    export_frames_to_logits(frozen.model, frozen.text_embeds, example, frames)
    export_embeds_to_logits(frozen.model.head, embeds)
    if int8:
        quantise_encoder(frames)
    if target == "openvino":
        for path in (frames, embeds):
            _as_openvino(path)


def _about(
    frozen: FrozenClasses, example: Tensor, settings: dict[str, Any], target: str, int8: bool
) -> dict[str, Any]:
    """What graphs.json says of what is exported."""
    return {
        "format": target,
        "encoder_precision": "int8" if int8 else "float32",
        "model": frozen.name,
        "classes": frozen.class_names,
        "is_fitted": frozen.model.head.is_fitted,
        "num_frames": frozen.num_frames,
        "height": example.shape[-2],
        "width": example.shape[-1],
        "dim": frozen.model.config.projection_dim,
        "preprocessing": settings,
        "versions": {name: version(name) for name in ("torch", "transformers", "onnx", "modeling-dkd")},
    }


def pixel_settings(images: DKDCLIPImageProcessor) -> dict[str, Any]:
    """How frames become pixels, as `run_graphs.prepare` takes it.

    Raises:
        ValueError: Frames keep their aspect or their size, so that a graph of one size would not take them.
    """
    resizes, crops = images.do_resize, images.do_center_crop
    edge = images.size.get("shortest_edge") if resizes and "longest_edge" not in images.size else None
    size = [images.size["width"], images.size["height"]] if resizes and "height" in images.size else None
    if (edge is None and size is None) or (edge is not None and not crops):
        raise ValueError(
            "the frames of this encoder have no fixed size (it keeps their aspect or does not resize); "
            "a graph of one size cannot take them"
        )
    factor = images.rescale_factor if images.do_rescale else 1.0
    mean = np.array(images.image_mean if images.do_normalize else [0.0] * 3)
    std = np.array(images.image_std if images.do_normalize else [1.0] * 3)
    return {
        "shortest_edge": edge,
        "size": size,
        "resample": images.resample,
        "scale": (factor / std).tolist(),
        "shift": (mean / std).tolist(),
    }


def _noise(frozen: FrozenClasses, num_videos: int) -> Tensor:
    """Prepared frames of random pixels, (num_videos, T, 3, H, W)."""
    generator = torch.Generator().manual_seed(0)
    shape = (num_videos, frozen.num_frames, 3, 64, 64)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return frozen.processor.image_processor.preprocess_videos([[video] for video in pixels])


def _as_openvino(path: Path) -> None:
    """A graph of ONNX as one of OpenVINO beside it, all weights in float32; the first one is removed."""
    import openvino

    graph = openvino.convert_model(path)
    openvino.save_model(graph, path.with_suffix(".xml"), compress_to_fp16=False)
    del graph  # it holds the file
    for part in path.parent.glob(f"{path.name}*"):
        part.unlink()


def _differences(frozen: FrozenClasses, pixel_values: Tensor, folder: Path, int8: bool) -> dict[str, float]:
    """Largest difference between the graphs and the model on these frames: cosines, embeddings, probabilities.

    Raises:
        ValueError: It is more than rounding.
    """
    graphs = run_graphs.load(folder)
    # Logits as cosines and `known` as deviations, for their differences grow with how steep they are.
    head = frozen.model.head
    units = {"logits_per_video": float(head.logit_scale.detach()), "known": max(1.0, float(head.known_slope))}
    with torch.inference_mode():
        frames = frozen.model.get_video_features(pixel_values).float()
        moved = head(frames, frozen.text_embeds)
    texts = frozen.text_embeds.numpy()
    found = {
        "frames_to_logits": graphs.recognise(pixel_values.numpy()),
        "embeds_to_logits": graphs.compare(frames.numpy(), texts),
    }
    expected = {
        "logits_per_video": moved.logits_per_video,
        "moved_video_embeds": moved.video_embeds,
        "moved_text_embeds": moved.text_embeds,
        "strength": moved.strength,
        "known": moved.known,
    }
    differences = {}
    for name, outputs in found.items():
        differences[name] = max(
            float(np.abs(outputs[key] - value.numpy()).max()) / units.get(key, 1.0)
            for key, value in expected.items()
            if key in outputs
        )
        is_exact = not int8 or name == "embeds_to_logits"
        if is_exact and not differences[name] <= TOLERANCE:
            raise ValueError(f"the graph {name} differs from the model by {differences[name]:.1e}; it is of no use")
    return differences


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _readme(about: dict[str, Any]) -> str:
    """The README of the folder."""
    runtime = {"onnx": "onnxruntime", "openvino": "openvino"}[about["format"]]
    return Template(README.read_text(encoding="utf-8")).substitute(
        runtime=runtime,
        suffix=run_graphs.SUFFIXES[about["format"]],
        num_classes=len(about["classes"]),
        precision=about["encoder_precision"],
        domain="with its domain" if about["is_fitted"] else "without a domain: plain zero-shot",
        difference=f"{about['largest_difference']['frames_to_logits']:.0e}",
        **{name: about[name] for name in ("num_frames", "height", "width", "dim")},
    )
