"""How fast video files become model inputs: ours beside the loop a user would write, interleaved in one run.

python benchmarks/video_input.py                          # table of clips a second; needs the real clips (DKD_DATA)
python benchmarks/video_input.py --backbone tiny          # end to end with a small image encoder: ViT-B/32 is slow
python benchmarks/video_input.py --json docs/benchmarks/video_input.json

The loop is transformers.video_utils.load_video + CLIPImageProcessor, one clip after the other in one process. Ratios
are its time over ours for the same clips, alternating in blocks, so that other work on the machine slows both alike.
Every process computes with one thread. Workers are running before the clock is started.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL
import torch
import transformers
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    SiglipImageProcessorPil,
)
from transformers.video_utils import load_video

from modeling_dkd import DKDCLIPImageProcessor
from modeling_dkd.data.worker_processes import prepare_worker, worker_context
from modeling_dkd.video_frames import read_frames


REPOSITORY = Path(__file__).resolve().parents[1]
LOOP_PROCESSOR = CLIPImageProcessorPil()
OUR_PROCESSOR = DKDCLIPImageProcessor.from_image_processor(LOOP_PROCESSOR)
BACKBONES = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
    "ViT-B/32": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
}
RAW = {"do_rescale": False, "do_normalize": False}
PIXEL_SETTINGS: dict[str, Any] = {
    "CLIP, bicubic, shortest edge 224, crop": CLIPImageProcessorPil(**RAW),  # type: ignore[arg-type]
    "SigLIP, bicubic, 224 x 224": SiglipImageProcessorPil(**RAW),  # type: ignore[arg-type]
    "SigLIP, bilinear, 224 x 224": SiglipImageProcessorPil(resample=2, **RAW),  # type: ignore[arg-type]
}

BLOCK_SIZE = 49
WORKER_BATCH = 4  # clips that a worker hands over at once

Times = dict[str, float]
Encode = Callable[[torch.Tensor], torch.Tensor]


def read_as_the_loop(path: Path, num_frames: int) -> list[np.ndarray[Any, Any]]:
    """Frames as a user of transformers reads them."""
    name: Any = str(path)
    return list(load_video(name, num_frames=num_frames)[0])


def prepare_as_the_loop(frames: list[np.ndarray[Any, Any]]) -> torch.Tensor:
    return LOOP_PROCESSOR(frames, return_tensors="pt")["pixel_values"]


def prepare_as_we_do(frames: torch.Tensor) -> torch.Tensor:
    return OUR_PROCESSOR.preprocess_videos([[frames]])[0]


def loop_input(path: Path, num_frames: int) -> torch.Tensor:
    """Model input of one clip, as a worker of the loop hands it over."""
    return prepare_as_the_loop(read_as_the_loop(path, num_frames))


def our_crops(path: Path, num_frames: int) -> torch.Tensor:
    """Cropped frames of one clip, uint8, as our workers hand them over."""
    return OUR_PROCESSOR.crop_videos([[read_frames(path, num_frames).pixels]])[0]


class Clips(Dataset):
    """Path number -> what is read of that clip."""

    def __init__(self, paths: list[Path], num_frames: int, read: Callable[[Path, int], torch.Tensor]) -> None:
        self.paths = paths
        self.num_frames = num_frames
        self.read = read

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> torch.Tensor:
        return self.read(self.paths[number], self.num_frames)


class Block(Sampler):
    """The clips that come next; changed from outside, so that workers stay alive from block to block."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)


class Ways:
    """The ways from the same paths to model inputs (n, T, 3, H, W), each an iterator over a block of clips.

    Args:
        paths: Clips that both sides can read.
        num_frames: Frames a clip.
        workers: Processes of those ways that have them.
    """

    def __init__(self, paths: list[Path], num_frames: int, workers: int) -> None:
        self.paths = paths
        self.num_frames = num_frames
        self.block = Block()
        self.loaders = {read: self._loader(read, workers) for read in (loop_input, our_crops)}
        self.block.numbers = list(range(min(len(paths), WORKER_BATCH * workers)))
        for loader in self.loaders.values():
            list(loader)  # starts the workers

    def _loader(self, read: Callable[[Path, int], torch.Tensor], workers: int) -> DataLoader:
        return DataLoader(
            Clips(self.paths, self.num_frames, read),
            batch_size=WORKER_BATCH,
            sampler=self.block,
            num_workers=workers,
            persistent_workers=True,
            worker_init_fn=prepare_worker,
            multiprocessing_context=worker_context(workers),
        )

    def inputs(self, way: str) -> Iterator[torch.Tensor]:
        """Model inputs of the clips of the block."""
        if way == "loop":
            yield from (loop_input(self.paths[at], self.num_frames)[None] for at in self.block.numbers)
        elif way == "ours":
            yield from (OUR_PROCESSOR.normalise(our_crops(self.paths[at], self.num_frames)[None]) for at in self.block)
        elif way == "loop, workers":
            yield from self.loaders[loop_input]
        else:
            yield from map(OUR_PROCESSOR.normalise, self.loaders[our_crops])

    def stages(self) -> Times:
        """Seconds that decoding and preprocessing take for the clips of the block, one process."""
        times = dict.fromkeys(("loop decode", "loop prepare", "our decode", "our prepare"), 0.0)
        for path in [self.paths[at] for at in self.block]:
            frames, seconds = timed(read_as_the_loop, path, self.num_frames)
            times["loop decode"] += seconds
            times["loop prepare"] += timed(prepare_as_the_loop, frames)[1]
            video, seconds = timed(read_frames, path, self.num_frames)
            times["our decode"] += seconds
            times["our prepare"] += timed(prepare_as_we_do, video.pixels)[1]
        return times


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - start


