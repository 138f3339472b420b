"""SIGKILL at random moments of embedding, fitting, training, publishing; the next run must end as if undisturbed."""

import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from tests.hub.local_hub import LocalHub

from .runs import (
    REPO_ID,
    Operation,
    compare,
    digest,
    embedding,
    make_material,
    publish_again,
    publish_once,
    published_in,
    training,
)
from .trials import LOST, SURVIVED, WRONG_MESSAGE, Child, Trial, Verdict, in_child


ROOT = Path(__file__).resolve().parents[1]


def import_what_is_needed(call: Callable[[], Any]) -> None:
    """Import here what a call imports in a child, so that those forked later need not."""
    before = set(sys.modules)

    def modules() -> list[str]:
        call()
        return [name for name in sys.modules if name not in before]

    ended = in_child(modules)
    for name in ended.value if ended.how == "returned" else ():
        with suppress(Exception):  # some modules exist only under the names that others give them
            importlib.import_module(name)


def undisturbed(operation: Operation, folder: Path) -> tuple[dict[str, Any], float]:
    """What a run leaves that nothing happens to, and how many seconds it takes."""
    (folder / "first").mkdir(parents=True)
    import_what_is_needed(lambda: operation.run(folder / "first", False))
    started = time.monotonic()
    ended = in_child(lambda: operation.run(folder, False))
    seconds = time.monotonic() - started
    if ended.how != "returned" or ended.value != 0:
        raise RuntimeError(f"{operation.name} fails undisturbed: {ended.how} {ended.value} {ended.shown[-2000:]}")
    return json.loads(json.dumps(operation.left(folder))), seconds


def kill_after(child: Child, seconds: float) -> None:
    """SIGKILL to the process alone, as the kernel does it when memory is short."""
    time.sleep(seconds)
    with suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGKILL)
    child.wait(60)


def killed_and_resumed(
    operation: Operation, expected: dict[str, Any], moments: tuple[float, ...], scratch: Path
) -> Verdict:
    """Kill the run at these seconds of its attempts, then let it come to its end."""
    for attempt, moment in enumerate(moments):
        kill_after(Child(partial(operation.run, scratch, attempt > 0)), moment)
    ended = in_child(lambda: operation.run(scratch, True))
    return compare(operation, ended, scratch, expected)


def killed_while_publishing(folder: Path, moment: float, scratch: Path) -> Verdict:
    """Kill a publication; the branch must hold nothing or everything, and everything after the next."""
    expected = {p.relative_to(folder).as_posix(): digest(p) for p in folder.rglob("*") if p.is_file()}
    with LocalHub() as hub:
        kill_after(Child(lambda: publish_once(hub, folder)), moment)
        there = published_in(hub)
        if there and there != expected:
            return Verdict(LOST, f"a revision with {len(there)} of {len(expected)} files")
        ended = in_child(lambda: publish_again(hub, folder))
        if ended.how != "returned":
            return Verdict(WRONG_MESSAGE, f"{ended.how} {ended.value}")
        return Verdict(SURVIVED) if published_in(hub) == expected else Verdict(LOST, "other files than the folder has")


def model_to_publish(scratch: Path) -> Path:
    """A finished model whose card names the repository."""
    folder = scratch / "tiny"
    shutil.copytree(ROOT / "hub_configs" / "dkd-tiny", folder, ignore=shutil.ignore_patterns("__pycache__"))
    card = folder / "README.md"
    card.write_text(card.read_text(encoding="utf-8").replace("hub_configs/dkd-tiny", REPO_ID), encoding="utf-8")
    return folder


def kill_trials(count: int, seed: int, scratch: Path) -> dict[str, list[tuple[str, Trial]]]:
    """`count` kills of each operation, at moments spread over its undisturbed time; a third are killed twice."""
    rng = random.Random(seed)
    material = make_material(scratch)
    trials: dict[str, list[tuple[str, Trial]]] = {}
    for operation in (embedding(material), training(material, epochs=0), training(material, epochs=3)):
        expected, seconds = undisturbed(operation, scratch / operation.name)
        trials[operation.name] = []
        for number in range(count):
            moments = tuple(seconds * rng.random() for _ in range(1 + (number % 3 == 2)))
            name = f"{number} after {', '.join(f'{moment:.3f}' for moment in moments)} of {seconds:.3f} s"
            trials[operation.name].append((name, partial(killed_and_resumed, operation, expected, moments)))
    folder = model_to_publish(scratch)
    with LocalHub() as hub:
        import_what_is_needed(lambda: publish_once(hub, folder))
    started = time.monotonic()
    with LocalHub() as hub:
        ended = in_child(lambda: publish_once(hub, folder))
    if ended.how != "returned":
        raise RuntimeError(f"publish fails undisturbed: {ended}")
    seconds = time.monotonic() - started
    moments_of = [seconds * rng.random() for _ in range(count)]
    trials["publish"] = [
        (f"{number} after {moment:.3f} of {seconds:.3f} s", partial(killed_while_publishing, folder, moment))
        for number, moment in enumerate(moments_of)
    ]
    return trials
