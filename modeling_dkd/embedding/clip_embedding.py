"""Embed every clip of an index once: decode in worker processes, encode in batches, keep each batch as a shard.

Batches are drawn from the index alone, so that an interrupted run, a resumed one and one shared by several processes
all encode the same batches and end in the same bytes. Processes that know nothing of each other, on one machine or on
several, share the work of a folder by claims in it (batch_claims.py).
"""

import math
import sys
import time
from array import array
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ..data.video_files import VideoRecord
from ..video_frames import VideoReadError
from .batch_claims import BatchClaims
from .clip_shards import ClipShards, clip_identities
from .tensor_files import remove_unfinished
from .worker_processes import prepare_worker, worker_context


POLL_SECONDS = 1.0  # between looks for batches that others have claimed


@dataclass(frozen=True)
class EmbeddingRun:
    """What a run did.

    Attributes:
        num_embedded: Clips embedded now.
        num_known: Clips that a former run had embedded.
        damaged: Name and reason of the clips that could not be read.
        remarks: Name and remark of the clips that were read all the same, now or by a former run.
        identities: Name and identity of every wanted clip, under which `ClipShards.gather` finds it.
    """

    num_embedded: int
    num_known: int
    damaged: dict[str, str]
    remarks: dict[str, str]
    identities: dict[str, str]


class LoadedBatch(NamedTuple):
    """The readable clips of a batch, their positions and remarks, and the reasons for the others.

    All frames are one flat tensor, with the shape (T, C, H, W) of each clip beside it: on its way between processes a
    tensor takes an open file.
    """

    number: int
    frames: Tensor
    shapes: list[tuple[int, ...]]
    positions: list[int]
    remarks: list[str]
    damaged: dict[str, str]

    def clips(self) -> list[Tensor]:
        """Frames (T, C, H, W) of each clip."""
        parts = self.frames.split([math.prod(shape) for shape in self.shapes])
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def write(self, identities: Sequence[str], embed: Callable[[list[Tensor]], Tensor], shards: ClipShards) -> int:
        """Embed the clips and write their shard; how many they are.

        Args:
            identities: Of all clips of the batch, readable or not.
            embed: Frames of each clip -> embeddings (n, P, D).
            shards: Where the shard goes.
        """
        read = [(identities[at], remark) for at, remark in zip(self.positions, self.remarks, strict=True)]
        if read:
            shards.write(identities, read, embed(self.clips()))
        return len(read)


def load_batch(
    number: int, records: Iterable[VideoRecord], load_clip: Callable[[VideoRecord], tuple[Tensor, str]]
) -> LoadedBatch:
    """The batch of these clips; what cannot be read is left out, with its reason."""
    positions: list[int] = []
    clips: list[Tensor] = []
    remarks: list[str] = []
    damaged: dict[str, str] = {}
    for position, record in enumerate(records):
        try:
            frames, remark = load_clip(record)
            clips.append(frames)
            remarks.append(remark)
            positions.append(position)
        except (VideoReadError, OSError) as error:
            damaged[record.name] = str(error)
    frames = torch.cat([clip.reshape(-1) for clip in clips]) if clips else torch.empty(0)
    return LoadedBatch(number, frames, [tuple(clip.shape) for clip in clips], positions, remarks, damaged)


class _ClipBatches(Dataset):
    """Batch number -> loaded batch; `batches` are positions in `records`."""

    def __init__(
        self,
        records: Sequence[VideoRecord],
        batches: Sequence[Sequence[int]],
        load_clip: Callable[[VideoRecord], tuple[Tensor, str]],
    ) -> None:
        self.records = records
        self.batches = batches
        self.load_clip = load_clip

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> LoadedBatch:
        return load_batch(number, (self.records[i] for i in self.batches[number]), self.load_clip)


