"""The Space: a page on which people try DKD on clips of their own.

python -m modeling_dkd.space.app
python -m modeling_dkd.space.app --model openai/clip-vit-base-patch16 --revision COMMIT
python -m modeling_dkd.space.app --export FOLDER    # what to push as a Space
"""

import argparse
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path


REPOSITORY = Path(__file__).resolve().parents[2]
CHECKPOINT = REPOSITORY / "hub_configs" / "dkd-tiny"
SPACE = REPOSITORY / "hub_configs" / "space"
DEFAULT_FRAMES = 8


def main(argv: list[str] | None = None) -> int:
    """Command line of the Space; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.export is not None:
            export_space(arguments.export)
            print(
                f"written: {arguments.export}; push it with: hf upload YOU/NAME {arguments.export} --repo-type space"
            )
            return 0
        serve(
            arguments.model,
            arguments.revision,
            arguments.template,
            arguments.frames,
            arguments.host,
            arguments.port,
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
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
        ValueError: There is no such model, it is no dual encoder, the template has no place for the label, or
            gradio is not installed.
    """
    if importlib.util.find_spec("gradio") is None:
        raise ValueError('the page needs gradio; run: pip install "modeling-dkd[space]"')
    import torch

    from ..data.prompts import SINGLE_TEMPLATE
    from ..embedding.clip_encoder import ClipEncoder
    from .comparison import ClipComparer
    from .comparison_html import CSS
    from .example_clips import make_examples
    from .upload_decoding import MAX_BYTES

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = ClipEncoder.load(model, f"{frames}x1x1", revision, torch.float32, device)
    is_embedded = Path(model).resolve() == CHECKPOINT
    with tempfile.TemporaryDirectory(prefix="dkd-space-") as folder:
        # Read when gradio is imported; nothing about visitors leaves this machine.
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "uploads")
        import gradio as gr

        from .page import build_page

        # So that the folder is deleted and the decoding process ends.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        examples = make_examples(Path(folder) / "examples")
        template = template or (examples.template if is_embedded else SINGLE_TEMPLATE)
        comparer = ClipComparer(encoder)
        try:
            # What is slow the first time, and what does not work at all, shows before anybody visits.
            comparer.compare(comparer.open_clip(examples.shown[0][0]), examples.labels, template, None)
            page = build_page(comparer, examples, template)
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
            comparer.close()


def export_space(folder: Path) -> None:
    """Write everything that the Space needs into a folder: its files, this package and the embedded checkpoint.

    Raises:
        ValueError: The folder is there already and not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; give a new folder")
    leave_out = shutil.ignore_patterns("__pycache__")
    shutil.copytree(SPACE, folder, dirs_exist_ok=True, ignore=leave_out)
    shutil.copytree(Path(__file__).resolve().parents[1], folder / "modeling_dkd", ignore=leave_out)
    shutil.copytree(CHECKPOINT, folder / CHECKPOINT.relative_to(REPOSITORY), ignore=leave_out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m modeling_dkd.space.app",
        description="Show a page on which people try plain zero-shot and DKD on clips of their own.",
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


if __name__ == "__main__":
    sys.exit(main())
