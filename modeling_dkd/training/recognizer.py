"""What is trained: the model with its class texts, and how it embeds clips and fits its domain."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ..data.video_files import VideoRecord
from ..embedding.clip_encoder import ClipReader
from ..embedding.worker_processes import worker_context
from ..modeling_dkd import DKDCLIPModel
from ..video_frames import VideoReadError
from .clips import start_worker


class Recognizer(nn.Module):
    """Clips against the classes of a data set, once as plain CLIP and once moved by the domain.

    Args:
        model: The model.
        tokens: The class prompts, `input_ids` (K, P, L) and what else the tokenizer gives.
        train_text_encoder: Whether texts are embedded in each forward pass; else they are embedded now, once.
    """

    text_embeds: Tensor | None

    def __init__(self, model: DKDCLIPModel, tokens: dict[str, Tensor], train_text_encoder: bool) -> None:
        super().__init__()
        self.model = model
        self.tokens = tokens
        self.register_buffer("text_embeds", None, persistent=False)
        if not train_text_encoder:
            with torch.no_grad():
                self.text_embeds = model.get_text_features(**tokens)

    def texts(self) -> Tensor:
        """Prompt embeddings (K, P, D)."""
        return self.model.get_text_features(**self.tokens) if self.text_embeds is None else self.text_embeds

    def embed(self, pixel_values: Tensor) -> Tensor:
        """Frame embeddings (B, T, D) of clips (B, T, 3, H, W); no view, which FSDP would warn of."""
        return self.model.get_video_features(pixel_values).clone()

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K) of clips (B, T, 3, H, W) without and with the domain; NaN where an embedding is not finite.

        The head has its own place for each text that it was fitted with, so a text encoder that is trained learns from
        the logits without the domain; those with it keep the texts of the last fit, whose classes they are.
        """
        videos, texts = self.model.get_video_features(pixel_values), self.texts()
        plain = plain_logits(self.model, videos, texts)
        if not torch.compiler.is_compiling() and not bool(plain.isfinite().all()):
            return plain, plain  # the head would refuse it; the loop says which clips it was
        head = self.model.head
        if self.text_embeds is None and head.is_fitted:
            texts = head.fitted_texts
        return plain, head(videos, texts).logits_per_video


def plain_logits(model: DKDCLIPModel, videos: Tensor, texts: Tensor) -> Tensor:
    """Logits (B, K) of frames (B, T, D) and prompts (K, P, D) as plain CLIP has them: what an unfitted head gives."""
    with torch.autocast(videos.device.type, enabled=False):
        pooled = [normalize(normalize(e.float(), dim=-1).mean(1), dim=-1) for e in (videos, texts)]
        return model.head.logit_scale * pooled[0] @ pooled[1].T + model.head.logit_bias


@dataclass(frozen=True)
class EmbeddedClips:
    """Embeddings of those of the clips that could be read.

    Attributes:
        positions: (n,) int64, which of the records they are.
        video_embeds: (n, T, D) float32, on the CPU.
        damaged: Reasons, by the names of clips that could not be read.
    """

    positions: Tensor
    video_embeds: Tensor
    damaged: dict[str, str]

    def labels(self, records: Sequence[VideoRecord]) -> Tensor:
        """Classes (n,) int64."""
        return torch.tensor([records[i].label for i in self.positions.tolist()], dtype=torch.int64)


class _Clips(Dataset):
    """Position -> frames or the reason why there are none, and the position."""

    def __init__(self, records: Sequence[VideoRecord], reader: ClipReader) -> None:
        self.records = records
        self.reader = reader

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, position: int) -> tuple[Tensor | str, int]:
        try:
            return self.reader(self.records[position])[0], position
        except (VideoReadError, OSError) as error:
            return str(error), position


@torch.no_grad()
def embed_share(
    recognizer: Recognizer,
    records: Sequence[VideoRecord],
    reader: ClipReader,
    accelerator: Accelerator,
    batch_size: int,
    num_workers: int,
    title: str,
) -> EmbeddedClips:
    """Embed this process's share of the clips, every num_processes-th, with the weights as they are.

    Raises:
        ValueError: None of its clips can be read.
    """
    share = range(accelerator.process_index, len(records), accelerator.num_processes)
    workers = min(num_workers, len(share))
    loader: Any = DataLoader(
        _Clips(records, reader),
        batch_size,
        sampler=share,
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=start_worker,
        multiprocessing_context=worker_context(workers),
        generator=torch.Generator(),
    )
    training = recognizer.training
    recognizer.eval()
    embeds: list[Tensor] = []
    positions: list[int] = []
    damaged: dict[str, str] = {}
    show = accelerator.is_main_process
    with tqdm(total=len(share), desc=title, unit="clip", disable=None if show else True, leave=False) as progress:
        for batch in loader:
            found = [(frames, position) for frames, position in batch if isinstance(frames, Tensor)]
            damaged |= {records[position].name: reason for reason, position in batch if isinstance(reason, str)}
            for group in _of_one_size(found):
                clips = torch.stack([frames for frames, _ in group]).to(accelerator.device)
                with accelerator.autocast():
                    embeds.append(recognizer.embed(reader.normalise(clips)).float().cpu())
                positions += [position for _, position in group]
            progress.update(len(batch))
    recognizer.train(training)
    if not embeds:
        raise ValueError(f"none of {len(share)} clips can be read: {next(iter(damaged.values()), 'there are none')}")
    return EmbeddedClips(torch.tensor(positions), torch.cat(embeds), damaged)


def refuse_damaged(share: EmbeddedClips, accelerator: Accelerator, allow_missing: bool) -> EmbeddedClips:
    """The same clips, once it is certain that all could be read or that others may be left out.

    Raises:
        ValueError: In every process, where any of them has met a clip that cannot be read.
    """
    damaged = {} if allow_missing else {n: r for found in gather_object([share.damaged]) for n, r in found.items()}
    if damaged:
        name, reason = min(damaged.items())
        raise ValueError(
            f"{len(damaged)} clips cannot be read, the first is {name}: {reason}; leave out damaged clips with "
            "--set data.allow_missing=true"
        )
    return share


def gather_clips(share: EmbeddedClips) -> EmbeddedClips:
    """The shares of all processes, in the order of the records."""
    shares = gather_object([share])
    positions = torch.cat([s.positions for s in shares])
    order = positions.argsort()
    damaged = {name: reason for s in shares for name, reason in s.damaged.items()}
    return EmbeddedClips(
        positions[order], torch.cat([s.video_embeds for s in shares])[order], dict(sorted(damaged.items()))
    )


@torch.no_grad()
def fit_domain_of(
    recognizer: Recognizer,
    share: EmbeddedClips,
    labels: Tensor | None,
    class_names: Sequence[str],
    accelerator: Accelerator,
) -> None:
    """Fit the head to the training clips of all processes together; each gives its share and gets the same head."""
    device = accelerator.device
    several = accelerator.num_processes > 1
    recognizer.model.head.fit(
        share.video_embeds.to(device),
        recognizer.texts(),
        labels,
        all_reduce=(lambda sums: accelerator.reduce(sums, "sum")) if several else None,
        class_names=class_names,
    )


def _of_one_size(found: list[tuple[Tensor, int]]) -> list[list[tuple[Tensor, int]]]:
    """Clips grouped by the size of their frames, which some backbones let vary."""
    groups: dict[torch.Size, list[tuple[Tensor, int]]] = {}
    for frames, position in found:
        groups.setdefault(frames.shape, []).append((frames, position))
    return list(groups.values())
