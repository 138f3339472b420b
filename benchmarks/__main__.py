"""The command: measure the sections that were asked for, write results.json and the table."""

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .rows import REPOSITORY
from .table import table


SECTIONS = {
    "head": "Head forward",
    "fit": "Fitting a domain",
    "peers": "Transductive peers",
    "video_input": "Video input",
    "raw_clips": "Zero-shot evaluation of raw clips, end to end",
    "embedding_pipeline": "Clips to embeddings beside an encoder of given speed",
    "recognise_clips": "Labels for a folder of clips, end to end",
    "encoder_modes": "Layout and compilation of encoders",
    "text_encoding": "Text encoding",
    "training_step": "Training step",
    "export": "Exported graphs",
    "timeline": "Timeline of a long video",
    "label_suggestions": "Which clips to label",
    "cold_start": "Cold start",
}
PACKAGES = (
    *("torch", "transformers", "accelerate", "scikit-learn", "av", "pillow", "numpy"),
    *("decord2", "torchcodec", "onnxruntime", "openvino"),
)
RESULTS = Path(__file__).parent / "results.json"
TABLE = REPOSITORY / "docs/benchmarks.md"


def build_parser() -> argparse.ArgumentParser:
    """All options."""
    titles = "\n".join(f"  {name:14} {title}" for name, title in SECTIONS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=sys.modules[__package__].__doc__,
        epilog=f"sections:\n{titles}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="NAME", help="which (default: all)"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE", help="JSON that is read and written")
    parser.add_argument("--output", type=Path, default=TABLE, metavar="FILE", help="the table, Markdown")
    parser.add_argument("--table", action="store_true", help="measure nothing, write the table from the JSON")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Measure, write after every section, so that a stop loses one section at most."""
    options = build_parser().parse_args(arguments)
    results = read_results(options.results)
    failed = []
    for number, name in enumerate([] if options.table else options.sections, 1):
        print(f"{number} of {len(options.sections)}: {SECTIONS[name]}", file=sys.stderr, flush=True)
        try:
            results["sections"][name] = measured(name)
        except ValueError as error:  # what the user can mend, such as no clips; an older measurement stays
            print(f"error: {name}: {error}", file=sys.stderr)
            failed.append(name)
            continue
        results["sections"] = {key: results["sections"][key] for key in SECTIONS if key in results["sections"]}
        write_text(options.results, json.dumps(results, indent=1) + "\n")
        write_text(options.output, table(results))
    write_text(options.output, table(results))
    print(f"table: {options.output}; figures: {options.results}", file=sys.stderr)
    return 1 if failed else 0


def measured(name: str) -> dict[str, Any]:
    """One section as it goes into the JSON: where, when and how, and its rows."""
    import torch

    load, start = os.getloadavg()[0], time.perf_counter()
    section = importlib.import_module(f"{__package__}.{name}")
    rows = section.measure()
    return {
        "title": SECTIONS[name],
        "about": (section.__doc__ or "").split("\n\n")[0].strip(),
        "command": f"python -m benchmarks --sections {name}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit(),
        "seed": 0,
        "minutes": round((time.perf_counter() - start) / 60, 1),
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "system": f"{platform.system()} {platform.machine()}",
            "load_average": round(load, 1),
        },
        "versions": {"python": platform.python_version()} | versions(),
        "rows": [asdict(row) for row in rows],
    }


def commit() -> str:
    """The commit of the code, with a plus where code was changed since; empty outside a checkout."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "*.py")
    return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")


def versions() -> dict[str, str]:
    """Of the packages that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """The name that Linux tells, else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def read_results(path: Path) -> dict[str, Any]:
    """What was measured before; nothing where there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"sections": {}}


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main())
