"""The console script `dkd`, which is also `python -m modeling_dkd`: hands each command to the room it belongs to.

A command is a module with `main(argv) -> exit code` that imports nothing slow before it has read its arguments.
"""

import sys
from importlib import import_module


# Command: module, what it does.
COMMANDS = {
    "recognise": ("recognition.recognise_command", "label clips that nobody has labelled, and a report to look at"),
    "watch": ("recognition.watch_command", "label files as they arrive in a folder; the domain learns"),
    "evaluate": ("evaluation.command", "measure DKD against plain zero-shot, on embeddings or on videos"),
    "train": ("training.command", "fine-tune on a data set"),
    "demo": ("synthetic.demo", "zero-shot beside DKD on made-up clips of shifted domains"),
    "timeline": ("recognition.timeline_command", "what is seen when in long videos: captions, tables, a page"),
    "search": ("recognition.search_command", "the clips or moments that match a text best"),
    "suggest": ("recognition.suggest_command", "which clips to label next"),
    "space": ("space.app", "a page in the browser to try it on clips of your own"),
    "hub": ("hub.__main__", "cards, publishing, embeddings as data sets"),
}


def main(argv: list[str] | None = None) -> int:
    """Run a command; its exit code, 2 where there is no such command."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] not in COMMANDS:
        print(f"error: there is no command {argv[0]!r}; see dkd --help", file=sys.stderr)
        return 2
    module, _ = COMMANDS[argv[0]]
    return import_module(f".{module}", __package__).main(argv[1:])


def usage() -> str:
    """What `dkd --help` shows."""
    width = max(map(len, COMMANDS))
    lines = [f"  dkd {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "usage: dkd COMMAND [--help] ...\n\n" + "\n".join(lines)
