"""What the page does with several clips or a long video: the functions of `modeling_dkd.recognition`, within limits.

Each job runs in the process for visitors' files, in a folder of `ClipFolders`, and gives HTML to look at and files to
keep. Names in both are those of the clips alone.
"""

import contextlib
import os
import shlex
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import av

from ..recognition.clip_recognition import recognise
from ..recognition.clip_search import search
from ..recognition.encoder import Encoder, ModelChoice, encoder_of
from ..recognition.prediction_table import write_table
from ..recognition.report import report_page
from ..recognition.thumbnails import Picture, sheet_image, sheet_page, thumbnail
from ..recognition.timeline_files import csv_text, json_text, srt, webvtt
from ..recognition.timeline_player import player_page
from ..recognition.timelines import timeline
from ..video_container import CONTAINERS
from .clip_folders import CLIPS
from .result_html import matches_html, player_frame, predictions_html, video_address
from .visitor_process import GivenUp, VisitorProcess


MAX_LOAD_SECONDS = 600.0
MAX_JOB_SECONDS = 120.0
MAX_VIDEO_SECONDS = 600.0
NUM_MATCHES = 12


class Found(NamedTuple):
    """What a job gives.

    Attributes:
        html: To look at; names are escaped in it.
        files: Paths of files to keep.
    """

    html: str
    files: list[str]


class ClipJobs:
    """Runs jobs, one at a time.

    Args:
        model: What clips and texts are embedded with.
        process: Where files of visitors are opened.
        max_seconds: A job that takes longer is given up.
    """

    def __init__(self, model: ModelChoice, process: VisitorProcess, max_seconds: float = MAX_JOB_SECONDS) -> None:
        self.model = model
        self.process = process
        self.max_seconds = max_seconds

    def load(self) -> None:
        """Have the process load the model, where it has not; what a job takes counts from then on.

        Raises:
            ValueError: It cannot be loaded, or not in time.
        """
        try:
            self.process(_load, self.model, max_seconds=MAX_LOAD_SECONDS)
        except GivenUp as error:
            raise ValueError(f"the model could not be loaded: {error}") from error

    def __call__(self, job: Callable[..., Found], folder: Path, *args: object) -> Found:
        """What a job of this module gives for the clips of a folder.

        Raises:
            ValueError: What the visitor has to change; the message names no folder.
        """
        self.load()
        try:
            return self.process(job, self.model, folder, *args, max_seconds=self.max_seconds)
        except GivenUp as error:
            raise ValueError(f"{error}; send fewer clips, or shorter ones") from error
        except ValueError as error:
            raise ValueError(str(error).replace(f"{folder / CLIPS}{os.sep}", "")) from error


def recognise_clips(model: ModelChoice, folder: Path, names: Sequence[str], labels: Sequence[str]) -> Found:
    """A table of labels; the report and the table to keep."""
    with contextlib.chdir(folder / CLIPS):
        found = recognise(names, labels, _encoder(model), cache_dir=folder / "cache", num_workers=0)
    results = _results(folder)
    # As it stands beside the clips, so that its links lead to them.
    options = ["--model", str(model.model), *(["--revision", model.revision] if model.revision else [])]
    command = shlex.join(["dkd", "recognise", CLIPS, "--classes", ",".join(labels), *options])
    (results / "report.html").write_text(report_page(found, command, folder / CLIPS), encoding="utf-8")
    write_table(results / "predictions.csv", found.predictions)
    return Found(predictions_html(found), _paths(results))


def follow_video(
    model: ModelChoice, folder: Path, names: Sequence[str], labels: Sequence[str], window: float, reject_below: float
) -> Found:
    """The page with the coloured bar; captions, tables and this page to keep."""
    path = folder / CLIPS / names[0]
    refuse_long(path)
    with contextlib.chdir(folder / CLIPS):
        run = timeline(
            names[:1],
            labels,
            _encoder(model),
            window=window,
            reject_below=reject_below,
            cache_dir=folder / "cache",
        )
    (found,) = run.timelines
    results = _results(folder)
    texts = {
        "html": player_page(found, folder / CLIPS),
        "vtt": webvtt(found.segments),
        "srt": srt(found.segments),
        "csv": csv_text(found),
        "json": json_text(found),
    }
    for ending, text in texts.items():
        (results / f"{path.stem}.{ending}").write_text(text, encoding="utf-8", newline="\n")
    return Found(player_frame(player_page(found, folder / CLIPS, video_address(path))), _paths(results))


def find_clips(
    model: ModelChoice, folder: Path, names: Sequence[str], text: str, labels: Sequence[str] | None
) -> Found:
    """The clips that match a text best; the sheet of them to keep."""
    with contextlib.chdir(folder / CLIPS):
        matches = search(
            text, names, labels, _encoder(model), count=NUM_MATCHES, cache_dir=folder / "cache", num_workers=0
        )
    pictures = [Picture(match.path, None, match.clip, f"{match.score:.3f}") for match in matches]
    results = _results(folder)
    sheet_image(pictures, text).save(results / "matches.png")
    (results / "matches.html").write_text(sheet_page(pictures, text, folder / CLIPS), encoding="utf-8")
    return Found(matches_html(matches, [thumbnail(match.path) for match in matches]), _paths(results))


def refuse_long(path: Path, max_seconds: float = MAX_VIDEO_SECONDS) -> None:
    """Refuse a video that says it is too long; one that says nothing, or not the truth, runs into the time limit.

    Raises:
        ValueError: It is too long.
    """
    options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
    try:
        with av.open(f"file:{path}", options=options, metadata_errors="replace") as container:
            seconds = (container.duration or 0) / av.time_base
    except (av.FFmpegError, OSError, ValueError):
        return  # whoever reads it says why it cannot be read
    if seconds > max_seconds:
        raise ValueError(
            f"{path.name!r} is {seconds / 60:.0f} minutes long, and at most {max_seconds / 60:.0f} are taken; "
            "send a shorter part of it, or run dkd timeline on a machine of your own"
        )


@cache
def _encoder(model: ModelChoice) -> Encoder:
    """The encoder, loaded once in each process."""
    return encoder_of(model)


def _load(model: ModelChoice) -> None:
    _encoder(model)


def _results(folder: Path) -> Path:
    """An empty folder for files to keep."""
    results = folder / "results"
    results.mkdir(exist_ok=True)
    for path in results.iterdir():
        path.unlink()
    return results


def _paths(results: Path) -> list[str]:
    return sorted(map(str, results.iterdir()))
