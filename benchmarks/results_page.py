"""docs/results.md: the paper's figures as published beside what was measured here, every one from committed JSON.

python -m benchmarks.results_page
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modeling_dkd.evaluation.report import Line
from modeling_dkd.evaluation.tables import open_table, search_table, summary_table
from modeling_dkd.hub.card_facts import read_options
from modeling_dkd.hub.measured_rows import newest_rows, newest_search_rows, read_folder
from modeling_dkd.hub.model_card import escape_markdown, results_section, template


REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = "results.md"
PUBLISHED, REAL_CLIPS = "published_figures.json", "real_clips.json"
# Of benchmarks/measured_rows.py.
DEVELOPMENT, REAL_VIDEO, SEARCH_OPEN = "development_rows.json", "real_video_rows.json", "search_open_rows.json"
EMBEDDED = "dkd-tiny"
# What a user calls the downloaded folders: videos and split lists.
FOLDERS = {
    "ucf101": ("UCF-101", "ucfTrainTestlist"),
    "hmdb51": ("hmdb51_org", "testTrainMulti_7030_splits"),
    "kinetics400": ("k400", "k400/annotations"),
}
# The measured set that is nearest to the paper's zero-shot table.
NEAREST = "ucf101_openai_vitb32_dev+ucf101_object_prompts_vitb32"
QUARTERS = "by quarters"  # how the names of sets end whose clips are four particles each
# Shown row by row; the others stand in the table of means.
PEERS = {"both_centred": "both centred", "transclip": "TransCLIP", "stata": "StatA", "oga": "OGA", "adapt": "ADAPT"}
Places = dict[tuple[str, str], dict[str, Line]]


def write_results_page(docs: Path) -> Path:
    """Write the page beside the JSON files that it is made of.

    Args:
        docs: Folder of the JSON files; `hub_configs` lies beside it.

    Raises:
        ValueError: One of the files is missing or not as expected.
    """
    configs = docs.resolve().parent / "hub_configs"
    published, clips = (_read(docs / name) for name in (PUBLISHED, REAL_CLIPS))
    development, real_video, search_open = (_read(docs / name) for name in (DEVELOPMENT, REAL_VIDEO, SEARCH_OPEN))
    places, real_places = _places(development), _places(real_video)
    embedded = read_folder(configs / EMBEDDED)
    text = template(Path(__file__).with_suffix(".md.jinja")).render(
        zero_shot=_published(published, "zero_shot"),
        fine_tuned=_published(published, "fine_tuned"),
        nearest={protocol: methods for (data, protocol), methods in places.items() if data == NEAREST},
        to_run=_to_run(configs),
        development=_rows(places),
        development_means=summary_table(_lines(development), "md"),
        gains=[methods["dkd"].gain for methods in places.values()],
        real_video=_rows(real_places),
        whole_clips=summary_table([line for line in _lines(real_video) if not line.data.endswith(QUARTERS)], "md"),
        quarters=summary_table([line for line in _lines(real_video) if line.data.endswith(QUARTERS)], "md"),
        gain_of_clips=[
            methods["dkd"].gain for (data, _), methods in real_places.items() if not data.endswith(QUARTERS)
        ],
        search=search_table(search_open["search"], "md"),
        open=open_table(_lines(search_open), "md"),
        made_with={
            part: contents["environment"]
            for part, contents in (
                ("development", development),
                ("real_video", real_video),
                ("search_open", search_open),
            )
        },
        clips=clips,
        real_clips=_table(
            ("run", "method", "top-1"),
            [(row["run"], escape_markdown(row["method"]), f"{100 * row['top1']:.1f}") for row in clips["rows"]],
            ":-:",
        ),
        demo=results_section(newest_rows(embedded), newest_search_rows(embedded)),
    )
    path = docs / PAGE
    path.write_text(text, encoding="utf-8")
    return path


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"cannot read {path}: {error}; give the folder of the JSON files with --docs") from error


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]], sides: str) -> str:
    """A Markdown table; `sides` has a "-" for each column to the left and a ":" for each to the right."""
    rule = ["---:" if side == ":" else "---" for side in sides]
    return "\n".join(f"| {' | '.join(str(cell) for cell in cells)} |" for cells in (header, rule, *rows))


def _published(figures: Mapping[str, Any], key: str) -> str:
    """The paper's row, ours, and those of others for orientation."""
    paper = figures["dkd"]
    rows = [
        ("**DKD, the paper**", paper[key]["protocol"], paper[key]["ucf101"], paper[key]["hmdb51"], paper["source"]),
        ("**DKD, this project**", "see below", "not measured", "not measured", ""),
        *((row["system"], row["input"], row["ucf101"], row["hmdb51"], row["source"]) for row in figures[key]),
    ]
    return _table(("system", "input, training", "UCF101", "HMDB51", "read in"), rows, "--::-")


def _to_run(configs: Path) -> str:
    """One command for every row that needs pretrained weights and the videos."""
    rows = []
    for path in sorted(configs.glob("*.yaml")):
        options = read_options(path)
        data = options.get("data") or {}
        if data.get("dataset") not in FOLDERS:
            continue
        videos, lists = FOLDERS[data["dataset"]]
        launch = "accelerate launch" if options["recipe"].get("epochs", 20) else "python"
        places = f"data.data_dir={videos} data.annotations={lists}"
        command = f"`{launch} train.py --config hub_configs/{path.name} --set {places}`"
        rows.append((options["repo_id"], options.get("expected"), data["test_views"], command))
    return _table(("model", "top-1", "frames x crops x clips", "command"), rows, "----")


def _lines(contents: Mapping[str, Any]) -> list[Line]:
    return [Line(**line) for line in contents["summary"]]


def _places(contents: Mapping[str, Any]) -> Places:
    """Lines by set and protocol, then by method."""
    places: Places = {}
    for line in _lines(contents):
        places.setdefault((line.data, line.protocol), {})[line.method] = line
    return places


def _rows(places: Places) -> str:
    """Every set and protocol with N, seeds and spread: zero-shot, peers, DKD, its worst seed and calibration."""
    peers = {name: title for name, title in PEERS.items() if all(name in methods for methods in places.values())}
    rows = []
    for (data, protocol), methods in places.items():
        plain, dkd = methods["zero-shot"], methods["dkd"]
        others = [f"{100 * methods[name].top1:.2f}" for name in peers]
        gain = f"{100 * dkd.gain:+.2f} ± {100 * dkd.gain_error:.2f}"
        figures = (_with_spread(plain), *others, f"**{_with_spread(dkd)}**", gain, _points(dkd.worst_gain))
        errors = f"{100 * plain.ece:.2f}", f"{100 * dkd.ece:.2f}", _points(dkd.worst_ece_change)
        rows.append((escape_markdown(data), protocol, f"{dkd.n:g}", dkd.num_seeds, *figures, *errors))
    header = ("set", "protocol", "N", "seeds", "zero-shot", *peers.values(), "DKD", "gain", "worst seed")
    header = (*header, "ECE zero-shot", "ECE DKD", "worst seed")
    return _table(header, rows, "--" + ":" * (len(header) - 2))


def _with_spread(line: Line) -> str:
    return f"{100 * line.top1:.2f}" + (f" ± {100 * line.spread:.2f}" if line.num_seeds > 1 else "")


def _points(difference: float | None) -> str:
    return "" if difference is None else f"{100 * difference:+.2f}"


if __name__ == "__main__":
    print(f"written: {write_results_page(REPOSITORY / 'docs')}")
