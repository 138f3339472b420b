"""A model as two ONNX graphs: frames to logits of frozen classes, and embeddings to logits of any classes.

By `torch.onnx.export`, PyTorch's own and stable way, which the head passes without a patch. `transformers.exporters`
goes through the same function, behind patches of torch and of its internals that belong to one release of each, and is
missing from older releases of transformers.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from ..dkd_head import DKDHead
from ..modeling_dkd import DKDCLIPModel


# Weights of more bytes than this lie beside the graph: a file of ONNX holds at most 2 GB.
MOST_IN_ONE_FILE = 1_500_000_000


class FramesToLogits(nn.Module):
    """Pixel values (B, T, 3, H, W) against classes that are frozen in.

    Args:
        model: With its domain, in evaluation mode.
        text_embeds: Of the classes, (K, P, D).
    """

    INPUTS = ("pixel_values",)
    OUTPUTS = ("logits_per_video", "moved_video_embeds", "strength", "known", "frame_embeds")

    def __init__(self, model: DKDCLIPModel, text_embeds: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("text_embeds", text_embeds)

    def forward(self, pixel_values: Tensor) -> tuple[Any, ...]:
        """Outputs as named above; `frame_embeds` (B, T, D) are the encoder's, before the domain moves them."""
        frame_embeds = self.model.get_video_features(pixel_values).float()
        moved = self.model.head(frame_embeds, self.text_embeds)
        return moved.logits_per_video, moved.video_embeds, moved.strength, moved.known, frame_embeds


class EmbedsToLogits(nn.Module):
    """Video embeddings (B, T, D) against text embeddings (K, P, D), any number of each."""

    INPUTS = ("video_embeds", "text_embeds")
    OUTPUTS = ("logits_per_video", "moved_video_embeds", "strength", "known", "moved_text_embeds")

    def __init__(self, head: DKDHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, video_embeds: Tensor, text_embeds: Tensor) -> tuple[Any, ...]:
        """Outputs as named above."""
        moved = self.head(video_embeds, text_embeds)
        return moved.logits_per_video, moved.video_embeds, moved.strength, moved.known, moved.text_embeds


def export_frames_to_logits(model: DKDCLIPModel, text_embeds: Tensor, pixel_values: Tensor, path: Path) -> None:
    """Write the first graph; T, H and W are those of the example `pixel_values`, B is any number.

    Raises:
        ValueError: The image encoder cannot be traced.
    """
    # Two of a kind: one alone would be taken for a constant.
    example = pixel_values[:1].repeat(2, 1, 1, 1, 1)
    _export(FramesToLogits(model, text_embeds), (example,), [{0: "videos"}], path)


def export_embeds_to_logits(head: DKDHead, path: Path) -> None:
    """Write the second graph, whose axes but D may have any length."""
    generator = torch.Generator().manual_seed(0)
    dim = head.config.projection_dim
    examples = (torch.randn(3, 2, dim, generator=generator), torch.randn(4, 5, dim, generator=generator))
    axes = [{0: "videos", 1: "frames"}, {0: "classes", 1: "prompts"}]
    _export(EmbedsToLogits(head), examples, axes, path)


def _export(graph: FramesToLogits | EmbedsToLogits, examples: tuple[Tensor, ...], axes: list[Any], path: Path) -> None:
    """Trace a graph and write it, without the traces of this machine that the exporter leaves in it."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in graph.state_dict().values())
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                graph.eval(),
                examples,
                dynamo=True,
                input_names=list(graph.INPUTS),
                output_names=list(graph.OUTPUTS),
                dynamic_shapes=axes,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            encoder = type(graph.model.backbone).__name__ if isinstance(graph, FramesToLogits) else "the head"
            raise ValueError(f"torch.onnx cannot trace {encoder}; export an encoder without such code") from error
        if program is None:
            raise ValueError("torch.onnx returned nothing")
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()  # lines of source files, with the paths of whoever exports
        program.save(path, external_data=size > MOST_IN_ONE_FILE)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the libraries say to themselves: missing torchvision, names that their own code deprecates."""
    # The last is the root, through which onnxruntime recommends steps that torch.onnx has done.
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", None)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def quantise_encoder(path: Path) -> None:
    """Have the encoder's products of `frames_to_logits` computed in int8, in place; the head stays float32.

    Weights are rounded channel by channel, and what they are multiplied with at run time, so no clips are needed to
    find its range.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    encoder = nodes_before(onnx.load(path, load_external_data=False), "frame_embeds")
    unrounded = path.with_name(f"float_{path.name}")
    path.rename(unrounded)
    with _quiet():
        quantize_dynamic(
            unrounded,
            path,
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_quantize=encoder,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
    unrounded.unlink()


def nodes_before(model: onnx.ModelProto, output: str) -> list[str]:
    """Names of the nodes that take part in an output of a graph."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    waiting, found = [output], dict[str, None]()
    while waiting:
        node = made_by.get(waiting.pop())
        if node is not None and node.name not in found:
            found[node.name] = None
            waiting += node.input
    return list(found)
