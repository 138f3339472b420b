"""Malformed configurations, split lists, CSV files, prompts, results and checkpoints' notes, read by their readers."""

import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from modeling_dkd.data.official_splits import read_hmdb51_split, read_ucf101_split
from modeling_dkd.data.prompts import class_prompts, description_prompts, load_templates
from modeling_dkd.data.video_index import csv_index
from modeling_dkd.embedding.clip_encoder import ClipEncoder
from modeling_dkd.hub.card_facts import read_facts, read_options
from modeling_dkd.hub.card_update import read_texts, updated
from modeling_dkd.hub.measured_rows import newest_rows, read_folder
from modeling_dkd.training.config import load_config

from .trials import LOST, SURVIVED, Trial, Verdict, read_or_refused


ROOT = Path(__file__).resolve().parents[1]
CLASS_NAMES = ["BasketballDunk", "brush_hair", "Punch"]


class Text(NamedTuple):
    """A kind of file: where it lies in its folder, a sound one, what reads the folder, words that place a fault.

    Attributes:
        path: Inside the folder that `read` is given.
        sound: Contents of a good one.
        read: Reads it as the commands do.
        places: Any of these in a message says where the fault is; the file's name always does.
    """

    path: str
    sound: str
    read: Callable[[Path], Any]
    places: tuple[str, ...] = ()


def ucf101_lists() -> dict[str, str]:
    """Lists with the official counts, of made-up clips."""
    classes = [f"Class{k:03d}" for k in range(101)]
    lists = {"classInd.txt": "".join(f"{k + 1} {name}\n" for k, name in enumerate(classes))}
    for part, count, first in (("train", 9537, 0), ("test", 3783, 500)):
        names = [
            f"{classes[i % 101]}/v_{classes[i % 101]}_g{i % 25:02d}_c{first + i // 101:03d}.avi" for i in range(count)
        ]
        label = (lambda i: f" {i % 101 + 1}") if part == "train" else (lambda i: "")
        lists[f"{part}list01.txt"] = "".join(f"{name}{label(i)}\n" for i, name in enumerate(names))
    return lists


def hmdb51_lists() -> dict[str, str]:
    """51 lists with the official counts, of made-up clips."""
    lines: dict[str, list[str]] = {name: [] for name in ("brush_hair", *(f"class_{k:02d}" for k in range(50)))}
    tags = ["1"] * 3570 + ["2"] * 1530 + ["0"] * 1666
    for i, tag in enumerate(tags):
        name = list(lines)[i % 51]
        lines[name].append(f"clip_{name}_{i}.avi {tag} \n")
    return {f"{name}_test_split1.txt": "".join(rows) for name, rows in lines.items()}


def read_csv(folder: Path) -> None:
    """As evaluate.py reads it, with two of its clips there."""
    for number in range(2):
        (folder / "clips").mkdir(exist_ok=True)
        (folder / f"clips/{number}.avi").touch()
    csv_index(folder / "clips.csv", allow_missing=True)


def load_model(folder: Path) -> None:
    """As evaluate.py and train.py load it."""
    ClipEncoder.load(str(folder), "4x1x1", None, torch.float32, torch.device("cpu"))


