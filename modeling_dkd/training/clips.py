"""Training clips: which they are, how a file becomes frames of a batch, and in which order batches come.

A sample depends on (seed, epoch, clip) alone, and the order of an epoch on (seed, epoch): however many workers and
processes share the work, and wherever a run was interrupted, the same clips come with the same random changes.
"""

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torch.utils.data import DataLoader, Dataset

from ..data.hub_stream import streamed_index
from ..data.named_index import named_index
from ..data.video_index import VideoIndex, VideoRecord
from ..embedding.clip_frames import read_clip_frames
from ..embedding.worker_processes import prepare_worker, worker_context
from ..processing_dkd import DKDCLIPProcessor
from ..video_frames import VideoReadError
from .augmentation import augment
from .config import AugmentationOptions, DataOptions, RecipeOptions, TrainingConfig


@dataclass(frozen=True)
class ClipBatch:
    """Clips of one forward pass.

    Attributes:
        pixel_values: (B, T, 3, H, W) float32.
        labels: (B,) int64.
        weights: (B,) float32, 0 for a clip that could not be read and 1 for all others.
        names: B clip names.
        damaged: Reasons, by the names of clips that could not be read.
    """

    pixel_values: Tensor
    labels: Tensor
    weights: Tensor
    names: list[str]
    damaged: dict[str, str]

    def to(self, device: torch.device) -> "ClipBatch":
        """The same batch with its tensors on a device."""
        pixels, labels, weights = (t.to(device, non_blocking=True) for t in self.tensors)
        return ClipBatch(pixels, labels, weights, self.names, self.damaged)

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels, labels and weights."""
        return self.pixel_values, self.labels, self.weights


def open_index(options: DataOptions, num_kept: int = 0) -> VideoIndex:
    """The data set's clips, with train and test parts, restricted to the wanted classes.

    Args:
        options: Which clips.
        num_kept: Of training clips that are streamed, how many are kept.

    Raises:
        ValueError: No such folder or lists, clips missing without `allow_missing`, or a part without clips.
    """
    if options.data_dir is None:
        raise ValueError("where are the videos? give their folder with --set data.data_dir=DIR")
    store = Path("runs/hub_clips")
    if options.clips_per_epoch:
        index = streamed_index(options.data_dir, store, num_kept)
    else:
        index = named_index(options.dataset, options.data_dir, options.annotations, options.split, store)
    if options.classes:
        index = index.restrict_classes(options.classes)
    for part in ("train", "test"):
        chosen = index.part(part)
        if chosen.records or chosen.missing:
            chosen.require_complete(options.allow_missing, "--set data.allow_missing=true")
        if chosen.missing:
            index = replace(index, notes=(*index.notes, f"{part}: {chosen.told_missing()}; left out"))
        if not chosen.records:
            raise ValueError(f"{options.data_dir} has no {part} clips; training needs a train and a test part")
    return index


def clips_of_an_epoch(config: TrainingConfig, found: int, num_processes: int) -> int:
    """How many clips an epoch has: what is streamed, or those that were found.

    Raises:
        ValueError: They do not fill one step of all processes.
    """
    num_clips = config.data.clips_per_epoch or found
    effective = config.recipe.effective_batch(num_processes)
    if config.recipe.epochs and num_clips < effective:
        remedy = "lower recipe.batch_size" + " or recipe.accumulation_steps" * (config.recipe.accumulation_steps > 1)
        raise ValueError(f"{num_clips} training clips do not fill one effective batch of {effective}; {remedy}")
    return num_clips


def domain_clips(index: VideoIndex, config: TrainingConfig) -> VideoIndex:
    """The training clips that the domain is fitted to: all, or `domain.num_clips` drawn with the run's seed."""
    training, wanted = index.part("train"), config.domain.num_clips
    if not 0 < wanted < len(training.records):
        return training
    drawn = torch.randperm(len(training.records), generator=seeded_generator(config.run.seed, wanted))[:wanted]
    return replace(training, records=training.records[drawn.sort().values.numpy()], missing=training.missing[:0])


def require_classes_without_flip(options: AugmentationOptions, class_names: Sequence[str]) -> None:
    """Refuse classes that are not to be mirrored and are not there.

    Raises:
        ValueError: The message names the first of them.
    """
    unknown = sorted(set(options.classes_without_flip) - set(class_names))
    if unknown:
        raise ValueError(f"augmentation.classes_without_flip names {unknown[0]!r}, which is no class of this set")


class TrainingClips(Dataset):
    """(epoch, position) -> frames (T, 3, H, W) float32 or the reason why there are none, and the clip's record."""

    def __init__(
        self,
        records: Sequence[VideoRecord],
        class_names: Sequence[str],
        processor: DKDCLIPProcessor,
        num_frames: int,
        options: AugmentationOptions,
        seed: int,
    ) -> None:
        require_classes_without_flip(options, class_names)
        self.records = records
        self.images = processor.image_processor
        self.num_frames = num_frames
        self.options = options
        self.seed = seed
        self.class_names = tuple(class_names)
        self.no_flip = {k for k, name in enumerate(class_names) if name in options.classes_without_flip}

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor | str, VideoRecord]:
        epoch, position = key
        return self.sample(self.records[position], seeded_generator(self.seed, epoch, position))

    def sample(self, record: VideoRecord, generator: torch.Generator) -> tuple[Tensor | str, VideoRecord]:
        """The frames of a clip, changed as the generator draws."""
        try:
            frames = read_clip_frames(record, self.num_frames, generator=generator).pixels
        except (VideoReadError, OSError) as error:
            return str(error), record
        frames = augment(frames, self.options, record.label not in self.no_flip, self.images, generator)
        return self.images.preprocess_videos([[frames]])[0], record


