"""DKDCLIPModel: any CLIP-like dual encoder as a video recogniser that knows its domain.

The backbone embeds frames and prompts, one embedding each; `DKDHead` takes those embeddings as particles, moves them
toward the domain's mixture and compares videos with classes.
"""

import copy
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple, logging

from .configuration_dkd import RETRIEVAL_CLASSES, DKDCLIPConfig
from .dkd_head import DKDHead
from .domain_file import FORMAT_VERSION, dtypes_in, give_usual_mode
from .dual_encoder import (
    check_dual_encoder,
    embed_images,
    embed_texts,
    embed_videos,
    freeze_similarity,
    load_dual_encoder,
    new_dual_encoder,
    probe,
    save_own_code,
    similarity_of,
    takes_clips,
    token_embedder_of,
)
from .embedding_inputs import check_asked_labels, check_new_names
from .encoder_identity import EncoderIdentity, cached_commit, fingerprint, known_name
from .fitted_buffers import BUFFER_AXES, UNFITTED
from .loaded_weights import check_loaded_domain, refuse_mismatch, refuse_missing
from .sentence_embedder import MODULES, MODULES_FILE
from .temporal_transformer import TemporalTransformer
from .video_pipelines import CUSTOM_PIPELINES


FRAMES_PER_CHUNK = 64
TEXTS_PER_CHUNK = 256

logger = logging.get_logger(__name__)


@dataclass
class DKDCLIPOutput(ModelOutput):
    """What `DKDCLIPModel` returns, float32 throughout.

    Args:
        loss: Cross-entropy of `logits_per_video` with the labels, (); only when labels were given.
        logits_per_video: Similarity of each video with each class, (B, K).
        logits_per_text: Its transpose, (K, B).
        video_embeds: Unit-norm embeddings of the videos after the domain has moved them, (B, D).
        text_embeds: Unit-norm embeddings of the classes after the domain has moved them, (K, D).
        strength: How far each video was moved, 0 (not at all) to 1, (B,).
        known: Probability that each video is of one of the classes asked, 0 to 1, (B,), see `DKDHeadOutput`.
    """

    loss: Tensor | None = None
    logits_per_video: Tensor | None = None
    logits_per_text: Tensor | None = None
    video_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    strength: Tensor | None = None
    known: Tensor | None = None

    @property
    def logits(self) -> Tensor | None:
        """`logits_per_video`, by the name that classifiers of transformers have for it."""
        return self.logits_per_video

    def __getitem__(self, key: Any) -> Any:
        """Item of this name or number; `output["logits"]`, as `Trainer` asks for it, is no item of its own."""
        return self.logits_per_video if key == "logits" else super().__getitem__(key)


