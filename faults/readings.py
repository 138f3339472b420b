"""Containers and codecs as cameras and cutters leave them, each read beside a full decode by the ffmpeg program.

Every pair that PyAV can write is tried as it is, starting late, trimmed by an edit list, mirrored, with a companion
and a preview before it, without its first packet, cut off, and with a hole. A sound file must give the frames that
ffmpeg gives; of a damaged one the loss may be told instead. Containers that tell no lengths (NUT, FLV, bare streams)
cannot show what is missing, so there the number of frames asked for must only make no difference.
"""

import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

from modeling_dkd.video_frames import VideoReadError, read_frames

from .trials import LOST, SKIPPED, SURVIVED, WRONG_MESSAGE, Trial, Verdict


Pixels = np.ndarray[Any, np.dtype[np.uint8]]
WIDTH, HEIGHT, BLOCK, RATE, FRAMES = 176, 144, 16, 25, 24
SUFFIXES = (
    *(
        "3g2",
        "3gp",
        "apng",
        "asf",
        "avi",
        "dv",
        "f4v",
        "flv",
        "gif",
        "h261",
        "h263",
        "h264",
        "hevc",
        "ivf",
        "m1v",
        "m2v",
    ),
    *("m4v", "mjpeg", "mkv", "mov", "mp4", "mpg", "mxf", "nut", "obu", "ogv", "rm", "ts", "vob", "webm", "wmv", "wtv"),
)
# Of muxers that name only the codec they take by themselves.
TAKEN_TOO = ("libx264", "libx265", "mpeg1video", "mpeg2video", "mpeg4")
HARDWARE = ("_amf", "_nvenc", "_qsv", "_v4l2m2m", "_vaapi", "_vulkan", "_mf", "_videotoolbox")
# Between the same frame from two releases of FFmpeg, and far below the distance of two different frames.
TOLERANCE = 25.0
ASKED = (1, 5, FRAMES)
# FFmpeg up to 5.1 shows one frame from before the cut of AV1; PyAV does not hand out the flip of a TIFF picture,
# because it does not know the EXIF data beside it.
UNJUDGED = {*((name, "trimmed") for name in ("av1", "libsvtav1")), ("tiff", "mirrored")}
TELLING = frozenset({"3g2", "3gp", "asf", "avi", "f4v", "m4v", "mkv", "mov", "mp4", "mpg", "ts", "vob", "webm", "wmv"})


