"""Does DKD lean on the background? Writes docs/background_bias.md and docs/background_bias.json.

    python benchmarks/background_bias.py                                       # generated clips alone, some minutes
    python benchmarks/background_bias.py --data_dir UCF-101 --annotations ucfTrainTestlist
    python benchmarks/background_bias.py --data_dir UCF-101 --model openai/clip-vit-base-patch16

Clips are embedded as they are and with their background replaced (replaced_backgrounds.py), once: the embeddings stay
in --cache_dir, and a second run only fits and tests. Real clips need an encoder that knows real images: --model names
a dual encoder, without it conse_encoder.py is used, whose packages are no dependency of this project.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from replaced_backgrounds import CheckpointEncoder, Pair, embed_generated, embed_real, few_of_each_group
from torch import Tensor
from tqdm import tqdm

from modeling_dkd.data.official_index import ucf101_index
from modeling_dkd.embedding.embedded_checkpoint import CHECKPOINT
from modeling_dkd.embedding.embedding_cache import EmbeddingSet, read_embeddings, write_embeddings
from modeling_dkd.evaluation.methods.dkd import dkd
from modeling_dkd.evaluation.methods.peers import both_centred, zero_shot
from modeling_dkd.evaluation.protocols import Method, Task, logits_of
from modeling_dkd.evaluation.report import environment, paired_gain, write_results


REPOSITORY = Path(__file__).resolve().parents[1]
GENERATED = ("source", "combined")
TEMPLATES = (
    "a video of a person doing {}.",
    "a video of a person practicing {}.",
    "a video of {}.",
    "a photo of a person doing {}.",
    "a person is doing {}.",
)
GENERATED_CLIPS = 1000
METHODS: dict[str, Method] = {"zero-shot": zero_shot, "both_centred": both_centred, "dkd": dkd}
DOMAIN_CLIPS = {
    "original": "unreplaced clips",
    "replaced": "replaced clips",
}


NOTE = """\
Clips are tested as they are and with their background replaced: real ones keep what moves and get the blurred scene
of a clip of another class, generated ones are drawn over the scene of a clip of another action. A random half of the
source videos, unlabelled, is the domain that a method is fitted on, the clips of the other half are the test; mean
over the seeds. The loss is top-1 on unreplaced clips, fitted on unreplaced ones, minus top-1 on replaced clips,
fitted on either, in points; beyond zero-shot's: minus the loss of plain zero-shot on the same clips. Standard errors
are those of paired differences, source videos as the independent units. Drawn to the scene: how many more clips, in
points, are read as the class that the new scene comes from.

