"""Zero-shot evaluation of raw clips end to end: evaluate.py beside the plain loop, and how many predictions agree."""

import contextlib
import csv
import io
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from modeling_dkd.embedding.embedding_cache import read_embeddings
from modeling_dkd.evaluation.command import main as evaluate
from modeling_dkd.synthetic.clips import ACTIONS

from .backbones import save_backbone
from .plain_loop import FRAMES, mean_direction, predictions_of_the_loop
from .rows import REPOSITORY, Row, alternate, compare
from .video_input import small_clips


CLIPS = {"tiny": 448, "ViT-B/32": 112}
ROUNDS = {"tiny": 3, "ViT-B/32": 2}
# The loop is float32. Of a tiny encoder bfloat16 makes no difference that counts.
DTYPES = {"tiny": ("float32",), "ViT-B/32": ("float32", "bfloat16")}
OUR_IMPORTS = """
import accelerate, transformers
from modeling_dkd.evaluation import command, videos
from modeling_dkd.embedding import clip_embedding, clip_encoder
"""
LOOP_IMPORTS = """
import torch
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel
from transformers.video_utils import load_video
"""


def measure() -> list[Row]:
    """Start-up of both, then both backbones."""
    starts = alternate(3, {"ours": lambda: start_up(OUR_IMPORTS), "loop": lambda: start_up(LOOP_IMPORTS)})
    rows = [compare("start-up: imports of evaluate.py on videos", starts["ours"], "of the loop", starts["loop"], "s")]
    return rows + [row for name in CLIPS for row in one_backbone(name)]


def start_up(code: str) -> None:
    """Run imports in a fresh process."""
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, check=True)


def one_backbone(name: str) -> list[Row]:
    """Clips a second, model loading included on both sides, and the share of equal predictions."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = save_backbone(name, folder / "model")
        clips = copied_clips(folder / "clips", CLIPS[name])
        found: dict[str, dict[str, int]] = {}

        def ours(dtype: str) -> None:
            found[dtype] = predictions_of_evaluate(model, folder / "clips", folder / "caches", dtype)

        def loop() -> None:
            found["loop"] = predictions_of_the_loop(model, folder / "clips", clips)

        sides: dict[str, Callable[[], object]] = {dtype: partial(ours, dtype) for dtype in DTYPES[name]}
        sides["loop"] = loop
        seconds = alternate(ROUNDS[name], sides, warm_up=name == "tiny")
    rates = {side: [len(clips) / value for value in values] for side, values in seconds.items()}
    rows = []
    for dtype in DTYPES[name]:
        equal = sum(found[dtype][clip] == label for clip, label in found["loop"].items())
        size = f"{len(clips)} clips x {FRAMES} frames, {name}" + (f", {dtype}" if dtype != "float32" else "")
        speed = compare(
            f"evaluate.py on raw clips, {size}",
            rates[dtype],
            "load_video + CLIPImageProcessor + CLIPModel, clip by clip, float32",
            rates["loop"],
            "clips/s",
            "ours also fits and tests DKD, writes caches and starts two workers",
        )
        agreement = 100 * equal / len(clips)
        note = f"{equal} of {len(clips)}"
        rows += [speed, Row(f"equal top-1, {size}", agreement, "all clips", 100.0, "%", note=note)]
    return rows


def copied_clips(folder: Path, count: int) -> list[tuple[str, str]]:
    """(path in the folder, class) of clips that are spread over the classes, with their list in clips.csv.

    Classes are called by words that the tiny tokenizer knows: texts of unknown words would all be the same.
    """
    clips: list[tuple[str, str]] = []
    called: dict[str, str] = {}
    for path in small_clips(count)[:count]:
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.parent.name)
        name = called.setdefault(path.parent.name, ACTIONS[len(called)])
        clips.append((f"{path.parent.name}/{path.name}", name))
    with (folder / "clips.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([("path", "label"), *clips])
    return clips


def predictions_of_evaluate(model: Path, clips: Path, caches: Path, dtype: str) -> dict[str, int]:
    """Clip -> class number by plain zero-shot, from the embeddings that evaluate.py leaves."""
    shutil.rmtree(caches, ignore_errors=True)
    arguments = ["--model", str(model), "--dataset", "csv", "--data_dir", str(clips / "clips.csv"), "--transductive"]
    arguments += ["--protocols", "full", "--frames", f"{FRAMES}x1x1", "--cache_dir", str(caches), "--dtype", dtype]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = evaluate(arguments)
    if code:
        raise RuntimeError(f"evaluate.py fails: {said.getvalue()[-500:]}")
    (file,) = caches.glob("*/*.safetensors")
    found = read_embeddings(file)
    assert found.text_embeds is not None
    videos, texts = mean_direction(found.video_embeds), mean_direction(found.text_embeds)
    return dict(zip(found.metadata["names"], (videos @ texts.T).argmax(1).tolist(), strict=True))
