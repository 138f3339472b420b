"""How fast video files become model inputs: ours beside the loop a user would write, and other decoders.

The loop is transformers.video_utils.load_video + CLIPImageProcessor, one clip after the other in one process. Both
alternate. Every process computes with one thread. Workers are running before the clock is started.
decord2 and torchcodec are no dependencies: where they are not installed, or their FFmpeg libraries are missing, a row
says so (pip install decord2 "torchcodec==0.13.*").
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm
from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil
from transformers.video_utils import load_video

from modeling_dkd import DKDCLIPImageProcessor
from modeling_dkd.embedding.worker_processes import prepare_worker, worker_context
from modeling_dkd.video_frames import read_frames

from .rows import REPOSITORY, Row, compare, digits


LOOP_PROCESSOR = CLIPImageProcessorPil()
OUR_PROCESSOR = DKDCLIPImageProcessor.from_image_processor(LOOP_PROCESSOR)
RAW = {"do_rescale": False, "do_normalize": False}
PIXEL_SETTINGS: dict[str, Any] = {
    "CLIP, bicubic, shortest edge 224, crop": CLIPImageProcessorPil(**RAW),  # type: ignore[arg-type]
    "SigLIP, bicubic, 224 x 224": SiglipImageProcessorPil(**RAW),  # type: ignore[arg-type]
    "SigLIP, bilinear, 224 x 224": SiglipImageProcessorPil(resample=2, **RAW),  # type: ignore[arg-type]
}

CLIPS_A_ROUND = 98  # about; fewer would mostly show how workers begin and end
WORKER_BATCH = 4  # clips that a worker hands over at once

LOOPED = "originals/other_formats/mmaction2__demo.mp4"  # 280 frames of H.264

NUM_FRAMES, WORKERS, ROUNDS = 8, 2, 3
SMALL_CLIPS = 96  # of UCF101, spread over its classes

Times = dict[str, float]
Decode = Callable[[Path], object]


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
    """The clips that come next; changed from outside, so that workers stay alive from round to round."""

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
        """Seconds that decoding and preprocessing take for these clips, one process."""
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


def consume(inputs: Iterator[torch.Tensor]) -> None:
    for _ in inputs:
        pass


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


def time_ways(ways: Ways, numbers: list[int], rounds: int) -> list[Times]:
    """Seconds for all these clips in each round, by each way and of each stage."""
    results = []
    order = ["loop", "ours", "ours, workers", "loop, workers"]
    ways.block.numbers = numbers
    for number in tqdm(range(rounds), desc=f"{len(numbers)} clips", unit="round", leave=False):
        times = ways.stages()
        for way in order if number % 2 == 0 else reversed(order):
            times[way] = timed(consume, ways.inputs(way))[1]
        results.append(times)
    return results


def stage_rows(rounds: list[Times], clips: int, passes: int, data: str, note: str) -> list[Row]:
    """Clips a second of both sides at every stage."""
    both = f"load_video + CLIPImageProcessor, {WORKERS} workers"
    stages = [
        ("preprocess", "our prepare", "CLIPImageProcessor (PIL)", "loop prepare"),
        ("decode", "our decode", "load_video", "loop decode"),
        ("decode + preprocess", "ours", "load_video + CLIPImageProcessor", "loop"),
        (
            f"decode + preprocess, {WORKERS} workers",
            "ours, workers",
            "load_video + CLIPImageProcessor, no workers",
            "loop",
        ),
        (f"decode + preprocess, {WORKERS} workers", "ours, workers", both, "loop, workers"),
    ]
    return [
        compare(
            f"{stage}, {clips} {data} clips x {NUM_FRAMES} frames" + (f", {passes} times" if passes > 1 else ""),
            [passes * clips / times[ours] for times in rounds],
            other,
            [passes * clips / times[theirs] for times in rounds],
            "clips/s",
            note,
        )
        for stage, ours, other, theirs in stages
    ]


def decord2() -> Decode:
    """Frames (T, H, W, 3) by decord2; ImportError where it is not installed."""
    import decord

    def decode(path: Path) -> object:
        video = decord.VideoReader(str(path), num_threads=1)
        return video.get_batch(np.linspace(0, len(video) - 1, NUM_FRAMES).round().astype(int).tolist()).asnumpy()

    return decode


def torchcodec() -> Decode:
    """Frames (T, 3, H, W) by torchcodec; ImportError, RuntimeError or OSError without it or its FFmpeg."""
    from torchcodec.decoders import VideoDecoder

    def decode(path: Path) -> object:
        video = VideoDecoder(str(path), num_ffmpeg_threads=1)
        return video.get_frames_at(np.linspace(0, len(video) - 1, NUM_FRAMES).round().astype(int).tolist()).data

    return decode


def torchcodec_backend() -> Decode:
    """Our own frames by torchcodec; fails as `torchcodec` does."""
    torchcodec()
    return lambda path: read_frames(path, NUM_FRAMES, backend="torchcodec")


def decoder_rows(paths: list[Path], data: str) -> list[Row]:
    """Decoding alone beside decord2 and torchcodec, each on the clips that it reads."""
    return [decoder_row(make, paths, f"{data} clips") for make in (decord2, torchcodec)]


def backend_rows(originals: list[Path]) -> list[Row]:
    """Our frames by PyAV beside the same by torchcodec, on clips of seconds and a film of minutes."""
    clips = [path for path in originals if path.suffix in (".mp4", ".mkv")]
    return [decoder_row(torchcodec_backend, clips, "MP4 and MKV original clips"), long_film_row()]


def long_film_row() -> Row:
    """Our use of torchcodec on a film of minutes, of which a few frames are asked for: an original, 20 times over."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        with av.open(str(data_dir() / LOOPED)) as clip, av.open(str(path), "w") as film:
            track, copied = clip.streams.video[0], film.add_stream_from_template(clip.streams.video[0])
            packets: list[Any] = [packet for packet in clip.demux(track) if packet.size]
            stamps = [(packet.dts, packet.pts) for packet in packets]
            length = max(pts for _, pts in stamps) - min(dts for dts, _ in stamps) + packets[-1].duration
            for turn in range(20):
                for packet, (dts, pts) in zip(packets, stamps, strict=True):
                    packet.stream, packet.time_base = copied, track.time_base
                    packet.dts, packet.pts = dts + turn * length, pts + turn * length
                    film.mux(packet)
        return decoder_row(torchcodec_backend, [path], "H.264 film of 3 minutes")


