"""Kinetics, Something-Something v2, ActivityNet, Diving48 and MSR-VTT from the lists that their owners publish.

    index = kinetics_index("kinetics400", "k400", "k400/annotations")

The lists are the user's; none of them is part of this package. Each reader turns them into `ListedRows` and leaves
the rest to listed_clips.py. What the lists hold is told beside what the owners publish: lists of these sets shrink as
films vanish, so other numbers are a note and no error. Validation clips are the test part, as in the literature; a
test list of Kinetics is left out beside them, and is the test where no validation list is there.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .class_names import spelling_key
from .counting import counted
from .list_places import OPTION, first_lists, folder_of_lists, no_lists, places_of_lists
from .listed_clips import ListedClip, ListedRows, listed_index
from .plain_files import json_entries, open_table, read_json
from .video_index import PART_FOLDERS, VideoIndex, require_distinct


# Classes, then training and test clips, as the owners publish them (Kinetics: Kay et al. 2017, Carreira et al. 2018
# and 2019; Goyal et al. 2017; Caba Heilbron et al. 2015, release 1.3, annotated segments; Li et al. 2018, V2;
# MSR-VTT: captions for classes, 1k-A of Yu et al. 2018).
PUBLISHED = {
    "kinetics400": (400, 246245, 20000),
    "kinetics600": (600, 392622, 30000),
    "kinetics700": (700, 545317, 35000),
    "ssv2": (174, 168913, 24777),
    "activitynet": (200, 15410, 7654),
    "diving48": (48, 15027, 1970),
    "msrvtt": (1000, 9000, 1000),
}
MSRVTT_PARTS = {"train": 6513, "validate": 497, "test": 2990}  # the owners' own (Xu et al. 2016)
MSRVTT_CAPTIONS = 200000
KINETICS_COLUMNS = {"youtube_id", "time_start", "time_end"}
SSV2_LISTS = ("something-something-v2-*.json", "labels.json", "train.json", "validation.json", "test.json")
DIVING48_LISTS = ("Diving48_vocab.json", "Diving48_V2_train.json", "Diving48_V2_test.json")
MSRVTT_TESTS = ("MSRVTT_JSFUSION_test.csv", "msrvtt_test_1k.json")  # of 1k-A, as first published and as hosted again
MSRVTT_VIDEOS = ("*MSRVTT_data.json", "*videodatainfo.json", "msrvtt_train_9k.json", "msrvtt_train_7k.json")


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
    found = places_of_lists(data_dir, annotations)
    files = next((lists for place in found if (lists := _tables(place))), [])
    if not files:
        raise no_lists(dataset, "CSV files with the columns youtube_id, time_start and time_end", found)
    rows = ListedRows()
    parts: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
    unlabelled: Counter[tuple[str, str]] = Counter()
    for file in files:
        for clip in _kinetics_clips(file):
            if clip.class_name:
                parts[clip.split].add(file.name)
                rows.append(clip)
            else:
                unlabelled[file.name, clip.split] += 1
    for part, names in parts.items():
        if len(names) > 1:
            raise ValueError(
                f"{files[0].parent}: {', '.join(sorted(names))} all list clips of the part {part}; keep the lists of "
                f"one data set in a folder, or name one with {OPTION}"
            )
    notes = []
    for (name, part), number in unlabelled.items():
        if part != "test" and name not in parts[part]:
            raise ValueError(
                f"{files[0].parent / name} names {counted(number, 'clip')} of the part {part} and no label; fetch the "
                "list that has labels, or take this one away"
            )
        notes.append(f"{counted(number, 'line')} of {name} without a label left out; only a list with labels counts")
    return _index(dataset, Path(data_dir), rows.class_names, rows, notes)


def ssv2_index(data_dir: str | Path, annotations: str | Path | None = None) -> VideoIndex:
    """Something-Something v2: `<id>.webm` anywhere below `data_dir`, or in tar archives there.

    A class is a template, as the owners number them, without the brackets around what is put in. The test list has no
    labels and is left out.

    Args:
        data_dir: Folder of the clips.
        annotations: Folder, or one file in it, of the JSON files labels, train and validation, with or without
            "something-something-v2-" before these names; None: looked for in and beside `data_dir`.

    Raises:
        ValueError: No such lists, an entry that cannot be read, or as `listed_index`.
    """
    found = places_of_lists(data_dir, annotations and folder_of_lists(Path(annotations), "ssv2", SSV2_LISTS))
    labels = "something-something-v2-labels.json", "labels.json"
    files = first_lists(found, *labels)
    if not files:
        raise no_lists("ssv2", " or ".join(labels), found)
    file, rows, notes = files[-1], ListedRows(), []
    place, before = file.parent, file.name.removesuffix("labels.json")
    try:
        numbers = read_json(file)
        ordered = sorted(numbers.keys(), key=lambda name: int(numbers[name]))
        class_names = [_template(name) for name in ordered]
        known = set(class_names)
        for part in ("train", "validation"):
            file = place / f"{before}{part}.json"
            if not file.is_file():
                notes.append(f"there is no {file}")
                continue
            for entry in json_entries(file):
                name, video = _template(entry["template"]), str(entry["id"])
                if name not in known:
                    raise ValueError(f"the template {name[:100]!r} is no class")
                rows.append(ListedClip(f"{name}/{video}.webm", name, PART_FOLDERS[part], video))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(file, error) from error
    return _index("ssv2", Path(data_dir), class_names, rows, notes)


def activitynet_index(data_dir: str | Path, annotations: str | Path | None = None) -> VideoIndex:
    """ActivityNet: each annotated segment of `v_<id>.<ending>` or `<id>.<ending>` is a clip; a video is their group.

    Args:
        data_dir: Folder of the long videos.
        annotations: The owners' JSON (activity_net.v1-3.min.json) or its folder; None: looked for in and beside
            `data_dir`. Videos of its test part have no segments and are left out.

    Raises:
        ValueError: No such list, an entry that cannot be read, or as `listed_index`.
    """
    found = places_of_lists(data_dir, annotations)
    if annotations is not None:
        folder_of_lists(Path(annotations), "activitynet", ("*.json",))
    files = found[:1] if found[0].is_file() else first_lists(found, "activity_net*.json")
    if not files:
        raise no_lists("activitynet", "activity_net*.json", found)
    if len(files) > 1:
        raise ValueError(
            f"{files[0].parent} holds {', '.join(file.name for file in files)}, each a release of its own; name one "
            f"with {OPTION}"
        )
    (file,) = files
    rows, odd, subsets = ListedRows(), Counter[str](), Counter[str]()
    try:
        for video, entry in json_entries(file, "database"):
            subset = str(entry["subset"])
            split = PART_FOLDERS.get(subset.lower(), "unused")
            subsets[subset] += split == "unused"
            for number, segment in enumerate(entry["annotations"]):
                start, end = (float(second) for second in segment["segment"])
                begin = max(start, 0.0)
                if not begin < end:
                    odd["of no length left out"] += 1
                    continue
                odd["read from 0, as it begins before"] += start < 0
                label, stem = str(segment["label"]), f"v_{video}"
                rows.append(
                    ListedClip(f"{label}/{stem}_{number:03d}.mp4", label, split, stem, video, video, begin, end)
                )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(file, error) from error
    notes = [f"of {file.name}, {counted(number, 'segment')} {what}" for what, number in odd.items() if number]
    notes += [
        f"of {file.name}, {counted(number, 'video')} of the subset {subset[:100]!r} unused: it is none of training, "
        "validation and testing"
        for subset, number in subsets.items()
        if number
    ]
    return _index("activitynet", Path(data_dir), rows.class_names, rows, notes)


def diving48_index(data_dir: str | Path, annotations: str | Path | None = None) -> VideoIndex:
    """Diving48, V2: `<vid_name>.<ending>` below `data_dir`; a class is its take-off, turns, twists and position.

    Args:
        data_dir: Folder of the clips.
        annotations: Folder, or one file in it, of Diving48_vocab.json, Diving48_V2_train.json and
            Diving48_V2_test.json; None: looked for in and beside `data_dir`.

    Raises:
        ValueError: No such lists, an entry that cannot be read, or as `listed_index`.
    """
    found = places_of_lists(data_dir, annotations and folder_of_lists(Path(annotations), "diving48", DIVING48_LISTS))
    files = first_lists(found, "Diving48_vocab.json")
    if not files:
        raise no_lists("diving48", "Diving48_vocab.json", found)
    file, rows, notes = files[0], ListedRows(), []
    folder = file.parent
    try:
        class_names = [" ".join(parts) for parts in read_json(file)]
        for part in ("train", "test"):
            file = folder / f"Diving48_V2_{part}.json"
            if not file.is_file():
                notes.append(f"there is no {file}")
                continue
            for entry in json_entries(file):
                label, video = int(entry["label"]), str(entry["vid_name"])
                if not 0 <= label < len(class_names):
                    raise ValueError(f"the label {label} is none of the {len(class_names)} in Diving48_vocab.json")
                rows.append(ListedClip(f"{class_names[label]}/{video}.mp4", class_names[label], part, video))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(file, error) from error
    return _index("diving48", Path(data_dir), class_names, rows, notes)


def msrvtt_index(data_dir: str | Path, annotations: str | Path | None = None) -> VideoIndex:
    """MSR-VTT as retrieval: a caption is a class with one test video; training videos are unlabelled domain data.

    With a list of 1k-A its 1,000 videos are the test, each with the caption that the list gives it, and all others the
    training part. Without it the owners' parts are used, and a video's caption is its first. Captions that differ in
    blanks, capitals or signs between words alone give one prompt, and are one class.

    Args:
        data_dir: Folder of `video<number>.<ending>`.
        annotations: Folder, or one file in it, of the owners' JSON files (MSRVTT_data.json, or
            train_val_videodatainfo.json and test_videodatainfo.json) and, for 1k-A, of MSRVTT_JSFUSION_test.csv; or of
            the same hosted again, msrvtt_test_1k.json and msrvtt_train_9k.json or msrvtt_train_7k.json, lists of
            {"video_id", "video", "caption"}. None: looked for in and beside `data_dir`.

    Raises:
        ValueError: No such lists, an entry that cannot be read, no test video or one without a caption, or as
            `listed_index`.
    """
    lists = MSRVTT_TESTS + MSRVTT_VIDEOS
    found = places_of_lists(data_dir, annotations and folder_of_lists(Path(annotations), "msrvtt", lists))
    tests = first_lists(found, *MSRVTT_TESTS)[:1]
    files = next(filter(None, (first_lists(found, name) for name in MSRVTT_VIDEOS)), [])
    if not tests and not files:
        raise no_lists("msrvtt", " or ".join(lists), found)
    videos, number, asked = _msrvtt_lists(files, tests)
    if not asked:
        named = ", ".join(map(str, (*files, *tests)))
        raise ValueError(f"{named}: no test video; add test_videodatainfo.json, or {MSRVTT_TESTS[0]} for 1k-A")
    class_of: dict[str, str] = {}  # captions that give one prompt are one class
    rows, tested = ListedRows(), {video for video, _ in asked}
    for video, caption in asked:
        rows.append(ListedClip(f"{video}.mp4", class_of.setdefault(spelling_key(caption), caption), "test", video))
    for video, split in videos:
        if video not in tested or (split != "test" and not tests):
            rows.append(ListedClip(f"{video}.mp4", "", "train", video))
    notes = [] if tests else [f"there is no {MSRVTT_TESTS[0]}: the owners' test part, first caption of each"]
    if len(class_of) < len(tested):
        shared = len(tested) - len(class_of)
        notes.append(f"{shared} of {counted(len(tested), 'test video')} share their caption with another")
    parts = Counter(split for _, split in videos)
    if files and not _hosted_again(files[0]) and (dict(parts), number) != (MSRVTT_PARTS, MSRVTT_CAPTIONS):
        told, theirs = _told_parts(parts, number), _told_parts(MSRVTT_PARTS, MSRVTT_CAPTIONS)
        notes.append(f"{', '.join(file.name for file in files)}: {told}; published are {theirs}")
    index = listed_index("msrvtt", Path(data_dir), tuple(class_of.values()), rows, notes=notes)
    return _compared(index, len(tested), "caption") if tests else index


def _msrvtt_lists(
    files: Sequence[Path], tests: Sequence[Path]
) -> tuple[list[tuple[str, str]], int, list[tuple[str, str]]]:
    """All videos with the owners' part of each, the number of all captions, and the test videos with theirs."""
    videos: list[tuple[str, str]] = []
    captions: dict[str, str] = {}  # of each video the first that says anything
    number, file = 0, (*files, *tests)[0]
    try:
        for file in files:
            videos += _msrvtt_videos(file)
            for video, caption in _msrvtt_captions(file):
                number += 1
                if caption:
                    captions.setdefault(video, caption)
        asked = [(video, captions.get(video, "")) for video, split in videos if split == "test"]
        for file in tests:
            asked = list(_msrvtt_captions(file))
        empty = [video for video, caption in asked if not caption]
        if empty:
            raise ValueError(f"the test video {empty[0]} has no caption")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(file, error) from error
    return videos, number, asked


