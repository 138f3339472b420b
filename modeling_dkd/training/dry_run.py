"""`dkd train --dry-run`: the configuration and all names in it checked, and what a run would do."""

import sys
from pathlib import Path

from ..data.prompts import load_templates
from ..embedding.clip_encoder import require_model_name
from ..embedding.planned_loading import is_indexed_here, planned_model, planned_place, show_plan
from ..open_clip_backbone import PREFIX as OPEN_CLIP
from .checkpoints import check_resumable
from .clips import clips_of_an_epoch, open_index, require_classes_without_flip
from .config import TrainingConfig, as_plain
from .parameters import require_peft
from .processes import asked_processes, check_launch, require_free_output, take_sharding_request


def show_training_plan(config: TrainingConfig, resume: bool) -> None:
    """Print what `train` would load, train and write; clips are looked for where the data set is here.

    Raises:
        ValueError: As `train` would, for what can be seen without weights.
    """
    take_sharding_request(config)
    check_launch(config)
    output = Path(config.run.output_dir)
    require_free_output(output, resume)
    if resume:
        check_resumable(output / "checkpoints", as_plain(config), asked_processes())
    if config.recipe.trainable == "lora":
        require_peft()
    if not config.model.backbone.startswith(OPEN_CLIP):
        require_model_name(config.model.backbone)  # an encoder of one's own cannot be trained
    data, recipe, domain = config.data, config.recipe, config.domain
    templates = load_templates(data.templates)
    passes = f"{recipe.batch_size} clips x {recipe.accumulation_steps} passes a process"
    training = (
        f"{recipe.trainable}{', text encoder too' if recipe.train_text_encoder else ''}; {recipe.epochs} epochs, "
        f"batches of {passes}, {data.num_frames} frames a clip, learning rate {recipe.learning_rate:g}, "
        f"mixed precision {recipe.mixed_precision}"
    )
    show_plan(
        "dkd train",
        {
            "model": planned_model(config.model.backbone, config.model.revision),
            "data": _data(config),
            "prompts": f"{data.templates}: {len(templates)} a class, such as {templates[0]!r}",
            "trained": training if recipe.epochs else "nothing: the domain alone is fitted",
            "domain": f"{domain.num_clips or 'all'} training clips, with{'' if domain.use_labels else 'out'} labels",
            "tested": f"{data.test_views} frames x crops x clips",
            "written": config.run.output_dir,
        },
    )


def _data(config: TrainingConfig) -> str:
    """Where the clips are, and how many, if they are here."""
    data = config.data
    if data.data_dir is None or (not data.clips_per_epoch and is_indexed_here(data.dataset, data.data_dir)):
        index = open_index(data)
        for note in index.notes:
            print(f"note: {note}", file=sys.stderr)
        require_classes_without_flip(config.augmentation, index.class_names)
        clips_of_an_epoch(config, len(index.part("train").records), asked_processes())
        counts = [len(index.part(part).records) for part in ("train", "test")]
        return f"{data.dataset} in {data.data_dir}: {counts[0]} training and {counts[1]} test clips"
    lists = f", lists in {planned_place(data.annotations)}" if data.annotations else ""
    if data.clips_per_epoch:
        clips_of_an_epoch(config, 0, asked_processes())
    if data.dataset == "hub":
        return (
            f"{data.data_dir}, {f'{data.clips_per_epoch} clips streamed an epoch' if data.clips_per_epoch else 'kept'}"
        )
    return f"{data.dataset} in {planned_place(data.data_dir)}{lists}"
