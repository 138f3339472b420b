"""Entry of the Space. Its variables DKD_MODEL and DKD_REVISION choose another model."""

import os
import sys

from modeling_dkd.cli import main


if __name__ == "__main__":
    chosen = {"--model": os.environ.get("DKD_MODEL"), "--revision": os.environ.get("DKD_REVISION")}
    sys.exit(main(["space", *[part for name, value in chosen.items() if value for part in (name, value)]]))
