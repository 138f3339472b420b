"""Damaged videos: each is embedded beside a sound clip, as evaluate.py embeds a folder with --allow_missing."""

import os
import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from accelerate import Accelerator

from modeling_dkd.data.video_index import folder_index
from modeling_dkd.embedding.clip_embedding import embed_clips
from modeling_dkd.embedding.clip_encoder import ClipReader
from modeling_dkd.embedding.clip_shards import ClipShards
from modeling_dkd.processing_dkd import DKDCLIPProcessor
from tests.tiny_checkpoint import save_tiny_clip

from .trials import LOST, SURVIVED, WRONG_MESSAGE, Trial, Verdict


Damage = Callable[[bytearray, random.Random], None]
LARGEST_ORIGINAL = 2_000_000
FORMATS = (("clip.mp4", "mpeg4"), ("clip.avi", "mpeg4"), ("clip.mkv", "mpeg4"), ("clip.webm", "libvpx"))


def write_clip(path: Path, codec: str, seed: int, frames: int = 9) -> None:
    """A clip of noise on a moving ground, 40 x 34 pixels."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = 40, 34, "yuv420p"
        for number in range(frames):
            pixels = np.clip(rng.normal(40 + 15 * number, 40, (34, 40, 3)), 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def originals(scratch: Path) -> list[Path]:
    """Files to damage: the real clips of DKD_DATA where they are, and four small generated ones."""
    generated = []
    for number, (name, codec) in enumerate(FORMATS):
        generated.append(scratch / f"original-{number}-{name}")
        write_clip(generated[-1], codec, number)
    real = Path(os.environ.get("DKD_DATA", "../shared/data")) / "originals"
    found = sorted(p for p in real.rglob("*") if p.is_file() and 0 < p.stat().st_size <= LARGEST_ORIGINAL)
    return [p for p in found if p.suffix in (".avi", ".mp4", ".mkv", ".mpg", ".webm")] + generated


def cut_off(data: bytearray, rng: random.Random) -> None:
    """End anywhere, also at nothing."""
    del data[rng.choice((0, 1, rng.randrange(64), rng.randrange(len(data)), rng.randrange(len(data)))) :]


def flip_bytes(data: bytearray, rng: random.Random) -> None:
    """Other values in a few places."""
    for _ in range(rng.choice((1, 3, 30, 300))):
        data[rng.randrange(len(data))] = rng.randrange(256)


def overwrite_block(data: bytearray, rng: random.Random) -> None:
    """Zeros or noise over a stretch, as a bad sector or a hole leaves it."""
    size = min(rng.choice((16, 512, 4096, len(data) // 2)), len(data))
    start = rng.randrange(len(data) - size + 1)
    data[start : start + size] = bytes(size) if rng.random() < 0.5 else rng.randbytes(size)


def damage_header(data: bytearray, rng: random.Random) -> None:
    """Other values in the first bytes, which name the container, its sizes and its streams."""
    for _ in range(rng.choice((1, 2, 8))):
        data[rng.randrange(min(len(data), rng.choice((16, 64, 512))))] = rng.randrange(256)


def inflate_length(data: bytearray, rng: random.Random) -> None:
    """A huge or negative number where a size may stand."""
    start = rng.randrange(min(len(data), 2048) - 4)
    data[start : start + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4)))


def shift_bytes(data: bytearray, rng: random.Random) -> None:
    """Bytes put in, left out or told twice, so that all that follows is out of place."""
    start = rng.randrange(len(data))
    piece = data[start : start + rng.choice((1, 7, 256, 5000))]
    how = rng.randrange(3)
    if how == 0:
        data[start:start] = rng.randbytes(len(piece))
    elif how == 1:
        del data[start : start + len(piece)]
    else:
        data[start:start] = piece


DAMAGES: tuple[Damage, ...] = (cut_off, flip_bytes, overwrite_block, damage_header, inflate_length, shift_bytes)


def pooled(clips: list[torch.Tensor]) -> torch.Tensor:
    """A cheap stand-in for an encoder: mean colours and a constant, (n, T, 4)."""
    frames = torch.stack(clips).float()
    return torch.cat([frames.mean((-2, -1)), torch.ones(*frames.shape[:2], 1)], -1)


def embed_beside(damaged: bytes, suffix: str, sound: Path, reader: ClipReader, scratch: Path) -> Verdict:
    """Embed a folder of one damaged and one sound clip, and look at both."""
    folder = scratch / "clips" / "class"
    folder.mkdir(parents=True)
    (folder / f"damaged{suffix}").write_bytes(damaged)
    os.link(sound, folder / f"sound{sound.suffix}")
    records = folder_index(scratch / "clips").records
    shards = ClipShards(scratch / "shards")
    run = embed_clips(records, records, reader, pooled, shards, Accelerator(cpu=True), 1)
    name = f"class/sound{sound.suffix}"
    if name in run.damaged:
        return Verdict(LOST, f"the sound clip beside it: {run.damaged[name]}")
    if not shards.gather([run.identities[name]])[0].equal(pooled([reader(str(sound))[0]])[0]):
        return Verdict(LOST, "the sound clip beside it has another embedding")
    other = f"class/damaged{suffix}"
    if other in run.damaged:
        named = f"damaged{suffix}" in run.damaged[other]
        return Verdict(SURVIVED if named else WRONG_MESSAGE, run.damaged[other])
    embeds = shards.gather([run.identities[other]])
    whole = embeds.shape == (1, 4, 4) and bool(embeds.isfinite().all())
    return Verdict(SURVIVED if whole else LOST, f"embedded as {tuple(embeds.shape)}")


def damaged_videos(count: int, seed: int, scratch: Path) -> Iterator[tuple[str, Trial]]:
    """`count` mutations of the originals, one or two kinds of damage each."""
    rng = random.Random(seed)
    files = originals(scratch)
    sound = scratch / "sound.avi"
    write_clip(sound, "mpeg4", 99)
    reader = ClipReader(DKDCLIPProcessor.from_backbone(str(save_tiny_clip(scratch / "tiny"))), "4x1x1")
    for number in range(count):
        source = files[number % len(files)]
        data = bytearray(source.read_bytes())
        chosen = rng.sample(DAMAGES, rng.choice((1, 1, 2)))
        for damage in chosen:
            if len(data) > 8:
                damage(data, rng)
        name = f"{number} {source.name} {'+'.join(damage.__name__ for damage in chosen)}"
        yield name, partial(embed_beside, bytes(data), source.suffix, sound, reader)
