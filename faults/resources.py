"""What a machine runs out of: disk, rights, memory, open files; and what several runs and a wrong clock do."""

import os
import random
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from modeling_dkd.data.video_index import folder_index
from modeling_dkd.embedding.clip_embedding import embed_clips
from modeling_dkd.embedding.clip_encoder import ClipReader
from modeling_dkd.embedding.clip_shards import ClipShards
from modeling_dkd.processing_dkd import DKDCLIPProcessor
from tests.hub.local_hub import LocalHub

from .kills import model_to_publish, undisturbed
from .runs import Material, Operation, compare, digest, embedding, make_material, publish_again, published_in, training
from .trials import LOST, SKIPPED, SURVIVED, WRONG_MESSAGE, Child, Ended, Trial, Verdict, explained, in_child, refused
from .videos import pooled, write_clip


NOBODY = 65534
MIB = 1 << 20
Named = tuple[str, Trial]


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A tmpfs of so many bytes; OSError where this user may not mount one."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"no tmpfs can be mounted here ({done.stderr.strip()})")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def can_mount(scratch: Path) -> bool:
    """Whether this user may mount a tmpfs."""
    try:
        with small_disk(scratch / "mounted", MIB):
            return True
    except OSError:
        return False


def full_disk(operation: Operation, expected: dict[str, Any], free: int, scratch: Path) -> Verdict:
    """Run on a disk that has this much room, then again once there is enough."""
    disk = scratch / "disk"
    with small_disk(disk, free):
        ended = in_child(lambda: operation.run(disk, False))
        said = SURVIVED_BY_ROOM if ended.how == "returned" and ended.value == 0 else refused(ended, "No space left")
        if said.kind != SURVIVED:
            return said
        grown = subprocess.run(["mount", "-o", "remount,size=256m", str(disk)], capture_output=True, check=False)
        if grown.returncode:
            return Verdict(SKIPPED, "the small disk cannot be made larger")
        return compare(operation, in_child(lambda: operation.run(disk, True)), disk, expected)


SURVIVED_BY_ROOM = Verdict(SURVIVED, "there was room enough")


def file_limit(operation: Operation, expected: dict[str, Any], size: int, scratch: Path) -> Verdict:
    """The same where files may not grow beyond a size (a quota), which needs no rights."""

    def limited() -> Any:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        return operation.run(scratch, False)

    ended = in_child(limited)
    if ended.how != "returned" or ended.value != 0:
        said = refused(ended, "File too large")
        if said.kind != SURVIVED:
            return said
    return compare(operation, in_child(lambda: operation.run(scratch, True)), scratch, expected)


def read_only(operation: Operation, expected: dict[str, Any], scratch: Path) -> Verdict:
    """Run where nothing may be written, then again where it may."""
    folder = scratch / "kept"
    folder.mkdir()
    (folder / "config.yaml").touch()  # which a user has before the run
    (folder / ("cache" if operation.name == "embed" else "run")).mkdir(exist_ok=True)
    for path in (folder, *folder.iterdir()):
        path.chmod(0o555 if path.is_dir() else 0o666)
    scratch.chmod(0o755)

    def powerless() -> Any:
        if os.geteuid() == 0:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        return operation.run(folder, False)

    said = refused(in_child(powerless), "Permission denied", "cannot be written")
    if said.kind != SURVIVED:
        return said
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return compare(operation, in_child(lambda: operation.run(folder, True)), folder, expected)


