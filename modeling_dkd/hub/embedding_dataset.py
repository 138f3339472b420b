"""Embeddings as a data set of the Hub: Parquet tables with typed columns, a card, and back to the same embeddings.

write_dataset({"test": read_embeddings("ucf101-1-test.safetensors")}, Path("folder"), "owner/ucf101-clip-b16")
clips = datasets.load_dataset("owner/ucf101-clip-b16", "clips", split="test")
embedding_set = read_dataset("owner/ucf101-clip-b16", "test")

Two configurations: `clips` has a row a clip (name, label, video_embeds), `texts` a row a class (class_name,
text_embeds). What made them (encoder and revision, preprocessing, frames, prompts) is in embeddings.json.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Array2D, ClassLabel, Dataset, Features, List, Value, load_dataset
from huggingface_hub import DatasetCardData, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

from ..data.plain_files import read_json
from ..embedding.embedding_cache import EmbeddingSet, read_embeddings
from .measured_rows import without_local_paths
from .model_card import code_span, escape_markdown


FACTS_FILE = "embeddings.json"
ROWS_PER_TABLE = 20_000
# What the sets of one encoder share.
SHARED = ("backbone", "revision", "dataset", "frames", "prompts", "preprocessing", "logit_scale")

CARD = """---
{metadata}
---

# {name}

Embeddings of {dataset} by {backbone}: what a table of results is computed from, without the videos.

```python
from datasets import load_dataset

clips = load_dataset({repo_id}, "clips", split={split}).with_format("torch")
texts = load_dataset({repo_id}, "texts", split="train").with_format("torch")
print(clips["video_embeds"][:].shape, clips.features["label"].names[:3], texts["text_embeds"][:].shape)
```

To measure on them:

```bash
dkd fetch-embeddings {name_in_shell} --split {split_name} --output {split_name}.safetensors
python evaluate.py --embeddings {split_name}.safetensors --baselines
```

| | |
|---|---|
{table}