def embed_clips(
    records: Sequence[VideoRecord],
    wanted: Sequence[VideoRecord],
    load_clip: Callable[[VideoRecord], tuple[Tensor, str]],
    embed: Callable[[list[Tensor]], Tensor],
    shards: ClipShards,
    accelerator: Accelerator,
    batch_size: int = 16,
    num_workers: int = 0,
    progress_bar: bool = True,
) -> EmbeddingRun:
    """Embed the wanted clips that are in no shard yet; a batch counts as done once its shard is written.

    Args:
        records: All clips of the data set, in the order that batches are drawn from.
        wanted: Those to embed.
        load_clip: Clip -> frames (T, C, H, W) as `embed` takes them and a remark ("" for none); VideoReadError
            or OSError for a file that cannot be read.
        embed: Frames (T, C, H, W) of each clip of a batch -> embeddings (n, P, D).
        shards: Where finished batches are kept.
        accelerator: Batches go to its processes in turn. Other runs on the same folder, launched on any machine, share
            the work too: each ends when all of it is done.
        batch_size: Clips in a batch. Where memory does not hold one, this one and all that follow are encoded in two
            halves, with a word; each is still one shard.
        num_workers: Decoding processes for each of them; 0 decodes in the process itself. `load_clip` goes there,
            so it must be picklable, and a script needs its `if __name__ == "__main__":`.
        progress_bar: Whether a bar is shown.

    Returns:
        The run as all processes of `accelerator` made it, the same on each.

    Raises:
        ValueError: Memory does not hold half a batch.
    """
    known = shards.known()
    identities = clip_identities(wanted)
    num_known = sum(identity in known for identity in identities.values())
    planned, shard_ids = _plan(records, identities, known, batch_size)
    claims = BatchClaims(shards.folder)
    if accelerator.is_main_process:
        remove_unfinished(shards.folder)
        claims.remove_lost()
    # Every process must have made the same plan before the first shard of this run changes what is known.
    accelerator.wait_for_everyone()
    # Its own share first, then what other processes, which may be lost, have not done.
    own = range(accelerator.process_index, len(planned), accelerator.num_processes)
    order = [*own, *(number for number in range(len(planned)) if number not in own)]
    planned, shard_ids = [planned[number] for number in order], [shard_ids[number] for number in order]
    embed_batch = WithinMemory(embed, accelerator.device)
    clips_of = {shards.path_of(ids).name: len(ids) for ids in shard_ids}
    damaged: dict[str, str] = {}
    num_embedded = 0
    with (
        claims,
        _Progress(clips_of, shards, accelerator.is_main_process and progress_bar) as progress,
    ):
        for batch in _unclaimed(records, planned, shard_ids, shards, claims, load_clip, num_workers):
            damaged.update(batch.damaged)
            num_embedded += batch.write(shard_ids[batch.number], embed_batch, shards)
            progress.refresh(len(batch.damaged), is_lost=not batch.positions)
        accelerator.wait_for_everyone()
        progress.refresh(0, is_lost=False, is_last=True)
    every = gather_object([(num_embedded, damaged)])
    damaged = {name: reason for _, part in every for name, reason in part.items()}
    # What another machine could not read it alone can tell: looked at again here.
    known = shards.known() if planned else known
    lacking = [r for r in wanted if identities[r.name] not in known and r.name not in damaged]
    for record in lacking:
        try:
            frames, remark = load_clip(record)
            identity = identities[record.name]
            shards.write([identity], [(identity, remark)], embed_batch([frames]))
        except (VideoReadError, OSError) as error:
            damaged[record.name] = str(error)
    known = shards.known() if lacking else known
    remarks = {name: known[identity].remark for name, identity in identities.items() if identity in known}
    return EmbeddingRun(
        sum(count for count, _ in every),
        num_known,
        dict(sorted(damaged.items())),
        {name: remark for name, remark in remarks.items() if remark},
        identities,
    )


def _plan(
    records: Iterable[VideoRecord], identities: Mapping[str, str], known: Container[str], batch_size: int
) -> tuple[list["array[int]"], list[list[str]]]:
    """Positions and identities of the clips of each batch that holds any which are wanted and not known.

    The records themselves are made batch by batch, by those who decode them.
    """
    positions: list[array[int]] = []
    shard_ids: list[list[str]] = []
    last = -1
    for position, record in enumerate(records):
        identity = identities.get(record.name)
        if identity is None or identity in known:
            continue
        if position // batch_size != last:
            positions.append(array("q"))
            shard_ids.append([])
            last = position // batch_size
        positions[-1].append(position)
        shard_ids[-1].append(identity)
    return positions, shard_ids


