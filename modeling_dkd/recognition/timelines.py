"""What is seen when in long videos: from files and class names to segments.

    found = timeline(["monday.mp4"], encoder, ["opening the door", "stacking boxes"])
    for start, end, label, confidence in found.timelines[0].segments:
        ...

Windows of all videos are embedded once and kept, the domain is fitted to them or given, and their posteriors are
smoothed by a chain of labels that seldom switch (switching_chain.py). Labels are never needed.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..dkd_head import DKDHead, DKDHeadOutput
from ..frame_sampling import ArrayOfFloat
from ..video_frames import VideoReadError
from .clip_cache import ClipCache, default_cache_folder
from .clip_listing import Clip, list_clips
from .encoder import Encoder
from .segments import Segment, join_windows
from .switching_chain import best_path, chain_with_penalty, choose_chain, marginals
from .window_embedding import VideoWindows, embed_windows


# Probabilities are kept from 0 and 1, where no evidence could move them.
LEAST_PROBABILITY = 1e-6


@dataclass(frozen=True)
class Timeline:
    """What is seen when in one video.

    Attributes:
        video: Its name, as the paths gave it.
        path: Where it is.
        segments: In order of time; they leave out only what could not be read.
        starts: Start of each window, (N,) seconds since the first frame.
        ends: End of each window, (N,) seconds.
        window_labels: Label of each window after smoothing, None for none of the classes.
        zero_shot_labels: Label of each window by plain zero-shot alone.
        class_names: The classes that were asked.
        encoder: Name of the encoder.
        window: Length of a window, seconds.
        stride: Seconds from window to window.
        switch_penalty: What a switch cost on the way through the labels, nats.
        remark: What is wrong with the file, "" for a sound one.
    """

    video: str
    path: str
    segments: list[Segment]
    starts: ArrayOfFloat
    ends: ArrayOfFloat
    window_labels: list[str | None]
    zero_shot_labels: list[str]
    class_names: tuple[str, ...]
    encoder: str
    window: float
    stride: float
    switch_penalty: float
    remark: str = ""

    @property
    def duration(self) -> float:
        """End of the last window, seconds since the first frame."""
        return float(self.ends[-1])

    def seconds_of(self, label: str | None) -> float:
        """How long a label is seen in all; None: none of the classes."""
        return sum(s.end - s.start for s in self.segments if s.label == label)


@dataclass(frozen=True)
class TimelineRun:
    """What a run found.

    Attributes:
        timelines: One for each video that could be read, in the order given.
        damaged: Name and reason of the others.
        head: The head with the domain, as it was used.
    """

    timelines: list[Timeline]
    head: DKDHead
    damaged: dict[str, str] = field(default_factory=dict)


def timeline(
    videos: Sequence[str | os.PathLike[str]],
    encoder: Encoder,
    class_names: Sequence[str],
    text_embeds: Tensor | None = None,
    *,
    window: float = 4.0,
    stride: float = 2.0,
    head: DKDHead | None = None,
    adapt: bool = True,
    switch_penalty: float | None = None,
    reject_below: float = 0.5,
    cache_folder: str | os.PathLike[str] | None = None,
) -> TimelineRun:
    """Segments of long videos, labelled with the classes asked.

    Args:
        videos: Files, folders or lists, as in `list_clips`.
        encoder: What embeds, from `load_encoder`.
        class_names: Names of the K classes.
        text_embeds: Their embeddings, (K, D) or (K, P, D); None: of the encoder's own prompts.
        window: Length of a window, seconds.
        stride: From the start of a window to that of the next, seconds.
        head: A head with a domain; None: one is fitted to the windows.
        adapt: False: plain zero-shot, no domain at all.
        switch_penalty: What a switch of label costs, nats; None: it is chosen without labels, see `choose_chain`.
        reject_below: A window counts as none of the classes where the head's `known` is below this, its neighbours
            not considered; 0: every window gets a class.
        cache_folder: Where embeddings are kept; None: `default_cache_folder()`.

    Raises:
        ValueError: No classes, a number that makes no sense, no video that can be read, or the encoder fails.
        OSError: The disk refuses.
    """
    if not 0 <= reject_below < 1:
        raise ValueError(f"reject_below is {reject_below}; it must be 0 or more and below 1")
    if not class_names:
        raise ValueError("no classes were given; name at least one")
    clips = list_clips(videos)
    if text_embeds is None:
        text_embeds = encoder.embed_texts(encoder.prompts(class_names))
    folder = ClipCache(cache_folder or default_cache_folder(), encoder).folder / "windows"
    windows, damaged = embed_videos(clips, encoder, folder, window, stride)
    if not windows:
        name, reason = next(iter(damaged.items()))
        raise ValueError(f"none of {len(clips)} videos can be read; {name}: {reason}")
    video_embeds = torch.cat([of_video.video_embeds for of_video in windows])
    plain = encoder.new_head()
    if head is None:
        head = encoder.new_head().fit(video_embeds, text_embeds) if adapt else plain
    sizes = [len(of_video.starts) for of_video in windows]
    with torch.inference_mode():
        output, zero_shot = (of(video_embeds, text_embeds) for of in (head, plain))
    posteriors = [part.numpy() for part in label_posteriors(output, reject_below).split(sizes)]
    best = [part.tolist() for part in zero_shot.logits_per_video.argmax(1).split(sizes)]
    chain = choose_chain(posteriors) if switch_penalty is None else chain_with_penalty(posteriors, switch_penalty)
    names: list[str | None] = [*class_names, None]
    timelines = []
    for of_video, own, plainly in zip(windows, posteriors, best, strict=True):
        path = best_path(own, chain)
        segments = join_windows(of_video.starts, of_video.ends, path, marginals(own, chain), names)
        timelines.append(
            Timeline(
                video=of_video.clip.name,
                path=of_video.clip.path,
                segments=segments,
                starts=of_video.starts,
                ends=of_video.ends,
                window_labels=[names[label] for label in path],
                zero_shot_labels=[class_names[label] for label in plainly],
                class_names=tuple(class_names),
                encoder=encoder.name,
                window=window,
                stride=stride,
                switch_penalty=chain.switch_penalty,
                remark=of_video.remark,
            )
        )
    return TimelineRun(timelines, head, damaged)


def embed_videos(
    clips: Sequence[Clip], encoder: Encoder, folder: Path, window: float, stride: float
) -> tuple[list[VideoWindows], dict[str, str]]:
    """Windows of all videos that can be read, and the reasons for the others."""
    windows, damaged = [], {}
    for clip in clips:
        try:
            windows.append(embed_windows(clip, encoder, folder, window, stride))
        except VideoReadError as error:
            damaged[clip.name] = str(error)
    return windows, damaged


def label_posteriors(output: DKDHeadOutput, reject_below: float) -> Tensor:
    """Probability of each of K classes and, where windows may be rejected, of none of them: (N, K + 1) or (N, K).

    `known` shares each window between the classes and none of them, its odds divided by those of `reject_below`, so
    that a window at just this value stands halfway.
    """
    posteriors = output.logits_per_video.double().softmax(1)
    known = getattr(output, "known", None)
    if known is None or reject_below == 0:
        return posteriors
    known = known.double().clamp(LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    share = (known.logit() - float(np.log(reject_below / (1 - reject_below)))).sigmoid()[:, None]
    return torch.cat([share * posteriors, 1 - share], 1)