`video_embeds` are as the encoder gives them, not normalised, one vector a frame where a clip has several; label -1 is
an unlabelled clip. What made them is in {facts_file}. They derive from the videos of {dataset}, whose terms hold for
them; no licence is given here.
"""


def read_caches(named: Sequence[str]) -> dict[str, EmbeddingSet]:
    """Caches given as SPLIT=FILE.

    Raises:
        ValueError: Not of this form, a split twice, or a file that is no cache.
    """
    sets: dict[str, EmbeddingSet] = {}
    for item in named:
        split, equals, path = item.partition("=")
        if not equals or not re.fullmatch(r"\w+", split):
            raise ValueError(f"{item!r} must read SPLIT=FILE, for example test=ucf101-1-test.safetensors")
        if split in sets:
            raise ValueError(f"the split {split} is given twice")
        sets[split] = read_embeddings(path)
    return sets


def write_dataset(sets: Mapping[str, EmbeddingSet], folder: Path, repo_id: str) -> None:
    """Write tables, facts and card of a data set.

    Args:
        sets: Split -> embeddings; all of one encoder, with the same classes.
        folder: Made if need be; tables of an earlier time in it are removed.
        repo_id: What the card calls it.

    Raises:
        ValueError: The sets do not belong together, or one has no class texts.
    """
    first = _same_encoder(sets)
    for stale in folder.glob("*/*.parquet"):
        stale.unlink()
    names, files = first.class_names, {}
    for split, embedding_set in sets.items():
        table = _clips_table(embedding_set, names)
        count = math.ceil(len(table) / ROWS_PER_TABLE)
        for k in range(count):
            path = folder / "clips" / f"{split}-{k:05d}-of-{count:05d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            table.shard(count, k, contiguous=True).to_parquet(str(path))
        files[split] = f"clips/{split}-*.parquet"
    assert first.text_embeds is not None
    texts = {"class_name": names, "text_embeds": first.text_embeds.numpy()}
    kind = Features({"class_name": Value("string"), "text_embeds": _embedding_feature(first.text_embeds)})
    (folder / "texts").mkdir(parents=True, exist_ok=True)
    Dataset.from_dict(texts, features=kind).to_parquet(str(folder / "texts" / "train-00000-of-00001.parquet"))
    facts = {"splits": {split: _described(s) for split, s in sets.items()}}
    (folder / FACTS_FILE).write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_card(sets, files, repo_id), encoding="utf-8")


def _same_encoder(sets: Mapping[str, EmbeddingSet]) -> EmbeddingSet:
    """The first set, once it is sure that the others have its encoder and classes."""
    first_split, first = next(iter(sets.items()))
    if first.text_embeds is None:
        raise ValueError(f"{first_split} holds no class texts, without which nobody can classify its clips")
    for split, other in sets.items():
        if other.text_embeds is None or not torch.equal(other.text_embeds, first.text_embeds):
            raise ValueError(f"{split} has other class texts than {first_split}: publish them apart")
        for key in ("backbone", "revision", "preprocessing", "class_names"):
            if other.metadata.get(key) != first.metadata.get(key):
                raise ValueError(f"{split} has another {key} than {first_split}: publish them apart")
    return first


def _embedding_feature(embeds: torch.Tensor) -> Any:
    """Type of one row of embeddings: a vector, or one a part."""
    if embeds.dim() == 2:
        return List(Value("float32"), length=embeds.shape[1])
    return Array2D(shape=tuple(embeds.shape[1:]), dtype="float32")


def _clips_table(embedding_set: EmbeddingSet, class_names: list[str]) -> Dataset:
    """One row a clip."""
    count = len(embedding_set.labels)
    names = embedding_set.metadata.get("names") or [str(i) for i in range(count)]
    columns = {"name": Value("string"), "label": ClassLabel(names=class_names)}
    features = Features({**columns, "video_embeds": _embedding_feature(embedding_set.video_embeds)})
    # Written in parts: Array2D goes through Python lists otherwise.
    rows = {"name": names, "label": embedding_set.labels.numpy(), "video_embeds": embedding_set.video_embeds.numpy()}
    return Dataset.from_dict(rows, features=features)


def _described(embedding_set: EmbeddingSet) -> dict[str, Any]:
    """The metadata of a cache but for the names, which are columns, and without places of a machine."""
    known = {key: value for key, value in embedding_set.metadata.items() if key != "names"}
    return dict(without_local_paths(known))


def _card(sets: Mapping[str, EmbeddingSet], files: Mapping[str, str], repo_id: str) -> str:
    """Card with the configurations that `load_dataset` reads."""
    first = next(iter(sets.values()))
    known = _described(first)
    data_files = [{"split": split, "path": path} for split, path in files.items()]
    metadata = DatasetCardData(
        license="other",
        license_name="that-of-the-videos",
        task_categories=["video-classification", "zero-shot-classification"],
        tags=["dkd", "embeddings", "clip"],
        pretty_name=repo_id.rsplit("/", 1)[-1],
        configs=[
            {"config_name": "clips", "data_files": data_files, "default": True},
            {"config_name": "texts", "data_files": [{"split": "train", "path": "texts/train-*.parquet"}]},
        ],
    )
    shown = {"clips": ", ".join(f"{split}: {len(s.labels)}" for split, s in sets.items())}
    shown |= {"classes": str(len(first.class_names)), "length": str(first.video_embeds.shape[-1])}
    shown |= {key: _short(known[key]) for key in SHARED if known.get(key) is not None}
    split = next(iter(sets))
    return CARD.format(
        metadata=metadata.to_yaml(),
        name=escape_markdown(repo_id.rsplit("/", 1)[-1]),
        dataset=escape_markdown(known.get("dataset") or "clips"),
        backbone=escape_markdown(known.get("backbone") or "an encoder that is not recorded"),
        repo_id=json.dumps(repo_id),
        name_in_shell=repo_id,
        split=json.dumps(split),
        split_name=split,
        table="\n".join(f"| {escape_markdown(key)} | {code_span(value)} |" for key, value in shown.items()),
        facts_file=FACTS_FILE,
    )


def _short(value: Any) -> str:
    """A value for a table cell, without what ends one."""
    return json.dumps(value, ensure_ascii=False).strip('"').replace("|", "/")[:300]


def read_dataset(name: str, split: str, revision: str | None = None) -> EmbeddingSet:
    """The embeddings of a published data set, as they were before.

    Args:
        name: Hub repository, or a folder that `write_dataset` wrote.
        split: One of its splits.
        revision: Branch, tag or commit of the repository.

    Raises:
        ValueError: No such data set or split, or not one of these.
    """
    options: dict[str, Any] = {"revision": revision} if revision else {}
    try:
        if Path(name).is_dir():
            path, options = Path(name, FACTS_FILE), {}
        else:
            path = Path(hf_hub_download(name, FACTS_FILE, repo_type="dataset", **options))
        described = read_json(path)["splits"]
        if split not in described:
            raise ValueError(f"it has no split {split}, but {', '.join(described)}")
        clips = load_dataset(name, "clips", split=split, **options).with_format("numpy")
        texts = load_dataset(name, "texts", split="train", **options).with_format("numpy")
        columns = {"name", "label", "video_embeds"} - set(clips.column_names)
        if columns:
            raise ValueError(f"it has no column {', '.join(sorted(columns))}")
    except (OSError, ValueError, KeyError, EntryNotFoundError, HfHubHTTPError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{name} is no data set of embeddings that can be read: {reason}") from error
    names = clips["name"][:].tolist()
    return EmbeddingSet(
        torch.from_numpy(np.array(clips["video_embeds"][:], dtype=np.float32)),
        torch.from_numpy(np.array(clips["label"][:], dtype=np.int64)),
        torch.from_numpy(np.array(texts["text_embeds"][:], dtype=np.float32)),
        {"names": names, **described[split]},
    )
