"""The smallest real runs of each command, what they leave, and whether two of them left the same."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from huggingface_hub import HfApi, constants

from modeling_dkd.evaluation.command import main as evaluate
from modeling_dkd.hub.publishing import PublishError, PublishOptions, plan_publication, publish
from modeling_dkd.training.command import main as train
from tests.hub.local_hub import WRITER, LocalHub
from tests.tiny_checkpoint import save_tiny_clip

from .trials import LOST, SURVIVED, WRONG_MESSAGE, Ended, Verdict
from .videos import write_clip


CLASS_NAMES = ("Archery", "Punch", "Surfing")
PER_CLASS = {"train": 4, "test": 2}
MEASURED = ("method", "protocol", "seed", "n", "top1", "top5", "mean_class", "ece")
REPO_ID = "owner/tiny"


@dataclass(frozen=True)
class Material:
    """What every run begins with: a tiny checkpoint and 18 clips, in folders that no run writes to."""

    backbone: Path
    clips: Path


def make_material(folder: Path) -> Material:
    """Write it."""
    seed = 0
    for part, count in PER_CLASS.items():
        for name in CLASS_NAMES:
            for number in range(count):
                write_clip(folder / "clips" / part / name / f"{name}_{number}.avi", "mpeg4", seed, frames=6)
                seed += 1
    return Material(save_tiny_clip(folder / "backbone"), folder / "clips")


class Operation(NamedTuple):
    """A command, run again in the same folder to go on, and what it leaves there.

    Attributes:
        name: Of the operation.
        run: Folder -> exit code; the second argument says that a former run may have been there.
        left: Folder -> name -> digest or figures, the same for every run that has come to its end.
        finished: Words of the refusal to go on with a run that had come to its end.
    """

    name: str
    run: Callable[[Path, bool], Any]
    left: Callable[[Path], dict[str, Any]]
    finished: str = ""


def embedding(material: Material, batch_size: int = 2, num_workers: int = 0) -> Operation:
    """evaluate.py on videos."""

    def run(folder: Path, again: bool) -> int:
        options = {"model": material.backbone, "dataset": "folder", "data_dir": material.clips, "frames": "2x1x1"}
        options |= {"batch_size": batch_size, "num_workers": num_workers, "seeds": 1}
        options |= {"cache_dir": folder / "cache", "output": folder / "results.json"}
        return evaluate([part for name, value in options.items() for part in (f"--{name}", str(value))])

    return Operation("embed", run, lambda folder: caches_in(folder) | figures_in(folder / "results.json"))


def training(material: Material, epochs: int) -> Operation:
    """train.py: a fit of the domain alone with 0 epochs, else a fine-tuning with a checkpoint at every step."""

    def run(folder: Path, again: bool) -> int:
        config = folder / "config.yaml"
        options = {
            "model": {"backbone": str(material.backbone)},
            "data": {"dataset": "folder", "data_dir": str(material.clips), "num_frames": 2, "num_workers": 0}
            | {"test_views": "2x1x1"},
            "recipe": {"epochs": epochs, "batch_size": 6, "learning_rate": 1e-3},
            "run": {"output_dir": str(folder / "run"), "checkpoint_minutes": 0},
        }
        config.write_text(yaml.safe_dump(options), encoding="utf-8")
        return train(["--config", str(config), *(["--resume"] if again else [])])

    def left(folder: Path) -> dict[str, Any]:
        names = ("model.safetensors", "config.json", "class_prompts.json", "processor_config.json")
        output = folder / "run"
        whole = {"card": (output / "README.md").is_file(), "checkpoints": (output / "checkpoints").exists()}
        return {name: digest(output / name) for name in names} | figures_in(output / "results.json") | whole

    return Operation("train" if epochs else "fit", run, left, "holds a finished run")


def digest(path: Path) -> str:
    """SHA-256 of a file; "absent" where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "absent"


def caches_in(folder: Path) -> dict[str, str]:
    """Every finished safetensors file of a cache folder."""
    return {str(path.relative_to(folder)): digest(path) for path in sorted((folder / "cache").rglob("*.safetensors"))}


def figures_in(results: Path) -> dict[str, Any]:
    """The measured figures of a results file, without times."""
    if not results.is_file():
        return {results.name: "absent"}
    rows = json.loads(results.read_text(encoding="utf-8"))["rows"]
    return {results.name: [[row[name] for name in MEASURED] for row in rows]}


def compare(operation: Operation, ended: Ended, folder: Path, expected: dict[str, Any]) -> Verdict:
    """Whether a run came to the result of an undisturbed one, and without a traceback."""
    done = ended.how == "returned" and (ended.value == 0 or (operation.finished and operation.finished in ended.shown))
    if not done or "Traceback" in ended.shown:
        return Verdict(WRONG_MESSAGE, f"{operation.name} {ended.how} {ended.value}: {ended.shown[-600:]}")
    found = json.loads(json.dumps(operation.left(folder)))
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            return Verdict(LOST, f"{operation.name}: {name} is {found.get(name)}, not {expected.get(name)}")
    return Verdict(SURVIVED)


def publish_once(hub: LocalHub, folder: Path, update: bool = False) -> str:
    """Publish a model folder to a Hub on this machine."""
    constants.HF_HUB_DISABLE_XET, constants.HF_HUB_OFFLINE = True, False
    api = HfApi(endpoint=hub.url, token=WRITER)
    return publish(plan_publication(folder, REPO_ID), api, PublishOptions(update=update)).commit


def publish_again(hub: LocalHub, folder: Path) -> str:
    """As a user goes on: the same command, with --update where the Hub holds a whole model already."""
    try:
        return publish_once(hub, folder)
    except PublishError as error:
        if "exists already" not in str(error):
            raise
        return publish_once(hub, folder, update=True)


def published_in(hub: LocalHub) -> dict[str, str]:
    """Digests of the files that the main branch holds, without the one that the Hub makes."""
    repository = hub.repositories.get(("models", REPO_ID))
    files = repository.files("main") if repository else {}
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items() if name != ".gitattributes"}
