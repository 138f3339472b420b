"""What DKD asks of a backbone: joint embeddings of videos and texts, and the scale of their similarity.

All that differs between one dual encoder and another is known here and nowhere else. Some embed single images, with
`get_image_features`; a video then has one embedding a frame. Others embed clips of a fixed number of frames, with
`get_video_features` (X-CLIP, VideoPrism), `get_video_embeddings` (Cosmos-Embed1) or `get_vid_features` (ViCLIP); a
video then has one embedding a clip.
"""

from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig
from transformers.dynamic_module_utils import custom_object_save

from .configuration_dkd import REMOTE_CODE, RETRIEVAL_CLASSES


SIMILARITY_PARAMETERS = ("logit_scale", "logit_bias", "temperature", "temp")
VIDEO_METHODS = ("get_video_features", "get_video_embeddings", "get_vid_features")
TEXT_METHODS = ("get_text_features", "get_text_embeddings")
# Where configurations, and encoders whose code comes with them, say how many frames a clip has.
FRAME_COUNTS = ("num_frames", "num_video_frames", "video_input_num_frames")
# Names of the embeddings in what an encoder returns.
EMBEDDINGS = ("pooler_output", "visual_proj", "text_proj")
# Their features have a row a token, of which the first stands for the whole.
FIRST_TOKEN = ("flava",)
# Encoders whose methods releases of transformers define inside another, where nobody can call them.
METHODS_LOST = ("PeVideoModel",)
# Options of `from_pretrained` that say where files come from.
HUB_OPTIONS = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "revision",
    "subfolder",
    "token",
    "trust_remote_code",
)


def load_dual_encoder(name_or_path: Any, **options: Any) -> tuple[Any, set[str]]:
    """A stock dual encoder with its weights.

    Args:
        name_or_path: Folder or Hub repository, or "open_clip:" and one of open_clip's, see `load_open_clip`.
        **options: As in `AutoModel.from_pretrained`.

    Returns:
        The encoder in evaluation mode, and the names of the weights that the checkpoint lacks.

    Raises:
        OSError: There is no such checkpoint.
    """
    if str(name_or_path).startswith(PREFIX):
        return load_open_clip(str(name_or_path), **options), set()
    found = {name: options[name] for name in HUB_OPTIONS if name in options}
    config = options.get("config") or AutoConfig.from_pretrained(name_or_path, **found)
    auto_class: Any = _retrieval_class(config) or transformers.AutoModel  # at import it would bring the model in
    backbone, info = auto_class.from_pretrained(name_or_path, output_loading_info=True, **options)
    return backbone.eval(), set(info["missing_keys"])


def new_dual_encoder(config: Any) -> Any:
    """A dual encoder with random weights, of the class that its checkpoint had."""
    model_class: Any = _retrieval_class(config)
    if has_own_code(config):
        model_class = type(config).model_class  # where the configuration was read
    return transformers.AutoModel.from_config(config) if model_class is None else model_class._from_config(config)


def has_own_code(part: Any) -> bool:
    """Whether this configuration or encoder is of a class that came with a checkpoint, and not with this package."""
    module = type(part).__module__
    return module.startswith(REMOTE_CODE) and not module.endswith(".open_clip_backbone")


def save_own_code(backbone: Any, folder: Any) -> None:
    """Copy the code of an encoder that came with its own beside the checkpoint, and say in its configuration where."""
    for part in (backbone.config, backbone):
        if has_own_code(part):
            custom_object_save(part, folder, config=backbone.config)


def check_dual_encoder(backbone: nn.Module) -> None:
    """Refuse a backbone that does not embed images or clips, and texts.

    Raises:
        ValueError: It lacks a method for one of them, or embeds clips and does not say of how many frames.
    """
    if type(backbone).__name__ in RETRIEVAL_CLASSES:
        return
    lacking = []
    if not hasattr(backbone, "get_image_features") and not takes_clips(backbone):
        lacking.append("get_image_features")
    if _method(backbone, TEXT_METHODS) is None:
        lacking.append("get_text_features")
    if lacking:
        kind = type(backbone).__name__
        where = f" in transformers {transformers.__version__}" if kind in METHODS_LOST else ""
        raise ValueError(
            f"the backbone {kind} has no {' and no '.join(lacking)}{where}; "
            "give a dual encoder such as CLIP, SigLIP or X-CLIP"
        )
    clip_frames(backbone)


