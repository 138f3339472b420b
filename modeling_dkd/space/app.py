"""The Space: a page on which people try DKD on clips of their own.

dkd space
dkd space --model openai/clip-vit-base-patch16 --revision COMMIT
dkd space --export FOLDER    # what to push as a Space
"""

import os
import shutil
import signal
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from ..embedding.embedded_checkpoint import CHECKPOINT, HUB_CONFIGS, PACKAGE, copy_code
from ..one_line_parser import OneLineParser


DEFAULT_FRAMES = 8


def main(argv: list[str]) -> int:
    """Show the page until interrupted, or write what to push as a Space; 0 when done."""
    args = build_parser().parse_args(argv)
    if args.export is not None:
        export_space(args.export)
        print(f"written: {args.export}; push it with: hf upload YOU/NAME {args.export} --repo-type space")
    else:
        serve(args.model, args.revision, args.template, args.frames, args.host, args.port)
    return 0


def serve(
    model: str, revision: str | None, template: str | None, frames: int, host: str | None, port: int | None
) -> None:
    """Load the model and show the page until interrupted.

    Args:
        model: Folder or repository: a DKD checkpoint or a stock dual encoder. None of its code is run, for this
            package has its own.
        revision: Commit of a repository.
        template: Prompt that the page starts with; None: one that fits the model.
        frames: Frames taken from each clip.
        host: Address to listen on; None: GRADIO_SERVER_NAME, or this machine alone.
        port: None: GRADIO_SERVER_PORT, or the first free one from 7860.

    Raises:
        ValueError: There is no such model, it is no dual encoder, or the template has no place for the label.
        ModuleNotFoundError: gradio is not installed.
    """
    if find_spec("gradio") is None:  # before the model is loaded
        raise ModuleNotFoundError("no gradio", name="gradio")
    import torch

    from ..data.prompts import SINGLE_TEMPLATE
    from ..embedding.clip_encoder import ClipEncoder
    from .clip_folders import ClipFolders
    from .comparison import ClipComparer
    from .comparison_html import CSS
    from .example_clips import make_examples
    from .upload_decoding import MAX_BYTES
    from .visitor_process import MAX_MEMORY_BYTES, VisitorProcess

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = ClipEncoder.load(model, f"{frames}x1x1", revision, torch.float32, device)
    is_embedded = Path(model).resolve() == CHECKPOINT
    with tempfile.TemporaryDirectory(prefix="dkd-space-") as folder:
        # Read when gradio is imported; nothing about visitors leaves this machine.
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "uploads")
        import gradio as gr

        from ..recognition.encoder import ModelChoice
        from .clip_jobs import ClipJobs
        from .page import build_page

        # So that the folder is deleted and the decoding process ends.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        examples = make_examples(Path(folder) / "examples")
        template = template or (examples.template if is_embedded else SINGLE_TEMPLATE)
        # The process loads the model, too, for which memory is needed twice.
        process = VisitorProcess(MAX_MEMORY_BYTES + 2 * encoder.model.get_memory_footprint())
        comparer = ClipComparer(encoder, process)
        model = str(Path(model).resolve()) if Path(model).exists() else model
        jobs = ClipJobs(ModelChoice(model, frames, revision), process)
        folders = ClipFolders(Path(folder) / "clips")
        folders.watch()
        try:
            # What is slow the first time, and what does not work at all, shows before anybody visits.
            comparer.compare(comparer.open_clip(examples.shown[0][0]), examples.labels, template, None)
            jobs.load()
            page = build_page(comparer, jobs, folders, examples, template)
            page.launch(
                server_name=host,
                server_port=port,
                share=False,
                inbrowser=False,
                max_file_size=MAX_BYTES,
                state_session_capacity=200,
                footer_links=[],
                run_history=False,
                ssr_mode=False,
                mcp_server=False,
                enable_monitoring=False,
                # Fonts of the visitor's own system, so that none are fetched.
                theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
                css=CSS,
            )
        finally:
            process.close()


def export_space(folder: Path) -> None:
    """Write everything that the Space needs into a folder: its files, this package and the embedded checkpoint.

    Raises:
        ValueError: The folder is there already and not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; give a new folder")
    leave_out = shutil.ignore_patterns("__pycache__", HUB_CONFIGS.name)
    shutil.copytree(HUB_CONFIGS / "space", folder, dirs_exist_ok=True, ignore=leave_out)
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=leave_out)
    checkpoint = folder / HUB_CONFIGS.name / CHECKPOINT.name
    shutil.copytree(CHECKPOINT, checkpoint, ignore=leave_out)
    copy_code(checkpoint)


def build_parser() -> OneLineParser:
    """All options."""
    parser = OneLineParser(
        "dkd space", "Show a page on which people try plain zero-shot and DKD on clips of their own."
    )
    parser.add_argument(
        "--model",
        default=str(CHECKPOINT),
        help="folder or Hub repository of a DKD checkpoint or of a stock dual encoder (default: the embedded one)",
    )
    parser.add_argument("--revision", help="commit of the repository; pin it, so that the page stays what it is")
    parser.add_argument("--template", help="prompt that the page starts with, {} being the label")
    parser.add_argument(
        "--frames", type=int, default=DEFAULT_FRAMES, help="frames of each clip (default: %(default)s)"
    )
    parser.add_argument("--host", help="address to listen on (default: this machine alone)")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860")
    parser.add_argument(
        "--export", type=Path, metavar="FOLDER", help="write what to push as a Space, and show nothing"
    )
    return parser
