"""`dkd export`: a fitted model as graphs for ONNX or OpenVINO."""

from pathlib import Path

from ..one_line_parser import OneLineParser


FORMATS = ("onnx", "openvino")
DESCRIPTION = """\
Write a model and its domain as two graphs that run without PyTorch: frames to logits of the domain's classes, and
embeddings to logits of any classes. Beside them a runner of one file and a README with the lines that use it."""

EPILOG = """\
examples:
  dkd export runs/my-model --to onnx exported
  dkd recognise clips --classes activities.txt --model openai/clip-vit-base-patch32 --save-domain kitchen
  dkd export openai/clip-vit-base-patch32 --domain kitchen --to openvino exported
  python exported/run_graphs.py clip.mp4
"""


def build_parser() -> OneLineParser:
    """All options."""
    parser = OneLineParser("dkd export", DESCRIPTION, EPILOG)
    parser.add_argument("model", metavar="MODEL", help="folder or Hub repository of a DKD checkpoint or dual encoder")
    parser.add_argument("folder", type=Path, metavar="DIR", help="where the graphs go; new or empty")
    parser.add_argument("--to", required=True, choices=FORMATS, help="which runtime")
    parser.add_argument(
        "--domain", type=Path, metavar="DIR", help="a domain that was fitted with this encoder (--save-domain)"
    )
    parser.add_argument(
        "--classes", metavar="FILE", help="without a domain: a file with one class a line, or a,b,c; plain zero-shot"
    )
    parser.add_argument("--templates", metavar="NAME", help="of the --classes: a set of prompt templates, or a file")
    parser.add_argument("--frames", type=int, metavar="N", help="frames a clip (default: as many as the model says)")
    parser.add_argument("--revision", metavar="COMMIT", help="branch, tag or commit of the MODEL repository")
    parser.add_argument(
        "--int8",
        action="store_true",
        help="multiply in int8 in the encoder: less exact, faster where the processor has no bfloat16; onnx alone",
    )
    return parser


def main(argv: list[str]) -> int:
    """Write the folder; 0 when done."""
    args = build_parser().parse_args(argv)
    if args.int8 and args.to != "onnx":
        raise ValueError("--int8 is for --to onnx; OpenVINO multiplies in bfloat16 by itself where that is faster")
    if args.frames is not None and args.frames < 1:
        raise ValueError(f"--frames is {args.frames}; give at least 1")
    if args.folder.exists() and (not args.folder.is_dir() or any(args.folder.iterdir())):
        raise ValueError(f"{args.folder} is there already; give a new folder")
    # Before the model is loaded: they are what is missing, if anything is. And after run_graphs, which silences them.
    from . import run_graphs  # noqa: F401, I001

    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
    import onnxscript  # noqa: F401

    if args.to == "openvino":
        import openvino  # noqa: F401
    from ..recognition.encoder import without_bars_of_loading
    from .export_folder import export_folder
    from .frozen_classes import freeze_classes

    with without_bars_of_loading():
        frozen = freeze_classes(args.model, args.revision, args.domain, args.classes, args.templates, args.frames)
    print(f"exporting {frozen.name}: {len(frozen.class_names)} classes, {frozen.num_frames} frames a clip", flush=True)
    about = export_folder(frozen, args.folder, args.to, args.int8)
    differences = ", ".join(f"{name} {value:.0e}" for name, value in about["largest_difference"].items())
    print(f"written: {args.folder}; largest difference from PyTorch on noise: {differences}")
    print(f"try it: python {args.folder / 'run_graphs.py'} CLIP.mp4")
    return 0
