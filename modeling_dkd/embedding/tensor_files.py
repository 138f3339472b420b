"""Write safetensors files whole or not at all, with equal bytes for equal contents."""

import hashlib
import json
import os
import struct
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..domain_file import give_usual_mode


def digest_of_tensors(tensors: Mapping[str, Tensor]) -> Any:
    """A SHA-256 over names, dtypes, shapes and values, in the order of the names, to which more may be added."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a file in one go: a reader sees the old one or the whole new one, never a part, even after a power cut.

    Raises:
        OSError: The disk refuses (it is full, read-only ...); the message names the file, and nothing is left of it.
    """
    unfinished = path.with_name(f"{path.name}.unfinished-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            unfinished,
            dict(metadata or {}),
        )
        give_usual_mode(unfinished)
        sort_metadata(unfinished)
        flush(unfinished)
        os.replace(unfinished, path)
    except SafetensorError as error:  # no OSError, though it tells of one
        raise OSError(f"{path} cannot be written: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Delete the half-written files of killed runs: those that nobody has touched for ten minutes."""
    for path in folder.glob("*.unfinished-*"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > 600:
                path.unlink()


def sort_metadata(path: str | Path) -> None:
    """Rewrite the header of a safetensors file with its metadata in alphabetical order.

    The library writes metadata in an order that differs between processes; sorted, equal contents have equal bytes.
    """
    with open(path, "r+b") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        if "__metadata__" in header:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        encoded = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(encoded) > size:
            raise ValueError(f"{path}: the header does not fit its place when written again")
        file.seek(8)
        file.write(encoded.ljust(size))


def flush(path: Path) -> None:
    """Have a file or folder on the disk before it gets its name, so that a power cut leaves no empty one."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