def takes_clips(backbone: Any) -> bool:
    """Whether the backbone embeds clips, not images."""
    return not hasattr(backbone, "get_image_features") and _method(backbone, VIDEO_METHODS) is not None


def clip_frames(backbone: Any) -> int | None:
    """Frames that the backbone embeds together as a clip; None: it embeds images.

    Raises:
        ValueError: It embeds clips, but does not say of how many frames.
    """
    if not takes_clips(backbone):
        return None
    found = clip_frames_of(backbone.config) or _frame_count(backbone)
    if found is None:
        raise ValueError(
            f"the backbone {type(backbone).__name__} does not say how many frames its clips have; "
            "its configuration needs num_frames"
        )
    return found


def clip_frames_of(config: Any) -> int | None:
    """The same from a configuration; None where it does not tell, which those of image encoders do not."""
    parts: tuple[Any, ...] = (config, getattr(config, "vision_config", None), getattr(config, "video_config", None))
    return next((count for count in map(_frame_count, parts) if count), None)


def embed_images(backbone: Any, images: Tensor) -> Tensor:
    """Embed images.

    Args:
        backbone: A dual encoder of images.
        images: Normalised pixels, (N, C, H, W), dtype of the backbone.

    Returns:
        Embeddings in the joint space, not normalised, (N, D).

    Raises:
        ValueError: The backbone takes patches, and the images are no whole number of them.
    """
    if type(backbone).__name__ in RETRIEVAL_CLASSES:
        return backbone.vision_proj(backbone.vision_model(pixel_values=images).last_hidden_state[:, 0])
    vision_config: Any = getattr(backbone.config, "vision_config", None)
    if getattr(vision_config, "model_type", None) == "siglip2_vision_model":
        return _pooled(backbone, backbone.get_image_features(**_siglip2_patches(images, vision_config.patch_size)))
    return _pooled(backbone, backbone.get_image_features(pixel_values=images))


def embed_videos(backbone: Any, clips: Tensor) -> Tensor:
    """Embed clips, the frames of each together.

    Args:
        backbone: A dual encoder of clips.
        clips: Normalised pixels, (N, T, C, H, W), dtype of the backbone.

    Returns:
        Embeddings in the joint space, not normalised, (N, D).

    Raises:
        ValueError: T is not the number of frames that the backbone takes; X-CLIP would answer to one frame as if it
            were shown again and again.
    """
    wanted, num_frames = clip_frames(backbone), clips.shape[1]
    if num_frames != wanted:
        raise ValueError(
            f"{type(backbone).__name__} takes clips of {wanted} frames, but these have {num_frames}; give {wanted} "
            f"frames, and several clips of a video as (videos, clips, {wanted}, channels, height, width)"
        )
    embed: Any = _method(backbone, VIDEO_METHODS)
    return _pooled(backbone, embed(clips))


def embed_texts(backbone: Any, **inputs: Tensor) -> Tensor:
    """Embed texts.

    X-CLIP's own forward adds to each text what it sees in a video, so that it has as many texts as videos. Here its
    texts are what `get_text_features` gives, before that: a domain is learned around one embedding a class, and a
    text that is to be searched for, kept or compared cannot depend on the video it will be compared with.

    Args:
        backbone: A dual encoder.
        **inputs: What its tokenizer gives, each (N, L).

    Returns:
        Embeddings in the joint space, not normalised, (N, D).
    """
    if type(backbone).__name__ in RETRIEVAL_CLASSES:
        return backbone.text_proj(backbone.text_encoder(**inputs).last_hidden_state[:, 0])
    if hasattr(backbone, "get_vid_features"):
        # ViCLIP's own method takes one text as a string, and its text encoder tokens that end in zeros.
        tokens = inputs["input_ids"].masked_fill(inputs.get("attention_mask", torch.ones(())) == 0, 0)
        return backbone.text_encoder(nn.functional.pad(tokens, (0, backbone.max_txt_l - tokens.shape[1])))
    embed: Any = _method(backbone, TEXT_METHODS)
    return _pooled(backbone, embed(**inputs))


