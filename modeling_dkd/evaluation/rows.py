"""Which rows a table has: zero-shot, both_centred, DKD, peers and ablations asked for, methods of the user."""

import argparse
import importlib.util
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..embedding.embedding_cache import EmbeddingSet
from .methods.ablations import ABLATIONS, ON_PARTS, ablation
from .methods.dkd import dkd
from .methods.peers import BASELINES, both_centred, zero_shot
from .names import EMBEDDING_ROWS, REFERENCE
from .protocols import Method, Task


def choose_methods(args: argparse.Namespace, embedding_set: EmbeddingSet) -> dict[str, Method]:
    """Row names and functions, in the order of the table.

    Raises:
        ValueError: gda without labelled clips, or a --method that cannot be loaded.
    """
    methods: dict[str, Method] = {REFERENCE: zero_shot, "both_centred": both_centred}
    if args.baselines is not None:
        if "gda" in args.baselines and not args.shots:
            raise ValueError("gda learns from labelled clips: give their number a class with --shots")
        named = args.baselines or [name for name in BASELINES if name != "gda" or args.shots]
        methods |= {name: BASELINES[name] for name in named}
    methods["dkd"] = dkd
    if args.ablations is not None:
        texts = embedding_set.text_embeds
        has_parts = embedding_set.video_embeds.dim() == 3 or (texts is not None and texts.dim() == 3)
        named = args.ablations or [name for name in ABLATIONS if name not in ON_PARTS or has_parts]
        methods |= {f"dkd/{name}": ablation(name) for name in named}
    return methods | own_methods(args.method or (), methods)


def embedding_methods(methods: dict[str, Method]) -> dict[str, Method]:
    """Those that return embeddings, with which search can be measured."""
    return {name: method for name, method in methods.items() if name in EMBEDDING_ROWS or name.startswith("dkd/")}


def own_methods(given: list[str] | tuple[str, ...], taken: dict[str, Method]) -> dict[str, Method]:
    """Methods of the user, FILE.py:FUNCTION each, by the function's name.

    The function takes a `Task` (`modeling_dkd.evaluation.protocols`): `domain` (N, D) or (N, T, D), `test` (M, D) or
    (M, T, D), `text` (K, D) or (K, P, D), unit-norm float32 tensors; `domain_labels` (N,) or None; `logit_scale`;
    `task.pooled()` averages frames and prompts. It returns logits (M, K), a float tensor.

    Raises:
        ValueError: No such file or function, a file that fails when it is run, or a name that a row has already.
    """
    found: dict[str, Method] = {}
    for text in given:
        file, _, function = text.rpartition(":")
        if not file or not function:
            raise ValueError(f"--method {text}: give FILE.py:FUNCTION")
        if function in taken or function in found:
            raise ValueError(f"--method {text}: a row is called {function!r} already; rename the function")
        found[function] = _load_function(Path(file), function)
    return found


def _load_function(path: Path, name: str) -> Method:
    """A function of a Python file, which is run for it; the user named it."""
    if path.suffix != ".py" or not path.is_file():
        raise ValueError(f"--method {path}:{name}: there is no Python file {path}")
    module_name = f"method_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # where dataclasses of the file look themselves up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"--method {path} fails when it is loaded: {_told(error, path)}") from error
    method = getattr(module, name, None)
    if not callable(method):
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ValueError(f"--method {path} has no function {name!r}; it has {', '.join(functions) or 'none'}")

    def told(task: Task) -> Any:
        tensors: dict[str, Any] = {
            name: value.clone() for name, value in vars(task).items() if isinstance(value, Tensor)
        }
        try:
            return method(replace(task, **tensors))  # what it writes into them is nobody else's
        except Exception as error:
            raise ValueError(f"--method {path}:{name} fails: {_told(error, path)}") from error

    return told


def _told(error: Exception, path: Path) -> str:
    """Kind and message of an exception, and the last line of the user's file that led to it, on one line."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).name == path.name]
    place = f", line {lines[-1]} of {path.name}" if lines else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{place}"