class DKDCLIPModel(PreTrainedModel):
    """A dual encoder as `backbone` and a `DKDHead` as `head`; plain CLIP until `fit_domain`.

    Args:
        config: Options, with a `backbone_config`.
        backbone: The dual encoder with its weights; None builds one with random weights from the configuration.

    Raises:
        ValueError: The configuration has no backbone, contradicts it, or the backbone is no dual encoder.
    """

    config: DKDCLIPConfig
    config_class = DKDCLIPConfig
    base_model_prefix = "dkd_clip"
    main_input_name = "pixel_values"
    input_modalities = ["video", "text"]  # noqa: RUF012 (typed so in the base class)
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is a mean over the batch, which Trainer divides by its accumulation steps
    # What is supported is up to the backbone, which checks for itself.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # A regular expression, for "head" alone would match SigLIP's vision head as well.
    _keep_in_fp32_modules_strict = [r"^head\."]  # noqa: RUF012 (the base class makes a set of its own of it)

    def __init__(self, config: DKDCLIPConfig, backbone: PreTrainedModel | None = None) -> None:
        if config.backbone_config is None:
            raise ValueError(
                "DKDCLIPModel needs a config with a backbone_config; give one, or load a stock checkpoint with "
                'DKDCLIPModel.from_backbone("openai/clip-vit-base-patch16")'
            )
        config = copy.deepcopy(config)  # another model may be made from it, and fitted to another domain
        config.check()
        super().__init__(config)
        if backbone is None:
            backbone = new_dual_encoder(config.backbone_config)
        check_dual_encoder(backbone)
        if type(backbone).__name__ in RETRIEVAL_CLASSES:
            backbone.config.architectures = [type(backbone).__name__]  # or it would be built as another class
        config.backbone_config = backbone.config  # one object, so that later changes reach the encoders
        self.backbone = backbone
        self.encoder_revision: str | None = None  # commit of the repository that the encoder was loaded from
        self.temporal: TemporalTransformer | None = None
        if config.num_temporal_layers:
            self.temporal = self._new_temporal_transformer()
        self.head = DKDHead(config)
        self.head.config = config  # one object here too
        freeze_similarity(self.backbone)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Give what a checkpoint lacks its starting value: the head then is an unfitted one."""
        super()._init_weights(module)
        if isinstance(module, DKDHead):
            init.constant_(module.log_logit_scale, math.log(self.config.logit_scale))
            constants = {"logit_bias": self.config.logit_bias, "format_version": FORMAT_VERSION}
            for name, value in {**constants, **UNFITTED}.items():
                init.constant_(module.get_buffer(name), value)
        if isinstance(module, TemporalTransformer):
            init.normal_(module.position_embeds, std=0.02)
            init.zeros_(module.output.weight)
            init.zeros_(module.output.bias)

    def _new_temporal_transformer(self) -> TemporalTransformer:
        """One as the configuration says, whose blocks have random weights."""
        config = self.config
        if takes_clips(self.backbone):
            raise ValueError(
                f"{type(self.backbone).__name__} sees the frames of a clip together by itself; leave "
                "num_temporal_layers at 0"
            )
        return TemporalTransformer(config.projection_dim, config.num_temporal_layers, config.num_temporal_frames)

    def add_temporal_transformer(self, num_layers: int, num_frames: int) -> None:
        """Put a transformer over the frames of a clip behind the encoder, in place of one that may be there.

        It starts as the identity, so that embeddings stay what they are until it is trained.

        Args:
            num_layers: Number of its blocks, >= 1.
            num_frames: Frames of one view that it will be trained with.

        Raises:
            ValueError: A number is out of range.
        """
        self.config.num_temporal_layers, self.config.num_temporal_frames = num_layers, num_frames
        self.config.check()
        self.temporal = self._new_temporal_transformer().to(self.device, self.dtype)
        self.temporal.apply(self._init_weights)
        self.temporal.train(self.training)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """Load a DKD checkpoint, and refuse one that would leave part of the encoders random or half a domain.

        A checkpoint without any domain gives plain CLIP, with a warning where its configuration speaks of one.

        Args:
            pretrained_model_name_or_path: Folder, or repository on the Hub.
            *model_args: As in `PreTrainedModel.from_pretrained`.
            **kwargs: As in `PreTrainedModel.from_pretrained`; options of `DKDCLIPConfig` override the stored ones.
                `ignore_mismatched_sizes=True` also loads a model whose domain cannot be used: as plain CLIP.

        Returns:
            The model in evaluation mode; with `output_loading_info=True` also the dict of what was missing.

        Raises:
            ValueError: The weights have other shapes than the configuration says (another `projection_dim` or
                `num_components`), lack some of the backbone, or hold part of a domain or one of another version.
        """
        with_info = kwargs.pop("output_loading_info", False)
        accept_mismatch = kwargs.pop("ignore_mismatched_sizes", False)
        if kwargs.get("trust_remote_code") and "config" not in kwargs:
            kwargs["trust_backbone_code"] = True
        # Accepted at first, so that a mismatch can be told in one sentence instead of the library's table.
        loaded: Any = super().from_pretrained(
            pretrained_model_name_or_path,
            *model_args,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **kwargs,
        )
        model, info = loaded
        source = pretrained_model_name_or_path or "the state dict"
        if not accept_mismatch:
            refuse_mismatch(info["mismatched_keys"], source, model.config)
        refuse_missing({key for key in info["missing_keys"] if key.startswith("backbone.")}, model.config.name_or_path)
        lost = info["missing_keys"] | {key for key, *_ in info["mismatched_keys"]}
        model._settle_domain(lost, source, accept_mismatch)
        freeze_similarity(model.backbone)
        model.encoder_revision = cached_commit(pretrained_model_name_or_path, kwargs)
        if model.config.num_components:
            model.head.encoder = model.encoder_identity()
            names = [str(model.config.id2label.get(k)) for k in range(model.config.num_components)]
            is_named = names != [f"LABEL_{k}" for k in range(len(names))]
            model.head.class_names = names if is_named else None
        return (model, info) if with_info else model

    @staticmethod
    def _load_pretrained_model(
        model: Any,
        state_dict: dict[str, Tensor] | None,
        checkpoint_files: list[str] | None,
        *others: Any,
        **options: Any,
    ) -> Any:
        """As in the library, which casts what it loads: here alone it is seen in what dtype a domain was kept."""
        prefix = "head."
        if state_dict is not None:
            given = state_dict.items()
            model._stored_dtypes = {
                name.removeprefix(prefix): value.dtype for name, value in given if name.startswith(prefix)
            }
        elif checkpoint_files and all(path.endswith(".safetensors") for path in checkpoint_files):
            model._stored_dtypes = dtypes_in(checkpoint_files, prefix)
        return PreTrainedModel._load_pretrained_model(model, state_dict, checkpoint_files, *others, **options)

    def _settle_domain(self, lost: set[str], source: Any, plain_if_broken: bool) -> None:
        """Keep the domain that was loaded if it is whole, forget it if there was none, refuse what lies between."""
        stored = self.__dict__.pop("_stored_dtypes", {})
        lost = {key.removeprefix("head.") for key in lost if key.startswith("head.")} & self.head.state_dict().keys()
        fault = None
        if BUFFER_AXES.keys() <= lost:
            fault = (
                f"{source} holds no domain, though its configuration has num_components={self.config.num_components}."
            )
        elif self.config.num_components:
            try:
                check_loaded_domain(self.head, lost, stored, str(source))
            except ValueError as error:
                if not plain_if_broken:
                    hint = "ignore_mismatched_sizes=True loads the model without it."
                    raise ValueError(f"{error} {hint}") from error
                fault = str(error)
        if not fault and self.config.num_components:
            return
        if fault and self.config.num_components:
            logger.warning("%s It is loaded as plain CLIP.", fault)
        self.head.reset()

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """As in `PreTrainedModel`; the configuration also tells `pipeline` of those that ship with the code.

        The configuration gets the logit scale and bias that the head has now, trained ones too, and the weights get
        the permissions of any new file. What is saved can be loaded by sentence-transformers too.
        """
        self.config.custom_pipelines = copy.deepcopy(CUSTOM_PIPELINES)  # `pipeline` writes into what it reads
        self.head.write_config()
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        save_own_code(self.backbone, save_directory)
        super().save_pretrained(save_directory, *args, **kwargs)
        for path in Path(save_directory).glob("model*.safetensors"):
            give_usual_mode(path)
        if Path(save_directory).is_dir():  # in one of several processes alone
            modules = Path(save_directory) / MODULES_FILE
            modules.write_text(f"{json.dumps(MODULES, indent=2)}\n", encoding="utf-8")

    @classmethod
    def from_backbone(cls, name_or_path: Any, **options: Any) -> "DKDCLIPModel":
        """Put an unfitted head on a stock dual encoder, with the encoder's own logit scale and bias.

        Args:
            name_or_path: Folder or Hub repository of the dual encoder, such as "openai/clip-vit-base-patch16", or one
                of open_clip's: "open_clip:hf-hub:OWNER/NAME" or "open_clip:local-dir:FOLDER".
            **options: Options of `DKDCLIPConfig`; any other is one of `AutoModel.from_pretrained` (`dtype`,
                `revision`, `attn_implementation`, `trust_remote_code`, ...).

        Returns:
            The model in evaluation mode; its logits are the backbone's own until a domain is fitted.

        Raises:
            ValueError: The checkpoint is no dual encoder, is a DKD checkpoint already, or lacks weights.
        """
        own_names = {field.name for field in fields(DKDCLIPConfig)} - {
            field.name for field in fields(PreTrainedConfig)
        }
        own_options = {name: options.pop(name) for name in own_names & options.keys()}
        if "backbone_config" in own_options:
            raise ValueError("from_backbone reads backbone_config from the checkpoint; leave it out")
        backbone, missing = load_dual_encoder(name_or_path, **options)
        if backbone.config.model_type == DKDCLIPConfig.model_type:
            raise ValueError(f"{name_or_path} is a DKD checkpoint already; load it with from_pretrained")
        check_dual_encoder(backbone)
        refuse_missing(missing, name_or_path)
        for name, value in {"projection_dim": probe(backbone), **similarity_of(backbone)}.items():
            own_options.setdefault(name, value)
        model = cls(DKDCLIPConfig(backbone_config=backbone.config, **own_options), backbone)
        model.encoder_revision = cached_commit(name_or_path, options)
        return model.eval()

    def get_input_embeddings(self) -> nn.Module:
        """The token embeddings of the backbone's text encoder."""
        return token_embedder_of(self.backbone).get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings of the backbone's text encoder."""
        token_embedder_of(self.backbone).set_input_embeddings(value)

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """As in `PreTrainedModel`, in the backbone's text encoder and its configuration."""
        embedder = token_embedder_of(self.backbone)
        return embedder.resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)

    def get_video_features(self, pixel_values: Tensor) -> Tensor:
        """Embed the frames, or the clips, before the domain is applied.

        Args:
            pixel_values: Frames prepared by the processor, (B, T, C, H, W), V clips of each video (B, V, T, C, H, W),
                or images (B, C, H, W), which are videos of one frame; any float dtype. T may be any number, unless the
                backbone embeds whole clips, which have the frames that it was trained with.

        Returns:
            Embeddings as the encoder gives them, not normalised, dtype of the backbone; the head takes them as the
            video's particles: one a frame, (B, V * T, D), or one a clip where the backbone embeds clips, (B, V, D).

        Raises:
            ValueError: Another number of axes, no frames, a number of frames that the backbone does not take, or
                integers (pixels that were not normalised).
        """
        if pixel_values.dim() == 4:
            pixel_values = pixel_values.unsqueeze(1)
        if pixel_values.dim() not in (5, 6) or 0 in pixel_values.shape[:-3]:
            raise ValueError(
                "pixel_values must be (videos, frames, channels, height, width), (videos, clips, frames, channels, "
                "height, width) or (images, channels, height, width), "
                f"at least one of each, not {tuple(pixel_values.shape)}"
            )
        if not pixel_values.is_floating_point():
            raise ValueError(
                f"pixel_values are {pixel_values.dtype}; prepare them with the processor, which scales them"
            )
        clips = pixel_values if pixel_values.dim() == 6 else pixel_values.unsqueeze(1)
        clips = clips.to(self.backbone.dtype)
        batch_size = clips.shape[0]
        if takes_clips(self.backbone):
            return self._joint(embed_videos(self.backbone, clips.flatten(0, 1))).unflatten(0, (batch_size, -1))
        embeds = self._joint(embed_images(self.backbone, clips.flatten(0, 2))).unflatten(0, (batch_size, -1))
        return embeds if self.temporal is None else self.temporal(embeds)

    def get_text_features(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Embed each prompt by itself, before the domain is applied.

        Args:
            input_ids: Tokens, one prompt a class (K, L) or several (K, P, L), int64.
            attention_mask: 1 for tokens and 0 for padding, shape of `input_ids`; None: what the backbone does itself.
            token_type_ids: As BERT-like text encoders take them, shape of `input_ids`.

        Returns:
            Embeddings as the encoder gives them, not normalised, (K, D) or (K, P, D), dtype of the backbone; the head
            takes the prompts of a class as its particles.

        Raises:
            ValueError: Another number of axes, no prompts, or a mask of another shape.
        """
        if input_ids.dim() not in (2, 3) or 0 in input_ids.shape:
            raise ValueError(
                "input_ids must be (classes, tokens) or (classes, prompts, tokens), at least one of each, "
                f"not {tuple(input_ids.shape)}"
            )
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        inputs = {name: value for name, value in given.items() if value is not None}
        for name, value in inputs.items():
            if value.shape != input_ids.shape:
                raise ValueError(f"{name} is {tuple(value.shape)}, but input_ids are {tuple(input_ids.shape)}")
        flat = {name: value.flatten(0, -2) for name, value in inputs.items()}
        embeds = self._joint(embed_texts(self.backbone, **flat))
        return embeds.unflatten(0, input_ids.shape[:-1])

    def _joint(self, embeds: Tensor) -> Tensor:
        """These embeddings (N, D), once it is sure that they are such and that D is what the head expects."""
        if embeds.dim() != 2:
            raise ValueError(
                f"the backbone {type(self.backbone).__name__} gives {tuple(embeds.shape)} for {len(embeds)} inputs, "
                "not one embedding each; give a dual encoder such as CLIP or SigLIP"
            )
        if embeds.shape[-1] != self.config.projection_dim:
            raise ValueError(
                f"the backbone's embeddings have {embeds.shape[-1]} dimensions, but projection_dim is "
                f"{self.config.projection_dim}; build the config with projection_dim={embeds.shape[-1]}"
            )
        return embeds

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> DKDCLIPOutput:
        """Compare videos with classes, both moved by the domain.

        Args:
            pixel_values: As in `get_video_features`.
            input_ids: As in `get_text_features`.
            attention_mask: As in `get_text_features`.
            token_type_ids: As in `get_text_features`.
            labels: Class of each video, a row of `input_ids`, (B,), int64.
            output_attentions: Refused if True, as in the configuration: the backbone gives them.
            output_hidden_states: Refused if True, as in the configuration: the backbone gives them.

        Returns:
            Logits, the moved embeddings, the strength, and the loss when labels were given.

        Raises:
            ValueError: An input is missing or has the wrong shape, a label names no class, or inner states are asked
                for.
        """
        if pixel_values is None or input_ids is None:
            raise ValueError(
                "DKDCLIPModel compares videos with texts: give pixel_values and input_ids; for one of them alone "
                "there are get_video_features and get_text_features, for a pipeline VideoClassificationPipeline"
            )
        asked = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        for name, value in asked.items():
            if value or (value is None and getattr(self.config, name, False)):
                raise ValueError(
                    f"DKDCLIPModel has no {name}; ask the encoder: "
                    f"model.backbone.get_image_features(frames, {name}=True)"
                )
        # Encoders: every frame and every prompt by itself.
        video_embeds = self.get_video_features(pixel_values)
        text_embeds = self.get_text_features(input_ids, attention_mask, token_type_ids)
        # Domain: both branches move, then they are compared.
        moved = self.head(video_embeds, text_embeds)
        loss = None
        if labels is not None:
            check_asked_labels(labels, *moved.logits_per_video.shape)
            loss = cross_entropy(moved.logits_per_video, labels)
        return DKDCLIPOutput(
            loss=loss,
            logits_per_video=moved.logits_per_video,
            logits_per_text=moved.logits_per_video.T,
            video_embeds=moved.video_embeds,
            text_embeds=moved.text_embeds,
            strength=moved.strength,
            known=moved.known,
        )

    def fit_domain(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        video_embeds: Tensor | None = None,
        text_embeds: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        class_names: Sequence[str] | None = None,
        num_components: int | None = None,
    ) -> "DKDCLIPModel":
        """Learn the domain from videos, or from their embeddings, without touching the encoders.

        The encoders run in evaluation mode, without gradients, on a few videos at a time, so the videos may stay in
        main memory. `class_names` become `config.id2label` and `config.label2id`; without them names that are there
        stay if they are as many as the classes, else the classes are numbered.

        Args:
            pixel_values: The domain's videos, as in `get_video_features`; or give `video_embeds`.
            input_ids: The classes, as in `get_text_features`; or give `text_embeds`, or neither when they are unknown.
            attention_mask: As in `get_text_features`.
            video_embeds: Embeddings of the domain's videos, (N, D) or (N, T, D).
            text_embeds: Embeddings of the classes, (K, D) or (K, P, D).
            token_type_ids: As in `get_text_features`.
            labels: Class of each video where it is known, -1 where not, (N,), int64.
            class_names: One name a class, all different.
            num_components: As in `DKDHead.fit`.

        Returns:
            This model, fitted.

        Raises:
            ValueError: Videos or classes are given twice or not at all, the names do not fit the classes, or what
                `DKDHead.fit` refuses.
        """
        if input_ids is not None and text_embeds is not None:
            raise ValueError("give input_ids or text_embeds, not both")
        classes = input_ids if input_ids is not None else text_embeds
        num_classes = None if classes is None else len(classes)
        check_new_names(class_names, None if classes is None else classes.shape)
        video_embeds = self._embeds_of(pixel_values, video_embeds)
        if input_ids is not None:
            num_prompts = input_ids.shape[1] if input_ids.dim() == 3 else 1
            inputs = (input_ids, attention_mask, token_type_ids)
            text_embeds = self._encode(self.get_text_features, TEXTS_PER_CHUNK // max(1, num_prompts), *inputs)
        self.head.fit(video_embeds, text_embeds, labels, num_components, class_names=class_names)
        self.head.encoder = self.encoder_identity()
        if num_classes is not None:
            self._name_classes(class_names, num_classes)
        return self

    def update_domain(
        self, pixel_values: Tensor | None = None, *, video_embeds: Tensor | None = None
    ) -> "DKDCLIPModel":
        """Go on learning from the next videos of a stream, as `DKDHead.update`; classes and their names stay.

        Args:
            pixel_values: The next videos, as in `get_video_features`; or give `video_embeds`.
            video_embeds: Their embeddings, (N, D) or (N, T, D).

        Returns:
            This model.

        Raises:
            ValueError: Videos are given twice or not at all, or no domain with classes was fitted.
        """
        self.head.update(self._embeds_of(pixel_values, video_embeds))
        return self

    def _embeds_of(self, pixel_values: Tensor | None, video_embeds: Tensor | None) -> Tensor:
        """Embeddings of the domain's videos, of which one or the other is given."""
        if pixel_values is not None and video_embeds is not None:
            raise ValueError("give pixel_values or video_embeds, not both")
        if pixel_values is not None:
            num_frames = math.prod(pixel_values.shape[1:-3])
            return self._encode(self.get_video_features, FRAMES_PER_CHUNK // max(1, num_frames), pixel_values)
        if video_embeds is None:
            raise ValueError("give pixel_values or video_embeds: the videos of the domain")
        return video_embeds

    def load_domain(
        self,
        name_or_folder: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> "DKDCLIPModel":
        """Take over a domain that was saved or shared alone, with its logit scale and its class names.

        Args:
            name_or_folder: Where the file is: a folder, or a repository of the Hub as owner/name.
            revision: Branch, tag or commit of the repository.
            token: Access token; None: the one of `hf auth login` or HF_TOKEN.
            cache_dir: Where files of the Hub are kept; None: the usual place.
            local_files_only: Take what is in the cache and ask nobody.

        Returns:
            This model, fitted.

        Raises:
            ValueError: As `DKDHead.from_pretrained`, it belongs to another encoder, as far as both are known, or its
                embeddings have another D.
            OSError: The Hub cannot be asked, and the file is not in the cache.
        """
        loaded = DKDHead.from_pretrained(
            name_or_folder,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        source = f"the domain {name_or_folder}"
        if loaded.encoder is not None:
            loaded.encoder.check_model(self.encoder_identity(), source)
        self.head.check_domain(loaded.state_dict(), source)
        self.head.load_state_dict(loaded.state_dict())
        self.head.encoder, self.head.min_clips = loaded.encoder, loaded.min_clips
        self._name_classes(loaded.class_names, len(loaded.weights))
        return self

    def encoder_identity(self, processor: Any = None) -> EncoderIdentity:
        """What is known of this model's encoder: where it is from, and a hash of its weights.

        Args:
            processor: Its processor, so that the settings frames are prepared with are known too.
        """
        origin = self.config if self.config.name_or_path else self.backbone.config
        preprocessing = None
        if processor is not None:
            settings = json.loads(processor.image_processor.to_json_string())
            preprocessing = {key: settings[key] for key in settings if key not in ("auto_map", "processor_class")}
        return EncoderIdentity(
            self.config.projection_dim,
            known_name(str(origin.name_or_path or "")),
            self.encoder_revision,
            fingerprint(self.backbone),
            preprocessing,
        )

    @torch.no_grad()
    def _encode(self, encode: Callable[..., Tensor], chunk_size: int, first: Tensor, *others: Tensor | None) -> Tensor:
        """Apply an encoder to a chunk of rows at a time, on the model's device and with dropout off."""
        training = {module: module.training for module in self.backbone.modules()}
        self.backbone.eval()
        try:
            starts = range(0, max(1, len(first)), max(1, chunk_size))
            rows = [slice(start, start + starts.step) for start in starts]
            progress = logging.tqdm(rows, desc="embedding", unit="chunk", disable=len(rows) < 2 or None)
            chunks = [
                encode(*(x if x is None else x[chunk].to(self.device) for x in (first, *others))) for chunk in progress
            ]
        finally:
            for module, mode in training.items():
                module.training = mode
        return torch.cat(chunks)

    def _name_classes(self, class_names: Sequence[str] | None, num_classes: int) -> None:
        """Write the names, or numbers where the names in the configuration are not as many as the classes."""
        self.head.class_names = None if class_names is None else list(class_names)
        if class_names is None:
            self.config.num_labels = num_classes
            return
        self.config.id2label = dict(enumerate(class_names))
        self.config.label2id = {name: index for index, name in enumerate(class_names)}
