"""Example clips of the Space, made by the project itself."""

from dataclasses import dataclass
from pathlib import Path

from ..synthetic.clips import ACTIONS, DEFAULT_TARGET, generate_clips


NUM_SHOWN = 6
NUM_DOMAIN = 60


@dataclass(frozen=True)
class ExampleClips:
    """Clips to pick.

    Attributes:
        shown: Files to classify, and what each shows.
        domain: Unlabelled files of the same domain.
        labels: What can be seen in them.
        template: Prompt that fits the labels.
    """

    shown: list[tuple[Path, str]]
    domain: list[Path]
    labels: list[str]
    template: str


def make_examples(folder: Path) -> ExampleClips:
    """Write the clips of the default target domain into a folder; takes about a second."""
    clips = list(generate_clips(folder, DEFAULT_TARGET, NUM_DOMAIN + 40, seed=11))
    domain, rest = clips[:NUM_DOMAIN], clips[NUM_DOMAIN:]
    of_action = {description.action: path for path, description in reversed(rest)}
    shown = [(of_action[action], action) for action in ACTIONS if action in of_action][:NUM_SHOWN]
    return ExampleClips(shown, [path for path, _ in domain], list(ACTIONS), "something {}")
