"""`dkd demo`: zero-shot beside DKD on made-up clips of shifted domains."""

import shlex
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..one_line_parser import OneLineParser


if TYPE_CHECKING:
    from .demo_recognition import DemoRecognition
    from .shift_results import ShiftResult


DESCRIPTION = """\
Write synthetic clips of shifted domains as video files and embed them with the embedded checkpoint. First they are
recognised and searched as if nobody had labelled them, with a page to look at for each; then plain zero-shot and DKD,
fitted on a random half without labels, are tested on the other half. Needs no network, no data, no GPU."""

EPILOG = """\
examples:
  dkd demo --quick         half a minute, two domains
  dkd demo --output demo   two minutes, all domains, five seeds; what the model card of dkd-tiny shows
"""


def build_parser() -> OneLineParser:
    """All options."""
    parser = OneLineParser("dkd demo", DESCRIPTION, EPILOG)
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder for results (default: demo)")
    parser.add_argument("--clips", type=int, help="clips of each target (default: 1000; with --quick 200)")
    parser.add_argument("--quick", action="store_true", help="the default target and the unshifted clips alone")
    return parser


def main(argv: list[str]) -> int:
    """Run the demo and print what it shows; 0 when done."""
    args = build_parser().parse_args(argv)
    import torch
    from transformers.utils.logging import disable_progress_bar

    from .demo import NUM_CLIPS, NUM_SEEDS, QUICK_CLIPS, QUICK_TARGETS, TARGETS, run_demo

    disable_progress_bar()  # of weights that are there at once
    torch.set_num_threads(1)  # the tiny encoder's steps are too small to be shared; others write clips meanwhile
    targets, num_clips = (QUICK_TARGETS, QUICK_CLIPS) if args.quick else (TARGETS, NUM_CLIPS)
    found = run_demo(args.output, targets, num_clips if args.clips is None else args.clips)
    told = recognised(found.recognised, args.output), measured(found.shifts, NUM_SEEDS), try_next(args.output)
    print("\n" + "\n\n".join(told))
    if find_spec("matplotlib") is None:
        print('Figures were left out: they need matplotlib (pip install "modeling-dkd[eval]").')
    return 0


def recognised(found: "DemoRecognition", output: Path) -> str:
    """What became of the clips of the first target."""
    from .clips import ACTIONS, DEFAULT_TARGET
    from .demo_recognition import NUM_FOUND, QUERY, REPORT_FOLDER, SHEET_FILE

    return (
        f"{found.num_clips} clips of {DEFAULT_TARGET}, recognised as if nobody had labelled them:\n"
        f"  right  {100 * found.right_before:.1f} % with plain zero-shot, {100 * found.right_after:.1f} % with the "
        f"domain, which changed {found.num_changed} labels\n"
        f"  look   {output / REPORT_FOLDER / 'index.html'}\n"
        f"Searched by text, the first {NUM_FOUND} clips found for each of {len(ACTIONS)} actions:\n"
        f"  right  {100 * found.found_before:.0f} % with plain cosines, {100 * found.found_after:.0f} % with the "
        "domain\n"
        f"  look   {output / SHEET_FILE}, clips found for {QUERY!r}"
    )


def measured(shifts: "Sequence[ShiftResult]", num_seeds: int) -> str:
    """The table, and how to read it."""
    from .shift_results import markdown_table

    first = shifts[0]
    return (
        "Measured with one half of the clips as the domain, without labels, and the other as the test:\n\n"
        f"{markdown_table(shifts)}\n\n"
        f"On {first.target} {100 * first.zero_shot:.1f} % of {first.num_test} test clips become "
        f"{100 * first.dkd:.1f} %: {100 * first.gain:+.1f} ± {100 * first.gain_spread:.1f} points over {num_seeds} "
        "seeds.\n'no clear change': the gain is within two standard errors of zero.\n"
        "The tiny encoder learned on purpose from captions guessed in part from the scene, so it has a text bias to\n"
        "correct on source too: this shows the mechanism, not the gain to expect on real videos."
    )


def try_next(output: Path) -> str:
    """Three commands."""
    from .clips import DEFAULT_TARGET
    from .demo_recognition import CLASSES_FILE

    clips, classes = (shlex.quote(str(output / name)) for name in (f"clips/{DEFAULT_TARGET}", CLASSES_FILE))
    return (
        f"Everything is in {output}. Try next:\n"
        f"  dkd recognise {clips} --classes {classes} --report report\n"
        f'  dkd search "moving left" {clips} --classes {classes} --sheet found.html\n'
        "  dkd recognise YOUR_CLIPS --classes cooking,eating --model openai/clip-vit-base-patch16 --report my-report"
    )
