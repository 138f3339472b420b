"""The command line of train.py."""

import argparse
import os
import signal
import sys
from typing import TYPE_CHECKING

from ..one_line_parser import OneLineParser


if TYPE_CHECKING:
    from .config import TrainingConfig


DESCRIPTION = """\
Fine-tune a dual encoder on the clips of a data set, with the domain's mixture fitted along the way, or fit the domain
alone (recipe.epochs=0). What comes out is a complete Hub repository with results.json."""

EPILOG = """\
examples:
  one process
    python train.py --config hub_configs/clip-vit-b32-ucf101.yaml --set data.data_dir=UCF-101
  as many processes as there are GPUs
    accelerate launch train.py --config hub_configs/clip-vit-b16-hmdb51.yaml --set data.data_dir=hmdb51_org
  two processes on a CPU
    ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2 --num_machines 1 train.py --config ...
  go on after an interruption, whatever it was
    python train.py --config ... --resume

Every option of the YAML file can be set: --set recipe.epochs=3 model.backbone=./my-clip augmentation.colour_jitter=0.
"""


def build_parser() -> argparse.ArgumentParser:
    """All options of train.py."""
    parser = OneLineParser("dkd train", DESCRIPTION, EPILOG)
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML file, see hub_configs/")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="SECTION.OPTION=VALUE",
        dest="overrides",
        help="override options of the file",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the newest complete checkpoint, or begin where there is none"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check options and names and tell what would be done, without a network"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run train.py; 0 when done, 2 with one line on standard error when the user has to change something.

    A run that was stopped by a signal gives 128 + its number, as shells do.
    """
    argv = sys.argv[1:] if argv is None else argv
    args = build_parser().parse_args(argv)
    try:
        from .config import load_config
        from .processes import end_processes

        config = load_config(args.config, args.overrides)
        if args.dry_run:
            from .dry_run import show_training_plan

            if os.environ.get("RANK", "0") == "0":
                show_training_plan(config, args.resume)
            return 0
    except ValueError as error:
        return _fail(error)
    code = _run(config, args.resume, argv)
    end_processes()
    return code


def _run(config: "TrainingConfig", resume: bool, argv: list[str]) -> int:
    """Train, and turn what may end it early into an exit code."""
    from accelerate.utils.memory import should_reduce_batch_size
    from safetensors import SafetensorError

    from .loop import train
    from .processes import Stopped

    try:
        train(config, resume, argv)
    except Stopped as stop:
        if os.environ.get("RANK", "0") == "0":
            print(stop, file=sys.stderr)
        return 128 + (stop.signal_number or signal.SIGTERM)
    except SafetensorError as error:
        return _fail(f"{config.run.output_dir} cannot be written to ({error}); make room, then go on with --resume")
    except RuntimeError as error:
        if should_reduce_batch_size(error):
            reason = str(error).strip().splitlines()[0]
            return _fail(
                f"out of memory ({reason}); begin anew with a lower recipe.batch_size (and more "
                "recipe.accumulation_steps), or with recipe.activation_checkpointing=true"
            )
        if "DataLoader worker" not in str(error):
            raise
        # torch raises it wherever the run happens to be when the signal of the dead process comes.
        reason = str(error).strip().splitlines()[0]
        return _fail(f"a decoding process died ({reason}); out of memory? Lower data.num_workers, then --resume")
    except BrokenPipeError:  # the console script ends without a word
        raise
    except (ValueError, OSError) as error:
        return _fail(error)
    return 0


def _fail(error: Exception | str) -> int:
    """One line for the user; other processes than the first say which they are, for the error may be theirs alone."""
    rank = os.environ.get("RANK", "0")
    print(f"error: {error}" if rank == "0" else f"error in process {rank}: {error}", file=sys.stderr)
    return 2
