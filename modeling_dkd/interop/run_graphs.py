"""Runs the graphs of this folder without PyTorch.

    python run_graphs.py clip.mp4 ...                       # label, confidence and `known` of each clip

    from run_graphs import load, prepare

    graphs = load()
    found = graphs.recognise(prepare(clips, graphs.about))  # clips: lists of RGB frames (H, W, 3) uint8, 0-255
    names = [graphs.about["classes"][k] for k in found["logits_per_video"].argmax(1)]
    again = graphs.compare(found["frame_embeds"], text_embeds)    # other classes, by their embeddings

Needs numpy, safetensors and onnxruntime or openvino; `prepare` needs pillow, and video files need av. A graph cannot
refuse what it is given, so this file does: with the sentences of the model that the graphs were made from.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file


# Both runtimes would tell their makers of each run over the network; OpenVINO goes without what cannot be imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

ABOUT = "graphs.json"
TEXTS = "class_texts.safetensors"
GRAPHS = ("frames_to_logits", "embeds_to_logits")
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}

Array = np.ndarray[Any, np.dtype[Any]]
# Inputs in the order of the graph -> outputs by name.
Run = Callable[[list[Array]], dict[str, Array]]


@dataclass(frozen=True)
class Graphs:
    """Both graphs of a folder.

    Attributes:
        about: What graphs.json says: `classes`, `num_frames`, `height`, `width`, `dim`, `preprocessing` ...
        text_embeds: The frozen classes as `compare` takes them, (K, P, D) float32.
        frames_to_logits: Pixel values -> outputs.
        embeds_to_logits: Embeddings of videos and of classes -> outputs.
    """

    about: dict[str, Any]
    text_embeds: Array
    frames_to_logits: Run
    embeds_to_logits: Run

    def recognise(self, pixel_values: Array) -> dict[str, Array]:
        """Compare videos with the frozen classes.

        Args:
            pixel_values: Prepared frames, (B, T, 3, height, width), floats; T, height and width as `about` says.

        Returns:
            `logits_per_video` (B, K), whose softmax is the confidence; `moved_video_embeds` (B, D), unit norm;
            `strength` and `known` (B,); `frame_embeds` (B, T, D), as the encoder gives them, for `compare`.

        Raises:
            ValueError: Another shape, integers, or pixels of which the encoder makes no usable embedding.
        """
        fixed = (self.about["num_frames"], 3, self.about["height"], self.about["width"])
        pixel_values = np.asarray(pixel_values)
        if pixel_values.ndim != 5 or pixel_values.shape[1:] != fixed or not len(pixel_values):
            wanted = ", ".join(map(str, fixed))
            raise ValueError(f"pixel_values must be (videos, {wanted}), at least one, not {pixel_values.shape}")
        if pixel_values.dtype.kind != "f":
            raise ValueError(f"pixel_values are {pixel_values.dtype}; prepare them with `prepare`, which scales them")
        found = self.frames_to_logits([np.ascontiguousarray(pixel_values, np.float32)])
        unit_particles(found["frame_embeds"], "video_embeds", self.about["dim"])
        return found

    def compare(self, video_embeds: Array, text_embeds: Array) -> dict[str, Array]:
        """Compare videos with any classes, both given by their embeddings from the encoder.

        Args:
            video_embeds: (B, D) or (B, T, D) with frames as particles, any float dtype, any lengths.
            text_embeds: (K, D) or (K, P, D) with prompts as particles.

        Returns:
            `logits_per_video` (B, K); `moved_video_embeds` (B, D) and `moved_text_embeds` (K, D), unit norm;
            `strength` and `known` (B,).

        Raises:
            ValueError: Wrong shape, dtype or D, a value that is not finite, or a zero embedding.
        """
        dim = self.about["dim"]
        inputs = {"video_embeds": video_embeds, "text_embeds": text_embeds}
        return self.embeds_to_logits([unit_particles(embeds, name, dim) for name, embeds in inputs.items()])


def load(folder: Path = Path(__file__).parent, num_threads: int = 0) -> Graphs:
    """The graphs of a folder, on the CPU, in float32 but for what was exported otherwise.

    Args:
        folder: Where they are.
        num_threads: 0: as many as the runtime thinks best.
    """
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    start = {"onnx": start_onnx, "openvino": start_openvino}[about["format"]]
    runs = (start(folder / (name + SUFFIXES[about["format"]]), num_threads) for name in GRAPHS)
    return Graphs(about, load_file(folder / TEXTS)["text_embeds"], *runs)


def start_onnx(path: Path, num_threads: int = 0) -> Run:
    """A graph in onnxruntime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    outputs = [value.name for value in session.get_outputs()]
    return lambda inputs: dict(zip(outputs, session.run(None, dict(zip(names, inputs, strict=True))), strict=True))


def start_openvino(path: Path, num_threads: int = 0, precision: str = "f32") -> Run:
    """A graph in OpenVINO, on the CPU; with "bf16" faster where the processor can, and off in the third digit."""
    import openvino

    options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": num_threads}
    compiled = openvino.Core().compile_model(str(path), "CPU", options)
    # Copied: the arrays are the runtime's own, which the next run overwrites.
    return lambda inputs: {value.any_name: array.copy() for value, array in compiled(inputs).items()}


