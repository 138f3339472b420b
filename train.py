"""Fine-tune on a data set: `accelerate launch train.py --config hub_configs/NAME.yaml`; `--help` teaches the rest."""

import sys

from modeling_dkd.cli import main


if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
