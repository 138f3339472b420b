"""Embeddings of clips, their labels and the class texts in one file: our safetensors cache, or arrays of an .npz.

embedding_set = read_embeddings("ucf101_val.safetensors")
write_embeddings("copy.safetensors", embedding_set)
"""

import json
import os
import zipfile
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .tensor_files import write_tensors


# What an .npz calls its arrays when nobody says so: the first that is there is taken.
VIDEO_KEYS = ("video_embeds", "image_f", "val_f", "test_f", "conse", "features")
LABEL_KEYS = ("labels", "label", "targets")
TEXT_KEYS = ("text_embeds", "text_avg", "text", "text_mapped_from_minilm", "text14", "text_f")
CLASS_NAME_KEYS = ("class_names", "classnames", "class_name")

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
        if not isinstance(scale, int | float) or not scale > 0:
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
        if names is not None and len(names) != num_classes:
            raise ValueError(f"{len(names)} class names for {num_classes} class texts: give one name a class")

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


def read_embeddings(
    path: str | os.PathLike,
    *,
    video_key: str | None = None,
    label_key: str | None = None,
    text_key: str | None = None,
) -> EmbeddingSet:
    """The embeddings of a cache (.safetensors) or of the arrays of an .npz.

    Args:
        path: File; nothing in it is unpickled.
        video_key: Array of the video or image embeddings; None guesses.
        label_key: Array of the labels; None guesses from the other two (`val_f` goes with `val_l`, `text101` with
            `labels101`).
        text_key: Array of the class texts; None guesses. (P, K, D) is turned into (K, P, D).

    Raises:
        ValueError: No such file or array, not a file of this kind, or contents that no head can use.
    """
    path = Path(path)
    try:
        if path.suffix == ".npz":
            return _from_arrays(path, _read_npz(path), video_key, label_key, text_key)
        if path.is_file() and path.suffix != ".safetensors":
            raise ValueError(f"a file ending in {path.suffix!r} is no source: give a .safetensors cache or an .npz")
        arrays, metadata = _read_safetensors(path)
        video, label = video_key or "video_embeds", label_key or "labels"
        text = text_key or "text_embeds"
        for name in (video, label, *([text] if text_key else [])):
            _require(arrays, name, path)
        text_embeds = arrays[text].float() if text in arrays else None
        return EmbeddingSet(arrays[video].float(), arrays[label].long(), text_embeds, metadata)
    except ValueError as error:
        raise ValueError(_named(path, error)) from error


def read_with_texts(
    path: str | os.PathLike, text_path: str | os.PathLike, *, text_key: str | None = None, **keys: str | None
) -> EmbeddingSet:
    """The clips of one file with the class texts of another.

    Where the text file has an array `class_id`, row j of its texts stands for the label class_id[j]: clips of other
    classes are dropped and labels become positions in the text file. Without it both must list the same classes.
    """
    videos = read_embeddings(path, **keys)
    text_path = Path(text_path)
    try:
        arrays, metadata = _read_text_file(text_path)
        name = text_key or _first(arrays, TEXT_KEYS)
        if name is None:
            raise ValueError(f"no text embeddings among {_listed(arrays)}: name the array with --text_key")
        texts = torch.from_numpy(_numbers(arrays, name, text_path).astype(np.float32))
        class_names = metadata.get("class_names") or videos.metadata.get("class_names")
        described = videos.metadata | {"class_names": class_names, "prompts": metadata.get("prompts")}
        described["texts"] = text_path.name
        if "class_id" not in arrays:
            return replace(videos, text_embeds=texts, metadata=_without_none(described))
        return _joined(videos, texts, torch.from_numpy(_numbers(arrays, "class_id", text_path)).long(), described)
    except ValueError as error:
        raise ValueError(_named(text_path, error)) from error


def write_embeddings(path: str | os.PathLike, embedding_set: EmbeddingSet) -> None:
    """Write a cache in one go: a reader sees the old file or the whole new one, never a part."""
    path = Path(path)
    tensors = {"video_embeds": embedding_set.video_embeds, "labels": embedding_set.labels.long()}
    if embedding_set.text_embeds is not None:
        tensors["text_embeds"] = embedding_set.text_embeds
    metadata = {key: json.dumps(value) for key, value in embedding_set.metadata.items()}
    write_tensors(path, tensors, metadata)


