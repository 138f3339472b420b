"""The measured rows of docs/results.md: every part is one run of evaluate.py, kept without the single runs.

python -m benchmarks.measured_rows ../shared/data/features                     # all parts
python -m benchmarks.measured_rows ../shared/data/features --parts real_video  # one of them
python -m benchmarks.results_page                                              # the page that shows them
"""

import argparse
import json
import sys
from pathlib import Path

from modeling_dkd.evaluation.command import main as evaluate
from modeling_dkd.evaluation.report import write_results
from modeling_dkd.hub.measured_rows import publishable


DOCS = Path(__file__).resolve().parents[1] / "docs"
WHURS19 = "video_embeds=image_f,text_embeds=text_avg,class_names=classnames"
FRAMES = "video_embeds=val_f,labels=val_l,names=val_names,class_names=classnames"
OBJECT_PROMPTS = "ucf101_object_prompts_vitb32.npz:text_embeds=text,class_names=class_name"
DEVELOPMENT = (
    f"whurs19_clip_rn50.npz:{WHURS19}",
    f"whurs19_clip_vit-b-32.npz:{WHURS19}",
    f"ucf101_openai_vitb32_dev.npz:{FRAMES}+{OBJECT_PROMPTS}",
    f"ucf101_openai_vitb32_dev.npz:{FRAMES},text_embeds=text_mapped_from_minilm",
    "imagenet500a_openai_vitb32.npz:video_embeds=image_f,text_embeds=text,class_names=classnames",
)
OWN, ALL = "text_embeds=text,class_names=classnames", "text_embeds=text_all,class_names=classnames_all"
WHOLE_CLIPS = tuple(
    f"{file}:title={name},video_embeds=clip_f,{texts}"
    for file, name, texts in (
        ("ucf101_14_movinet_conse.npz", "UCF101 14 of 14 classes asked", OWN),
        ("ucf101_14_movinet_conse.npz", "UCF101 14 of 101 classes asked", f"{ALL},text_rows=class_id"),
        ("jhmdb21_movinet_conse.npz", "HMDB51 21 of 21 classes asked", OWN),
        ("jhmdb21_movinet_conse.npz", "HMDB51 21 of 51 classes asked", f"{ALL},text_rows=class_id"),
    )
)
# Four quarters of a clip, each embedded on its own: real particles.
QUARTERS = tuple(clip.replace("asked,", "asked by quarters,").replace("clip_f", "video_f") for clip in WHOLE_CLIPS)
# What is kept in docs/, the files, and the other options of evaluate.py.
PARTS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "development": ("development_rows.json", DEVELOPMENT, ("--baselines",)),
    "real_video": ("real_video_rows.json", (*WHOLE_CLIPS, *QUARTERS), ("--baselines",)),
    "search_open": (
        "search_open_rows.json",
        (*DEVELOPMENT, *WHOLE_CLIPS[::2]),
        ("--search", "--protocols", "open", "--baselines", "mean_shift", "oga", "paper_literal"),
    ),
}


def measure(part: str, features: Path, docs: Path, seeds: int) -> Path:
    """Run evaluate.py on the files of a part and keep its summary, without places on this machine.

    Raises:
        ValueError: evaluate.py did not get through; it has said why.
    """
    name, files, options = PARTS[part]
    path = docs / name
    # A file of texts behind a plus lies in the same folder.
    places = [f"{features}/{file}".replace("+", f"+{features}/") for file in files]
    arguments = [*options, "--seeds", str(seeds), "--summary", str(path), "--embeddings", *places]
    if evaluate(arguments) != 0:
        raise ValueError(f"the part {part} was not measured")
    write_results(path, publishable(json.loads(path.read_text(encoding="utf-8"))))
    return path


def main() -> int:
    """Measure the parts asked for; 0 when done, 2 where one failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.measured_rows",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("features", type=Path, help="folder of the feature files")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="(default: all)")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of each protocol (default: 5)")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where the rows are kept (default: docs)")
    options = parser.parse_args()
    try:
        for part in options.parts:
            print(f"written: {measure(part, options.features, options.docs, options.seeds)}", file=sys.stderr)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
