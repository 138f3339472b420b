"""The Hub repository that a run leaves: weights, configuration, processor, code, prompts, options, results, card."""

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..data.prompts import class_prompts, load_templates
from ..evaluation.report import write_results
from ..hub.card_facts import PROMPTS_FILE
from ..hub.card_update import write_card
from ..hub.measured_rows import RESULTS_FILE, publishable
from ..modeling_dkd import DKDCLIPModel
from ..processing_dkd import DKDCLIPProcessor
from .config import TrainingConfig, save_config


def save_repository(
    model: DKDCLIPModel, processor: DKDCLIPProcessor, class_names: Sequence[str], folder: Path
) -> None:
    """Write model, processor and their code into a folder, from which AutoModel and AutoProcessor load them."""
    model.config.id2label = dict(enumerate(class_names))
    model.config.label2id = {name: index for index, name in enumerate(class_names)}
    # A repository must not name the folder that it was made from.
    model.config.name_or_path = ""
    model.backbone.config.name_or_path = ""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def save_best(
    model: DKDCLIPModel,
    weights: dict[str, Tensor],
    processor: DKDCLIPProcessor,
    class_names: Sequence[str],
    folder: Path,
) -> None:
    """As `save_repository`, from a model in training whose weights under their plain names are given."""
    clean = DKDCLIPModel(copy.deepcopy(model.config))
    clean.load_state_dict(weights)
    save_repository(clean, processor, class_names, folder)


def describe_repository(
    config: TrainingConfig, class_names: Sequence[str], contents: dict[str, Any], folder: Path
) -> None:
    """Write what explains a saved model: prompts of its classes, options, results.json and the card.

    What is written here is meant to be published, so folders of this machine are cut down to their names.
    """
    prompts = class_prompts(class_names, load_templates(config.data.templates))
    text = json.dumps(dict(zip(class_names, prompts, strict=True)), indent=1, ensure_ascii=False)
    (folder / PROMPTS_FILE).write_text(text + "\n", encoding="utf-8")
    save_config(_without_folders(config), folder / "training_config.yaml")
    write_results(folder / RESULTS_FILE, publishable(contents))
    write_card(folder, config.repo_id or folder.resolve().name)


def _without_folders(config: TrainingConfig) -> TrainingConfig:
    """The options with the names of folders and files instead of their places."""

    def named(place: str) -> str:
        return Path(place).name if Path(place).exists() else place

    data = config.data
    return replace(
        config,
        model=replace(config.model, backbone=named(config.model.backbone)),
        data=replace(
            data,
            data_dir=data.data_dir and named(data.data_dir),
            annotations=data.annotations and named(data.annotations),
            templates=named(data.templates),
        ),
        run=replace(config.run, output_dir=named(config.run.output_dir)),
    )
