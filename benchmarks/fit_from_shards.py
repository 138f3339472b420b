"""Memory and time of fitting a domain that is larger than memory should be, from shards on disk.

python -m benchmarks.fit_from_shards --json docs/fit_from_shards.json       # 250k, 500k, 1M: 1 GB of disk
python -m benchmarks.fit_from_shards --samples 20000 40000 --classes 100    # a minute

Each size is fitted in a process of its own: its peak of resident memory, less what it was before the fit (Python,
torch and the class texts), is what fitting takes. Embeddings are drawn from a seed, in float16, around random
class texts. Then the largest is fitted once more, with every round looking at all of it, to tell which embeddings
change their class by it.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize
from tqdm import tqdm

from modeling_dkd import DKDCLIPConfig, DKDHead, class_mixture
from modeling_dkd.embedding.embedding_shards import EmbeddingShards
from modeling_dkd.mixture_options import MixtureOptions

from .rows import REPOSITORY, peak_memory


SHARD_SIZE = 50_000


def class_texts(num_classes: int, dim: int) -> torch.Tensor:
    """Unit texts (K, D) about as far apart as CLIP's."""
    generator = torch.Generator().manual_seed(0)
    return normalize(torch.randn(num_classes, dim, generator=generator) + 1, dim=1)


def write_shards(folder: Path, num_samples: int, num_classes: int, dim: int) -> list[Path]:
    """Embeddings around the texts, float16, in files of SHARD_SIZE."""
    texts, paths = class_texts(num_classes, dim), []
    for start in tqdm(range(0, num_samples, SHARD_SIZE), desc="writing shards", leave=False):
        generator = torch.Generator().manual_seed(start + 1)
        size = min(SHARD_SIZE, num_samples - start)
        chosen = torch.randint(num_classes, (size,), generator=generator)
        videos = texts[chosen] + torch.randn(size, dim, generator=generator) / dim**0.5
        paths.append(folder / f"{start:09d}.safetensors")
        save_file({"video_embeds": normalize(videos, dim=1).half()}, paths[-1])
    return paths


def fit_shards(paths: list[Path], num_classes: int, rounds: int, whole: bool) -> dict[str, float]:
    """Fit once; seconds and the growth of the peak memory, bytes; or as `compare_with_whole`."""
    shards = EmbeddingShards(paths)
    dim = next(iter(shards)).shape[-1]
    texts = class_texts(num_classes, dim)
    head = DKDHead(DKDCLIPConfig(projection_dim=dim), MixtureOptions(num_rounds=rounds))
    head.fit(texts, texts)  # what torch allocates at first use
    before, start, processor_start = peak_memory(), time.perf_counter(), time.process_time()
    head.fit(shards, texts)
    seconds = {"seconds": time.perf_counter() - start, "processor_seconds": time.process_time() - processor_start}
    if whole:
        return seconds | compare_with_whole(head, shards, texts)
    return seconds | {"fit_bytes": peak_memory() - before, "peak_bytes": peak_memory()}


def compare_with_whole(head: DKDHead, shards: EmbeddingShards, texts: torch.Tensor) -> dict[str, float]:
    """The same fit with every round looking at all: its seconds, and the share of embeddings of another class."""
    whole = DKDHead(head.config, head.options)
    class_mixture.FIRST_LOOK = len(shards)
    start, processor_start = time.perf_counter(), time.process_time()
    whole.fit(shards, texts)
    seconds, processor_seconds = time.perf_counter() - start, time.process_time() - processor_start
    with torch.inference_mode():
        moved = sum(
            int((head(chunk, texts)[0].argmax(1) != whole(chunk, texts)[0].argmax(1)).sum()) for chunk in shards
        )
    return {
        "whole_seconds": seconds,
        "whole_processor_seconds": processor_seconds,
        "changed_share": moved / len(shards),
    }


def fit_in_child(paths: list[Path], num_classes: int, rounds: int, whole: bool = False) -> dict[str, float]:
    """`fit_shards` in a fresh process."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.fit_from_shards",
        "--child",
        "--classes",
        str(num_classes),
        "--rounds",
        str(rounds),
        *(["--whole"] if whole else []),
    ]
    done = subprocess.run([*command, *map(str, paths)], cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def main() -> None:
    """Measure, print, and write the JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--samples", type=int, nargs="+", default=[250_000, 500_000, 1_000_000], help="sizes (default: %(default)s)"
    )
    parser.add_argument("--classes", type=int, default=1000, help="classes (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=512, help="dimensions (default: %(default)s)")
    parser.add_argument(
        "--rounds",
        type=int,
        default=MixtureOptions().num_rounds,
        help="EM rounds (default: those of a fit, %(default)s)",
    )
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--whole", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("paths", type=Path, nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(fit_shards(options.paths, options.classes, options.rounds, options.whole)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        paths = write_shards(Path(folder), max(options.samples), options.classes, options.dim)
        print(f"{options.classes:,} classes, D = {options.dim}, {options.rounds} EM rounds, float16 on disk")
        for num_samples in options.samples:
            if num_samples % SHARD_SIZE and num_samples != max(options.samples):
                parser.error(f"sizes below the largest must be multiples of {SHARD_SIZE}, got {num_samples}")
            row = fit_in_child(paths[: -(-num_samples // SHARD_SIZE)], options.classes, options.rounds)
            rows.append({"samples": num_samples, **row})
            each = 1e6 * row["processor_seconds"] / num_samples
            print(
                f"  {num_samples:10,}  {row['seconds']:8.1f} s, of the processor {each:7.1f} us per sample"
                f"  {row['fit_bytes'] / 2**20:7.0f} MB more than before, {row['peak_bytes'] / 2**20:7.0f} MB in all",
                flush=True,
            )
        compared = fit_in_child(paths, options.classes, options.rounds, whole=True)
    times = compared["whole_processor_seconds"] / compared["processor_seconds"]
    changed = 100 * compared["changed_share"]
    print(f"  every round looking at all: {times:.1f} times as long, {changed:.3f} % of another class")
    if options.json:
        environment = {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0],
        }
        setting = {"classes": options.classes, "dim": options.dim, "rounds": options.rounds}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(
            json.dumps({"environment": environment, **setting, "rows": rows, "whole": compared}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