@torch.no_grad()
def probe(backbone: Any) -> int:
    """Embed one image, or one clip, and one text: what cannot is better refused now than at the first video.

    Args:
        backbone: A dual encoder in evaluation mode.

    Returns:
        D, the length of its embeddings.

    Raises:
        ValueError: It fails, or gives something else than one embedding each of one length.
    """
    name, config = type(backbone).__name__, backbone.config
    frames, side = clip_frames(backbone), _image_side(config)
    clip = torch.zeros(1, frames or 1, 3, side, side, dtype=backbone.dtype, device=backbone.device)
    text_config: Any = getattr(config, "text_config", None) or config
    last = getattr(text_config, "vocab_size", 3) - 1  # SigLIP's configuration names an end that it has no token for
    ids = [getattr(text_config, f"{token}_token_id", None) for token in ("bos", "eos")]
    tokens = torch.tensor([[min(i, last) if isinstance(i, int) else 2 for i in ids]], device=backbone.device)
    try:
        video = embed_images(backbone, clip[0]) if frames is None else embed_videos(backbone, clip)
        text = embed_texts(backbone, input_ids=tokens, attention_mask=torch.ones_like(tokens))
    except Exception as error:  # whatever a model that is no dual encoder of this kind happens to raise
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"the backbone {name} cannot embed one {'image' if frames is None else 'clip'} and one text by "
            f"themselves ({type(error).__name__}: {reason}); give a dual encoder such as CLIP, SigLIP or X-CLIP"
        ) from error
    shapes = [tuple(embeds.shape) for embeds in (video, text)]
    if shapes[0] != shapes[1] or len(shapes[0]) != 2:
        raise ValueError(
            f"the backbone {name} gives {shapes[0]} for one {'image' if frames is None else 'clip'} and {shapes[1]} "
            "for one text, not one embedding each of the same length; give a dual encoder such as CLIP or SigLIP"
        )
    return shapes[0][1]


def similarity_of(backbone: Any) -> dict[str, float]:
    """The trained factor on the cosine and the constant bias, as the options `logit_scale` and `logit_bias`.

    Args:
        backbone: A dual encoder.

    Returns:
        Those of the two options that the backbone has; VideoPrism and BLIP's retrieval model have neither.
    """
    similarity = {}
    if isinstance(getattr(backbone, "logit_scale", None), Tensor):
        similarity["logit_scale"] = backbone.logit_scale.detach().double().exp().item()
    for name in ("temperature", "temp"):  # ALIGN, TIPSv2 and ViCLIP divide by it
        if isinstance(getattr(backbone, name, None), Tensor):
            similarity["logit_scale"] = getattr(backbone, name).detach().double().reciprocal().item()
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


def _pooled(backbone: Any, features: Any) -> Tensor:
    """The embeddings (N, D) in what the backbone returned: a tensor, or an output object around it."""
    if not isinstance(features, Tensor):
        features = next(getattr(features, name) for name in EMBEDDINGS if hasattr(features, name))
    if features.dim() == 3 and (features.shape[1] == 1 or backbone.config.model_type in FIRST_TOKEN):
        return features[:, 0]
    return features


def _method(backbone: Any, names: tuple[str, ...]) -> Any:
    """The first of these methods that the backbone has, None without any."""
    return next((getattr(backbone, name) for name in names if callable(getattr(backbone, name, None))), None)


def _retrieval_class(config: Any) -> Any:
    """The class of transformers that AutoModel would not choose, None where it chooses right."""
    named = [name for name in getattr(config, "architectures", None) or () if name in RETRIEVAL_CLASSES]
    return getattr(transformers, named[0]) if named else None


def _frame_count(part: Any) -> int | None:
    """Number of frames that a configuration or encoder names."""
    counts = (getattr(part, name, None) for name in FRAME_COUNTS)
    return next((count for count in counts if isinstance(count, int) and count > 0), None)


def _image_side(config: Any) -> int:
    """Pixels a side of the images that the encoder was made for; 224 where it does not tell."""
    parts: tuple[Any, ...] = getattr(config, "vision_config", None), getattr(config, "image_config", None), config
    for part in parts:
        patches = getattr(part, "num_patches", None)
        if isinstance(patches, int):  # SigLIP 2 takes any aspect, up to so many patches
            return int(patches**0.5) * part.patch_size
        for name in ("image_size", "inputs_image_res", "resolution"):
            side: Any = getattr(part, name, None)
            side = side[0] if isinstance(side, list | tuple) else side
            if isinstance(side, int):
                return side
    return 224


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


# Last, for it makes its model known to transformers, which imports the modules that need this one.
from .open_clip_backbone import PREFIX, load_open_clip  # noqa: E402
