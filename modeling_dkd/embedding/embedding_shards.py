"""Embedding caches too large for memory, read a chunk at a time: what `DKDHead.fit` passes over once a round.

shards = EmbeddingShards(sorted(folder.glob("*.safetensors")))
head.fit(shards, text_embeds, labels=shards.labels())

With several processes each takes some of the files, `EmbeddingShards(paths[rank::num_processes])`.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor


class EmbeddingShards:
    """The `video_embeds` of safetensors files one after the other, a re-iterable of tensors (n, D) or (n, T, D).

    Args:
        paths: Files with an array `video_embeds`, (N, D) or (N, T, D), of any float dtype, alike but for N; `labels`
            (N,) may stand beside it. Order counts. None at all is the part of a process for which no file is left.
        chunk_size: Rows that are read at once.

    Raises:
        ValueError: A file is missing, no safetensors file, has no `video_embeds`, or its embeddings are of another
            shape than those before (the message names it).
    """

    def __init__(self, paths: Sequence[str | os.PathLike], chunk_size: int = 4096) -> None:
        if chunk_size < 1:
            raise ValueError(f"chunk_size must be at least 1, got {chunk_size}.")
        if isinstance(paths, str | os.PathLike):
            raise ValueError(f"paths must be a list of files, not one path; write [{str(paths)!r}].")
        self.paths, self.chunk_size = [Path(path) for path in paths], chunk_size
        shapes = [_shape(path) for path in self.paths]
        for path, shape in zip(self.paths, shapes, strict=True):
            if shape[1:] != shapes[0][1:]:
                raise ValueError(
                    f"{path}: embeddings are (N, {_numbers(shape)}), but those of {self.paths[0].name} are "
                    f"(N, {_numbers(shapes[0])}); shards of one domain come from one encoder and number of frames."
                )
        self.sizes = [shape[0] for shape in shapes]

    def __len__(self) -> int:
        """Number of videos in all files."""
        return sum(self.sizes)

    def __iter__(self) -> Iterator[Tensor]:
        """Chunks in the order of the files, in the dtype of the file."""
        for path, size in zip(self.paths, self.sizes, strict=True):
            for start in range(0, size, self.chunk_size):
                # Opened anew each time: pages of a mapped file count as memory of the process until it is closed.
                with safe_open(path, framework="pt") as file:
                    yield file.get_slice("video_embeds")[start : start + self.chunk_size].clone()

    def labels(self) -> Tensor:
        """Labels of all videos, (N,) int64, -1 where a file has none."""
        parts = [torch.zeros(0, dtype=torch.int64)]
        for path, size in zip(self.paths, self.sizes, strict=True):
            with safe_open(path, framework="pt") as file:
                own = file.get_tensor("labels").long() if "labels" in file.keys() else None  # noqa: SIM118 (no dict)
            if own is not None and own.shape != (size,):
                raise ValueError(f"{path}: labels are {tuple(own.shape)}, but there are {size} video embeddings.")
            parts.append(torch.full((size,), -1) if own is None else own)
        return torch.cat(parts)


def _shape(path: Path) -> tuple[int, ...]:
    """Shape of the embeddings of a file, without reading them."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file.")
    try:
        with safe_open(path, framework="pt") as file:
            names = sorted(file.keys())
            if "video_embeds" not in names:
                raise ValueError(f"{path}: no array 'video_embeds'; it holds {', '.join(names) or 'nothing'}.")
            shape = tuple(file.get_slice("video_embeds").get_shape())
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error}); copy it again.") from error
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"{path}: video_embeds must be (N, D) or (N, T, D), none empty, not {shape}.")
    return shape


def _numbers(shape: tuple[int, ...]) -> str:
    """Sizes of what a row holds."""
    return ", ".join(str(size) for size in shape[1:])
