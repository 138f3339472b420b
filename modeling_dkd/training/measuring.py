"""What a run is measured by: short scores after each epoch, and at the end rows as evaluate.py writes them."""

from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ..data.prompts import load_templates
from ..data.video_index import VideoIndex
from ..embedding.clip_encoder import ClipEncoder
from ..embedding.embedding_cache import EmbeddingSet
from ..evaluation.measurement import Measurement, Plan, measure_set
from ..evaluation.methods.peers import zero_shot
from ..evaluation.metrics import class_accuracies, top_k_accuracy
from ..evaluation.protocols import Method, Task
from .clips import domain_clips
from .config import TrainingConfig
from .recognizer import (
    EmbeddedClips,
    Recognizer,
    embed_share,
    fit_domain_of,
    gather_clips,
    plain_logits,
    refuse_damaged,
)


# Shares of the fine-tuned weights that are always tested: both ends and the middle.
SHARES = (0.0, 0.5, 1.0)


@torch.no_grad()
def scores(recognizer: Recognizer, embedded: EmbeddedClips, labels: Tensor) -> dict[str, float]:
    """Top-1, top-5 and mean-class accuracy as fractions, with the domain and (`plain_...`) without."""
    model, texts = recognizer.model, recognizer.texts()
    videos = embedded.video_embeds.to(texts.device)
    found: dict[str, float] = {}
    for prefix, logits in (
        ("", model.head(videos, texts).logits_per_video),
        ("plain_", plain_logits(model, videos, texts)),
    ):
        values, truth = logits.float().cpu().numpy(), labels.numpy()
        per_class = class_accuracies(values, truth)
        found[f"{prefix}top1"] = top_k_accuracy(values, truth, 1)
        found[f"{prefix}top5"] = top_k_accuracy(values, truth, 5)
        found[f"{prefix}mean_class"] = sum(per_class.values()) / len(per_class)
    return found


def test_rows(
    config: TrainingConfig,
    index: VideoIndex,
    encoder: ClipEncoder,
    recognizer: Recognizer,
    share: float,
    accelerator: Accelerator,
) -> list[Measurement]:
    """Fit the domain anew to the weights as they are and test them with and without it.

    Args:
        config: The run's options.
        index: The data set.
        encoder: The encoders with the weights to test.
        recognizer: The same model with its class texts; its head is fitted here.
        share: Of the fine-tuned weights in these, for the names of the rows.
        accelerator: All processes embed; the main one measures.

    Returns:
        The row without the domain, then the one with it; empty on other processes than the main one.
    """
    title = method_name(share)
    domain, test = domain_clips(index, config), index.part("test")
    plain_views = replace(encoder.reader, views=f"{config.data.num_frames}x1x1")
    sizes = config.recipe.batch_size, config.data.num_workers
    allow_missing = config.data.allow_missing
    own = embed_share(recognizer, domain.records, plain_views, accelerator, *sizes, f"{title}: domain clips")
    refuse_damaged(own, accelerator, allow_missing)
    labels = own.labels(domain.records) if config.domain.use_labels else None
    fit_domain_of(recognizer, own, labels, index.class_names, accelerator)
    domain_embedded = gather_clips(own)
    test_share = embed_share(recognizer, test.records, encoder.reader, accelerator, *sizes, f"{title}: test clips")
    test_clips = gather_clips(refuse_damaged(test_share, accelerator, allow_missing))
    if not accelerator.is_main_process:
        return []
    texts = recognizer.texts().detach().float().cpu()
    test_set = _embedding_set(config, encoder, test, test_clips, texts, "test", encoder.views)
    domain_set = _embedding_set(config, encoder, domain, domain_embedded, texts, "train", plain_views.views)
    head = recognizer.model.head

    def with_domain(task: Task) -> Tensor:
        """The model's own head, as it is saved."""
        device = head.logit_bias.device
        logits = head(task.test.to(device), task.text.to(device)).logits_per_video
        assert logits is not None
        return logits.cpu()

    methods: dict[str, Method] = {title: zero_shot, "dkd" if share == 0 else f"{title}/dkd": with_domain}
    measured = list(measure_set(index.dataset, test_set, methods, Plan((), 1), domain_set))
    which = "a random" if len(domain.records) < len(index.part("train").records) else "the"
    which = "the first" if config.data.clips_per_epoch else which
    how = "with their labels" if config.domain.use_labels else "without labels"
    for row in (m.row for m in measured):
        row["data"]["domain"] = f"{which} {len(domain_embedded.positions)} training clips {how} (inductive)"
        row["finetuned_share"] = share
    return measured


def method_name(share: float) -> str:
    """What rows call weights with this share of the fine-tuned ones."""
    return {0.0: "zero-shot", 1.0: "fine-tuned"}.get(share, f"interpolated-{share:g}")


def _embedding_set(
    config: TrainingConfig,
    encoder: ClipEncoder,
    part: VideoIndex,
    clips: EmbeddedClips,
    texts: Tensor,
    name: str,
    views: str,
) -> EmbeddingSet:
    """Embeddings of one part with what results say about them."""
    templates = load_templates(config.data.templates)
    total = len(part.records) + len(part.missing)
    split = f"{part.split} {name}"
    if len(clips.positions) < total:
        split += f" ({len(clips.positions)} of {total} clips)"
    metadata: dict[str, Any] = {
        "names": [part.records[i].name for i in clips.positions.tolist()],
        "class_names": list(part.class_names),
        "prompts": templates[0] if len(templates) == 1 else f"{config.data.templates} ({len(templates)} templates)",
        "backbone": encoder.name,
        "revision": encoder.revision,
        "dataset": part.dataset,
        "split": split,
        "frames": views,
        "preprocessing": encoder.preprocessing,
        "logit_scale": encoder.logit_scale,
    }
    return EmbeddingSet(clips.video_embeds, clips.labels(part.records), texts, metadata)