def texts(hub_folder: Path) -> list[Text]:
    """Every kind of text that is read; those of a model lie in a copy of `hub_folder`."""
    from .checkpoints import progress_text, read_progress

    recipe = (ROOT / "hub_configs/clip-vit-b32-ucf101.yaml").read_text(encoding="utf-8")
    described = json.dumps({name: [f"{name} in a hall", "a person"] for name in CLASS_NAMES})
    listed = json.dumps([{"class": name, "description": f"somebody doing {name}"} for name in CLASS_NAMES])
    rows = "".join(f"clips/{n}.avi,{CLASS_NAMES[n % 3]},g{n},{('train', 'test')[n % 2]}\n" for n in range(9))
    options = (*yaml.safe_load(recipe), "section.option")
    ucf, hmdb = ucf101_lists(), hmdb51_lists()
    results = next((hub_folder / "results").glob("*.json"))
    entry = next((hub_folder / ".eval_results").glob("*.yaml"))
    card = partial(read_facts, repo_id="owner/tiny")

    def inside(path: Path) -> tuple[str, str]:
        return path.relative_to(hub_folder).as_posix(), path.read_text(encoding="utf-8")

    def update(folder: Path) -> None:
        updated(read_texts(folder), json.loads(results.read_text(encoding="utf-8")))

    return [
        Text("config.yaml", recipe, lambda folder: load_config(folder / "config.yaml"), options),
        Text("options.yaml", recipe, lambda folder: read_options(folder / "options.yaml")),
        Text("templates.json", json.dumps(["a photo of {}.", "{} in a hall."]), _templates("templates.json")),
        Text("templates.txt", "a photo of {}.\n{} in a hall.\n", _templates("templates.txt")),
        Text("described.json", described, lambda f: description_prompts(CLASS_NAMES, f / "described.json")),
        Text("listed.json", listed, lambda f: description_prompts(CLASS_NAMES, f / "listed.json")),
        Text("clips.csv", f"path,label,group,split\n{rows}", read_csv, ("clips are missing under",)),
        *(
            Text(name, text, partial(_lists, ucf, read_ucf101_split), ("classInd.txt", "list01.txt", "UCF101"))
            for name, text in ucf.items()
        ),
        Text(
            "brush_hair_test_split1.txt",
            hmdb["brush_hair_test_split1.txt"],
            partial(_lists, hmdb, read_hmdb51_split),
            ("test_split1.txt", "HMDB51"),
        ),
        Text(*inside(results), lambda folder: newest_rows(read_folder(folder))),
        Text(*inside(results), update),
        Text(*inside(entry), update),
        Text(*inside(hub_folder / "README.md"), update, ("the metadata of the card",)),
        Text(*inside(hub_folder / "config.json"), card),
        Text(*inside(hub_folder / "training_config.json"), card),
        Text(*inside(hub_folder / "class_prompts.json"), card),
        *(
            Text(*inside(hub_folder / name), load_model, ("cannot load the model",))
            for name in ("config.json", "processor_config.json", "tokenizer_config.json")
        ),
        Text(
            "checkpoints/step-00000003-epoch-0001/progress.json", progress_text(), read_progress, ("was started with",)
        ),
    ]


def _templates(name: str) -> Callable[[Path], Any]:
    """Reads templates and fills them."""
    return lambda folder: class_prompts(CLASS_NAMES, load_templates(folder / name))


def _lists(sound: dict[str, str], read: Callable[[Path, int], Any], folder: Path) -> None:
    """Read split lists of which one is damaged and the others are sound."""
    for name, text in sound.items():
        if not (folder / name).exists():
            (folder / name).write_text(text, encoding="utf-8")
    read(folder, 1)


def change_bytes(data: bytes, rng: random.Random) -> bytes:
    """Cut, flip, insert or repeat anywhere."""
    changed = bytearray(data)
    at = rng.randrange(len(changed) + 1)
    how = rng.randrange(5)
    if how == 0:
        del changed[at:]
    elif how == 1:
        for _ in range(rng.choice((1, 5, 50))):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    elif how == 2:
        changed[at:at] = rng.choice(HOSTILE).encode("utf-8", "surrogatepass")
    elif how == 3:
        changed[at:at] = changed[: rng.randrange(200)]
    else:
        del changed[at : at + rng.choice((1, 20, 300))]
    return bytes(changed)


def change_token(data: bytes, rng: random.Random) -> bytes:
    """One word, number or value in the place of another, or twice."""
    lines = data.decode().splitlines(keepends=True)
    number = rng.randrange(len(lines))
    line = lines[number].rstrip("\r\n")
    for mark in (": ", ",", " ", "/"):
        if mark in line:
            parts = line.split(mark)
            parts[rng.randrange(len(parts))] = rng.choice(VALUES)
            line = mark.join(parts)
            break
    else:
        line = rng.choice(VALUES)
    lines[number] = f"{line}\n" * rng.choice((1, 1, 2))
    return "".join(lines).encode("utf-8", "surrogatepass")


