"""Working state of clip embedding: many small safetensors shards, each written whole or not at all.

A shard holds the embeddings of one batch, `video_embeds` (n, T, D), and the identities of its clips with what was
remarked of them. What is in a shard is never computed again, however the run that wrote it ended; its bytes depend on
its clips alone.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..data.video_files import VideoRecord
from .batch_claims import BatchClaims
from .tensor_files import write_tensors


MOST_MERGES = 8  # of other processes while one gathers


def clip_identity(record: VideoRecord, look: Callable[[str], os.stat_result] = os.stat) -> str:
    """Name, size and time of last change: a file that is replaced or edited counts as another clip.

    So do other seconds of it, or other bytes of an archive.

    A file that cannot be looked at keeps its name with size -1; reading it will say what is wrong.
    """
    try:
        status = look(record.path)
    except OSError:
        return f"{record.name}|-1|-1"
    whole = f"{record.name}|{status.st_size}|{status.st_mtime_ns}"
    if not (record.end or record.size):
        return whole
    return f"{whole}|{record.start}|{record.end}|{record.offset}|{record.size}"


def clip_identities(records: Iterable[VideoRecord]) -> dict[str, str]:
    """Identities of clips by their names; an archive is looked at once, not for each of its clips."""
    look = lru_cache(2**12)(os.stat)
    return {record.name: clip_identity(record, look) for record in records}


class ShardRow(NamedTuple):
    """Where an embedded clip is found, and what was remarked when it was read ("" nothing)."""

    path: Path
    row: int
    remark: str


class ClipShards:
    """The shards of one folder, that is of one model, preprocessing and number of frames."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def path_of(self, identities: Sequence[str]) -> Path:
        """Where the shard of a planned batch belongs, the same in every run and process."""
        # A name may hold what is no UTF-8.
        digest = hashlib.sha256("\n".join(identities).encode(errors="surrogatepass")).hexdigest()
        return self.folder / f"{digest[:24]}.safetensors"

    def written(self) -> set[str]:
        """File names of the shards that are there now."""
        return {entry.name for entry in os.scandir(self.folder) if entry.name.endswith(".safetensors")}

    def holds(self, name: str) -> bool:
        """Whether the shard of this file name is there and can be read."""
        path = self.folder / name
        return path.exists() and bool(_clips_of(path))

    def known(self) -> dict[str, ShardRow]:
        """Every embedded clip by its identity; a shard that cannot be read or is none counts as absent."""
        while True:
            rows: dict[str, ShardRow] = {}
            names = self.written()
            for name in sorted(names):
                path = self.folder / name
                clips = _clips_of(path)
                rows.update({identity: ShardRow(path, row, remark) for row, (identity, remark) in enumerate(clips)})
            if names <= self.written():  # else `merge` of another process put some into a file that is not among them
                return rows

    def write(self, planned: Sequence[str], embedded: Sequence[tuple[str, str]], video_embeds: Tensor) -> None:
        """Write one shard, in one go.

        Args:
            planned: Identities of the batch as planned; they give the file its name.
            embedded: Identity and remark of the clips that could be read, in the order of the rows.
            video_embeds: Their embeddings, (n, T, D) float32.
        """
        write_tensors(self.path_of(planned), {"video_embeds": video_embeds.float()}, {"clips": json.dumps(embedded)})

    def gather(self, identities: Sequence[str]) -> Tensor:
        """Embeddings of these clips in this order, (N, T, D) float32.

        Raises:
            KeyError: A clip has not been embedded.
        """
        for _ in range(MOST_MERGES):
            with suppress(FileNotFoundError):  # `merge` of another process was between look and reading
                return self._gather(identities)
        return self._gather(identities)

    def _gather(self, identities: Sequence[str]) -> Tensor:
        known = self.known()
        wanted: dict[Path, list[tuple[int, int]]] = {}
        for position, identity in enumerate(identities):
            clip = known[identity]
            wanted.setdefault(clip.path, []).append((position, clip.row))
        gathered: list[Tensor] = [torch.empty(0)] * len(identities)
        for path, pairs in wanted.items():
            embeds = _embeds_of(path)
            for position, row in pairs:
                gathered[position] = embeds[row]
        return torch.stack(gathered)

    def merge(self, at_least: int = 64, max_clips: int = 8192) -> None:
        """Put small shards together where there are many, so that any number of clips is a few files.

        What is merged stands in the new file before the old ones go; a run that is killed in between leaves clips
        twice, which are the same. While one process merges, another leaves it to that.

        Args:
            at_least: Fewer small shards stay as they are.
            max_clips: Clips in a merged shard; one of half as many counts as small.
        """
        if len(self.written()) < at_least:
            return
        with BatchClaims(self.folder) as claims:
            if claims.take("merge"):
                self._merge(at_least, max_clips)

    def _merge(self, at_least: int, max_clips: int) -> None:
        clips = {path: _clips_of(path) for path in (self.folder / name for name in sorted(self.written()))}
        small = [path for path, rows in clips.items() if 0 < len(rows) < max_clips // 2]
        if len(small) < at_least:
            return
        groups: list[list[Path]] = [[]]
        for path in small:
            if sum(len(clips[other]) for other in groups[-1]) + len(clips[path]) > max_clips:
                groups.append([])
            groups[-1].append(path)
        for group in groups:
            rows = {clip[0]: (clip[1], path, row) for path in group for row, clip in enumerate(clips[path])}
            embeds = {path: _embeds_of(path) for path in group}
            merged = torch.stack([embeds[path][row] for _, path, row in rows.values()])
            self.write(list(rows), [(identity, remark) for identity, (remark, _, _) in rows.items()], merged)
            target = self.path_of(list(rows))
            for path in group:
                if path != target:
                    path.unlink(missing_ok=True)


def _embeds_of(path: Path) -> Tensor:
    """All rows of a shard, (n, T, D); for torch the library opens a file twice, between which it may be merged."""
    with safe_open(path, framework="np") as shard:
        return torch.from_numpy(shard.get_tensor("video_embeds"))


def _clips_of(path: Path) -> list[tuple[str, str]]:
    """Identity and remark of each row of a shard; none where it is torn, or no shard at all."""
    try:
        with safe_open(path, framework="np") as shard:
            shape = shard.get_slice("video_embeds").get_shape()
            clips = json.loads((shard.metadata() or {})["clips"])
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError):
        return []
    whole = isinstance(clips, list) and len(shape) == 3 and len(clips) == shape[0] and 0 not in shape
    if not whole or not all(isinstance(clip, list) and [type(part) for part in clip] == [str, str] for clip in clips):
        return []
    return [(identity, remark) for identity, remark in clips]