def consume(inputs: Iterator[torch.Tensor], encode: Encode | None) -> None:
    for pixel_values in inputs:
        if encode is not None:
            encode(pixel_values)


def readable_by_the_loop(paths: list[Path], num_frames: int) -> tuple[list[Path], list[str]]:
    """Paths that the loop reads, and names of those it cannot."""
    readable, refused = [], []
    for path in tqdm(paths, desc="clips that both read", unit="clip", leave=False):
        try:
            read_as_the_loop(path, num_frames)
            readable.append(path)
        except Exception as error:  # whatever stops the loop; it is reported
            refused.append(f"{path.name} ({type(error).__name__})")
        read_frames(path, num_frames)
    return readable, refused


def measure(ways: Ways, numbers: list[int], rounds: int, encode: Encode | None) -> list[Times]:
    """Seconds for all these clips in each round, by each way and, without an encoder, of each stage."""
    results = []
    order = ["loop", "ours", "ours, workers", "loop, workers"]
    progress = tqdm(total=rounds * len(numbers), desc="clips", unit="clip", leave=False)
    for number in range(rounds):
        times: Times = {}
        for start in range(0, len(numbers), BLOCK_SIZE):
            ways.block.numbers = numbers[start : start + BLOCK_SIZE]
            found = {} if encode is not None else ways.stages()
            for way in order if number % 2 == 0 else reversed(order):
                found[way] = timed(consume, ways.inputs(way), encode)[1]
            times = {name: times.get(name, 0.0) + seconds for name, seconds in found.items()}
            progress.update(len(ways.block))
        results.append(times)
    progress.close()
    return results


def stage_rows(rounds: list[Times], clips: int, workers: int, suffix: str = "") -> list[dict[str, Any]]:
    """Clips a second of both sides, medians over the rounds, and the loop's time over ours."""
    pairs = {
        "preprocessing": ("our prepare", "loop prepare"),
        "decoding": ("our decode", "loop decode"),
        "decode + preprocess": ("ours", "loop"),
        f"decode + preprocess, ours with {workers} workers": ("ours, workers", "loop"),
        f"decode + preprocess, both with {workers} workers": ("ours, workers", "loop, workers"),
    }
    rows = []
    for stage, (ours, loop) in pairs.items():
        if ours not in rounds[0]:
            continue
        ratios = [times[loop] / times[ours] for times in rounds]
        rows.append(
            {
                "stage": stage + suffix,
                "our_clips_per_second": round(clips / statistics.median(times[ours] for times in rounds), 2),
                "loop_clips_per_second": round(clips / statistics.median(times[loop] for times in rounds), 2),
                "loop_time_over_ours": {
                    "median": round(statistics.median(ratios), 2),
                    "lowest": round(min(ratios), 2),
                    "highest": round(max(ratios), 2),
                },
            }
        )
    return rows


def pixel_differences(paths: list[Path]) -> list[dict[str, Any]]:
    """Largest and mean difference of our pixels from the PIL processors', in units of 255, before normalisation."""
    rows = []
    for path in paths:
        pixels = read_frames(path, 4).pixels
        cuts = [pixels[:, :, :7, :9], pixels[:, :, :129, :97]] if path is paths[0] else []
        for frames in (pixels, *cuts):
            arrays = list(frames.permute(0, 2, 3, 1).numpy())
            for name, backbone in PIXEL_SETTINGS.items():
                expected = np.stack(backbone(arrays, input_data_format="channels_last")["pixel_values"]).astype(float)
                ours = DKDCLIPImageProcessor.from_image_processor(backbone)(arrays, return_tensors="np")
                difference = np.abs(ours["pixel_values"] - expected)
                size = f"{frames.shape[-1]} x {frames.shape[-2]}"
                rows.append(
                    {"setting": name, "source": size, "max": difference.max(), "mean": round(difference.mean(), 5)}
                )
    return rows


