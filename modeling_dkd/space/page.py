"""The page of the Space: a tab for each thing that people do with clips."""

import gradio as gr

from .clip_folders import KEEP_SECONDS, ClipFolders
from .clip_jobs import ClipJobs
from .clip_tabs import recognise_tab, search_tab, timeline_tab
from .comparison import ClipComparer
from .comparison_tab import comparison_tab
from .example_clips import ExampleClips


# Files that arrived without ever being looked at, and results.
DELETE_EVERY_SECONDS, DELETE_OLDER_SECONDS = 60, 600
QUEUE_SIZE = 16
INTRODUCTION = """# DKD: video recognition that knows its domain

Plain zero-shot recognition beside DKD, which first looks at unlabelled clips of the domain. Model: {model}. Clips are
deleted as soon as they have been looked at, or {minutes} minutes after your last question about them.
"""


def build_page(
    comparer: ClipComparer, jobs: ClipJobs, folders: ClipFolders, examples: ExampleClips, template: str
) -> gr.Blocks:
    """The page, ready to be launched.

    Args:
        comparer: What compares single clips; shared by all visitors, whose states it does not keep.
        jobs: What looks at several clips or a long video; shared likewise.
        folders: Where these clips are kept meanwhile.
        examples: Clips to pick.
        template: Prompt that the first tab starts with.
    """
    with gr.Blocks(
        title="DKD",
        analytics_enabled=False,
        delete_cache=(DELETE_EVERY_SECONDS, DELETE_OLDER_SECONDS),
    ) as page:
        gr.Markdown(
            INTRODUCTION.format(model=f"`{comparer.encoder.name}`", minutes=KEEP_SECONDS // 60),
            elem_id="introduction",
        )
        with gr.Tab("Compare"):
            comparison_tab(comparer, examples, template)
        with gr.Tab("Recognise"):
            recognise_tab(jobs, folders, examples)
        with gr.Tab("Timeline"):
            timeline_tab(jobs, folders, examples)
        with gr.Tab("Search"):
            search_tab(jobs, folders, examples)
    return page.queue(max_size=QUEUE_SIZE, api_open=False)
