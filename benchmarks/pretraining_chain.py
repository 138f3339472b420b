"""Does pre-training on one set of classes help another? The chain from Kinetics to HMDB51 in small, on real clips.

    python -m benchmarks.pretraining_chain DATA --output docs/pretraining_chain.json --seeds 0 1 2

DATA is the folder of the developer data. UCF101's 14 classes there stand for Kinetics: clips of split 2 (36 training
and 5 test clips a class) are laid out as Kinetics is, with its lists, and pre-trained on by train.py. HMDB51, split 2,
21 classes, is then trained by train.py once from the result and once from the weights the pre-training started from,
a CLIP of 0.6 million parameters with random vision weights (benchmarks/real_clips.py). All clips are made small first.
Rows are those of results.json.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import av
import numpy as np

from modeling_dkd.data.official_index import hmdb51_index, ucf101_index
from modeling_dkd.data.prompts import class_prompts, load_templates
from modeling_dkd.data.video_index import VideoIndex
from modeling_dkd.evaluation.report import environment, write_results
from modeling_dkd.training.command import main as train
from modeling_dkd.video_frames import read_frames

from .real_clips import build_backbone


CONFIG = Path(__file__).with_suffix(".yaml")
SPLIT = 2
CLIPS = {"train": 36, "test": 5}  # of a class that stands for one of Kinetics
FRAMES, HEIGHT = 16, 64  # of a small copy
SOURCE_EPOCHS, TARGET_EPOCHS = 10, 12
STARTS = {"start weights": "clip", "pre-trained": "pretrained"}


def small_copy(path: str, copied: Path) -> None:
    """Some frames of a clip, small, so that decoding is not what the runs wait for."""
    if copied.exists():
        return
    frames = read_frames(path, FRAMES).pixels.permute(0, 2, 3, 1).numpy()
    width = round(HEIGHT * frames.shape[2] / frames.shape[1] / 2) * 2
    copied.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(copied), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=8, options={"qscale": "3"})
        stream.width, stream.height, stream.pix_fmt = width, HEIGHT, "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture.reformat(width, HEIGHT, "yuv420p")))
        container.mux(stream.encode(None))


def as_kinetics(index: VideoIndex, folder: Path) -> Path:
    """Small copies of some clips of each class, and lists, in the form in which Kinetics is published."""
    seconds: dict[str, int] = {}
    for part, own in (("train", "train"), ("test", "val")):
        lines = ["label,youtube_id,time_start,time_end,split"]
        for k, name in enumerate(index.class_names):
            for record in [r for r in index.part(part).records if r.label == k][: CLIPS[part]]:
                number = seconds.setdefault(record.name, len(seconds))
                video = Path(record.path).stem
                lines.append(f"{name},{video},{number},{number + 10},{own}")
                small_copy(record.path, folder / own / name / f"{video}_{number:06d}_{number + 10:06d}.avi")
        (folder / f"{own}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def present(index: VideoIndex) -> VideoIndex:
    """The classes of which there are clips."""
    return index.restrict_classes([index.class_names[k] for k in sorted({r.label for r in index.records})])


def run(output: Path, seed: int, *overrides: str) -> list[dict[str, Any]]:
    """Rows of one run of train.py."""
    settings = [f"run.output_dir={output}", f"run.seed={seed}", *overrides]
    if train(["--config", str(CONFIG), "--set", *settings]):
        raise SystemExit(f"the run {output} failed")
    rows: list[dict[str, Any]] = json.loads((output / "results.json").read_text(encoding="utf-8"))["rows"]
    return rows


def chain(data: Path, work: Path, seed: int) -> list[dict[str, Any]]:
    """Pre-train, then train the target from both starts: method, start, top-1 and n of every row."""
    lists = data / "annotations"
    source = present(ucf101_index(data / "ucf101", lists, SPLIT, allow_missing=True))
    target = present(hmdb51_index(data / "hmdb51", lists, SPLIT, allow_missing=True))
    names = [*source.class_names, *target.class_names]
    prompts = [prompt for of_class in class_prompts(names, load_templates("single")) for prompt in of_class]
    build_backbone(work / "clip", seed, prompts)
    clips = as_kinetics(source, work / "kinetics")
    places = [f"model.backbone={work / 'clip'}", f"data.data_dir={clips}", f"recipe.epochs={SOURCE_EPOCHS}"]
    rows = [{"run": "pre-training", **row} for row in run(work / "pretrained", seed, *places)]
    asked = "[" + ",".join(target.class_names) + "]"
    for record in target.records:
        small_copy(record.path, work / "hmdb51" / record.name)
    places = ["data.dataset=hmdb51", f"data.split={SPLIT}", f"data.data_dir={work / 'hmdb51'}"]
    places += [f"data.annotations={lists}", f"data.classes={asked}", f"recipe.epochs={TARGET_EPOCHS}"]
    for title, folder in STARTS.items():
        found = run(work / f"hmdb51-from-{folder}", seed, *places, f"model.backbone={work / folder}")
        rows += [{"run": title, **row} for row in found]
    return [{"seed": seed} | {key: row[key] for key in ("run", "method", "top1", "n")} for row in rows]


def compared(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of every method, the mean over seeds from both starts, their difference and its standard error, in points."""
    found: dict[str, Any] = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        top1 = {
            title: np.array([r["top1"] for r in rows if (r["run"], r["method"]) == (title, method)])
            for title in STARTS
        }
        gains = 100 * (top1["pre-trained"] - top1["start weights"])
        n = next(r["n"] for r in rows if r["run"] in STARTS)
        pooled = np.concatenate(list(top1.values())).mean()
        means: dict[str, Any] = {title: round(100 * float(values.mean()), 2) for title, values in top1.items()}
        found[method] = means | {
            "gain": round(float(gains.mean()), 2),
            "standard_error_over_seeds": round(float(gains.std(ddof=1) / len(gains) ** 0.5), 2)
            if len(gains) > 1
            else None,
            # As if the test clips of each seed were others; both runs of a seed see the same ones.
            "standard_error_of_clips": round(100 * float((2 * pooled * (1 - pooled) / (n * len(gains))) ** 0.5), 2),
            "worst_gain": round(float(gains.min()), 2),
        }
    return found


