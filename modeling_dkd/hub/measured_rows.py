"""The figures of a model: results files as evaluate.py, train.py and the demo write them, kept beside the weights.

A repository holds `results.json` (of train.py, a row for every seed) and `results/*.json` (of every later evaluation,
a row for all seeds of a method), each with the environment and the command that made it. Nothing else is a source of
figures: the card, its model-index and `.eval_results/` are derived from these files. Where two files hold the same
row, the newer one counts.
"""

import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..data.plain_files import read_json


RESULTS_FILE = "results.json"
RESULTS_FOLDER = "results"
REFERENCE = "zero-shot"
# Fields of a row's `data` that make two figures comparable.
DATA_FIELDS = ("name", "split", "classes", "frames", "prompts", "domain")
# What a results file must hold, and may leave out or leave empty.
NAMED = {"name": str}
NUMBER = int | float
ROW_FIELDS = {"method": str, "data": dict, "protocol": str, "seed": int} | dict.fromkeys(
    ("top1", "top5", "mean_class", "ece", "n", "seconds", "shots", "auroc", "known_ece"), NUMBER
)
# What only the summary of all seeds tells: the comparison with zero-shot, clip by clip and seed by seed.
PAIRED = ("gain", "gain_error", "worst_gain", "worst_ece_change")
SUMMARY_FIELDS = {"data": str, "protocol": str, "method": str} | dict.fromkeys(PAIRED, NUMBER)
# Of telling clips of none of the classes from the others; in rows of the protocol `open` alone.
REJECTION = ("auroc", "known_ece")
# Rows of search by text, in a list of their own.
SEARCH = "search"
SEARCH_FIELDS = {"method": str, "data": dict, "texts": str} | dict.fromkeys(("map", "recall_at_1", "n"), NUMBER)
# The same in a file that holds one row for all seeds of a method.
MEASURED = "measured"
MEASURED_FIELDS = {name: kind for name, kind in ROW_FIELDS.items() if name != "seed"} | {"seeds": list}
MEASURED_FIELDS |= dict.fromkeys(("spread", *PAIRED), NUMBER)
KINDS = {str: "text", dict: "object", list: "list"}
OPTIONAL = {"seconds", "shots", "spread", *PAIRED, *REJECTION}


@dataclass(frozen=True)
class MeasuredRow:
    """One method on one set under one protocol, over its seeds; accuracies as fractions.

    Attributes:
        method: As results call it: "zero-shot", "dkd", "fine-tuned/dkd", a peer.
        data: name, split, classes, backbone, revision, frames, prompts, domain, and data_revision where known.
        protocol: Its name.
        shots: Labelled domain clips of each class; 0 for none.
        seeds: In ascending order.
        n: Test clips, mean over the seeds.
        top1: Mean over the seeds; `spread` is the standard deviation between them, None for one seed.
        top5: Mean over the seeds, as mean_class and ece are.
        mean_class: Mean of the accuracies of the classes.
        ece: Expected calibration error.
        gain: Mean paired difference of top-1 to plain zero-shot on the same clips; None where that was not run.
        gain_error: Standard error of `gain`.
        worst_gain: Least gain of a single seed.
        worst_ece_change: Largest rise of the calibration error over zero-shot's in a single seed.
        seconds: Fit and test together, mean over the seeds; None where it was not measured.
        auroc: Chance that a clip of a class asked has a higher `known` (without a domain: largest softmax) than a clip
            of none, mean over the seeds; None outside the protocol `open`.
        known_ece: Calibration error of that number as a probability to be of a class asked; None likewise.
        source: Path of the results file inside the repository.
        environment: Of that file.
    """

    method: str
    data: Mapping[str, Any]
    protocol: str
    shots: int
    seeds: tuple[int, ...]
    n: float
    top1: float
    spread: float | None
    top5: float
    mean_class: float
    ece: float
    gain: float | None
    gain_error: float | None
    worst_gain: float | None
    worst_ece_change: float | None
    seconds: float | None
    auroc: float | None
    known_ece: float | None
    source: str
    environment: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Equal for rows of which a newer one replaces an older one."""
        return _key(self.data, self.protocol, self.shots, self.method)

    @property
    def date(self) -> str:
        """When it was measured, ISO 8601 in UTC; empty where the file does not say."""
        return str(self.environment.get("date") or "")

    @property
    def protocol_name(self) -> str:
        """The protocol with its number of labelled clips, where there are any."""
        return f"{self.protocol}, {self.shots} shots" if self.shots else self.protocol


@dataclass(frozen=True)
class SearchRow:
    """Search by text of one method on one set; figures as fractions.

    Attributes:
        method: As in `MeasuredRow`.
        data: As there.
        texts: "fitted", or "new" for texts that the method did not learn with.
        map: Mean average precision over the texts.
        recall_at_1: Share of the texts whose first clip is right.
        n: Clips that were searched.
        source: Path of the results file inside the repository.
        environment: Of that file.
    """

    method: str
    data: Mapping[str, Any]
    texts: str
    map: float
    recall_at_1: float
    n: int
    source: str
    environment: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Equal for rows of which a newer one replaces an older one."""
        return _key(self.data, self.texts, 0, self.method)


