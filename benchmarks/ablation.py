"""What each part and each constant of DKD is worth: writes docs/ablation.md and docs/ablation.json.

python benchmarks/ablation.py FEATURES                          # 25 rows, 5 seeds, each variant; 2 hours on one core
python benchmarks/ablation.py FEATURES --sections particles     # one section anew, the others as they stand

The 25 rows are five sets of real CLIP embeddings under five protocols (see `python evaluate.py --help`); the last
section has four sets of clips with one embedding a frame. Every figure is the gain in top-1 over plain zero-shot of
the same embeddings, in points, mean over the seeds. One default setting is used for all sets; the constants were
chosen on the five sets as a whole, which are development data.

`video_only` compares moved videos with plain texts and `text_only` plain videos with moved texts, which is DKD without
SVGD where a clip and a class have one particle each. `unanchored`: no class texts in the mixture; `full_video_step`:
the longest step that support and typicality of a video allow; `one strength for all`: the mean instead of a strength
for each video and each class. Among frames, `averaged_first`: one particle a clip; `kernel_none`: no interaction;
`three_steps`: three steps of SVGD instead of one.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

from modeling_dkd import DKDCLIPConfig, DKDHead, DKDHeadOutput
from modeling_dkd.embedding.clip_encoder import ClipEncoder
from modeling_dkd.embedding.embedding_cache import EmbeddingSet, read_embeddings, read_with_texts, write_embeddings
from modeling_dkd.evaluation.measurement import Measurement, Plan, measure_set
from modeling_dkd.evaluation.methods.ablations import ABLATIONS, ON_PARTS, ablation
from modeling_dkd.evaluation.methods.dkd import dkd, unfitted_head
from modeling_dkd.evaluation.methods.peers import both_centred, zero_shot
from modeling_dkd.evaluation.names import DEFAULT_PROTOCOLS
from modeling_dkd.evaluation.protocols import Method, Task, pool
from modeling_dkd.evaluation.report import Line, environment, paired_gain, summarise
from modeling_dkd.gaussian_mixture import fit_gaussian_mixture
from modeling_dkd.mixture_options import MixtureOptions
from modeling_dkd.svgd import kernel_and_slope, svgd
from modeling_dkd.synthetic.demo import CHECKPOINT, NUM_CLIPS, VIEWS, embed_target


REPOSITORY = Path(__file__).resolve().parents[1]
UCF101 = "ucf101_openai_vitb32_dev.npz"
WHURS19 = {"video_embeds": "image_f", "text_embeds": "text_avg"}
FRAMES = {"video_embeds": "val_f", "labels": "val_l"}
PROMPTS = "ucf101_object_prompts_vitb32.npz"  # class texts of the third set
# Files and what their arrays are called.
SETS = {
    "WHU-RS19, RN50": ("whurs19_clip_rn50.npz", WHURS19),
    "WHU-RS19, ViT-B/32": ("whurs19_clip_vit-b-32.npz", WHURS19),
    "UCF101, 67 classes": (UCF101, FRAMES),
    "UCF101, 101 classes": (UCF101, FRAMES | {"text_embeds": "text_mapped_from_minilm"}),
    "ImageNet, 500 classes": ("imagenet500a_openai_vitb32.npz", {"video_embeds": "image_f", "text_embeds": "text"}),
}
# A part is taken away by the value of its constant at which it does nothing.
PARTS: dict[str, dict[str, Any]] = {
    "no mixture: debiased texts only": {"temperature": 1e9},
    "no debiasing of texts": {"debiased_share": 0.0},
    "no class frequencies": {"frequency_variance": 1e-9},
    "no anchors: own means only": {"anchor_samples": 1e-2, "doubtful_size": 0.0},
    "no doubt about small classes": {"doubtful_size": 0.0},
    "T = 1 with plenty of samples": {"temperature": 1.0},
    "diagonal covariance": {"unlabelled_covariance_share": 0.0},
    "the samples' own covariance": {"unlabelled_covariance_share": 1.0},
}
# Of the constants, those that act where nothing is labelled, no class is new and no prediction is left to confidence.
CONSTANTS = (
    "anchor_samples",
    "doubtful_size",
    "doubtful_power",
    "temperature",
    "shared_classes",
    "unlabelled_covariance_share",
    "equal_variance_share",
    "debiased_share",
    "frequency_variance",
    "num_rounds",
)

# Frame by frame: real clips with a weak encoder (EfficientNet-Lite0 and MiniLM), 14 or 101 classes asked, and
# generated clips of these domains with dkd-tiny.
REAL_FRAMES = "ucf101_14_effnetlite0_conse_dev.npz"
# Class texts and the labels that go with them.
CLASS_TEXTS = {"text14": "labels", "text101": "labels101"}
GENERATED = ("source", "combined")
PARTICLE_ABLATIONS = (*ON_PARTS, "three_steps")
TITLES = {
    "parts": "Parts",
    "constants": "Constants, halved and doubled",
    "particles": "Frames as particles, 4 frames a clip",
}


class OneStrength(DKDHead):
    """What is the mean strength of all videos moves each of them, and likewise texts."""

    def _svgd(self, particles: Tensor, targets: Tensor, strength: Tensor) -> Tensor:
        return super()._svgd(particles, targets, strength.mean().expand_as(strength))


class WithoutPreconditioner(DKDHead):
    """The same step toward the same target, but distances between particles not whitened."""

    def _svgd(self, particles: Tensor, targets: Tensor, strength: Tensor) -> Tensor:
        return svgd(particles, lambda points: targets[:, None] - points, 1, strength[:, None, None])


def with_options(values: Mapping[str, Any], task: Task) -> DKDHeadOutput:
    """DKD with other constants."""
    return dkd(task, mixture_options=replace(MixtureOptions(), **values))


def with_head(make: Callable[[DKDCLIPConfig], DKDHead], task: Task) -> DKDHeadOutput:
    """DKD by another head."""
    head = make(unfitted_head(task).config).eval().fit(task.domain, task.text, labels=task.domain_labels)
    return head(task.test, task.text)


def scaled_kernel(factor: float, distances: Tensor, bandwidth: Tensor | float) -> tuple[Tensor, Tensor]:
    """The rbf kernel with the median rule times a factor as bandwidth."""
    return kernel_and_slope(distances, "rbf", factor * bandwidth)


def unanchored_moved(task: Task) -> Tensor:
    """Videos moved with strength 0.2 toward a mixture that does not know the classes."""
    mixture, _ = fit_gaussian_mixture(pool(task.domain), min(len(task.text), max(1, len(task.domain) // 8)))
    videos = pool(task.test)
    moved = normalize(0.8 * videos + 0.2 * mixture.responsibilities(videos) @ mixture.means, dim=1)
    return task.logit_scale * moved @ pool(task.text).T


def parts() -> dict[str, Method]:
    """Parts taken away."""
    methods: dict[str, Method] = {"zero-shot": zero_shot, "both centred": both_centred, "DKD": dkd}
    names = [name for name in ABLATIONS if name not in PARTICLE_ABLATIONS]
    methods |= {f"DKD, {name}": ablation(name) for name in names}
    methods |= {f"DKD, {name}": partial(with_options, values) for name, values in PARTS.items()}
    methods |= {"DKD, one strength for all": partial(with_head, OneStrength)}
    return methods | {"videos moved toward an unanchored mixture": unanchored_moved}


def halved_and_doubled() -> dict[str, Method]:
    """The constants in `CONSTANTS`."""
    methods: dict[str, Method] = {"zero-shot": zero_shot, "DKD": dkd}
    for name in CONSTANTS:
        value = getattr(MixtureOptions(), name)
        for factor in (0.5, 2):
            other = max(1, round(value * factor)) if isinstance(value, int) else value * factor
            # More than all of the bias there is not.
            other = min(other, 1.0) if name == "debiased_share" else other
            methods[f"{name} {value:g} -> {other:g}"] = partial(with_options, {name: other})
    return methods


def particles() -> dict[str, Method]:
    """How frames act on each other."""
    methods: dict[str, Method] = {"zero-shot": zero_shot, "DKD": dkd}
    methods |= {f"DKD, {name}": ablation(name) for name in PARTICLE_ABLATIONS}
    methods |= {"DKD, no preconditioner": partial(with_head, WithoutPreconditioner)}
    for factor in (0.1, 10.0):
        make = partial(DKDHead, svgd_kernel=partial(scaled_kernel, factor))
        methods[f"DKD, bandwidth x {factor:g}"] = partial(with_head, make)
    return methods


class Gain(NamedTuple):
    """What a variant gained over zero-shot on one row, as a fraction."""

    method: str
    protocol: str
    data: str
    gain: float


def gains_of(lines: Sequence[Line]) -> dict[str, dict[str, dict[str, float]]]:
    """Variant -> protocol -> set -> gain: what docs/ablation.json keeps of the rows."""
    gains: dict[str, dict[str, dict[str, float]]] = {}
    for line in lines:
        if line.method != "zero-shot":
            gains.setdefault(line.method, {}).setdefault(line.protocol, {})[line.data] = round(line.gain, 6)
    return gains


def rows_of(gains: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[Gain]:
    """The same as a list."""
    return [
        Gain(method, protocol, data, gain)
        for method, by_protocol in gains.items()
        for protocol, by_data in by_protocol.items()
        for data, gain in by_data.items()
    ]


def as_json(sections: Mapping[str, Any]) -> str:
    """Text of docs/ablation.json, a line for each variant."""
    texts = []
    for name, section in sections.items():
        kept = {key: value for key, value in section.items() if key != "gains"}
        variants = ",\n".join(f"{json.dumps(method)}: {json.dumps(row)}" for method, row in section["gains"].items())
        texts.append(f'{json.dumps(name)}: {json.dumps(kept)[:-1]}, "gains": {{\n{variants}\n}}}}')
    return '{"sections": {\n' + ",\n".join(texts) + "\n}}\n"


def table(lines: list[Gain]) -> str:
    """Mean gain by protocol, over all rows, and the worst row, as Markdown."""
    methods = list(dict.fromkeys(line.method for line in lines))
    text = f"| variant | {' | '.join(DEFAULT_PROTOCOLS)} | mean | worst row |\n"
    text += f"|---|{'---:|' * (len(DEFAULT_PROTOCOLS) + 1)}---|\n"
    for method in methods:
        rows = [line for line in lines if line.method == method]
        by_protocol = [
            [100 * line.gain for line in rows if line.protocol == protocol] for protocol in DEFAULT_PROTOCOLS
        ]
        worst = min(rows, key=lambda line: line.gain)
        cells = [f"{sum(gains) / len(gains):+.1f}" for gains in by_protocol]
        mean = mean_gain(lines, method)
        lowest = f"{100 * worst.gain:+.1f}, {worst.data}, {worst.protocol}"
        text += f"| {method} | {' | '.join(cells)} | {mean:+.2f} | {lowest} |\n"
    return text


def mean_gain(lines: list[Gain], method: str) -> float:
    """Of a method over its rows, points."""
    gains = [100 * line.gain for line in lines if line.method == method]
    return sum(gains) / len(gains)


def sensitive(lines: list[Gain], limit: float = 1.0) -> str:
    """The variants whose mean is more than `limit` points from DKD's, in words."""
    methods = [line.method for line in lines if line.method != "DKD"]
    changes = {method: mean_gain(lines, method) - mean_gain(lines, "DKD") for method in methods}
    beyond = [f"{method} ({change:+.2f})" for method, change in changes.items() if abs(change) > limit]
    return f"Means that differ from DKD's by more than {limit:g} point: {', '.join(beyond) or 'none'}."


