"""Pipelines that ship with a checkpoint: videos to labels, its own or any that are asked.

    from transformers import pipeline

    pipe = pipeline("zero-shot-video-classification", model=folder_or_repository, trust_remote_code=True)
    pipe(["a.mp4", "b.mp4"], candidate_labels=["pouring tea", "juggling"], top_k=1)

    pipe = pipeline("video-classification", model=folder_or_repository, trust_remote_code=True)
    pipe("a.mp4")

    pipe = pipeline("zero-shot-video-classification", model=model, processor=processor)  # a model in memory
    pipe = VideoClassificationPipeline(model=model, processor=processor)

A domain that was fitted takes part without being asked: a label that names one of its classes stands for the text that
the class was fitted with.
"""

import os
import re
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel

# Not from `transformers`: its pipelines may just be importing the Auto classes, which bring this file along.
from transformers.pipelines.base import Pipeline, PipelineRegistry

from .video_inputs import is_column, is_one_video, list_of_videos


# What config.json says about the classes below; `pipeline` reads it.
CUSTOM_PIPELINES = {
    "video-classification": {"impl": "video_pipelines.VideoClassificationPipeline", "pt": ["AutoModel"]},
    "zero-shot-video-classification": {
        "impl": "video_pipelines.ZeroShotVideoClassificationPipeline",
        "pt": ["AutoModel"],
    },
}
DEFAULT_TEMPLATE = "a photo of a person doing {}."
# Not checked as a type: every pipeline, the library's own too, has other arguments than this base class.
BasePipeline: Any = Pipeline
MAX_DOWNLOAD_BYTES = 1 << 30
DOWNLOAD_TIMEOUT_SECONDS = 30
BLACK_SIZE = (64, 64)


