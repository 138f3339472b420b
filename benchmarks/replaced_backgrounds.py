"""Clips before and after their background was replaced, embedded: what background_bias.py measures on.

Real clips: what moves stays, and the rest of each frame becomes the blurred scene of a clip of another class.
Generated clips: the same clip is drawn again over the scene of a clip of another action; nothing else changes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from tqdm import tqdm

from modeling_dkd.data.prompts import class_prompts
from modeling_dkd.data.video_index import VideoIndex
from modeling_dkd.embedding.clip_encoder import ClipEncoder
from modeling_dkd.embedding.embedding_cache import EmbeddingSet
from modeling_dkd.frame_sampling import segment_indices
from modeling_dkd.synthetic.clips import ACTIONS, DOMAINS, NUM_FRAMES, describe_clips, render_clip
from modeling_dkd.synthetic.clips import class_prompts as action_prompts
from modeling_dkd.video_frames import read_frames


FRAMES = 4  # embedded of each clip, the middles of equal parts
MOMENTS = 7  # looked at in each part, to tell what moves; odd, so that the middle one is the embedded frame
SCENE_FRAMES = 7  # of a clip that tell what does not move; a divisor of FRAMES * MOMENTS
FOREGROUND_SHARE = 0.35  # of a frame's area, the part with the most movement
# Standard deviations of Gaussian blurs, as shares of the short side.
SCENE_BLUR, MOTION_BLUR, EDGE_BLUR = 1 / 24, 1 / 16, 1 / 64


class Encoder(Protocol):
    """A dual encoder as this file uses it."""

    name: str
    logit_scale: float

    def embed(self, frames: Tensor) -> Tensor:
        """Frames (T, 3, H, W) uint8, RGB -> embeddings (T, D)."""
        ...

    def encode(self, texts: list[str]) -> Tensor:
        """Texts -> embeddings (number of texts, D)."""
        ...


class CheckpointEncoder:
    """A checkpoint of this project or a stock dual encoder as an `Encoder`; its own head is not used."""

    def __init__(self, name_or_folder: str) -> None:
        self.encoder = ClipEncoder.load(name_or_folder, f"{FRAMES}x1x1", None, torch.float32, torch.device("cpu"))
        self.name = self.encoder.name
        self.logit_scale = float(self.encoder.model.config.logit_scale)
        self.encode = self.encoder.encode

    def embed(self, frames: Tensor) -> Tensor:
        """Frames (T, 3, H, W) uint8, RGB -> embeddings (T, D)."""
        return self.encoder.embed(self.encoder.processor.image_processor.crop_videos([[frames]]))[0].float()


class Replacement(NamedTuple):
    """Frames of one clip before and after, (T, 3, H, W) uint8 each, and the clip that gave the other scene."""

    original: Tensor
    replaced: Tensor
    donor: int


class Pair(NamedTuple):
    """The same clips before and after, embedded."""

    original: EmbeddingSet
    replaced: EmbeddingSet


def choose_donors(labels: Sequence[int], fits: Callable[[int, int], bool], seed: int) -> list[int]:
    """For each clip another one, drawn at random, of another class and for which `fits(clip, donor)`."""
    generator = np.random.default_rng(seed)
    donors = []
    for clip, label in enumerate(labels):
        order = generator.permutation(len(labels))
        donors.append(next(int(d) for d in order if labels[d] != label and fits(clip, int(d))))
    return donors


def replaced_real_clips(index: VideoIndex, seed: int = 0) -> Iterator[Replacement]:
    """Every clip of an index, pasted on the blurred scene of another one."""
    donors = choose_donors([record.label for record in index.records], lambda *_: True, seed)
    for record, donor in zip(index.records, donors, strict=True):
        frames = read_frames(record.path, FRAMES * MOMENTS).pixels.numpy()
        scene = blurred_scene(read_frames(index.records[donor].path, SCENE_FRAMES).pixels.numpy())
        mask = moving_foreground(frames)
        original = frames[MOMENTS // 2 :: MOMENTS]
        replaced = mask * original + (1 - mask) * resized(scene, original.shape[-2:])
        yield Replacement(torch.from_numpy(original), torch.from_numpy(np.rint(replaced).astype(np.uint8)), donor)


def moving_foreground(frames: np.ndarray) -> np.ndarray:
    """How far each pixel of the middle frame of each part belongs to what moves, (T, 1, H, W), 0 to 1.

    Movement is the difference to what stays (the median over the clip) and to the frames before and after.

    Args:
        frames: (T * MOMENTS, 3, H, W), uint8.
    """
    pixels, side = frames.astype(np.float32), min(frames.shape[-2:])
    middle = np.arange(MOMENTS // 2, len(frames), MOMENTS)
    staying = np.median(frames[:: len(frames) // SCENE_FRAMES], axis=0)
    references = (staying, pixels[middle - 1], pixels[middle + 1])
    movement = np.mean([np.abs(pixels[middle] - reference).mean(1) for reference in references], axis=0)
    movement = gaussian_filter(movement, (0, side * MOTION_BLUR, side * MOTION_BLUR))
    threshold = np.quantile(movement, 1 - FOREGROUND_SHARE, axis=(1, 2), keepdims=True)
    mask = (movement >= threshold).astype(np.float32)
    return gaussian_filter(mask, (0, side * EDGE_BLUR, side * EDGE_BLUR))[:, None]


def blurred_scene(frames: np.ndarray) -> np.ndarray:
    """What stays in frames (n, 3, H, W) uint8, blurred: (3, H, W) float32, 0 to 255."""
    side = min(frames.shape[-2:]) * SCENE_BLUR
    return gaussian_filter(np.median(frames, axis=0).astype(np.float32), (0, side, side))


def resized(picture: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Picture (3, H, W) stretched to another size."""
    stretched = torch.nn.functional.interpolate(torch.from_numpy(picture)[None], size, mode="bilinear")
    return stretched[0].numpy()


