"""An encoder of one's own, as the commands use it: frames as they were decoded, and texts, to embeddings.

It is a callable without arguments in a file or an installed module. What it returns has `embed_videos(list of
(T, 3, H, W) uint8 RGB tensors) -> (N, D) or (N, P, D)`, `embed_texts(list of str) -> (K, D) or (K, P, D)`,
`num_frames`, and optionally `logit_scale` (default 100) and `name`, under which its embeddings are kept.
"""

import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..data.video_files import VideoRecord
from ..frame_sampling import Views
from .clip_frames import read_clip_frames


# Frames are made smaller where their shorter side has more pixels.
MAX_SIDE = 512
MAX_LOGIT_SCALE = 10_000.0


@dataclass(frozen=True)
class WholeFrames:
    """Frames (T, 3, H, W) uint8 as decoded -> the same, the shorter side at most `MAX_SIDE` pixels."""

    def __call__(self, frames: Tensor) -> Tensor:
        """Make them smaller where they are large."""
        height, width = frames.shape[-2:]
        scale = MAX_SIDE / min(height, width)
        if scale >= 1:
            return frames.contiguous()
        size = (round(height * scale), round(width * scale))
        return interpolate(frames, size, mode="bilinear", antialias=True)


@dataclass(frozen=True)
class FrameReader:
    """Clip -> frames (T, 3, H, W) uint8 as the encoder takes them, and what is wrong with the file.

    It goes to worker processes.
    """

    num_frames: int
    prepare: Callable[[Tensor], Tensor]
    num_clips: int = 1

    def __call__(self, clip: VideoRecord | str) -> tuple[Tensor, str]:
        """Frames at segment centres, those of each clip after those of the one before, and a remark if damaged.

        Raises:
            VideoReadError: The file is missing, damaged or no video (the message names it).
        """
        found = read_clip_frames(clip, self.num_frames, self.num_clips)
        return self.prepare(found.pixels), found.damage


