"""The pictures of README.md and docs: what knowing the domain does to embeddings, confidences and clips.

python -m benchmarks.pictures                      # all: docs/pictures/
python -m benchmarks.pictures --features FOLDER    # where the embeddings of real clips are (default: of DKD_DATA)

domain.png         texts and test clips of 14 classes of UCF101 in two dimensions, before and after
reliability.png    how often a confidence was right, before and after, on the same test clips
confusions.webp    which class was taken for which, before and after, on the same test clips
demo.webp          synthetic clips with the likeliest classes, before and after
report, changed, search, timeline, space (.webp)    the pages of the commands (benchmarks/page_pictures.py)

The first four fit on one random half, without labels, and show the other (protocol induct, seed 0). The demo shows the
first test clips that only one of the two gets right. docs/pictures/method.svg is drawn by hand.
"""

import argparse
import io
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from tqdm import tqdm

from modeling_dkd.dkd_head import DKDHeadOutput
from modeling_dkd.embedding.clip_encoder import ClipEncoder
from modeling_dkd.embedding.embedded_checkpoint import CHECKPOINT
from modeling_dkd.embedding.embedding_cache import EmbeddingSet, read_embeddings
from modeling_dkd.evaluation.figures import BEFORE, BETTER, confusion_figure, save_figure
from modeling_dkd.evaluation.measurement import Plan, tasks
from modeling_dkd.evaluation.methods.dkd import fitted_head, unfitted_head
from modeling_dkd.evaluation.metrics import CALIBRATION_BINS, calibration_error
from modeling_dkd.evaluation.protocols import logits_of
from modeling_dkd.synthetic.clips import ACTIONS, DEFAULT_TARGET, generate_clips
from modeling_dkd.synthetic.demo import CLIP_SEED, NUM_CLIPS, VIEWS, embed_target
from modeling_dkd.video_frames import read_frames

from . import page_pictures


REPOSITORY = Path(__file__).resolve().parents[1]
FEATURES = "ucf101_14_movinet_conse.npz"
STEPS = ("zero-shot", "with the domain")
# Of the moving picture: clips, pixels of a clip's side and of the whole, frames a clip, milliseconds a frame.
NUM_SHOWN, CLIP_SIDE, SIZE, FRAMES, FRAME_MS = 6, 208, (760, 256), 16, 150
INK, PALE, GROUND, WRONG = "#1f2328", "#d0d7de", "#ffffff", "#bf8700"


def before_and_after(embedded: EmbeddingSet) -> tuple[DKDHeadOutput, DKDHeadOutput, Tensor, Tensor]:
    """Test clips through an unfitted head and through one fitted on the other half; labels, and places in the set."""
    ((split, task, labels),) = tasks(embedded, None, Plan(("induct",), 1))
    with torch.inference_mode():
        before, after = (head(task.test, task.asked) for head in (unfitted_head(task), fitted_head(task)))
    return before, after, labels, split.test


def is_right(output: DKDHeadOutput, labels: Tensor) -> Tensor:
    """Which clips (N,) get their class."""
    return logits_of(output).argmax(1) == labels


def accuracy(output: DKDHeadOutput, labels: Tensor) -> float:
    """Top-1 as a fraction."""
    return is_right(output, labels).float().mean().item()


