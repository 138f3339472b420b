"""Embeddings of the windows of a long video, each made once and kept.

    windows = embed_windows(clip, encoder, cache.folder / "windows", window=4.0, stride=2.0)
    windows.video_embeds, windows.starts                    # (N, D), (N,)

The video is decoded once, front to back. What is held of it does not grow with its length: some windows of frames, and
the embeddings. Finished windows are written every now and then; a run that was killed goes on after the last of these.
"""

import hashlib
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn.functional import normalize
from tqdm.auto import tqdm

from ..embedding.tensor_files import write_tensors
from ..frame_sampling import ArrayOfFloat
from ..video_frames import VideoReadError, VideoWindow, read_windows
from .clip_cache import ClipCache, reason
from .clip_listing import Clip, printable
from .encoder import Encoder


# Windows that are written together: what a killed run loses at most.
WINDOWS_PER_PART = 64


@dataclass(frozen=True)
class VideoWindows:
    """Windows of one video, in order of time.

    Attributes:
        clip: The video.
        video_embeds: Embeddings, (N, D) float32: of the frames or parts that the encoder tells apart, the mean.
        starts: (N,) seconds since the first frame.
        ends: (N,) seconds since the first frame.
        remark: What is wrong with the file, "" for a sound one.
    """

    clip: Clip
    video_embeds: Tensor
    starts: ArrayOfFloat
    ends: ArrayOfFloat
    remark: str = ""


def embed_windows(
    clip: Clip, encoder: Encoder, folder: Path, window: float = 4.0, stride: float = 2.0
) -> VideoWindows:
    """Embed the windows of one video that are not there yet.

    Args:
        clip: The video.
        encoder: What embeds.
        folder: Where embeddings of windows of this encoder are kept.
        window: Length of a window, seconds.
        stride: From the start of a window to that of the next, seconds.

    Raises:
        VideoReadError: Nothing of the file can be read (the message says why, not which). Where a part of it can, this
            part is given, and `remark` says what is wrong.
        ValueError: A window or stride that is not positive, or the encoder fails.
        OSError: The disk refuses.
    """
    key = f"{ClipCache.identity(clip)}|{window!r}|{stride!r}"
    path = folder / f"{hashlib.sha256(key.encode(errors='surrogatepass')).hexdigest()[:24]}.safetensors"
    parts = path.with_suffix(".parts")
    whole = _read(path)
    if whole is None:
        remark = _embed_parts(clip, encoder, parts, window, stride)
        read = [part for _, part in _written(parts)]
        if not read:
            raise VideoReadError(remark or "no window of it holds a frame")
        embeds, times = (torch.cat(tensors) for tensors in zip(*(part[:2] for part in read), strict=True))
        whole = embeds, times, remark
        write_tensors(path, {"video_embeds": embeds, "times": times}, {"remark": remark})
        shutil.rmtree(parts, ignore_errors=True)
    embeds, times, remark = whole
    starts, ends = times.T.numpy()
    return VideoWindows(clip, embeds, starts, ends, remark)


def _embed_parts(clip: Clip, encoder: Encoder, parts: Path, window: float, stride: float) -> str:
    """Write the parts that are missing; what is wrong with the file."""
    done = sum(len(part[0]) for _, part in _written(parts))
    number = sum(1 for _ in _written(parts))
    remark = ""
    embeds: list[Tensor] = []
    times: list[tuple[float, float]] = []

    def write() -> None:
        nonlocal number
        tensors = {"video_embeds": torch.cat(embeds), "times": torch.tensor(times, dtype=torch.float64)}
        write_tensors(parts / f"{number:06d}.safetensors", tensors)
        number += 1
        embeds.clear()
        times.clear()

    bar = tqdm(
        desc=printable(clip.name)[-40:], unit="frame", unit_scale=True, file=sys.stderr, leave=False, mininterval=0.5
    )
    with bar:
        batch: list[Tensor] = []
        try:
            for index, found in enumerate(read_windows(clip.path, encoder.num_frames, window, stride)):
                _advance(bar, found)
                remark = found.frames.damage or remark
                if index < done:
                    continue
                batch.append(encoder.prepare(found.frames.pixels))
                times.append((found.start, found.end))
                if len(batch) == encoder.batch_size:
                    embeds.append(pooled(encoder.embed_videos(batch)))
                    batch.clear()
                    if len(times) >= WINDOWS_PER_PART:
                        write()
        except VideoReadError as error:  # what came before can be used all the same
            remark = reason(error, clip.path)
        if batch:
            embeds.append(pooled(encoder.embed_videos(batch)))
        if embeds:
            write()
    return remark


def pooled(video_embeds: Tensor) -> Tensor:
    """Parts (N, P, D) -> their mean direction (N, D), as a head pools them."""
    return normalize(normalize(video_embeds, dim=-1).mean(1), dim=-1)


def _advance(bar: tqdm, found: VideoWindow) -> None:
    """Frames that are done, of all that the file announces."""
    bar.total = found.frames.total_frames
    bar.update(int(found.frames.indices[-1]) + 1 - bar.n)


def _written(parts: Path) -> Iterator[tuple[int, tuple[Tensor, Tensor, str]]]:
    """The parts that are there, from the first, up to one that is missing or damaged."""
    number = 0
    while (part := _read(parts / f"{number:06d}.safetensors")) is not None:
        yield number, part
        number += 1


def _read(path: Path) -> tuple[Tensor, Tensor, str] | None:
    """Embeddings (n, D), times (n, 2) and remark of a file; None where it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            remark = (file.metadata() or {}).get("remark", "")
            return file.get_tensor("video_embeds"), file.get_tensor("times"), remark
    except (SafetensorError, OSError):
        return None