def decoder_row(make: Callable[[], Decode], paths: list[Path], data: str) -> Row:
    """One other decoder; a row without its figure where it does not import or reads nothing."""
    what = f"decode, {data} x {NUM_FRAMES} frames"
    try:
        decode = make()
    except ModuleNotFoundError:
        return Row(what, None, make.__name__, None, "clips/s", note="not installed")
    except (ImportError, RuntimeError, OSError):
        return Row(what, None, make.__name__, None, "clips/s", note="installed, but its FFmpeg libraries are not")
    readable, refused = [], []
    for path in paths:
        try:
            decode(path)
            readable.append(path)
        except Exception as error:  # whatever stops it; it is reported
            refused.append(f"{path.name} ({type(error).__name__})")
    note = f"not read by it: {', '.join(refused)}" if refused else ""
    if not readable:
        return Row(what, None, make.__name__, None, "clips/s", note=note)
    rates: dict[str, list[float]] = {"ours": [], "other": []}
    sides = {"ours": lambda path: read_frames(path, NUM_FRAMES), "other": decode}
    for _ in tqdm(range(ROUNDS), desc=f"read_frames / {make.__name__}", unit="round", leave=False):
        seconds = dict.fromkeys(sides, 0.0)
        for number, path in enumerate(readable):
            for side in sorted(sides, reverse=bool(number % 2)):
                seconds[side] += timed(sides[side], path)[1]
        for side, total in seconds.items():
            rates[side].append(len(readable) / total)
    return compare(
        f"decode, {len(readable)} {data} x {NUM_FRAMES} frames",
        rates["ours"],
        make.__name__,
        rates["other"],
        "clips/s",
        note,
    )


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


def data_dir() -> Path:
    """Folder of the real clips, DKD_DATA; ValueError where it holds none."""
    folder = Path(os.environ.get("DKD_DATA", REPOSITORY.parent / "shared/data"))
    if not any((folder / "originals").glob("*/**/*.*")) or not any((folder / "ucf101/videos").glob("*/*.avi")):
        raise ValueError("no real clips; set DKD_DATA to a folder with originals/ and ucf101/videos/CLASS/*.avi")
    return folder


def small_clips(count: int) -> list[Path]:
    """At least so many clips of UCF101, spread over its classes."""
    small = sorted((data_dir() / "ucf101/videos").glob("*/*.avi"))
    return small[:: max(1, len(small) // count)]


def measure() -> list[Row]:
    """Stages and whole way of original and of small clips, other decoders, and how far pixels differ."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        originals = sorted(path for path in (data_dir() / "originals").glob("*/**/*.*") if path.is_file())
        return [
            *data_rows(originals, "original"),
            *data_rows(small_clips(SMALL_CLIPS), "UCF101"),
            *backend_rows(originals),
            pixel_row([originals[-1], originals[0]]),
        ]
    finally:
        torch.set_num_threads(threads)


def data_rows(paths: list[Path], data: str) -> list[Row]:
    """All rows of one kind of clips."""
    readable, refused = readable_by_the_loop(paths, NUM_FRAMES)
    note = f"not read by the loop: {', '.join(refused)}" if refused else ""
    ways = Ways(readable, NUM_FRAMES, WORKERS)
    passes = max(1, round(CLIPS_A_ROUND / len(readable)))
    times = time_ways(ways, list(range(len(readable))) * passes, ROUNDS)
    return [*stage_rows(times, len(readable), passes, data, note), *decoder_rows(paths, data)]


def pixel_row(paths: list[Path]) -> Row:
    """The largest difference of our pixels from the PIL processors' over all settings and sizes."""
    found = pixel_differences(paths)
    largest, mean = max(row["max"] for row in found), max(row["mean"] for row in found)
    note = f"largest mean of a setting {digits(mean)}; {len(found)} settings and sizes"
    return Row("largest difference of a pixel", digits(float(largest)), "PIL processors", 0.0, "of 255", note=note)
