"""Cold start: seconds until a fresh process has imported the package or printed a --help."""

import subprocess
import sys

from .rows import REPOSITORY, Row, alternate, compare


COMMANDS = {
    "import modeling_dkd": ["-c", "import modeling_dkd"],
    "python evaluate.py --help": ["evaluate.py", "--help"],
    "python train.py --help": ["train.py", "--help"],
    "python -m modeling_dkd publish --help": ["-m", "modeling_dkd", "publish", "--help"],
}
OTHERS = {
    "import torch": ["-c", "import torch"],
    "import transformers": ["-c", "import transformers"],
    "import torch, transformers.CLIPModel": ["-c", "import torch; from transformers import CLIPModel"],
}


def measure() -> list[Row]:
    """Every command in turn; each of ours against the bare imports."""

    def start(arguments: list[str]) -> None:
        subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, capture_output=True, check=True)

    seconds = alternate(
        5,
        {
            name: lambda arguments=arguments: start(arguments)  # type: ignore[misc]
            for name, arguments in (COMMANDS | OTHERS).items()
        },
    )
    return [compare(ours, seconds[ours], other, seconds[other], "s") for ours in COMMANDS for other in OTHERS]
