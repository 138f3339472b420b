"""A dual encoder with its processor, as clip embedding uses it: files to frames, frames and prompts to embeddings."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from torch import Tensor, nn
from transformers import AutoConfig

from ..configuration_dkd import DKDCLIPConfig
from ..data.video_files import VideoRecord
from ..frame_sampling import Views
from ..modeling_dkd import DKDCLIPModel
from ..open_clip_backbone import PREFIX as OPEN_CLIP
from ..processing_dkd import DKDCLIPProcessor
from .clip_frames import read_clip_frames
from .tensor_files import digest_of_tensors


@dataclass(frozen=True)
class ClipReader:
    """Clip -> cropped frames, and what is wrong with it; goes to worker processes.

    The frames are normalised only where they are encoded: uint8 is a quarter of the bytes to hand over.

    Attributes:
        processor: Samples, decodes, resizes and crops.
        views: "FRAMESxCROPSxCLIPS"; the frames of all views follow each other, T of them in all.
    """

    processor: DKDCLIPProcessor
    views: str

    def __call__(self, clip: VideoRecord | str) -> tuple[Tensor, str]:
        """Frames (T, 3, H, W) uint8, 0-255, of one clip, and a remark where some of its frames are damaged.

        Raises:
            VideoReadError: The file is missing, damaged or no video (the message names it).
        """
        views = Views.parse(self.views)
        found = read_clip_frames(clip, views.num_frames, views.num_clips)
        clips = [[clip] for clip in found.pixels.split(views.num_frames)]
        frames = self.processor.image_processor.crop_videos(clips, views.num_crops).flatten(0, 1)
        return frames, found.damage

    def normalise(self, frames: Tensor) -> Tensor:
        """Pixel values (..., 3, H, W) float32, as the encoder takes them, of frames that were read."""
        return self.processor.image_processor.normalise(frames)


class ClipEncoder:
    """The frozen encoders of a DKD checkpoint or of any stock dual encoder.

    Args:
        model: Model in evaluation mode, on its device.
        processor: Its processor.
        name: What results call it.
        revision: Commit of the repository; None for a folder, which is then known by its weights.
        views: "FRAMESxCROPSxCLIPS".
        dtype: What the image encoder multiplies in. Weights stay float32, and so does what is added up from layer to
            layer: rounding that too would move embeddings several times as far.
    """

    def __init__(
        self,
        model: DKDCLIPModel,
        processor: DKDCLIPProcessor,
        name: str,
        revision: str | None,
        views: str,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        clip_frames, num_frames = processor.clip_frames, Views.parse(views).num_frames
        if clip_frames not in (None, num_frames):
            raise ValueError(
                f"{name} takes clips of {clip_frames} frames, not of {num_frames}: give {clip_frames} frames "
                f"(--frames {clip_frames}, or views {clip_frames}x1x1)"
            )
        self.dtype = dtype
        self.model = model
        self.processor = processor
        self.name = name
        self.views = views
        self.weights_hash = _hash_of_weights(model)
        self.revision = revision or f"sha256:{self.weights_hash[:16]}"

    @classmethod
    def load(
        cls, name_or_folder: str, views: str | None, revision: str | None, dtype: torch.dtype, device: torch.device
    ) -> "ClipEncoder":
        """Load a checkpoint of this project, or put an unfitted head on a stock one.

        On a CPU the weights of convolutions lie channels last: residual networks take less time, embeddings stay.

        Args:
            name_or_folder: Folder or repository, or one of open_clip's, "open_clip:...".
            views: "FRAMESxCROPSxCLIPS"; None: one view of as many frames as the checkpoint says.
            revision: Branch, tag or commit of a repository.
            dtype: As in the class.
            device: Where the model is put.

        Raises:
            ValueError: There is no such model, it is no dual encoder, its processor is missing, or it takes clips of
                another number of frames.
        """
        is_open_clip = name_or_folder.startswith(OPEN_CLIP)
        if not is_open_clip:
            require_model_name(name_or_folder)
        options: dict[str, Any] = {"revision": revision} if revision else {}
        try:
            config = None if is_open_clip else AutoConfig.from_pretrained(name_or_folder, **options)
            if config is not None and config.model_type == DKDCLIPConfig.model_type:
                model = DKDCLIPModel.from_pretrained(name_or_folder, dtype=torch.float32, **options)
                processor = DKDCLIPProcessor.from_pretrained(name_or_folder, **options)
            else:
                model = DKDCLIPModel.from_backbone(name_or_folder, dtype=torch.float32, **options)
                processor = DKDCLIPProcessor.from_backbone(name_or_folder, **options)
        except Exception as error:
            # A damaged file of the checkpoint shows in transformers as whatever it happens to lead to. The hub's
            # messages run over many lines; the first says what is wrong.
            lines = str(error).strip().splitlines() or [""]
            reason = lines[0] if isinstance(error, OSError) else " ".join(" ".join(lines).split())[:300]
            kind = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
            raise ValueError(f"cannot load the model {name_or_folder}: {kind}{reason}") from error
        commit = getattr(config or model.backbone.config, "_commit_hash", None)
        name = Path(name_or_folder).resolve().name if Path(name_or_folder).is_dir() else name_or_folder
        views = views or f"{processor.num_frames}x1x1"
        model = model.to(device).eval()
        if device.type == "cpu":
            lay_channels_last(model)
        return cls(model, processor, name, commit, views, dtype)

    @property
    def logit_scale(self) -> float:
        """Factor of cosines."""
        return float(self.model.head.logit_scale.detach())

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How frames are made ready: the image processor's settings."""
        settings = json.loads(self.processor.image_processor.to_json_string())
        unsaid = ("auto_map", "processor_class")
        return {name: value for name, value in settings.items() if name not in unsaid and value is not None}

    def key(self) -> dict[str, Any]:
        """All that an embedding of a clip depends on besides the clip: weights, preprocessing, views, dtype."""
        return {
            "weights": self.weights_hash,
            "preprocessing": self.preprocessing,
            "frames": self.views,
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    @property
    def reader(self) -> ClipReader:
        """What turns files into frames."""
        return ClipReader(self.processor, self.views)

    @torch.inference_mode()
    def embed(self, clips: Tensor) -> Tensor:
        """Frames (n, T, 3, H, W) uint8 of `reader` -> embeddings (n, P, D), as the encoder gives them.

        P is the number of frames of all views, or of views where the encoder embeds whole clips.
        """
        if self.processor.clip_frames is not None:
            clips = clips.unflatten(1, (-1, self.processor.clip_frames))
        with torch.autocast(clips.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.model.get_video_features(self.reader.normalise(clips))

    def embed_clips(self, clips: list[Tensor]) -> Tensor:
        """Frames (T, 3, H, W) uint8 of each clip, of one size -> embeddings (n, P, D)."""
        return self.embed(torch.stack(clips))

    @torch.inference_mode()
    def encode(self, texts: list[str]) -> Tensor:
        """Prompts -> embeddings (number of texts, D), as the encoder gives them."""
        tokens = self.processor(text=texts).to(self.model.device)
        return self.model.get_text_features(**tokens)

    def num_cut(self, texts: list[str]) -> int:
        """How many of the texts are longer than the encoder takes and will be cut."""
        tokenizer = self.processor.tokenizer
        limit = self.processor.max_text_length or tokenizer.model_max_length
        lengths = [len(ids) for ids in tokenizer(texts, truncation=False, verbose=False)["input_ids"]]
        return sum(length > limit for length in lengths)


def lay_channels_last(model: nn.Module) -> None:
    """Have the channels of a pixel side by side in the weights of 2D convolutions, and so in what these pass on.

    Args:
        model: Changed in place; its values stay.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)


def require_model_name(name_or_folder: str) -> None:
    """Refuse what is neither a folder nor can be a repository.

    Raises:
        ValueError: The message names it.
    """
    if not (Path(name_or_folder).is_dir() or is_repository_name(name_or_folder)):
        raise ValueError(
            f"no model folder {name_or_folder}; give one, or a repository such as openai/clip-vit-base-patch16"
        )


def is_repository_name(name: str) -> bool:
    """Whether this can be a repository of the Hub: a name, with its owner or without."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) is not None


def _hash_of_weights(model: DKDCLIPModel) -> str:
    """SHA-256 over names, types and values of the backbone's tensors: a fitted head embeds clips as before."""
    digest = digest_of_tensors(model.backbone.state_dict())
    architecture = _without_origin(model.backbone.config.to_dict())
    digest.update(json.dumps(architecture, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _without_origin(settings: dict[str, Any]) -> dict[str, Any]:
    """The configuration without where it came from and who wrote it, so that a copied folder is the same model."""
    origin = ("_name_or_path", "_commit_hash", "transformers_version")
    return {
        name: _without_origin(value) if isinstance(value, dict) else value
        for name, value in settings.items()
        if name not in origin
    }