def framed_sets(features: Path, cache_dir: Path) -> dict[str, EmbeddingSet]:
    """Sets with one embedding a frame; generated clips are written and embedded where the cache lacks them."""
    sets = {
        f"4 frames, {texts}": read_embeddings(
            features / REAL_FRAMES, video_embeds="conse", text_embeds=texts, labels=labels
        )
        for texts, labels in CLASS_TEXTS.items()
    }
    for domain in GENERATED:
        cache = cache_dir / f"dkd-tiny-{domain}-{NUM_CLIPS}.safetensors"
        if not cache.is_file():
            encoder = ClipEncoder.load(str(CHECKPOINT), VIEWS, None, torch.float32, torch.device("cpu"))
            with tqdm(total=NUM_CLIPS, unit="clip", desc=domain) as progress:
                write_embeddings(cache, embed_target(encoder, domain, cache_dir / domain, NUM_CLIPS, progress))
        sets[f"generated, {domain}"] = read_embeddings(cache)
    return sets


def against_averaging(measured: list[Measurement]) -> list[dict[str, Any]]:
    """By set and protocol: top-1 with frames as particles minus that with frames averaged first, paired."""
    rows: dict[tuple[str, str], dict[str, list[Measurement]]] = {}
    for m in measured:
        place = m.row["data"]["name"], m.row["protocol"]
        rows.setdefault(place, {}).setdefault(m.row["method"], []).append(m)
    compared = []
    for (name, protocol), by_method in rows.items():
        pairs = list(zip(by_method["DKD"], by_method["DKD, averaged_first"], strict=True))
        gain, error = paired_gain([a.hits - b.hits for a, b in pairs], [a.clips for a, _ in pairs])
        compared.append({"data": name, "protocol": protocol, "gain": gain, "gain_error": error})
    return compared


