"""`dkd evaluate --dry-run`: options and all names in them checked, and what an evaluation would do."""

import argparse
from pathlib import Path

from ..data.prompts import load_templates
from ..embedding.planned_loading import is_indexed_here, planned_model, planned_place, show_plan
from ..hub.card_target import require_card
from .evaluate_sets import refuse_folders
from .names import REFERENCE
from .sources import check_sources
from .videos import asked_parts, check_video_options


WRITTEN = ("output", "summary", "figures", "explain", "update_card")


def show_evaluation_plan(args: argparse.Namespace) -> None:
    """Print what `run` would read, measure and write; clips are looked for where the data set is here.

    Raises:
        ValueError: As `run` would, for what can be seen without weights and embeddings.
    """
    if args.update_card and Path(args.update_card).is_dir():
        require_card(args.update_card)
    refuse_folders(args)
    check_sources(args)
    plan = _videos(args) if args.model else {"embeddings": ", ".join(map(planned_place, args.embeddings))}
    rows = [REFERENCE, "both_centred", "dkd", *_asked(args.baselines, "peers"), *_asked(args.ablations, "ablations")]
    plan["rows"] = ", ".join([*rows, *(args.method or ())]) + f"; seeds 0 to {args.seeds - 1}"
    written = [f"--{name} {getattr(args, name)}" for name in WRITTEN if getattr(args, name)]
    plan["written"] = ", ".join(written + ([f"embeddings in {args.cache_dir}"] if args.model else [])) or "nothing"
    show_plan("dkd evaluate", plan)


def _asked(names: list[str] | None, kind: str) -> list[str]:
    """Names of rows that are asked for; an option without names asks for all."""
    return [f"all {kind}"] if names == [] else names or []


def _videos(args: argparse.Namespace) -> dict[str, str]:
    """Model, clips and prompts."""
    check_video_options(args)
    model = planned_model(args.model, args.revision)
    lists = [
        f"--{name} {planned_place(getattr(args, name))}"
        for name in ("annotations", "classes", "known_classes")
        if getattr(args, name)
    ]
    data = ", ".join([f"{args.dataset} in {planned_place(args.data_dir)}", *lists])
    absent = [
        place for place in (args.data_dir, args.classes, args.known_classes) if place and not Path(place).exists()
    ]
    if not absent and is_indexed_here(args.dataset, args.data_dir):
        parts = asked_parts(args)
        data += "; " + ", ".join(f"{len(part.records)} {name} clips" for name, part in parts)
    templates = [] if args.descriptions else load_templates(args.templates)
    return {
        "model": model,
        "data": data,
        "prompts": planned_place(args.descriptions)
        if args.descriptions
        else f"{args.templates}: {len(templates)} a class",
        "domain": "the test clips, unlabelled" if args.transductive else "the training clips, unlabelled",
    }
