"""What DKD asks of a backbone: joint embeddings of images and texts, and the scale of their similarity.

All that differs between one dual encoder of transformers and another is known here and nowhere else.
"""

from typing import Any

import torch
from torch import Tensor, nn


SIMILARITY_PARAMETERS = ("logit_scale", "logit_bias", "temperature")


def check_dual_encoder(backbone: nn.Module) -> None:
    """Refuse a backbone that does not embed images and texts.

    Raises:
        ValueError: It lacks `get_image_features` or `get_text_features`.
    """
    lacking = [name for name in ("get_image_features", "get_text_features") if not hasattr(backbone, name)]
    if lacking:
        raise ValueError(
            f"the backbone {type(backbone).__name__} has no {' and no '.join(lacking)}; "
            "give a dual encoder such as CLIP or SigLIP"
        )


def embed_images(backbone: Any, images: Tensor) -> Tensor:
    """Embed images.

    Args:
        backbone: A dual encoder.
        images: Normalised pixels, (N, C, H, W), dtype of the backbone.

    Returns:
        Embeddings in the joint space, not normalised, (N, D).

    Raises:
        ValueError: The backbone takes patches, and the images are no whole number of them.
    """
    vision_config: Any = getattr(backbone.config, "vision_config", None)
    if getattr(vision_config, "model_type", None) == "siglip2_vision_model":
        return _pooled(backbone.get_image_features(**_siglip2_patches(images, vision_config.patch_size)))
    return _pooled(backbone.get_image_features(pixel_values=images))


def embed_texts(backbone: Any, **inputs: Tensor) -> Tensor:
    """Embed texts.

    Args:
        backbone: A dual encoder.
        **inputs: What its tokenizer gives, each (N, L).

    Returns:
        Embeddings in the joint space, not normalised, (N, D).
    """
    return _pooled(backbone.get_text_features(**inputs))


def similarity_of(backbone: Any) -> dict[str, float]:
    """The trained factor on the cosine and the constant bias, as the options `logit_scale` and `logit_bias`.

    Args:
        backbone: A dual encoder.

    Returns:
        Those of the two options that the backbone has.
    """
    similarity = {}
    if isinstance(getattr(backbone, "logit_scale", None), Tensor):
        similarity["logit_scale"] = backbone.logit_scale.detach().double().exp().item()
    elif isinstance(getattr(backbone, "temperature", None), Tensor):  # ALIGN divides by it
        similarity["logit_scale"] = backbone.temperature.detach().double().reciprocal().item()
    if isinstance(getattr(backbone, "logit_bias", None), Tensor):
        similarity["logit_bias"] = backbone.logit_bias.detach().double().item()
    return similarity


def token_embedder_of(backbone: Any) -> Any:
    """The module that tells, takes and resizes the token embeddings: the backbone, or else its text encoder.

    Raises:
        NotImplementedError: Neither does.
    """
    candidates: tuple[Any, ...] = (backbone, getattr(backbone, "text_model", None))
    for module in candidates:
        try:
            module.get_input_embeddings()
        except (AttributeError, NotImplementedError):
            continue
        return module
    raise NotImplementedError(
        f"the backbone {type(backbone).__name__} does not tell its token embeddings; change them in model.backbone"
    )


def freeze_similarity(backbone: nn.Module) -> None:
    """Take the backbone's own scale and bias, which the head replaces, out of training: they get no gradient.

    Args:
        backbone: A dual encoder, changed in place.
    """
    for name in SIMILARITY_PARAMETERS:
        parameter = getattr(backbone, name, None)
        if isinstance(parameter, nn.Parameter):
            parameter.requires_grad_(False)


def _pooled(features: Any) -> Tensor:
    """The embeddings (N, D) in what the backbone returned: a tensor, or an output object around it."""
    return features if isinstance(features, Tensor) else features.pooler_output


def _siglip2_patches(images: Tensor, patch_size: int) -> dict[str, Tensor]:
    """Images as SigLIP 2 takes them: rows of patches, each flattened as (patch row, patch column, channel)."""
    num_images, num_channels, height, width = images.shape
    if height % patch_size or width % patch_size:
        raise ValueError(f"frames are {height} x {width}, but SigLIP 2 needs multiples of its patch size {patch_size}")
    rows, columns = height // patch_size, width // patch_size
    patches = images.reshape(num_images, num_channels, rows, patch_size, columns, patch_size)
    patches = patches.permute(0, 2, 4, 3, 5, 1).reshape(num_images, rows * columns, -1)
    return {
        "pixel_values": patches,
        "pixel_attention_mask": torch.ones(patches.shape[:2], dtype=torch.int64, device=images.device),
        "spatial_shapes": torch.tensor([[rows, columns]], device=images.device).expand(num_images, 2),
    }
