"""How fast video files become model inputs: ours beside the loop a user would write, interleaved in one run.

python benchmarks/video_input.py                          # table of ratios; needs the real clips (DKD_DATA)
python benchmarks/video_input.py --backbone vit-b-32      # with the forward pass of a random CLIP image encoder
python benchmarks/video_input.py --json docs/benchmarks/video_input.json

The loop is transformers.video_utils.load_video + CLIPImageProcessor, one clip after the other in one process. Ratios
are its time over ours for the same clips, alternating in blocks, so that other work on the machine slows both alike.
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
from modeling_dkd.video_frames import read_frames


REPOSITORY = Path(__file__).resolve().parents[1]
LOOP_PROCESSOR = CLIPImageProcessorPil()
OUR_PROCESSOR = DKDCLIPImageProcessor.from_image_processor(LOOP_PROCESSOR)
BACKBONES = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
    "vit-b-32": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
}
RAW = {"do_rescale": False, "do_normalize": False}
PIXEL_SETTINGS: dict[str, Any] = {
    "CLIP, bicubic, shortest edge 224, crop": CLIPImageProcessorPil(**RAW),  # type: ignore[arg-type]
    "SigLIP, bicubic, 224 x 224": SiglipImageProcessorPil(**RAW),  # type: ignore[arg-type]
    "SigLIP, bilinear, 224 x 224": SiglipImageProcessorPil(resample=2, **RAW),  # type: ignore[arg-type]
}

Times = dict[str, float]


def read_as_the_loop(path: Path, num_frames: int) -> list[np.ndarray[Any, Any]]:
    """Frames as a user of transformers reads them."""
    name: Any = str(path)
    return list(load_video(name, num_frames=num_frames)[0])


def prepare_as_the_loop(frames: list[np.ndarray[Any, Any]]) -> torch.Tensor:
    return LOOP_PROCESSOR(frames, return_tensors="pt")["pixel_values"]


def prepare_as_we_do(frames: torch.Tensor) -> torch.Tensor:
    return OUR_PROCESSOR.preprocess_videos([[frames]])[0]


class Clips(Dataset):
    """Path number -> model input of that clip, prepared by us."""

    def __init__(self, paths: list[Path], num_frames: int) -> None:
        self.paths = paths
        self.num_frames = num_frames

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> torch.Tensor:
        return prepare_as_we_do(read_frames(self.paths[number], self.num_frames).pixels)


class Block(Sampler):
    """The clips that come next; changed from outside, so that workers stay alive from block to block."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - start


def one_thread(_: int) -> None:
    torch.set_num_threads(1)


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


def measure(
    paths: list[Path], num_frames: int, rounds: int, workers: int, block_size: int, encode: Callable | None
) -> list[Times]:
    """Seconds for all clips in each round, of every step, by the loop, by us, and by our workers."""
    block = Block()
    loader: DataLoader = DataLoader(
        Clips(paths, num_frames),
        batch_size=None,
        sampler=block,
        num_workers=workers,
        persistent_workers=True,
        prefetch_factor=4,
        multiprocessing_context="spawn",  # a fork of a process whose encoder has run can wait for ever in torch
        worker_init_fn=one_thread,
    )
    block.numbers = list(range(min(len(paths), 2 * workers)))
    list(loader)  # starts the workers
    results = []
    progress = tqdm(total=rounds * len(paths), desc="clips", unit="clip", leave=False)
    for number in range(rounds):
        times: Times = dict.fromkeys(("loop decode", "loop prepare", "decode", "prepare", "workers", "encode"), 0.0)
        for start in range(0, len(paths), block_size):
            block.numbers = list(range(start, min(start + block_size, len(paths))))
            for part in ("loop", "ours", "workers") if number % 2 == 0 else ("workers", "ours", "loop"):
                measure_part(part, [paths[at] for at in block.numbers], num_frames, loader, times, encode)
            progress.update(len(block.numbers))
        results.append(times)
    progress.close()
    return results