class OwnEncoder:
    """What a callable of the user returned, checked; its texts are probed once, which tells D and that it works.

    Args:
        embedder: What it returned.
        spec: How the user named it.
        name: What results call it.
        views: "FRAMESx1xCLIPS"; None: one clip of as many frames as it says.
        key: What its embeddings depend on besides the clip and the views.

    Raises:
        ValueError: It lacks a method, or one of them gives what is no embedding.
    """

    def __init__(self, embedder: Any, spec: str, name: str, views: str | None, key: dict[str, Any]) -> None:
        lacking = [n for n in ("embed_videos", "embed_texts") if not callable(getattr(embedder, n, None))]
        if lacking:
            raise ValueError(f"what {spec} returns has no {' and no '.join(lacking)}; see dkd recognise --help")
        own_frames = getattr(embedder, "num_frames", None)
        frames = Views.parse(views).num_frames if views is not None else own_frames
        if not isinstance(frames, int) or frames < 1:
            raise ValueError(
                f"num_frames of {spec} is {frames!r}; it must be a whole number above 0, or give --frames"
            )
        self.views = views or f"{frames}x1x1"
        if Views.parse(self.views).num_crops != 1:
            raise ValueError(f"{spec} crops frames itself: give views {frames}x1x1, not {self.views}")
        scale = getattr(embedder, "logit_scale", 100.0)
        scale = scale.item() if isinstance(scale, Tensor) and scale.numel() == 1 else scale
        if not isinstance(scale, int | float) or not 0 < scale <= MAX_LOGIT_SCALE:
            raise ValueError(f"logit_scale of {spec} is {scale!r}; it must be a factor of cosines, such as 100")
        self.name, self.logit_scale = name, float(scale)
        self._key = key
        self._videos = calling(embedder.embed_videos, f"embed_videos of {spec}")
        self.encode = calling(embedder.embed_texts, f"embed_texts of {spec}")
        probed = torch.as_tensor(self.encode(["a video"]))
        if probed.dim() not in (2, 3) or len(probed) != 1:
            raise ValueError(f"embed_texts of {spec} gave {tuple(probed.shape)} for one text; it must be (1, D)")
        self.dim = int(probed.shape[-1])

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How frames are made ready, before the encoder does it its own way."""
        return {"max_side": MAX_SIDE}

    @property
    def revision(self) -> str:
        """What tells this encoder from an earlier state of it."""
        return f"sha256:{hashlib.sha256(repr(sorted(self._key.items())).encode()).hexdigest()[:16]}"

    def key(self) -> dict[str, Any]:
        """All that an embedding of a clip depends on besides the clip."""
        views = Views.parse(self.views)
        clips = {"clips": views.num_clips} if views.num_clips > 1 else {}
        return {**self._key, "frames": views.num_frames, **clips, **self.preprocessing}

    @property
    def reader(self) -> FrameReader:
        """What turns files into frames."""
        views = Views.parse(self.views)
        return FrameReader(views.num_frames, WholeFrames(), views.num_clips)

    @torch.inference_mode()
    def embed_clips(self, clips: list[Tensor]) -> Tensor:
        """Frames (V * T, 3, H, W) uint8 of each clip -> embeddings (N, V * P, D), or (N, D) of one view."""
        views = Views.parse(self.views)
        if views.num_clips == 1:
            return self._videos(clips)
        parts = [part for clip in clips for part in clip.split(views.num_frames)]
        embeds = torch.as_tensor(self._videos(parts))
        return embeds.reshape(len(clips), -1, embeds.shape[-1])

    def num_cut(self, texts: list[str]) -> int:
        """How many of the texts are longer than the encoder takes: only it knows."""
        return 0


def load_own_encoder(spec: str, views: str | None) -> OwnEncoder:
    """The encoder that `FILE.py:NAME` or `module:NAME` makes; its code is run.

    Raises:
        ValueError: There is no such file, module or callable, or it fails or makes something else.
    """
    place, _, attribute = spec.rpartition(":")
    source = _imported(spec, place)
    factory = getattr(source, attribute, None)
    if not callable(factory):
        there = [name for name, value in vars(source).items() if callable(value) and not name.startswith("_")]
        raise ValueError(f"{place} has no callable {attribute!r}; it has {', '.join(there[:10]) or 'none'}")
    embedder = calling(factory, f"{spec}()")()
    name = getattr(embedder, "name", None)
    name = str(name) if name else f"{Path(place).stem}:{attribute}"
    # Two in one file may have one name.
    key = {"encoder": name, "callable": attribute, "source": _hash_of_source(source)}
    return OwnEncoder(embedder, spec, name, views, key)


def _imported(spec: str, place: str) -> ModuleType:
    """The file or module that the user named, its code run."""
    if not place.endswith(".py"):
        if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", place):
            raise ValueError(f"--model {spec}: no folder, no FILE.py:NAME and no module:NAME")
        return calling(lambda: importlib.import_module(place), f"import of {place}")()
    path = Path(place).resolve()
    if not path.is_file():
        raise ValueError(f"--model {spec}: there is no file {place}")
    name = f"dkd_encoder_{hashlib.sha256(str(path).encode(errors='surrogatepass')).hexdigest()[:12]}"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # its neighbours, as where Python runs the file
    calling(lambda: found.loader.exec_module(module), f"import of {place}")()  # type: ignore[union-attr]
    return module


def calling(function: Callable[..., Any], called: str) -> Callable[..., Any]:
    """The function, whose failures become one sentence that names the line of the user's code."""

    def call(*args: Any) -> Any:
        try:
            return function(*args)
        except Exception as error:
            if isinstance(error, RuntimeError) and "out of memory" in str(error):
                raise  # smaller batches are tried
            frames = traceback.extract_tb(error.__traceback__)[1:]
            own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
            line = f"{own[-1].filename}, line {own[-1].lineno}" if own else called
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"{called} failed: {type(error).__name__}: {reason} ({line})") from error

    return call


def _hash_of_source(module: ModuleType) -> str:
    """SHA-256 of the file that defines an encoder: changed code may embed otherwise."""
    file = getattr(module, "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file and Path(file).is_file() else ""
