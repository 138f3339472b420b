"""What makes tensors a fitted domain, and the file in which one is kept without its encoder.

A domain is whole or it is none: a head that lacks one tensor of it would still look fitted, and predict nonsense.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .encoder_identity import EncoderIdentity
from .precision import has_values


DOMAIN_FILE = "dkd_domain.safetensors"
# Rises when tensors of the same names and shapes come to mean something else. Stands in every head as a buffer, for
# domain files, checkpoints and state dicts alike hold the buffers.
FORMAT_VERSION = 2
# What a domain may be kept in: rounded to fewer digits it is another one.
EXACT_DTYPES = (torch.float32, torch.float64)


def check_tensors(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], divisors: Iterable[str], source: str
) -> None:
    """Refuse tensors that are not one whole domain of this version.

    Args:
        tensors: By the names of the head's buffers; more are allowed. Where there are no values, only shapes
            are checked.
        shapes: Name and shape of all that the head keeps, `format_version` among it.
        divisors: Names of those that must be above 0.
        source: Where the tensors are from, for the message.

    Raises:
        ValueError: A tensor lacks, has another shape, is rounded (of no float dtype or below float32), not finite, or
            a divisor is not above 0; or the version is another one (the message names the first fault).
    """
    for name, shape in shapes.items():
        tensor = tensors.get(name)
        if tensor is None:
            raise no_domain(source, f"lacks {name}")
        if tuple(tensor.shape) != shape:
            raise no_domain(source, f"has {name} of shape {tuple(tensor.shape)} instead of {shape}")
        if tensor.dtype not in EXACT_DTYPES:
            raise no_domain(source, f"has {name} of {tensor.dtype} instead of {EXACT_DTYPES[0]}")
        if has_values(tensor) and not bool(tensor.isfinite().all()):
            raise no_domain(source, f"has values in {name} that are not finite")
    for name in divisors:
        if has_values(tensors[name]) and not bool((tensors[name] > 0).all()):
            raise no_domain(source, f"has values in {name} that are not above 0")
    version = tensors["format_version"]
    if has_values(version) and float(version) != FORMAT_VERSION:
        raise no_domain(source, f"has format_version {float(version):g} instead of {FORMAT_VERSION}")


def no_domain(source: str, fault: str) -> ValueError:
    """The error for tensors from `source` with this fault."""
    return ValueError(f"{source} {fault}: it is not a domain of this version of DKD; fit the domain again.")


@dataclass(frozen=True)
class StoredDomain:
    """What stands in the file of a domain.

    Attributes:
        tensors: State dict of the head.
        options: Of its configuration, as JSON can hold them.
        class_names: One a component, or None.
        encoder: Whose embeddings it was fitted to, None where that is not known.
        min_clips: Nothing of the clips of a class with fewer clips is in it; 0 where no class was withheld.
        notes: Further metadata, which others than the head wrote.
    """

    tensors: dict[str, Tensor]
    options: dict[str, Any]
    class_names: list[str] | None = None
    encoder: EncoderIdentity | None = None
    min_clips: int = 0
    notes: dict[str, str] = field(default_factory=dict)


def dtypes_in(files: Iterable[str], prefix: str) -> dict[str, torch.dtype]:
    """Dtype of each tensor in these safetensors files whose name starts with `prefix`, by the rest of its name.

    Raises:
        OSError: A file is not there, or is not whole.
    """
    dtypes: dict[str, torch.dtype] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 (not a dict)
                dtypes |= {name.removeprefix(prefix): file.get_tensor(name).dtype for name in names}
        except SafetensorError as error:
            raise OSError(f"{path} is not a whole safetensors file ({error}); copy or download it again.") from error
    return dtypes


def write_domain(folder: str | Path, domain: StoredDomain) -> None:
    """Write a domain whole or not at all.

    Args:
        folder: Made if need be.
        domain: What is written.

    Raises:
        OSError: The disk refuses; a domain that was there before stays.
    """
    path = Path(folder) / DOMAIN_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{DOMAIN_FILE}.unfinished-{os.getpid()}")
    told = {"options": domain.options, "class_names": domain.class_names, "min_clips": domain.min_clips}
    told["encoder"] = None if domain.encoder is None else domain.encoder.to_dict()
    metadata = domain.notes | {"format": "pt"} | {name: json.dumps(value) for name, value in told.items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in domain.tensors.items()}
    try:
        save_file(tensors, unfinished, metadata)
        give_usual_mode(unfinished)
        os.replace(unfinished, path)
    except SafetensorError as error:  # no OSError, though it tells of one
        raise OSError(f"{path} cannot be written: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def read_domain(path: str | Path, source: str) -> StoredDomain:
    """What `write_domain` was given.

    Args:
        path: Of the file.
        source: What messages call it.

    Raises:
        ValueError: It is none that `write_domain` wrote.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{source} is not a safetensors file ({error}); copy it again.") from error
    keys = ("options", "class_names", "encoder", "min_clips")
    try:
        options, names, encoder, min_clips = (json.loads(metadata.get(key, "null")) for key in keys)
    except (ValueError, RecursionError) as error:
        raise no_domain(source, "has metadata that is no JSON") from error
    if not isinstance(options, dict):
        raise no_domain(source, "lacks the options of its head")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise no_domain(source, "has class_names that are no list of texts")
    if min_clips is not None and (type(min_clips) is not int or min_clips < 0):
        raise no_domain(source, "has min_clips that are no number of clips")
    try:
        identity = None if encoder is None else EncoderIdentity.from_dict(encoder)
    except ValueError as error:
        raise no_domain(source, f"has an encoder with {error}") from error
    notes = {key: text for key, text in metadata.items() if key not in (*keys, "format")}
    return StoredDomain(tensors, options, names, identity, min_clips or 0, notes)


def give_usual_mode(path: Path) -> None:
    """Give a file the permissions that a new file gets here; safetensors lets its owner alone read it."""
    new = path.with_name(f"{path.name}.mode-{os.getpid()}")
    try:
        new.touch()
        path.chmod(new.stat().st_mode & 0o777)
    finally:
        new.unlink(missing_ok=True)
