"""What evaluate.py does: measure every method on every set, print the tables, keep the results."""

import argparse
import os
import sys
from typing import Any

from tqdm import tqdm

from ..embedding.embedding_cache import EmbeddingSet
from .measurement import Measurement, Plan, measure_set
from .methods.ablations import ABLATIONS, ON_PARTS, ablation
from .methods.dkd import dkd
from .methods.peers import BASELINES, both_centred, zero_shot
from .protocols import Method
from .report import (
    REFERENCE,
    Line,
    against_best,
    environment,
    results,
    set_table,
    summarise,
    summary_table,
    write_results,
)
from .sources import Sources, load_sources
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
    measurements = evaluate_sets(sources, args)
    if args.output or args.update_card:
        keep_results(results(measurements, summarise(measurements), environment(command, sources.files)), args)


def keep_results(contents: dict[str, Any], args: argparse.Namespace) -> None:
    """Write the results where --output and --update_card say."""
    if args.output:
        write_results(args.output, contents)
        print(f"results: {args.output}", file=sys.stderr)
    if args.update_card:
        from ..hub.card_target import update_card

        print(f"card: {update_card(args.update_card, contents, args.model)}", file=sys.stderr)


def check_outputs(args: argparse.Namespace) -> None:
    """Make the folders of all output, and find the card, before anything is computed, not after."""
    if args.update_card:
        from ..hub.card_target import require_card

        require_card(args.update_card)
    folders = {"--output": args.output and args.output.parent, "--figures": args.figures, "--explain": args.explain}
    for option, folder in folders.items():
        if folder is None:
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{option}: the folder {folder} cannot be made ({error.strerror})") from error
        if not os.access(folder, os.W_OK):
            raise ValueError(f"{option}: the folder {folder} cannot be written to")
    if args.output and args.output.is_dir():
        raise ValueError(f"--output: {args.output} is a folder; name a file")


def evaluate_sets(sources: Sources, args: argparse.Namespace) -> list[Measurement]:
    """Measure every set, print its table as soon as it is there, then the summary and the figures."""
    sets, domain_set = sources.sets, sources.domain
    plan = Plan(args.protocols or sources.protocols, args.seeds, args.shots)
    chosen = {name: choose_methods(args, embedding_set) for name, embedding_set in sets.items()}
    total = sum(plan.num_tasks(domain_set is not None) * len(methods) for methods in chosen.values())
    measurements: list[Measurement] = []
    with tqdm(total=total, unit="run", file=sys.stderr, disable=None) as progress:
        for name, embedding_set in sets.items():
            own = []
            for measured in measure_set(
                name, embedding_set, chosen[name], plan, domain_set, on_start=progress.set_description_str
            ):
                own.append(measured)
                progress.update()
            with tqdm.external_write_mode(file=sys.stdout):
                print(f"{_title(name, embedding_set)}\n{set_table(summarise(own))}\n", flush=True)
            measurements += own
    print_summary(summarise(measurements))
    if args.model:  # of files it is known what they are; a model may be an unfit or untrained one
        for note in chance_notes(measurements):
            print(f"note: {note}", file=sys.stderr)
    if args.figures:
        from .figures import write_figures  # matplotlib is needed for nothing else

        for path in write_figures(args.figures, measurements, {n: s.class_names for n, s in sets.items()}):
            print(f"figure: {path}", file=sys.stderr)
    if args.explain:
        from .explanation_report import explain_sets  # matplotlib again

        for path in explain_sets(args.explain, sets, plan, domain_set):
            print(f"explanation: {path}", file=sys.stderr)
    return measurements


def print_summary(lines: list[Line]) -> None:
    """The table over all sets and protocols, where there is more than one row to summarise."""
    if len({(line.data, line.protocol) for line in lines}) < 2:
        return
    print(
        f"all rows: gain over {REFERENCE} in points, by protocol; ECE: change against {REFERENCE}, below 0 is better; "
        "s: mean time of a run, fit and test; MiB: largest growth of memory in one"
    )
    print(summary_table(lines))
    gap = against_best(lines, "dkd", ("transclip", "stata"))
    if gap:
        print(gap)


def choose_methods(args: argparse.Namespace, embedding_set: EmbeddingSet) -> dict[str, Method]:
    """Row names and functions, in the order of the table."""
    methods: dict[str, Method] = {REFERENCE: zero_shot, "both_centred": both_centred}
    if args.baselines is not None:
        if "gda" in args.baselines and not args.shots:
            raise ValueError("gda learns from labelled clips: give their number a class with --shots")
        named = args.baselines or [name for name in BASELINES if name != "gda" or args.shots]
        methods |= {name: BASELINES[name] for name in named}
    methods["dkd"] = dkd
    if args.ablations is not None:
        texts = embedding_set.text_embeds
        has_parts = embedding_set.video_embeds.dim() == 3 or (texts is not None and texts.dim() == 3)
        named = args.ablations or [name for name in ABLATIONS if name not in ON_PARTS or has_parts]
        methods |= {f"dkd/{name}": ablation(name) for name in named}
    return methods


def _title(name: str, embedding_set: EmbeddingSet) -> str:
    """One line that says what the table below is about."""
    known = embedding_set.metadata
    clips, dim = len(embedding_set.labels), embedding_set.video_embeds.shape[-1]
    parts = [name, f"{clips} clips", f"{len(embedding_set.class_names)} classes", f"{dim} dimensions"]
    parts += [f"{key} {known[key]}" for key in ("backbone", "split", "frames", "texts") if known.get(key) is not None]
    return ", ".join(parts)