def _hosted_again(file: Path) -> bool:
    """Whether a list of MSR-VTT is one of those in which each entry is a video with its captions."""
    return file.name.startswith("msrvtt_")


def _msrvtt_videos(file: Path) -> Iterator[tuple[str, str]]:
    """Videos of a list, with the owners' part of each."""
    for entry in json_entries(file) if _hosted_again(file) else json_entries(file, "videos"):
        yield _video_id(entry), str(entry.get("split", "train"))


def _msrvtt_captions(file: Path) -> Iterator[tuple[str, str]]:
    """Videos of a list with a caption each; of several in one entry, the first that says anything."""
    if file.suffix == ".csv":
        for _, row in open_table(file)[1]:
            yield _video_id(row), " ".join(row["sentence"].split())
        return
    for entry in json_entries(file) if _hosted_again(file) else json_entries(file, "sentences"):
        written = entry["caption"]
        first = written if isinstance(written, str) else next(filter(str.strip, written), "")
        yield _video_id(entry), " ".join(first.split())


def _told_parts(parts: Mapping[str, int], captions: int) -> str:
    """The videos of each part of MSR-VTT, and all captions."""
    return (
        ", ".join(f"{parts.get(part, 0):,} {part}" for part in MSRVTT_PARTS) + f" and {counted(captions, 'caption')}"
    )


