"""Seconds and memory of an index of a million made-up clips: reading it, restricting it, sharing it out, embedding it.

python -m benchmarks.clip_index --json docs/clip_index.json      # a million clips, five layouts: 15 minutes
python -m benchmarks.clip_index --clips 20000

The clips are laid out as Kinetics-700 is, in 100 tar archives and as files, as a CSV with the same files, as these
alone, each of their 1,000 folders a class, and with the JSON lists of Something-Something v2; none holds a picture.
Each layout is read in a process of its own, of which the peak of resident memory is told, above what it was after the
imports.
"""

import argparse
import io
import json
import platform
import random
import string
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from modeling_dkd.data.named_index import named_index
from modeling_dkd.data.video_files import VideoRecord
from modeling_dkd.embedding.clip_embedding import embed_clips
from modeling_dkd.embedding.clip_shards import ClipShards, clip_identities
from modeling_dkd.training.clips import epoch_batches

from .rows import peak_memory


CLASSES, ARCHIVES, FOLDERS = 700, 100, 1000
LETTERS = string.ascii_letters + string.digits + "-_"
LAYOUTS = {
    "archives": ("kinetics700", "archives"),
    "files": ("kinetics700", "files"),
    "CSV": ("csv", "files/list.csv"),
    "folders": ("folder", "files"),
    "JSON": ("ssv2", "files"),
}


class NoMore(Exception):
    """Ends a run of embedding once it is planned."""


def make_clips(root: Path, number: int) -> None:
    """The lists, and the clips in archives and as files: a byte in each, and nothing."""
    draw = random.Random(0)
    clips = []
    for _ in range(number):
        start = draw.randrange(300)
        video = "".join(draw.choices(LETTERS, k=11))
        clips.append(
            (f"class number {draw.randrange(CLASSES)}", video, start, f"{video}_{start:06d}_{start + 10:06d}.mp4")
        )
    num_train = number * 19 // 20
    for place in ("archives", "files"):
        _write_lists(root / place / "annotations", {"train": clips[:num_train], "val": clips[num_train:]})
    for archive in range(ARCHIVES):
        with tarfile.open(root / f"archives/part_{archive:03d}.tar", "w") as tar:
            for *_, file in clips[archive::ARCHIVES]:
                member = tarfile.TarInfo(file)
                member.size = 1
                tar.addfile(member, io.BytesIO(b"x"))
    with open(root / "files/list.csv", "w", encoding="utf-8") as table:
        table.write("path,label,split\n")
        for i, (name, _, _, file) in enumerate(clips):
            folder = root / f"files/{i % FOLDERS:03d}"
            folder.mkdir(exist_ok=True)
            (folder / file).touch()
            table.write(f"{folder.name}/{file},{name},{'train' if i < num_train else 'test'}\n")


def _write_lists(folder: Path, parts: dict[str, list[tuple[str, str, int, str]]]) -> None:
    """What the owners of Kinetics and of Something-Something v2 publish."""
    folder.mkdir(parents=True)
    (folder / "labels.json").write_text(json.dumps({f"class number {i}": str(i) for i in range(CLASSES)}))
    for part, clips in parts.items():
        lines = [f'"{name}",{video},{start},{start + 10},{part},0\n' for name, video, start, _ in clips]
        header = "label,youtube_id,time_start,time_end,split,is_cc\n"
        (folder / f"{part}.csv").write_text(header + "".join(lines))
        what = {"label": "a text of some words for each clip", "placeholders": ["some", "words"]}
        entries = [{"id": Path(file).stem, "template": name} | what for name, *_, file in clips]
        name = "validation" if part == "val" else part
        (folder / f"{name}.json").write_text(json.dumps(entries))


def measure_layout(root: Path, layout: str) -> list[dict[str, Any]]:
    """Each step of one layout in this process: processor seconds, and the peak of memory up to its end."""
    rows: list[dict[str, Any]] = []
    before = peak_memory()

    def step(what: str, work: Callable[[], Any]) -> Any:
        start, processor = time.perf_counter(), time.process_time()
        result = work()
        seconds, processor = time.perf_counter() - start, time.process_time() - processor
        row = {"layout": layout, "what": what, "seconds": seconds, "processor_seconds": processor}
        rows.append(row | {"peak_bytes": peak_memory() - before})
        return result

    dataset, place = LAYOUTS[layout]
    index = step("reading the index", lambda: named_index(dataset, root / place))
    step("half of the classes", lambda: index.restrict_classes(index.class_names[::2]))
    training = index.part("train").records
    handed = step("handing the clips to a worker", lambda: ForkingPickler.loads(ForkingPickler.dumps(training)))
    assert len(handed) == len(training)
    step("the order of an epoch", lambda: epoch_batches(len(training), 32, 0, 0))

    def embed(folder: str) -> None:
        shards = ClipShards(root / folder)
        with suppress(NoMore):
            embed_clips(index.records, index.records, _no_more, _no_more, shards, Accelerator(cpu=True), 16, 0, False)

    step("the plan of embedding", lambda: embed(f"{layout} new"))
    done = ClipShards(root / f"{layout} done")
    identities = list(clip_identities(index.records).values())
    for start in range(0, len(identities), 8192):
        part = identities[start : start + 8192]
        done.write(part, [(identity, "") for identity in part], torch.zeros(len(part), 1, 1))
    del identities
    step("a run with nothing left to embed", lambda: embed(f"{layout} done"))
    return rows


def main(argv: list[str] | None = None) -> None:
    """Measure and print, or write, the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1_000_000, metavar="N", help="(default: a million)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the rows are written")
    parser.add_argument("--child", nargs=2, metavar=("ROOT", "LAYOUT"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        print(json.dumps(measure_layout(Path(options.child[0]), options.child[1])))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        make_clips(Path(folder), options.clips)
        for layout in LAYOUTS:
            command = [sys.executable, "-m", "benchmarks.clip_index", "--child", folder, layout]
            rows += json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    for row in rows:
        print(
            f"{row['layout']}, {row['what']}: {row['seconds']:.1f} s, {row['processor_seconds']:.1f} s of processor, "
            f"{row['peak_bytes'] / 2**20:.0f} MiB"
        )
    if options.json:
        contents = {"python": platform.python_version(), "clips": options.clips, "rows": rows}
        options.json.write_text(json.dumps(contents, indent=2) + "\n")


def _no_more(_: VideoRecord | list[torch.Tensor]) -> Any:
    raise NoMore


if __name__ == "__main__":
    main()
