"""What evaluate.py does: measure every method on every set, print the tables, keep the results."""

import argparse
import os
import sys
from contextlib import AbstractContextManager
from typing import Any

from tqdm import tqdm

from ..embedding.embedding_cache import EmbeddingSet
from .measurement import Measurement, Plan, measure_set
from .names import BASELINES, REFERENCE
from .report import Line, environment, results, summarise, summary, write_results
from .rows import choose_methods, embedding_methods
from .search import measure_search, num_searches
from .sources import Sources, load_sources
from .tables import against_best, csv_table, open_table, search_table, set_table, summary_table, titled
from .videos import chance_notes


def run(args: argparse.Namespace, command: list[str]) -> None:
    """Carry out the options of evaluate.py.

    Args:
        args: What its parser gave.
        command: As it was typed; results name it.

    Raises:
        ValueError, OSError: Anything the user has to change, in one line.
    """
    check_outputs(args)
    sources = load_sources(args)
    if sources is None:  # a helping process of a shared run: the main one reports
        return
    measurements, searches = evaluate_sets(sources, args)
    if args.output or args.summary or args.update_card:
        described = environment(command, sources.files)
        keep_results(measurements, searches, described, args)


def keep_results(
    measurements: list[Measurement],
    searches: list[dict[str, Any]],
    described: dict[str, Any],
    args: argparse.Namespace,
) -> None:
    """Write the results where --output, --summary and --update_card say."""
    lines = summarise(measurements)
    contents = results(measurements, lines, described, searches)
    if args.output:
        write_results(args.output, contents)
        print(f"results: {args.output}", file=sys.stderr)
    if args.summary:
        write_results(args.summary, summary(lines, described, searches))
        print(f"summary: {args.summary}", file=sys.stderr)
    if args.update_card:
        from ..hub.card_target import update_card

        print(f"card: {update_card(args.update_card, contents, args.model)}", file=sys.stderr)


def check_outputs(args: argparse.Namespace) -> None:
    """Make the folders of all output, and find the card, before anything is computed, not after."""
    if args.update_card:
        from ..hub.card_target import require_card

        require_card(args.update_card)
    refuse_folders(args)
    folders = {
        f"--{name}": file and file.parent for name, file in (("output", args.output), ("summary", args.summary))
    }
    folders |= {"--figures": args.figures, "--explain": args.explain}
    for option, folder in folders.items():
        if folder is None:
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{option}: the folder {folder} cannot be made ({error.strerror})") from error
        if not os.access(folder, os.W_OK):
            raise ValueError(f"{option}: the folder {folder} cannot be written to")


def refuse_folders(args: argparse.Namespace) -> None:
    """Refuse a folder where a file is to be written.

    Raises:
        ValueError: The message names it.
    """
    for option, file in (("--output", args.output), ("--summary", args.summary)):
        if file and file.is_dir():
            raise ValueError(f"{option}: {file} is a folder; name a file")


def evaluate_sets(sources: Sources, args: argparse.Namespace) -> tuple[list[Measurement], list[dict[str, Any]]]:
    """Measure every set, print its table as soon as it is there, then those over all; rows, and rows of search."""
    sets, domain_set = sources.sets, sources.domain
    plan = Plan(args.protocols or sources.protocols, args.seeds, args.shots)
    chosen = {name: choose_methods(args, embedding_set) for name, embedding_set in sets.items()}
    searching = {name: embedding_methods(methods) for name, methods in chosen.items() if args.search}
    total = sum(plan.num_tasks(domain_set is not None) * len(methods) for methods in chosen.values())
    total += sum(num_searches(sets[name]) * len(methods) for name, methods in searching.items())
    measurements: list[Measurement] = []
    searches: list[dict[str, Any]] = []
    with tqdm(total=total, unit="run", file=sys.stderr, disable=None) as progress:
        tell = progress.set_description_str
        for name, embedding_set in sets.items():
            own = []
            for measured in measure_set(name, embedding_set, chosen[name], plan, domain_set, tell):
                own.append(measured)
                progress.update()
            measurements += own
            if args.format != "csv":
                with _beside_progress():
                    table = set_table(summarise(own), args.format)
                    print(titled(_title(name, embedding_set), table, args.format), end="\n\n", flush=True)
            if args.search:
                for row in measure_search(name, embedding_set, searching[name], plan, domain_set, tell):
                    searches.append(row)
                    progress.update()
    print_tables(summarise(measurements), searches, args.format)
    _write_pictures(measurements, sources, plan, args)
    return measurements, searches


def _write_pictures(measurements: list[Measurement], sources: Sources, plan: Plan, args: argparse.Namespace) -> None:
    """Notes on what is near chance, figures and explanations."""
    for note in chance_notes(measurements):
        print(f"note: {note}", file=sys.stderr)
    if args.figures:
        from .figures import write_figures  # matplotlib is needed for nothing else

        for path in write_figures(args.figures, measurements, {n: s.class_names for n, s in sources.sets.items()}):
            print(f"figure: {path}", file=sys.stderr)
    if args.explain:
        from .explanation_report import explain_sets  # matplotlib again

        for path in explain_sets(args.explain, sources.sets, plan, sources.domain):
            print(f"explanation: {path}", file=sys.stderr)


def print_tables(lines: list[Line], searches: list[dict[str, Any]], style: str) -> None:
    """The tables over all sets; as CSV every line, and those of search behind an empty line."""
    if style == "csv":
        print(csv_table([vars(line) for line in lines]))
        if searches:
            print(f"\n{csv_table([row | {'data': row['data']['name']} for row in searches])}")
        return
    if len({(line.data, line.protocol) for line in lines}) > 1:
        title = (
            f"all rows: gain over {REFERENCE} in points, by protocol; ECE: change against {REFERENCE}, below 0 is "
            "better; worst ECE and worst draw: of a single seed; s: mean time of a run, fit and test; MiB: largest "
            "growth of memory in one"
        )
        print(titled(title, summary_table(lines, style), style))
        run = dict.fromkeys(line.method for line in lines)
        gap = against_best(lines, "dkd", [name for name in BASELINES if name in run])
        if gap and style == "text":
            print(gap)
    if any(line.auroc is not None for line in lines):
        title = (
            "open: half of the classes asked, clips of all; top-1 on clips of the classes asked; AUROC: of telling "
            "these from the others, by what the method says itself and by its largest cosine; known ECE: calibration "
            "error of what it says; rejected: share below 0.5, of clips of none of the classes and of those asked"
        )
        print(f"\n{titled(title, open_table(lines, style), style)}")
    if searches:
        title = (
            "search: each class text ranks all clips by cosine, fitted texts and new ones (fitted on every second); "
            "mAP: mean average precision; R@k: share of texts with a clip of their class among the k best"
        )
        print(f"\n{titled(title, search_table(searches, style), style)}")


def _beside_progress() -> AbstractContextManager:
    """Lines on standard output that leave the progress bar whole."""
    return tqdm.external_write_mode(file=sys.stdout)


def _title(name: str, embedding_set: EmbeddingSet) -> str:
    """One line that says what the table below is about."""
    known = embedding_set.metadata
    clips, dim = len(embedding_set.labels), embedding_set.video_embeds.shape[-1]
    parts = [name, f"{clips} clips", f"{len(embedding_set.class_names)} classes", f"{dim} dimensions"]
    parts += [f"{key} {known[key]}" for key in ("backbone", "split", "frames", "texts") if known.get(key) is not None]
    return ", ".join(parts)
