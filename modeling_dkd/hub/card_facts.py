"""What a model card states, read from the files of a repository folder: nothing in it is typed by hand.

facts = read_facts(Path("runs/clip-vit-b16-ucf101"), "dkd/clip-vit-b16-ucf101")
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..data.plain_files import read_json, read_text, read_yaml
from ..domain_card import clips_per_class
from .measured_rows import (
    RESULTS_FILE,
    MeasuredRow,
    SearchRow,
    newest_rows,
    newest_search_rows,
    read_folder,
    rows_of,
)


MODEL_TYPE = "dkd_clip"
PROMPTS_FILE = "class_prompts.json"
# Prose of the author that no file of the repository can tell; goes into the card as it is.
NOTES_FILE = "card_notes.md"
FIGURES_FOLDER = "figures"
RECIPE_FILES = ("training_config.yaml", "training_config.json")
HEAD = "head."


@dataclass(frozen=True)
class DomainFacts:
    """The domain that the head carries.

    Attributes:
        dataset: Data set and split it was fitted on, and how; None where no file tells.
        num_samples: Clips it was fitted on.
        num_labelled: Of these, clips whose label was used.
        classes: (class name, clips by its share of the mixture, strength with which its text was moved), or
            (component, clips, None) for a domain without class texts.
        num_bytes: Of its tensors.
    """

    dataset: str | None
    num_samples: int
    num_labelled: int
    classes: tuple[tuple[str, float, float | None], ...]
    num_bytes: int

    @property
    def num_unsupported(self) -> int:
        """Classes that less than one clip speaks for."""
        return sum(clips < 1 for _, clips, _ in self.classes)


@dataclass(frozen=True)
class CardFacts:
    """Everything that the template shows.

    Attributes:
        repo_id: What `from_pretrained` is given.
        backbone: What the encoders are: a Hub repository, or the architecture alone.
        base_model: The Hub repository that the weights come from; None where there is none or it is not known.
        trained_from_nothing: Whether the weights were made by this project alone.
        model_type: transformers' name of the architecture.
        projection_dim: D.
        num_parameters: Of the encoders.
        num_bytes: Of all weight files.
        num_frames: Frames that the processor takes of a clip.
        head: Options of the head.
        domain: What was fitted; None for a head without a domain.
        prompts: Class name -> the texts that stand for it, of the classes that it was trained on; empty where the
            repository holds none.
        recipe: Training options, flattened; empty where the weights were not trained here.
        epochs: Of fine-tuning; None where no recipe is recorded.
        rows: What was measured, the model's own and what stands beside it.
        searches: The same of search by text.
        figures: Pictures of it, as paths inside the repository.
        notes: The author's prose.
    """

    repo_id: str
    backbone: str
    base_model: str | None
    trained_from_nothing: bool
    model_type: str
    projection_dim: int
    num_parameters: int
    num_bytes: int
    num_frames: int | None
    head: Mapping[str, Any]
    domain: DomainFacts | None
    prompts: Mapping[str, Sequence[str]]
    recipe: Mapping[str, Any]
    epochs: int | None
    rows: tuple[MeasuredRow, ...]
    searches: tuple[SearchRow, ...]
    figures: tuple[str, ...]
    notes: str

    @property
    def name(self) -> str:
        """The repository's name without its owner."""
        return self.repo_id.rsplit("/", 1)[-1]

    @property
    def origin(self) -> str:
        """What it is, as the beginning of a sentence; the names in it hold nothing that Markdown reads otherwise."""
        if self.base_model:
            return f"[{self.base_model}](https://huggingface.co/{self.base_model}) as a video action recogniser"
        return f"A dual encoder (`{self.model_type}`) as a video action recogniser"

    @property
    def seconds(self) -> float | None:
        """Longest fit and test of DKD in the rows; None where it was not measured."""
        measured = [row.seconds for row in self.rows if row.method == "dkd" and row.seconds]
        return max(measured, default=None)

    @property
    def example_labels(self) -> list[str]:
        """Labels that an example asks for."""
        return list(self.prompts)[:3] or ["swimming", "skydiving", "archery"]

    @property
    def example_template(self) -> str:
        """The wording around them: that of the first prompt, where all of these labels share one."""
        wordings = {self.prompts[name][0].replace(name, "{}") for name in self.example_labels if name in self.prompts}
        wording = wordings.pop() if len(wordings) == 1 else ""
        return wording if wording.count("{}") == 1 else "a video of a person {}."

    @property
    def bytes_with_100_classes(self) -> int:
        """Of a domain saved alone, about: two matrices (D, D) and six vectors (D,) for each class, float32."""
        dim = self.projection_dim
        return 4 * (2 * dim * dim + 6 * 100 * dim)

    @property
    def has_class_domain(self) -> bool:
        """Whether the components of the domain are classes."""
        return self.domain is not None and any(strength is not None for _, _, strength in self.domain.classes)


