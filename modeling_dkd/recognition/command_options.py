"""Options that the commands for unlabelled clips share, and how these commands end."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from ..data.prompts import TEMPLATE_SETS
from ..one_line_parser import OneLineParser


DTYPES = ("float32", "bfloat16", "float16")
OWN_ENCODER = """\
an encoder of one's own (--model FILE.py:NAME or module:NAME):
  NAME is called without arguments; what it returns has
    embed_videos(list of (T, 3, H, W) uint8 RGB tensors) -> (N, D) or (N, P, D)
    embed_texts(list of str) -> (K, D) or (K, P, D)
    num_frames, and optionally logit_scale (default 100) and name (change it with the weights: embeddings are kept
    under it, the source file and num_frames)
"""


def command_parser(command: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """A parser of `dkd COMMAND` whose errors are one line."""
    return OneLineParser(f"dkd {command}", description, epilog)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Which encoder looks at clips and texts."""
    group = parser.add_argument_group("encoder")
    group.add_argument(
        "--model",
        metavar="NAME",
        help="folder or Hub repository of a DKD checkpoint or CLIP-like dual encoder, or FILE.py:NAME (see below); "
        "default: the embedded checkpoint, which knows synthetic clips alone",
    )
    group.add_argument("--revision", metavar="COMMIT", help="branch, tag or commit of the --model repository")
    group.add_argument(
        "--frames", type=positive, metavar="N", help="frames a clip (default: as many as the encoder says)"
    )
    group.add_argument("--dtype", choices=DTYPES, default="float32", help="what the image encoder multiplies in")


def add_class_options(parser: argparse.ArgumentParser) -> None:
    """Which classes there are, and how they are put into words."""
    group = parser.add_argument_group("classes")
    group.add_argument(
        "--classes", metavar="FILE", help="a file with one class a line, or a,b,c (default: those of the --domain)"
    )
    group.add_argument(
        "--templates",
        metavar="NAME",
        help=f"prompt templates: {', '.join(TEMPLATE_SETS)} or a file with one a line (default: the encoder's own)",
    )
    group.add_argument("--descriptions", metavar="FILE", help="JSON {class: text or texts}, instead of templates")


def add_work_options(parser: argparse.ArgumentParser, batches: bool = True) -> None:
    """Where embeddings are kept and, where clips are worked off in batches, how the work is shared."""
    group = parser.add_argument_group("work")
    group.add_argument(
        "--cache-dir",
        type=Path,
        metavar="DIR",
        help="where embeddings are kept; each clip is embedded once (default: $DKD_CACHE, or ~/.cache/dkd)",
    )
    if not batches:
        return
    group.add_argument("--batch-size", type=positive, metavar="N", help="clips a batch (default: by the encoder)")
    group.add_argument(
        "--num-workers", type=not_negative, default=2, metavar="N", help="decoding processes (default: 2)"
    )


def ending(run: Callable[[], int], kept: str) -> int:
    """The exit code of a command; errors of the user become one line and 2.

    Args:
        run: Does the work and returns 0, or 1 where clips could not be read.
        kept: What an interrupted run leaves, for the message.
    """
    try:
        return run()
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"error: interrupted; {kept}", file=sys.stderr)
        return 130


def is_main_process() -> bool:
    """Whether this is the one of the launched processes that says and writes what came out."""
    return os.environ.get("RANK", "0") == "0"


def printable(text: str) -> str:
    """A text in one line of a terminal, whatever a file name holds."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def positive(text: str) -> int:
    """A whole number above 0."""
    number = not_negative(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return number


def not_negative(text: str) -> int:
    """A whole number from 0."""
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def share(text: str) -> float:
    """A number from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return number
