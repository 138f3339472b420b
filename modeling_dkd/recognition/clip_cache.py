"""Embeddings of clips, each made once and kept: what every command that takes clips goes through.

    cache = ClipCache(default_cache_folder(), encoder)
    run = cache.embed(clips, accelerator)                   # only those that are not there yet
    video_embeds = cache.gather([clip for clip in clips if clip.path not in run.damaged])      # (N, P, D)

A clip is known by its path, size and time of last change, an encoder by all that its embeddings depend on. Files are
only added, each written whole or not at all, so that a run that is killed loses the batch in hand and no more, and
several may go on at once.
"""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from accelerate import Accelerator
from torch import Tensor

from ..data.video_files import VideoRecord
from ..embedding.clip_embedding import EmbeddingRun, embed_clips
from ..embedding.clip_shards import ClipShards, clip_identity
from .clip_listing import Clip
from .encoder import Encoder


def default_cache_folder() -> Path:
    """Where embeddings are kept: DKD_CACHE, or dkd in the user's cache folder."""
    given = os.environ.get("DKD_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dkd"


def reason(error: object, path: str) -> str:
    """Why a clip cannot be read, without the path: its name stands beside it anyway."""
    return str(error).removeprefix(f"cannot read video {path!r}: ")


class ClipCache:
    """Embeddings of one encoder in a folder.

    Args:
        folder: For all encoders; each has its own sub-folder. Made if need be.
        encoder: What embeds.

    Raises:
        OSError: The folder cannot be made or written to.

    Attributes:
        shards: The files, by the identities that `identity` gives.
    """

    def __init__(self, folder: str | os.PathLike[str], encoder: Encoder) -> None:
        self.encoder = encoder
        key = json.dumps(encoder.key, indent=1, sort_keys=True)
        digest = hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()
        readable = re.sub(r"[^\w.-]+", "-", encoder.name)[:60]
        self.folder = Path(folder) / f"{readable}-{digest[:12]}"
        try:
            self.shards = ClipShards(self.folder / "clips")
            if not (self.folder / "key.json").exists():
                (self.folder / "key.json").write_text(key + "\n", encoding="utf-8")
        except OSError as error:
            reason = error.strerror or str(error)
            raise OSError(f"embeddings cannot be kept in {folder}: {reason}; name a place with --cache-dir") from error

    def embed(
        self,
        clips: Sequence[Clip],
        accelerator: Accelerator,
        batch_size: int | None = None,
        num_workers: int = 2,
        progress_bar: bool = True,
    ) -> EmbeddingRun:
        """Embed the clips that are not there yet.

        Args:
            clips: Any, the same on every process.
            accelerator: Batches go to its processes in turn.
            batch_size: Clips in a batch; None: what suits the encoder.
            num_workers: Decoding processes for each process; 0 decodes in the process itself.
            progress_bar: Whether a bar is shown.

        Returns:
            The run as all processes together made it; clips go by their paths in it, which the reasons leave out.

        Raises:
            ValueError: Memory does not hold half a batch, or the encoder fails.
            OSError: The disk refuses; what was written before stays.
        """
        records = [VideoRecord(clip.path, clip.path) for clip in clips]
        encoder, size = self.encoder, batch_size or self.encoder.batch_size
        run = embed_clips(
            records,
            records,
            encoder.reader,
            encoder.embed_videos,
            self.shards,
            accelerator,
            size,
            num_workers,
            progress_bar,
        )
        if accelerator.is_main_process and run.num_embedded:
            self.shards.merge()
        accelerator.wait_for_everyone()
        return replace(run, damaged={path: reason(error, path) for path, error in run.damaged.items()})

    def gather(self, clips: Sequence[Clip]) -> Tensor:
        """Embeddings of clips that are there, in this order, (N, P, D) float32.

        Raises:
            KeyError: A clip has not been embedded, or was changed since.
        """
        return self.shards.gather([self.identity(clip) for clip in clips])

    @staticmethod
    def identity(clip: Clip) -> str:
        """What a clip is known by: its path, size and time of last change."""
        return clip_identity(VideoRecord(clip.path, clip.path))