def measure_part(
    part: str, paths: list[Path], num_frames: int, loader: DataLoader, times: Times, encode: Callable | None
) -> None:
    """Adds the seconds of one way over one block of clips to `times`."""
    if part == "workers":
        _, seconds = timed(list, loader)
        times["workers"] += seconds
        return
    for path in paths:
        if part == "loop":
            frames, seconds = timed(read_as_the_loop, path, num_frames)
            times["loop decode"] += seconds
            _, seconds = timed(prepare_as_the_loop, frames)
            times["loop prepare"] += seconds
            continue
        video, seconds = timed(read_frames, path, num_frames)
        times["decode"] += seconds
        pixel_values, seconds = timed(prepare_as_we_do, video.pixels)
        times["prepare"] += seconds
        if encode is not None:
            _, seconds = timed(encode, pixel_values)
            times["encode"] += seconds


def ratios_of(times: Times, workers: int, with_backbone: bool) -> dict[str, float]:
    """The loop's time over ours."""
    loop, ours = times["loop decode"] + times["loop prepare"], times["decode"] + times["prepare"]
    ratios = {
        "preprocessing": times["loop prepare"] / times["prepare"],
        "decoding": times["loop decode"] / times["decode"],
        "decode + preprocess": loop / ours,
        f"decode + preprocess, {workers} workers": loop / times["workers"],
    }
    if with_backbone:
        ratios["with the encoder"] = (loop + times["encode"]) / (ours + times["encode"])
    return ratios


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


def image_encoder(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    torch.manual_seed(0)
    options: Any = BACKBONES[name]
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(patch_size=32, **options)).eval()
    return torch.inference_mode()(lambda pixel_values: model(pixel_values=pixel_values).image_embeds)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = Path(os.environ.get("DKD_DATA", REPOSITORY.parent / "shared/data"))
    parser.add_argument("--data_dir", type=Path, default=default, help="folder with originals/ and ucf101/ (DKD_DATA)")
    parser.add_argument("--num_frames", type=int, default=8, help="frames a clip")
    parser.add_argument("--clips", type=int, default=96, help="clips of ucf101, spread over its classes")
    parser.add_argument("--rounds", type=int, default=3, help="rounds over all clips; the table shows medians")
    parser.add_argument("--workers", type=int, default=2, help="decoding processes of the last column")
    parser.add_argument("--backbone", choices=sorted(BACKBONES), help="also run a random image encoder of this size")
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
    encode = image_encoder(options.backbone) if options.backbone else None
    report: dict[str, Any] = {
        "environment": environment(),
        "num_frames": options.num_frames,
        "speed": [],
        "pixels": [],
    }
    for name, paths in (("originals", originals), ("ucf101", small[:: max(1, len(small) // options.clips)])):
        readable, refused = readable_by_the_loop(paths, options.num_frames)
        rounds = measure(readable, options.num_frames, options.rounds, options.workers, 24, encode)
        ratios = [ratios_of(times, options.workers, encode is not None) for times in rounds]
        ours = [(times["decode"] + times["prepare"]) / len(readable) for times in rounds]
        report["speed"].append(
            {
                "data": name,
                "clips": len(readable),
                "unreadable_by_the_loop": refused,
                "our_ms_per_clip": round(1000 * statistics.median(ours), 2),
                "loop_time_over_ours": {
                    column: {
                        "median": round(statistics.median(row[column] for row in ratios), 2),
                        "lowest": round(min(row[column] for row in ratios), 2),
                        "highest": round(max(row[column] for row in ratios), 2),
                    }
                    for column in ratios[0]
                },
            }
        )
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
    print("Time of the loop (load_video + CLIPImageProcessor) over ours; median, lowest to highest round")
    for row in report["speed"]:
        print(f"\n{row['data']}: {row['clips']} clips, {report['num_frames']} frames each")
        for column, value in row["loop_time_over_ours"].items():
            print(f"  {column:<34} {value['median']:6.2f} x  ({value['lowest']:.2f} to {value['highest']:.2f})")
        if row["unreadable_by_the_loop"]:
            print(f"  not read by the loop: {', '.join(row['unreadable_by_the_loop'])}")
    print("\nPixels: difference from the PIL processor, of 255")
    for row in report["pixels"]:
        print(f"  {row['setting']:<40} {row['source']:<16} at most {row['max']:.0f}, mean {row['mean']:.5f}")


if __name__ == "__main__":
    sys.exit(main())
