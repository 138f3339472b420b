"""Options that the commands for unlabelled clips share, and how these commands end."""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..data.prompts import TEMPLATE_SETS
from ..one_line_parser import OneLineParser
from .classes import read_classes
from .clip_listing import list_clips, printable


DTYPES = ("float32", "bfloat16", "float16")
ONLY_SYNTHETIC = "the embedded checkpoint knows synthetic clips alone"
OWN_ENCODER = """\
an encoder of one's own (--model FILE.py:NAME or module:NAME):
  NAME is called without arguments; what it returns has
    embed_videos(list of (T, 3, H, W) uint8 RGB tensors) -> (N, D) or (N, P, D)
    embed_texts(list of str) -> (K, D) or (K, P, D)
    num_frames, and optionally logit_scale (default 100) and name (change it with the weights: embeddings are kept
    under it, the source file and num_frames)
"""


def command_parser(
    command: str, description: str, epilog: str, unreadable: str = "done, but clips could not be read"
) -> argparse.ArgumentParser:
    """A parser of `dkd COMMAND` whose errors are one line, and whose help ends with encoders and exit codes."""
    codes = f"exit code 0: all done; 1: {unreadable}; 2: you have to change something."
    return OneLineParser(f"dkd {command}", description, f"{epilog}\n\n{OWN_ENCODER}\n{codes}")


def add_paths(parser: argparse.ArgumentParser, needed: bool = True) -> None:
    """Which clips."""
    parser.add_argument(
        "paths",
        nargs="+" if needed else "*",
        metavar="PATH",
        help="videos, folders of any depth, lists (.txt, one path a line), tables (.csv with a column path)",
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Which encoder looks at clips and texts."""
    group = parser.add_argument_group("encoder")
    group.add_argument(
        "--model",
        metavar="NAME",
        help="folder or Hub repository of a DKD checkpoint or dual encoder of images or clips, open_clip:hf-hub:NAME, "
        "open_clip:local-dir:FOLDER, sentence_transformers:NAME, or FILE.py:NAME (see below); "
        f"default: {ONLY_SYNTHETIC}",
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
        "--classes", metavar="FILE", help="a file with one class a line, or a,b,c (default: those of a --domain)"
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


def add_reject_below(group: argparse._ArgumentGroup) -> None:
    """From where on a clip is one of none of the classes."""
    group.add_argument(
        "--reject-below",
        type=share,
        default=0.0,
        metavar="X",
        help="give clips no label whose known is below X (default: 0, each clip gets one; see below)",
    )


def asked_by(args: argparse.Namespace) -> dict[str, Any]:
    """What the options say of classes, encoder and cache, as each function of this package takes it."""
    import torch

    from .encoder import ModelChoice

    if args.model is None and is_main_process():
        say("note", f"{ONLY_SYNTHETIC}; for real ones give --model, such as --model openai/clip-vit-base-patch16")
    return {
        "classes": args.classes,
        "model": ModelChoice(args.model, args.frames, args.revision, getattr(torch, args.dtype)),
        "templates": args.templates,
        "descriptions": args.descriptions,
        "cache_dir": args.cache_dir,
    }


def batches_of(args: argparse.Namespace) -> dict[str, Any]:
    """How the work is shared, as the functions that take clips in batches take it."""
    return {"batch_size": args.batch_size, "num_workers": args.num_workers}


def run_command(
    parser: argparse.ArgumentParser,
    argv: list[str] | None,
    run: Callable[[argparse.Namespace], int],
    kept: str = "what is embedded is kept, run it again to go on",
) -> int:
    """The exit code of a command; errors of the user become one line and 2.

    Args:
        parser: Reads the arguments.
        argv: They; None: those of the process.
        run: Does the work and returns 0, or 1 where clips could not be read.
        kept: What an interrupted run leaves, for the message.
    """
    args = parser.parse_args(argv)
    try:
        look_at(args)
        return run(args)
    except BrokenPipeError:  # the console script ends without a word
        raise
    except (ValueError, OSError) as error:
        if is_main_process():  # the others have the same to say
            say("error", " ".join(str(error).split()))
        return 2
    except KeyboardInterrupt:
        say("error", f"interrupted; {kept}")
        return 130


@contextmanager
def ended_at_once() -> Iterator[None]:
    """While libraries are imported Ctrl-C ends the process there and then; numpy does not bear to be interrupted."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler or not _is_main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def look_at(args: argparse.Namespace) -> None:
    """Refuse what can be seen to be wrong before seconds of imports; the functions look again.

    Raises:
        ValueError: A path does not exist or holds no video, or the classes cannot be read.
    """
    if getattr(args, "paths", None):
        list_clips(args.paths)
    if args.classes is not None:
        read_classes(args.classes)


def is_main_process() -> bool:
    """Whether this is the one of the launched processes that says and writes what came out."""
    return os.environ.get("RANK", "0") == "0"


def say(kind: str, text: str) -> None:
    """A line on standard error, beneath a bar that is still there rather than within it."""
    from tqdm import tqdm

    tqdm.write(f"{kind}: {printable(text)}", file=sys.stderr)


def tell(damaged: Mapping[str, str], notes: Sequence[str] = ()) -> int:
    """Say what could not be read, and what else there is to say; the exit code."""
    for name, reason in damaged.items():
        say("not read", f"{name}: {reason}")
    for note in notes:
        say("note", note)
    return 1 if damaged else 0


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


def duration(text: str) -> float:
    """A number of seconds above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return number


def share(text: str) -> float:
    """A number from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return number