def replaced_generated_clips(domain_name: str, num_clips: int, seed: int = 1) -> Iterator[Replacement]:
    """Generated clips of a domain of synthetic_clips.py, drawn once more over the scene of another one."""
    domain = DOMAINS[domain_name]
    descriptions = describe_clips(domain, num_clips, seed)
    actions = [ACTIONS.index(description.action) for description in descriptions]
    donors = choose_donors(actions, lambda a, b: descriptions[a].scene != descriptions[b].scene, seed)
    chosen = segment_indices(NUM_FRAMES, FRAMES)[0]
    for description, donor in zip(descriptions, donors, strict=True):
        both = description, replace(description, scene=descriptions[donor].scene)
        before, after = (torch.from_numpy(render_clip(domain, d)[chosen].transpose(0, 3, 1, 2).copy()) for d in both)
        yield Replacement(before, after, donor)


def few_of_each_group(index: VideoIndex, count: int) -> VideoIndex:
    """The first `count` clips of each group: more of the same actors in the same scene tell little more."""
    groups = [record.group for record in index.records]
    kept = [i for i, group in enumerate(groups) if groups[:i].count(group) < count]
    return replace(index, records=index.records[np.array(kept)])


def embed_real(index: VideoIndex, encoder: Encoder, templates: Sequence[str]) -> Pair:
    """The clips of an index before and after, embedded; clips of one video share a group."""
    metadata = {
        "names": [record.name for record in index.records],
        "groups": [record.group for record in index.records],
        "class_names": list(index.class_names),
        "dataset": index.dataset,
    }
    labels = [record.label for record in index.records]
    return _embed(replaced_real_clips(index), labels, class_prompts(index.class_names, templates), encoder, metadata)


def embed_generated(domain_name: str, num_clips: int, encoder: Encoder, seed: int = 1) -> Pair:
    """Generated clips before and after, embedded; each is a group of its own."""
    descriptions = describe_clips(DOMAINS[domain_name], num_clips, seed)
    names = [description.file_name for description in descriptions]
    metadata = {"names": names, "groups": names, "class_names": list(ACTIONS), "dataset": f"generated, {domain_name}"}
    labels = [ACTIONS.index(description.action) for description in descriptions]
    return _embed(replaced_generated_clips(domain_name, num_clips, seed), labels, action_prompts(), encoder, metadata)


def _embed(
    clips: Iterator[Replacement],
    labels: list[int],
    prompts: list[list[str]],
    encoder: Encoder,
    metadata: dict[str, Any],
) -> Pair:
    """Both sets; `donors` in the metadata are the classes that the other scenes come from."""
    embeds, donors = [], []
    for clip in tqdm(clips, total=len(labels), unit="clip", desc=metadata["dataset"]):
        embeds.append(encoder.embed(torch.cat([clip.original, clip.replaced])).view(2, FRAMES, -1))
        donors.append(labels[clip.donor])
    texts = encoder.encode([prompt for row in prompts for prompt in row]).view(len(prompts), len(prompts[0]), -1)
    metadata |= {"backbone": encoder.name, "frames": FRAMES, "logit_scale": encoder.logit_scale, "donors": donors}
    original, replaced = (
        EmbeddingSet(videos, torch.tensor(labels), texts, metadata | {"background": background})
        for videos, background in zip(torch.stack(embeds, dim=1), ("original", "replaced"), strict=True)
    )
    return Pair(original, replaced)
