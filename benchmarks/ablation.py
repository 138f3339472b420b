"""What each part and each constant of DKD is worth: writes docs/ablation.md and docs/ablation.json.

python -m benchmarks.ablation FEATURES                          # every section, 5 seeds; hours on one core
python -m benchmarks.ablation FEATURES --sections particles     # one section anew, the others as they stand

The 25 rows are five sets of real CLIP embeddings under five protocols (see `python evaluate.py --help`). Every figure
is a difference to plain zero-shot of the same embeddings, in points, mean over the seeds. One default setting is used
for all sets; the constants were chosen on these sets as a whole, which are development data. All constants of
`MixtureOptions` are here, each on the rows where it acts.

`video_only` compares moved videos with plain texts and `text_only` plain videos with moved texts, which is DKD without
SVGD where a clip and a class have one particle each. `unanchored`: no class texts in the mixture; `full_video_step`:
the longest step that support and typicality of a video allow; `one strength for all`: the mean instead of a strength
for each video and each class. Among frames, `averaged_first`: one particle a clip; `kernel_none`: no interaction;
`three_steps`: three steps of SVGD instead of one.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

from benchmarks.ablation_page import SECTIONS, Changes, as_json, changes_of, markdown
from modeling_dkd import DKDCLIPConfig, DKDHead, DKDHeadOutput
from modeling_dkd.embedding.clip_encoder import ClipEncoder
from modeling_dkd.embedding.embedded_checkpoint import CHECKPOINT
from modeling_dkd.embedding.embedding_cache import EmbeddingSet, read_embeddings, read_with_texts, write_embeddings
from modeling_dkd.evaluation.measurement import Measurement, Plan, measure_set
from modeling_dkd.evaluation.methods.ablations import ABLATIONS, ON_PARTS, ablation
from modeling_dkd.evaluation.methods.dkd import dkd, unfitted_head
from modeling_dkd.evaluation.methods.peers import both_centred, zero_shot
from modeling_dkd.evaluation.names import DEFAULT_PROTOCOLS, REFERENCE
from modeling_dkd.evaluation.protocols import Method, Task, compared, pool
from modeling_dkd.evaluation.ranking import search_scores
from modeling_dkd.evaluation.report import Line, environment, paired_gain, summarise
from modeling_dkd.gaussian_mixture import fit_gaussian_mixture
from modeling_dkd.mixture_options import MixtureOptions
from modeling_dkd.svgd import kernel_and_slope, svgd
from modeling_dkd.synthetic.clips import generate_clips
from modeling_dkd.synthetic.demo import CLIP_SEED, NUM_CLIPS, VIEWS, embed_target


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
# Every constant, by the section that shows what it does.
CONSTANTS = {
    "constants": (
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
    ),
    "trust": ("text_trusts", "trust_loss", "sample_size"),
    "confidence": ("overconfidence", "expected_gain"),
    "labels": ("labelled_samples", "labelled_weight"),
    "new_classes": ("new_class_anchor", "new_class_log_prior"),
}
# What else than half and double is tried.
OTHER_TRUSTS: tuple[tuple[float, ...], ...] = ((), (0.2,), (0.05,), (0.5, 0.2, 0.1, 0.05))
SHOTS = (2, 8)

REAL_CLIPS = {"UCF101": "ucf101_14_movinet_conse.npz", "HMDB51": "jhmdb21_movinet_conse.npz"}
# Frame by frame: real clips with a weak encoder (EfficientNet-Lite0 and MiniLM), 14 or 101 classes asked, and
# generated clips of these domains with dkd-tiny.
REAL_FRAMES = "ucf101_14_effnetlite0_conse_dev.npz"
# Class texts and the labels that go with them.
CLASS_TEXTS = {"text14": "labels", "text101": "labels101"}
GENERATED = ("source", "combined")
PARTICLE_ABLATIONS = (*ON_PARTS, "three_steps")


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
    methods: dict[str, Method] = {REFERENCE: zero_shot, "both centred": both_centred, "DKD": dkd}
    names = [name for name in ABLATIONS if name not in PARTICLE_ABLATIONS]
    methods |= {f"DKD, {name}": ablation(name) for name in names}
    methods |= {f"DKD, {name}": partial(with_options, values) for name, values in PARTS.items()}
    methods |= {"DKD, one strength for all": partial(with_head, OneStrength)}
    return methods | {"videos moved toward an unanchored mixture": unanchored_moved}


def other_constants(section: str) -> dict[str, Mapping[str, Any]]:
    """Variant -> options: the constants of a section at half and double, and DKD as it is."""
    variants: dict[str, Mapping[str, Any]] = {"DKD": {}}
    for name in CONSTANTS[section]:
        value = getattr(MixtureOptions(), name)
        if name == "text_trusts":
            variants |= {f"text_trusts {value} -> {other}": {name: other} for other in OTHER_TRUSTS}
            continue
        for factor in (0.5, 2):
            other = max(1, round(value * factor)) if isinstance(value, int) else value * factor
            # A share is at most all there is.
            other = min(other, 1.0) if name in ("debiased_share", "expected_gain", "new_class_anchor") else other
            variants[f"{name} {value:g} -> {other:g}"] = {name: other}
    return variants


def with_constants(section: str) -> dict[str, Method]:
    """The same as methods, with what they are compared with."""
    variants = {name: partial(with_options, values) for name, values in other_constants(section).items()}
    return {REFERENCE: zero_shot, **variants}


def particles() -> dict[str, Method]:
    """How frames act on each other."""
    methods: dict[str, Method] = {REFERENCE: zero_shot, "DKD": dkd}
    methods |= {f"DKD, {name}": ablation(name) for name in PARTICLE_ABLATIONS}
    methods |= {"DKD, no preconditioner": partial(with_head, WithoutPreconditioner)}
    for factor in (0.1, 10.0):
        make = partial(DKDHead, svgd_kernel=partial(scaled_kernel, factor))
        methods[f"DKD, bandwidth x {factor:g}"] = partial(with_head, make)
    return methods


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
            clips = generate_clips(cache_dir / domain, domain, NUM_CLIPS, CLIP_SEED)
            with tqdm(total=NUM_CLIPS, unit="clip", desc=domain) as progress:
                write_embeddings(cache, embed_target(encoder, domain, clips, progress))
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


def measure(
    sets: Mapping[str, EmbeddingSet],
    methods: Mapping[str, Method],
    plan: Plan,
    domain_set: EmbeddingSet | None = None,
) -> list[Measurement]:
    """All methods on all rows."""
    total = len(sets) * plan.num_tasks(domain_set is not None) * len(methods)
    with tqdm(total=total, unit="run") as progress:
        measured = []
        for name, embeddings in sets.items():
            for measurement in measure_set(name, embeddings, methods, plan, domain_set):
                measured.append(measurement)
                progress.update()
    return measured


def labelled_lines(features: Path, num_seeds: int) -> list[Line]:
    """A domain of UCF101 of which some clips of each class are labelled."""
    texts = {"text_embeds": "text_mapped_from_minilm"}
    test_set = read_embeddings(features / UCF101, **FRAMES, **texts)
    domain_set = read_embeddings(features / UCF101, video_embeds="train16_f", labels="train16_l", **texts)
    lines = []
    for shots in SHOTS:
        plan = Plan((), num_seeds, shots)
        measured = measure({"UCF101": test_set}, with_constants("labels"), plan, domain_set)
        lines += [replace(line, protocol=f"{shots} labels") for line in summarise(measured)]
    return lines


@torch.no_grad()
def new_class_changes(sets: Mapping[str, EmbeddingSet]) -> Changes:
    """Gains of heads that are fitted to every other class and asked for all."""
    changes: Changes = {}
    variants = other_constants("new_classes")
    for name, values in tqdm(variants.items(), unit="variant"):
        for data, embeddings in sets.items():
            assert embeddings.text_embeds is not None
            videos, texts, labels = pool(embeddings.video_embeds), pool(embeddings.text_embeds), embeddings.labels
            fitted, new = torch.arange(0, len(texts), 2), torch.arange(1, len(texts), 2)
            scale = float(embeddings.metadata.get("logit_scale", 100.0))
            task = Task(videos, videos, texts[fitted], logit_scale=scale, queries=texts)
            found = _new_class_figures(with_options(values, task), labels, new)
            plain = _new_class_figures(compared(task, videos, texts), labels, new)
            for figure, value in found.items():
                changes.setdefault(name, {}).setdefault(figure, {})[data] = round(value - plain[figure], 6)
    return changes


def _new_class_figures(output: DKDHeadOutput, labels: Tensor, new: Tensor) -> dict[str, float]:
    """Top-1 among all classes and of clips of the new ones among these, and what their texts find, as fractions."""
    videos, texts, logits = output.video_embeds, output.text_embeds, output.logits_per_video
    assert videos is not None
    assert texts is not None
    assert logits is not None
    is_new = torch.isin(labels, new)
    among_new = new[logits[is_new][:, new].argmax(1)]
    return {
        "all": float((logits.argmax(1) == labels).double().mean()),
        "new among new": float((among_new == labels[is_new]).double().mean()),
        "search, new": search_scores(videos @ texts[new].T, labels, new)["map"],
    }


def development_sets(features: Path) -> dict[str, EmbeddingSet]:
    """The five sets of the 25 rows."""
    sets = {}
    for name, (videos, arrays) in SETS.items():
        with_texts = (features / PROMPTS, arrays, {"text_embeds": "text"})
        has_texts = "text_embeds" in arrays
        path = features / videos
        sets[name] = read_embeddings(path, **arrays) if has_texts else read_with_texts(path, *with_texts)
    return sets


def real_clips(features: Path) -> dict[str, EmbeddingSet]:
    """The four sets of the 20 rows: two encoders' domains, own classes or all of the data set's asked."""
    asked = {"own": "text_embeds=text", "all": "text_embeds=text_all,class_names=classnames_all,text_rows=class_id"}
    return {
        f"{name}, {classes} classes": read_embeddings(
            features / file, video_embeds="clip_f", **dict(pair.split("=") for pair in arrays.split(","))
        )
        for name, file in REAL_CLIPS.items()
        for classes, arrays in asked.items()
    }


def measured_section(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """What docs/ablation.json keeps of one section."""
    features, plan = options.features, Plan(DEFAULT_PROTOCOLS, options.seeds)
    kept: dict[str, Any] = {"num_seeds": options.seeds}
    if name == "new_classes":
        # All clips are fitted: there is nothing to draw.
        return {"num_seeds": 1, "changes": new_class_changes(development_sets(features))}
    if name == "labels":
        lines = labelled_lines(features, options.seeds)
    elif name == "particles":
        measured = measure(framed_sets(features, options.cache_dir), particles(), plan)
        lines, kept["against_averaging"] = summarise(measured), against_averaging(measured)
    else:
        sets = real_clips(features) if name == "trust" else development_sets(features)
        lines = summarise(measure(sets, parts() if name == "parts" else with_constants(name), plan))
    return kept | {"changes": changes_of(lines, SECTIONS[name].figure)}


def main() -> None:
    """Measure everything and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path, help="folder with the sets")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of each protocol (default: 5)")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="(default: all)")
    parser.add_argument(
        "--cache_dir", type=Path, default=Path("runs/ablation"), help="generated clips (default: %(default)s)"
    )
    parser.add_argument(
        "--output", type=Path, default=REPOSITORY / "docs/ablation.md", help="(default: docs/ablation.md)"
    )
    options = parser.parse_args()
    torch.manual_seed(0)
    figures = options.output.with_suffix(".json")
    sections: dict[str, Any] = json.loads(figures.read_text())["sections"] if figures.is_file() else {}
    described = environment(sys.argv, [options.features / videos for videos, _ in SETS.values()])
    # Where the data lie on this machine is nobody's business.
    made_with = {key: described[key] for key in ("commit", "date", "versions")}
    for name in options.sections:
        sections[name] = {"environment": made_with} | measured_section(name, options)
        figures.write_text(as_json(sections), encoding="utf-8")
        options.output.write_text(markdown((__doc__ or "").split("\n\n", 2)[2], sections))


if __name__ == "__main__":
    main()
