"""The command line of evaluate.py."""

import argparse
import math
import sys
from pathlib import Path

from ..data.prompts import TEMPLATE_SETS
from ..embedding.cache_arrays import ARRAYS
from ..one_line_parser import OneLineParser
from .names import ABLATIONS, BASELINES, DATASETS, DTYPES, FORMATS, GIVEN, PROTOCOLS


DESCRIPTION = """\
Measure DKD against plain zero-shot CLIP, on embeddings of clips or on videos.

Rows that are always there: zero-shot (plain CLIP), both_centred (mean video and mean text taken away) and dkd (a head
fitted on the domain clips, without labels, with its defaults). Figures in the tables are percent: top-1 is the mean
over seeds, sd the standard deviation between them, gain the mean paired difference to zero-shot on the same clips, SE
its standard error, and worst that of the worst seed; class is mean-class accuracy, ECE the calibration error with its
largest increase over zero-shot in a single seed, s and MiB time and memory of a run."""

EPILOG = """\
protocols:
{protocols}
  {given}: the domain is another file (--domain), all clips of --embeddings are tested.

files:
  A .safetensors cache or an .npz holds the first three of these arrays, and of the others what it has:
{arrays}
  Where a file calls them otherwise, say so behind it, FILE:NAME=ARRAY,NAME=ARRAY, or for all files with --video_key,
  --label_key and --text_key. FILE+TEXTFILE, each with its names, takes the class texts from TEXTFILE. title=NAME is
  what rows call the set. An .npz may hold the number logit_scale.

a method of your own:
  # mine.py, run by: python evaluate.py --embeddings FILE --method mine.py:nearest_text
  def nearest_text(task):      # task.domain (N, D), task.test (M, D), task.text (K, D): unit norm, frames averaged by
      task = task.pooled()     # pooled(); task.domain_labels (N,) or None, task.logit_scale
      return task.logit_scale * task.test @ task.text.T      # logits (M, K)

examples, with F the folder of the feature files:
  one file, every protocol, five seeds
    python evaluate.py --embeddings $F/whurs19_clip_vit-b-32.npz --video_key image_f --text_key text_avg
  only the transductive figure, with figures and a file of results
    python evaluate.py --embeddings $F/whurs19_clip_rn50.npz:video_embeds=image_f,text_embeds=text_avg \\
      --protocols full --output results.json --figures figures
  the 25 rows (5 sets x 5 protocols, 5 seeds) with all peers, the mean gain and the worst row at the end
    W=video_embeds=image_f,text_embeds=text_avg,class_names=classnames
    U=video_embeds=val_f,labels=val_l,names=val_names,class_names=classnames
    python evaluate.py --baselines --output results.json --embeddings \\
      $F/whurs19_clip_rn50.npz:$W $F/whurs19_clip_vit-b-32.npz:$W \\
      $F/ucf101_openai_vitb32_dev.npz:$U+$F/ucf101_object_prompts_vitb32.npz:text_embeds=text,class_names=class_name \\
      $F/ucf101_openai_vitb32_dev.npz:$U,text_embeds=text_mapped_from_minilm \\
      $F/imagenet500a_openai_vitb32.npz:video_embeds=image_f,text_embeds=text,class_names=classnames
  the same sets: search by text, and clips of none of the classes asked
    python evaluate.py --search --protocols full open --embeddings ...
  what DKD learned of a domain, which confusions it resolved or made, which clips changed most
    python evaluate.py --embeddings clips.safetensors --protocols full --explain explained
  videos: embed UCF101 once, fit on the training clips of split 1, test on its test clips
    python evaluate.py --model openai/clip-vit-base-patch16 --dataset ucf101 --data_dir UCF-101 --split 1
  Kinetics-600's test clips without the names of classes of Kinetics-400, 160 of the others drawn with seed 0
    python evaluate.py --model runs/clip-vit-b16-k400 --dataset kinetics600 --data_dir k600 \\
      --annotations k600/annotations/test.csv --known_classes k400/annotations/train.csv --draw_classes 160 0 \\
      --transductive
  text-to-video retrieval: MSR-VTT, 1kA; the captions are the classes
    python evaluate.py --model openai/clip-vit-base-patch16 --dataset msrvtt --data_dir MSRVTT --templates bare \\
      --search
  domain and test given; all 16 training clips of each class labelled
    python evaluate.py --embeddings $F/ucf101_openai_vitb32_dev.npz:$U --text_key text_mapped_from_minilm \\
      --domain $F/ucf101_openai_vitb32_dev.npz:video_embeds=train16_f,labels=train16_l --shots 16 --baselines
  the rows into the card of the model that was measured
    python evaluate.py --model runs/my-model --dataset folder --data_dir clips --update_card runs/my-model
  quarters of a clip as particles; 101 classes asked, so that class_id says which text a label stands for
    python evaluate.py --ablations averaged_first --embeddings \\
      $F/ucf101_14_movinet_conse.npz:video_embeds=video_f,text_embeds=text_all,text_rows=class_id
"""


def build_parser() -> argparse.ArgumentParser:
    """All options of evaluate.py, in groups."""
    protocols = "\n".join(f"  {name}: {meaning}." for name, meaning in PROTOCOLS.items())
    arrays = "\n".join(f"    {name}: {meaning}" for name, meaning in ARRAYS.items())
    parser = OneLineParser("dkd evaluate", DESCRIPTION, EPILOG.format(protocols=protocols, given=GIVEN, arrays=arrays))
    add_embedding_arguments(parser)
    add_video_arguments(parser)
    add_protocol_arguments(parser)
    add_method_arguments(parser)
    add_output_arguments(parser)
    return parser


