"""What sentence-transformers loads of a checkpoint: texts, images and videos to embeddings, moved by the domain.

    model = SentenceTransformer("owner/checkpoint", trust_remote_code=True)
    videos, texts = model.encode(["clip.mp4", "another.mp4"]), model.encode(["surfing", "playing violin"])
    model.similarity(videos, texts)

The cosine of two embeddings is that of `DKDHead`. A file that is named must be there: a missing one is an error, not
the text of its name. `modules.json` in a checkpoint names this class.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .configuration_dkd import REMOTE_CODE
from .file_suffixes import IMAGE_SUFFIXES, VIDEO_SUFFIXES


MODULES_FILE = "modules.json"
# Content of that file.
MODULES = [{"idx": 0, "name": "0", "path": "", "type": "sentence_embedder.DKDSentenceEmbedder"}]
# A text that looks like the path of some file: a folder, no blank, an ending.
LIKE_A_PATH = re.compile(r"\S*[/\\]\S*\.[A-Za-z]\w{1,4}")


class DKDSentenceEmbedder(nn.Module):
    """The one module of a `SentenceTransformer`, which needs nothing of that library.

    Args:
        model: A `DKDCLIPModel`.
        processor: Its `DKDCLIPProcessor`.
    """

    save_in_root = True
    modalities = ("text", "image", "video")

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__()
        self.model = model
        self.processor = processor

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        model_kwargs: dict[str, Any] | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        **_: Any,
    ) -> "DKDSentenceEmbedder":
        """Load a checkpoint as `SentenceTransformer` asks for it."""
        # The model names this class as what is to be loaded, so that it cannot be named here.
        from transformers import AutoModel, AutoProcessor

        given = {"token": token, "cache_dir": cache_folder, "revision": revision, "local_files_only": local_files_only}
        hub: dict[str, Any] = {name: value for name, value in given.items() if value}
        # Where this file came with the checkpoint, the code beside it is trusted already.
        hub["trust_remote_code"] = trusted = trust_remote_code or __name__.startswith(REMOTE_CODE)
        model_kwargs = {**hub, "trust_backbone_code": trusted, **(model_kwargs or {})}
        model = AutoModel.from_pretrained(model_name_or_path, **model_kwargs)
        processor = AutoProcessor.from_pretrained(model_name_or_path, **hub | (processor_kwargs or {}))
        return cls(model, processor)

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Write model and processor."""
        self.model.save_pretrained(output_path)
        self.processor.save_pretrained(output_path)

    def get_embedding_dimension(self) -> int:
        """D."""
        return int(self.model.config.projection_dim)

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **_: Any) -> dict[str, Tensor]:
        """A batch for `forward`: all texts, or all images or videos.

        Args:
            inputs: Texts, paths of videos or of images, frames (T, H, W, C) or (T, C, H, W), pictures of PIL or arrays
                (H, W, C) or (C, H, W), or dicts {"text" | "image" | "video": one of these}.
            prompt: Put before each text, such as "a video of ".

        Raises:
            ValueError: Texts and clips are mixed, a file is missing or cannot be read, or an input is none of these.
        """
        kinds, values = zip(*(_kind(item) for item in inputs), strict=True)
        if len(set(kinds)) > 1:
            raise ValueError(f"embed {' and '.join(sorted(set(kinds)))}s in calls of their own")
        kind = kinds[0]
        if kind == "text":
            return dict(self.processor(text=[f"{prompt or ''}{text}" for text in values]))
        return dict(self.processor(**{f"{kind}s": list(values)}))

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Adds `sentence_embedding` (B, D) float32, unit norm, moved by the domain if there is one."""
        model, device = self.model, self.model.device
        # What one branch becomes does not depend on the other; the head wants both.
        other = torch.ones(1, self.get_embedding_dimension(), device=device)
        if "pixel_values" in features:
            videos = model.get_video_features(features["pixel_values"].to(device))
            embeds = model.head(videos, other).video_embeds
        else:
            names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in features]
            texts = model.get_text_features(**{name: features[name].to(device) for name in names})
            embeds = model.head(other, texts).text_embeds
        return {**features, "sentence_embedding": embeds}


def _kind(item: Any) -> tuple[str, Any]:
    """Whether an input is a "text", an "image" or a "video", and it itself."""
    if isinstance(item, dict) and len(item) == 1 and next(iter(item)) in DKDSentenceEmbedder.modalities:
        ((kind, value),) = item.items()
        return kind, _existing(value) if kind != "text" else value
    if isinstance(item, str | os.PathLike):
        path = os.fspath(item)
        ending = Path(path).suffix.lower().strip()
        is_file = ending in VIDEO_SUFFIXES | IMAGE_SUFFIXES or LIKE_A_PATH.fullmatch(path.strip())
        if is_file or (ending and os.path.isfile(path)):
            return "image" if ending in IMAGE_SUFFIXES else "video", _existing(item)
        if isinstance(item, str):
            return "text", item
    shape = getattr(item, "shape", None)
    if shape is not None and len(shape) in (3, 4):
        return "image" if len(shape) == 3 else "video", item
    if hasattr(item, "getbands"):  # a picture of PIL
        return "image", item
    if type(item).__name__ == "VideoDecoder":
        return "video", item
    raise ValueError(
        f"cannot embed {type(item).__name__}: give texts, paths of videos or images, arrays of frames or pictures"
    )


def _existing(value: Any) -> Any:
    """A path that is there, and anything that is no path."""
    if isinstance(value, str | os.PathLike) and not os.path.isfile(value):
        raise ValueError(
            f"there is no file {os.fspath(value)!r}; if it is meant as a text, give {{'text': {os.fspath(value)!r}}}"
        )
    return value
