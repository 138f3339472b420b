"""Training clips as a stream: of a Hub data set or of tar archives, each process and worker its share, none kept.

What comes depends on (seed, epoch, process, worker) and the place in the stream alone, so a run that is resumed with
the same numbers of processes and workers goes on with the clip that would have come next.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count, islice
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import torch
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data import IterableDataset as TorchIterableDataset

from ..data.hub_stream import streamed_clip
from ..data.video_files import VideoRecord
from ..embedding.worker_processes import worker_context
from .clips import ClipBatch, TrainingClips, collate, seeded_generator, start_worker


SHUFFLED = 64  # clips that a worker holds to draw the next one from


@dataclass(eq=False)
class StreamedClips(TorchIterableDataset):
    """Batches of one process's share of an epoch, without end: the share begins anew where it is through.

    Attributes:
        stream: What `hub_stream` gives.
        name: Of the data set.
        clips: How a clip becomes a sample, and the names of the classes; its own clips are those that are kept.
        batch_size: Clips in a batch.
        epoch: From 0.
        share: Number of this process and number of processes.
        first: Batches of each worker that are passed over.
    """

    stream: IterableDataset
    name: str
    clips: TrainingClips
    batch_size: int
    epoch: int
    share: tuple[int, int]
    first: int = 0

    @cached_property
    def labels(self) -> dict[str, int]:
        """Numbers of the classes."""
        return {class_name: label for label, class_name in enumerate(self.clips.class_names)}

    def __iter__(self) -> Iterator[ClipBatch]:
        rows = islice(enumerate(self._rows()), self.first * self.batch_size, None)
        while True:
            yield collate([self._sample(number, row) for number, row in islice(rows, self.batch_size)])

    def batches(self, first: int, last: int, num_workers: int) -> Iterator[ClipBatch]:
        """The batches `first` to `last` of the epoch, read by worker processes."""
        workers = min(num_workers, self._own_stream().num_shards)
        passed = first // max(workers, 1)  # by each worker: batches come from them in turn
        loader: Any = DataLoader(
            replace(self, first=passed),
            batch_size=None,
            num_workers=workers,
            worker_init_fn=start_worker,
            multiprocessing_context=worker_context(workers),
            pin_memory=torch.accelerator.is_available(),
            generator=torch.Generator(),
        )
        begin = passed * max(workers, 1)
        yield from islice(loader, first - begin, last - begin)

    def _own_stream(self) -> IterableDataset:
        """The share of this process, shuffled."""
        return split_dataset_by_node(self.stream.shuffle(seed=self.clips.seed, buffer_size=SHUFFLED), *self.share)

    def _rows(self) -> Iterator[dict[str, Any]]:
        """The rows of this worker, pass after pass in another order; `datasets` gives each worker its shards."""
        stream = self._own_stream()
        for passes in count():
            stream.set_epoch(2**16 * self.epoch + passes)
            yield from stream

    def _sample(self, number: int, row: dict[str, Any]) -> tuple[Tensor | str, VideoRecord]:
        """Frames (T, 3, H, W) float32, or why there are none, of a row and its record."""
        worker = get_worker_info()
        path = row["video"]["path"] or ""
        record = VideoRecord(path, path or f"clip {number} of the stream", self.labels.get(row["class_name"], 0))
        if row["class_name"] not in self.labels:
            return f"its class {row['class_name']!r} is that of no clip that is kept", record
        generator = seeded_generator(self.clips.seed, self.epoch, self.share[0], worker.id if worker else 0, number)
        try:
            content = streamed_clip(row["video"], self.name)["bytes"]
        except OSError as error:
            return str(error), record
        with NamedTemporaryFile(prefix="clip-", suffix=Path(path).suffix[:8]) as copy:
            copy.write(content)
            copy.flush()
            frames, _ = self.clips.sample(record._replace(path=copy.name), generator)
        return frames if isinstance(frames, Tensor) else frames.replace(copy.name, path), record
