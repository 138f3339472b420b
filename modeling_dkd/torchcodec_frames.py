"""Frames of MP4, QuickTime, Matroska and WebM files by torchcodec, which decodes only what leads to the wanted ones.

Packets are counted and the track is chosen as for PyAV; torchcodec gives the pictures. Files of which it would give
other ones are refused. Damage to the pictures inside of packets goes unseen: only decoding them all tells it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .frame_sampling import ArrayOfFloat, ArrayOfInt
from .h26x_packets import PacketUnits
from .rgb_frames import RgbConverter, is_only_turned
from .video_decoding import OpenVideo
from .video_results import VideoFrames, unreadable


# Every packet is one picture, and keeps its time.
CODECS = frozenset({"av1", "h264", "hevc", "vp9"})
# More bits, and chroma at the edge of odd sizes, are rounded in other ways.
PIXEL_FORMATS = frozenset({"yuv420p", "yuvj420p", "yuv444p", "yuvj444p"})
LARGEST_DIFFERENCE = 2  # of 255, between the first frame and PyAV's
REMEDY = "leave out backend"


def video_decoder() -> Any:
    """The class `VideoDecoder` of torchcodec.

    Raises:
        ValueError: It is not installed, or does not find the shared libraries of FFmpeg.
    """
    try:
        from torchcodec.decoders import VideoDecoder
    except ModuleNotFoundError as error:
        raise ValueError(f"torchcodec is not installed; run: pip install torchcodec, or {REMEDY}") from error
    except (ImportError, OSError, RuntimeError) as error:
        raise ValueError(
            "torchcodec is installed but does not load; it needs FFmpeg's shared libraries and the torch that it was "
            f"built for; install these, or {REMEDY}"
        ) from error
    return VideoDecoder


def read_with_torchcodec(video: OpenVideo, indices_of: Callable[[int], ArrayOfInt]) -> VideoFrames:
    """The frames at `indices_of(number of frames)`.

    Raises:
        VideoReadError: torchcodec is not used for files of this kind, or gives other frames.
    """
    if kind := _unsafe_kind(video):
        raise unreadable(video.path, f"torchcodec is not used for {kind}; {REMEDY}")
    frame = video.first_frame()
    if not is_only_turned(frame):
        raise unreadable(video.path, f"torchcodec is not used for mirrored films, which it turns; {REMEDY}")
    total = len(video.timestamps)
    indices = indices_of(total)
    wanted = sorted({0, *indices.tolist()})
    pixels, seconds = _decode(video, wanted)
    expected = np.array([video.timestamps[index] for index in wanted], dtype=float) * float(video.stream.time_base)
    if np.abs(seconds - expected).max() > float(video.stream.time_base) / 2 + 1e-6:
        raise unreadable(video.path, f"torchcodec gives frames of other times than were asked for; {REMEDY}")
    first = RgbConverter()(frame)
    if pixels.shape[1:] != first.shape or np.abs(pixels[0].int().numpy() - first).max() > LARGEST_DIFFERENCE:
        raise unreadable(video.path, f"torchcodec shows its first frame otherwise than PyAV; {REMEDY}")
    chosen = pixels[np.searchsorted(wanted, indices)].contiguous().permute(0, 3, 1, 2)
    return VideoFrames(chosen, indices, video.times(video.timestamps)[indices], total)


def _unsafe_kind(video: OpenVideo) -> str:
    """Why torchcodec may give other frames of this file, as a kind of files; "" where it may not."""
    packets, stream = video.packets, video.stream
    codec, pixel_format = video.decoder.codec.canonical_name, video.decoder.pix_fmt or "no"
    if packets.format not in ("mov", "matroska"):
        return f"{packets.format} files, of which it counts other frames"
    if codec not in CODECS:
        return f"{codec}, of which a packet may hold no picture or several"
    if packets.starts_without_key:
        return "files without a key frame at the start, which it passes over without a word"
    signs = packets.missing_frames or packets.missing_bytes or packets.incomplete or packets.unread
    if signs or _has_broken_packets(video):
        return "damaged files, whose loss it does not tell"
    if None in video.timestamps or len(set(video.timestamps)) < len(video.timestamps):
        return "files whose frames have no times of their own"
    cut_chroma = "420" in pixel_format and (stream.width | stream.height) & 1
    if pixel_format not in PIXEL_FORMATS or cut_chroma:
        return f"pixels of {stream.width} x {stream.height} {pixel_format}, whose colours it rounds otherwise"
    return ""


def _has_broken_packets(video: OpenVideo) -> bool:
    """Whether a packet of H.264 or H.265 is no whole row of units, one of them with a picture."""
    units = PacketUnits.of(video.decoder.name, video.decoder.extradata)
    packets = (packet for packet in video.packets if packet is not None and packet.size)
    return units is not None and any(units.is_reference(memoryview(packet)) is None for packet in packets)


def _decode(video: OpenVideo, indices: list[int]) -> tuple[torch.Tensor, ArrayOfFloat]:
    """Frames (n, H, W, 3) uint8 at these positions, and their times in seconds as the file has them."""
    try:
        decoder = video_decoder()(
            f"file:{video.path}",  # any characters, and never a URL
            stream_index=video.stream.index,
            dimension_order="NHWC",
            num_ffmpeg_threads=1,
        )
        if len(decoder) != len(video.timestamps):
            raise unreadable(
                video.path, f"torchcodec counts {len(decoder)} frames instead of {len(video.timestamps)}; {REMEDY}"
            )
        batch = decoder.get_frames_at(indices)
    except (RuntimeError, IndexError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise unreadable(video.path, f"torchcodec cannot decode it: {reason}; {REMEDY}") from error
    return batch.data, batch.pts_seconds.numpy()