def contents(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The results file."""
    return {
        "command": "python -m benchmarks.pretraining_chain DATA --output docs/pretraining_chain.json",
        "protocol": f"pre-training: UCF101 split {SPLIT}, 14 classes, {CLIPS['train']} training clips each, "
        f"{SOURCE_EPOCHS} epochs; target: HMDB51 split {SPLIT}, 21 classes, {TARGET_EPOCHS} epochs; 4 frames of "
        "48 pixels, CLIP of 0.6 million parameters with random vision weights; last epoch, domain with labels "
        "(inductive)",
        "environment": environment(["benchmarks/pretraining_chain.py"], []),
        "compared": compared(rows),
        "rows": rows,
    }


def table(found: dict[str, Any]) -> str:
    """What was compared, as the page shows it: top-1 in percent, the gain with its standard error over seeds."""
    lines = [
        "| HMDB51, top-1 | from the start weights | from the pre-trained | gain | worst seed |",
        "|---|---:|---:|---:|---:|",
    ]
    for method, line in found.items():
        gain = f"{line['gain']:+.1f} ± {line['standard_error_over_seeds']:.1f}"
        starts = " | ".join(f"{line[title]:.1f}" for title in STARTS)
        lines.append(f"| {method} | {starts} | {gain} | {line['worst_gain']:+.1f} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with ucf101, hmdb51 and annotations")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=Path("runs/chain"), help="folder for clips and runs")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    start = time.perf_counter()
    rows = json.loads(args.output.read_text(encoding="utf-8"))["rows"] if args.output.exists() else []
    for seed in args.seeds:
        begun = time.perf_counter()
        found = chain(args.data.absolute(), args.work / str(seed), seed)
        rows = [row for row in rows if row["seed"] != seed] + found
        print(f"seed {seed}: {time.perf_counter() - begun:.0f} s")
        rows.sort(key=lambda row: row["seed"])
        write_results(args.output, contents(rows))
    if len({row["seed"] for row in rows}) > 1:
        print(table(compared(rows)))
    print(f"{time.perf_counter() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
