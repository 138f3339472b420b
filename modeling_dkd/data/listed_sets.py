"""Kinetics, Something-Something v2, ActivityNet, Diving48 and MSR-VTT from the lists that their owners publish.

    index = kinetics_index("kinetics400", "k400", "k400/annotations")

The lists are the user's; none of them is part of this package. Each reader turns them into `ListedRows` and leaves
the rest to listed_clips.py. What the lists hold is told beside what the owners publish: lists of these sets shrink as
films vanish, so other numbers are a note and no error. Validation clips are the test part, as in the literature; a
test list of Kinetics is left out beside them, and is the test where no validation list is there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .counting import counted
from .listed_clips import ListedClip, ListedRows, listed_index
from .plain_files import json_entries, open_table, read_json, read_table
from .video_index import PART_FOLDERS, VideoIndex, require_distinct


# Classes, then training and test clips, as the owners publish them (Kinetics: Kay et al. 2017, Carreira et al. 2018
# and 2019; Goyal et al. 2017; Caba Heilbron et al. 2015, release 1.3, annotated segments; Li et al. 2018, V2).
PUBLISHED = {
    "kinetics400": (400, 246245, 20000),
    "kinetics600": (600, 392622, 30000),
    "kinetics700": (700, 545317, 35000),
    "ssv2": (174, 168913, 24777),
    "activitynet": (200, 15410, 7654),
    "diving48": (48, 15027, 1970),
}
LIST_FOLDERS = ("annotations", "annotation", "labels")  # what folders of lists are called beside the clips
KINETICS_COLUMNS = {"youtube_id", "time_start", "time_end"}


def kinetics_index(dataset: str, data_dir: str | Path, annotations: str | Path | None = None) -> VideoIndex:
    """Kinetics: `<youtube_id>_<start>_<end>.<ending>` anywhere below `data_dir`, or in tar archives there.

    Args:
        dataset: "kinetics400", "kinetics600" or "kinetics700".
        data_dir: Folder of the clips, or of the archives as they were downloaded, decompressed.
        annotations: One CSV or the folder of those with the columns label, youtube_id, time_start, time_end and, if
            wanted, split; without it the name of a file tells the part. None: looked for in and beside `data_dir`.

    Raises:
        ValueError: No such lists, a line that cannot be read, a class in two spellings, or as `listed_index`.
    """
    found = _places(data_dir, annotations)
    files = next((lists for place in found if (lists := _tables(place))), [])
    if not files:
        raise _no_lists(dataset, "CSV files with the columns youtube_id, time_start and time_end", found)
    rows = ListedRows()
    parts: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
    for file in files:
        for clip in _kinetics_clips(file):
            parts[clip.split].add(file.name)
            rows.append(clip)
    for part, names in parts.items():
        if len(names) > 1:
            raise ValueError(
                f"{files[0].parent}: {', '.join(sorted(names))} all list clips of the part {part}; keep the lists of "
                f"one data set in a folder, or name one with --annotations"
            )
    return _index(dataset, Path(data_dir), rows.class_names, rows)


def ssv2_index(data_dir: str | Path, annotations: str | Path | None = None) -> VideoIndex:
    """Something-Something v2: `<id>.webm` anywhere below `data_dir`, or in tar archives there.

    A class is a template, as the owners number them, without the brackets around what is put in. The test list has no
    labels and is left out.

    Args:
        data_dir: Folder of the clips.
        annotations: Folder of the JSON files labels, train and validation, with or without "something-something-v2-"
            before these names; None: looked for in and beside `data_dir`.

    Raises:
        ValueError: No such lists, an entry that cannot be read, or as `listed_index`.
    """
    found = _places(data_dir, annotations)
    names = [(f"{before}labels.json", before) for before in ("something-something-v2-", "")]
    place, before = next(
        ((place, before) for place in found for name, before in names if (place / name).is_file()), (None, "")
    )
    if place is None:
        raise _no_lists("ssv2", "something-something-v2-labels.json or labels.json", found)
    labels_file = place / f"{before}labels.json"
    numbers = read_json(labels_file)
    rows = ListedRows()
    try:
        ordered = sorted(numbers.keys(), key=lambda name: int(numbers[name]))
        class_names = [_template(name) for name in ordered]
        known = set(class_names)
        for part in ("train", "validation"):
            labels_file = place / f"{before}{part}.json"
            for entry in json_entries(labels_file) if labels_file.is_file() else ():
                name, video = _template(entry["template"]), str(entry["id"])
                if name not in known:
                    raise ValueError(f"the template {name[:100]!r} is no class")
                rows.append(ListedClip(f"{name}/{video}.webm", name, PART_FOLDERS[part], video))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(labels_file, error) from error
    return _index("ssv2", Path(data_dir), class_names, rows)


def activitynet_index(data_dir: str | Path, annotations: str | Path | None = None) -> VideoIndex:
    """ActivityNet: each annotated segment of `v_<id>.<ending>` or `<id>.<ending>` is a clip; a video is their group.

    Args:
        data_dir: Folder of the long videos.
        annotations: The owners' JSON (activity_net.v1-3.min.json) or its folder; None: looked for in and beside
            `data_dir`. Videos of its test part have no segments and are left out.

    Raises:
        ValueError: No such list, an entry that cannot be read, or as `listed_index`.
    """
    file = _file(data_dir, annotations, "activity_net*.json", "activitynet")
    rows, empty = ListedRows(), 0
    try:
        for video, entry in json_entries(file, "database"):
            split = PART_FOLDERS.get(str(entry["subset"]).lower(), "unused")
            for number, segment in enumerate(entry["annotations"]):
                start, end = (float(second) for second in segment["segment"])
                if not 0 <= start < end:
                    empty += 1
                    continue
                label, stem = str(segment["label"]), f"v_{video}"
                rows.append(
                    ListedClip(f"{label}/{stem}_{number:03d}.mp4", label, split, stem, video, video, start, end)
                )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(file, error) from error
    notes = [f"{counted(empty, 'segment')} of no length in {file.name} left out"] if empty else []
    return _index("activitynet", Path(data_dir), rows.class_names, rows, notes)


def diving48_index(data_dir: str | Path, annotations: str | Path | None = None) -> VideoIndex:
    """Diving48, V2: `<vid_name>.<ending>` below `data_dir`; a class is its take-off, turns, twists and position.

    Args:
        data_dir: Folder of the clips.
        annotations: Folder of Diving48_vocab.json, Diving48_V2_train.json and Diving48_V2_test.json; None: looked for
            in and beside `data_dir`.

    Raises:
        ValueError: No such lists, an entry that cannot be read, or as `listed_index`.
    """
    file = _file(data_dir, annotations, "Diving48_vocab.json", "diving48")
    folder, rows = file.parent, ListedRows()
    try:
        class_names = [" ".join(parts) for parts in read_json(file)]
        for part in ("train", "test"):
            file = folder / f"Diving48_V2_{part}.json"
            for entry in json_entries(file) if file.is_file() else ():
                label, video = int(entry["label"]), str(entry["vid_name"])
                if not 0 <= label < len(class_names):
                    raise ValueError(f"the label {label} is none of the {len(class_names)} in Diving48_vocab.json")
                rows.append(ListedClip(f"{class_names[label]}/{video}.mp4", class_names[label], part, video))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(file, error) from error
    return _index("diving48", Path(data_dir), class_names, rows)


def msrvtt_index(data_dir: str | Path, annotations: str | Path | None = None) -> VideoIndex:
    """MSR-VTT as retrieval: a caption is a class with one test video; training videos are unlabelled domain data.

    With the 1kA list its 1,000 videos are the test, each with the caption that the list gives it, and all others the
    training part. Without it the owners' parts are used, and a video's caption is its first.

    Args:
        data_dir: Folder of `video<number>.<ending>`.
        annotations: Folder of the owners' JSON files (MSRVTT_data.json, or train_val_videodatainfo.json and
            test_videodatainfo.json) and, for 1kA, of MSRVTT_JSFUSION_test.csv; None: looked for in and beside
            `data_dir`.

    Raises:
        ValueError: No such lists, an entry that cannot be read, or as `listed_index`.
    """
    found = _places(data_dir, annotations)
    tests = [file for place in found for file in sorted(place.glob("MSRVTT_JSFUSION_test.csv"))][:1]
    patterns = ("MSRVTT*.json", "*videodatainfo.json")
    jsons = next((files for p in found if (files := sorted({f for name in patterns for f in p.glob(name)}))), [])
    if not tests and not jsons:
        raise _no_lists("msrvtt", "MSRVTT_JSFUSION_test.csv, MSRVTT_data.json or *_videodatainfo.json", found)
    split_of: dict[str, str] = {}
    caption_of: dict[str, str] = {}
    file = jsons[0] if jsons else tests[0]
    try:
        for file in jsons:
            split_of |= {str(video["video_id"]): str(video["split"]) for video in json_entries(file, "videos")}
            for sentence in json_entries(file, "sentences"):
                caption_of.setdefault(str(sentence["video_id"]), str(sentence["caption"]))
        asked = {video: caption_of[video] for video, split in split_of.items() if split == "test"}
        for file in tests:
            asked = {row["video_id"].strip(): row["sentence"].strip() for _, row in read_table(file)[1]}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(file, error) from error
    rows = ListedRows()
    for video, caption in asked.items():
        rows.append(ListedClip(f"{video}.mp4", caption, "test", video))
    for video in split_of:
        if video not in asked:
            rows.append(ListedClip(f"{video}.mp4", "", "train", video))
    captions = list(dict.fromkeys(asked.values()))
    notes = [] if tests else ["there is no MSRVTT_JSFUSION_test.csv: the owners' test part, first caption of each"]
    if len(captions) < len(asked):
        notes.append(f"{len(asked) - len(captions)} of {len(asked)} test videos share their caption with another")
    return listed_index("msrvtt", Path(data_dir), captions, rows, notes=notes)


def _index(
    dataset: str, root: Path, class_names: Sequence[str], rows: ListedRows, notes: Sequence[str] = ()
) -> VideoIndex:
    """The index, with a note where the lists hold something else than the owners publish."""
    require_distinct(class_names, f"the lists of {dataset}")
    index = listed_index(dataset, root, class_names, rows, notes=notes)
    parts = (index.part(name) for name in ("train", "test"))
    held = (len(class_names), *(len(part.records) + len(part.missing) for part in parts))
    if held == PUBLISHED[dataset]:
        return index
    told = "{} classes with {} training and {} test clips".format
    note = f"the lists of {dataset} name {told(*held)}; published are {told(*PUBLISHED[dataset])}"
    return replace(index, notes=(*index.notes, note))


def _kinetics_clips(file: Path) -> Iterator[ListedClip]:
    """Clips of one CSV, with "train", "val" or "test" as their part; lines without a label are left out."""
    words = file.stem.lower().replace("-", "_").split("_")
    of_file = next((word for word in words if word in PART_FOLDERS), "")
    for line, row in open_table(file)[1]:
        name = " ".join(row.get("label", "").split())
        written = row.get("split", "").strip().lower() or of_file
        part = PART_FOLDERS.get(written)
        try:
            start, end = (int(float(row[column])) for column in ("time_start", "time_end"))
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{file}, line {line}: the times are no numbers ({error})") from error
        video = row["youtube_id"].strip()
        if not video or part is None:
            raise ValueError(
                f"{file}, line {line}: {'youtube_id is empty' if not video else f'{written!r} is no part of the set'}"
            )
        if name:
            stem = f"{video}_{start:06d}_{end:06d}"
            yield ListedClip(f"{name}/{stem}.mp4", name, part, stem, f"{video}_{start}_{end}", video)


def _tables(place: Path) -> list[Path]:
    """The CSV files of Kinetics in a folder, or the file itself."""
    files = [place] if place.is_file() else sorted(place.glob("*.csv"))
    return [file for file in files if set(open_table(file)[0]) >= KINETICS_COLUMNS]


def _places(data_dir: str | Path, annotations: str | Path | None) -> list[Path]:
    """Where lists may be: what the user names and the usual folders in it, else in and beside the clips."""
    if annotations is not None:
        named = Path(annotations)
        if not named.exists():
            raise ValueError(f"no such file or folder: {named}")
        return [named, *(named / name for name in LIST_FOLDERS if (named / name).is_dir())]
    root = Path(data_dir).absolute()
    usual = [folder / name for folder in (root, root.parent) for name in (".", *LIST_FOLDERS)]
    return [place for place in usual if place.is_dir()]


def _file(data_dir: str | Path, annotations: str | Path | None, pattern: str, dataset: str) -> Path:
    """The first file of a name in the usual places, or the one that the user names."""
    found = _places(data_dir, annotations)
    files = [f for place in found for f in ([place] if place.is_file() else sorted(place.glob(pattern)))]
    if not files:
        raise _no_lists(dataset, pattern, found)
    return files[0]


def _no_lists(dataset: str, wanted: str, places: Sequence[Path]) -> ValueError:
    """What to say where no list is found."""
    looked = ", ".join(str(place) for place in places)
    return ValueError(f"no lists of {dataset}: looked for {wanted} in {looked}; name their folder with --annotations")


def _unreadable(file: Path, error: Exception) -> ValueError:
    """What to say of a list with something else in it than it should have."""
    if isinstance(error, ValueError) and str(file) in str(error):
        return error
    reason = f"there is no {error}" if isinstance(error, KeyError) else str(error)
    return ValueError(f"{file} is not as its owners publish it ({reason[:200]}); fetch it again")


def _template(text: Any) -> str:
    """A template of Something-Something as a class name: `Holding [something]` becomes `Holding something`."""
    return " ".join(str(text).replace("[", "").replace("]", "").split())
