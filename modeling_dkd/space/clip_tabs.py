"""The tabs for several clips and for a long video; what they compute is in clip_jobs.py.

Clips stay in a folder of their own, so that a visitor can ask more than once about them, and are deleted when they are
removed, replaced, or not asked about for a while.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from ..data.counting import counted
from .clip_folders import ClipFolders
from .clip_jobs import MAX_VIDEO_SECONDS, ClipJobs, Found, find_clips, follow_video, recognise_clips
from .comparison import MAX_TEXT_LENGTH, parse_labels
from .comparison_html import note
from .events import SESSION_SECONDS, VIDEO_TYPES, WITH_MODEL, Outputs
from .example_clips import ExampleClips


NO_CLIPS = "No clips yet: drop some, or take the examples."
# Names of clips that are told one by one.
MAX_NAMES = 5


def recognise_tab(jobs: ClipJobs, folders: ClipFolders, examples: ExampleClips) -> None:
    """Build the tab for several clips, whose domain is themselves, where it is called."""
    gr.Markdown(
        "Drop clips that nobody has labelled and name the classes. DKD learns the domain from the clips themselves; "
        f"a few dozen tell it more than a few. At most {folders.max_clips} clips, "
        f"{folders.max_bytes / 1e6:.0f} MB together."
    )
    with gr.Row():
        with gr.Column(min_width=280, scale=2):
            folder = clips_input(
                folders, "recognise", "Clips", examples.domain, f"{len(examples.domain)} example clips"
            )
            labels = _labels_box(examples, "recognise-labels")
            button = gr.Button("Recognise", variant="primary", elem_id="recognise")
        with gr.Column(min_width=280, scale=3):
            files = _files("recognise")  # above a table that may be long
            result = gr.HTML(elem_id="recognise-result")

    def run(folder: Path | None, labels: str) -> Found:
        return jobs(recognise_clips, _folder(folders, folder), folders.clips(folder), parse_labels(labels))

    button.click(_told(run), [folder, labels], [result, files], **WITH_MODEL)


def timeline_tab(jobs: ClipJobs, folders: ClipFolders, examples: ExampleClips) -> None:
    """Build the tab for one long video where it is called."""
    gr.Markdown(
        "Drop one video in which different things happen and name the classes: it is cut into windows, and neighbours "
        f"with the same label are joined. At most {MAX_VIDEO_SECONDS / 60:.0f} minutes."
    )
    with gr.Row():
        with gr.Column(min_width=280, scale=2):
            folder = clips_input(folders, "timeline", "A video", [examples.long_video], "an example video")
            labels = _labels_box(examples, "timeline-labels")
            window = gr.Slider(1, 10, 4, step=0.5, label="Length of a window, seconds", elem_id="timeline-window")
            reject_below = gr.Slider(
                0, 0.9, 0, step=0.1, label="None of the classes where known is below", elem_id="timeline-reject"
            )
            button = gr.Button("Make the timeline", variant="primary", elem_id="timeline")
        with gr.Column(min_width=280, scale=3):
            result = gr.HTML(elem_id="timeline-result")
            files = _files("timeline")

    def run(folder: Path | None, labels: str, window: float, reject_below: float) -> Found:
        clips, options = folders.clips(folder), (float(window), float(reject_below))
        return jobs(follow_video, _folder(folders, folder), clips, parse_labels(labels), *options)

    button.click(_told(run), [folder, labels, window, reject_below], [result, files], **WITH_MODEL)


def search_tab(jobs: ClipJobs, folders: ClipFolders, examples: ExampleClips) -> None:
    """Build the tab that finds clips by a text where it is called."""
    gr.Markdown(
        "Drop clips and say what you look for. With the classes that occur in them, clips and text are moved toward "
        "their domain, also where the text is none of the classes; without, plain cosines are compared."
    )
    with gr.Row():
        with gr.Column(min_width=280, scale=2):
            folder = clips_input(folders, "search", "Clips", examples.domain, f"{len(examples.domain)} example clips")
            text = gr.Textbox(examples.labels[0], label="Text to look for", max_lines=1, elem_id="search-text")
            labels = _labels_box(examples, "search-labels", "Classes of the domain, one a line; may be empty")
            button = gr.Button("Search", variant="primary", elem_id="search")
        with gr.Column(min_width=280, scale=3):
            result = gr.HTML(elem_id="search-result")
            files = _files("search")

    def run(folder: Path | None, text: str, labels: str) -> Found:
        if len(text) > MAX_TEXT_LENGTH:
            raise ValueError(f"the text has {len(text)} characters, and at most {MAX_TEXT_LENGTH} are taken")
        classes = parse_labels(labels) if labels.strip() else None
        return jobs(find_clips, _folder(folders, folder), folders.clips(folder), text, classes)

    event: dict[str, Any] = {"fn": _told(run), "inputs": [folder, text, labels], "outputs": [result, files]}
    button.click(**event, **WITH_MODEL)
    text.submit(**event, **WITH_MODEL)


def clips_input(folders: ClipFolders, name: str, label: str, examples: Sequence[Path], told: str) -> gr.State:
    """A field to drop clips in, where it is called; the state holds their folder.

    Args:
        folders: Where the clips go.
        name: Start of the elements' identifiers.
        label: What stands above the field; one video alone is taken where it is in the singular.
        examples: Clips to take instead.
        told: What these are.
    """
    folder = gr.State(time_to_live=SESSION_SECONDS, delete_callback=folders.forget)
    is_one = len(examples) == 1
    upload = gr.File(
        label=label,
        file_count="single" if is_one else "multiple",
        file_types=VIDEO_TYPES,
        height=130,
        elem_id=f"{name}-upload",
    )
    said = gr.HTML(note(NO_CLIPS), elem_id=f"{name}-clips")
    with gr.Row():
        take = gr.Button(f"Use {told}", elem_id=f"{name}-examples", size="sm")
        remove = gr.Button("Remove", elem_id=f"{name}-remove", size="sm")

    def put(folder: Path | None, paths: Sequence[str] | str | None) -> Outputs:
        """Keep what was dropped instead of what was there: folder, remark, empty field."""
        folders.forget(folder)
        given = [paths] if isinstance(paths, str) else paths or []
        new, left_out = folders.put(given)
        return new, _clips_note(folders.clips(new), left_out), None

    def put_examples(folder: Path | None) -> Outputs:
        folders.forget(folder)
        new, left_out = folders.put(examples, copies=True)
        return new, _clips_note(folders.clips(new), left_out)

    def forget(folder: Path | None) -> Outputs:
        folders.forget(folder)
        return None, note(NO_CLIPS)

    upload.upload(put, [folder, upload], [folder, said, upload], api_visibility="private")
    take.click(put_examples, folder, [folder, said], api_visibility="private")
    remove.click(forget, folder, [folder, said], api_visibility="private")
    return folder


def _clips_note(names: Sequence[str], left_out: Sequence[str]) -> str:
    """Which clips there are, and which were left out."""
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    found = f"{counted(len(names), 'clip')}: {', '.join(names[:MAX_NAMES])}{more}." if names else NO_CLIPS
    return note(" ".join([found, *(f"Left out: {reason}." for reason in left_out)]), is_error=bool(left_out))


def _labels_box(examples: ExampleClips, elem_id: str, label: str = "Classes, one a line") -> gr.Textbox:
    return gr.Textbox("\n".join(examples.labels), label=label, lines=4, max_lines=8, elem_id=elem_id)


def _files(name: str) -> gr.File:
    """Files to keep."""
    return gr.File(label="To keep", file_count="multiple", interactive=False, visible=False, elem_id=f"{name}-files")


def _told(run: Callable[..., Found]) -> Callable[..., Outputs]:
    """A function of an event that shows what `run` gives, or in one sentence why it gives nothing."""

    def event(*inputs: Any) -> Outputs:
        try:
            found = run(*inputs)
        except ValueError as error:
            return note(str(error), is_error=True), gr.File(value=None, visible=False)
        return found.html, gr.File(value=found.files, visible=True)

    return event


def _folder(folders: ClipFolders, folder: Path | None) -> Path:
    """The folder, once it is certain that there are clips in it."""
    if folder is None or not folders.clips(folder):
        raise ValueError(
            "drop clips first, or take the examples; clips that were not asked about for a while are gone"
        )
    return folder
