"""What is seen when in long videos: from files and class names to segments.

    found = timeline(["monday.mp4"], ["opening the door", "stacking boxes"], "openai/clip-vit-base-patch16")
    for start, end, label, confidence in found.timelines[0].segments:
        ...

Windows of all videos are embedded once and kept, the domain is fitted to them or given, and their posteriors are
smoothed by a chain of labels that seldom switch (switching_chain.py). Labels are never needed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.counting import counted
from ..dkd_head import DKDHead, DKDHeadOutput
from ..frame_sampling import ArrayOfFloat
from ..video_frames import VideoReadError
from .asked import Classes, PathLike, asked, none_readable
from .clip_cache import ClipCache, default_cache_folder, reason
from .clip_listing import Clip, list_clips
from .doubts import all_rejected_doubt, same_text_doubts, small_domain_doubts, without_log_of_same_texts
from .encoder import Encoder, Model
from .segments import Segment, join_windows
from .switching_chain import (
    SwitchingChain,
    best_path,
    chain_with_penalty,
    choose_chain,
    marginals,
    without_repeats,
)
from .window_embedding import VideoWindows, embed_windows


# Probabilities are kept from 0 and 1, where no evidence could move them.
LEAST_PROBABILITY = 1e-6
# From fewer, what is known of the classes is not learned: 31 to 39 windows lost nearly all labels, 95 none too many.
WINDOWS_TO_REJECT = 90


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
        head: The head with the domain, as it was used.
        encoder: Name of the encoder.
        damaged: Name and reason of the videos that could not be read.
        notes: What else the user should know.
    """

    timelines: list[Timeline]
    head: DKDHead
    encoder: str
    damaged: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def timeline(
    paths: Sequence[PathLike],
    classes: Classes | None = None,
    model: Model = None,
    *,
    templates: PathLike | None = None,
    descriptions: PathLike | None = None,
    domain: PathLike | None = None,
    adapt: bool = True,
    window: float = 4.0,
    stride: float | None = None,
    switch_penalty: float | None = None,
    reject_below: float | None = None,
    cache_dir: PathLike | None = None,
) -> TimelineRun:
    """Segments of long videos, labelled with the classes asked.

    Args:
        paths: Videos, folders, lists and tables, as in `list_clips`.
        classes: A file with one class a line, names with commas between them, or a list; None: those of the domain.
        model: What embeds: what `load_encoder` gives, or the name that it takes.
        templates: Prompt templates, as in `load_templates`; None: the domain's or the encoder's own.
        descriptions: JSON file with descriptions of the classes, instead of templates.
        domain: Folder of a saved domain; None: one is fitted to the windows.
        adapt: False: plain zero-shot, no domain at all.
        window: Length of a window, seconds.
        stride: From the start of a window to that of the next, seconds; None: half a window.
        switch_penalty: What a switch of label costs, nats; None: it is chosen without labels, see `choose_chain`.
        reject_below: A window counts as none of the classes where the head's `known` is below this, its neighbours
            not considered; 0: every window gets a class. None: 0.5 with a domain of at least WINDOWS_TO_REJECT
            windows, from fewer of which `known` cannot be learned, else 0.
        cache_dir: Where embeddings are kept; None: `default_cache_folder()`.

    Raises:
        ValueError: What the user has to change: no classes, no video that can be read, a number that makes no sense.
        OSError: The disk refuses; what was embedded is kept.
    """
    if reject_below is not None and not 0 <= reject_below < 1:
        raise ValueError(f"reject_below is {reject_below:g}; known is a probability, give 0 or more and less than 1")
    if domain is not None and not adapt:
        raise ValueError("a domain is named, and none is to be used; leave out one of both")
    stride = window / 2 if stride is None else stride
    check_chain_options(window, stride, switch_penalty)
    listing = list_clips(paths)
    encoder, question, stored = asked(classes, model, templates=templates, descriptions=descriptions, domain=domain)
    names, text_embeds = question.class_names, question.text_embeds
    cache = ClipCache(cache_dir or default_cache_folder(), encoder)
    windows, damaged = embed_videos(listing.clips, encoder, cache.folder / "windows", window, stride)
    if not windows:
        raise none_readable(damaged)
    video_embeds = torch.cat([of_video.video_embeds for of_video in windows])
    notes = [*listing.notes, *same_text_doubts(question)]
    plain = encoder.new_head()
    head = stored.head if stored else plain
    if adapt and stored is None:
        with without_log_of_same_texts():
            head = encoder.new_head().fit(video_embeds, text_embeds)
        notes += small_domain_doubts(len(video_embeds), len(names), "window")
    if reject_below is None:
        knows = stored is not None or (adapt and len(video_embeds) >= WINDOWS_TO_REJECT)
        reject_below = 0.5 if knows else 0.0
    sizes = [len(of_video.starts) for of_video in windows]
    with torch.inference_mode():
        output, zero_shot = (of(video_embeds, text_embeds) for of in (head, plain))
    posteriors = [part.numpy() for part in label_posteriors(output, reject_below).split(sizes)]
    best = [part.tolist() for part in zero_shot.logits_per_video.argmax(1).split(sizes)]
    chain = choose_chain(posteriors) if switch_penalty is None else chain_with_penalty(posteriors, switch_penalty)
    sure = without_repeats(posteriors, chain, window / stride)
    timelines = [
        smoothed(of_video, own, (chain, sure), names, [names[label] for label in plainly], (window, stride))
        for of_video, own, plainly in zip(windows, posteriors, best, strict=True)
    ]
    if all(label is None for of_video in timelines for label in of_video.window_labels):
        highest = 0.0 if output.known is None else float(output.known.max())
        notes.append(all_rejected_doubt(counted(len(video_embeds), "window"), highest, reject_below))
    return TimelineRun(timelines, head, encoder.name, damaged, notes)