def read_facts(folder: Path, repo_id: str) -> CardFacts:
    """Facts of a folder as `train.py` or `save_pretrained` leave it.

    Args:
        folder: Holds config.json and safetensors weights of a DKD model.
        repo_id: What the card calls it.

    Raises:
        ValueError: There is no DKD model in the folder, or one of its files cannot be read.
    """
    config = _read_json(folder / "config.json")
    if config.get("model_type") != MODEL_TYPE:
        raise ValueError(f"{folder} holds a {config.get('model_type')} model, not a {MODEL_TYPE} one")
    recipe = _recipe(folder)
    files = read_folder(folder)
    backbone_config = config.get("backbone_config") or {}
    trained_here = str((recipe.get("model") or {}).get("backbone") or "")
    # A Hub repository has an owner and a name; of folders on somebody's disk train.py keeps the name alone.
    base_model = trained_here if re.fullmatch(r"[\w.-]+/[\w.-]+", trained_here) else None
    num_parameters, weight_bytes, head = _weights(folder)
    own = rows_of(files[RESULTS_FILE], RESULTS_FILE) if RESULTS_FILE in files else []
    return CardFacts(
        repo_id=repo_id,
        backbone=base_model or f"{backbone_config.get('model_type')} dual encoder",
        base_model=base_model,
        trained_from_nothing=bool(recipe) and "model" not in recipe,
        model_type=str(backbone_config.get("model_type")),
        projection_dim=config["projection_dim"],
        num_parameters=num_parameters,
        num_bytes=weight_bytes,
        num_frames=_num_frames(folder),
        head={name: config.get(name) for name in ("video_strength", "num_svgd_steps", "svgd_kernel")},
        domain=_domain(config, head, own[-1] if own else None),
        prompts=_read_json(folder / PROMPTS_FILE) if (folder / PROMPTS_FILE).is_file() else {},
        recipe=flattened(recipe),
        epochs=(recipe.get("recipe") or {}).get("epochs"),
        rows=tuple(newest_rows(files)),
        searches=tuple(newest_search_rows(files)),
        figures=tuple(path.relative_to(folder).as_posix() for path in sorted(folder.glob(f"{FIGURES_FOLDER}/*.png"))),
        notes=_notes(folder),
    )


def _domain(config: Mapping[str, Any], head: Mapping[str, Any], own: MeasuredRow | None) -> DomainFacts | None:
    """The fitted head as clips a class; None where it was never fitted."""
    if "weights" not in head or not float(head["weights"].sum()) > 0:
        return None
    num_clips, num_labelled, clips = clips_per_class(head)
    anchored = float(head["anchored"]) > 0
    strengths = head["class_strength"].tolist() if anchored else [None] * len(clips)
    names = [config["id2label"].get(str(k), f"class {k}") if anchored else f"component {k}" for k in range(len(clips))]
    return DomainFacts(
        dataset=None if own is None else f"{own.data['name']}: {own.data.get('domain')}",
        num_samples=round(num_clips),
        num_labelled=round(num_labelled),
        classes=tuple(zip(names, clips, strengths, strict=True)),
        num_bytes=sum(tensor.numel() * tensor.element_size() for tensor in head.values()),
    )


def _weights(folder: Path) -> tuple[int, int, dict[str, Any]]:
    """Parameters of the encoders, bytes of the files, and the head's tensors by their names in the head."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder} holds no *.safetensors: save the model with save_pretrained")
    num_parameters, head = 0, {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - not a dict
                    if name.startswith(HEAD):
                        head[name.removeprefix(HEAD)] = file.get_tensor(name)
                    else:
                        num_parameters += math.prod(file.get_slice(name).get_shape())
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is no readable safetensors file: {error}") from error
    return num_parameters, sum(path.stat().st_size for path in files), head


def repo_id_of(folder: Path) -> str | None:
    """The repository that a folder is meant for, as its training options say."""
    return _recipe(folder).get("repo_id") or None


def _recipe(folder: Path) -> dict[str, Any]:
    """Options that the weights were trained with; empty where none are recorded."""
    path = next((folder / name for name in RECIPE_FILES if (folder / name).is_file()), None)
    return {} if path is None else read_options(path)


def read_options(path: Path) -> dict[str, Any]:
    """Options in a YAML or JSON file.

    Raises:
        ValueError: It cannot be read or holds none.
    """
    content = read_yaml(path)  # JSON is YAML
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no options")
    return content


def flattened(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options as section.option -> value, without those that are empty."""
    flat: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{name}.")
        elif value not in (None, "", []):
            flat[f"{prefix}{name}"] = value
    return flat


def _num_frames(folder: Path) -> int | None:
    path = folder / "processor_config.json"
    return _read_json(path).get("num_frames") if path.is_file() else None


def _notes(folder: Path) -> str:
    path = folder / NOTES_FILE
    return read_text(path).strip() if path.is_file() else ""


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file of the repository."""
    if not path.is_file():
        raise ValueError(f"{path.parent} holds no {path.name}: give the folder of a saved model")
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object")
    return content
