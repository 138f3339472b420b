"""`dkd publish-domain`: shows what would go up of a saved domain, and sends it with --push."""

import tempfile
from pathlib import Path

from ..one_line_parser import OneLineParser
from .publish_command import add_publish_options, show_or_send


DESCRIPTION = """\
Show what would be published of a saved domain (files, sizes, the card with its classes); nothing is sent until --push.
A domain is statistics of embeddings, without a video and without its encoder. Which clips it has learned from is left
out; what its class means tell about classes of few clips the card says."""

EPILOG = """\
examples:
  fit a domain to clips, in which no class speaks of fewer than 5 of them, look at it, publish it
    dkd recognise clips --classes classes.txt --model openai/clip-vit-base-patch16 --save-domain kitchen --min-clips 5
    dkd publish-domain kitchen --repo_id me/kitchen-domain --min-clips 5
    dkd publish-domain kitchen --repo_id me/kitchen-domain --min-clips 5 --push
  with what evaluate.py measured with the same encoder
    dkd publish-domain kitchen --repo_id me/kitchen-domain --results results.json
  use it, elsewhere
    dkd recognise more_clips --model openai/clip-vit-base-patch16 --domain me/kitchen-domain
"""


def build_parser() -> OneLineParser:
    """All options."""
    parser = OneLineParser("dkd publish-domain", DESCRIPTION, EPILOG)
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="where --save-domain or head.save_pretrained wrote it"
    )
    parser.add_argument(
        "--min-clips",
        type=int,
        default=0,
        metavar="N",
        help="refuse it unless classes of fewer than N clips were withheld when it was saved",
    )
    parser.add_argument(
        "--results", type=Path, nargs="+", default=[], metavar="FILE", help="results.json of evaluate.py"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="keep the repository's files here")
    add_publish_options(parser)
    return parser


def main(argv: list[str]) -> int:
    """Write the repository of a domain, and show or send it."""
    args = build_parser().parse_args(argv)
    from ..domain_file import DOMAIN_FILE
    from .domain_repository import write_domain_repository
    from .publishing import plan_publication, require_name

    if not args.repo_id:
        raise ValueError("give the domain a name: --repo_id OWNER/NAME")
    require_name(args.repo_id)
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.output or Path(scratch)
        write_domain_repository(args.folder, folder, args.repo_id, args.min_clips, args.results)
        return show_or_send(plan_publication(folder, args.repo_id, entry=DOMAIN_FILE), args)
