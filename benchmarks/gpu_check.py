"""Whether a GPU gives what the CPU gives: fit, forward, update, training step, bfloat16 and compile, in one table.

    make gpu-check                                      # on CUDA; a few minutes
    python -m benchmarks.gpu_check --device cpu         # of the script itself

The same work is done on the CPU and on the device, in float32 without TF32, and the largest difference is compared
with what another order of sums explains. Weights and embeddings are random, seed 0. Exit code 1: a difference is
larger; 2: there is no such device.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from tqdm import tqdm
from transformers import CLIPConfig, CLIPModel

from modeling_dkd import DKDCLIPConfig, DKDCLIPModel, DKDHead

from .rows import clustered


VIDEOS, NEW_VIDEOS, CLASSES, DIM = 2000, 500, 101, 512
CLIPS, FRAMES, TOKENS, IMAGE_SIZE = 8, 4, 16, 64
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Check:
    """One line of the table.

    Attributes:
        what: Is compared.
        run: From a device to the tensors that are compared; CPU and device are given the same input.
        most: Largest difference that counts as the same.
        on_device: What runs on the device instead, such as a compiled model.
    """

    what: str
    run: Callable[[torch.device], list[Tensor]]
    most: float
    on_device: Callable[[torch.device], list[Tensor]] | None = None


@dataclass(frozen=True)
class Outcome:
    """What came out: largest difference, seconds on the CPU and on the device, or why it failed."""

    check: Check
    difference: float
    cpu_seconds: float
    device_seconds: float
    error: str = ""

    @property
    def is_right(self) -> bool:
        """Whether it is within what is allowed; a difference that is no number is not."""
        return not self.error and self.difference <= self.check.most


def checks() -> list[Check]:
    """All of them, from the head to the compiled model."""
    compiled = model_forward(compiled=True)
    return [
        Check("head: fit, then confidence, embeddings, known", fitted_head(), 1e-3),
        Check("head: the same with labels for a tenth", fitted_head(labelled=True), 1e-3),
        Check("head: fit, update twice, then the same", fitted_head(updates=2), 1e-3),
        Check("model: forward, logits and embeddings", model_forward(), 1e-3),
        Check("model: fit_domain, then the same", model_forward(fitted=True), 1e-3),
        Check("model: a training step, loss and weights", training_step, 1e-3),
        Check("model: bfloat16, 1 - cosine of embeddings", model_forward(), 5e-3, bfloat16_forward),
        Check("model: compiled, logits and embeddings", model_forward(), 1e-3, compiled),
    ]


def fitted_head(labelled: bool = False, updates: int = 0) -> Callable[[torch.device], list[Tensor]]:
    """Of new videos, after a fit to N = 2000 of K = 101 classes, D = 512."""
    videos, texts = clustered(VIDEOS + (1 + updates) * NEW_VIDEOS, CLASSES, DIM)
    new, domain, *batches = videos.split([NEW_VIDEOS, VIDEOS, *[NEW_VIDEOS] * updates])
    labels = None
    if labelled:
        labels = (domain @ texts.T).argmax(1).where(torch.arange(VIDEOS) % 10 == 0, -1)

    def run(device: torch.device) -> list[Tensor]:
        head = DKDHead(DKDCLIPConfig(projection_dim=DIM)).to(device)
        head.fit(domain.to(device), texts.to(device), None if labels is None else labels.to(device))
        for batch in batches:
            head.update(batch.to(device))
        with torch.no_grad():
            moved = head(new.to(device), texts.to(device))
        return [moved.logits_per_video.softmax(1), moved.video_embeds, moved.text_embeds, moved.strength, moved.known]

    return run


def new_model() -> DKDCLIPModel:
    """A CLIP of four layers with random weights, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trunk = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4}
        vision = trunk | {"image_size": IMAGE_SIZE, "patch_size": 16}
        text = trunk | {"vocab_size": 99, "bos_token_id": 0, "eos_token_id": 98, "pad_token_id": 1}
        config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=128)
        return DKDCLIPModel(DKDCLIPConfig(backbone_config=config), CLIPModel(config)).eval()


def model_inputs(device: torch.device) -> dict[str, Any]:
    """Eight clips of four frames and five classes."""
    generator = torch.Generator().manual_seed(0)
    pixel_values = torch.randn(CLIPS, FRAMES, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)
    input_ids = torch.randint(3, 98, (5, TOKENS), generator=generator)
    input_ids[:, 0], input_ids[:, -1] = 0, 98
    return {"pixel_values": pixel_values.to(device), "input_ids": input_ids.to(device)}


