"""results.json as the Markdown of docs/benchmarks.md."""

from typing import Any

from .rows import RATES


INTRODUCTION = f"""# Benchmarks

Ours beside what a user would write or pick instead, on the same input in the same run, both sides in turn. Figures are
medians over the rounds. The ratio says how many times better ours is, median (lowest to highest round): the other's
time or memory over ours, or our rate over the other's ({", ".join(RATES)}); under 1, ours is worse. Weights and
embeddings are random where they do not change what is computed. A plus after a commit: code was changed since.

Written by `make bench`, from benchmarks/results.json; `python -m benchmarks --help` tells more.
"""


def table(results: dict[str, Any]) -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *(section_text(section) for section in results["sections"].values())])


def section_text(section: dict[str, Any]) -> str:
    """Heading, rows, and where and when they were measured."""
    machine = section["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in section["versions"].items())
    lines = [
        f"## {section['title']}",
        "",
        section["about"],
        "",
        "| what | ours | other | its figure | unit | ratio | rounds | note |",
        "|---|---|---|---|---|---|---|---|",
        *(row_text(row) for row in section["rows"]),
        "",
        f"`{section['command']}`, {section['date']}, commit {section['commit']}, seed {section['seed']}, "
        f"{section['minutes']} minutes; {machine['processor']}, {machine['cores']} cores, "
        f"{machine['threads']} threads, load average {machine['load_average']} at the start; {versions}.",
        "",
    ]
    return "\n".join(lines)


def row_text(row: dict[str, Any]) -> str:
    """One line of a table; what was not measured is a dash."""
    ratio = row["ratio"]
    told = "-" if ratio is None else f"{ratio['median']:.3g} ({ratio['lowest']:.3g} to {ratio['highest']:.3g})"
    cells = [row["what"], figure(row["ours"]), row["other"] or "-", figure(row["others"]), row["unit"], told]
    cells += [str(row["rounds"]), row["note"]]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def figure(value: float | None) -> str:
    """Four digits, no exponent for what people read as a number."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
