"""`dkd publish`: shows what would go up of a model, its files, sizes and card, and sends it with --push."""

import argparse
from pathlib import Path
from typing import Any

from ..one_line_parser import OneLineParser
from .upload_checks import LEFT_OUT


DESCRIPTION = f"""\
Show what would be published of a saved model (files, sizes, the card); nothing is sent until --push.
Left out of every folder: {", ".join(LEFT_OUT)} and tracker logs."""

EPILOG = """\
from a YAML file to a published model:
  train.py fits the domain (and fine-tunes, unless recipe.epochs=0), tests, and writes the repository with its card
    accelerate launch train.py --config hub_configs/clip-vit-b16-ucf101.yaml --set data.data_dir=UCF-101
  more figures for the card, with the encoders that it describes
    python evaluate.py --model runs/clip-vit-b16-ucf101 --dataset hmdb51 --data_dir hmdb51_org \\
      --update_card runs/clip-vit-b16-ucf101
  look at what would be published, then publish it
    dkd publish --config hub_configs/clip-vit-b16-ucf101.yaml
    dkd publish --config hub_configs/clip-vit-b16-ucf101.yaml --push --private
"""


def build_parser() -> OneLineParser:
    """All options."""
    parser = OneLineParser("dkd publish", DESCRIPTION, EPILOG)
    parser.add_argument("folder", type=Path, nargs="?", metavar="FOLDER", help="of a saved model")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file: its run.output_dir and repo_id")
    add_publish_options(parser)
    return parser


def add_publish_options(parser: argparse.ArgumentParser) -> None:
    """Where to and how."""
    parser.add_argument("--repo_id", metavar="OWNER/NAME", help="repository on the Hub")
    parser.add_argument("--push", action="store_true", help="send it; without this nothing leaves the machine")
    parser.add_argument("--private", action="store_true", help="make the repository private (default: public)")
    parser.add_argument("--revision", metavar="BRANCH", help="write to this branch (default: main)")
    parser.add_argument("--pr", action="store_true", help="open a pull request instead of writing to the branch")
    parser.add_argument("--update", action="store_true", help="write into a repository that exists already")
    parser.add_argument("--message", metavar="TEXT", help="of the commit")


def main(argv: list[str]) -> int:
    """Show or send a folder; 0 when done, 2 when it cannot be published as it is."""
    args = build_parser().parse_args(argv)
    from ..embedding.embedded_checkpoint import CHECKPOINT, copy_code
    from .card_facts import read_options, repo_id_of
    from .publishing import plan_publication

    folder, repo_id = args.folder, args.repo_id
    if (folder is None) == (args.config is None):
        raise ValueError("give either the FOLDER of a saved model or the --config that it was made with")
    if args.config is not None:
        options = read_options(args.config)
        folder = Path(str((options.get("run") or {}).get("output_dir") or ""))
        repo_id = repo_id or options.get("repo_id")
        if not (folder / "config.json").is_file():
            raise ValueError(
                f"{folder} holds no finished model; make it with: accelerate launch train.py --config {args.config}"
            )
    repo_id = repo_id or repo_id_of(folder)
    if not repo_id:
        raise ValueError(f"{folder} does not say which repository it is meant for: give --repo_id OWNER/NAME")
    if folder.resolve() == CHECKPOINT:
        copy_code(folder)
    return show_or_send(plan_publication(folder, repo_id), args)


def show_or_send(plan: Any, args: argparse.Namespace) -> int:
    """Print the plan; with --push, carry it out."""
    from .publishing import PublishOptions, describe_plan, publish

    print(describe_plan(plan))
    if not args.push:
        print("\ndry run, nothing was sent; add --push to publish")
        return 2 if plan.problems else 0
    from huggingface_hub import HfApi

    options = PublishOptions(args.private, args.revision, args.pr, args.update, args.message)
    done = publish(plan, HfApi(), options)
    print(f"\npublished: {done.pr_url or done.url}\ncommit to pin: {done.commit}")
    return 0
