"""Bad embedding caches: wrong shapes and types, NaN, torn files, hostile metadata and headers."""

import io
import json
import random
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save

from modeling_dkd.configuration_dkd import DKDCLIPConfig
from modeling_dkd.dkd_head import DKDHead
from modeling_dkd.embedding.clip_shards import ClipShards
from modeling_dkd.embedding.embedding_cache import EmbeddingSet, read_embeddings, read_with_texts, write_embeddings
from modeling_dkd.embedding.embedding_shards import EmbeddingShards

from .trials import LOST, SURVIVED, Trial, Verdict, read_or_refused


DIM, NUM_CLASSES, NUM_CLIPS = 5, 3, 9
HOSTILE = (
    "{",
    "null",
    "[]",
    "3",
    "NaN",
    '"' + "x" * 100_000 + '"',
    "[" * 100_000,
    '"../../etc/passwd"',
    '{"a": [1e999]}',
    "\ud83c",
    '["\\u0000"]',
    "[[1, 2], [3]]",
    '{"__class__": "os.system"}',
    "-1",
    "Infinity",
    "9" * 5000,
    "true",
    "[null, null, null]",
)


class Cache(NamedTuple):
    """A kind of file: its name, a sound one as tensors and metadata, and what reads it in its folder."""

    path: str
    tensors: dict[str, torch.Tensor]
    metadata: dict[str, str]
    read: Callable[[Path], Any]


def tensors_of(parts: int) -> dict[str, Any]:
    """Embeddings of nine clips, drawn anew each time alike."""
    drawn = torch.Generator().manual_seed(parts)
    shape = (NUM_CLIPS, parts, DIM) if parts else (NUM_CLIPS, DIM)
    return {
        "video_embeds": torch.randn(*shape, generator=drawn),
        "labels": torch.arange(NUM_CLIPS) % NUM_CLASSES,
        "text_embeds": torch.randn(NUM_CLASSES, DIM, generator=drawn),
    }


def read_and_fit(name: str, folder: Path) -> None:
    """As evaluate.py reads and uses it."""
    found = read_embeddings(folder / name)
    if found.text_embeds is not None:
        assert len(found.class_names) == len(found.text_embeds)
    if len(found.video_embeds) <= 1000 and found.video_embeds.shape[-1] <= 1000:
        head = DKDHead(DKDCLIPConfig(projection_dim=found.video_embeds.shape[-1]))
        head.fit(found.video_embeds, found.text_embeds, num_components=None if found.text_embeds is not None else 2)


def read_beside_texts(folder: Path) -> None:
    """Clips of one file, class texts of another."""
    write_embeddings(folder / "clips.safetensors", EmbeddingSet(**tensors_of(0)))
    read_with_texts(folder / "clips.safetensors", folder / "texts.safetensors")


def fit_shards(folder: Path) -> None:
    """Shards larger than memory: one is sound, one is not."""
    sound = tensors_of(0)
    (folder / "sound.safetensors").write_bytes(save(sound))
    shards = EmbeddingShards([folder / "sound.safetensors", folder / "shard.safetensors"], chunk_size=4)
    labels = shards.labels()
    DKDHead(DKDCLIPConfig(projection_dim=DIM)).fit(shards, sound["text_embeds"], labels=labels)


def load_domain(folder: Path) -> None:
    """A domain alone, and the use of it."""
    head = DKDHead.from_pretrained(folder)
    sound = tensors_of(0)
    head(sound["video_embeds"], sound["text_embeds"])


def resume_shards(folder: Path) -> None:
    """Working state of embedding: a shard that cannot be used must count as absent, and sound ones must be found."""
    shards = ClipShards(folder)
    shards.write(["z|1|1"], [("z|1|1", "")], torch.ones(1, 2, DIM))
    known = shards.known()
    assert "z|1|1" in known, "a sound shard was not found"
    gathered = shards.gather(list(known))
    assert gathered.shape[0] == len(known)


