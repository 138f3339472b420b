"""What the domain costs: the head beside the encoder it follows, and fitting beside scikit-learn, in one run.

python benchmarks/head_and_fit.py                                    # tables of ratios, about a minute
python benchmarks/head_and_fit.py --json docs/benchmarks/head_and_fit.json

Both sides of a ratio alternate, so that other work on the machine slows both alike; figures are medians of the rounds.
Weights and embeddings are random: they do not change what is computed.
"""

import argparse
import json
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import sklearn
import torch
import transformers
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as SklearnMixture
from torch.nn.functional import normalize
from tqdm import tqdm
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from modeling_dkd import DKDCLIPConfig, DKDHead
from modeling_dkd.gaussian_mixture import GaussianMixture, VarianceType, fit_gaussian_mixture


VIDEOS, FRAMES, CLASSES, DIM = 8, 8, 101, 512
FIT_SAMPLES = 10_000
EM_SAMPLES, EM_COMPONENTS, EM_ITERATIONS = 20_000, 101, 5


def clustered(num_samples: int, num_classes: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit embeddings around unit texts, (N, D) and (K, D), as far apart as CLIP's are."""
    generator = torch.Generator().manual_seed(0)
    texts = torch.randn(num_classes, dim, generator=generator) / dim**0.5 + torch.ones(dim) / dim**0.5
    chosen = torch.randint(num_classes, (num_samples,), generator=generator)
    videos = texts[chosen] + torch.randn(num_samples, dim, generator=generator) / dim**0.5
    return normalize(videos, dim=1), normalize(texts, dim=1)


def alternate(rounds: int, sides: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each side; one round runs all of them in turn, after one that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for index in tqdm(range(rounds + 1), desc=" / ".join(sides), leave=False):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            if index:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


@torch.inference_mode()
def head_cost(rounds: int) -> dict[str, float]:
    """Seconds of the fitted head for 8 videos x 8 frames and 101 classes, and of ViT-B/32 for the same frames."""
    config = CLIPVisionConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, patch_size=32
    )
    encoder = CLIPVisionModelWithProjection(config).eval()
    pixels = torch.randn(VIDEOS * FRAMES, 3, 224, 224)
    domain, texts = clustered(2000, CLASSES, DIM)
    head = DKDHead(DKDCLIPConfig(projection_dim=DIM)).fit(domain, texts)
    plain = DKDHead(DKDCLIPConfig(projection_dim=DIM))
    frames = torch.randn(VIDEOS, FRAMES, DIM)
    return alternate(
        rounds,
        {
            "encoder": lambda: encoder(pixels),
            "fitted head": lambda: head(frames, texts),
            "plain head": lambda: plain(frames, texts),
        },
    )


def fit_cost(rounds: int) -> dict[str, float]:
    """Seconds of fitting 10,000 x 512 embeddings with 101 class texts."""
    videos, texts = clustered(FIT_SAMPLES, CLASSES, DIM)
    return alternate(rounds, {"fit": lambda: DKDHead(DKDCLIPConfig(projection_dim=DIM)).fit(videos, texts)})


def em_cost(rounds: int) -> dict[str, float]:
    """Seconds per EM iteration of the plain mixture and of scikit-learn's from the same start."""
    videos, texts = clustered(EM_SAMPLES, EM_COMPONENTS, DIM)
    weights = torch.full((EM_COMPONENTS,), 1 / EM_COMPONENTS)
    spread = videos.var(0, correction=0).expand(EM_COMPONENTS, DIM).clone()

    def ours(dtype: torch.dtype, variance_type: VarianceType) -> Callable[[], object]:
        start = GaussianMixture(weights.to(dtype), texts.to(dtype), spread.to(dtype))
        points = videos.to(dtype)
        return lambda: fit_gaussian_mixture(
            points, initial=start, variance_type=variance_type, num_iterations=EM_ITERATIONS, tolerance=-1.0
        )

    def theirs(dtype: torch.dtype) -> Callable[[], object]:
        points = videos.to(dtype).numpy()
        mixture = SklearnMixture(
            EM_COMPONENTS,
            covariance_type="diag",
            means_init=texts.to(dtype).numpy(),
            weights_init=weights.to(dtype).numpy() / weights.to(dtype).numpy().sum(),
            precisions_init=1 / spread.to(dtype).numpy(),
            max_iter=EM_ITERATIONS,
            tol=0.0,
        )
        return lambda: mixture.fit(points)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        seconds = alternate(
            rounds,
            {
                "scikit-learn diag float64": theirs(torch.float64),
                "scikit-learn diag float32": theirs(torch.float32),
                "ours diagonal float64": ours(torch.float64, "diagonal"),
                "ours diagonal float32": ours(torch.float32, "diagonal"),
                "ours shared float32": ours(torch.float32, "shared"),
            },
        )
    return {name: value / EM_ITERATIONS for name, value in seconds.items()}


def main() -> None:
    """Measure, print, and write the JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="counted rounds of each comparison (default: 9)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    head, fit, em = head_cost(options.rounds), fit_cost(3), em_cost(3)
    print(f"forward, {VIDEOS} videos x {FRAMES} frames, {CLASSES} classes, D = {DIM}")
    for name, seconds in head.items():
        print(f"  {name:28s} {seconds * 1e3:9.2f} ms  {100 * seconds / head['encoder']:7.3f} % of the encoder")
    print(f"fit, {FIT_SAMPLES:,} x {DIM} embeddings, {CLASSES} classes")
    print(f"  {'DKDHead.fit':28s} {fit['fit']:9.2f} s")
    print(f"one EM iteration, {EM_SAMPLES:,} x {DIM}, {EM_COMPONENTS} components")
    reference = em["scikit-learn diag float64"]
    for name, seconds in em.items():
        print(f"  {name:28s} {seconds * 1e3:9.2f} ms  {reference / seconds:7.2f} x scikit-learn in float64")
    if options.json:
        environment = {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "scikit-learn": sklearn.__version__,
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        figures = {"environment": environment, "head_seconds": head, "fit_seconds": fit, "em_iteration_seconds": em}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
