"""DKD as a model of mteb, for its zero-shot video classification (HMDB51, UCF101, Kinetics).

    model = DKDVideoModel(load_encoder("openai/clip-vit-base-patch16"), "transductive")
    mteb.evaluate(model, mteb.get_tasks(tasks=["HMDB51ZeroShot"]))

What the domain is fitted to stands in the name under which mteb keeps the results:

| domain | fitted to | name ends in |
|---|---|---|
| "plain" | nothing: plain zero-shot of the same embeddings | `-plain` |
| "transductive" | the test videos themselves, without their labels | `-dkd-transductive` |
| "inductive" | the videos of the task's train split, without their labels | `-dkd-inductive` |

Videos are decoded by PyAV, at the frames that every other command of this project takes; torchcodec is not needed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from datasets import Dataset, Video, load_dataset
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ScoringFunction
from torch import Tensor
from torch.nn.functional import normalize
from tqdm.auto import tqdm

from ..recognition.encoder import Encoder
from ..video_inputs import frames_of


Domain = Literal["plain", "transductive", "inductive"]
ZERO_SHOT = "VideoZeroshotClassification"


def train_split(task_metadata: Any) -> Dataset:
    """The train split of a task's data set, from the Hub.

    Raises:
        ValueError: There is none.
    """
    try:
        return load_dataset(**task_metadata.dataset, split="train")
    except ValueError as error:
        raise ValueError(
            f"{task_metadata.name} has no train split, so that nothing can be fitted inductively; "
            "evaluate it plain or transductive"
        ) from error


class DKDVideoModel(AbsEncoder):
    """An encoder of clips and texts whose similarities are those of a head that knows the domain.

    Args:
        encoder: What embeds.
        domain: What the head is fitted to, see the module.
        train: From the metadata of a task to the data set with a column `video` that "inductive" is fitted to.
        batch_size: Clips that are decoded and encoded together.
    """

    def __init__(
        self,
        encoder: Encoder,
        domain: Domain,
        train: Callable[[Any], Dataset] = train_split,
        batch_size: int | None = None,
    ) -> None:
        if domain not in get_args(Domain):
            raise ValueError(f"domain is {domain!r}, but must be one of {', '.join(get_args(Domain))}")
        self.encoder, self.domain, self.train = encoder, domain, train
        self.batch_size = batch_size or encoder.batch_size
        self._domain_videos: dict[str, Tensor] = {}
        self._task = ""
        self.mteb_model_meta = _model_meta(encoder, domain)

    @torch.inference_mode()
    def encode(
        self, inputs: Any, *, task_metadata: Any, hf_split: str, hf_subset: str, prompt_type: Any = None, **_: Any
    ) -> Tensor:
        """Embed all texts or all videos of a loader of mteb.

        Args:
            inputs: Loader over a data set with a column `text` or `video`.
            task_metadata: Of the task, of which "inductive" takes the train split.
            hf_split: Not looked at.
            hf_subset: Not looked at.
            prompt_type: Not looked at.

        Returns:
            (N, D) float32, unit norm, not moved: that is up to `similarity`, which knows both sides.

        Raises:
            ValueError: A domain is asked for on a task that is no zero-shot video classification, or a video cannot
                be read.
        """
        if self.domain != "plain" and task_metadata.type != ZERO_SHOT:
            raise ValueError(
                f"{task_metadata.name} is {task_metadata.type}; a domain is fitted for {ZERO_SHOT} alone, take 'plain'"
            )
        if "video" not in inputs.dataset.column_names:
            texts = [text for batch in inputs for text in batch["text"]]
            return normalize(self.encoder.embed_texts([[text] for text in texts]).mean(1), dim=-1)
        self._task = task_metadata.name
        if self.domain == "inductive" and self._task not in self._domain_videos:
            self._domain_videos[self._task] = self._embed(self.train(task_metadata), "train split")
        return self._embed(inputs.dataset, hf_split)

    @torch.inference_mode()
    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Logits of videos (N, D) for class texts (K, D), (N, K), from a head fitted to the domain."""
        videos, texts = (torch.as_tensor(embeds).float() for embeds in (embeddings1, embeddings2))
        head = self.encoder.new_head()
        if self.domain == "transductive":
            head.fit(videos, texts)
        elif self.domain == "inductive":
            head.fit(self._domain_videos[self._task], texts)
        return head(videos, texts).logits_per_video

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Cosines of pairs (N, D) and (N, D) as they are, (N,): a pair has no domain."""
        return torch.nn.functional.cosine_similarity(torch.as_tensor(embeddings1), torch.as_tensor(embeddings2))

    def _embed(self, dataset: Dataset, described: str) -> Tensor:
        """Mean of the unit embeddings of each video's frames, (N, D), unit norm."""
        dataset = dataset.select_columns(["video"])
        if isinstance(dataset.features["video"], Video):
            dataset = dataset.cast_column("video", Video(decode=False))
        parts = []
        starts = range(0, len(dataset), self.batch_size)
        for start in tqdm(starts, desc=f"embedding {described}", unit="batch", disable=len(starts) < 2 or None):
            rows = dataset[start : start + self.batch_size]["video"]
            frames = [torch.cat(frames_of(row, None, self.encoder.num_frames)) for row in rows]
            embeds = self.encoder.embed_videos([self.encoder.prepare(clip) for clip in frames])
            parts.append(normalize(normalize(embeds, dim=-1).mean(1), dim=-1))
        return torch.cat(parts)


def _model_meta(encoder: Encoder, domain: Domain) -> ModelMeta:
    """What mteb keeps results under."""
    identity = encoder.identity
    owner, _, name = encoder.name.rpartition("/")
    suffix = domain if domain == "plain" else f"dkd-{domain}"
    return ModelMeta(
        loader=None,
        name=f"{owner or 'local'}/{Path(name).stem}-{suffix}",
        revision=(identity.revision or str(identity.weights).replace(":", "-")) if identity is not None else None,
        release_date=None,
        languages=None,
        n_parameters=None,
        memory_usage_mb=None,
        max_tokens=None,
        embed_dim=encoder.dim,
        license=None,
        open_weights=None,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch"],
        similarity_fn_name=ScoringFunction.COSINE,
        use_instructions=False,
        training_datasets=None,
        adapted_from=encoder.name if owner else None,
        modalities=["video", "text"],
        experiment_kwargs={"domain": domain, "frames": encoder.num_frames},
    )
