"""Embeddings of clips, their labels and the class texts in one file: our safetensors cache, or arrays of an .npz.

embedding_set = read_embeddings("ucf101_val.safetensors")
embedding_set = read_embeddings("features.npz", video_embeds="image_f", text_embeds="text_avg")
write_embeddings("copy.safetensors", embedding_set)
"""

import json
import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..embedding_inputs import check_class_names
from .cache_arrays import ARRAYS
from .tensor_files import write_tensors


# What numpy, zipfile and zlib raise on a damaged .npz: features that no .npz has, sizes that nothing holds.
NPZ_ERRORS = (ValueError, OSError, EOFError, KeyError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class EmbeddingSet:
    """Embeddings of one part of a data set.

    Attributes:
        video_embeds: (N, D), or (N, T, D) with one row a frame; float32, any length but 0.
        labels: (N,) int64, index into the class texts, -1 for an unlabelled clip.
        text_embeds: (K, D), or (K, P, D) with one row a prompt; float32; None where the classes are unknown.
        metadata: names (N clip names), class_names (K), prompts, backbone, revision, dataset, split, frames,
            preprocessing, and logit_scale where the backbone's differs from 100; all optional, JSON values.
    """

    video_embeds: Tensor
    labels: Tensor
    text_embeds: Tensor | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_embeddings("video_embeds", self.video_embeds)
        if self.labels.shape != self.video_embeds.shape[:1]:
            raise ValueError(
                f"labels have shape {tuple(self.labels.shape)}, but there are {len(self.video_embeds)} video "
                "embeddings: give one label a clip, -1 where it is unknown"
            )
        if self.labels.is_floating_point():
            raise ValueError(f"labels are {self.labels.dtype}: give whole numbers")
        scale = self.metadata.get("logit_scale", 100.0)
        if not isinstance(scale, int | float) or not 0 < scale < math.inf:
            raise ValueError(f"logit_scale {scale!r} in the metadata: it must be a number above 0")
        if self.labels.min() < -1:
            raise ValueError(f"label {int(self.labels.min())} is below -1, which stands for an unlabelled clip")
        for key in ("names", "class_names"):
            listed = self.metadata.get(key)
            is_list = isinstance(listed, list | tuple) and all(isinstance(name, str) for name in listed)
            if listed is not None and not is_list:
                raise ValueError(f"{key} in the metadata must be a list of texts, not {str(listed)[:60]!r}")
        if self.text_embeds is not None:
            _check_embeddings("text_embeds", self.text_embeds)
            self._check_classes(self.text_embeds)
        names = self.metadata.get("names")
        if names is not None and len(names) != len(self.labels):
            raise ValueError(f"{len(names)} clip names for {len(self.labels)} clips: give one name a clip")

    def _check_classes(self, text_embeds: Tensor) -> None:
        num_classes, dim = len(text_embeds), text_embeds.shape[-1]
        if dim != self.video_embeds.shape[-1]:
            raise ValueError(
                f"video embeddings have {self.video_embeds.shape[-1]} dimensions and text embeddings {dim}: "
                "both must come from one dual encoder"
            )
        if self.labels.max() >= num_classes:
            row = int(self.labels.argmax())
            raise ValueError(
                f"label {int(self.labels[row])} of clip {row} is out of range: there are {num_classes} class texts, "
                f"so labels go from 0 to {num_classes - 1}"
            )
        names = self.metadata.get("class_names")
        check_class_names(names, text_embeds.shape)

    @property
    def class_names(self) -> list[str]:
        """One name a class, numbered where the file has none, made unique where two classes share one."""
        num_classes = int(self.labels.max()) + 1 if self.text_embeds is None else len(self.text_embeds)
        return unique_names(self.metadata.get("class_names") or [f"class {k}" for k in range(num_classes)])


def unique_names(names: list[str]) -> list[str]:
    """The names, with the class number added to each that stands more than once."""
    return [f"{name} [{k}]" if names.count(name) > 1 else name for k, name in enumerate(names)]


def _check_embeddings(name: str, embeds: Tensor) -> None:
    """Refuse what cannot be compared by a cosine, naming the first bad row."""
    if embeds.dim() not in (2, 3) or 0 in embeds.shape:
        raise ValueError(f"{name} has shape {tuple(embeds.shape)}: expected (rows, D) or (rows, parts, D), none empty")
    finite = embeds.isfinite().flatten(1).all(1)
    if not finite.all():
        raise ValueError(
            f"{name}: row {int((~finite).nonzero()[0])} holds NaN or infinity; encode it again or drop it"
        )
    lengths = embeds.norm(dim=-1).reshape(len(embeds), -1).amin(1)
    if not lengths.all():
        raise ValueError(f"{name}: row {int((lengths == 0).nonzero()[0])} is all zeros and has no direction; drop it")


def read_embeddings(path: str | os.PathLike, **arrays: str) -> EmbeddingSet:
    """The embeddings of a cache (.safetensors) or of the arrays of an .npz.

    Args:
        path: File; nothing in it is unpickled. An .npz may hold logit_scale, a number, too.
        **arrays: Names in this file of what `ARRAYS` lists, where they differ: video_embeds="image_f".

    Raises:
        ValueError: No such file or array, not a file of this kind, or contents that no head can use.
    """
    path = Path(path)
    with _naming(path):
        file = _ArrayFile.read(path, arrays)
        videos, labels = file.embeddings("video_embeds"), file.whole_numbers("labels")
        texts = file.embeddings("text_embeds") if file.has("text_embeds") else None
        if file.has("text_rows", only_if_named=True):
            labels = _renumbered(labels, file.whole_numbers("text_rows"))
        class_names = file.texts("class_names")
        if texts is not None and texts.dim() == 3 and class_names is not None and len(texts) != len(class_names):
            texts = texts.transpose(0, 1).contiguous()
        described = {
            "names": file.texts("names"),
            "class_names": class_names,
            "prompts": file.texts("prompts"),
            "texts": arrays.get("text_embeds"),
        }
        if path.suffix == ".npz":
            described |= {"dataset": path.stem, "frames": videos.shape[1] if videos.dim() == 3 else None}
        return EmbeddingSet(videos, labels, texts, file.metadata | _without_none(described))


def read_with_texts(
    path: str | os.PathLike,
    text_path: str | os.PathLike,
    arrays: Mapping[str, str] | None = None,
    text_arrays: Mapping[str, str] | None = None,
) -> EmbeddingSet:
    """The clips of one file with the class texts of another.

    Where the text file has an array class_id, row j of its texts stands for the label class_id[j]: clips of other
    classes are dropped and labels become positions in the text file. Without it both must list the same classes.

    Args:
        path: File of the clips.
        text_path: File of the class texts.
        arrays: As of `read_embeddings`, for the clips.
        text_arrays: The same for the texts.
    """
    videos, text_path = read_embeddings(path, **(arrays or {})), Path(text_path)
    with _naming(text_path):
        file = _ArrayFile.read(text_path, text_arrays or {})
        texts = file.embeddings("text_embeds")
        described = {"class_names": file.texts("class_names"), "prompts": file.texts("prompts")}
        known = {key: value for key, value in videos.metadata.items() if key != "prompts"}
        known |= _without_none(described) | {"texts": text_path.name}
        if not file.has("class_id"):
            return replace(videos, text_embeds=texts, metadata=known)
        if described["class_names"] is None:  # the video file's names are those of its own labels
            known.pop("class_names", None)
        return _joined(videos, texts, file.whole_numbers("class_id"), known)


def write_embeddings(path: str | os.PathLike, embedding_set: EmbeddingSet) -> None:
    """Write a cache in one go: a reader sees the old file or the whole new one, never a part."""
    path = Path(path)
    tensors = {"video_embeds": embedding_set.video_embeds, "labels": embedding_set.labels.long()}
    if embedding_set.text_embeds is not None:
        tensors["text_embeds"] = embedding_set.text_embeds
    metadata = {key: json.dumps(value) for key, value in embedding_set.metadata.items()}
    write_tensors(path, tensors, metadata)


def array_names(path: str | os.PathLike) -> list[str]:
    """Names of the arrays in a cache or an .npz, sorted."""
    path = Path(path)
    with _naming(path):
        return sorted(_ArrayFile.read(path, {}).arrays)


@dataclass(frozen=True)
class _ArrayFile:
    """All arrays of a file with its metadata, looked up by what they are (`ARRAYS`)."""

    path: Path
    arrays: dict[str, np.ndarray]
    metadata: dict[str, Any]
    named: Mapping[str, str]

    @classmethod
    def read(cls, path: Path, named: Mapping[str, str]) -> "_ArrayFile":
        unknown = [name for name in named if name not in ARRAYS]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is nothing that a file can hold: choose from {', '.join(ARRAYS)}")
        if not path.is_file():
            raise ValueError("no such file")
        if path.suffix == ".npz":
            arrays, metadata = _read_npz(path)
        elif path.suffix == ".safetensors":
            arrays, metadata = _read_safetensors(path)
        else:
            raise ValueError(f"a file ending in {path.suffix!r} is no source: give a .safetensors cache or an .npz")
        return cls(path, arrays, metadata, named)

    def has(self, name: str, only_if_named: bool = False) -> bool:
        """Whether there is such an array, or the caller says that there is."""
        return name in self.named or (not only_if_named and name in self.arrays)

    def numbers(self, name: str) -> np.ndarray:
        own = self.named.get(name, name)
        if own not in self.arrays:
            held = ", ".join(sorted(self.arrays)) or "nothing"
            raise ValueError(f"no array {own!r}; it holds {held}: say which are the {name} with FILE:{name}=NAME")
        array = self.arrays[own]
        if array.dtype.kind not in "iuf":
            raise ValueError(f"array {own!r} has dtype {array.dtype} and holds no numbers: name another")
        return array

    def embeddings(self, name: str) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.numbers(name), dtype=np.float32))

    def whole_numbers(self, name: str) -> Tensor:
        array = self.numbers(name)
        if array.dtype.kind not in "iu":
            own = self.named.get(name, name)
            raise ValueError(f"array {own!r} has dtype {array.dtype}: {name} must be whole numbers")
        return torch.from_numpy(array.astype(np.int64))

    def texts(self, name: str) -> Any:
        """A list of texts from an array, or what the metadata say; None where there is neither."""
        own = self.named.get(name, name)
        if own in self.arrays:
            return [str(text) for text in np.atleast_1d(self.arrays[own]).tolist()]
        if name in self.named and own not in self.metadata:
            self.numbers(name)  # says what there is
        return self.metadata.get(own)


