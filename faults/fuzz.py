"""Coverage-guided fuzzing of the annotation, configuration and cache readers with atheris.

    make fuzz                                # installs atheris and runs for ten minutes
    python -m faults.fuzz --seconds 60

A finding is an exception other than a ValueError or OSError; it is noted, and the fuzzer goes on. atheris has wheels
for some versions of CPython on Linux alone, so it is no dependency of the tests.
"""

import argparse
import json
import logging
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any


LISTS = {
    "classInd.txt": "1 Archery\n2 Punch\n",
    "trainlist01.txt": "Archery/v_Archery_g01_c01.avi 1\nPunch/v_Punch_g02_c01.avi 2\n",
    "testlist01.txt": "Archery/v_Archery_g03_c01.avi\n",
}


def instrumented() -> tuple[Any, dict[str, tuple[Callable[[Path], Any], bytes]]]:
    """atheris, and every reader with a sound input, loaded so that their branches are counted."""
    import atheris
    import datasets  # noqa: F401 (large libraries stay as they are)
    import torch  # noqa: F401
    import transformers  # noqa: F401

    with atheris.instrument_imports(include=["modeling_dkd", "yaml", "json", "csv"]):
        from modeling_dkd.data.official_splits import read_hmdb51_split, read_ucf101_split
        from modeling_dkd.data.prompts import description_prompts, load_templates
        from modeling_dkd.data.video_index import csv_index
        from modeling_dkd.embedding.clip_shards import ClipShards
        from modeling_dkd.embedding.embedding_cache import read_embeddings
        from modeling_dkd.embedding.embedding_shards import EmbeddingShards
        from modeling_dkd.hub.card_facts import flattened, read_options
        from modeling_dkd.hub.measured_rows import newest_rows, read_results
        from modeling_dkd.training.config import load_config

    from .caches import caches, encoded
    from .texts import CLASS_NAMES, texts

    root = Path(__file__).resolve().parents[1]
    sound = {text.path: text.sound.encode() for text in texts(root / "hub_configs/dkd-tiny")}
    files = {cache.path: encoded(cache, cache.tensors, cache.metadata) for cache in caches()}
    results = next(name for name in sound if name.startswith("results/"))
    readers: dict[str, tuple[Callable[[Path], Any], bytes]] = {
        "config.yaml": (load_config, sound["config.yaml"]),
        "options.yaml": (lambda path: flattened(read_options(path)), sound["options.yaml"]),
        "templates.json": (load_templates, sound["templates.json"]),
        "templates.txt": (load_templates, sound["templates.txt"]),
        "described.json": (lambda path: description_prompts(CLASS_NAMES, path), sound["described.json"]),
        "clips.csv": (lambda path: csv_index(path, allow_missing=True), sound["clips.csv"]),
        "classInd.txt": (lambda path: read_ucf101_split(path.parent, 1), LISTS["classInd.txt"].encode()),
        "trainlist01.txt": (lambda path: read_ucf101_split(path.parent, 1), LISTS["trainlist01.txt"].encode()),
        "brush_hair_test_split1.txt": (lambda path: read_hmdb51_split(path.parent, 1), b"a.avi 1\nb.avi 2\nc.avi 0\n"),
        "results.json": (lambda path: newest_rows({"results.json": read_results(path)}), sound[results]),
        "cache.safetensors": (read_embeddings, files["cache.safetensors"]),
        "cache.npz": (read_embeddings, files["cache.npz"]),
        "shard.safetensors": (lambda path: list(EmbeddingShards([path])), files["shard.safetensors"]),
        "shards/0.safetensors": (
            lambda path: ClipShards(path.parent).known(),
            files["shards/0123456789abcdef01234567.safetensors"],
        ),
    }
    return atheris, readers


class Harness:
    """Writes what the fuzzer makes up into the file of one reader, has it read, and keeps count."""

    def __init__(self, readers: dict[str, tuple[Callable[[Path], Any], bytes]], folder: Path, seconds: float) -> None:
        self.readers = list(readers.items())
        self.folder = folder
        self.ends = time.monotonic() + seconds
        self.executions = dict.fromkeys(readers, 0)
        self.accepted = dict.fromkeys(readers, 0)
        self.findings: dict[str, str] = {}

    def __call__(self, data: bytes) -> None:
        """The first byte chooses the reader, the rest is its file."""
        if time.monotonic() > self.ends:
            self.report()
            os._exit(int(bool(self.findings)))
        name, (read, _) = self.readers[data[0] % len(self.readers)] if data else self.readers[0]
        # A folder of its own: one reader's file must not be part of another's input.
        path = self.folder / f"of-{name.replace('/', '-')}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for beside, text in LISTS.items() if name in LISTS else ():
            (path.parent / beside).write_text(text, encoding="utf-8")
        path.write_bytes(data[1:])
        self.executions[name] += 1
        try:
            read(path)
            self.accepted[name] += 1
        except (ValueError, OSError) as error:
            if isinstance(error, UnicodeError) or (str(path) not in str(error) and not _names_an_option(name, error)):
                self._keep(name, error, data)
        except Exception as error:
            self._keep(name, error, data)

    def _keep(self, name: str, error: Exception, data: bytes) -> None:
        """One finding a place in the code."""
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{name}: {type(error).__name__} at {Path(frames[-1].filename).name}:{frames[-1].lineno}"
        if place not in self.findings:
            self.findings[place] = f"{str(error)[:200]} from {data[1:120]!r}"
            print(f"finding: {place}: {self.findings[place]}", file=sys.stderr, flush=True)

    def report(self) -> None:
        """Counts by reader, and the findings."""
        counts = {name: [self.executions[name], self.accepted[name]] for name in self.executions}
        total = sum(self.executions.values())
        print(json.dumps({"executions": total, "read and accepted": counts, "findings": self.findings}, indent=1))
        sys.stdout.flush()


def _names_an_option(reader: str, error: Exception) -> bool:
    """Whether a message of the configuration says which option it is about, in the place of the file."""
    sections = ("model", "data", "run", "augmentation", "recipe", "domain", "repo_id", "expected", "unknown option")
    missing = "clips are missing under" in str(error)
    return (reader == "config.yaml" and any(section in str(error) for section in sections)) or (
        reader.endswith((".csv", ".txt")) and (missing or "official lists" in str(error))
    )


def main() -> None:
    """Fuzz for a time; exit code 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, metavar="N", help="(default: 600)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="(default: 1)")
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    atheris, readers = instrumented()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, (name, (_, sound)) in enumerate(readers.items()):
        (corpus / name.replace("/", "-")).write_bytes(bytes([number]) + sound)
    options = ["fuzz", f"-seed={args.seed}", "-max_len=8192", "-rss_limit_mb=0", "-verbosity=0", str(corpus)]
    atheris.Setup(options, Harness(readers, folder / "files", args.seconds))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