Written by `python benchmarks/background_bias.py`; background_bias.json has the unrounded figures.
"""


@dataclass(frozen=True)
class Loss:
    """What a replaced background costs one method; accuracies and differences as fractions.

    Attributes:
        data: The clips and the classes that were asked.
        domain: Which version of the domain clips the method was fitted on before it was tested on replaced clips.
        method: A key of `METHODS`.
        num_seeds: Divisions of the groups of clips into domain and test.
        num_test: Test clips of a division, mean.
        original: Top-1 on unreplaced clips, fitted on unreplaced ones.
        replaced: Top-1 on replaced clips, fitted as `domain` says.
        loss: `original` - `replaced`; `loss_error` its standard error, groups of clips as the independent units.
        excess: The loss minus that of plain zero-shot on the same clips; `excess_error` its standard error.
        drawn: Share of the clips that are read as the class that the other scene comes from, after the replacement
            minus before.
    """

    data: str
    domain: str
    method: str
    num_seeds: int
    num_test: float
    original: float
    replaced: float
    loss: float
    loss_error: float
    excess: float
    excess_error: float
    drawn: float


def divide(groups: Sequence[str], seed: int) -> tuple[Tensor, Tensor]:
    """Clips (n,) int64 of a random half of the groups, and of the other half."""
    names = sorted(set(groups))
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    first = {names[i] for i in order[: len(names) // 2]}
    inside = torch.tensor([group in first for group in groups])
    return inside.nonzero()[:, 0], (~inside).nonzero()[:, 0]


def measure(name: str, pair: Pair, num_seeds: int) -> list[Loss]:
    """All methods on one set of clips, fitted on unreplaced and on replaced domain clips."""
    known = pair.original.metadata
    groups, labels, donors = known["groups"], pair.original.labels, torch.tensor(known["donors"])
    group_of = torch.tensor([sorted(set(groups)).index(group) for group in groups])
    divisions = [divide(groups, seed) for seed in range(num_seeds)]
    tests = [test for _, test in divisions]

    def predictions(method: Method, fitted_on: EmbeddingSet, tested_on: EmbeddingSet) -> list[Tensor]:
        texts, scale = tested_on.text_embeds, known["logit_scale"]
        assert texts is not None
        with torch.no_grad():
            tasks = [
                Task(fitted_on.video_embeds[domain], tested_on.video_embeds[test], texts, None, scale)
                for domain, test in divisions
            ]
            return [logits_of(method(task)).argmax(1) for task in tasks]

    def error_of(differences: list[Tensor]) -> tuple[float, float]:
        return paired_gain(differences, [group_of[test] for test in tests])

    losses: list[Loss] = []
    reference: dict[str, list[Tensor]] = {}
    for method_name, method in tqdm(METHODS.items(), desc=name, unit="method"):
        before = predictions(method, pair.original, pair.original)
        for domain in DOMAIN_CLIPS:
            after = predictions(method, getattr(pair, domain), pair.replaced)
            both = list(zip(before, after, tests, strict=True))
            hits = [
                [(p == labels[test]).double() for p, test in zip(read, tests, strict=True)] for read in (before, after)
            ]
            lost = [a - b for a, b in zip(*hits, strict=True)]
            reference.setdefault(domain, lost)  # plain zero-shot comes first
            loss, loss_error = error_of(lost)
            excess, excess_error = error_of([a - b for a, b in zip(lost, reference[domain], strict=True)])
            drawn = [((b == donors[t]).double() - (a == donors[t]).double()).mean() for a, b, t in both]
            original, replaced = (float(torch.stack([h.mean() for h in of_version]).mean()) for of_version in hits)
            num_test = sum(len(test) for test in tests) / num_seeds
            toward_donor = float(torch.stack(drawn).mean())
            size = (num_seeds, num_test)
            figures = (original, replaced, loss, loss_error, excess, excess_error, toward_donor)
            losses.append(Loss(name, domain, method_name, *size, *figures))
    return losses


def table(losses: Sequence[Loss]) -> str:
    """One line a method, figures in percent and points."""
    lines = [
        "| clips | domain | method | original | replaced | loss ± SE | beyond zero-shot's ± SE | drawn to the scene |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for line in losses:
        excess = "" if line.method == "zero-shot" else f"{100 * line.excess:+.1f} ± {100 * line.excess_error:.1f}"
        lines.append(
            f"| {line.data}, N = {line.num_test:.0f} | {DOMAIN_CLIPS[line.domain]} | {line.method} "
            f"| {100 * line.original:.1f} | {100 * line.replaced:.1f} | {100 * line.loss:+.1f} ± "
            f"{100 * line.loss_error:.1f} | {excess} | {100 * line.drawn:+.1f} |"
        )
    return "\n".join(lines)


def verdict(losses: Sequence[Loss]) -> str:
    """In how many rows DKD loses no more than plain zero-shot, by the figure alone and beyond two standard errors."""
    own = [line for line in losses if line.method == "dkd"]
    more = [line for line in own if line.excess > 0]
    clear = [line for line in more if line.excess > 2 * line.excess_error]
    return (
        f"DKD loses no more than plain zero-shot in {len(own) - len(more)} of {len(own)} rows, more in {len(more)}, "
        f"of which {len(clear)} are beyond two standard errors."
    )


def with_classes(pair: Pair, kept: list[int]) -> Pair:
    """The same clips with the texts of some classes alone, which must be all that occur."""
    new = {old: position for position, old in enumerate(kept)}

    def fewer(part: EmbeddingSet) -> EmbeddingSet:
        assert part.text_embeds is not None
        names = [part.class_names[k] for k in kept]
        donors = [new[k] for k in part.metadata["donors"]]
        labels = torch.tensor([new[k] for k in part.labels.tolist()])
        metadata = part.metadata | {"class_names": names, "donors": donors}
        return EmbeddingSet(part.video_embeds, labels, part.text_embeds[kept], metadata)

    return Pair(*(fewer(part) for part in pair))


def cached(folder: Path, name: str, embed: Callable[[], Pair]) -> Pair:
    """Both sets from the cache folder, embedded and written there if they are not there yet."""
    paths = [folder / f"{name}-{version}.safetensors" for version in Pair._fields]
    if not all(path.is_file() for path in paths):
        for path, part in zip(paths, embed(), strict=True):
            write_embeddings(path, part)
    return Pair(*(read_embeddings(path) for path in paths))


def generated(cache_dir: Path, num_clips: int) -> dict[str, Pair]:
    """Generated clips of every domain, embedded with dkd-tiny."""

    def embed(domain: str) -> Pair:
        return embed_generated(domain, num_clips, CheckpointEncoder(str(CHECKPOINT)))

    return {
        f"generated, {domain}": cached(
            cache_dir,
            f"dkd-tiny-{domain}-{num_clips}",
            partial(embed, domain),
        )
        for domain in GENERATED
    }


def real(options: argparse.Namespace) -> dict[str, Pair]:
    """Real clips of UCF101: with the classes that occur, and with all 101 where not all do."""
    index = ucf101_index(options.data_dir, options.annotations or options.data_dir, 1, allow_missing=True)
    index = few_of_each_group(index.require_complete(allow_missing=True), options.clips_per_group)

    def embed() -> Pair:
        if options.model is None:
            from conse_encoder import ConseEncoder

            return embed_real(index, ConseEncoder(), TEMPLATES)
        return embed_real(index, CheckpointEncoder(options.model), TEMPLATES)

    model = re.sub(r"[^\w.-]+", "--", options.model or "conse")
    everything = cached(options.cache_dir, f"{model}-ucf101-{len(index.records)}", embed)
    present = everything.original.labels.unique().tolist()
    backbone = everything.original.metadata["backbone"]
    sets = {f"UCF101, {backbone}, {len(present)} classes": with_classes(everything, present)}
    if len(present) < len(index.class_names):
        sets[f"the same, {len(index.class_names)} classes asked"] = everything
    return sets


def main() -> int:
    """Embed what is not embedded yet, measure, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data_dir", metavar="DIR", help="UCF101's videos, or some of them (default: generated clips alone)"
    )
    parser.add_argument("--annotations", metavar="DIR", help="its split lists (default: in --data_dir)")
    parser.add_argument("--model", metavar="NAME", help="dual encoder for the real clips (default: conse_encoder.py)")
    parser.add_argument("--clips_per_group", type=int, default=1, help="real clips of each source video (default: 1)")
    parser.add_argument(
        "--clips", type=int, default=GENERATED_CLIPS, help=f"generated clips (default: {GENERATED_CLIPS})"
    )
    parser.add_argument("--seeds", type=int, default=5, help="divisions into domain and test (default: 5)")
    parser.add_argument("--cache_dir", type=Path, default=Path("runs/background_bias"), help="(default: %(default)s)")
    parser.add_argument(
        "--output",
        type=Path,
        default=REPOSITORY / "docs/background_bias.md",
        help="(default: docs/background_bias.md)",
    )
    options = parser.parse_args()
    try:
        pairs = (real(options) if options.data_dir else {}) | generated(options.cache_dir, options.clips)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    losses = [loss for name, pair in pairs.items() for loss in measure(name, pair, options.seeds)]
    described = environment(sys.argv, [])
    made_with = {key: described[key] for key in ("commit", "date", "versions")}
    write_results(options.output.with_suffix(".json"), {"environment": made_with, "rows": [asdict(x) for x in losses]})
    text = f"# Loss from a replaced background\n\n{NOTE}\n{table(losses)}\n\n{verdict(losses)}\n"
    options.output.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
