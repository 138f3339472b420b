"""Videos, images and texts to model inputs, with the backbone's own image settings and tokenizer.

Needs torch and transformers alone; PIL images need Pillow and video files need PyAV.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, BatchFeature
from transformers.processing_utils import ProcessorMixin

from .backbone_images import backbone_image_processor
from .dual_encoder import clip_frames_of
from .frame_sampling import Views, is_count
from .frame_tensors import describe, is_array, join_equal_sizes
from .image_processing_dkd import IMAGE_OPTIONS, DKDCLIPImageProcessor
from .open_clip_backbone import (
    PREFIX,
    open_clip_config,
    open_clip_folder,
    open_clip_image_settings,
    open_clip_tokenizer,
)
from .video_inputs import frames_of, list_of_videos


NUM_FRAMES = 8
# Backbones trained on texts padded to full length without a mask: shorter padding changes their embeddings.
PADDED_TO_MAX_LENGTH = ("siglip", "siglip2", "tipsv2", "videoprism")
# Text encoders whose position numbers begin after the padding token's id.
OFFSET_POSITIONS = ("altclip_text_model", "camembert", "roberta", "xlm-roberta")
# Options of the tokenizer that leave one row of tokens a text.
TEXT_OPTIONS = (
    "add_special_tokens",
    "max_length",
    "pad_to_multiple_of",
    "padding",
    "padding_side",
    "return_attention_mask",
    "return_token_type_ids",
    "truncation",
    "verbose",
)
VIDEO_OPTIONS = (*IMAGE_OPTIONS, "num_frames", "views", "backend")
OPTIONS = {
    "text_kwargs": TEXT_OPTIONS,
    "images_kwargs": IMAGE_OPTIONS,
    "videos_kwargs": VIDEO_OPTIONS,
    "common_kwargs": ("return_tensors",),
}


class DKDCLIPProcessor(ProcessorMixin):
    """Makes `pixel_values`, `input_ids` and `attention_mask` from videos, images and texts.

    Args:
        image_processor: The backbone's image settings.
        tokenizer: The backbone's own tokenizer.
        num_frames: Frames taken from a video file, at the centres of as many equal segments.
        text_padding: "longest", or "max_length" for backbones trained that way (SigLIP).
        max_text_length: Longer texts are cut to this many tokens; None: the tokenizer's own limit.
        clip_frames: Frames of a clip, where the backbone embeds whole clips and takes no other number; None: it
            embeds single frames.
    """

    def __init__(
        self,
        image_processor: DKDCLIPImageProcessor,
        tokenizer: Any,
        num_frames: int = NUM_FRAMES,
        text_padding: str = "longest",
        max_text_length: int | None = None,
        clip_frames: int | None = None,
    ) -> None:
        if not is_count(num_frames):
            raise ValueError(f"num_frames must be a whole number of at least 1, not {num_frames!r}")
        if text_padding not in ("longest", "max_length"):
            raise ValueError(f"text_padding must be 'longest' or 'max_length', not {text_padding!r}")
        self.clip_frames = clip_frames
        self._check_frames(num_frames)
        self.num_frames = num_frames
        self.text_padding = text_padding
        self.max_text_length = max_text_length
        super().__init__(image_processor, tokenizer)

    @classmethod
    def from_backbone(
        cls, name_or_path: str | os.PathLike[str], num_frames: int | None = None, **kwargs: Any
    ) -> "DKDCLIPProcessor":
        """Builds the processor of a stock checkpoint: its image settings and its tokenizer.

        Args:
            name_or_path: Repository on the Hub or folder of any transformers dual encoder.
            num_frames: As in the class; None: as many as the backbone takes, or 8 where it takes any number.
            **kwargs: For `from_pretrained` (revision, cache_dir, token ...).

        Raises:
            ValueError: The backbone's image processor has steps of its own, or its clips another number of frames.
            OSError: A file of the checkpoint is missing (from transformers).
        """
        if str(name_or_path).startswith(PREFIX):
            return cls._of_open_clip(str(name_or_path), NUM_FRAMES if num_frames is None else num_frames, **kwargs)
        config = AutoConfig.from_pretrained(name_or_path, **kwargs)
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, **kwargs)
        clip_frames = clip_frames_of(config)
        return cls(
            backbone_image_processor(name_or_path, config, **kwargs),
            tokenizer,
            num_frames=(clip_frames or NUM_FRAMES) if num_frames is None else num_frames,
            text_padding="max_length" if config.model_type in PADDED_TO_MAX_LENGTH else "longest",
            max_text_length=_max_text_length(config, tokenizer),
            clip_frames=clip_frames,
        )

    @classmethod
    def _of_open_clip(cls, name: str, num_frames: int, **kwargs: Any) -> "DKDCLIPProcessor":
        """With open_clip's own settings and tokenizer."""
        folder = open_clip_folder(name, **kwargs)
        config = open_clip_config(folder)
        tokenizer = open_clip_tokenizer(name, folder, config)
        image_processor = DKDCLIPImageProcessor(**open_clip_image_settings(config))
        return cls(image_processor, tokenizer, num_frames, "max_length", tokenizer.context_length)

    def _check_frames(self, num_frames: int) -> None:
        """Refuse clips of a length that the backbone does not take."""
        if self.clip_frames not in (None, num_frames):
            raise ValueError(
                f"this backbone takes clips of {self.clip_frames} frames, not of {num_frames}; "
                f"give num_frames={self.clip_frames}, or views such as {self.clip_frames}x1x2 for several clips"
            )

    def __call__(
        self,
        images: Any = None,
        text: str | list[str] | list[list[str]] | None = None,
        videos: Any = None,
        num_frames: int | None = None,
        views: str | None = None,
        text_kwargs: dict[str, Any] | None = None,
        images_kwargs: dict[str, Any] | None = None,
        videos_kwargs: dict[str, Any] | None = None,
        common_kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> BatchFeature:
        """Prepares a batch for the model.

        Args:
            images: One image or a list of them (PIL, array, tensor or path), each a video of one frame.
            text: A text, K texts, or K lists of P texts each (prompts of a class).
            videos: One video or a list of them. A video is a list of frames (PIL images, or arrays or tensors
                (H, W, C) or (C, H, W): uint8, or floating point from 0 to 1), one array (T, H, W, C) or (T, C, H, W),
                `VideoFrames`, or a file: its path, its bytes, the file opened as bytes, a row {"path", "bytes"} of
                `datasets.Video(decode=False)`, or a `VideoDecoder` of torchcodec. A column of `datasets` is a list.
            num_frames: Frames to take from each video, at segment centres; short videos repeat frames. None: all
                frames of a video in memory, and the processor's `num_frames` of a file.
            views: Instead of `num_frames`, "FRAMESxCROPSxCLIPS" such as "16x3x5".
            text_kwargs: Options for the text, as below.
            images_kwargs: Options for the frames, as below.
            videos_kwargs: The same, or `num_frames`, `views` and `backend`.
            common_kwargs: `return_tensors`.
            **options: For the text `padding`, `truncation`, `max_length` and others of the tokenizer, over the
                processor's own; for the frames the settings of the image processor, in this call alone; for video
                files `backend`, "pyav" (default) or "torchcodec", see `read_frames`; and `return_tensors`, "pt"
                (default) or "np".

        Returns:
            `pixel_values` (B, T, 3, H, W) float32, or (B * clips * crops, T, 3, H, W) with `views`, the views of a
            video side by side, clip after clip; `input_ids` and, where the tokenizer gives one, `attention_mask`,
            (K, L) or (K, P, L) int64; `token_type_ids` with `return_token_type_ids=True`.

        Raises:
            ValueError: Nothing or contradicting things were given, an option is unknown, given twice or for what is
                not there, or a frame is of no known form.
            VideoReadError: A file cannot be read (a ValueError that names it).
        """
        if images is None and videos is None and text is None:
            raise ValueError("give videos, images or text")
        if images is not None and videos is not None:
            raise ValueError("give videos or images, not both; an image is a video of one frame")
        options |= {name: value for name, value in (("num_frames", num_frames), ("views", views)) if value is not None}
        groups = {"text_kwargs": text_kwargs, "images_kwargs": images_kwargs}
        given = _all_options(options, groups | {"videos_kwargs": videos_kwargs, "common_kwargs": common_kwargs})
        for names, missing, what in (
            (TEXT_OPTIONS, text is None, "text"),
            (VIDEO_OPTIONS, images is None and videos is None, "frames"),
        ):
            if missing and (unused := sorted(given.keys() & set(names))):
                raise ValueError(f"{unused[0]} is an option for {what}, which is not given")
        data: dict[str, torch.Tensor] = {}
        if text is not None:
            data |= self._tokenize(text, **{name: given[name] for name in TEXT_OPTIONS if name in given})
        if images is not None:
            videos = [[image] for image in _list_of_images(images)]
        if videos is not None:
            settings = {name: given[name] for name in IMAGE_OPTIONS if name in given}
            wanted = _views(given.get("num_frames"), given.get("views"))
            data["pixel_values"] = self._pixel_values(list_of_videos(videos), wanted, settings, given.get("backend"))
        return BatchFeature(data, tensor_type=given.get("return_tensors", "pt"))

    def _pixel_values(
        self, videos: list[Any], views: Views | None, settings: dict[str, Any], backend: str | None
    ) -> torch.Tensor:
        if not videos:
            raise ValueError("the list of videos is empty")
        clips = []
        for video in videos:
            frames = frames_of(video, views, self.num_frames, backend)
            if views is None or views.num_clips == 1:
                clips.append(frames)
            else:
                singles = [frame for part in frames for frame in part.split(1)]
                size = views.num_frames
                clips += [join_equal_sizes(singles[at : at + size]) for at in range(0, len(singles), size)]
        for clip in clips:
            self._check_frames(sum(map(len, clip)))
        image_processor = self.image_processor.with_settings(settings) if settings else self.image_processor
        return image_processor.preprocess_videos(clips, views.num_crops if views is not None else 1)

    def _tokenize(self, text: str | list[str] | list[list[str]], **text_kwargs: Any) -> dict[str, torch.Tensor]:
        """`input_ids` and `attention_mask`, (K, L) or (K, P, L)."""
        texts = [text] if isinstance(text, str) else _listed(text, "text")
        if not texts:
            raise ValueError("the list of texts is empty")
        nested = not isinstance(texts[0], str)
        groups = [_listed(group, f"text[{number}]") for number, group in enumerate(texts)] if nested else [texts]
        counts = sorted({len(group) for group in groups})
        if len(counts) != 1 or counts[0] == 0:
            raise ValueError(f"every class needs the same number of prompts, at least one; found {counts}")
        flat = [prompt for group in groups for prompt in group]
        for prompt in flat:
            if not isinstance(prompt, str):
                raise ValueError(f"text must hold texts alone, not {describe(prompt)}")
        limit = self.max_text_length or _limit_of(self.tokenizer)
        options: dict[str, Any] = {"padding": self.text_padding if limit else "longest"}
        if limit:
            options |= {"truncation": True, "max_length": limit}
        tokens = self.tokenizer(flat, **{**options, **text_kwargs, "return_tensors": "pt"})
        wanted = ["input_ids", "attention_mask"]
        if text_kwargs.get("return_token_type_ids"):
            wanted.append("token_type_ids")
        names = [name for name in wanted if name in tokens]
        return {name: tokens[name].unflatten(0, (len(texts), -1)) if nested else tokens[name] for name in names}

    @property
    def model_input_names(self) -> list[str]:
        """Names of what a call returns."""
        return ["pixel_values", "input_ids", "attention_mask"]


def _all_options(options: dict[str, Any], groups: dict[str, dict[str, Any] | None]) -> dict[str, Any]:
    """Options that were given by themselves and in groups, each once and by a name that is known."""
    given = dict(options)
    for group, values in groups.items():
        for name, value in (values or {}).items():
            if name not in OPTIONS[group]:
                raise ValueError(f"{group} has no option {name!r}; it has {', '.join(OPTIONS[group])}")
            repeated = group == "common_kwargs" and given.get(name) == value
            if name in given and not repeated:
                raise ValueError(f"{name} is given twice, once of them in {group}")
            given[name] = value
    known = sorted({name for names in OPTIONS.values() for name in names})
    if unknown := sorted(given.keys() - set(known)):
        raise ValueError(f"unknown options {unknown}; known are {', '.join(known)}")
    return given


def _views(num_frames: int | None, views: str | None) -> Views | None:
    """What `num_frames` or `views` ask for."""
    if num_frames is not None and views is not None:
        raise ValueError("give num_frames or views, not both")
    return Views.parse(views) if views is not None else Views(num_frames) if num_frames is not None else None


def _limit_of(tokenizer: Any) -> int | None:
    """The tokenizer's maximum length, None where it has none (transformers writes 1e30 then)."""
    return tokenizer.model_max_length if tokenizer.model_max_length < 1_000_000 else None


def _max_text_length(config: Any, tokenizer: Any) -> int | None:
    """Tokens that the text encoder has positions for, and that the tokenizer allows."""
    text_config: Any = getattr(config, "text_config", None)
    positions = getattr(text_config, "max_position_embeddings", None)
    if positions is not None and text_config.model_type in OFFSET_POSITIONS:
        positions -= text_config.pad_token_id + 1
    limits = [limit for limit in (positions, _limit_of(tokenizer)) if limit is not None]
    return min(limits) if limits else None


def _listed(texts: Any, name: str) -> list[Any]:
    """What should be several texts, as a list."""
    if isinstance(texts, str | bytes | Mapping) or not isinstance(texts, Iterable):
        raise ValueError(f"{name} must be a list of texts, not {describe(texts)}")
    return list(texts)


def _list_of_images(images: Any) -> list[Any]:
    if isinstance(images, list | tuple):
        return list(images)
    return list(images) if is_array(images) and images.ndim == 4 else [images]