def add_embedding_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the embeddings come from."""
    group = parser.add_argument_group("embeddings")
    group.add_argument(
        "--embeddings", nargs="+", metavar="FILE", help="caches (.safetensors) or .npz files; see files below"
    )
    group.add_argument("--text_embeddings", metavar="FILE", help="class texts for every --embeddings file")
    group.add_argument("--domain", metavar="FILE", help="domain clips of their own, instead of the protocols")
    for flag, name in (("--video_key", "video_embeds"), ("--label_key", "labels"), ("--text_key", "text_embeds")):
        group.add_argument(flag, metavar="NAME", help=f"array that holds the {name} (default: {name})")
    group.add_argument(
        "--logit_scale",
        type=_positive_number,
        metavar="NUMBER",
        help="factor of the cosines, the backbone's own (default: what the file says, else 100)",
    )


def add_video_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the videos are and what embeds them."""
    group = parser.add_argument_group("videos", "embed clips with a model instead of reading --embeddings")
    group.add_argument("--model", metavar="NAME", help="what dkd recognise takes as --model")
    group.add_argument("--revision", metavar="COMMIT", help="branch, tag or commit of the --model repository")
    group.add_argument(
        "--dataset", choices=DATASETS, metavar="NAME", help=f"how --data_dir is laid out: {', '.join(DATASETS)}"
    )
    group.add_argument("--data_dir", metavar="DIR", help="folder of the videos; csv: the CSV file; hub: the data set")
    group.add_argument(
        "--annotations",
        metavar="PLACE",
        help="folder of the owners' lists, or one of them (default: in or beside --data_dir)",
    )
    group.add_argument("--split", choices=("1", "2", "3", "all"), default="1", help="official split (default: 1)")
    group.add_argument("--half_split", type=int, metavar="N", help="only the classes of half-class split N (0 to 9)")
    group.add_argument(
        "--classes", metavar="FILE", help="only these classes: one a line, a JSON list, or a CSV with a column label"
    )
    group.add_argument(
        "--known_classes", metavar="FILE", help="only classes that are not in this list, such as those trained on"
    )
    group.add_argument(
        "--draw_classes", nargs=2, type=int, metavar=("N", "SEED"), help="of the classes asked, N drawn with a seed"
    )
    group.add_argument(
        "--transductive",
        action="store_true",
        help="the test clips, unlabelled, are the domain (default: the training clips)",
    )
    group.add_argument("--allow_missing", action="store_true", help="go on without missing and damaged clips")
    group.add_argument(
        "--frames", metavar="TxCxV", help="frames x crops x clips (default: one view of what the model says, mostly 8)"
    )
    group.add_argument(
        "--templates",
        default="single",
        metavar="NAME",
        help=f"prompt templates: {', '.join(TEMPLATE_SETS)} or a file of your own (default: single)",
    )
    group.add_argument(
        "--descriptions", metavar="FILE", help="JSON with descriptions of the classes, instead of templates"
    )
    group.add_argument(
        "--cache_dir", type=Path, default=Path("runs/embeddings"), metavar="DIR", help="(default: runs/embeddings)"
    )
    group.add_argument("--batch_size", type=int, default=16, metavar="N", help="clips a batch (default: 16)")
    group.add_argument("--num_workers", type=int, default=2, metavar="N", help="decoding processes (default: 2)")
    group.add_argument(
        "--dtype",
        choices=DTYPES,
        default="float32",
        help="what the image encoder multiplies in (default: float32); bfloat16 is about twice as fast where the "
        "processor has instructions for it",
    )


def add_protocol_arguments(parser: argparse.ArgumentParser) -> None:
    """Which clips are the domain and which are tested."""
    group = parser.add_argument_group("protocols")
    group.add_argument(
        "--protocols",
        nargs="+",
        choices=tuple(PROTOCOLS),
        metavar="NAME",
        help=f"{', '.join(PROTOCOLS)}: see below (default: all but open)",
    )
    group.add_argument(
        "--search", action="store_true", help="also rank all clips for each class text, fitted and new (domain: full)"
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
        choices=BASELINES,
        metavar="NAME",
        help=f"peers of DKD, all or those named: {', '.join(BASELINES)} (gda needs --shots)",
    )
    group.add_argument(
        "--ablations",
        nargs="*",
        choices=ABLATIONS,
        metavar="NAME",
        help=f"DKD with a part taken away, all or those named: {', '.join(ABLATIONS)}",
    )
    group.add_argument(
        "--method",
        nargs="+",
        metavar="FILE.py:FUNCTION",
        help="methods of your own: functions of a task that return logits; the file is run",
    )


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Where results go besides the tables on standard output."""
    group = parser.add_argument_group("output")
    group.add_argument("--format", choices=FORMATS, default="text", help="of the printed tables (default: text)")
    group.add_argument(
        "--summary", type=Path, metavar="FILE", help="write the results without the single runs as JSON"
    )
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
    group.add_argument(
        "--dry-run", action="store_true", help="check options and names and tell what would be done, without a network"
    )


def main(argv: list[str] | None = None) -> int:
    """Run evaluate.py; 0 when done, 2 with one line on standard error when the user has to change something."""
    argv = sys.argv[1:] if argv is None else argv
    args = build_parser().parse_args(argv)
    try:
        if args.dry_run:
            from .dry_run import show_evaluation_plan

            show_evaluation_plan(args)
            return 0
        from .evaluate_sets import run  # seconds of imports, which --help need not wait for

        run(args, ["evaluate.py", *argv])
    except BrokenPipeError:  # the console script ends without a word
        raise
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted, nothing written", file=sys.stderr)
        return 130
    return 0


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return number


def _positive_number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number above 0")
    return number
