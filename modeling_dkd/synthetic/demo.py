"""The demo: does knowing the domain help a tiny CLIP on videos of another domain than it was trained on?

    dkd demo --output demo
    dkd demo --quick

First the clips of the default target are recognised and searched as if nobody had labelled them, with a page to look
at for each. Then it is measured. For each kind of shift, labelled synthetic clips are written as video files and
embedded with the checkpoint in hub_configs/dkd-tiny; a random half of them, without labels, is the domain that DKD is
fitted on, the other half is the test (inductive), with five seeds of the halving. The default target combines all
kinds of shift; from 200 clips on, and with scikit-learn, search by text and telling clips of none of the classes are
measured on it too. Plain zero-shot of the same embeddings stands beside DKD; every figure is written as it comes out.

The checkpoint was given the fault that DKD is about on purpose (synthetic/tiny_backbone.py): part of its captions were
guessed from the scene. So there is something to correct on unshifted clips too, and the row "source" shows how much: a
kind of shift is corrected beyond that only where its gain is larger. The demo shows the mechanism and the shifts that
it copes with; it says nothing of the size of a gain on real videos.
"""

import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..embedding.clip_encoder import ClipEncoder
from ..embedding.embedded_checkpoint import CHECKPOINT, copy_code
from ..embedding.embedding_cache import EmbeddingSet, write_embeddings
from ..evaluation.measurement import Measurement, Plan, measure_set
from ..evaluation.methods.dkd import dkd
from ..evaluation.methods.peers import both_centred, zero_shot
from ..evaluation.names import REFERENCE
from ..evaluation.protocols import Method
from ..evaluation.report import environment, results, summarise, write_results
from ..evaluation.search import measure_search
from .clips import (
    ACTIONS,
    DEFAULT_TARGET,
    DOMAIN_SUMMARIES,
    SHIFTS,
    ClipDescription,
    class_prompts,
    clip_writers,
    start_clips,
)
from .demo_recognition import DemoRecognition, recognise_and_search
from .shift_results import ShiftResult, markdown_table, shift_result


TARGETS = (DEFAULT_TARGET, *SHIFTS, "source")
VIEWS = "4x1x1"
NUM_CLIPS = 1000
QUICK_TARGETS, QUICK_CLIPS = (DEFAULT_TARGET, "source"), 200
NUM_SEEDS = 5
CLIP_SEED = 1
CLIPS_PER_BATCH = 50
Clips = Iterator[tuple[Path, ClipDescription]]
METHODS: dict[str, Method] = {REFERENCE: zero_shot, "both_centred": both_centred, "dkd": dkd}


def embed_target(encoder: ClipEncoder, target: str, clips: Clips, progress: tqdm) -> EmbeddingSet:
    """Embed the clips of one target domain, frames as particles.

    Args:
        encoder: Frozen encoders and their preprocessing.
        target: A key of the synthetic domains.
        clips: Its N files and what they show.
        progress: Advanced by one a clip.

    Returns:
        Embeddings (N, T, D), labels and class prompts (actions, P, D).
    """
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


@dataclass(frozen=True)
class DemoResult:
    """What a run of the demo found.

    Attributes:
        recognised: Of the clips of the first target, recognised and searched without their labels.
        shifts: Zero-shot and DKD on each target, in the order in which they were measured.
    """

    recognised: DemoRecognition
    shifts: list[ShiftResult]


def run_demo(output: Path, targets: Sequence[str], num_clips: int) -> DemoResult:
    """Generate, embed, recognise, fit, test, and write pages, tables, figures and results.json.

    Args:
        output: Folder for everything; the clips of the default target and the checkpoint stay there to be tried.
        targets: Keys of the synthetic domains, the default one first.
        num_clips: Clips of each target; half of them are the domain, half the test.

    Raises:
        ValueError: The checkpoint is missing, or there are fewer clips than two.
    """
    if num_clips < 2:
        raise ValueError(f"the number of clips must be at least 2 (a domain and a test), not {num_clips}")
    shutil.copytree(CHECKPOINT, output / CHECKPOINT.name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.py*"))
    copy_code(output / CHECKPOINT.name)
    folder = output / "clips"
    measurements: list[Measurement] = []
    searches: list[dict[str, Any]] = []
    caches = []
    recognised = None
    with clip_writers(len(targets) * num_clips) as writers:
        # All at once: clips are written while others are embedded and measured.
        written = {target: _start_target(writers, folder / target, target, num_clips) for target in targets}
        encoder = ClipEncoder.load(str(CHECKPOINT), VIEWS, None, torch.float32, torch.device("cpu"))
        for number, (target, clips) in enumerate(written.items(), 1):
            with _step(f"{number} of {len(targets)}, {target}", num_clips) as bar:
                embedded = embed_target(encoder, target, clips, bar)
                caches.append(output / "embeddings" / f"{target}.safetensors")
                write_embeddings(caches[-1], embedded)
                protocols = ["induct"]
                if recognised is None:
                    recognised = recognise_and_search(embedded, folder / target, output)
                    if num_clips >= QUICK_CLIPS and find_spec("sklearn") is not None:
                        protocols.append("open")
                        searches += measure_search(target, embedded, METHODS, Plan(("full",)))
                else:
                    shutil.rmtree(folder / target)
                measurements += measure_set(target, embedded, METHODS, Plan(protocols, NUM_SEEDS))
    assert recognised is not None
    lines = summarise(measurements)
    found = [shift_result(x.data, measurements, x) for x in lines if (x.method, x.protocol) == ("dkd", "induct")]
    described = environment(["dkd", "demo"], caches)
    write_results(output / "results.json", results(measurements, lines, described, searches))
    (output / "table.md").write_text(markdown_table(found) + "\n", encoding="utf-8")
    if find_spec("matplotlib") is not None:
        from .demo_figures import write_demo_figures

        write_demo_figures(output, found, [m for m in measurements if m.row["protocol"] == "induct"])
    return DemoResult(recognised, found)


def _start_target(writers: Executor, folder: Path, target: str, num_clips: int) -> Clips:
    """Clips of one target, in place of those of a run before."""
    shutil.rmtree(folder, ignore_errors=True)
    return start_clips(writers, folder, target, num_clips, CLIP_SEED)


@contextmanager
def _step(described: str, num_clips: int) -> Iterator[tqdm]:
    """A bar over the clips of a step that stays as a line on a terminal, and a line with the seconds in a log."""
    start = time.perf_counter()
    with tqdm(total=num_clips, unit="clip", desc=described, disable=None) as bar:
        is_hidden = bar.disable  # closing it changes that
        yield bar
    if is_hidden:
        seconds = time.perf_counter() - start
        print(f"{described}: {num_clips} clips written, embedded and measured, {seconds:.0f} s", file=sys.stderr)