def short_of_memory(clips: Path, backbone: Path, batch_size: int, fits: int, scratch: Path) -> Verdict:
    """Embed in batches of which only `fits` clips have room in memory at a time."""
    reader = ClipReader(DKDCLIPProcessor.from_backbone(str(backbone)), "2x1x1")
    records = folder_index(clips).records
    accelerator = Accelerator(cpu=True)
    enough = ClipShards(scratch / "enough")
    run = embed_clips(records, records, reader, pooled, enough, accelerator, batch_size)
    each = 256 * MIB

    def hungry(frames: list[Tensor]) -> Tensor:
        torch.empty(len(frames) * each, dtype=torch.uint8)
        return pooled(frames)

    def limited() -> list[list[list[float]]]:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + fits * each + each // 2, resource.RLIM_INFINITY))
        shards = ClipShards(scratch / "short")
        found = embed_clips(records, records, reader, hungry, shards, accelerator, batch_size)
        return shards.gather([found.identities[record.name] for record in records]).tolist()

    ended = in_child(limited)
    if 2 * fits < batch_size:
        return (
            _said_once(ended, explained(ended, "--batch_size"))
            if ended.how == "raised"
            else Verdict(WRONG_MESSAGE, f"half a batch does not fit, but {ended.how} {str(ended.value)[:300]}")
        )
    if ended.how != "returned":
        return Verdict(LOST, f"{ended.how}: {ended.value} {ended.shown[-300:]}")
    whole = enough.gather([run.identities[record.name] for record in records])
    if not torch.allclose(torch.tensor(ended.value), whole, rtol=0, atol=1e-5):
        return Verdict(LOST, "other embeddings than with enough memory")
    return _said_once(ended, Verdict(SURVIVED))


def _said_once(ended: Ended, otherwise: Verdict) -> Verdict:
    """Halving is told of once, whatever the number of batches."""
    words = ended.shown.count("out of memory")
    return otherwise if words == 1 else Verdict(WRONG_MESSAGE, f"told {words} times: {ended.shown[-300:]}")


def two_at_once(operation: Operation, expected: dict[str, Any], delay: float, scratch: Path) -> Verdict:
    """Start two runs in one folder; one at least ends well, the other may say that the folder is taken."""
    first = Child(lambda: operation.run(scratch, False))
    time.sleep(delay)
    second = Child(lambda: operation.run(scratch, True))
    both = [first.wait(120), second.wait(120)]
    done = [ended for ended in both if ended.how == "returned" and ended.value == 0]
    for ended in both:
        if ended not in done:
            said = refused(ended, "another run is", "holds a finished run", "holds an unfinished run")
            if said.kind != SURVIVED:
                return said
    if not done:
        return Verdict(LOST, f"neither of two runs ended: {both[0].shown[-300:]} {both[1].shown[-300:]}")
    return compare(operation, done[0], scratch, expected)


def two_publish(folder: Path, delay: float, scratch: Path) -> Verdict:
    """Two publications of one model to one repository."""
    expected = {p.relative_to(folder).as_posix(): digest(p) for p in folder.rglob("*") if p.is_file()}
    with LocalHub() as hub:
        first = Child(lambda: publish_again(hub, folder))
        time.sleep(delay)
        second = Child(lambda: publish_again(hub, folder))
        verdicts = [explained(child.wait(120), "owner/tiny") for child in (first, second)]
        bad = [verdict for verdict in verdicts if verdict.kind != SURVIVED]
        if bad:
            return bad[0]
        return Verdict(SURVIVED) if published_in(hub) == expected else Verdict(LOST, "other files than the folder has")


def clock_set_back(
    operation: Operation, expected: dict[str, Any], back: float, moment: float, scratch: Path
) -> Verdict:
    """Kill a run, set the clock back (its files now lie in the future), go on."""
    child = Child(lambda: operation.run(scratch, False))
    time.sleep(moment)
    child.kill()
    child.wait(60)
    for path in scratch.rglob("*"):
        status = path.stat()
        os.utime(path, (status.st_atime + back, status.st_mtime + back))

    def earlier() -> Any:
        true_time, true_ns = time.time, time.time_ns
        started = true_time()
        # The clock is set back once more, by as much, while the run goes on.
        time.time = lambda: true_time() - back * (1 + (true_time() > started + 0.3))
        time.time_ns = lambda: true_ns() - int(back * 1e9)
        return operation.run(scratch, True)

    return compare(operation, in_child(earlier), scratch, expected)


