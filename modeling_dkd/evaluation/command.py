"""The command line of evaluate.py."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

from ..data.embedding_cache import EmbeddingSet
from .ablations import ABLATIONS, ON_PARTS, ablation, dkd
from .baselines import BASELINES, Method, both_centred, zero_shot
from .measurement import GIVEN, Measurement, Plan, measure_set
from .protocols import PROTOCOLS
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
from .sources import Sources, add_embedding_arguments, load_sources
from .videos import add_video_arguments, chance_notes


DESCRIPTION = """\
Measure DKD against plain zero-shot CLIP, on embeddings of clips or on videos.

Rows that are always there: zero-shot (plain CLIP), both_centred (mean video and mean text taken away) and dkd (a head
fitted on the domain clips, without labels, with its defaults). Figures in the tables are percent: top-1 is the mean
over seeds, sd the standard deviation between them, gain the mean paired difference to zero-shot on the same clips and
SE its standard error; class is mean-class accuracy, ECE the calibration error, s and MiB time and memory of a run."""

EPILOG = """\
protocols:
{protocols}
  {given}: the domain is another file (--domain), all clips of --embeddings are tested.

files:
  A .safetensors cache holds video_embeds (N, D) or (N, T, D), labels (N,), text_embeds (K, D) or (K, P, D). In an
  .npz the arrays are guessed, or named with --video_key, --label_key and --text_key. FILE+TEXTFILE takes the class
  texts from TEXTFILE; where that has an array class_id, clips of other classes are left out and labels renumbered.

examples, with F the folder of the feature files:
  one file, every protocol, five seeds
    python evaluate.py --embeddings $F/whurs19_clip_vit-b-32.npz
  only the transductive figure, with figures and a file of results
    python evaluate.py --embeddings $F/whurs19_clip_rn50.npz --protocols full --output results.json --figures figures
  the 25 rows (5 sets x 5 protocols, 5 seeds) with all peers, the mean gain and the worst row at the end
    python evaluate.py --baselines --output results.json --embeddings \\
      $F/whurs19_clip_rn50.npz $F/whurs19_clip_vit-b-32.npz \\
      $F/ucf101_openai_vitb32_dev.npz+$F/ucf101_object_prompts_vitb32.npz \\
      $F/ucf101_openai_vitb32_dev.npz $F/imagenet500a_openai_vitb32.npz
  what DKD learned of a domain, which confusions it resolved or made, which clips changed most
    python evaluate.py --embeddings $F/whurs19_clip_rn50.npz --protocols full --explain explained
  videos: embed UCF101 once, fit on the training clips of split 1, test on its test clips
    python evaluate.py --model openai/clip-vit-base-patch16 --dataset ucf101 --data_dir UCF-101 --split 1
  domain and test given; all 16 training clips of each class labelled
    python evaluate.py --embeddings $F/ucf101_openai_vitb32_dev.npz --domain $F/ucf101_openai_vitb32_dev.npz \\
      --domain_video_key train16_f --shots 16 --baselines
  the rows into the card of the model that was measured
    python evaluate.py --model runs/my-model --dataset folder --data_dir clips --update_card runs/my-model
  frames as particles, 101 classes asked
    python evaluate.py --embeddings $F/ucf101_14_effnetlite0_conse_dev.npz --text_key text101 \\
      --ablations averaged_first
"""


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line, like all other errors of this command."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and leave with exit code 2."""
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    """All options of evaluate.py, in groups."""
    protocols = "\n".join(f"  {name}: {meaning}." for name, meaning in PROTOCOLS.items())
    parser = OneLineParser(
        prog="evaluate.py",
        description=DESCRIPTION,
        epilog=EPILOG.format(protocols=protocols, given=GIVEN),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_embedding_arguments(parser)
    add_video_arguments(parser)
    add_protocol_arguments(parser)
    add_method_arguments(parser)
    add_output_arguments(parser)
    return parser


def add_protocol_arguments(parser: argparse.ArgumentParser) -> None:
    """Which clips are the domain and which are tested."""
    group = parser.add_argument_group("protocols")
    group.add_argument(
        "--protocols",
        nargs="+",
        choices=tuple(PROTOCOLS),
        metavar="NAME",
        help=f"{', '.join(PROTOCOLS)}: see below (default: all five)",
    )
    group.add_argument("--seeds", type=_positive, default=5, metavar="N", help="seeds 0 to N-1 (default: 5)")
    group.add_argument(
        "--shots",
        type=_positive,
        default=0,
        metavar="N",
        help="label N domain clips of each class, drawn with the seed and left out of the test (default: no labels)",
    )


def add_method_arguments(parser: argparse.ArgumentParser) -> None:
    """Which rows are wanted beside the three that are always there."""
    group = parser.add_argument_group("rows")
    group.add_argument(
        "--baselines",
        nargs="*",
        choices=tuple(BASELINES),
        metavar="NAME",
        help=f"peers of DKD, all or those named: {', '.join(BASELINES)} (gda needs --shots)",
    )
    group.add_argument(
        "--ablations",
        nargs="*",
        choices=tuple(ABLATIONS),
        metavar="NAME",
        help=f"DKD with a part taken away, all or those named: {', '.join(ABLATIONS)}",
    )


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Where results go besides the tables on standard output."""
    group = parser.add_argument_group("output")
    group.add_argument("--output", type=Path, metavar="FILE", help="write all rows and the environment as JSON")
    group.add_argument("--figures", type=Path, metavar="DIR", help="write accuracy per class and confusions as PNG")
    group.add_argument(
        "--explain",
        type=Path,
        metavar="DIR",
        help="write what DKD learned of each domain and did to its clips and classes, as text, JSON and PNG, "
        "for the first protocol and seed",
    )
    group.add_argument(
        "--update_card",
        metavar="FOLDER_OR_REPO",
        help="add these rows to the model card of a folder, or of a Hub repository (one commit), in the places of "
        "older rows of the same measurement; other rows stay",
    )


def main(argv: list[str] | None = None) -> int:
    """Run evaluate.py; 0 when done, 2 with one line on standard error when the user has to change something."""
    argv = sys.argv[1:] if argv is None else argv
    args = build_parser().parse_args(argv)
    try:
        check_outputs(args)
        sources = load_sources(args)
        if sources is None:  # a helping process of a shared run: the main one reports
            return 0
        measurements = evaluate_sets(sources, args)
        if args.output or args.update_card:
            described = environment(["evaluate.py", *argv], sources.files)
            keep_results(results(measurements, summarise(measurements), described), args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted, nothing written", file=sys.stderr)
        return 130
    return 0


def keep_results(contents: dict[str, Any], args: argparse.Namespace) -> None:
    """Write the results where --output and --update_card say."""
    if args.output:
        write_results(args.output, contents)
        print(f"results: {args.output}", file=sys.stderr)
    if args.update_card:
        from ..hub.card_target import update_card  # imports the Hub's cards, which --help need not wait for

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


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return number