class VideoClassificationPipeline(BasePipeline):
    """Videos to the labels that the model was made for: the classes of its domain, or else `config.id2label`."""

    _load_processor = True
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._encoded: tuple[Any, Tensor] | None = None  # texts and their embeddings
        super().__init__(*args, **kwargs)
        if self.processor is None:
            raise ValueError(f"{type(self).__name__} needs the processor of the model; give processor=processor")

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """Labels of one video or of several, the likeliest first.

        The texts of the labels are encoded once and kept until other labels are asked.

        Args:
            inputs: A video or a list of them, as the processor takes them: the path of a file, its bytes, the file
                opened as bytes, frames (PIL images, arrays or tensors) in a list, an array (T, H, W, C) or
                (T, C, H, W), a row or a decoder of `datasets.Video`; or a column of `datasets`, read row by row. For
                a generator, a streamed column or a data set of torch the result is an iterator.
            **options: `top_k` labels a video (default 5), `num_frames` taken from each video (default: the
                processor's), `allow_urls` to fetch http(s) addresses (default False), `on_error`, "raise" (default)
                or "skip", `reject_below`, from 0 to 1 (default: nothing is rejected), `batch_size`, `num_workers`.

        Returns:
            For each video a list of {"label": str, "score": float}; scores are a softmax over all labels. A video
            whose `known`, the probability that it is of one of the classes at all, is below `reject_below` gets
            [{"label": None, "score": known}]. With `on_error="skip"` a video that cannot be read gets
            {"error": message}, and the others go on.

        Raises:
            ValueError: A file cannot be read (the message names it), an address was given without `allow_urls`, an
                option is out of range, or the model has no labels of its own.
        """
        if isinstance(inputs, torch.utils.data.Dataset):
            return super().__call__(inputs, **options)
        if isinstance(inputs, Iterable) and not isinstance(inputs, Sized) and not is_one_video(inputs):
            # A generator: the library's iterator knows no `next`, and begins anew with each `iter`.
            return (result for result in super().__call__(_Stream(inputs), **options))
        if is_column(inputs):
            return list(super().__call__(_Rows(inputs), **options))
        videos = list_of_videos(inputs)
        if not videos:
            self._sanitize_parameters(**{k: v for k, v in options.items() if k not in {"batch_size", "num_workers"}})
            return []
        results = super().__call__(videos, **options)
        return results[0] if videos[0] is inputs else results

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Write model, processor and code into a folder from which `pipeline` loads them."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)

    def _sanitize_parameters(
        self,
        *,
        top_k: int | None = None,
        num_frames: int | None = None,
        allow_urls: bool | None = None,
        on_error: str | None = None,
        reject_below: float | None = None,
        **others: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if others:
            raise ValueError(f"{self.task} does not know the option {min(others)!r}")
        for name, value in (("top_k", top_k), ("num_frames", num_frames)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ValueError(f"{name} is {value!r}, but must be an integer of at least 1")
        if on_error not in (None, "raise", "skip"):
            raise ValueError(f"on_error is {on_error!r}, but must be 'raise' or 'skip'")
        is_number = isinstance(reject_below, int | float) and not isinstance(reject_below, bool)
        if reject_below is not None and not (is_number and 0 <= reject_below <= 1):
            raise ValueError(f"reject_below is {reject_below!r}, but must be a number from 0 to 1")
        preprocess = {"num_frames": num_frames, "allow_urls": allow_urls, "on_error": on_error}
        return _given(preprocess), {}, _given({"top_k": top_k, "reject_below": reject_below})

    def preprocess(
        self, video: Any, num_frames: int | None = None, allow_urls: bool = False, on_error: str = "raise"
    ) -> dict[str, Any]:
        """Frames of one video, `pixel_values` (1, T, 3, H, W), and why it could not be read, "" where it could."""
        num_frames = num_frames or self.processor.num_frames
        try:
            with _local_file(video, allow_urls) as found:
                return {**self.processor(videos=[found], num_frames=num_frames), "error": ""}
        except (ValueError, OSError) as error:
            if on_error == "raise":
                raise
            # Black frames take the place of the video in its batch.
            black = torch.zeros(1, 3, *BLACK_SIZE, dtype=torch.uint8)
            return {**self.processor(videos=[black], num_frames=num_frames), "error": str(error)}

    def _forward(
        self, inputs: dict[str, Any], labels: Sequence[str] | None = None, templates: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Logits (B, K) of the frames `pixel_values` (B, T, 3, H, W), and `known` (B,)."""
        texts = self._class_texts(self._own_labels() if labels is None else labels, templates)
        videos = self.model.get_video_features(inputs["pixel_values"])
        moved = self.model.head(videos, texts)
        return {"logits": moved.logits_per_video, "known": moved.known, "error": inputs["error"]}

    def postprocess(
        self,
        outputs: dict[str, Any],
        labels: Sequence[str] | None = None,
        top_k: int | None = 5,
        reject_below: float = 0.0,
    ) -> Any:
        """Labels and scores of one video, the likeliest first, or why there are none."""
        if outputs["error"]:
            return {"error": outputs["error"]}
        known = float(outputs["known"][0])
        if known < reject_below:
            return [{"label": None, "score": known}]
        names = self._own_labels() if labels is None else labels
        scores = outputs["logits"][0].softmax(-1)
        best = scores.sort(stable=True, descending=True)  # of equal ones the first asked
        return [
            {"label": names[index], "score": score}
            for score, index in zip(best.values[:top_k].tolist(), best.indices[:top_k].tolist(), strict=True)
        ]

    def _fitted_classes(self) -> list[str]:
        """Names of the classes of the domain, in the order of the head; empty where none is fitted."""
        head, id2label = self.model.head, self.model.config.id2label
        if not bool(head.anchored):
            return []
        names = head.class_names or [id2label[index] for index in sorted(id2label)]
        return list(names) if len(names) == len(head.fitted_texts) else []

    def _own_labels(self) -> list[str]:
        """The classes of the domain, or without one the names in the configuration."""
        id2label = self.model.config.id2label
        names = self._fitted_classes() or [id2label[index] for index in sorted(id2label)]
        if all(re.fullmatch(r"LABEL_\d+", name) for name in names) and not self._fitted_classes():
            raise ValueError(
                "this model has no labels of its own; give it some with model.fit_domain(..., class_names=[...]), or "
                'use pipeline("zero-shot-video-classification", ...) with candidate_labels'
            )
        return names

    def _class_texts(self, labels: Sequence[str], templates: Sequence[str] | None) -> Tensor:
        """Text embeddings (K, P, D): those that the domain was fitted with where it knows the label, else prompts'."""
        fitted = self._fitted_classes() if templates is None else []
        classes = [_class_called(label, fitted) for label in labels]
        asked = [label for label, index in zip(labels, classes, strict=True) if index is None]
        encoded = iter(self._prompt_embeds(asked, templates or [DEFAULT_TEMPLATE])) if asked else iter(())
        fitted_texts = self.model.head.fitted_texts
        return torch.stack([next(encoded) if index is None else fitted_texts[index, None] for index in classes])

    def _prompt_embeds(self, labels: list[str], templates: Sequence[str]) -> Tensor:
        """Embeddings (K, P, D), float32, of labels in templates; those of the last call are kept."""
        key = (tuple(labels), tuple(templates))
        if self._encoded is None or self._encoded[0] != key:
            prompts = [[template.replace("{}", label) for template in templates] for label in labels]
            tokens = self.processor(text=prompts).to(self.device)
            self._encoded = (key, self.model.get_text_features(**tokens).float())
        return self._encoded[1]


class ZeroShotVideoClassificationPipeline(VideoClassificationPipeline):
    """Videos to any labels that are asked."""

    def __call__(self, inputs: Any, candidate_labels: Sequence[str] | None = None, **options: Any) -> Any:
        """The candidate labels of one video or of several, the likeliest first.

        Args:
            inputs: As in `VideoClassificationPipeline`.
            candidate_labels: Different texts, at least one; may also be given when the pipeline is made.
            **options: `hypothesis_template`, a text with one {} for the label or a list of such texts, which are
                averaged. Without it labels that name a class of the fitted domain stand for the text the class was
                fitted with, and others are put into "a photo of a person doing {}.". `top_k` defaults to all labels;
                the others are those of `VideoClassificationPipeline`.

        Returns:
            As in `VideoClassificationPipeline`.

        Raises:
            ValueError: No labels, labels that are no texts or twice the same, a template without exactly one {}, or
                as in `VideoClassificationPipeline`.
        """
        given = {} if candidate_labels is None else {"candidate_labels": candidate_labels}
        if not given and "labels" not in self._forward_params:
            raise ValueError("candidate_labels are missing; give the labels to choose from, such as ['walk', 'run']")
        return super().__call__(inputs, **given, **options)

    def _sanitize_parameters(
        self, *, candidate_labels: Any = None, hypothesis_template: Any = None, **options: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        preprocess, _, postprocess = super()._sanitize_parameters(**options)
        labels = None if candidate_labels is None else _checked_labels(candidate_labels)
        templates = None if hypothesis_template is None else _checked_templates(hypothesis_template)
        forward = _given({"labels": labels, "templates": templates})
        return preprocess, forward, postprocess | _given({"labels": labels})

    def postprocess(
        self,
        outputs: dict[str, Any],
        labels: Sequence[str] | None = None,
        top_k: int | None = None,
        reject_below: float = 0.0,
    ) -> Any:
        """Labels and scores of one video, the likeliest first, or why there are none."""
        return super().postprocess(outputs, labels, top_k, reject_below)


def register_task(registry: PipelineRegistry) -> None:
    """Make the zero-shot task known to `pipeline`, which asks a checkpoint for its tasks, but no model in memory.

    The other task is the library's own: for a model in memory give `pipeline_class=VideoClassificationPipeline`. Else
    `pipeline` makes the library's class, which logs that the model is not supported and fails at the first video with
    a sentence that says what to give.
    """
    task = "zero-shot-video-classification"
    if task not in registry.get_supported_tasks():
        registry.register_pipeline(
            task, pipeline_class=ZeroShotVideoClassificationPipeline, pt_model=AutoModel, type="multimodal"
        )


# There is none yet while `transformers.pipelines` itself is being imported.
if registry := getattr(sys.modules["transformers.pipelines"], "PIPELINE_REGISTRY", None):
    register_task(registry)


class _Stream(torch.utils.data.IterableDataset[Any]):
    """A generator as a data set, which no release of `transformers` takes in whole before it begins."""

    def __init__(self, videos: Iterable[Any]) -> None:
        self.videos = videos

    def __iter__(self) -> Iterator[Any]:
        return iter(self.videos)


class _Rows(torch.utils.data.Dataset[Any]):
    """A column as a data set, of which no more rows are in memory than a batch."""

    def __init__(self, column: Sequence[Any]) -> None:
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, index: int) -> Any:
        return self.column[index]


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def _class_called(label: str, names: Sequence[str]) -> int | None:
    """Which of the classes a label names, if any; `Brush hair` and `BrushHair` name `brush_hair`."""
    if label in names:
        return names.index(label)
    spellings = [_spelling(name) for name in names]
    return spellings.index(_spelling(label)) if _spelling(label) in spellings else None


def _spelling(label: str) -> str:
    """A label without what its spellings differ in: spaces, underscores, hyphens and capitals."""
    return re.sub(r"[\s_\-]+", "", label).casefold()


def _checked_labels(labels: Any) -> list[str]:
    """Labels as a list of different texts."""
    if isinstance(labels, str) or not isinstance(labels, Sequence):
        raise ValueError(f"candidate_labels must be a list of texts such as ['walk', 'run'], not {labels!r}")
    if not labels:
        raise ValueError("candidate_labels is empty; give at least one label")
    first_index: dict[str, int] = {}
    for index, label in enumerate(labels):
        if not isinstance(label, str) or not label.strip():
            raise ValueError(f"candidate_labels[{index}] is {label!r}, but must be a text that is not blank")
        if first_index.setdefault(label, index) != index:
            raise ValueError(f"candidate_labels[{first_index[label]}] and [{index}] are both {label!r}")
    return list(labels)


def _checked_templates(templates: Any) -> list[str]:
    """One template or several as a list, each with one place for the label."""
    several = [templates] if isinstance(templates, str) else templates
    if not isinstance(several, Sequence) or not several:
        raise ValueError(f"hypothesis_template must be a text or a list of texts, not {templates!r}")
    for template in several:
        if not isinstance(template, str) or template.count("{}") != 1:
            raise ValueError(f"hypothesis_template {template!r} must be a text with {{}} once, for the label")
    return list(several)


@contextmanager
def _local_file(video: Any, allow_urls: bool) -> Iterator[Any]:
    """The video as given, or for an address a temporary file with its content."""
    if not isinstance(video, str) or not re.match(r"[a-z][a-z0-9+.-]*://", video, re.IGNORECASE):
        yield video
        return
    if not allow_urls:
        raise ValueError(f"{video!r} is an address, which is fetched only with allow_urls=True; give a file")
    if not re.match("https?://", video, re.IGNORECASE):
        raise ValueError(f"{video!r} is neither an http nor an https address")
    suffix = os.path.splitext(urllib.parse.urlparse(video).path)[1]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "video" + (suffix if re.fullmatch(r"\.\w{1,8}", suffix) else ""))
        _download(video, path)
        yield path


def _download(url: str, path: str) -> None:
    """Fetch an address into a file."""
    try:
        with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_SECONDS) as answer, open(path, "wb") as file:
            while (room := MAX_DOWNLOAD_BYTES - file.tell()) > 0 and (block := answer.read(min(1 << 20, room))):
                file.write(block)
            if not room:
                raise ValueError(f"{url!r} holds more than {MAX_DOWNLOAD_BYTES} bytes; fetch it yourself")
    except (urllib.error.URLError, OSError) as error:
        raise ValueError(f"cannot fetch {url!r}: {getattr(error, 'reason', None) or error}") from error