def change_value(data: bytes, rng: random.Random) -> bytes:
    """Another value somewhere inside a JSON or YAML document, or an entry more or less."""
    try:
        content = json.loads(data) if data[:1] in b"[{" else yaml.safe_load(data)
    except (ValueError, yaml.YAMLError):
        return change_bytes(data, rng)
    spots: list[tuple[Any, Any]] = []
    pending = [content]
    while pending:
        value = pending.pop()
        if isinstance(value, dict | list):
            keys = list(value) if isinstance(value, dict) else list(range(len(value)))
            spots += [(value, key) for key in keys]
            pending += [value[key] for key in keys]
    if not spots:
        return change_token(data, rng)
    holder, key = rng.choice(spots)
    how = rng.randrange(6)
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder, dict):
        holder[rng.choice(("", "unknown", "0", "__class__", "a" * 300))] = holder[key]
    else:
        holder[key] = rng.choice(OBJECTS)
    return json.dumps(content, default=str).encode("utf-8", "surrogatepass")


HOSTILE = (
    "\0",
    "\ufeff",
    "\ud800",
    "{" * 3000,
    "[" * 100_000,
    "- " * 3000,
    "\n\n\n",
    "\t",
    "\r",
    "\x1b[2J",
    "${HOME}",
    "%s%n",
    "!!python/object/apply:os.system ['true']",
    "&a [*a]",
    "&x [1]\n? *x\n: 2",
    "2001-99-99",
    "*missing",
    "<<: 3",
    "9" * 5000,
    "1e999",
    ".nan",
    "-.inf",
    "'",
    '"',
    "\\",
    "{{ 7*7 }}",
    "<script>",
    "../../etc/passwd",
    "🎬" * 50,
)
VALUES = (
    "",
    "null",
    "true",
    "no",
    "-1",
    "0",
    "1e400",
    ".nan",
    ".inf",
    "-.inf",
    "3.5",
    "9" * 400,
    "9" * 5000,
    "[]",
    "{}",
    "[1, [2]]",
    "2001-99-99",
    "2001-01-01",
    "!!binary aGk=",
    "!!set {a}",
    "../../../etc/passwd",
    "/etc/passwd",
    "a\0b",
    "x" * 3000,
    "é{}{}",
)
OBJECTS: tuple[Any, ...] = (
    None,
    True,
    False,
    -1,
    0,
    1,
    1.5,
    -1e300,
    10**400,
    float("nan"),
    float("inf"),
    "",
    " ",
    "text",
    "1e-3",
    "a\0b",
    "\ud800",
    "../..",
    [],
    [None],
    [[1]],
    ["a", "a"],
    {},
    {"a": {"b": 1}},
    {"": None},
    "x" * 5000,
    "<img src=x>",
)
CHANGES = (change_bytes, change_token, change_value, change_value)


def read_changed(text: Text, changed: bytes, hub_folder: Path, scratch: Path) -> Verdict:
    """Read one changed file in its folder; the file itself must stay as it is."""
    path = scratch / text.path
    if (hub_folder / text.path).exists():
        for source in hub_folder.rglob("*"):
            target = scratch / source.relative_to(hub_folder)
            target.mkdir(parents=True, exist_ok=True) if source.is_dir() else target.symlink_to(source)
        path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(changed)
    verdict = read_or_refused(lambda: text.read(scratch), path.name, *text.places)
    if text.path.startswith("checkpoints/"):
        return verdict
    return verdict if path.read_bytes() == changed else Verdict(LOST, f"{path.name} was changed by reading it")


def malformed_texts(count: int, seed: int) -> Iterator[tuple[str, Trial]]:
    """`count` changed files, each kind in turn."""
    rng = random.Random(seed)
    hub_folder = ROOT / "hub_configs/dkd-tiny"
    kinds = texts(hub_folder)
    for number in range(count):
        text = kinds[number % len(kinds)]
        change = rng.choice(CHANGES)
        changed = change(text.sound.encode(), rng)
        yield f"{number} {text.path} {change.__name__}", partial(read_changed, text, changed, hub_folder)


def sound_texts() -> Iterator[tuple[str, Trial]]:
    """Every kind unchanged: a reader that refuses all would survive all."""
    hub_folder = ROOT / "hub_configs/dkd-tiny"
    for text in texts(hub_folder):
        yield text.path, partial(_read_sound, text, hub_folder)


def _read_sound(text: Text, hub_folder: Path, scratch: Path) -> Verdict:
    read_changed(text._replace(read=lambda folder: None), text.sound.encode(), hub_folder, scratch)
    text.read(scratch)
    return Verdict(SURVIVED)
