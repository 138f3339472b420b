"""The clips, or the moments of long videos, that match a text best.

    index = search_index(["archive"], "activities.txt", "openai/clip-vit-base-patch16")
    for match in index.search("playing violin", count=10):
        ...                                                         # match.clip, match.score, match.start, match.end

Texts and clips are compared by the cosine of the embeddings that the head returns: where the classes of the domain are
named, both are moved toward it, for texts that name none of these classes too; without classes the cosines are plain.
The moved embeddings are a file that is mapped into memory, so that a query reads them once and holds little.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.class_names import name_key
from ..data.prompts import load_templates
from ..data.whole_files import cannot_be_written
from ..dkd_head import DKDHead
from ..embedding.worker_processes import shared_accelerator, start_server
from .asked import Classes, PathLike, asked, none_readable
from .clip_cache import ClipCache, default_cache_folder
from .clip_listing import Clip, list_clips
from .doubts import same_text_doubts, without_log_of_same_texts
from .encoder import Encoder, Model, encoder_of
from .predictions import Question
from .saved_domain import SavedDomain
from .timelines import check_chain_options, embed_videos
from .window_embedding import pooled


# Rows that are read at once.
CHUNK = 8192
# Every new clip or class makes a new index; of the old ones so many stay.
KEPT_INDEXES = 8
EMBEDS_FILE, FACTS_FILE = "embeds.npy", "index.json"


class Match(NamedTuple):
    """A clip, or a moment of a video, that a text was found in.

    Attributes:
        clip: Name of the clip.
        path: Where it is.
        score: Cosine of the two embeddings, -1 to 1.
        start: Seconds since the first frame; None: the whole clip.
        end: Seconds since the first frame; None: the whole clip.
    """

    clip: str
    path: str
    score: float
    start: float | None = None
    end: float | None = None


class Row(NamedTuple):
    """What a row of an index stands for."""

    clip: str
    path: str
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class SearchIndex:
    """Embeddings of clips or moments, ready to be searched.

    Attributes:
        rows: What each row stands for, N of them.
        video_embeds: Moved embeddings, (N, D) float32, unit norm, in memory or mapped into it.
        head: The head that moved them.
        embed_query: Text -> its embeddings, (1, P, D).
        damaged: Name and reason of the clips that could not be read.
        notes: What else the user should know.
    """

    rows: Sequence[Row]
    video_embeds: np.ndarray[Any, np.dtype[np.float32]]
    head: DKDHead
    embed_query: Callable[[str], Tensor]
    damaged: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def search(self, text: str, count: int = 10) -> list[Match]:
        """The best matches, best first; of moments that overlap the best alone.

        Raises:
            ValueError: The text is empty, or the count below 1.
        """
        if not text.strip():
            raise ValueError("the text to search for is empty; say what is to be seen")
        if count < 1:
            raise ValueError(f"{count} matches: ask for at least 1")
        scores = self.scores(text)
        found: list[Match] = []
        for index in _descending(scores):
            row = self.rows[index]
            if not any(_overlap(row, match) for match in found):
                found.append(Match(row.clip, row.path, float(scores[index]), row.start, row.end))
            if len(found) == count:
                break
        return found

    @torch.inference_mode()
    def scores(self, text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Cosine of the text with each row, (N,)."""
        # What a head makes of a text does not depend on the videos beside it.
        first = torch.from_numpy(np.array(self.video_embeds[:1]))
        moved = self.head(first, self.embed_query(text.strip())).text_embeds[0].numpy()
        chunks = range(0, len(self.video_embeds), CHUNK)
        return np.concatenate([self.video_embeds[start : start + CHUNK] @ moved for start in chunks])


def search(
    text: str,
    paths: Sequence[PathLike],
    classes: Classes | None = None,
    model: Model = None,
    *,
    count: int = 10,
    **options: Any,
) -> list[Match]:
    """The matches of one text; for several, `search_index` once. Options are those of `search_index`."""
    return search_index(paths, classes, model, **options).search(text, count)


