"""The Hub repository that a run leaves: weights, configuration, processor, code, options, results and a card."""

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from torch import Tensor

from ..modeling_dkd import DKDCLIPModel
from ..processing_dkd import DKDCLIPProcessor
from .config import TrainingConfig, save_config


CARD = """---
{metadata}
---

# {name}

{backbone}, {how}, with the domain of {dataset} fitted ({components} classes).

| method | top-1 | top-5 | mean class | frames x crops x clips | clips |
|---|---|---|---|---|---|
{table}

Made with `train.py`; the options are in training_config.yaml, all figures in results.json.

```python
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained("{name}", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("{name}", trust_remote_code=True)
```
"""


def save_repository(
    model: DKDCLIPModel, processor: DKDCLIPProcessor, class_names: Sequence[str], folder: Path
) -> None:
    """Write model, processor and their code into a folder, from which AutoModel and AutoProcessor load them."""
    model.config.id2label = dict(enumerate(class_names))
    model.config.label2id = {name: index for index, name in enumerate(class_names)}
    model.config.logit_scale = math.exp(model.head.logit_scale.detach().item())
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


def save_card(config: TrainingConfig, rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """Write the options and a draft of the model card with the rows of results.json."""
    save_config(config, folder / "training_config.yaml")
    name = config.repo_id or folder.resolve().name
    own = rows[-1]
    data = own["data"]
    evaluated = EvalResult(
        task_type="video-classification",
        dataset_type=data["name"],
        dataset_name=data["name"],
        dataset_split=data["split"],
        metric_type="accuracy",
        metric_name="top-1",
        metric_value=own["top1"],
    )
    metadata = ModelCardData(
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag="video-classification",
        tags=["dkd", "video", "zero-shot", "clip"],
        base_model=config.model.backbone if not Path(config.model.backbone).is_dir() else None,
        model_name=name,
        eval_results=[evaluated],
    )
    table = "\n".join(
        f"| {row['method']} | {100 * row['top1']:.2f} | {100 * row['top5']:.2f} | {100 * row['mean_class']:.2f} "
        f"| {row['data']['frames']} | {row['n']} |"
        for row in rows
    )
    how = f"fine-tuned for {config.recipe.epochs} epochs" if config.recipe.epochs else "not fine-tuned"
    text = CARD.format(
        metadata=metadata.to_yaml(),
        name=name,
        backbone=Path(config.model.backbone).name,
        how=how,
        dataset=f"{data['name']}, split {data['split']}",
        components=data["classes"],
        table=table,
    )
    ModelCard(text).save(folder / "README.md")
