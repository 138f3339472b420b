"""What each part and each constant of DKD is worth: writes docs/ablation.md and docs/ablation.json.

python benchmarks/ablation.py ../shared/data/features      # 25 rows, 5 seeds, each variant; about 15 minutes

The 25 rows are five sets of real CLIP embeddings under five protocols (see `python evaluate.py --help`). Every figure
is the gain in top-1 over plain zero-shot of the same embeddings, in points, mean over the seeds. One default setting
is used for all sets; the constants were chosen on these sets as a whole, which are development data.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from modeling_dkd import class_mixture
from modeling_dkd.data.embedding_cache import EmbeddingSet, read_embeddings, read_with_texts
from modeling_dkd.evaluation.ablations import ABLATIONS, ON_PARTS, ablation, dkd
from modeling_dkd.evaluation.baselines import both_centred, zero_shot
from modeling_dkd.evaluation.measurement import Plan, measure_set
from modeling_dkd.evaluation.protocols import PROTOCOLS, Task
from modeling_dkd.evaluation.report import Line, environment, summarise, write_results


REPOSITORY = Path(__file__).resolve().parents[1]
UCF101 = "ucf101_openai_vitb32_dev.npz"
SETS = {
    "WHU-RS19, RN50": ("whurs19_clip_rn50.npz", None),
    "WHU-RS19, ViT-B/32": ("whurs19_clip_vit-b-32.npz", None),
    "UCF101, 67 classes": (UCF101, "ucf101_object_prompts_vitb32.npz"),
    "UCF101, 101 classes": (UCF101, None),
    "ImageNet, 500 classes": ("imagenet500a_openai_vitb32.npz", None),
}
# A part is taken away by the value of its constant at which it does nothing.
PARTS = {
    "no mixture: debiased texts only": {"TEMPERATURE": 1e9},
    "no debiasing of texts": {"DEBIASED_SHARE": 0.0},
    "no class frequencies": {"FREQUENCY_DAMPING": 0.0},
    "no leave-one-out": {"LEFT_OUT": 0.0},
    "no anchors: own means only": {"KAPPA": 1e-2},
    "no temperature (T = 1)": {"TEMPERATURE": 1.0, "TEMPERATURE_GROWTH": 0.0},
}
CONSTANTS = (
    "KAPPA",
    "TEMPERATURE",
    "TEMPERATURE_GROWTH",
    "DEBIASED_SHARE",
    "SPREAD_PRIOR_SAMPLES",
    "FREQUENCY_VARIANCE",
    "FREQUENCY_PRIOR_CLASSES",
    "FREQUENCY_DAMPING",
    "LEFT_OUT",
    "NUM_ROUNDS",
)

Method = Callable[[Task], Tensor]


@contextmanager
def constants(values: Mapping[str, Any]) -> Iterator[None]:
    """Other constants of the mixture for a while."""
    before = {name: getattr(class_mixture, name) for name in values}
    for name, value in values.items():
        setattr(class_mixture, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(class_mixture, name, value)


def with_constants(values: Mapping[str, Any], task: Task) -> Tensor:
    """DKD with other constants."""
    with constants(values):
        return dkd(task)


def variants() -> dict[str, dict[str, Method]]:
    """Every variant by the section in which it is printed."""
    parts: dict[str, Method] = {"zero-shot": zero_shot, "both centred": both_centred, "DKD": dkd}
    parts |= {f"DKD, {name}": ablation(name) for name in ABLATIONS if name not in ON_PARTS}
    parts |= {f"DKD, {name}": partial(with_constants, values) for name, values in PARTS.items()}
    halved_and_doubled: dict[str, Method] = {"zero-shot": zero_shot, "DKD": dkd}
    for name in CONSTANTS:
        value = getattr(class_mixture, name)
        for factor in (0.5, 2):
            other = max(1, round(value * factor)) if isinstance(value, int) else value * factor
            # A share above 1 would take more than all of the bias.
            other = min(other, 1.0) if name in {"DEBIASED_SHARE", "FREQUENCY_DAMPING", "LEFT_OUT"} else other
            halved_and_doubled[f"{name} {value:g} -> {other:g}"] = partial(with_constants, {name: other})
    on_parts = {"zero-shot": zero_shot, "DKD": dkd} | {f"DKD, {name}": ablation(name) for name in ON_PARTS}
    return {"Parts": parts, "Constants, halved and doubled": halved_and_doubled, "Frames as particles": on_parts}


def table(lines: list[Line]) -> str:
    """Mean gain by protocol, over all rows, and the worst row, as Markdown."""
    methods = list(dict.fromkeys(line.method for line in lines if line.method != "zero-shot"))
    text = f"| variant | {' | '.join(PROTOCOLS)} | mean | worst row |\n|---|{'---:|' * (len(PROTOCOLS) + 1)}---|\n"
    for method in methods:
        rows = [line for line in lines if line.method == method]
        by_protocol = [[100 * line.gain for line in rows if line.protocol == protocol] for protocol in PROTOCOLS]
        worst = min(rows, key=lambda line: line.gain)
        cells = [f"{sum(gains) / len(gains):+.1f}" for gains in by_protocol]
        mean = sum(100 * line.gain for line in rows) / len(rows)
        lowest = f"{100 * worst.gain:+.1f}, {worst.data}, {worst.protocol}"
        text += f"| {method} | {' | '.join(cells)} | {mean:+.2f} | {lowest} |\n"
    return text


def measure(sets: Mapping[str, EmbeddingSet], methods: Mapping[str, Method], num_seeds: int) -> list[Line]:
    """All methods on all rows."""
    plan = Plan(tuple(PROTOCOLS), num_seeds)
    total = len(sets) * plan.num_tasks(False) * len(methods)
    with tqdm(total=total, unit="run") as progress:
        measured = []
        for name, embeddings in sets.items():
            for measurement in measure_set(name, embeddings, methods, plan):
                measured.append(measurement)
                progress.update()
    return summarise(measured)


def main() -> None:
    """Measure everything and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path, help="folder with the five sets")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of each protocol (default: 5)")
    parser.add_argument(
        "--output", type=Path, default=REPOSITORY / "docs/ablation.md", help="(default: docs/ablation.md)"
    )
    options = parser.parse_args()
    torch.manual_seed(0)
    sets = {}
    for name, (videos, texts) in SETS.items():
        path = options.features / videos
        sets[name] = read_embeddings(path) if texts is None else read_with_texts(path, options.features / texts)
    frames = options.features / "ucf101_14_effnetlite0_conse_dev.npz"
    framed = {f"4 frames, {key}": read_embeddings(frames, text_key=key) for key in ("text14", "text101")}
    text = "# Ablation\n\n" + (__doc__ or "").split("\n\n", 2)[2] + "\nWritten by `python benchmarks/ablation.py`.\n"
    lines: dict[str, list[Line]] = {}
    for section, methods in variants().items():
        lines[section] = measure(framed if section == "Frames as particles" else sets, methods, options.seeds)
        text += f"\n## {section}\n\n{table(lines[section])}"
    options.output.write_text(text)
    described = {"environment": environment(sys.argv, [options.features / videos for videos, _ in SETS.values()])}
    # Where the data lie on this machine is nobody's business.
    described["environment"] = {
        k: v for k, v in described["environment"].items() if k in {"commit", "date", "versions"}
    }
    rows = {section: [vars(line) for line in of_section] for section, of_section in lines.items()}
    write_results(options.output.with_suffix(".json"), json.loads(json.dumps(described | {"sections": rows})))
    print(text)


if __name__ == "__main__":
    main()