def collate(samples: Sequence[tuple[Tensor | str, VideoRecord]]) -> ClipBatch:
    """Stack clips; one that could not be read becomes black frames of weight 0."""
    readable = [frames for frames, _ in samples if isinstance(frames, Tensor)]
    damaged = {record.name: frames for frames, record in samples if isinstance(frames, str)}
    if not readable:
        raise ValueError(f"no clip of this batch can be read: {next(iter(damaged.values()))}")
    black = torch.zeros_like(readable[0])
    return ClipBatch(
        torch.stack([frames if isinstance(frames, Tensor) else black for frames, _ in samples]),
        torch.tensor([record.label for _, record in samples]),
        torch.tensor([float(isinstance(frames, Tensor)) for frames, _ in samples]),
        [record.name for _, record in samples],
        damaged,
    )


def epoch_batches(
    num_clips: int, batch_size: int, epoch: int, seed: int, process_index: int = 0, num_processes: int = 1
) -> list[list[tuple[int, int]]]:
    """Keys of `TrainingClips` for each batch of one epoch of one process.

    The epoch's order is cut into pieces of batch_size * num_processes clips, of which each process takes its part: two
    processes with half the batch see together what one sees. Clips that fill no whole piece are left out of the epoch.
    """
    order = torch.randperm(num_clips, generator=seeded_generator(seed, epoch)).tolist()
    piece = batch_size * num_processes
    starts = range(process_index * batch_size, num_clips - piece + process_index * batch_size + 1, piece)
    return [[(epoch, position) for position in order[start : start + batch_size]] for start in starts]


def training_loader(
    clips: TrainingClips, batches: Sequence[Sequence[tuple[int, int]]], num_workers: int
) -> Iterator[ClipBatch]:
    """Batches in order, read by worker processes; RuntimeError "DataLoader worker ..." where one of them dies."""
    workers = min(num_workers, len(batches))
    loader: Any = DataLoader(
        clips,
        batch_sampler=batches,  # type: ignore[arg-type] # a list of lists of keys is one
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=start_worker,
        multiprocessing_context=worker_context(workers),
        pin_memory=torch.accelerator.is_available(),
        generator=torch.Generator(),  # else the loader draws from the global state, which dropout uses
    )
    yield from loader


def start_worker(_: int) -> None:
    """One thread a worker; the training process alone answers to signals."""
    prepare_worker()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def seeded_generator(*numbers: int) -> torch.Generator:
    """A generator whose stream is told by these numbers together."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))


def mix_clips(
    pixel_values: Tensor, labels: Tensor, num_classes: int, options: RecipeOptions, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mixup or cutmix between each clip and another of the batch, all frames of a clip alike.

    Torchvision's transforms draw from the global state and would be the only need for that package.

    Args:
        pixel_values: (B, T, 3, H, W).
        labels: (B,) int64.
        num_classes: K.
        options: `mixup_alpha` and `cutmix_alpha`; a batch takes one of those that are not 0 by chance.
        generator: Draws which of the two, the mixing weight, the box and the partners.

    Returns:
        Mixed clips, and targets (B, K) float32 that sum to 1.

    Source:
        Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization"; Yun et al. 2019, "CutMix".
    """
    targets = one_hot(labels, num_classes).float()
    alphas = {"mixup": options.mixup_alpha, "cutmix": options.cutmix_alpha}
    kinds = [kind for kind, alpha in alphas.items() if alpha]
    if not kinds:
        return pixel_values, targets
    kind = kinds[int(torch.randint(len(kinds), (), generator=generator))]
    # A Beta variable as a share of two Gamma variables, which torch can draw from a generator of its own.
    gammas = torch._standard_gamma(torch.full((2,), alphas[kind]), generator=generator)
    weight = float(gammas[0] / gammas.sum())
    partners = torch.randperm(len(labels), generator=generator).to(labels.device)
    others = pixel_values[partners]
    if kind == "mixup":
        mixed = weight * pixel_values + (1 - weight) * others
    else:
        rows, columns = _draw_box(pixel_values.shape[-2:], 1 - weight, generator)
        mixed = pixel_values.clone()
        mixed[..., rows, columns] = others[..., rows, columns]
        # The share that is left: at the border a box is cut.
        weight = 1 - others[0, 0, 0, rows, columns].numel() / others[0, 0, 0].numel()
    return mixed, weight * targets + (1 - weight) * targets[partners]


def _draw_box(size: torch.Size, area: float, generator: torch.Generator) -> tuple[slice, slice]:
    """Rows and columns of a box with this share of the area and a random centre, cut at the border."""
    sides = []
    for length in size:
        half = length * area**0.5 / 2
        centre = length * float(torch.rand((), generator=generator))
        sides.append(slice(max(0, round(centre - half)), min(length, round(centre + half))))
    return sides[0], sides[1]
