"""`dkd publish-embeddings`: embedding caches as a data set on the Hub."""

import tempfile
from pathlib import Path

from ..one_line_parser import OneLineParser
from .publish_command import add_publish_options, show_or_send


DESCRIPTION = """\
Show what a data set of embedding caches would hold (files, sizes, the card); nothing is sent until --push."""

EPILOG = """\
example:
  dkd publish-embeddings test=ucf101-1-test.safetensors train=ucf101-1-train.safetensors --repo_id me/ucf101-clip
"""


def build_parser() -> OneLineParser:
    """All options."""
    parser = OneLineParser("dkd publish-embeddings", DESCRIPTION, EPILOG)
    parser.add_argument(
        "caches", nargs="+", metavar="SPLIT=FILE", help="caches of one encoder, such as test=ucf101-1-test.safetensors"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="keep the data set's files here")
    add_publish_options(parser)
    return parser


def main(argv: list[str]) -> int:
    """Write the tables of a data set of embeddings, and show or send them."""
    args = build_parser().parse_args(argv)
    from .embedding_dataset import read_caches, write_dataset
    from .publishing import plan_publication

    if not args.repo_id:
        raise ValueError("give the data set a name: --repo_id OWNER/NAME")
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.output or Path(scratch)
        write_dataset(read_caches(args.caches), folder, args.repo_id)
        return show_or_send(plan_publication(folder, args.repo_id, "dataset"), args)