def on_device(model: DKDCLIPModel, device: torch.device, dtype: torch.dtype = torch.float32) -> DKDCLIPModel:
    """The model there, in this dtype."""
    return nn.Module.to(model, device, dtype)


def model_forward(fitted: bool = False, compiled: bool = False) -> Callable[[torch.device], list[Tensor]]:
    """Confidence and embeddings of the model."""

    @torch.no_grad()
    def run(device: torch.device) -> list[Tensor]:
        model, inputs = on_device(new_model(), device), model_inputs(device)
        if fitted:
            model.fit_domain(**inputs)
        # The default compiler writes C++ for a CPU.
        backend = "inductor" if device.type != "cpu" or shutil.which("g++") else "aot_eager"
        forward = torch.compile(model, backend=backend) if compiled else model
        moved = forward(**inputs)
        return [moved.logits_per_video.softmax(1), moved.video_embeds, moved.text_embeds]

    return run


@torch.no_grad()
def bfloat16_forward(device: torch.device) -> list[Tensor]:
    """The embeddings of the model in bfloat16, turned so that they differ from the others by 1 - cosine."""
    model, inputs = on_device(new_model(), device, torch.bfloat16), model_inputs(device)
    if {tensor.dtype for tensor in model.head.state_dict().values()} != {torch.float32}:
        raise ValueError("the head is not float32 any more")
    expected, found = model_forward()(torch.device("cpu")), model(**inputs)
    pairs = zip(expected[1:], (found.video_embeds, found.text_embeds), strict=True)
    lost = [1 - cosine_similarity(wanted, value.cpu())[:, None] for wanted, value in pairs]
    return [expected[0], *(wanted + part for wanted, part in zip(expected[1:], lost, strict=True))]


def training_step(device: torch.device) -> list[Tensor]:
    """Loss before and after a step of gradient descent, and what the step did to some weights."""
    model, inputs = on_device(new_model(), device).train(), model_inputs(device)
    labels = (torch.arange(CLIPS) % 5).to(device)
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], LEARNING_RATE)
    before = model(**inputs, labels=labels).loss
    before.backward()
    optimizer.step()
    with torch.no_grad():
        after = model(**inputs, labels=labels).loss
    return [before.detach(), after, model.backbone.visual_projection.weight.detach(), model.head.logit_scale.detach()]


def outcome(check: Check, device: torch.device) -> Outcome:
    """Do the same on both; a failure on the device is told, one on the CPU is none of the device's."""
    expected, cpu_seconds = timed(check.run, torch.device("cpu"))
    try:
        found, device_seconds = timed(check.on_device or check.run, device)
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        return Outcome(check, float("nan"), cpu_seconds, float("nan"), (str(error).splitlines() or ["failed"])[0])
    pairs = zip(expected, found, strict=True)
    difference = max(float((wanted - value.cpu()).abs().max()) for wanted, value in pairs)
    return Outcome(check, difference, cpu_seconds, device_seconds)


def timed(run: Callable[[torch.device], list[Tensor]], device: torch.device) -> tuple[list[Tensor], float]:
    """What it gives, and the seconds until all of it is there."""
    start = time.perf_counter()
    found = [tensor.float() for tensor in run(device)]
    if device.type == "cuda":
        torch.cuda.synchronize()
    return found, time.perf_counter() - start


def table(outcomes: list[Outcome], device: torch.device) -> str:
    """All lines, as Markdown."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else device.type
    lines = [f"| torch {torch.__version__}, CPU beside {name} | largest difference | allowed | CPU s | device s | |"]
    lines.append("|---|---:|---:|---:|---:|---|")
    for done in outcomes:
        said = "same" if done.is_right else done.error or "NOT THE SAME"
        seconds = f"{done.cpu_seconds:.2f} | {done.device_seconds:.2f}"
        lines.append(f"| {done.check.what} | {done.difference:.1e} | {done.check.most:.0e} | {seconds} | {said} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 0 where all is the same."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="cuda", metavar="NAME", help="cuda, cuda:1, mps ...; cpu: a self test")
    name = parser.parse_args(arguments).device
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        print(f"error: there is no device {name!r}: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    outcomes = [outcome(check, device) for check in tqdm(checks(), desc="checks", leave=False)]
    print(table(outcomes, device))
    return 0 if all(done.is_right for done in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