def picture(number: int) -> Pixels:
    """Coloured blocks, other ones in each picture, (H, W, 3)."""
    blocks = np.random.default_rng(number).integers(0, 256, (HEIGHT // BLOCK, WIDTH // BLOCK, 3), dtype=np.uint8)
    return blocks.repeat(BLOCK, 0).repeat(BLOCK, 1)


def encoders() -> list[str]:
    """Video encoders of PyAV that need no hardware."""
    names = []
    for name in sorted(av.codecs_available):
        try:
            codec = av.Codec(name, "w")
        except ValueError:
            continue
        if codec.type == "video" and codec.video_formats and not name.endswith(HARDWARE):
            names.append(name)
    return names


def pairs(scratch: Path) -> list[tuple[str, str]]:
    """Suffix and encoder of every file that PyAV's muxers say they can hold."""
    found = []
    for suffix in SUFFIXES:
        with av.open(str(scratch / f"pair.{suffix}"), "w") as container:
            held = container.supported_codecs
        names = [name for name in encoders() if av.Codec(name, "w").canonical_name in held]
        found += [(suffix, name) for name in {**dict.fromkeys(names), **dict.fromkeys(TAKEN_TOO)}]
    return found


def add_track(container: Any, encoder: str, size: tuple[int, int], disposition: Disposition | None = None) -> Any:
    """A track of 25 pictures a second with a key frame every six."""
    stream = container.add_stream(encoder, rate=RATE)
    stream.width, stream.height = size
    formats = [known.name for known in av.Codec(encoder, "w").video_formats or ()]
    stream.pix_fmt = next(
        (name for name in ("yuv420p", "yuvj420p", "yuv422p", "rgb24") if name in formats), formats[0]
    )
    context = stream.codec_context
    context.time_base, context.thread_count, context.gop_size = Fraction(1, RATE), 1, 6
    context.options = {"strict": "experimental"}
    if disposition is not None:
        stream.disposition = disposition
    return stream


def packets_of(stream: Any, numbers: range, start: int) -> Iterator[Any]:
    """Encoded pictures, the first at `start` in frames."""
    for place, number in enumerate(numbers):
        frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24").reformat(stream.width, stream.height)
        frame.pts, frame.time_base = start + place, Fraction(1, RATE)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def write(path: Path, encoder: str, start: int = 0, mirror: bool = False, companions: bool = False) -> None:
    """A film of 24 pictures; `companions` are a smaller film and a single picture, written before it."""
    options = {} if start >= 0 else {"avoid_negative_ts": "disabled"}
    with av.open(str(path), "w", options=options) as container:
        small = companions and [
            (add_track(container, encoder, (WIDTH // 2, HEIGHT // 2), Disposition(0)), range(FRAMES)),
            (add_track(container, encoder, (WIDTH // 2, HEIGHT // 2), Disposition(0)), range(90, 91)),
        ]
        film = add_track(container, encoder, (WIDTH, HEIGHT), Disposition.default if companions else None)
        if mirror:
            film.set_display_matrix([-65536, 0, 0, 0, 65536, 0, WIDTH << 16, 0, 1 << 30])
        packets = [
            p
            for stream, numbers in (*(small or ()), (film, range(FRAMES)))
            for p in packets_of(stream, numbers, start)
        ]
        for packet in sorted(packets, key=lambda p: (p.dts is None, (p.dts or 0) * p.time_base)):
            container.mux(packet)


def without_first_packet(path: Path, encoder: str) -> None:
    """A film whose first packet was lost."""
    whole = path.with_name(f"whole{path.suffix}")
    write(whole, encoder)
    with av.open(str(whole)) as before, av.open(str(path), "w") as after:
        copied = after.add_stream_from_template(before.streams.video[0])
        for packet in list(before.demux(video=0))[1:]:
            if packet.size:
                packet.stream = copied
                after.mux(packet)


def cut_off(path: Path, encoder: str) -> None:
    """A film of which the last third of the bytes is missing."""
    write(path, encoder)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def with_a_hole(path: Path, encoder: str) -> None:
    """A film of which a fifth of the bytes was overwritten with zeros."""
    write(path, encoder)
    data = bytearray(path.read_bytes())
    start, end = len(data) // 2, len(data) * 7 // 10
    data[start:end] = bytes(end - start)
    path.write_bytes(data)


SOUND: dict[str, Callable[[Path, str], None]] = {
    "as it is": write,
    "late": partial(write, start=93),
    "trimmed": partial(write, start=-7),
    "mirrored": partial(write, mirror=True),
    "among companions": partial(write, companions=True),
}
DAMAGED: dict[str, Callable[[Path, str], None]] = {
    "without its first packet": without_first_packet,
    "cut off": cut_off,
    "with a hole": with_a_hole,
}


def decoded_by_ffmpeg(path: Path, damaged: bool) -> Pixels | None:
    """All frames that the ffmpeg program gives, (N, H, W, 3); None if none, or of a sound file one that is corrupt."""
    command = ["ffmpeg", "-nostdin", "-v", "warning", "-threads", "1", "-i", f"file:{path}", "-an", "-sn", "-dn"]
    command += ["-vsync", "passthrough", "-s", f"{WIDTH}x{HEIGHT}", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    decoded = subprocess.run(command, capture_output=True, check=False)
    if not damaged and b"corrupt decoded frame" in decoded.stderr:
        return None  # WTV loses what the decoder of WMV 8 has to know
    frames = np.frombuffer(decoded.stdout, np.uint8)
    whole = len(frames) // (WIDTH * HEIGHT * 3)
    return frames[: whole * WIDTH * HEIGHT * 3].reshape(whole, HEIGHT, WIDTH, 3) if whole else None


def compared(make: Callable[[Path, str], None], suffix: str, encoder: str, damaged: bool, scratch: Path) -> Verdict:
    """One file, read with several numbers of frames and by ffmpeg."""
    path = scratch / f"film.{suffix}"
    try:
        make(path, encoder)
    except (av.FFmpegError, ValueError, OSError, StopIteration):
        return Verdict(SKIPPED, LEFT_OUT)
    expected = decoded_by_ffmpeg(path, damaged) if path.is_file() else None
    if expected is None and not damaged:
        return Verdict(SKIPPED, LEFT_OUT)
    told = 0
    totals: set[str] = set()
    for asked in ASKED:
        try:
            found = read_frames(path, asked)
        except VideoReadError as refusal:
            if str(path) not in str(refusal) or "Invalid" in str(refusal):
                return Verdict(WRONG_MESSAGE, str(refusal))
            if not damaged:
                return Verdict(LOST, f"a sound file is refused: {refusal}")
            told, totals = told + 1, totals | {"refused"}
            continue
        totals.add(str(found.total_frames))
        told += bool(found.damage)
        if found.damage and not damaged:
            return Verdict(LOST, f"a sound file is called damaged: {found.damage}")
        if not found.damage and (not damaged or suffix in TELLING):
            if expected is None or found.total_frames != len(expected):
                return Verdict(
                    LOST, f"{found.total_frames} frames, {0 if expected is None else len(expected)} by ffmpeg"
                )
            pixels = found.pixels.permute(0, 2, 3, 1).numpy()
            if pixels.shape[1:] != expected.shape[1:]:
                return Verdict(LOST, f"frames of {pixels.shape[1:]}")
            difference = np.abs(pixels.astype(float) - expected[found.indices]).mean((1, 2, 3)).max()
            if difference > TOLERANCE:
                return Verdict(LOST, f"other frames than by ffmpeg: {difference:.0f} of 255")
    if len(totals) > 1 or told not in (0, len(ASKED)):
        return Verdict(LOST, f"{', '.join(sorted(totals))} frames, as many as are asked for decide")
    return Verdict(SURVIVED)


LEFT_OUT = "pairs that PyAV cannot write soundly after all, or that this ffmpeg cannot decode, were left out"


def has_ffmpeg() -> bool:
    """Whether the ffmpeg program is installed."""
    return shutil.which("ffmpeg") is not None


def readings(count: int, seed: int, scratch: Path) -> list[tuple[str, Trial]]:
    """`count` of all combinations of container, codec and what was done to the file, each pair first once."""
    kinds = [(name, make, False) for name, make in SOUND.items()] + [
        (name, make, True) for name, make in DAMAGED.items()
    ]
    combinations = [(pair, kind) for pair in pairs(scratch) for kind in kinds if (pair[1], kind[0]) not in UNJUDGED]
    random.Random(seed).shuffle(combinations)
    met: Counter[tuple[str, str]] = Counter()
    rounds = []  # every pair once, then every pair again
    for pair, _ in combinations:
        rounds.append(met[pair])
        met[pair] += 1
    combinations = [combinations[place] for place in sorted(range(len(rounds)), key=rounds.__getitem__)]
    return [
        (f"{suffix} {encoder} {name}", partial(compared, make, suffix, encoder, damaged))
        for (suffix, encoder), (name, make, damaged) in combinations[:count]
    ]