def search_index(
    paths: Sequence[PathLike],
    classes: Classes | None = None,
    model: Model = None,
    *,
    templates: PathLike | None = None,
    descriptions: PathLike | None = None,
    domain: PathLike | None = None,
    window: float | None = None,
    stride: float | None = None,
    cache_dir: PathLike | None = None,
    batch_size: int | None = None,
    num_workers: int = 2,
) -> SearchIndex:
    """The index of some clips; what was embedded and moved before is read, the rest is done now.

    Args:
        paths: Files, folders, lists and tables, as in `list_clips`.
        classes: Classes of the domain, which is fitted to the clips: a file with one class a line, names with commas
            between them, or a list; None: those of the domain, without one plain cosines.
        model: What embeds: what `load_encoder` gives, or the name that it takes.
        templates: Prompt templates of classes and queries, as in `load_templates`; None: the encoder's own.
        descriptions: JSON file with descriptions of the classes, instead of templates.
        domain: Folder of a saved domain; None: one is fitted to the clips where classes are named.
        window: Search moments of so many seconds instead of clips.
        stride: Seconds from moment to moment; None: half a window.
        cache_dir: Where embeddings are kept; None: `default_cache_folder()`.
        batch_size: Clips that are decoded and encoded together; None: what suits the encoder.
        num_workers: Decoding processes. With any, a script needs its `if __name__ == "__main__":`.

    Raises:
        ValueError: There is no clip that can be read, or as in `recognise`.
        OSError: The disk refuses; what was embedded is kept.
    """
    moments = None if window is None else (float(window), float(window / 2 if stride is None else stride))
    if moments is not None:
        check_chain_options(*moments, None)
    listing = list_clips(paths)
    clips = listing.clips
    encoder, question, stored = (
        (encoder_of(model), None, None)
        if classes is None and domain is None
        else asked(classes, model, templates=templates, descriptions=descriptions, domain=domain)
    )
    notes = [*listing.notes, *([] if question is None else same_text_doubts(question))]
    cache = ClipCache(cache_dir or default_cache_folder(), encoder)
    folder = cache.folder / "search" / _digest(clips, moments, question, stored)
    prompts = load_templates(os.fspath(templates)) if templates is not None else list(encoder.templates)
    embed_query = query_embedder(encoder, question, prompts)
    try:
        return replace(read_index(folder, encoder, embed_query), notes=notes)
    except ValueError:  # there is none, or one that is damaged or of another version
        pass
    pool = (
        ClipEmbeddings(cache, clips, batch_size, num_workers)
        if moments is None
        else WindowEmbeddings(cache, clips, *moments)
    )
    if not pool.rows:
        raise none_readable(pool.damaged)
    head = stored.head if stored else encoder.new_head()
    if stored is None and question is not None:
        with without_log_of_same_texts():
            head.fit(pool, question.text_embeds)
    write_index(folder, pool, head)
    return replace(read_index(folder, encoder, embed_query), notes=notes)


class ClipEmbeddings:
    """Pooled embeddings of the clips that can be read, chunks (n, D), as often as they are passed over."""

    def __init__(
        self, cache: ClipCache, clips: Sequence[Clip], batch_size: int | None = None, num_workers: int = 2
    ) -> None:
        start_server(num_workers)
        run = cache.embed(clips, shared_accelerator(), batch_size, num_workers)
        self.cache = cache
        self.damaged = {clip.name: run.damaged[clip.path] for clip in clips if clip.path in run.damaged}
        self.clips = [clip for clip in clips if clip.path not in run.damaged]
        self.rows = [Row(clip.name, clip.path) for clip in self.clips]

    def __iter__(self) -> Iterator[Tensor]:
        for start in range(0, len(self.clips), CHUNK):
            yield pooled(self.cache.gather(self.clips[start : start + CHUNK]))


class WindowEmbeddings:
    """The same of the windows of long videos."""

    def __init__(self, cache: ClipCache, clips: Sequence[Clip], window: float, stride: float) -> None:
        windows, self.damaged = embed_videos(clips, cache.encoder, cache.folder / "windows", window, stride)
        self.chunks = [of_video.video_embeds for of_video in windows]
        self.rows = [
            Row(of_video.clip.name, of_video.clip.path, float(start), float(end))
            for of_video in windows
            for start, end in zip(of_video.starts, of_video.ends, strict=True)
        ]

    def __iter__(self) -> Iterator[Tensor]:
        yield from self.chunks