def unit_particles(embeds: Array, name: str, dim: int) -> Array:
    """Checked embeddings (N, P, D), float32, each with unit norm.

    Args:
        embeds: (N, D) or (N, P, D), any float dtype, any lengths.
        name: What messages call them.
        dim: D.

    Raises:
        ValueError: Wrong shape, dtype or D, a value that is not finite, or a zero embedding.
    """
    embeds = np.asarray(embeds)
    if embeds.dtype.kind != "f":
        raise ValueError(f"{name} must be an array of floats, not {embeds.dtype}")
    if embeds.ndim not in (2, 3) or embeds.shape[-1] != dim or 0 in embeds.shape:
        raise ValueError(
            f"{name} must be (N, {dim}) or (N, particles, {dim}), at least one of each, not {embeds.shape}."
        )
    if not np.isfinite(embeds).all():
        index = [int(i) for i in np.argwhere(~np.isfinite(embeds))[0]]
        raise ValueError(f"{name}{index} is not finite; look at what the encoder was given for item {index[0]}.")
    embeds = embeds.astype(np.promote_types(embeds.dtype, np.float32))
    embeds = embeds[:, None] if embeds.ndim == 2 else embeds
    units = (embeds / np.maximum(np.linalg.norm(embeds, axis=-1, keepdims=True), 1e-12)).astype(np.float32)
    small = np.linalg.norm(units.mean(1), axis=-1) < 1e-6
    if small.any():
        raise ValueError(f"{name}[{int(small.argmax())}] is a zero embedding; leave it out or embed it again.")
    return units


def prepare(clips: Sequence[Sequence[Array]], about: dict[str, Any]) -> Array:
    """Pixel values (B, T, 3, height, width), float32: frames at segment centres, resized, cropped, normalised.

    Args:
        clips: Frames in order of each clip, RGB (H, W, 3) uint8, 0-255, at least one.
        about: `Graphs.about`.

    Raises:
        ValueError: There is no clip, one has no frames, or a frame is something else.
    """
    if not len(clips):
        raise ValueError("there are no clips; give at least one")
    videos = []
    for number, frames in enumerate(clips):
        if not len(frames):
            raise ValueError(f"clip {number} has no frames")
        chosen = [_prepared(np.asarray(frames[i]), about, number) for i in segment_indices(len(frames), about)]
        videos.append(np.stack(chosen))
    pixels = np.stack(videos).astype(np.float32).transpose(0, 1, 4, 2, 3)
    scale, shift = (np.asarray(about["preprocessing"][name], np.float32)[:, None, None] for name in ("scale", "shift"))
    return np.ascontiguousarray(pixels * scale - shift)


def segment_indices(total: int, about: dict[str, Any]) -> list[int]:
    """Which of `total` frames are taken: the centres of as many equal parts as the graph takes frames."""
    num_frames = about["num_frames"]
    return [min(int((part + 0.5) * total / num_frames), total - 1) for part in range(num_frames)]


def _prepared(frame: Array, about: dict[str, Any], number: int) -> Array:
    """One frame resized and cropped, (height, width, 3) uint8."""
    from PIL import Image

    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise ValueError(f"frames of clip {number} must be (H, W, 3) uint8, RGB, not {frame.dtype} of {frame.shape}")
    image, settings = Image.fromarray(frame), about["preprocessing"]
    if settings["shortest_edge"]:
        edge, (width, height) = settings["shortest_edge"], image.size
        size = (int(edge * width / height), edge) if height <= width else (edge, int(edge * height / width))
    else:
        size = tuple(settings["size"] or image.size)
    image = image.resize(size, settings["resample"])
    left, top = (image.width - about["width"]) // 2, (image.height - about["height"]) // 2
    # What lies outside becomes black.
    return np.asarray(image.crop((left, top, left + about["width"], top + about["height"])))


def read_clip(path: str, about: dict[str, Any]) -> list[Array]:
    """The frames that a graph takes from a video file, RGB (H, W, 3) uint8; decoded in order, for seeking is inexact.

    Raises:
        ValueError: The file cannot be read.
    """
    import av

    try:
        with av.open(path) as container:
            total = sum(1 for _ in container.decode(video=0))
        wanted = segment_indices(total, about) if total else []
        with av.open(path) as container:
            kept = {
                number: np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                for number, frame in enumerate(container.decode(video=0))
                if number in wanted
            }
    except (av.FFmpegError, OSError, IndexError) as error:
        raise ValueError(f"cannot read video {path!r}: {error}") from error
    if not kept:
        raise ValueError(f"cannot read video {path!r}: it holds no frames")
    return [kept[number] for number in wanted]


def main(paths: list[str]) -> int:
    """Print clip, label, confidence and `known`, with tabs between; 1 where a clip could not be read."""
    if not paths or paths[0].startswith("-"):
        print("usage: python run_graphs.py CLIP ...", file=sys.stderr)
        return 2
    graphs, failed = load(), 0
    for path in paths:
        try:
            found = graphs.recognise(prepare([read_clip(path, graphs.about)], graphs.about))
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            failed = 1
            continue
        logits = found["logits_per_video"][0]
        confidence = 1 / np.exp(logits - logits.max()).sum()
        label = graphs.about["classes"][int(logits.argmax())]
        print(path, label, f"{confidence:.3f}", f"{found['known'][0]:.3f}", sep="\t", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
