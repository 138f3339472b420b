"""Where the lists of a data set lie: what the user names, else the usual folders in and beside the clips."""

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path


LIST_FOLDERS = ("annotations", "annotation", "labels")  # what folders of lists are called beside the clips
OPTION = "--annotations (train.py: data.annotations)"


def folder_of_lists(named: Path, dataset: str, lists: Sequence[str]) -> Path:
    """A folder as it is; one of the lists stands for the folder that it lies in.

    Args:
        named: What the user names.
        dataset: Name for messages.
        lists: What files of lists are called, with `*` for any letters.

    Raises:
        ValueError: It is another file.
    """
    if not named.is_file():
        return named
    if not any(fnmatch(named.name, name) for name in lists):
        raise ValueError(
            f"{named} is none of the lists of {dataset} ({', '.join(lists)}); name one of them, or their folder, with "
            f"{OPTION}"
        )
    return named.parent


def places_of_lists(data_dir: str | Path, annotations: str | Path | None) -> list[Path]:
    """Where lists may be: what the user names and the usual folders in it, else in and beside the clips.

    Raises:
        ValueError: What the user names is not there.
    """
    if annotations is not None:
        named = Path(annotations)
        if not named.exists():
            raise ValueError(f"no such file or folder: {named}")
        return [named, *(named / name for name in LIST_FOLDERS if (named / name).is_dir())]
    root = Path(data_dir).absolute()
    usual = [folder / name for folder in (root, root.parent) for name in (".", *LIST_FOLDERS)]
    return [place for place in usual if place.is_dir()]


def first_lists(places: Sequence[Path], *lists: str) -> list[Path]:
    """The files with these names in the first of the places that has any, sorted."""
    found = (sorted({file for name in lists for file in place.glob(name)}) for place in places)
    return next(filter(None, found), [])


def no_lists(dataset: str, wanted: str, places: Sequence[Path]) -> ValueError:
    """What to say where no list is found."""
    looked = ", ".join(str(place) for place in places)
    return ValueError(
        f"no lists of {dataset}: looked for {wanted} in {looked}; name their folder with {OPTION}, or read clips in "
        "class folders without lists by --dataset folder (train.py: data.dataset=folder)"
    )
