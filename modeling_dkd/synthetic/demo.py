"""The demo: does knowing the domain help a tiny CLIP on videos of another domain than it was trained on?

    dkd demo --output demo
    dkd demo --quick

For each kind of shift, labelled synthetic clips are written as video files and embedded with the checkpoint in
hub_configs/dkd-tiny. A random half of the clips, without labels, is the domain that DKD is fitted on; the other half
is the test (inductive), with five seeds of the halving. The target that combines all kinds of shift is the default
one. Plain zero-shot of the same embeddings stands beside DKD; every figure is written as it comes out.

The checkpoint was given the fault that DKD is about on purpose (synthetic/tiny_backbone.py): part of its captions were
guessed from the scene. So there is something to correct on unshifted clips too, and the row "source" shows how much: a
kind of shift is corrected beyond that only where its gain is larger. The demo shows the mechanism and the shifts that
it copes with; it says nothing of the size of a gain on real videos.
"""

import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import torch
from tqdm import tqdm

from ..embedding.clip_encoder import ClipEncoder
from ..embedding.embedding_cache import EmbeddingSet, write_embeddings
from ..evaluation.measurement import Measurement, Plan, measure_set
from ..evaluation.methods.dkd import dkd
from ..evaluation.methods.peers import both_centred, zero_shot
from ..evaluation.names import REFERENCE
from ..evaluation.protocols import Method
from ..evaluation.report import environment, results, summarise, write_results
from .checkpoint import CHECKPOINT, copy_code
from .clips import (
    ACTIONS,
    DEFAULT_TARGET,
    DOMAIN_SUMMARIES,
    SHIFTS,
    class_prompts,
    generate_clips,
)
from .shift_results import ShiftResult, markdown_table, shift_result


TARGETS = (DEFAULT_TARGET, *SHIFTS, "source")
VIEWS = "4x1x1"
NUM_CLIPS = 1000
QUICK_TARGETS, QUICK_CLIPS = (DEFAULT_TARGET, "source"), 200
NUM_SEEDS = 5
CLIP_SEED = 1
CLIPS_PER_BATCH = 50
METHODS: dict[str, Method] = {REFERENCE: zero_shot, "both_centred": both_centred, "dkd": dkd}


def embed_target(encoder: ClipEncoder, target: str, folder: Path, num_clips: int, progress: tqdm) -> EmbeddingSet:
    """Write the clips of one target domain as files and embed them, frames as particles.

    Args:
        encoder: Frozen encoders and their preprocessing.
        target: A key of the synthetic domains.
        folder: For the video files.
        num_clips: How many.
        progress: Advanced by one a clip.

    Returns:
        Embeddings (num_clips, T, D), labels and class prompts (actions, P, D).
    """
    clips = generate_clips(folder, target, num_clips, CLIP_SEED)
    embeds, labels, names = [], [], []
    while batch := list(islice(clips, CLIPS_PER_BATCH)):
        embeds.append(encoder.embed(torch.stack([encoder.reader(str(path))[0] for path, _ in batch])).float())
        labels += [ACTIONS.index(description.action) for _, description in batch]
        names += [description.file_name for _, description in batch]
        progress.update(len(batch))
    prompts = class_prompts()
    texts = encoder.encode([prompt for of_class in prompts for prompt in of_class]).float()
    metadata = {
        "names": names,
        "class_names": list(ACTIONS),
        "prompts": [of_class[0] for of_class in prompts],
        "backbone": encoder.name,
        "revision": encoder.revision,
        "dataset": f"synthetic clips, {target}: {DOMAIN_SUMMARIES[target]}",
        "split": f"seed {CLIP_SEED}",
        "frames": VIEWS,
        "preprocessing": encoder.preprocessing,
        "logit_scale": encoder.logit_scale,
    }
    return EmbeddingSet(
        torch.cat(embeds), torch.tensor(labels), texts.view(len(prompts), -1, texts.shape[-1]), metadata
    )


def run_demo(output: Path, targets: Sequence[str], num_clips: int) -> list[ShiftResult]:
    """Generate, embed, fit, test, and write tables, figures and results.json.

    Args:
        output: Folder for everything; the clips of the default target and the checkpoint stay there to be tried.
        targets: Keys of the synthetic domains.
        num_clips: Clips of each target; half of them are the domain, half the test.

    Raises:
        ValueError: The checkpoint is missing, or there are fewer clips than two.
    """
    if num_clips < 2:
        raise ValueError(f"the number of clips must be at least 2 (a domain and a test), not {num_clips}")
    shutil.copytree(CHECKPOINT, output / CHECKPOINT.name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.py*"))
    copy_code(output / CHECKPOINT.name)
    encoder = ClipEncoder.load(str(CHECKPOINT), VIEWS, None, torch.float32, torch.device("cpu"))
    measurements: list[Measurement] = []
    caches = []
    with tqdm(total=len(targets) * num_clips, unit="clip") as progress:
        for target in targets:
            progress.set_description(f"{target}: writing and embedding clips")
            clips = output / "clips" / target
            shutil.rmtree(clips, ignore_errors=True)
            embedded = embed_target(encoder, target, clips, num_clips, progress)
            if target != DEFAULT_TARGET:
                shutil.rmtree(clips)
            caches.append(output / "embeddings" / f"{target}.safetensors")
            write_embeddings(caches[-1], embedded)
            progress.set_description(f"{target}: fitting and testing")
            measurements += measure_set(target, embedded, METHODS, Plan(("induct",), NUM_SEEDS))
    lines = summarise(measurements)
    found = [shift_result(x.data, measurements, x) for x in lines if x.method == "dkd"]
    described = environment(["dkd", "demo"], caches)
    write_results(output / "results.json", results(measurements, lines, described))
    (output / "table.md").write_text(markdown_table(found) + "\n", encoding="utf-8")
    if find_spec("matplotlib") is not None:
        from .demo_figures import write_demo_figures

        write_demo_figures(output, found, measurements)
    return found
