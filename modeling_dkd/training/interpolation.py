"""Weights between those a run started from and those it ended with: `dkd interpolate START TUNED --share 0.5`.

What is learned of one set of classes costs an encoder some of what it knew of all others; between the two lie weights
that keep most of both.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..one_line_parser import OneLineParser


if TYPE_CHECKING:  # seconds of imports, which --help need not wait for
    from torch import Tensor

DESCRIPTION = """\
Write a model whose weights are (1 - share) those of START and share those of TUNED. It has no domain: a domain belongs
to the weights it was fitted with."""

EPILOG = """\
example: half-way between CLIP and what Kinetics-400 made of it, measured on classes of another set
  dkd interpolate openai/clip-vit-base-patch16 runs/clip-vit-b16-k400 --share 0.5 --output runs/clip-vit-b16-k400-half
  dkd evaluate --model runs/clip-vit-b16-k400-half --dataset hmdb51 --data_dir hmdb51_org

A recipe does the same with what it saves: --set run.interpolation=0.5. Choose the share on data you do not report.
"""


def is_weight(name: str) -> bool:
    """Whether a tensor of the model is trained weights, not part of a fitted domain."""
    return name.startswith(("backbone.", "temporal.")) or name == "head.log_logit_scale"


def interpolate(start: "Mapping[str, Tensor]", tuned: "Mapping[str, Tensor]", share: float) -> "dict[str, Tensor]":
    """Weights (1 - share) start + share tuned, tensor by tensor; what is not floating point comes from `tuned`.

    Raises:
        ValueError: A tensor is lacking in `start` or has another shape there (the message names it).

    Source:
        Wortsman et al. 2022, "Robust fine-tuning of zero-shot models" (WiSE-FT); for video, Weng et al. 2023,
        "Open-VCLIP".
    """
    for name, tensor in tuned.items():
        if name not in start:
            raise ValueError(f"the start weights have no {name}: they are of another architecture")
        if start[name].shape != tensor.shape:
            shapes = " and ".join(str(tuple(weights[name].shape)) for weights in (start, tuned))
            raise ValueError(f"{name} has the shapes {shapes}: these weights are of two architectures")
    return {
        name: start[name].to(tensor).lerp(tensor, share) if tensor.is_floating_point() else tensor
        for name, tensor in tuned.items()
    }


def build_parser() -> argparse.ArgumentParser:
    """All options of `dkd interpolate`."""
    parser = OneLineParser("dkd interpolate", DESCRIPTION, EPILOG)
    parser.add_argument("start", metavar="START", help="repository or folder of the weights that TUNED started from")
    parser.add_argument("tuned", metavar="TUNED", help="repository or folder of the fine-tuned weights")
    parser.add_argument("--share", type=float, required=True, metavar="NUMBER", help="of TUNED, from 0 to 1")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="new folder for the model")
    parser.add_argument(
        "--dry-run", action="store_true", help="check options and names and tell what would be done, without a network"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run `dkd interpolate`; 0 when the model is written."""
    args = build_parser().parse_args(argv)
    if not 0 <= args.share <= 1:
        raise ValueError(f"--share is {args.share:g}, but must be from 0 to 1")
    if args.output.exists():
        raise ValueError(f"{args.output} is there already; give a new folder")
    if args.dry_run:
        from ..embedding.planned_loading import planned_model, show_plan

        plan = {"start": planned_model(args.start), "tuned": planned_model(args.tuned)}
        show_plan(
            "dkd interpolate", plan | {"written": f"{args.output}, {args.share:g} of the way to the tuned weights"}
        )
        return 0
    import torch

    from ..embedding.clip_encoder import ClipEncoder
    from .repository import save_repository

    start, tuned = (
        ClipEncoder.load(name, None, None, torch.float32, torch.device("cpu")) for name in (args.start, args.tuned)
    )
    before, after = (
        {name: tensor for name, tensor in encoder.model.state_dict().items() if is_weight(name)}
        for encoder in (start, tuned)
    )
    model = tuned.model
    class_names = list((model.config.id2label or {}).values())
    model.head.reset()
    model.load_state_dict(interpolate(before, after, args.share), strict=False)
    save_repository(model, tuned.processor, class_names, args.output)
    print(f"saved: {args.output}, {args.share:g} of the way from {args.start} to {args.tuned}, without a domain")
    return 0
