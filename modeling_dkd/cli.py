"""The console script `dkd`, which is also `python -m modeling_dkd`: hands each command to the room it belongs to.

A command is a module with `main(argv) -> exit code` that imports nothing slow before it has read its arguments. What
its user has to change it raises as ValueError or OSError; that becomes one line and exit code 2 here.
"""

import os
import sys
from importlib import import_module


# Command: module, what it does.
COMMANDS = {
    "recognise": ("recognition.recognise_command", "label clips that nobody has labelled, and a report to look at"),
    "timeline": ("recognition.timeline_command", "what is seen when in long videos: captions, tables, a page"),
    "search": ("recognition.search_command", "the clips or moments that match a text best"),
    "watch": ("recognition.watch_command", "label files as they arrive in a folder; the domain learns"),
    "suggest": ("recognition.suggest_command", "which clips to label next"),
    "evaluate": ("evaluation.command", "measure DKD against plain zero-shot, on embeddings or on videos"),
    "train": ("training.command", "fine-tune on a data set"),
    "export": ("interop.export_command", "a model and its domain as graphs for ONNX or OpenVINO"),
    "demo": ("synthetic.demo_command", "zero-shot beside DKD on made-up clips of shifted domains"),
    "space": ("space.app", "a page in the browser to try it on clips of your own"),
    "mteb": ("interop.mteb_command", "zero-shot video classification of mteb, plain and with DKD"),
    "card": ("hub.card_command", "write a model's card from what was measured"),
    "publish": ("hub.publish_command", "show what would be published of a model, or publish it"),
    "publish-domain": ("hub.publish_domain_command", "the same of a saved domain, without its encoder"),
    "publish-embeddings": ("hub.publish_embeddings_command", "the same of embeddings, as a data set"),
    "fetch-embeddings": ("hub.fetch_embeddings_command", "make a published data set of embeddings a file again"),
}
# Room, or a module of its own: the extra that brings the libraries of its commands.
EXTRAS = {
    "evaluation": "eval",
    "hub": "hub",
    "interop.export_command": "export",
    "interop.mteb_command": "mteb",
    "recognition": "eval",
    "space": "space",
    "synthetic": "eval",
    "training": "train",
}
SIGPIPE_EXIT_CODE = 141


def main(argv: list[str] | None = None) -> int:
    """Run a command; its exit code, 2 with one line on standard error when the user has to change something.

    When whoever reads the output goes first, as in `dkd --help | head -1`, the command ends without a word, with the
    code that a shell gives to what SIGPIPE has ended.
    """
    try:
        try:
            return _run(sys.argv[1:] if argv is None else argv)
        finally:
            print(end="", flush=True)  # Here: what fails when Python ends can no longer be caught.
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in filter(None, (sys.stdout, sys.stderr)):  # None: it was closed from the start
            os.dup2(nowhere, stream.fileno())
        return SIGPIPE_EXIT_CODE


def _run(argv: list[str]) -> int:
    """Exit code of a command, 2 with one line on standard error when the user has to change something."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] not in COMMANDS:
        return _fail(f"there is no command {argv[0]!r}; see dkd --help")
    module, _ = COMMANDS[argv[0]]
    try:
        return import_module(f".{module}", __package__).main(argv[1:])
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        extra = EXTRAS.get(module, EXTRAS.get(module.partition(".")[0]))
        if extra is None or library in ("", __package__):
            raise
        return _fail(
            f'dkd {argv[0]} needs {library}, which is not installed; run: pip install "modeling-dkd[{extra}]"'
        )
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted")
        return 130


def usage() -> str:
    """What `dkd --help` shows."""
    width = max(map(len, COMMANDS))
    lines = [f"  dkd {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(["usage: dkd COMMAND [--help] ...\n", *lines, "\ndkd COMMAND --help shows options and examples."])


def _fail(message: str) -> int:
    """Exit code of what the user has to change."""
    print(f"error: {message}", file=sys.stderr)
    return 2
