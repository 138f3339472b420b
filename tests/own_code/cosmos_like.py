"""An encoder of clips with the methods of nvidia/Cosmos-Embed1, as code that comes with a checkpoint."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput


class CosmosLikeConfig(PreTrainedConfig):
    model_type = "cosmos_like"
    num_video_frames: int = 4
    resolution: int = 16
    embed_dim: int = 12
    projection_dim: int = 7  # of something else


@dataclass
class VideoEmbeddings(ModelOutput):
    visual_proj: Tensor | None = None
    visual_embs: Tensor | None = None


@dataclass
class TextEmbeddings(ModelOutput):
    text_proj: Tensor | None = None
    text_embs: Tensor | None = None


class CosmosLike(PreTrainedModel):
    config_class = CosmosLikeConfig
    main_input_name = "videos"

    def __init__(self, config: CosmosLikeConfig) -> None:
        super().__init__(config)
        self.visual = nn.Linear(3 * config.num_video_frames, config.embed_dim)
        self.tokens = nn.Embedding(99, config.embed_dim)
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.post_init()

    def get_video_embeddings(self, videos: Tensor) -> VideoEmbeddings:
        embs = self.visual(videos.mean((-1, -2)).flatten(1))
        return VideoEmbeddings(visual_proj=nn.functional.normalize(embs, dim=-1), visual_embs=embs[:, None])

    def get_text_embeddings(self, input_ids: Tensor, attention_mask: Tensor) -> TextEmbeddings:
        embs = self.tokens(input_ids) * attention_mask[..., None]
        return TextEmbeddings(text_proj=nn.functional.normalize(embs.sum(1), dim=-1), text_embs=embs)