def read_results(path: Path) -> dict[str, Any]:
    """Contents of a results file.

    Raises:
        ValueError: It cannot be read or is not one (the message names what is missing).
    """
    contents = read_json(path)
    check_results(contents, str(path))
    return dict(contents)


def check_results(contents: Any, name: str) -> None:
    """Raise a ValueError unless these are results as evaluate.py writes them."""
    kept = MEASURED if isinstance(contents, dict) and MEASURED in contents else "rows"
    if not isinstance(contents, dict) or not {"environment", kept} <= contents.keys():
        raise ValueError(f"{name} is no results file: evaluate.py --output, train.py and make demo write one")
    rows, lines = contents[kept], contents.get("summary", [])
    for kind, found, expected in (
        ("environment", [contents["environment"]], {}),
        ("a row", rows, ROW_FIELDS if kept == "rows" else MEASURED_FIELDS),
        ("data", [row.get("data") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else [], NAMED),
        ("a line of the summary", lines, SUMMARY_FIELDS),
        ("a row of search", contents.get(SEARCH, []), SEARCH_FIELDS),
    ):
        for part in found if isinstance(found, list) else [found]:
            _check_fields(f"{name}: {kind}", part, expected)
    for row in rows:
        for metric in ("top1", "top5", "mean_class"):
            if not 0 <= row[metric] <= 1:
                raise ValueError(f"{name}: {metric} is {row[metric]}, but accuracies are fractions from 0 to 1")
    for row in contents.get(SEARCH, []):
        _check_fields(f"{name}: data of a row of search", row["data"], NAMED)


def _check_fields(place: str, part: Any, expected: Mapping[str, Any]) -> None:
    """Raise a ValueError unless this is an object that has these fields, of these types."""
    if not isinstance(part, dict):
        raise ValueError(f"{place} is no JSON object but {str(part)[:60]!r}")
    lacking = expected.keys() - part.keys() - OPTIONAL
    if lacking:
        raise ValueError(f"{place} lacks {', '.join(sorted(lacking))}")
    for field, kind in expected.items():
        value = part.get(field)
        absent = field in OPTIONAL and value is None
        if not absent and (not isinstance(value, kind) or isinstance(value, bool) or value != value):
            raise ValueError(f"{place} has {field} {str(value)[:60]!r}, which is no {KINDS.get(kind, 'number')}")


def rows_of(contents: Mapping[str, Any], source: str) -> list[MeasuredRow]:
    """Rows of one results file, one for all seeds of a method."""
    if MEASURED in contents:
        return [_measured_row(row, source, contents["environment"]) for row in contents[MEASURED]]
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in contents["rows"]:
        key = _key(row["data"], row["protocol"], row.get("shots", 0), row["method"])
        groups.setdefault(key, []).append(row)
    gains = {(line["data"], line["protocol"], line["method"]): line for line in contents.get("summary", ())}
    return [_row_of(group, gains, contents["environment"], source) for group in groups.values()]


def search_rows_of(contents: Mapping[str, Any], source: str) -> list[SearchRow]:
    """Rows of search in one results file."""
    kept = [{name: row[name] for name in SEARCH_FIELDS} for row in contents.get(SEARCH, ())]
    return [SearchRow(**row, source=source, environment=contents["environment"]) for row in kept]


def _measured_row(row: Mapping[str, Any], source: str, environment: Any) -> MeasuredRow:
    """A row that was condensed before."""
    known: dict[str, Any] = {name: row.get(name) for name in MEASURED_FIELDS}
    known |= {"shots": row.get("shots") or 0, "seeds": tuple(row["seeds"]), "source": source}
    return MeasuredRow(**known, environment=environment)


def _key(data: Mapping[str, Any], protocol: str, shots: int, method: str) -> str:
    """All that makes two rows the same measurement."""
    return json.dumps([*(data.get(name) for name in DATA_FIELDS), protocol, shots, method])


def _row_of(
    group: Sequence[dict[str, Any]], gains: Mapping[tuple, Mapping[str, Any]], environment: Any, source: str
) -> MeasuredRow:
    first = group[0]
    line = gains.get((first["data"]["name"], first["protocol"], first["method"]), {})
    compared = {} if first["method"] == REFERENCE else line
    top1 = [row["top1"] for row in group]
    seconds = [row["seconds"] for row in group if row.get("seconds") is not None]

    def mean(name: str) -> float:
        return round(statistics.fmean(row[name] for row in group), 6)

    def mean_if_there(name: str) -> float | None:
        return None if first.get(name) is None else mean(name)

    return MeasuredRow(
        method=first["method"],
        data=first["data"],
        protocol=first["protocol"],
        shots=first.get("shots", 0),
        seeds=tuple(sorted(row["seed"] for row in group)),
        n=mean("n"),
        top1=mean("top1"),
        spread=round(statistics.stdev(top1), 6) if len(top1) > 1 else None,
        top5=mean("top5"),
        mean_class=mean("mean_class"),
        ece=mean("ece"),
        **{name: compared.get(name) for name in PAIRED},
        seconds=round(statistics.fmean(seconds), 4) if seconds else None,
        **{name: mean_if_there(name) for name in REJECTION},
        source=source,
        environment=environment,
    )


def newest_rows(files: Mapping[str, Mapping[str, Any]]) -> list[MeasuredRow]:
    """Rows of several results files, of equal ones the newest, in the order of the files' dates.

    Args:
        files: Path inside the repository -> contents.
    """
    return list({row.key: row for source, contents in _by_date(files) for row in rows_of(contents, source)}.values())


def newest_search_rows(files: Mapping[str, Mapping[str, Any]]) -> list[SearchRow]:
    """The same of search."""
    found = (row for source, contents in _by_date(files) for row in search_rows_of(contents, source))
    return list({row.key: row for row in found}.values())


def _by_date(files: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    return sorted(files.items(), key=lambda item: (str(item[1]["environment"].get("date") or ""), item[0]))


def superseded(files: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Files in `results/` of which no row counts any more."""
    used = {row.source for row in newest_rows(files)} | {row.source for row in newest_search_rows(files)}
    return [name for name in files if name.startswith(f"{RESULTS_FOLDER}/") and name not in used]


def read_folder(folder: Path) -> dict[str, dict[str, Any]]:
    """Every results file of a repository folder by its path inside it."""
    found = [folder / RESULTS_FILE, *sorted((folder / RESULTS_FOLDER).glob("*.json"))]
    return {path.relative_to(folder).as_posix(): read_results(path) for path in found if path.is_file()}


def file_name(contents: Mapping[str, Any]) -> str:
    """Path inside the repository for results that are added to it: date and data sets."""
    date = re.sub(r"[^0-9T]", "", str(contents["environment"].get("date") or "undated").split("+")[0]) or "undated"
    names = list(dict.fromkeys(row.data["name"] for row in rows_of(contents, "")))
    shown = names if len(names) <= 2 else [names[0], f"and-{len(names) - 1}-more"]
    slug = re.sub(r"[^A-Za-z0-9]+", "-", "-".join(shown)).strip("-").lower()
    return f"{RESULTS_FOLDER}/{date}-{slug[:80]}.json"


# A path that names a machine's folders: absolute in POSIX or Windows form, or below a home folder.
LOCAL_PATH = re.compile(r"(?<![\w.:/<-])(?:[A-Za-z]:\\|~/|/(?=[\w.~-]+/))[^\s'\"|;,)\]}]*")


def condensed(contents: Mapping[str, Any]) -> dict[str, Any]:
    """What a repository keeps of results that are added to it: a row for all seeds of a method, as cards show it."""
    rows = [asdict(row) for row in rows_of(contents, "")]
    measured = [{name: row[name] for name in MEASURED_FIELDS} for row in rows]
    searches = [{name: row[name] for name in SEARCH_FIELDS} for row in contents.get(SEARCH, ())]
    found = {"environment": contents["environment"], MEASURED: measured}
    return publishable(found | {SEARCH: searches} if searches else found)


def publishable(contents: Mapping[str, Any]) -> dict[str, Any]:
    """Results without what they say of the machine: the places of folders, and the system it runs."""
    cleaned = without_local_paths(contents)
    cleaned["environment"].pop("platform", None)
    return dict(cleaned)


def without_local_paths(value: Any) -> Any:
    """JSON values in which every absolute path is cut down to its last component."""
    if isinstance(value, str):
        return LOCAL_PATH.sub(lambda match: re.split(r"[\\/]", match[0].rstrip("\\/"))[-1], value)
    if isinstance(value, Mapping):
        return {without_local_paths(key): without_local_paths(inner) for key, inner in value.items()}
    if isinstance(value, Iterable):
        return [without_local_paths(inner) for inner in value]
    return value
