"""`dkd fetch-embeddings`: the cache that a published data set of embeddings was made of."""

from pathlib import Path

from ..one_line_parser import OneLineParser


DESCRIPTION = """\
Write the embedding cache of a published data set of embeddings, for dkd evaluate --embeddings."""


def build_parser() -> OneLineParser:
    """All options."""
    parser = OneLineParser("dkd fetch-embeddings", DESCRIPTION)
    parser.add_argument("repo_id", metavar="NAME", help="Hub repository, or a folder")
    parser.add_argument("--split", default="test", help="(default: test)")
    parser.add_argument("--revision", metavar="COMMIT", help="branch, tag or commit")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="cache that dkd evaluate reads")
    return parser


def main(argv: list[str]) -> int:
    """Turn a data set of embeddings back into a cache; 0 when done."""
    args = build_parser().parse_args(argv)
    from ..embedding.embedding_cache import write_embeddings
    from .embedding_dataset import read_dataset

    found = read_dataset(args.repo_id, args.split, args.revision)
    write_embeddings(args.output, found)
    print(f"written: {args.output}, {len(found.labels)} clips; dkd evaluate --embeddings {args.output}")
    return 0