def averaging_table(compared: list[dict[str, Any]]) -> str:
    """The comparison with averaging as Markdown."""
    text = "\nTop-1 with frames as particles minus top-1 with frames averaged first, in points, ± standard error:\n\n"
    text += f"| set | {' | '.join(DEFAULT_PROTOCOLS)} | mean |\n|---|{'---:|' * (len(DEFAULT_PROTOCOLS) + 1)}\n"
    for name in dict.fromkeys(row["data"] for row in compared):
        rows = [row for row in compared if row["data"] == name]
        cells = [f"{100 * row['gain']:+.2f} ± {100 * row['gain_error']:.2f}" for row in rows]
        mean = 100 * sum(row["gain"] for row in rows) / len(rows)
        text += f"| {name} | {' | '.join(cells)} | {mean:+.2f} |\n"
    return text


def measure(sets: Mapping[str, EmbeddingSet], methods: Mapping[str, Method], num_seeds: int) -> list[Measurement]:
    """All methods on all rows."""
    plan = Plan(DEFAULT_PROTOCOLS, num_seeds)
    total = len(sets) * plan.num_tasks(False) * len(methods)
    with tqdm(total=total, unit="run") as progress:
        measured = []
        for name, embeddings in sets.items():
            for measurement in measure_set(name, embeddings, methods, plan):
                measured.append(measurement)
                progress.update()
    return measured