def environment() -> dict[str, Any]:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return {
        "commit": commit.stdout.strip() or None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "av": av.__version__,
        "pillow": PIL.__version__,
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def image_encoder(name: str) -> Encode:
    """CLIP's image encoder with random weights, (n, T, 3, H, W) -> (n * T, D)."""
    torch.manual_seed(0)
    options: Any = BACKBONES[name]
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(patch_size=32, **options)).eval()
    return torch.inference_mode()(lambda pixel_values: model(pixel_values=pixel_values.flatten(0, 1)).image_embeds)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = Path(os.environ.get("DKD_DATA", REPOSITORY.parent / "shared/data"))
    parser.add_argument("--data_dir", type=Path, default=default, help="folder with originals/ and ucf101/ (DKD_DATA)")
    parser.add_argument("--num_frames", type=int, default=8, help="frames a clip")
    parser.add_argument("--clips", type=int, default=96, help="clips of ucf101, spread over its classes")
    parser.add_argument("--rounds", type=int, default=3, help="rounds over all clips; the table shows medians")
    parser.add_argument("--workers", type=int, default=2, help="processes of the rows with workers")
    parser.add_argument(
        "--backbone",
        choices=sorted(BACKBONES),
        default="ViT-B/32",
        help="image encoder with random weights, end to end",
    )
    parser.add_argument("--backbone_clips", type=int, default=6, help="clips that are encoded too, spread over all")
    parser.add_argument("--backbone_rounds", type=int, default=1, help="rounds over those")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    torch.set_num_threads(1)
    originals = sorted(path for path in (options.data_dir / "originals").glob("*/**/*.*") if path.is_file())
    small = sorted((options.data_dir / "ucf101/videos").glob("*/*.avi"))
    if not originals or not small:
        print(f"error: no clips under {options.data_dir}; give --data_dir or set DKD_DATA", file=sys.stderr)
        return 2
    encode = image_encoder(options.backbone)
    report: dict[str, Any] = {
        "environment": environment(),
        "num_frames": options.num_frames,
        "backbone": options.backbone,
        "speed": [],
        "pixels": [],
    }
    for name, paths in (("originals", originals), ("ucf101", small[:: max(1, len(small) // options.clips)])):
        readable, refused = readable_by_the_loop(paths, options.num_frames)
        ways = Ways(readable, options.num_frames, options.workers)
        everything = list(range(len(readable)))
        stages = stage_rows(measure(ways, everything, options.rounds, None), len(readable), options.workers)
        some = everything[:: max(1, len(readable) // options.backbone_clips)]
        encoded = measure(ways, some, options.backbone_rounds, encode)
        report["speed"].append(
            {
                "data": name,
                "clips": len(readable),
                "clips_encoded": len(some),
                "unreadable_by_the_loop": refused,
                "stages": stages + stage_rows(encoded, len(some), options.workers, f" + {options.backbone}"),
            }
        )
    report["environment"]["load_average_at_the_end"] = round(os.getloadavg()[0], 2)
    portrait = options.data_dir / "originals/other_formats/Ask-Anything__making_cake.mp4"
    wide = options.data_dir / "originals/other_formats/Ask-Anything__jesse_dance.mp4"
    report["pixels"] = pixel_differences(
        [path for path in (originals[-1], small[0], portrait, wide) if path.is_file()]
    )
    print_report(report)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n")
        print(f"\nwritten to {options.json}")
    return 0


def print_report(report: dict[str, Any]) -> None:
    print(f"Clips a second, {report['num_frames']} frames each; the loop is load_video + CLIPImageProcessor\n")
    print("| data | stage | ours | loop | ratio (lowest to highest round) |\n|---|---|---|---|---|")
    for row in report["speed"]:
        for stage in row["stages"]:
            ratio = stage["loop_time_over_ours"]
            print(
                f"| {row['data']} | {stage['stage']} | {stage['our_clips_per_second']:.3g} "
                f"| {stage['loop_clips_per_second']:.3g} "
                f"| {ratio['median']:.2f} ({ratio['lowest']:.2f} to {ratio['highest']:.2f}) |"
            )
    for row in report["speed"]:
        print(f"\n{row['data']}: {row['clips']} clips, {row['clips_encoded']} of them with {report['backbone']}")
        if row["unreadable_by_the_loop"]:
            print(f"not read by the loop: {', '.join(row['unreadable_by_the_loop'])}")
    print("\nPixels: difference from the PIL processor, of 255")
    for row in report["pixels"]:
        print(f"  {row['setting']:<40} {row['source']:<16} at most {row['max']:.0f}, mean {row['mean']:.5f}")


if __name__ == "__main__":
    sys.exit(main())
