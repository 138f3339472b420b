"""`dkd mteb`: zero-shot video classification of mteb, plain and with DKD."""

from pathlib import Path

from ..one_line_parser import OneLineParser
from ..recognition.command_options import DTYPES, positive


TASKS = ("HMDB51ZeroShot", "UCF101VideoZeroShotClassification", "Kinetics400ZeroShot")
DOMAINS = ("plain", "transductive", "inductive")

DESCRIPTION = """\
Evaluate an encoder on zero-shot video classification of mteb, plain and with DKD. The data sets come from the Hub,
tens of gigabytes for some tasks. Needs: pip install "modeling-dkd[mteb]" """

EPILOG = f"""\
tasks: {", ".join(TASKS)}, or any other of mteb of that kind
domains, which stand in the name of the model in mteb's results
  plain         zero-shot of the encoder, no domain
  transductive  fitted to the test videos, without their labels
  inductive     fitted to the videos of the train split, without their labels, where the task has one (HMDB51)

example
  dkd mteb --model openai/clip-vit-base-patch16 --tasks HMDB51ZeroShot --domains plain transductive inductive
"""


def build_parser() -> OneLineParser:
    """All options."""
    parser = OneLineParser("dkd mteb", DESCRIPTION, EPILOG)
    parser.add_argument(
        "--model", required=True, metavar="NAME", help="folder or Hub repository of an encoder, as in dkd recognise"
    )
    parser.add_argument("--revision", metavar="COMMIT", help="branch, tag or commit of the --model repository")
    parser.add_argument(
        "--tasks", nargs="+", default=list(TASKS[:1]), metavar="TASK", help="(default: HMDB51ZeroShot)"
    )
    parser.add_argument(
        "--domains", nargs="+", default=list(DOMAINS[:2]), choices=DOMAINS, help="(default: the first two)"
    )
    parser.add_argument("--frames", type=positive, metavar="N", help="frames a clip (default: as the encoder says)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="what the image encoder multiplies in")
    parser.add_argument("--batch-size", type=positive, metavar="N", help="clips a batch")
    parser.add_argument("--output", type=Path, default=Path("mteb-results"), metavar="DIR", help="mteb's result files")
    return parser


def main(argv: list[str]) -> int:
    """Run the tasks and print a table; 0 when done."""
    args = build_parser().parse_args(argv)
    import mteb
    import torch

    from ..recognition.encoder import load_encoder
    from .mteb_model import DKDVideoModel

    try:
        tasks = mteb.get_tasks(tasks=args.tasks)
    except KeyError as error:
        raise ValueError(f"mteb has no such task: {' '.join(str(error).split())[:200]}") from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder = load_encoder(args.model, args.frames, args.revision, getattr(torch, args.dtype), device)
    for domain in args.domains:
        model = DKDVideoModel(encoder, domain, batch_size=args.batch_size)
        found = mteb.evaluate(model, tasks, cache=mteb.ResultCache(args.output))
        for result in found.task_results:
            print(f"{model.mteb_model_meta.name}  {result.task_name}  accuracy {100 * result.get_score():.2f}")
    return 0
