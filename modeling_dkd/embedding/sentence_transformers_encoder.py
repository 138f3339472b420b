"""CLIP models of sentence-transformers as a source of embeddings: "sentence_transformers:NAME", or a folder."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from .own_encoder import OwnEncoder
from .tensor_files import digest_of_tensors


PREFIX = "sentence_transformers:"
NUM_FRAMES = 8


class SentenceTransformersEncoder:
    """A model of sentence-transformers that embeds images and texts, one embedding a frame.

    Args:
        model: The model.
        name: What results call it.
    """

    num_frames = NUM_FRAMES

    def __init__(self, model: Any, name: str) -> None:
        self.model, self.name = model, name
        scales = [p for key, p in model.named_parameters() if key.split(".")[-1] == "logit_scale"]
        self.logit_scale = scales[0].detach().exp().item() if scales else 100.0

    def embed_videos(self, videos: list[Tensor]) -> Tensor:
        """Frames (T, 3, H, W) uint8 of each video -> (N, T, D)."""
        frames = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for video in videos for frame in video.cpu()]
        return self._embedded(frames).unflatten(0, (len(videos), -1))

    def embed_texts(self, texts: list[str]) -> Tensor:
        """Texts -> (K, D)."""
        return self._embedded(texts)

    def _embedded(self, inputs: list[Any]) -> Tensor:
        return self.model.encode(inputs, convert_to_tensor=True, show_progress_bar=False).clone()


def load_sentence_transformers(name: str, views: str | None, revision: str | None, device: torch.device) -> OwnEncoder:
    """The encoder "sentence_transformers:NAME", where NAME is a repository or a folder; its code is never run.

    Raises:
        ValueError: sentence-transformers is not installed, there is no such model, or it embeds no images.
    """
    place = name.removeprefix(PREFIX)
    if not place:
        raise ValueError(f"{name} names no model; give a CLIP model, as in {name}clip-ViT-B-32")
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ValueError(f"{name} needs sentence-transformers: pip install sentence-transformers") from error
    try:
        model = SentenceTransformer(
            place, revision=revision, device=str(device), model_kwargs={"use_safetensors": True}
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f"cannot load the model {name}: {(str(error).splitlines() or [''])[0]}") from error
    if not model.supports("image") or not model.supports("text"):
        raise ValueError(f"{name} does not embed both images and texts; give a CLIP model such as clip-ViT-B-32")
    shown = Path(place).resolve().name if Path(place).is_dir() else place
    key = {"encoder": f"sentence_transformers:{shown}", "weights": digest_of_tensors(model.state_dict()).hexdigest()}
    return OwnEncoder(SentenceTransformersEncoder(model, shown), name, shown, views, key)