def check_chain_options(window: float, stride: float, switch_penalty: float | None) -> None:
    """Refuse numbers that would only be refused after the work.

    Raises:
        ValueError: A number is no number or too small, or windows leave out parts of the video.
    """
    if not (0 < window < math.inf and 0 < stride < math.inf):
        raise ValueError(f"windows of {window:g} s every {stride:g} s: both must be above 0")
    if stride > window:
        raise ValueError(
            f"windows of {window:g} s every {stride:g} s leave out what is between them; take more of them"
        )
    if switch_penalty is not None and not 0 <= switch_penalty < math.inf:
        raise ValueError(f"a switch penalty of {switch_penalty:g} nats: it must be 0 or more, such as 4")


def smoothed(
    windows: VideoWindows,
    posteriors: ArrayOfFloat,
    chains: tuple[SwitchingChain, SwitchingChain],
    class_names: Sequence[str],
    zero_shot_labels: list[str],
    window_and_stride: tuple[float, float],
) -> Timeline:
    """The timeline of one video from the posteriors (N, K) or (N, K + 1) of its windows.

    Of two chains the first says which labels, the second how sure they are.
    """
    names: list[str | None] = [*class_names, None]
    chain, sure = chains
    path = best_path(posteriors, chain)
    return Timeline(
        video=windows.clip.name,
        path=windows.clip.path,
        segments=join_windows(windows.starts, windows.ends, path, marginals(posteriors, sure), names),
        starts=windows.starts,
        ends=windows.ends,
        window_labels=[names[label] for label in path],
        zero_shot_labels=zero_shot_labels,
        class_names=tuple(class_names),
        window=window_and_stride[0],
        stride=window_and_stride[1],
        switch_penalty=chain.switch_penalty,
        remark=windows.remark,
    )


def embed_videos(
    clips: Sequence[Clip], encoder: Encoder, folder: Path, window: float, stride: float
) -> tuple[list[VideoWindows], dict[str, str]]:
    """Windows of all videos that can be read, and the reasons for the others."""
    windows, damaged = [], {}
    for clip in clips:
        try:
            windows.append(embed_windows(clip, encoder, folder, window, stride))
        except VideoReadError as error:
            damaged[clip.name] = reason(error, clip.path)
    return windows, damaged


def label_posteriors(output: DKDHeadOutput, reject_below: float) -> Tensor:
    """Probability of each of K classes and, where windows may be rejected, of none of them: (N, K + 1) or (N, K).

    `known` shares each window between the classes and none of them, its odds divided by those of `reject_below`, so
    that a window at just this value stands halfway.
    """
    if output.logits_per_video is None or output.known is None:
        raise ValueError("the head gave no logits, or did not say what it knows")
    posteriors = output.logits_per_video.double().softmax(1)
    if reject_below == 0:
        return posteriors
    known = output.known.double().clamp(LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    share = (known.logit() - float(np.log(reject_below / (1 - reject_below)))).sigmoid()[:, None]
    return torch.cat([share * posteriors, 1 - share], 1)
