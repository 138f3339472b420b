"""The first tab: plain zero-shot beside DKD on one clip; what it computes is in comparison.py.

A visitor's clip is decoded, embedded and deleted as soon as it has arrived. What stays are embeddings and thumbnails
in the visitor's own session, which ends with it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from torch import Tensor

from ..data.counting import counted
from ..video_frames import VideoReadError, read_frames
from .comparison import MAX_DOMAIN_CLIPS, Clip, ClipComparer, parse_labels
from .comparison_html import clip_frames, comparison_table, note
from .events import SESSION_SECONDS, VIDEO_TYPES, WITH_MODEL, Outputs
from .example_clips import ExampleClips


def comparison_tab(comparer: ClipComparer, examples: ExampleClips, template: str) -> None:
    """Build the tab where it is called.

    Args:
        comparer: Computes; shared by all visitors, whose states it does not keep.
        examples: Clips to pick.
        template: Prompt that the tab starts with.
    """

    def open_clip(path: str | None) -> Outputs:
        """Look at an uploaded clip and delete it: clip, frames, remark, empty upload field."""
        if path is None:
            return gr.skip(), gr.skip(), gr.skip(), None
        try:
            clip = comparer.open_clip(path)
        except VideoReadError as error:
            return None, note(str(error), is_error=True), "", None
        finally:
            Path(path).unlink(missing_ok=True)
        return clip, clip_frames(clip), "", None

    def open_example(event: gr.SelectData) -> tuple[Clip, str]:
        clip = comparer.open_clip(examples.shown[event.index][0])
        return clip, clip_frames(clip)

    def compare(clip: Clip | None, labels: str, template: str, domain: Tensor | None) -> str:
        """Table, or what is missing for one."""
        if clip is None:
            return note("Choose a clip first: upload one, or pick an example.")
        try:
            return comparison_table(comparer.compare(clip, parse_labels(labels), template, domain))
        except ValueError as error:
            return note(str(error), is_error=True)

    def add_domain(paths: Sequence[str] | None, progress: Any = gr.Progress()) -> Outputs:  # noqa: B008 (gradio's way)
        """Look at the clips of a domain and delete them: embeddings, remark, empty upload field."""
        paths = paths or []
        try:
            domain, left_out = comparer.open_domain(paths, lambda done: progress((done, len(paths)), unit="clips"))
        finally:
            for path in paths:
                Path(path).unlink(missing_ok=True)
        return domain, _domain_note(domain, left_out), None

    def use_example_domain(progress: Any = gr.Progress()) -> Outputs:  # noqa: B008
        paths = examples.domain
        domain, left_out = comparer.open_domain(paths, lambda done: progress((done, len(paths)), unit="clips"))
        return domain, _domain_note(domain, left_out)

    def forget_domain() -> Outputs:
        return None, note("No clips of your domain yet.")

    clip = gr.State(time_to_live=SESSION_SECONDS)
    domain = gr.State(time_to_live=SESSION_SECONDS)
    with gr.Row():
        with gr.Column(min_width=280, scale=2):
            upload = gr.File(label="A clip", file_types=VIDEO_TYPES, height=130, elem_id="clip-upload")
            gr.Markdown("Or an example, a synthetic clip:")
            gallery = gr.Gallery(
                [(_middle_frame(path), action) for path, action in examples.shown],
                show_label=False,
                columns=3,
                object_fit="contain",
                allow_preview=False,
                interactive=False,
                buttons=[],
                elem_id="examples",
            )
            labels = gr.Textbox(
                "\n".join(examples.labels), label="Labels, one a line", lines=5, max_lines=8, elem_id="labels"
            )
            prompt = gr.Textbox(template, label="Prompt; {} is the label", max_lines=1, elem_id="prompt")
            button = gr.Button("Classify", variant="primary", elem_id="classify")
        with gr.Column(min_width=280, scale=3):
            table = gr.HTML(note("Choose a clip: upload one, or pick an example."), elem_id="result")
            frames = gr.HTML(elem_id="frames")
    gr.Markdown(
        f"## My domain\nA handful of clips without labels, at most {MAX_DOMAIN_CLIPS}, from where your clips come "
        "from. With few clips DKD stays close to plain zero-shot on purpose."
    )
    with gr.Row():
        with gr.Column(min_width=280, scale=2):
            domain_upload = gr.File(
                label="Clips of my domain",
                file_count="multiple",
                file_types=VIDEO_TYPES,
                height=130,
                elem_id="domain-upload",
            )
        with gr.Column(min_width=280, scale=3):
            domain_note = gr.HTML(note("No clips of your domain yet."), elem_id="domain-note")
            with gr.Row():
                example_domain = gr.Button(f"Use {len(examples.domain)} example clips", elem_id="example-domain")
                forget = gr.Button("Forget my domain", elem_id="forget-domain")

    compared = {"fn": compare, "inputs": [clip, labels, prompt, domain], "outputs": table, **WITH_MODEL}
    upload.upload(open_clip, upload, [clip, frames, table, upload], **WITH_MODEL).then(**compared)
    gallery.select(open_example, None, [clip, frames], **WITH_MODEL).then(**compared)
    button.click(**compared)
    prompt.submit(**compared)
    domain_upload.upload(add_domain, domain_upload, [domain, domain_note, domain_upload], **WITH_MODEL).then(
        **compared
    )
    example_domain.click(use_example_domain, None, [domain, domain_note], **WITH_MODEL).then(**compared)
    forget.click(forget_domain, None, [domain, domain_note], **WITH_MODEL).then(**compared)


def _domain_note(domain: Tensor | None, left_out: Sequence[str]) -> str:
    """How many clips the domain has, and which were left out."""
    looked_at = counted(0 if domain is None else len(domain), "clip")
    found = f"{looked_at} of your domain {'was' if domain is not None and len(domain) == 1 else 'were'} looked at."
    return note(" ".join([found, *(f"Left out: {reason}." for reason in left_out)]), is_error=bool(left_out))


def _middle_frame(path: Path) -> Any:
    """A picture of an example."""
    return read_frames(path, 1).pixels[0].permute(1, 2, 0).numpy()