def markdown(sections: Mapping[str, Any]) -> str:
    """The whole document."""
    text = "# Ablation\n\n" + (__doc__ or "").split("\n\n", 2)[2]
    text += "\nWritten by `python benchmarks/ablation.py FEATURES`; docs/ablation.json has the gain of every row.\n"
    for section, title in TITLES.items():
        lines = rows_of(sections[section]["gains"])
        made_with = sections[section]["environment"]
        text += f"\n## {title}, {sections[section]['num_seeds']} seeds\n\n"
        text += f"Measured {made_with['date'][:10]} at commit {made_with['commit'][:7]}.\n\n{table(lines)}"
        text += f"\n{sensitive(lines)}\n" if section == "constants" else ""
    return text + averaging_table(sections["particles"]["against_averaging"])


def main() -> None:
    """Measure everything and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path, help="folder with the five sets")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of each protocol (default: 5)")
    parser.add_argument("--sections", nargs="+", choices=TITLES, default=list(TITLES), help="(default: all)")
    parser.add_argument(
        "--cache_dir", type=Path, default=Path("runs/ablation"), help="generated clips (default: %(default)s)"
    )
    parser.add_argument(
        "--output", type=Path, default=REPOSITORY / "docs/ablation.md", help="(default: docs/ablation.md)"
    )
    options = parser.parse_args()
    torch.manual_seed(0)
    sets = {}
    for name, (videos, arrays) in SETS.items():
        path = options.features / videos
        if "text_embeds" in arrays:
            sets[name] = read_embeddings(path, **arrays)
        else:
            sets[name] = read_with_texts(path, options.features / PROMPTS, arrays, {"text_embeds": "text"})
    figures = options.output.with_suffix(".json")
    sections: dict[str, Any] = json.loads(figures.read_text())["sections"] if figures.is_file() else {}
    described = environment(sys.argv, [options.features / videos for videos, _ in SETS.values()])
    for section, methods in {"parts": parts, "constants": halved_and_doubled, "particles": particles}.items():
        if section in options.sections:
            by_frame = section == "particles"
            chosen = framed_sets(options.features, options.cache_dir) if by_frame else sets
            measured = measure(chosen, methods(), options.seeds)
            # Where the data lie on this machine is nobody's business.
            made_with = {key: described[key] for key in ("commit", "date", "versions")}
            sections[section] = {"environment": made_with, "num_seeds": options.seeds}
            if by_frame:
                sections[section]["against_averaging"] = against_averaging(measured)
            sections[section]["gains"] = gains_of(summarise(measured))
    figures.write_text(as_json(sections), encoding="utf-8")
    text = markdown(sections)
    options.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
