"""The official split lists of UCF101 and HMDB51, read from a folder that the user has, and the half-class splits.

The lists come from the data sets' owners (UCF101: ucfTrainTestlist, HMDB51: testTrainMulti_7030_splits); none of them
is part of this package. What is read is checked against the official counts, so that a cut-off list cannot pass.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .list_places import folder_of_lists, no_lists
from .plain_files import read_text


class SplitEntry(NamedTuple):
    """One line of an official list: `name` is "<class>/<file>", `split` "train", "test" or "unused"."""

    name: str
    class_name: str
    split: str


# (train, test) clips of splits 1, 2, 3, as the owners publish them.
UCF101_COUNTS = {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}
HMDB51_COUNTS = {1: (3570, 1530), 2: (3570, 1530), 3: (3570, 1530)}
HMDB51_TOTAL = 6766
HMDB51_TAGS = {"0": "unused", "1": "train", "2": "test"}


def read_ucf101_split(folder: str | Path, split: int) -> tuple[list[str], list[SplitEntry]]:
    """Class names in official order (101) and the 13,320 entries of one split, the training list first.

    Args:
        folder: Folder with classInd.txt, trainlist01.txt ... testlist03.txt, or one that holds it under the name
            ucf101 or ucfTrainTestlist.
        split: 1, 2 or 3.

    Raises:
        ValueError: No lists there, a line cannot be read, or the counts are not the official ones.
    """
    _check_split_number(split)
    lists = ("classInd.txt", "trainlist0?.txt", "testlist0?.txt")
    root = _folder_with(lists[0], Path(folder), ("", "ucf101", "ucfTrainTestlist"), "UCF101", lists)
    classes = [line.split(maxsplit=1)[-1] for line in _lines(root / "classInd.txt")]
    known = set(classes)
    entries: dict[str, list[SplitEntry]] = {}
    for part in ("train", "test"):
        path = root / f"{part}list{split:02d}.txt"
        entries[part] = []
        for line in _lines(path):
            # Training lines end in the class number; a clip's name holds no space.
            name = line.split()[0]
            class_name = name.split("/")[0]
            if class_name not in known:
                raise ValueError(
                    f"{path}: the class of {name[:100]!r} is not in classInd.txt; fetch the official lists anew"
                )
            entries[part].append(SplitEntry(name, class_name, part))
    counts = len(entries["train"]), len(entries["test"])
    _check_counts("UCF101", root, split, counts, UCF101_COUNTS[split])
    if len(classes) != 101:
        raise ValueError(f"{root}: classInd.txt names {len(classes)} classes, not 101; fetch the official lists anew")
    return classes, entries["train"] + entries["test"]


def read_hmdb51_split(folder: str | Path, split: int) -> tuple[list[str], list[SplitEntry]]:
    """Class names in alphabetical order (51) and the 6,766 entries of one split, the 1,666 "unused" ones among them.

    Args:
        folder: Folder with the 153 files <class>_test_split<n>.txt, or one that holds it under the name hmdb51,
            testTrainMulti_7030_splits or test_train_splits.
        split: 1, 2 or 3. The tags 1, 2 and 0 in the lists mean train, test and not used in this split.

    Raises:
        ValueError: No lists there, a tag is not 0, 1 or 2, or the counts are not the official ones.
    """
    _check_split_number(split)
    places = ("", "hmdb51", "testTrainMulti_7030_splits", "test_train_splits")
    root = _folder_with("brush_hair_test_split1.txt", Path(folder), places, "HMDB51", ["*_test_split?.txt"])
    entries = []
    for path in sorted(root.glob(f"*_test_split{split}.txt")):
        class_name = path.name.removesuffix(f"_test_split{split}.txt")
        for line in _lines(path):
            # File names hold #;&!() and brackets; the tag is what stands behind the last space.
            file_name, _, tag = line.rpartition(" ")
            if tag not in HMDB51_TAGS or not file_name:
                raise ValueError(
                    f"{path}: {line[-100:]!r} does not end in the tag 0, 1 or 2; fetch the official lists anew"
                )
            entries.append(SplitEntry(f"{class_name}/{file_name.strip()}", class_name, HMDB51_TAGS[tag]))
    classes = sorted({entry.class_name for entry in entries})
    counts = tuple(sum(entry.split == part for entry in entries) for part in ("train", "test"))
    _check_counts("HMDB51", root, split, counts, HMDB51_COUNTS[split])
    if len(entries) != HMDB51_TOTAL or len(classes) != 51:
        raise ValueError(
            f"{root}: HMDB51 split {split} lists {len(entries)} clips of {len(classes)} classes, not "
            f"{HMDB51_TOTAL} of 51; fetch the official lists anew"
        )
    return classes, entries


def half_class_split(class_names: Sequence[str], seed: int) -> list[str]:
    """The half of the classes (rounded down) that a zero-shot half split tests on, in the drawn order.

    The first half of the permutation that numpy's legacy generator draws under `seed` over the classes in ASCII order,
    the rule of published half-class results; seeds 0 to 9 are the usual ten.

    Raises:
        ValueError: Fewer than 2 classes, or a negative seed.
    """
    if len(class_names) < 2 or seed < 0:
        raise ValueError(
            f"a half split needs 2 classes or more and a seed of 0 or more, got {len(class_names)}, {seed}"
        )
    ordered = sorted(class_names)
    # The legacy generator, on a state of its own: published splits were drawn with numpy.random.seed(seed).
    drawn = np.random.RandomState(seed).permutation(len(ordered))
    return [ordered[i] for i in drawn[: len(ordered) // 2]]


def ucf101_group(name: str) -> str:
    """Recording group of a UCF101 clip, "<class>_g<nn>": clips of one group share actor and scene."""
    found = re.fullmatch(r"v_(.+_g\d+)_c\d+", Path(name).stem)
    return found[1] if found else ""


def hmdb51_group(name: str, class_name: str) -> str:
    """Source video of an HMDB51 clip: the part of its file name before "_<class>_"."""
    return Path(name).name.rpartition(f"_{class_name}_")[0]


def _check_split_number(split: int) -> None:
    """Raise ValueError unless `split` is one of the three official ones."""
    if split not in (1, 2, 3):
        raise ValueError(f"split {split!r} does not exist; the official splits are 1, 2 and 3")


def _check_counts(dataset: str, root: Path, split: int, found: Sequence[int], official: tuple[int, int]) -> None:
    """Raise ValueError unless the lists hold as many clips as the owners say."""
    if tuple(found) != official:
        raise ValueError(
            f"{root}: {dataset} split {split} lists {found[0]} training and {found[1]} test clips where the official "
            f"lists have {official[0]} and {official[1]}; a file is missing or cut off, fetch the official lists anew"
        )


def _folder_with(file_name: str, folder: Path, places: Sequence[str], dataset: str, lists: Sequence[str]) -> Path:
    """First of the usual places under `folder`, or the folder of a list, that holds `file_name`."""
    usual = [folder_of_lists(folder, dataset, lists) / place for place in places]
    for place in usual:
        if (place / file_name).is_file():
            return place
    raise no_lists(dataset, file_name, usual)


def _lines(path: Path) -> list[str]:
    """Lines of a text file that are not blank, without line ends."""
    if not path.is_file():  # a pipe among the lists would be waited for
        raise ValueError(f"cannot read the split list {path}: there is no such file")
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]
