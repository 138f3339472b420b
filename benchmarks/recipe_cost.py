"""Time and memory of the recipes by GPU, computed: the table in docs/reproduce.md.

    python -m benchmarks.recipe_cost            # writes it anew from hub_configs/*.yaml

No run on these GPUs was made. Time is the larger of arithmetic (FLOPs of the encoders / (dense bfloat16 peak of the
data sheet x `UTILISATION`)) and of decoding (`CLIPS_A_SECOND` in each worker). Memory is weights, gradients, AdamW's
state and what the backward pass keeps.
"""

import re
from dataclasses import dataclass

from modeling_dkd.training.config import TrainingConfig, load_config

from .rows import REPOSITORY


PAGE = REPOSITORY / "docs" / "reproduce.md"
MARKS = ("<!-- computed: python -m benchmarks.recipe_cost -->", "<!-- end -->")
# Dense bfloat16 with float32 sums, TFLOP/s, from NVIDIA's data sheets.
GPUS = {"RTX 4090": 165, "A100": 312, "H100 SXM": 989}
UTILISATION = 0.35  # an assumption: what well-kept training loops of such encoders reach lies around it
# Measured: decode + preprocess, 23 untouched clips x 8 frames, one core (docs/benchmarks.md, commit 3b6e912889eb).
CLIPS_A_SECOND = 20.4
CLIPS = {"kinetics400": (246245, 20000), "ucf101": (9537, 3783), "hmdb51": (3570, 1530)}
CLASSES = {"kinetics400": 400, "ucf101": 101, "hmdb51": 51}
SHARES = 3  # of fine-tuned weights, each tested at the end
GIB = 2**30


@dataclass(frozen=True)
class Transformer:
    """Size of an encoder: tokens of an input, width, blocks (MLP of four widths)."""

    tokens: int
    width: int
    blocks: int

    @property
    def flops(self) -> float:
        """Of one forward pass of one input: 24 n w^2 + 4 n^2 w a block (a product and a sum count two)."""
        n, w = self.tokens, self.width
        return self.blocks * (24 * n * w**2 + 4 * n**2 * w)

    @property
    def kept_bytes(self) -> int:
        """What the backward pass keeps of an input in 16 bits: 34 n w a block (Korthikanti et al. 2022, 4.1)."""
        return self.blocks * 34 * self.tokens * self.width

    @property
    def parameters(self) -> int:
        """Of the blocks."""
        return self.blocks * 12 * self.width**2


IMAGE = {"b32": Transformer(50, 768, 12), "b16": Transformer(197, 768, 12)}
TEXT = Transformer(77, 512, 12)
VOCABULARY = 49408 * 512


@dataclass(frozen=True)
class Cost:
    """What a run needs: arithmetic, decoded clips, bytes of GPU memory."""

    flops: float
    clips: int
    memory: float

    def hours(self, peak_tflops: float, workers: int) -> float:
        """The slower of arithmetic and decoding."""
        return max(self.flops / (peak_tflops * 1e12 * UTILISATION), self.clips / (CLIPS_A_SECOND * workers)) / 3600


def cost(config: TrainingConfig, name: str) -> Cost:
    """Of a recipe whose name holds b32 or b16."""
    image = IMAGE["b16" if "b16" in name else "b32"]
    data, recipe = config.data, config.recipe
    training, test = CLIPS[data.dataset]
    domain = min(config.domain.num_clips or training, training)
    validations = -(-recipe.epochs // config.run.validation_epochs)
    embedded = (domain + validations * (domain + test)) * bool(recipe.epochs)
    embedded += (SHARES if recipe.epochs else 1) * (domain + test)
    passes = recipe.epochs * training / recipe.batch_size
    texts = CLASSES[data.dataset] * TEXT.flops * recipe.train_text_encoder
    frames = image.flops * data.num_frames
    flops = embedded * frames + 3 * passes * (recipe.batch_size * frames + texts)
    parameters = image.parameters + TEXT.parameters + VOCABULARY
    trained = (image.parameters + recipe.train_text_encoder * TEXT.parameters) * bool(recipe.epochs)
    kept = recipe.batch_size * data.num_frames * image.kept_bytes
    kept += CLASSES[data.dataset] * TEXT.kept_bytes * recipe.train_text_encoder
    memory = 4 * parameters + 12 * trained + kept * bool(recipe.epochs)
    return Cost(flops, embedded + recipe.epochs * training, memory)


def table() -> str:
    """Recipes of Kinetics, UCF101 and HMDB51 with hours and GiB."""
    lines = [f"| recipe | {' | '.join(f'{name}, hours' for name in GPUS)} | decoding alone, hours | GiB |"]
    lines.append("|---|" + "---:|" * (len(GPUS) + 2))
    for path in sorted((REPOSITORY / "hub_configs").glob("clip-*.yaml")):
        config = load_config(path)
        needed = cost(config, path.stem)
        workers = config.data.num_workers
        hours = [needed.hours(peak, workers) for peak in GPUS.values()]
        alone = needed.clips / (CLIPS_A_SECOND * workers) / 3600
        cells = [f"{value:.1f}" if value >= 0.1 else "< 0.1" for value in (*hours, alone)]
        lines.append(f"| {path.stem} | {' | '.join(cells)} | {needed.memory / GIB:.0f} |")
    return "\n".join(lines)


def with_table(text: str) -> str:
    """The page with the table between its marks."""
    first, last = map(re.escape, MARKS)
    return re.sub(f"{first}.*{last}", f"{MARKS[0]}\n{table()}\n{MARKS[1]}", text, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"written: {PAGE}")
