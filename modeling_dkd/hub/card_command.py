"""`dkd card`: the card of a saved model, written from what lies in its folder."""

import shutil
from pathlib import Path

from ..one_line_parser import OneLineParser


DESCRIPTION = """\
Write the card (README.md) of a saved model from what lies in its folder: weights, options, results. Every figure comes
from a results file; without one the card says that nothing was measured."""

EPILOG = """\
example:
  dkd card runs/my-model --repo_id me/my-model --results results.json
"""


def build_parser() -> OneLineParser:
    """All options."""
    parser = OneLineParser("dkd card", DESCRIPTION, EPILOG)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of a saved model")
    parser.add_argument(
        "--repo_id", metavar="NAME", help="what its examples load (default: as in training_config.yaml)"
    )
    parser.add_argument(
        "--results", nargs="+", type=Path, default=[], metavar="FILE", help="results files to add first"
    )
    parser.add_argument("--figures", nargs="+", type=Path, default=[], metavar="PNG", help="pictures to add first")
    return parser


def main(argv: list[str]) -> int:
    """Add results files and pictures, then write the card; 0 when done."""
    args = build_parser().parse_args(argv)
    from .card_facts import FIGURES_FOLDER, repo_id_of
    from .card_update import add_results, check_weights, weights_revision, write_card
    from .measured_rows import read_results, rows_of

    repo_id = args.repo_id or repo_id_of(args.folder)
    if not repo_id:
        raise ValueError(f"{args.folder} does not say which repository it is meant for: give --repo_id OWNER/NAME")
    for path in args.results:
        contents = read_results(path)
        check_weights(rows_of(contents, path.name), weights_revision(args.folder), str(args.folder))
        add_results(args.folder, contents)
    for path in args.figures:
        (args.folder / FIGURES_FOLDER).mkdir(exist_ok=True)
        shutil.copyfile(path, args.folder / FIGURES_FOLDER / path.name)
    write_card(args.folder, repo_id)
    print(f"written: {args.folder / 'README.md'}")
    return 0
