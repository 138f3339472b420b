"""How a stock checkpoint wants its frames: the settings of its image or video processor, as ours."""

import os
from typing import Any

from transformers.image_processing_base import ImageProcessingMixin

# The name in `transformers` itself is a placeholder that wants torchvision in older releases.
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.video_processing_utils import BaseVideoProcessor

from .image_processing_dkd import IMAGE_OPTIONS, DKDCLIPImageProcessor


# Those of transformers that exist for torchvision alone: their settings are read from the checkpoint's file, over what
# the class has where the file is silent.
TORCHVISION_ONLY: dict[str, dict[str, Any]] = {
    "tipsv2": {"size": {"height": 448, "width": 448}, "resample": 2, "do_center_crop": False, "do_normalize": False},
    "videoprism": {"size": {"height": 288, "width": 288}, "resample": 3, "do_center_crop": False},
}


def backbone_image_processor(
    name_or_path: str | os.PathLike[str], config: Any, **kwargs: Any
) -> DKDCLIPImageProcessor:
    """The settings with which a stock checkpoint's frames are made ready.

    Args:
        name_or_path: Repository on the Hub or folder.
        config: Its configuration.
        **kwargs: For `from_pretrained` (revision, cache_dir, token ...).

    Raises:
        ValueError: The checkpoint's image processor has steps of its own.
        OSError: A file of the checkpoint is missing (from transformers).
    """
    defaults = TORCHVISION_ONLY.get(config.model_type)
    if defaults is None:
        image_processor = AutoImageProcessor.from_pretrained(name_or_path, backend="pil", **kwargs)
        return DKDCLIPImageProcessor.from_image_processor(image_processor)
    if config.model_type == "videoprism":
        settings, _ = BaseVideoProcessor.get_video_processor_dict(name_or_path, **kwargs)
        settings["do_normalize"] = False  # its processor says so, over what its file has
    else:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(name_or_path, **kwargs)
    given = {name: settings[name] for name in IMAGE_OPTIONS if settings.get(name) is not None}
    return DKDCLIPImageProcessor(**{**defaults, **given})
