"""What a run would load, told for `--dry-run` without loading or fetching it."""

import re
from pathlib import Path

from transformers import AutoConfig

from ..open_clip_backbone import PREFIX as OPEN_CLIP
from ..open_clip_backbone import import_open_clip, open_clip_config, open_clip_folder
from .clip_encoder import require_model_name


def planned_model(name: str, revision: str | None = None) -> str:
    """Where a model of this name would come from.

    Args:
        name: What the commands take as --model.
        revision: Branch, tag or commit of a repository.

    Raises:
        ValueError: It can be no model (the message names it), or its folder holds none.
    """
    if name.startswith(OPEN_CLIP):
        try:
            import_open_clip()
            if not re.match(f"{OPEN_CLIP}hf-hub:.", name):
                open_clip_config(open_clip_folder(name))
        except ValueError as error:
            raise ValueError(f"cannot load the model {name}: {error}") from error
        return name
    if ":" in name and not Path(name).exists():
        file = Path(name.partition(":")[0])
        return f"{name} ({planned_place(file)})" if file.suffix == ".py" else name
    if name.endswith(".py"):
        raise ValueError(f"--model {name} names a file; add what to call in it, as in {name}:load")
    require_model_name(name)
    try:
        kind = AutoConfig.from_pretrained(name, revision=revision, local_files_only=True).model_type
    except (OSError, ValueError) as error:
        if Path(name).is_dir() or not isinstance(error, OSError):
            raise ValueError(f"cannot load the model {name}: {str(error).strip().splitlines()[0]}") from error
        at = f" at {revision}" if revision else ""
        return f"{name}{at} (no folder here, nor in the cache of the Hub, where it would be fetched from)"
    return f"{name}, {kind}, {'a folder here' if Path(name).is_dir() else 'in the cache of the Hub'}"


def planned_place(place: str | Path) -> str:
    """The place, and whether anything is there."""
    return str(place) if Path(place).exists() else f"{place} (not here)"


def is_indexed_here(dataset: str, data_dir: str | Path) -> bool:
    """Whether the clips can be counted without a network and without a file being written."""
    folder = Path(data_dir)
    if dataset != "hub":
        return folder.exists()
    from ..data.webdataset_index import archives_below

    return folder.is_dir() and bool(archives_below(folder))


def show_plan(command: str, plan: dict[str, str]) -> None:
    """Print the lines of a plan."""
    width = max(map(len, plan))
    print("\n".join(f"{title:<{width}}  {text}" for title, text in plan.items()))
    print(f"{command}: dry run, nothing was loaded, trained or written")
