"""The counts as a table, as docs/faults.json and as docs/faults.md."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .trials import Tally


HEADER = ("fault", "tried", "survived", "lost", "wrong message", "seconds")

PAGE = """# Faults, done on purpose

`make faults` (`python -m faults`) damages what the commands read, kills them, takes disk, memory and open files
away, and counts what becomes of it; films of every container and codec that PyAV writes, late, trimmed, mirrored, cut
and with holes, are read beside the ffmpeg program where it is installed. *Survived*: the right result, or a refusal in
one sentence that names the file, option or value. *Lost*: a result that was or should be there is gone or different.
*Wrong message*: a traceback, a crash, a hang, or a sentence that does not say where to look. Each trial runs in a
process of its own; a resumed run is compared bit by bit with one that nothing happened to.

{table}
{notes}
Rows come from these runs, the latest of each row:

{runs}

The counts are in [faults.json](faults.json).
"""


def table(tallies: Sequence[Tally]) -> str:
    """Markdown, one row a class of fault and one for all."""
    rows = [(t.fault, f"{t.tried:,}", f"{t.survived:,}", t.lost, t.wrong_message, f"{t.seconds:.0f}") for t in tallies]
    tried, survived = (f"{sum(getattr(t, name) for t in tallies):,}" for name in ("tried", "survived"))
    lost, wrong = (sum(getattr(t, name) for t in tallies) for name in ("lost", "wrong_message"))
    rows.append(("all", tried, survived, lost, wrong, f"{sum(t.seconds for t in tallies):.0f}"))
    widths = [max(len(str(row[i])) for row in (HEADER, *rows)) for i in range(len(HEADER))]

    def line(row: Sequence[object]) -> str:
        first, *numbers = (str(cell) for cell in row)
        cells = [first.ljust(widths[0]), *(n.rjust(width) for n, width in zip(numbers, widths[1:], strict=True))]
        return f"| {' | '.join(cells)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(HEADER), f"| {' | '.join(rule)} |", *(line(row) for row in rows)])


def merged(before: Mapping[str, Any], now: Sequence[Tally]) -> list[Tally]:
    """The rows of now in the places of the earlier ones of the same faults, new ones at the end."""
    rows = {row["fault"]: Tally(**row) for row in before.get("faults", ())} | {tally.fault: tally for tally in now}
    return list(rows.values())


def run_of(command: str, described: Mapping[str, Any]) -> str:
    """By which command, when, where and from which commit rows are made, given `environment`."""
    commit = str(described["commit"] or "no commit")
    short = commit.replace(commit.partition("-")[0], commit[:12], 1)
    python = described["versions"]["python"]
    return f"`{command}`, {described['date'][:10]}, commit {short}, Python {python}, {os.cpu_count()} cores"


def runs(tallies: Sequence[Tally]) -> str:
    """Markdown, one line a run: what it was, how long it took and which rows it made."""
    lines = []
    for run in dict.fromkeys(tally.run for tally in tallies):
        made = [tally for tally in tallies if tally.run == run]
        lines.append(f"- {run}, {sum(t.seconds for t in made):.0f} seconds: {', '.join(t.fault for t in made)}.")
    return "\n".join(lines)


def write_report(folder: Path, tallies: Sequence[Tally]) -> None:
    """Write both files; rows of faults not tried now stay as they were."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "faults.json"
    tallies = merged(json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}, tallies)
    contents = {"faults": [asdict(tally) for tally in tallies]}
    path.write_text(json.dumps(contents, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    notes = "".join(f"\n{t.fault}: {t.note}.\n" for t in tallies if t.note)
    page = PAGE.format(table=table(tallies), notes=notes, runs=runs(tallies))
    (folder / "faults.md").write_text(page, encoding="utf-8")
