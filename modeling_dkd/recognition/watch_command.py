"""`dkd watch`: files are recognised as they arrive."""

import argparse
import time

from .classes import require_classes
from .clip_listing import printable
from .command_options import (
    add_class_options,
    add_model_options,
    add_reject_below,
    add_work_options,
    asked_by,
    batches_of,
    command_parser,
    ended_at_once,
    run_command,
)


DESCRIPTION = """\
Watch a folder and recognise each file once it has arrived whole. Results are appended to a table, the domain learns
from every clip. Ended in whatever way and started again with the same --output, it goes on where it stopped: no clip
is lost, none stands twice. A file that is replaced by another counts as a new clip."""

EPILOG = """\
the table has the columns of dkd recognise and two more: modified (when the file was last changed, UTC) and bytes. clip
is the path below FOLDER. A file that cannot be read is waited for (--patience) before it is written down as damaged.

examples
  dkd watch camera --classes classes.txt --model openai/clip-vit-base-patch16 --output seen.csv
  with yesterday's domain, which goes on learning
    dkd watch camera --domain kitchen --model openai/clip-vit-base-patch16 --output seen.csv
  only what is there now, from cron
    dkd watch camera --classes classes.txt --output seen.csv --once

--reject-below: how to choose it is told by dkd recognise --help. Ctrl-C ends watch, with exit code 0."""


def build_parser() -> argparse.ArgumentParser:
    """All options, in groups."""
    parser = command_parser("watch", DESCRIPTION, EPILOG, "ended, but clips could not be read")
    parser.add_argument("folder", metavar="FOLDER", help="where files arrive, in sub-folders too")
    add_class_options(parser)
    add_model_options(parser)
    domain = parser.add_argument_group("domain", "by default a new one, which learns from every clip")
    domain.add_argument("--domain", metavar="DIR", help="go on with this one, and save it there; made if need be")
    domain.add_argument(
        "--save-domain", metavar="DIR", help="save it here instead; then --domain may be OWNER/NAME on the Hub"
    )
    domain.add_argument("--no-adapt", action="store_true", help="use none: plain zero-shot")
    add_reject_below(domain)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output",
        default="predictions.csv",
        metavar="FILE",
        help="table that ends in .csv or .jsonl, appended to (default: predictions.csv)",
    )
    times = parser.add_argument_group("waiting")
    times.add_argument("--interval", type=seconds, default=2.0, metavar="S", help="seconds between looks (default: 2)")
    times.add_argument(
        "--settle",
        type=seconds,
        default=3.0,
        metavar="S",
        help="a file has arrived when it was the same for so long and nobody writes to it (default: 3)",
    )
    times.add_argument(
        "--patience", type=seconds, default=60.0, metavar="S", help="for files that cannot be read (default: 60)"
    )
    times.add_argument("--once", action="store_true", help="end when all that is there is done")
    add_work_options(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run it; the exit code."""
    return run_command(build_parser(), argv, _run, "what is written down is kept, run it again to go on")


def _run(args: argparse.Namespace) -> int:
    require_classes(args.classes, args.domain)
    with ended_at_once():
        from .clip_recognition import DomainUse
        from .folder_watch import Waiting, watch

    use = DomainUse(args.domain, not args.no_adapt, False, args.save_domain, None, args.reject_below)
    waiting = Waiting(args.interval, args.settle, args.patience, args.once)
    batches = watch(args.folder, output=args.output, use=use, waiting=waiting, **asked_by(args), **batches_of(args))
    print(f"watching {printable(args.folder)}; results go to {printable(args.output)}; Ctrl-C ends it", flush=True)
    damaged = 0
    try:
        for predictions in batches:
            for p in predictions:
                damaged += bool(p.error)
                what = f"not read: {p.error}" if p.error else f"{p.label or 'none of these'}  {p.confidence or 0:.2f}"
                print(f"{time.strftime('%H:%M:%S')}  {printable(p.clip)}  {printable(what)}", flush=True)
    except KeyboardInterrupt:
        print("ended", flush=True)
    return 1 if damaged else 0


def seconds(text: str) -> float:
    """A number of seconds, 0 or more."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0 to 86400")
    return number