def caches() -> list[Cache]:
    """Every kind of file with embeddings in it."""
    names = {"names": json.dumps([f"clip {n}" for n in range(NUM_CLIPS)]), "class_names": json.dumps(list("abc"))}
    names |= {"logit_scale": "100.0", "dataset": '"toy"', "frames": '"1x1x1"'}
    sound = tensors_of(0)
    head = DKDHead(DKDCLIPConfig(projection_dim=DIM)).fit(sound["video_embeds"], sound["text_embeds"])
    options = json.dumps({"projection_dim": DIM})
    texts = {"text_embeds": sound["text_embeds"]}
    clips = [[f"clip{n}|10|{n}", ""] for n in range(NUM_CLIPS)]
    shard = {"video_embeds": tensors_of(2)["video_embeds"]}
    return [
        Cache("cache.safetensors", sound, names, partial(read_and_fit, "cache.safetensors")),
        Cache("frames.safetensors", tensors_of(2), names, partial(read_and_fit, "frames.safetensors")),
        Cache("cache.npz", sound, {}, partial(read_and_fit, "cache.npz")),
        Cache("texts.safetensors", texts, {"class_names": json.dumps(list("abc"))}, read_beside_texts),
        Cache("shard.safetensors", sound, {}, fit_shards),
        Cache("shards/0123456789abcdef01234567.safetensors", shard, {"clips": json.dumps(clips)}, _in("shards")),
        Cache(
            "dkd_domain.safetensors",
            head.state_dict(),
            {"options": options, "class_names": names["class_names"]},
            load_domain,
        ),
    ]


def _in(name: str) -> Callable[[Path], None]:
    return lambda folder: resume_shards(folder / name)


def encoded(cache: Cache, tensors: dict[str, Any], metadata: dict[str, str]) -> bytes:
    """Bytes of the file."""
    if not cache.path.endswith(".npz"):
        return save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata)
    stream = io.BytesIO()
    arrays = {name: t.float().numpy() if t.dtype == torch.bfloat16 else t.numpy() for name, t in tensors.items()}
    np.savez(stream, **arrays)
    return stream.getvalue()


def change_tensor(cache: Cache, rng: random.Random) -> bytes:
    """Another shape, type or value of one array, or none of it."""
    tensors = dict(cache.tensors)
    name = rng.choice(list(tensors))
    tensor = tensors[name].clone()
    changes: tuple[Callable[[], torch.Tensor | None], ...] = (
        lambda: None,
        lambda: tensor[:0],
        lambda: tensor[:-1] if tensor.dim() else tensor[None],
        lambda: tensor[None],
        lambda: tensor.flatten(),
        lambda: tensor.reshape(-1)[0],
        lambda: tensor.repeat(*[2] * max(tensor.dim(), 1)),
        lambda: tensor[..., None],
        lambda: tensor.bool(),
        lambda: tensor.to(rng.choice((torch.float16, torch.bfloat16, torch.int8, torch.int64, torch.complex64))),
        lambda: torch.zeros_like(tensor),
        lambda: torch.full_like(tensor, rng.choice((-1, -2, 100, 2**31 - 1) if tensor.dtype == torch.int64 else BAD)),
        lambda: _with_one(tensor, rng),
        lambda: torch.zeros(0, *tensor.shape[1:], dtype=tensor.dtype),
    )
    changed = rng.choice(changes)()
    if changed is None:
        del tensors[name]
    else:
        tensors[name] = changed
    if rng.random() < 0.1:
        tensors[rng.choice(("extra", "", "../up", "video_embeds "))] = torch.ones(2)
    return encoded(cache, tensors, cache.metadata)


BAD = (float("nan"), float("inf"), -float("inf"), 3e38, 1e-38, -1.0)