def _renumbered(labels: Tensor, text_rows: Tensor) -> Tensor:
    """Rows of the class texts (N,) for labels (N,) that index `text_rows`; -1 stays."""
    if text_rows.dim() != 1 or int(labels.max()) >= len(text_rows):
        raise ValueError(f"label {int(labels.max())} is out of range for text_rows of shape {tuple(text_rows.shape)}")
    return torch.where(labels < 0, labels, text_rows[labels.clamp_min(0)])


def _joined(videos: EmbeddingSet, texts: Tensor, class_ids: Tensor, metadata: dict[str, Any]) -> EmbeddingSet:
    """Keep the clips whose label is in `class_ids` (K,) and number them by its order."""
    if class_ids.shape != texts.shape[:1] or len(class_ids.unique()) != len(class_ids):
        raise ValueError(f"class_id must hold one different number for each of the {len(texts)} class texts")
    matches = videos.labels[:, None] == class_ids
    kept = matches.any(1).nonzero()[:, 0]
    if not len(kept):
        raise ValueError("no clip has a label that occurs in class_id: these files do not belong together")
    names = metadata.get("names")
    if names is not None:
        metadata = metadata | {"names": [names[i] for i in kept.tolist()]}
    labels = matches[kept].long().argmax(1)
    return EmbeddingSet(videos.video_embeds[kept], labels, texts, metadata)


def _read_npz(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """All arrays of an .npz, with logit_scale as metadata; object arrays, which would need pickle, are refused."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except NPZ_ERRORS as error:
        raise ValueError(f"not a readable .npz without pickled objects ({error})") from error
    scale = arrays.get("logit_scale")
    return arrays, {} if scale is None else {"logit_scale": scale.item() if scale.size == 1 else scale.tolist()}


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and the decoded metadata of a cache; bfloat16, which numpy lacks, as float32."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            raw = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"not a readable safetensors file ({error})") from error
    arrays = {name: (t.float() if t.is_floating_point() else t).numpy() for name, t in tensors.items()}
    try:
        return arrays, {key: json.loads(value) for key, value in raw.items() if key != "format"}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the metadata is not JSON ({error}): write caches with write_embeddings") from error


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the file before the message of a ValueError, once."""
    try:
        yield
    except ValueError as error:
        message = str(error)
        raise ValueError(message if message.startswith(str(path)) else f"{path}: {message}") from error


def _without_none(metadata: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if value is not None}
