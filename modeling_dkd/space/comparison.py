"""Plain zero-shot beside DKD on single clips, for people who try it: what the Space computes, without its page."""

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.counting import counted
from ..dkd_head import DKDHead
from ..embedding.clip_encoder import ClipEncoder
from ..frame_sampling import Views
from ..video_frames import VideoReadError
from .upload_decoding import ArrayOfUint8, UploadDecoder
from .visitor_process import VisitorProcess


MAX_LABELS = 50
MAX_TEXT_LENGTH = 200
MAX_DOMAIN_CLIPS = 100


@dataclass(frozen=True)
class Clip:
    """A clip that was looked at; its file is no longer needed.

    Attributes:
        name: The file's name.
        embeds: Embeddings of its frames, (T, D) float32.
        thumbnails: The frames, RGB, (T, h, w, 3) uint8.
        times: When they are, (T,) seconds; NaN where unknown.
        damage: What is wrong with the file; "" for a sound one.
    """

    name: str
    embeds: Tensor
    thumbnails: ArrayOfUint8
    times: np.ndarray[Any, np.dtype[np.float64]]
    damage: str


@dataclass(frozen=True)
class Comparison:
    """What plain zero-shot and DKD make of one clip.

    Attributes:
        labels: K labels.
        zero_shot: Probabilities of plain zero-shot, K of them.
        dkd: Probabilities of DKD; the same where no domain is known.
        video_strength: How far the video was moved, 0 to 1.
        text_strengths: How far the clips of each label moved its text, 0 to 1; None where a domain of other labels,
            or none, is known.
        domain: What domain was used, in a few words; "" for none.
    """

    labels: list[str]
    zero_shot: list[float]
    dkd: list[float]
    video_strength: float
    text_strengths: list[float] | None
    domain: str


class ClipComparer:
    """Looks at clips and compares them with labels; keeps nothing of a clip or a domain between calls.

    Args:
        encoder: Encoders and head; the head is only read.
        process: Where files are decoded.
    """

    def __init__(self, encoder: ClipEncoder, process: VisitorProcess) -> None:
        self.encoder = encoder
        num_frames = Views.parse(encoder.views).num_frames
        self.decoder = UploadDecoder(encoder.processor.image_processor, num_frames, process)

    def open_clip(self, path: str | os.PathLike[str]) -> Clip:
        """Decode and embed one file.

        Raises:
            VideoReadError: It cannot be read, is too large or takes too long.
        """
        decoded = self.decoder(path)
        frames = torch.from_numpy(decoded.frames)[None].to(self.encoder.model.device)
        embeds = self.encoder.embed(frames)[0].float().cpu()
        return Clip(Path(path).name, embeds, decoded.thumbnails, decoded.times, decoded.damage)

    def open_domain(
        self, paths: Sequence[str | os.PathLike[str]], progress: Callable[[int], None] = lambda done: None
    ) -> tuple[Tensor | None, list[str]]:
        """Embed the clips of a domain.

        Args:
            paths: Files; those after the first 100 are left out.
            progress: Told how many are done.

        Returns:
            Embeddings (N, T, D) float32, None where no file could be read; and why files were left out.
        """
        embeds, left_out = [], []
        for done, path in enumerate(paths[:MAX_DOMAIN_CLIPS]):
            progress(done)
            try:
                embeds.append(self.open_clip(path).embeds)
            except VideoReadError as error:
                left_out.append(str(error))
        if len(paths) > MAX_DOMAIN_CLIPS:
            left_out.append(
                f"{counted(len(paths) - MAX_DOMAIN_CLIPS, 'clip')}, for at most {MAX_DOMAIN_CLIPS} are taken"
            )
        return torch.stack(embeds) if embeds else None, left_out

    @torch.inference_mode()
    def compare(self, clip: Clip, labels: Sequence[str], template: str, domain: Tensor | None) -> Comparison:
        """Plain zero-shot and DKD of one clip.

        Args:
            clip: From `open_clip`.
            labels: As `parse_labels` gives them.
            template: A text with one {} for the label.
            domain: Clips (N, T, D) of the domain that DKD is to know; None: the domain of the checkpoint, if any.

        Raises:
            ValueError: The template has no place for the label.
        """
        texts = self.encoder.encode([_checked_template(template).replace("{}", label) for label in labels]).float()
        device = texts.device
        videos = clip.embeds[None].to(device)
        head = self._own_head()
        text_strengths = None
        description = ""
        if domain is not None:
            head.fit(domain.to(device), texts)
            text_strengths = head.class_strength.tolist()
            description = f"your {counted(len(domain), 'clip')}"
        elif head.is_fitted:
            description = f"the checkpoint's own, {counted(len(head.weights), 'class')}"
        moved = head(videos, texts)
        plain = self._own_head().reset()(videos, texts)
        return Comparison(
            list(labels),
            plain.logits_per_video[0].softmax(-1).tolist(),
            moved.logits_per_video[0].softmax(-1).tolist(),
            float(moved.strength[0]),
            text_strengths,
            description,
        )

    def _own_head(self) -> DKDHead:
        """A copy of the head: what one visitor fits, no other sees."""
        return copy.deepcopy(self.encoder.model.head)


def parse_labels(text: str) -> list[str]:
    """Labels from a text with one a line, or with commas between them; the same label twice counts once.

    Raises:
        ValueError: There are none, too many, or one is too long.
    """
    parts = text.splitlines() if "\n" in text.strip() else text.split(",")
    labels = list(dict.fromkeys(part.strip().strip(",").strip() for part in parts))
    labels = [label for label in labels if label]
    if not labels:
        raise ValueError("type at least one label, one a line")
    if len(labels) > MAX_LABELS:
        raise ValueError(f"these are {len(labels)} labels, and at most {MAX_LABELS} are taken")
    longest = max(labels, key=len)
    if len(longest) > MAX_TEXT_LENGTH:
        raise ValueError(f"a label has {len(longest)} characters, and at most {MAX_TEXT_LENGTH} are taken")
    return labels


def _checked_template(template: str) -> str:
    """The template, once it is certain that it has one place for the label."""
    if template.count("{}") != 1 or len(template) > MAX_TEXT_LENGTH:
        raise ValueError("the prompt must hold {} once, where the label goes, and be short")
    return template
