"""A small transformer over the frames of a clip, which starts as the identity."""

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, scaled_dot_product_attention


DIMENSIONS_PER_ATTENTION_HEAD = 64


class TemporalBlock(nn.Module):
    """Attention between the frames of a clip, then a perceptron on each of them, both added to what comes in.

    Args:
        dim: D, the length of a frame's embedding.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        # One head where D is no whole number of them.
        self.num_heads = (
            max(1, dim // DIMENSIONS_PER_ATTENTION_HEAD) if dim % DIMENSIONS_PER_ATTENTION_HEAD == 0 else 1
        )
        self.attention_norm = nn.LayerNorm(dim)
        self.queries_keys_values = nn.Linear(dim, 3 * dim)
        self.attention_output = nn.Linear(dim, dim)
        self.perceptron_norm = nn.LayerNorm(dim)
        self.perceptron_input = nn.Linear(dim, 4 * dim)
        self.perceptron_output = nn.Linear(4 * dim, dim)

    def forward(self, frames: Tensor) -> Tensor:
        """(N, T, D) -> (N, T, D)."""
        projected = self.queries_keys_values(self.attention_norm(frames)).unflatten(-1, (3, self.num_heads, -1))
        queries, keys, values = projected.permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)
        frames = frames + self.attention_output(attended)
        return frames + self.perceptron_output(gelu(self.perceptron_input(self.perceptron_norm(frames))))


class TemporalTransformer(nn.Module):
    """Adds to each frame's embedding what the frames of its view tell together.

        x'_t = x_t + |x_t| W h_t,   h = blocks(norm(x) + positions)

    W is zero at first, so that nothing changes until it is trained.

    Args:
        dim: D, the length of a frame's embedding.
        num_layers: Number of blocks.
        num_frames: T, frames of one view; of other numbers the positions are interpolated.
    """

    def __init__(self, dim: int, num_layers: int, num_frames: int) -> None:
        super().__init__()
        self.input_norm = nn.LayerNorm(dim)
        self.position_embeds = nn.Parameter(torch.zeros(num_frames, dim))
        self.blocks = nn.ModuleList(TemporalBlock(dim) for _ in range(num_layers))
        self.output_norm = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, dim)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, embeds: Tensor) -> Tensor:
        """Frames of clips, each seen together with those of its view.

        Args:
            embeds: (B, T, D), the frames of several views one view after the other where T is a multiple of
                `num_frames`, else one view of T frames.

        Returns:
            (B, T, D), dtype of `embeds`.
        """
        num_clips, total, dim = embeds.shape
        num_frames = len(self.position_embeds)
        length = num_frames if total % num_frames == 0 else total
        frames = embeds.reshape(-1, length, dim)
        hidden = self.input_norm(frames) + self._positions(length)
        for block in self.blocks:
            hidden = block(hidden)
        update = self.output(self.output_norm(hidden))
        return (frames + frames.norm(dim=-1, keepdim=True) * update).to(embeds.dtype).reshape(num_clips, total, dim)

    def _positions(self, length: int) -> Tensor:
        """Position embeddings (length, D), interpolated over the duration of a clip."""
        if length == len(self.position_embeds):
            return self.position_embeds
        return interpolate(self.position_embeds.T[None], size=length, mode="linear", align_corners=False)[0].T
