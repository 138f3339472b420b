"""The embedded checkpoint, and the code that travels with it as with every saved model.

    python -m modeling_dkd.embedding.embedded_checkpoint    # bring the code beside its weights up to date

Its weights, configuration, tokenizer and card are kept in `hub_configs/`; its code is a copy of this package's flat
files, made when the folder is made. The wheel carries the whole folder inside the package. Imports nothing slow: the
build of the wheel runs it.
"""

import os
from pathlib import Path


PACKAGE = Path(__file__).resolve().parents[1]
# Inside the package where a wheel was installed, beside it in the repository.
HUB_CONFIGS = next(path for path in (PACKAGE / "hub_configs", PACKAGE.parent / "hub_configs") if path.is_dir())
CHECKPOINT = HUB_CONFIGS / "dkd-tiny"
# Flat files that no checkpoint needs: the package's entrances, and the parser of its commands.
ENTRANCES = ("__init__.py", "__main__.py", "auto_classes.py", "cli.py", "one_line_parser.py")


def shipped_code() -> list[Path]:
    """The package's files that ship with a checkpoint: the same ones that `save_pretrained` copies."""
    return [path for path in sorted(PACKAGE.glob("*.py")) if path.name not in ENTRANCES]


def copy_code(folder: Path) -> None:
    """Bring the code in a checkpoint's folder up to date; a file that is right already is not touched.

    Args:
        folder: Of the checkpoint; code in it that no longer ships is deleted.

    Raises:
        OSError: The folder cannot be written.
    """
    ships = {path.name: path.read_bytes() for path in shipped_code()}
    for path in folder.glob("*.py"):
        if path.name not in ships:
            path.unlink(missing_ok=True)
    for name, code in ships.items():
        path = folder / name
        if path.is_file() and path.read_bytes() == code:
            continue
        # Several test processes may do this at once, and others read meanwhile.
        unfinished = path.with_name(f".{name}.{os.getpid()}.unfinished")
        unfinished.write_bytes(code)
        os.replace(unfinished, path)


if __name__ == "__main__":
    copy_code(CHECKPOINT)