def write_index(folder: Path, pool: ClipEmbeddings | WindowEmbeddings, head: DKDHead) -> None:
    """Write an index whole or not at all.

    Raises:
        OSError: The disk refuses.
    """
    unfinished = folder.with_name(f".unfinished-{uuid.uuid4().hex}")
    try:
        unfinished.mkdir(parents=True)
        shape = (len(pool.rows), head.config.projection_dim)
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
        # Written as a file, not through a map of it, which a full disk would end the process in.
        with (unfinished / EMBEDS_FILE).open("wb") as file, torch.inference_mode():
            np.lib.format.write_array_header_1_0(file, header)
            for chunk in pool:
                # The text does not matter for how videos are moved.
                file.write(head(chunk, chunk[:1]).video_embeds.numpy().tobytes())
        if head.is_fitted:
            head.save_pretrained(unfinished)
        facts = {"rows": [list(row) for row in pool.rows], "damaged": pool.damaged}
        (unfinished / FACTS_FILE).write_text(json.dumps(facts), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(unfinished, folder)
        made = sorted(folder.parent.glob(f"*/{FACTS_FILE}"), key=os.path.getmtime)
        for old in made[:-KEPT_INDEXES]:
            shutil.rmtree(old.parent, ignore_errors=True)
    except OSError as error:
        raise cannot_be_written(folder, error) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def read_index(folder: Path, encoder: Encoder, embed_query: Callable[[str], Tensor]) -> SearchIndex:
    """An index that `write_index` wrote; its embeddings stay on the disk until they are looked at.

    Raises:
        ValueError: There is none, it is damaged, or of another version.
    """
    try:
        facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
        rows = [Row(*row) for row in facts["rows"]]
        embeds = np.load(folder / EMBEDS_FILE, mmap_mode="r", allow_pickle=False)
        if embeds.shape != (len(rows), encoder.dim):
            raise ValueError(f"{embeds.shape} embeddings of {len(rows)} clips")
        head = encoder.new_head()
        if any(folder.glob("*.safetensors")):
            head = type(head).from_pretrained(folder).eval()
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"the index in {folder} cannot be read: {error}") from error
    return SearchIndex(rows, embeds, head, embed_query, facts["damaged"])


def query_embedder(encoder: Encoder, question: Question | None, templates: Sequence[str]) -> Callable[[str], Tensor]:
    """What turns a query into embeddings (1, P, D): those of the class that it names, else those of its prompts."""
    number = {} if question is None else {name_key(name): k for k, name in enumerate(question.class_names)}

    def embed(text: str) -> Tensor:
        known = number.get(name_key(text))
        if known is not None and question is not None:
            return question.text_embeds[known : known + 1]
        return encoder.embed_texts([[template.replace("{}", text) for template in templates]])

    return embed


def _digest(
    clips: Sequence[Clip], moments: tuple[float, float] | None, question: Question | None, stored: SavedDomain | None
) -> str:
    """Name of an index: the clips as they are now, and all that moves them."""
    digest = hashlib.sha256(json.dumps(moments).encode())
    for clip in clips:
        digest.update(f"{clip.name}\n{ClipCache.identity(clip)}\n".encode(errors="surrogatepass"))
    moving = [] if question is None else [question.text_embeds]
    if stored is not None:
        moving = [tensor for _, tensor in sorted(stored.head.state_dict().items())]
    for tensor in moving:
        digest.update(tensor.contiguous().float().numpy().tobytes())
    return digest.hexdigest()[:24]


def _descending(scores: np.ndarray[Any, np.dtype[np.float32]], first: int = 1024) -> Iterator[int]:
    """Positions by falling score; no more are sorted than are taken, in steps that grow."""
    done, size = 0, min(first, len(scores))
    while done < len(scores):
        best = np.argpartition(-scores, size - 1)[:size]
        order = best[np.lexsort((best, -scores[best]))]
        yield from order[done:].tolist()
        done, size = size, min(8 * size, len(scores))


def _overlap(row: Row, match: Match) -> bool:
    """Whether two moments of one video share time; clips do not."""
    if row.start is None or row.end is None or match.start is None or match.end is None or row.path != match.path:
        return False
    return row.start < match.end and match.start < row.end
