"""Embed a data set as it streams by: each of its archives, or other files, is read once, in its order, and not kept.

    index, run = embed_stream(stream_pieces("owner/name"), encoder.reader, encoder.embed_clips, shards, accelerator)

Which clips there are is known once all was read. So an archive is the unit of work: whoever claims it reads it to its
end, embeds its clips batch by batch, and then writes the list of them beside the shards. Lists and shards are what a
run goes on from: archives with a list are not read again, clips in a shard are not decoded again.
"""

import hashlib
import json
import time
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from tqdm.auto import tqdm

from ..data.counting import counted
from ..data.hub_stream import StreamPiece, index_of_stream
from ..data.video_files import VideoRecord
from ..data.video_index import VideoIndex
from ..data.whole_files import whole_file
from .batch_claims import BatchClaims
from .clip_embedding import POLL_SECONDS, EmbeddingRun, LoadedBatch, WithinMemory, load_batch
from .clip_shards import ClipShards
from .tensor_files import remove_unfinished
from .worker_processes import prepare_worker, worker_context


class _Clip(NamedTuple):
    """A clip as lists name it: within the data set, by its contents, and the name of its class ("" none)."""

    name: str
    identity: str
    class_name: str


@dataclass
class _ClipList:
    """The clips of an archive, and the reasons for those that cannot be read, by their names."""

    clips: list[_Clip] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, known: Container[str]) -> "_ClipList | None":
        """The list in a file; None where it is not there, torn, or of embeddings that are gone."""
        try:
            told = json.loads(path.read_bytes())
            found = cls([_Clip(*clip) for clip in told["clips"]], dict(told["damaged"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        there = all(clip.identity in known or clip.name in found.damaged for clip in found.clips)
        return found if there else None

    def write(self, path: Path) -> None:
        """Write the list, whole or not at all."""
        with whole_file(path) as unfinished:
            unfinished.write_text(json.dumps({"clips": self.clips, "damaged": self.damaged}), encoding="utf-8")


class _PassingBatch(NamedTuple):
    """Clips of an archive in their order; `clips` are all, of which `loaded` holds those that are not known yet.

    Attributes:
        piece: Which archive.
        is_last: Nothing comes after it.
        failure: Why the archive cannot be read on; "" it can.
    """

    piece: int
    clips: list[_Clip]
    identities: list[str]
    loaded: LoadedBatch
    is_last: bool = False
    failure: str = ""


class _PassingClips(IterableDataset):
    """The batches of all archives that nobody else reads, each archive claimed until its list is there."""

    def __init__(
        self,
        pieces: Sequence[StreamPiece],
        known: Collection[str],
        load_clip: Callable[[VideoRecord], tuple[Tensor, str]],
        batch_size: int,
        folder: Path,
    ) -> None:
        self.pieces = pieces
        self.known = known
        self.load_clip = load_clip
        self.batch_size = batch_size
        self.lists = [_list_of(piece, folder) for piece in pieces]
        self.folder = folder

    def __iter__(self) -> Iterator[_PassingBatch]:
        names = [path.name for path in self.lists]
        own: list[Path] = []
        with BatchClaims(self.folder) as claims:
            for number in claims.free(names, self._is_done):
                own.append(self.lists[number])
                for batch in self._batches(number):
                    yield batch
                    if batch.failure:
                        return
            # Lists are written by the process that this one reads for; claims given back before would be taken.
            while not all(path.exists() for path in own):
                time.sleep(POLL_SECONDS / 10)

    def _is_done(self, name: str) -> bool:
        return (self.folder / name).exists()

    def _batches(self, number: int) -> Iterator[_PassingBatch]:
        nothing = load_batch(0, (), self.load_clip)
        batches = self.pieces[number].batches(self.batch_size)
        try:
            for rows in batches:
                yield self._batch(number, rows)
        except Exception as error:  # the readers of many formats raise what they like on a torn file
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            yield _PassingBatch(number, [], [], nothing, failure=reason)
            return
        yield _PassingBatch(number, [], [], nothing, is_last=True)

    def _batch(self, number: int, rows: list[tuple[str, str, dict[str, Any]]]) -> _PassingBatch:
        """Decode the clips of some rows that are not known yet; their files are there as long as that takes."""
        clips = [_Clip(name, _identity(video["bytes"]), class_name) for name, class_name, video in rows]
        with TemporaryDirectory(prefix="clips-") as folder:
            records: list[VideoRecord] = []
            places: dict[str, tuple[str, str]] = {}
            for at, (clip, (_, _, video)) in enumerate(zip(clips, rows, strict=True)):
                if clip.identity in self.known:
                    continue
                path = Path(folder) / f"{at}{Path(video['path'] or '').suffix[:8]}"
                path.write_bytes(video["bytes"])
                records.append(VideoRecord(str(path), clip.name))
                places[clip.name] = clip.identity, video["path"] or clip.name
            loaded = load_batch(0, records, self.load_clip)
            damaged = {
                record.name: loaded.damaged[record.name].replace(record.path, places[record.name][1])
                for record in records
                if record.name in loaded.damaged
            }
        identities = [places[record.name][0] for record in records]
        return _PassingBatch(number, clips, identities, loaded._replace(damaged=damaged))


def embed_stream(
    pieces: Sequence[StreamPiece],
    load_clip: Callable[[VideoRecord], tuple[Tensor, str]],
    embed: Callable[[list[Tensor]], Tensor],
    shards: ClipShards,
    accelerator: Accelerator,
    batch_size: int = 16,
    num_workers: int = 0,
    progress_bar: bool = True,
) -> tuple[VideoIndex, EmbeddingRun]:
    """Embed all clips of a stream; an archive counts as done once its list is written.

    Args:
        pieces: The archives, or other files, of one data set.
        load_clip: As in `embed_clips`.
        embed: As in `embed_clips`.
        shards: Where finished batches and the lists of clips are kept.
        accelerator: Its processes, and other runs on the same folder, take the next archive that nobody reads; each
            ends when all are done.
        batch_size: As in `embed_clips`.
        num_workers: Reading and decoding processes for each of them, each at an archive; 0: the process itself.
        progress_bar: Whether a bar is shown.

    Returns:
        The index of the clips that have a class, and the run as all processes made it, the same on each.

    Raises:
        OSError: An archive is torn or cannot be fetched (the message says which and why).
        ValueError: No clip says its class, or memory does not hold half a batch.
    """
    lists = [_list_of(piece, shards.folder) for piece in pieces]
    if accelerator.is_main_process:
        remove_unfinished(shards.folder)
        BatchClaims(shards.folder).remove_lost()
        _remove_useless(lists, shards)
    accelerator.wait_for_everyone()
    embed_batch, num_embedded = WithinMemory(embed, accelerator.device), 0
    hidden = not (accelerator.is_main_process and progress_bar)
    with tqdm(total=len(pieces), unit="file", desc="embedding a stream", miniters=0, disable=hidden) as bar:

        def is_done() -> bool:
            num_done = sum(path.exists() for path in lists)
            bar.update(num_done - bar.n)
            return num_done == len(lists)

        while not is_done():
            batch = None
            for batch, found in _passing(pieces, lists, shards, load_clip, batch_size, num_workers):
                num_embedded += batch.loaded.write(batch.identities, embed_batch, shards)
                bar.set_postfix(clips=num_embedded, refresh=False)
                bar.update(0)
                if batch.is_last:
                    found.write(lists[batch.piece])
                    is_done()
            if batch is None:  # others read all that is left
                time.sleep(POLL_SECONDS)
        accelerator.wait_for_everyone()
    return _finished(pieces, lists, shards, sum(gather_object([num_embedded])))


def _passing(
    pieces: Sequence[StreamPiece],
    lists: Sequence[Path],
    shards: ClipShards,
    load_clip: Callable[[VideoRecord], tuple[Tensor, str]],
    batch_size: int,
    num_workers: int,
) -> Iterator[tuple[_PassingBatch, _ClipList]]:
    """Batches of the archives that nobody else reads, each with the list of its archive as far as it goes."""
    claims, names = BatchClaims(shards.folder), [path.name for path in lists]
    free = next(claims.free(names, lambda name: (shards.folder / name).exists()), None)
    if free is None:
        return
    claims.release(names[free])
    known = shards.known().keys()
    done = [found for path in lists if (found := _ClipList.read(path, known))]
    # What workers need not know is not copied to them.
    unlisted = known - {clip.identity for found in done for clip in found.clips}
    workers = min(num_workers, len(lists) - len(done))
    loader: Any = DataLoader(
        _PassingClips(pieces, unlisted, load_clip, batch_size, shards.folder),
        batch_size=None,
        num_workers=workers,
        worker_init_fn=prepare_worker,
        multiprocessing_context=worker_context(workers),
        pin_memory=torch.accelerator.is_available(),
        in_order=False,
    )
    growing: dict[int, _ClipList] = {}
    for batch in loader:
        if batch.failure:
            raise OSError(
                f"cannot read on in {pieces[batch.piece]}: {batch.failure}; what is embedded is kept: start again"
            )
        found = growing.setdefault(batch.piece, _ClipList())
        found.clips += batch.clips
        found.damaged.update(batch.loaded.damaged)
        if batch.is_last and found.clips and not any(clip.class_name for clip in found.clips):
            raise ValueError(  # before hours go into more of the same
                f"{pieces[batch.piece]}: of {counted(len(found.clips), 'clip')} none says its class; a clip in an "
                'archive does so by a .json with a "label" beside it, or a .cls'
            )
        yield batch, found
        if batch.is_last:
            del growing[batch.piece]


def _remove_useless(lists: Sequence[Path], shards: ClipShards) -> None:
    """Remove the lists that are torn or name embeddings which are gone."""
    there = [path for path in lists if path.exists()]  # before the look at shards, which others go on writing
    known = shards.known()
    for path in there:
        if _ClipList.read(path, known) is None:
            path.unlink(missing_ok=True)


def _finished(
    pieces: Sequence[StreamPiece], lists: Sequence[Path], shards: ClipShards, num_embedded: int
) -> tuple[VideoIndex, EmbeddingRun]:
    """The index and the run, when every archive has its list."""
    known = shards.known()
    identities: dict[str, str] = {}
    damaged: dict[str, str] = {}

    def clips() -> Iterator[tuple[VideoRecord, str]]:
        for piece, path in zip(pieces, lists, strict=True):
            found = _ClipList.read(path, known)
            if found is None:
                raise ValueError(f"{path}, the list of clips of {piece}, was changed meanwhile; start again")
            damaged.update(found.damaged)
            for clip in found.clips:
                identities[clip.name] = clip.identity
                yield VideoRecord("", clip.name, split=piece.part), clip.class_name

    index = index_of_stream(pieces[0].name, clips())
    remarks = {name: known[identity].remark for name, identity in identities.items() if identity in known}
    num_known = max(0, len(identities) - len(damaged) - num_embedded)  # a clip may be there twice
    told = {name: remark for name, remark in remarks.items() if remark}
    return index, EmbeddingRun(num_embedded, num_known, dict(sorted(damaged.items())), told, identities)


def _list_of(piece: StreamPiece, folder: Path) -> Path:
    """Where the list of the clips of an archive belongs."""
    return folder / f"{piece.key}.json"


def _identity(content: bytes) -> str:
    """A clip by its contents: embedded once, wherever it stands in whatever version of the data set."""
    return f"{hashlib.sha256(content).hexdigest()[:32]}|{len(content)}"