def _unclaimed(
    records: Sequence[VideoRecord],
    batches: Sequence[Sequence[int]],
    shard_ids: Sequence[Sequence[str]],
    shards: ClipShards,
    claims: BatchClaims,
    load_clip: Callable[[VideoRecord], tuple[Tensor, str]],
    num_workers: int,
) -> Iterator[LoadedBatch]:
    """Batches that nobody else embeds, each claimed until the next is asked for; ends when every batch is done."""
    names = [shards.path_of(ids).name for ids in shard_ids]
    done: set[str] = set()
    seen = shards.written()

    def is_done(name: str) -> bool:
        if name not in done and shards.holds(name):
            done.add(name)
        return name in done

    while not all(map(is_done, names)):
        num_done = len(done)
        free = claims.free(names, is_done)
        first = next(free, None)
        # No worker starts for nothing, while others hold all that is left.
        if first is not None:
            workers = min(num_workers, len(names) - num_done)
            loader: DataLoader = DataLoader(
                _ClipBatches(records, batches, load_clip),
                batch_size=None,
                sampler=chain([first], free),
                num_workers=workers,
                worker_init_fn=prepare_worker,
                multiprocessing_context=worker_context(workers),
                pin_memory=torch.accelerator.is_available(),
            )
            for batch in loader:
                yield batch
                done.add(names[batch.number])
                claims.release(names[batch.number])
        there = shards.written()
        if not seen <= there:  # another process has merged shards
            known = shards.known()
            done.update(name for name, ids in zip(names, shard_ids, strict=True) if known.keys() >= set(ids))
        seen = there
        if len(done) == num_done and not all(map(is_done, names)):
            time.sleep(POLL_SECONDS)


class WithinMemory:
    """Embeds whole batches, and from the first for which memory is short halves of them."""

    def __init__(self, embed: Callable[[list[Tensor]], Tensor], device: torch.device) -> None:
        self.embed = embed
        self.device = device
        self.halved = False

    def __call__(self, clips: list[Tensor]) -> Tensor:
        """Embeddings (n, P, D) of the clips (T, C, H, W) of a batch."""
        size = len(clips)
        step = (size + 1) // 2 if self.halved else size
        try:
            parts = [clips[start : start + step] for start in range(0, size, step)]
            there = ([clip.to(self.device, non_blocking=True) for clip in part] for part in parts)
            return torch.cat([self.embed(part) for part in there])
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            if self.halved or size == 1:
                raise ValueError(
                    f"out of memory: not even {(size + 1) // 2} of {size} clips of a batch can be encoded at once; "
                    "what is embedded is kept, go on with a smaller --batch_size"
                ) from error
        # Only now is what the failed attempt held set free.
        self.halved = True
        clear_device_cache()
        tqdm.write(f"note: {size} clips at once are out of memory, so batches are encoded in halves", file=sys.stderr)
        return self(clips)


class _Progress:
    """Bar over the clips of all processes, read off the shards that are there."""

    def __init__(self, clips_of: dict[str, int], shards: ClipShards, shown: bool) -> None:
        self.shards = shards
        self.clips_of = clips_of
        self.shown = shown
        total = sum(clips_of.values())
        self.bar = tqdm(total=total, unit="clip", desc="embedding clips", disable=not shown or not total)
        self.failed = self.lost = 0
        self.shown_at = -math.inf

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def refresh(self, newly_failed: int, is_lost: bool, is_last: bool = False) -> None:
        """Count the shards; a batch counts with its damaged clips, or is lost, without a shard, if all of it is."""
        self.failed += newly_failed
        self.lost += newly_failed if is_lost else 0
        # Not after each batch: looking through a folder of many shards takes time.
        if not self.shown or (time.monotonic() - self.shown_at < 1 and not is_last):
            return
        self.shown_at = time.monotonic()
        done = sum(self.clips_of.get(name, 0) for name in self.shards.written())
        self.bar.set_postfix(damaged=self.failed, refresh=False) if self.failed else None
        self.bar.update(done + self.lost - self.bar.n)


@torch.inference_mode()
def embed_texts(
    prompts: Sequence[Sequence[str]], encode: Callable[[list[str]], Tensor], batch_size: int = 64
) -> Tensor:
    """Embeddings (K, P, D) float32 of K classes with P prompts each; equal prompts are encoded once."""
    # Prompts of about one length together: those of a batch are padded to the longest.
    distinct = sorted({prompt for row in prompts for prompt in row}, key=lambda prompt: (len(prompt), prompt))
    parts = [
        encode(distinct[start : start + batch_size]).float().cpu()
        for start in tqdm(
            range(0, len(distinct), batch_size), unit="batch", desc="encoding prompts", disable=len(distinct) < 1000
        )
    ]
    embeds = torch.cat(parts)
    row_of = {prompt: row for row, prompt in enumerate(distinct)}
    return torch.stack([embeds[[row_of[prompt] for prompt in row]] for row in prompts])