def _with_one(tensor: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """One value that is not finite, too large or out of range."""
    if tensor.numel():
        value = rng.choice((-5, 77, 2**40)) if tensor.dtype == torch.int64 else rng.choice(BAD)
        tensor.view(-1)[rng.randrange(tensor.numel())] = value
    return tensor


def change_metadata(cache: Cache, rng: random.Random) -> bytes:
    """Hostile or missing metadata."""
    if cache.path.endswith(".npz"):
        return change_npz(cache, rng)
    key = rng.choice([*cache.metadata, "names", "class_names", "logit_scale", "clips", "prompts", "x"])
    metadata = dict(cache.metadata)
    if rng.random() < 0.2:
        metadata.pop(key, None)
    else:
        metadata[key] = rng.choice(HOSTILE)
    try:
        return encoded(cache, cache.tensors, metadata)
    except (UnicodeError, ValueError):
        return change_bytes(cache, rng)


def change_npz(cache: Cache, rng: random.Random) -> bytes:
    """Arrays of objects, texts and records, which must not be unpickled."""
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in cache.tensors.items()}
    odd = (
        np.array([{"a": 1}, None], dtype=object),
        np.array(["a", "b"]),
        np.zeros(3, dtype=[("a", int)]),
        np.array(3.0),
        np.array(["2001-01-01"], dtype="datetime64[D]"),
        np.zeros((2, 0)),
    )
    arrays[rng.choice(("video_embeds", "labels", "text_embeds", "class_names", "names"))] = rng.choice(odd)
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def change_bytes(cache: Cache, rng: random.Random) -> bytes:
    """Cut off, flipped, or followed by something else."""
    data = bytearray(encoded(cache, cache.tensors, cache.metadata))
    how = rng.randrange(4)
    if how == 0:
        del data[rng.randrange(len(data)) :]
    elif how == 1:
        for _ in range(rng.choice((1, 4, 40))):
            data[rng.randrange(min(len(data), rng.choice((16, 400, 100_000))))] = rng.randrange(256)
    elif how == 2:
        data += rng.randbytes(rng.randrange(1, 50))
    else:
        start = rng.randrange(len(data))
        del data[start : start + rng.randrange(1, 30)]
    return bytes(data)


def change_header(cache: Cache, rng: random.Random) -> bytes:
    """A header that says other sizes, offsets and types than there are."""
    data = encoded(cache, cache.tensors, cache.metadata)
    if cache.path.endswith(".npz"):
        return change_bytes(cache, rng)
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    name = rng.choice([key for key in header if key != "__metadata__"])
    field, value = rng.choice(
        (
            ("shape", [2**62, 2**62]),
            ("shape", [-1]),
            ("shape", []),
            ("shape", [0]),
            ("dtype", "F99"),
            ("dtype", "BOOL"),
            ("data_offsets", [0, 2**60]),
            ("data_offsets", [8, 4]),
            ("data_offsets", [0, 0]),
            ("dtype", "F64"),
        )
    )
    header[name][field] = value
    text = json.dumps(header).encode()
    length = rng.choice((len(text), len(text), 2**63, 0, len(text) + 999))
    return struct.pack("<Q", length) + text + data[8 + size :]


CHANGES = (change_tensor, change_tensor, change_metadata, change_bytes, change_header)


def read_changed(cache: Cache, changed: bytes, scratch: Path) -> Verdict:
    """Read one bad file."""
    path = scratch / cache.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(changed)
    # Shards are named by a message about their rows too: the head does not know which file a chunk came from.
    verdict = read_or_refused(lambda: cache.read(scratch), path.name, "video_embeds", "labels")
    if path.exists() and path.read_bytes() == changed:
        return verdict
    return Verdict(LOST, f"{path.name} was changed by reading it")


def bad_caches(count: int, seed: int) -> Iterator[tuple[str, Trial]]:
    """`count` bad files, each kind in turn."""
    rng = random.Random(seed)
    kinds = caches()
    for number in range(count):
        cache = kinds[number % len(kinds)]
        change = rng.choice(CHANGES)
        yield f"{number} {cache.path} {change.__name__}", partial(read_changed, cache, change(cache, rng))


def sound_caches() -> Iterator[tuple[str, Trial]]:
    """Every kind unchanged: a reader that refuses all would survive all."""
    for cache in caches():
        yield cache.path, partial(_read_sound, cache)


def _read_sound(cache: Cache, scratch: Path) -> Verdict:
    path = scratch / cache.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(cache, cache.tensors, cache.metadata))
    cache.read(scratch)
    return Verdict(SURVIVED)