def few_open_files(num_clips: int, num_workers: int, backbone: Path, scratch: Path) -> Verdict:
    """Embed many clips, links to one file, with 64 open files allowed."""
    write_clip(scratch / "clip.avi", "mpeg4", 0, frames=2)
    for number in range(num_clips):
        target = scratch / "clips" / f"class{number % 10}" / f"{number:05d}.avi"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(scratch / "clip.avi", target)
    reader = ClipReader(DKDCLIPProcessor.from_backbone(str(backbone)), "2x1x1")

    def limited() -> list[int]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        records = folder_index(scratch / "clips").records
        shards = ClipShards(scratch / "shards")
        run = embed_clips(records, records, reader, pooled, shards, Accelerator(cpu=True), 16, num_workers)
        return [run.num_embedded, *shards.gather([run.identities[record.name] for record in records]).shape]

    ended = in_child(limited, seconds=1500)
    if ended.how == "returned":
        whole = ended.value == [num_clips, num_clips, 2, 4]
        return Verdict(SURVIVED) if whole else Verdict(LOST, f"{ended.value} of {num_clips} clips")
    return Verdict(LOST, f"{ended.how}: {ended.value} {ended.shown[-300:]}")


class Resources:
    """The operations with what they leave undisturbed, and the trials of each class of fault."""

    def __init__(self, scale: float, seed: int, scratch: Path) -> None:
        self.rng = random.Random(seed)
        self.count: Callable[[int], int] = lambda whole: max(1, round(whole * scale))
        self.scale = scale
        self.scratch = scratch
        self.material: Material = make_material(scratch)
        operations = (embedding(self.material), training(self.material, 0), training(self.material, 3))
        self.operations = [(op, *undisturbed(op, scratch / op.name)) for op in operations]
        self.model = model_to_publish(scratch)
        self.mounts = can_mount(scratch)

    def _each(self, number: int) -> tuple[Operation, dict[str, Any], float]:
        return self.operations[number % len(self.operations)]

    def disk_full(self) -> Iterator[Named]:
        """Disks from hardly a byte to enough, and limits on the size of files, which need no rights."""
        for number in range(self.count(30)):
            operation, expected, _ = self._each(number)
            largest = max(p.stat().st_size for p in (self.scratch / operation.name).rglob("*") if p.is_file())
            size = int(self.rng.uniform(0.02, 1.5) * largest)
            if self.mounts and number % 2 == 0:
                disk = int(size * self.rng.uniform(1, 2 if operation.name == "embed" else 8))
                disk = max(16384, disk // 4096 * 4096)
                yield f"{operation.name} {disk} bytes", partial(full_disk, operation, expected, disk)
            else:
                yield f"{operation.name} files of {size} bytes", partial(file_limit, operation, expected, size)

    def folders(self) -> Iterator[Named]:
        """Folders that nobody may write to."""
        for number in range(self.count(6)):
            operation, expected, _ = self._each(number)
            yield operation.name, partial(read_only, operation, expected)

    def memory(self) -> Iterator[Named]:
        """Batches of which a part fits; where not even half does, it says so."""
        for number in range(self.count(20)):
            batch_size = self.rng.choice((4, 6, 9))
            fits = self.rng.randint(1, batch_size - 1)
            name = f"{number}: {fits} of {batch_size} fit"
            yield name, partial(short_of_memory, self.material.clips, self.material.backbone, batch_size, fits)

    def pairs(self) -> Iterator[Named]:
        """Two runs in one folder."""
        for number in range(self.count(20)):
            if number % 4 == 3:
                yield f"{number} publish", partial(two_publish, self.model, self.rng.uniform(0, 0.5))
                continue
            operation, expected, seconds = self._each(number)
            delay = self.rng.uniform(0, seconds)
            yield f"{number} {operation.name} {delay:.2f} s apart", partial(two_at_once, operation, expected, delay)

    def clock(self) -> Iterator[Named]:
        """A clock that goes back by an hour, a day or thirty years."""
        for number in range(self.count(12)):
            operation, expected, seconds = self._each(number)
            back, moment = self.rng.choice((3600.0, 86400.0, 9.5e8)), self.rng.uniform(0.3, 0.9) * seconds
            name = f"{number} {operation.name} {back:.0f} s back"
            yield name, partial(clock_set_back, operation, expected, back, moment)

    def open_files(self) -> Iterator[Named]:
        """10,000 clips decoded in the process itself, and as many with two workers."""
        for num_workers in (0, 2):
            clips = max(50, round(10_000 * self.scale))
            run = partial(few_open_files, clips, num_workers, self.material.backbone)
            yield f"{clips} clips, {num_workers} workers", run
