"""Command line of the hub: cards, publishing, embeddings as data sets."""

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any, NoReturn

from .upload_checks import LEFT_OUT


DESCRIPTION = """\
Publish models and embeddings, and write cards whose figures come from results files.

`publish` and `publish-embeddings` show what would go up (files, sizes, the card) and send nothing until --push."""

EPILOG = """\
from a YAML file to a published model:
  train.py fits the domain (and fine-tunes, unless recipe.epochs=0), tests, and writes the repository with its card
    accelerate launch train.py --config hub_configs/clip-vit-b16-ucf101.yaml --set data.data_dir=UCF-101
  more figures for the card, with the encoders that it describes
    python evaluate.py --model runs/clip-vit-b16-ucf101 --dataset hmdb51 --data_dir hmdb51_org \\
      --update_card runs/clip-vit-b16-ucf101
  look at what would be published, then publish it
    python -m modeling_dkd.hub publish --config hub_configs/clip-vit-b16-ucf101.yaml
    python -m modeling_dkd.hub publish --config hub_configs/clip-vit-b16-ucf101.yaml --push --private
"""


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and leave with exit code 2."""
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = OneLineParser(
        prog="python -m modeling_dkd.hub",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    card = commands.add_parser("card", help="write the card of a folder from what lies in it", allow_abbrev=False)
    card.add_argument("folder", type=Path, metavar="FOLDER", help="of a saved model")
    card.add_argument("--repo_id", metavar="NAME", help="what its examples load (default: as in training_config.yaml)")
    card.add_argument("--results", nargs="+", type=Path, default=[], metavar="FILE", help="results files to add first")
    card.add_argument("--figures", nargs="+", type=Path, default=[], metavar="PNG", help="pictures to add first")
    publish = commands.add_parser("publish", help="publish a model; a dry run without --push", allow_abbrev=False)
    publish.add_argument("folder", type=Path, nargs="?", metavar="FOLDER", help="of a saved model")
    publish.add_argument("--config", type=Path, metavar="FILE", help="YAML file: its run.output_dir and repo_id")
    publish.description = f"Left out of every folder: {', '.join(LEFT_OUT)} and tracker logs."
    _add_publish_options(publish)
    embeddings = commands.add_parser(
        "publish-embeddings",
        help="publish embedding caches as a data set; a dry run without --push",
        allow_abbrev=False,
    )
    embeddings.add_argument(
        "caches", nargs="+", metavar="SPLIT=FILE", help="caches of one encoder, such as test=ucf101-1-test.safetensors"
    )
    embeddings.add_argument("--output", type=Path, metavar="DIR", help="keep the data set's files here")
    _add_publish_options(embeddings)
    fetch = commands.add_parser(
        "fetch-embeddings", help="write the cache of a published data set of embeddings", allow_abbrev=False
    )
    fetch.add_argument("repo_id", metavar="NAME", help="Hub repository, or a folder")
    fetch.add_argument("--split", default="test", help="(default: test)")
    fetch.add_argument("--revision", metavar="COMMIT", help="branch, tag or commit")
    fetch.add_argument("--output", type=Path, required=True, metavar="FILE", help="cache that evaluate.py reads")
    return parser


def _add_publish_options(parser: argparse.ArgumentParser) -> None:
    """Where to and how."""
    parser.add_argument("--repo_id", metavar="OWNER/NAME", help="repository on the Hub")
    parser.add_argument("--push", action="store_true", help="send it; without this nothing leaves the machine")
    parser.add_argument("--private", action="store_true", help="make the repository private (default: public)")
    parser.add_argument("--revision", metavar="BRANCH", help="write to this branch (default: main)")
    parser.add_argument("--pr", action="store_true", help="open a pull request instead of writing to the branch")
    parser.add_argument("--update", action="store_true", help="write into a repository that exists already")
    parser.add_argument("--message", metavar="TEXT", help="of the commit")


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 when done, 2 with one line on standard error when the user has to change something."""
    args = build_parser().parse_args(argv)
    commands = {
        "card": write_model_card,
        "publish": publish_model,
        "publish-embeddings": publish_embeddings,
        "fetch-embeddings": fetch_embeddings,
    }
    try:
        return commands[args.command](args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130


def write_model_card(args: argparse.Namespace) -> int:
    """Add results files and pictures, then write the card."""
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


def publish_model(args: argparse.Namespace) -> int:
    """Show or send a folder."""
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
    return _show_or_send(plan_publication(folder, repo_id), args)


def publish_embeddings(args: argparse.Namespace) -> int:
    """Write the tables of a data set of embeddings, and show or send them."""
    import tempfile

    from .embedding_dataset import read_caches, write_dataset
    from .publishing import plan_publication

    if not args.repo_id:
        raise ValueError("give the data set a name: --repo_id OWNER/NAME")
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.output or Path(scratch)
        write_dataset(read_caches(args.caches), folder, args.repo_id)
        return _show_or_send(plan_publication(folder, args.repo_id, "dataset"), args)


def fetch_embeddings(args: argparse.Namespace) -> int:
    """Turn a data set of embeddings back into a cache."""
    from ..embedding.embedding_cache import write_embeddings
    from .embedding_dataset import read_dataset

    found = read_dataset(args.repo_id, args.split, args.revision)
    write_embeddings(args.output, found)
    print(f"written: {args.output}, {len(found.labels)} clips; python evaluate.py --embeddings {args.output}")
    return 0


def _show_or_send(plan: Any, args: argparse.Namespace) -> int:
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


if __name__ == "__main__":
    sys.exit(main())
