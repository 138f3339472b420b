"""Measure DKD against plain zero-shot: `python evaluate.py --embeddings FILE`; `--help` teaches the rest.

This file shares its name with the library `evaluate`. Python puts the folder of a script, or the working folder, first
on sys.path, so an `import evaluate` anywhere may find this file: it then hands over to the library.
"""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path


def _hand_over_to_library() -> None:
    """Put the installed library in the place of this module, searched without this folder."""
    here = Path(__file__).resolve().parent
    spec = PathFinder.find_spec("evaluate", [entry for entry in sys.path if Path(entry or ".").resolve() != here])
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError("the library 'evaluate' is not installed: pip install evaluate", name="evaluate")
    library = module_from_spec(spec)
    sys.modules["evaluate"] = library
    spec.loader.exec_module(library)


if __name__ == "evaluate":
    _hand_over_to_library()
elif __name__ == "__main__":
    from modeling_dkd.cli import main

    sys.exit(main(["evaluate", *sys.argv[1:]]))