def domain_figure(outputs: Sequence[DKDHeadOutput], labels: Tensor, names: Sequence[str]) -> Figure:
    """Clips as dots, texts as stars, each with a line to the middle of its clips.

    Both clouds are seen from the plane in which the clips were spread most, about their own mean and in units of their
    own spread: a shift or a scale that all texts share changes no label.
    """
    figure = _figure(12, 6.6)
    colours = _colours(len(names))
    videos = outputs[0].video_embeds
    assert videos is not None
    _, _, directions = torch.linalg.svd(videos - videos.mean(0), full_matrices=False)
    for place, (step, output) in enumerate(zip(STEPS, outputs, strict=True), 1):
        axes = figure.add_subplot(1, 2, place)
        seen, texts = (_seen(embeds, directions[:2]) for embeds in (output.video_embeds, output.text_embeds))
        axes.scatter(
            seen[:, 0], seen[:, 1], s=9, alpha=0.5, linewidth=0, color=[colours[label] for label in labels.tolist()]
        )
        for label, text in enumerate(texts):
            axes.plot(*torch.stack([text, seen[labels == label].mean(0)]).T, color=colours[label], linewidth=1.4)
        axes.scatter(
            texts[:, 0], texts[:, 1], s=170, marker="*", color=colours, edgecolor=INK, linewidth=0.9, zorder=3
        )
        axes.set_title(f"{step}: {100 * accuracy(output, labels):.1f} % of {len(labels)} clips recognised")
        axes.set_xticks([])
        axes.set_yticks([])
    handles = [axes.scatter([], [], s=60, marker="*", color=c, label=n) for c, n in zip(colours, names, strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=7, frameon=False, fontsize=9)
    return figure


def reliability_figure(outputs: Sequence[DKDHeadOutput], labels: Tensor) -> Figure:
    """Share of right clips in each bin of confidence, and below how many clips are in it."""
    figure = _figure(9, 5)
    grid = figure.add_gridspec(2, 2, height_ratios=(3, 1))
    for column, (step, output, colour) in enumerate(zip(STEPS, outputs, (BEFORE, BETTER), strict=True)):
        confidence, guess = (values.numpy() for values in logits_of(output).double().softmax(1).max(1))
        right = guess == labels.numpy()
        axes, counts = (figure.add_subplot(grid[row, column]) for row in range(2))
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle="--")
        for bin_ in range(CALIBRATION_BINS):
            low, high = bin_ / CALIBRATION_BINS, (bin_ + 1) / CALIBRATION_BINS
            inside = (confidence > low) & (confidence <= high)
            if inside.any():
                axes.bar(low, right[inside].mean(), high - low, align="edge", color=colour, edgecolor=GROUND)
                counts.bar(low, inside.sum(), high - low, align="edge", color=colour, edgecolor=GROUND)
        axes.set_title(f"{step}: calibration error {100 * calibration_error(confidence, right):.1f}")
        axes.set_ylim(0, 1)
        counts.set_xlabel("confidence")
        for one in (axes, counts):
            one.set_xlim(0, 1)
            one.spines[["top", "right"]].set_visible(False)
        if not column:
            axes.set_ylabel("share that is right")
            counts.set_ylabel("clips")
    return figure


def demo_frames(
    clips: Sequence[Path], outputs: Sequence[DKDHeadOutput], labels: Sequence[int], shares: Sequence[float]
) -> list[Image.Image]:
    """Every frame of every clip, with the three likeliest classes of each step beside it."""
    frames = []
    for number, (path, label) in enumerate(zip(clips, labels, strict=True)):
        board = Image.new("RGB", SIZE, GROUND)
        draw = ImageDraw.Draw(board)
        draw.text((16, 12), f"the clip shows: {ACTIONS[label]}", INK, _font(15))
        for column, (step, output, share) in enumerate(zip(STEPS, outputs, shares, strict=True)):
            left = CLIP_SIDE + 44 + 256 * column
            draw.text((left, 40), step, INK, _font(15))
            draw.text((left, 60), f"right for {100 * share:.0f} % of all clips", "#59636e", _font(12))
            _draw_bars(draw, left, logits_of(output)[number].softmax(0), label)
        pixels = read_frames(path, FRAMES).pixels.permute(0, 2, 3, 1).numpy()
        for picture in pixels:
            frame = board.copy()
            frame.paste(Image.fromarray(picture).resize((CLIP_SIDE, CLIP_SIDE), Image.Resampling.NEAREST), (16, 38))
            frames.append(frame)
    return frames