def _read_text_file(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays of a file of class texts, with class names and prompts where it has them."""
    if path.suffix == ".npz":
        arrays = _read_npz(path)
        return arrays, {"class_names": _names(arrays, CLASS_NAME_KEYS)}
    tensors, metadata = _read_safetensors(path)
    return {name: (t.float() if t.is_floating_point() else t).numpy() for name, t in tensors.items()}, metadata


def array_names(path: str | os.PathLike) -> set[str]:
    """Names of the arrays in a cache or an .npz; empty where the file cannot be read."""
    try:
        return set(_read_text_file(Path(path))[0])
    except ValueError:
        return set()


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
    return EmbeddingSet(videos.video_embeds[kept], labels, texts, _without_none(metadata))


def _from_arrays(
    path: Path, arrays: dict[str, np.ndarray], video_key: str | None, label_key: str | None, text_key: str | None
) -> EmbeddingSet:
    """Guess what was not named and check that it fits together."""
    video_key = video_key or _first(arrays, VIDEO_KEYS)
    if video_key is None:
        raise ValueError(f"no video embeddings among {_listed(arrays)}: name the array with --video_key")
    videos = _numbers(arrays, video_key, path).astype(np.float32)
    text_key = text_key or _first(arrays, TEXT_KEYS)
    texts = None if text_key is None else _numbers(arrays, text_key, path).astype(np.float32)
    stem = video_key.removesuffix("_f")
    suffix = "" if text_key is None else text_key.removeprefix("text")
    label_key = label_key or _first(arrays, (f"{stem}_l", f"labels{suffix}", *LABEL_KEYS))
    if label_key is None:
        raise ValueError(f"no labels among {_listed(arrays)}: name the array with --label_key")
    class_names = _names(arrays, (f"classnames{suffix}", *CLASS_NAME_KEYS))
    if texts is not None and texts.ndim == 3 and class_names is not None and len(texts) != len(class_names):
        texts = texts.swapaxes(0, 1)
    metadata = {
        "names": _names(arrays, (f"{stem}_names", "names")),
        "class_names": class_names,
        "prompts": _names(arrays, ("prompts",) if texts is not None and texts.ndim == 3 else ("templates",)),
        "dataset": path.stem,
        "split": None if stem == video_key or stem == "image" else stem,
        "frames": videos.shape[1] if videos.ndim == 3 else None,
        "texts": text_key,
    }
    labels = _numbers(arrays, label_key, path)
    if labels.dtype.kind not in "iu":
        raise ValueError(f"array {label_key!r} has dtype {labels.dtype}: labels must be whole numbers")
    return EmbeddingSet(
        torch.from_numpy(videos),
        torch.from_numpy(labels.astype(np.int64)),
        None if texts is None else torch.from_numpy(np.ascontiguousarray(texts)),
        _without_none(metadata),
    )


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz; object arrays, which would need pickle, are refused."""
    if not path.is_file():
        raise ValueError("no such file")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except NPZ_ERRORS as error:
        raise ValueError(f"not a readable .npz without pickled objects ({error})") from error


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and the decoded metadata of a cache."""
    if not path.is_file():
        raise ValueError("no such file")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            raw = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"not a readable safetensors file ({error})") from error
    try:
        return tensors, {key: json.loads(value) for key, value in raw.items() if key != "format"}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the metadata is not JSON ({error}): write caches with write_embeddings") from error


def _require(arrays: dict[str, Any], name: str, path: Path) -> Any:
    if name not in arrays:
        raise ValueError(f"no array {name!r} in {path.name}; it holds {_listed(arrays)}")
    return arrays[name]


def _numbers(arrays: dict[str, np.ndarray], name: str, path: Path) -> np.ndarray:
    array = _require(arrays, name, path)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"array {name!r} has dtype {array.dtype} and holds no numbers: name another")
    return array


def _first(arrays: dict[str, Any], candidates: tuple[str, ...]) -> str | None:
    return next((name for name in candidates if name in arrays), None)


def _names(arrays: dict[str, np.ndarray], candidates: tuple[str, ...]) -> list[str] | None:
    key = _first(arrays, candidates)
    return None if key is None else [str(name) for name in np.atleast_1d(arrays[key]).tolist()]


def _listed(arrays: dict[str, Any]) -> str:
    return ", ".join(sorted(arrays)) or "nothing"


def _named(path: Path, error: ValueError) -> str:
    """The message with the file before it, once."""
    message = str(error)
    return message if message.startswith(str(path)) else f"{path}: {message}"


def _without_none(metadata: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if value is not None}