def _video_id(entry: Mapping[str, Any]) -> str:
    """The video of an entry in a list of MSR-VTT; copies name its file instead, or as well."""
    video = str(entry.get("video_id") or Path(str(entry["video"])).stem).strip()
    if not video:
        raise ValueError("a video_id is empty")
    return video


def _index(
    dataset: str, root: Path, class_names: Sequence[str], rows: ListedRows, notes: Sequence[str] = ()
) -> VideoIndex:
    """The index, with a note where the lists hold something else than the owners publish."""
    require_distinct(class_names, f"the lists of {dataset}")
    return _compared(listed_index(dataset, root, class_names, rows, notes=notes), len(class_names), "class")


def _compared(index: VideoIndex, number: int, noun: str) -> VideoIndex:
    """The index, with a note where its classes or captions and its clips are other than published."""
    parts = (index.part(name) for name in ("train", "test"))
    held = (number, *(len(part.records) + len(part.missing) for part in parts))
    published = PUBLISHED[index.dataset]
    if held == published:
        return index
    told, theirs = (
        f"{counted(first, noun)} with {training:,} training and {counted(test, 'test clip')}"
        for first, training, test in (held, published)
    )
    return replace(index, notes=(*index.notes, f"the lists of {index.dataset} name {told}; published are {theirs}"))


def _kinetics_clips(file: Path) -> Iterator[ListedClip]:
    """Clips of one CSV, with "train", "val" or "test" as their part; without a label the class is ""."""
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
        stem = f"{video}_{start:06d}_{end:06d}"
        yield ListedClip(f"{name}/{stem}.mp4", name, part, stem, f"{video}_{start}_{end}", video)


def _tables(place: Path) -> list[Path]:
    """The CSV files of Kinetics in a folder, or the file itself."""
    files = [place] if place.is_file() else sorted(place.glob("*.csv"))
    return [file for file in files if set(open_table(file)[0]) >= KINETICS_COLUMNS]


def _unreadable(file: Path, error: Exception) -> ValueError:
    """What to say of a list with something else in it than it should have."""
    if isinstance(error, ValueError) and str(file) in str(error):
        return error
    reason = f"there is no {error}" if isinstance(error, KeyError) else str(error)
    return ValueError(f"{file} is not as its owners publish it ({reason[:200]}); fetch it again")


def _template(text: Any) -> str:
    """A template of Something-Something as a class name: `Holding [something]` becomes `Holding something`."""
    return " ".join(str(text).replace("[", "").replace("]", "").split())