def write_demo(path: Path) -> None:
    """Generate and embed the clips of the demo, and write the moving picture."""
    encoder = ClipEncoder.load(str(CHECKPOINT), VIEWS, None, torch.float32, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder, tqdm(total=NUM_CLIPS, unit="clip") as progress:
        written = generate_clips(Path(folder), DEFAULT_TARGET, NUM_CLIPS, CLIP_SEED)
        embedded = embed_target(encoder, DEFAULT_TARGET, written, progress)
        before, after, labels, places = before_and_after(embedded)
        only_one = is_right(before, labels) != is_right(after, labels)
        shown = only_one.nonzero()[:NUM_SHOWN, 0].tolist()
        clips = [Path(folder) / embedded.metadata["names"][places[number]] for number in shown]
        picked = [DKDHeadOutput(logits_of(output)[shown]) for output in (before, after)]
        shares = [accuracy(output, labels) for output in (before, after)]
        frames = demo_frames(clips, picked, labels[shown].tolist(), shares)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0, quality=70, method=4)


def write_real(file: Path, output: Path) -> None:
    """The three pictures of real clips."""
    embedded = read_embeddings(file, video_embeds="clip_f", text_embeds="text", class_names="classnames")
    before, after, labels, _ = before_and_after(embedded)
    save_figure(domain_figure((before, after), labels, embedded.class_names), output / "domain.png")
    save_figure(reliability_figure((before, after), labels), output / "reliability.png")
    old, new = (confusions(step, labels, len(embedded.class_names)) for step in (before, after))
    drawn = confusion_figure(old, new, embedded.class_names, f"UCF101, induct, {len(labels)} clips")
    canvas = io.BytesIO()
    drawn.savefig(canvas, dpi=110)
    with Image.open(canvas) as picture:
        picture.convert("RGB").save(output / "confusions.webp", quality=80, method=6)


def confusions(output: DKDHeadOutput, labels: Tensor, num_classes: int) -> Tensor:
    """Counts (K, K) float64, true class by row, class read by column."""
    places = labels * num_classes + logits_of(output).argmax(1)
    return torch.bincount(places, minlength=num_classes**2).view(num_classes, num_classes).double()


def _draw_bars(draw: ImageDraw.ImageDraw, left: int, probabilities: Tensor, label: int) -> None:
    """The three likeliest classes, the right one green and a wrong first one amber."""
    for row, (share, action) in enumerate(zip(*(values.tolist() for values in probabilities.topk(3)), strict=True)):
        top = 90 + 50 * row
        colour = BETTER if action == label else WRONG if row == 0 else "#8c959f"
        draw.text((left, top), ACTIONS[action], INK, _font(14))
        draw.text((left + 226, top), f"{100 * share:.0f} %", INK, _font(14), anchor="ra")
        draw.rectangle((left, top + 20, left + 226, top + 30), PALE)
        draw.rectangle((left, top + 20, left + max(2, round(226 * share)), top + 30), colour)


def _seen(embeds: Tensor | None, plane: Tensor) -> Tensor:
    """Coordinates (n, 2) about the mean, in units of the spread, of embeddings (n, D) in a plane (2, D)."""
    assert embeds is not None
    points = (embeds - embeds.mean(0)) @ plane.T
    return points / points.square().mean().sqrt()


def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font that matplotlib brings."""
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _colours(count: int) -> list[tuple[float, ...]]:
    """Different colours for so many classes."""
    from matplotlib import colormaps

    return [tuple(colormaps["tab20"](number % 20)) for number in range(count)]


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pictures; 0 when done, also where there are no embeddings of real clips."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pictures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    data = Path(os.environ.get("DKD_DATA", REPOSITORY.parent / "shared/data"))
    parser.add_argument("--features", type=Path, default=data / "features", metavar="FOLDER", help="of real clips")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "docs/pictures", metavar="FOLDER")
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    file = args.features / FEATURES
    if file.is_file():
        write_real(file, args.output)
    else:
        print(
            f"no {file}: domain.png, reliability.png and confusions.webp stay as they are; say where with --features",
            file=sys.stderr,
        )
    write_demo(args.output / "demo.webp")
    if reason := page_pictures.missing():
        print(f"{reason}: pictures of the pages stay as they are", file=sys.stderr)
    else:
        page_pictures.write_page_pictures(args.output)
    print(f"written: {args.output}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
