"""Which classes of a data set are asked: those of a list, those that a model has not seen, or a drawn share of these.

The usual zero-shot part of Kinetics-600 is 160 of 220 classes that are not in Kinetics-400, drawn three times, the
other 60 being for validation (Chen & Huang 2021, "Elaborative Rehearsal for Zero-shot Action Recognition"), on the
owners' test clips. How they were drawn is not published, the draws are: turned into lists they give the authors'
splits. A draw of `drawn_classes` is another one, and rows say so. `new_classes` goes by names: 368 of the 400 are in
Kinetics-600 (Carreira et al. 2018), and old classes under new names are among the others.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from .class_names import name_key
from .counting import counted
from .plain_files import read_json, read_table, read_text
from .video_index import VideoIndex


def read_class_list(file: str | Path) -> list[str]:
    """Class names in a text file with one a line, a JSON list, or the column label of a CSV, each once.

    Raises:
        ValueError: It cannot be read, or holds no class.
    """
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"no such list of classes: {path}")
    if path.suffix.lower() == ".json":
        held = read_json(path)
        names = [str(name) for name in held] if isinstance(held, list) else []
    elif path.suffix.lower() == ".csv" and "label" in read_table(path)[0]:
        names = [row["label"] for _, row in read_table(path)[1]]
    else:
        names = read_text(path).splitlines()
    names = list(dict.fromkeys(name.strip() for name in names if name.strip()))
    if not names:
        raise ValueError(f"{path} names no class: one a line, a JSON list, or a CSV with a column label")
    return names


def only_classes(index: VideoIndex, file: str | Path) -> VideoIndex:
    """The clips of the classes that a list names, in any spelling.

    Raises:
        ValueError: The list cannot be read, or names a class that the data set has not.
    """
    own = {name_key(name): name for name in index.class_names}
    wanted = read_class_list(file)
    unknown = [name for name in wanted if name_key(name) not in own]
    if unknown:
        raise ValueError(
            f"{file}: {len(unknown)} of {len(wanted)} classes are not in {index.dataset}: {', '.join(unknown[:5])}"
        )
    kept = index.restrict_classes([own[name_key(name)] for name in wanted])
    return replace(kept, split=f"{index.split}, {counted(len(kept.class_names), 'class')} of {Path(file).name}")


def new_classes(index: VideoIndex, file: str | Path) -> VideoIndex:
    """The clips of the classes that are not in a list of known ones, such as those a model was trained on.

    Names are compared by their letters and digits in small: a known class under another name is new.

    Raises:
        ValueError: The list cannot be read, or names none or all of the data set's classes.
    """
    known = {name_key(name) for name in read_class_list(file)}
    new = [name for name in index.class_names if name_key(name) not in known]
    if len(new) in (0, len(index.class_names)):
        raise ValueError(f"{file} names {'all' if not new else 'none'} of the {len(index.class_names)} classes")
    return replace(index.restrict_classes(new), split=f"{index.split}, {len(new)} not in {Path(file).name}")


def drawn_classes(index: VideoIndex, number: int, seed: int) -> VideoIndex:
    """The clips of `number` classes: the first of a permutation of all in ASCII order, as in `half_class_split`.

    Raises:
        ValueError: There are fewer classes, or a negative seed.
    """
    ordered = sorted(index.class_names)
    if not 1 <= number <= len(ordered) or seed < 0:
        raise ValueError(f"cannot draw {number} of {len(ordered)} classes with seed {seed}")
    drawn = np.random.RandomState(seed).permutation(len(ordered))[:number]
    kept = index.restrict_classes([ordered[i] for i in drawn])
    return replace(kept, split=f"{index.split}, {number} drawn with seed {seed}")
