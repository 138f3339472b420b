"""Ours beside what a user would write, on real clips: same small backbone, clips, frames, epochs and batch.

    python benchmarks/real_clips.py --data_dir UCF-101 --annotations ucfTrainTestlist --output docs/real_clips.json
    python benchmarks/real_clips.py ... --seed 1            # further rows in the same file
    python benchmarks/real_clips.py ... --validation_groups 22 23 24 25 --set recipe.epochs=40 --output other.json

The last tests on groups of the training part, which is where options are chosen; test clips are for the end.

Rows: `train.py` with benchmarks/real_clips.yaml with and without the domain (one run, tested twice), a linear probe on
the frozen start weights, and transformers.Trainer on mean-pooled frames with a linear classifier, once as its plain
default and once with our augmentation. The vision encoder has random weights; the text encoder has learned, without
any video, to tell the class prompts apart, as any text encoder that knows language does.
"""

import argparse
import json
import shutil
import string
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

from modeling_dkd.data.prompts import class_prompts, load_templates
from modeling_dkd.data.video_files import VideoRecord
from modeling_dkd.embedding.clip_encoder import ClipEncoder, ClipReader
from modeling_dkd.evaluation.report import environment, write_results
from modeling_dkd.training.clips import TrainingClips, open_index
from modeling_dkd.training.command import main as train
from modeling_dkd.training.config import DataOptions, TrainingConfig, as_plain, load_config


CONFIG = Path(__file__).with_suffix(".yaml")
SIDE, PATCH = 48, 12
METHODS = ("ours", "probe", "trainer", "trainer_augmented")
TRAINER_LEARNING_RATE = 1e-3  # of 3e-4, 1e-3 and 3e-3 the best on the validation groups
MAX_LETTERS = 64


def build_backbone(folder: Path, seed: int, prompts: list[str]) -> None:
    """Write a stock CLIP of 0.6 million parameters whose text encoder reads letters and tells the prompts apart."""
    letters = ["<pad>", "<bos>", *string.ascii_letters, *" .,'-", "<eos>"]
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    marks = [(mark, vocabulary[mark]) for mark in ("<bos>", "<eos>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=marks)
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=MAX_LETTERS, **names)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": len(letters) - 1}
    trunk = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 64, "intermediate_size": 256}
    text = trunk | ids | {"vocab_size": len(letters), "max_position_embeddings": MAX_LETTERS}
    image = {"num_hidden_layers": 4, "num_attention_heads": 3, "hidden_size": 96, "intermediate_size": 384}
    image |= {"image_size": SIDE, "patch_size": PATCH}
    torch.manual_seed(seed)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=image, projection_dim=64))
    tell_apart(model, fast(prompts, padding=True, return_tensors="pt"))
    model.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SIDE).save_pretrained(folder)
    fast.save_pretrained(folder)


def tell_apart(model: CLIPModel, tokens: Any) -> None:
    """Train the text encoder until no two of the texts have a cosine above 0.1."""
    parameters = [*model.text_model.parameters(), *model.text_projection.parameters()]
    optimizer = torch.optim.Adam(parameters, 1e-3)
    for _ in range(1000):
        texts = nn.functional.normalize(model.get_text_features(**tokens).pooler_output, dim=-1)
        cosines = (texts @ texts.T).fill_diagonal_(-1)
        if cosines.max() < 0.1:
            return
        optimizer.zero_grad()
        (10 * cosines).logsumexp((0, 1)).backward()
        optimizer.step()
    raise RuntimeError(f"two of the texts still have a cosine of {cosines.max():.2f}")


class VideoClassifier(nn.Module):
    """What a user would write: mean of the frame embeddings and a linear layer."""

    def __init__(self, backbone: CLIPModel, num_classes: int) -> None:
        super().__init__()
        self.vision = backbone.vision_model
        self.classifier = nn.Linear(backbone.vision_model.config.hidden_size, num_classes)

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Logits and, with labels, the loss, as Trainer expects them."""
        frames = self.vision(pixel_values=pixel_values.flatten(0, 1)).pooler_output
        logits = self.classifier(frames.unflatten(0, pixel_values.shape[:2]).mean(1))
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Frames(Dataset):
    """Position -> pixel values at the segment centres and the label; they are always the same, so decoded once."""

    def __init__(self, title: str, records: Sequence[VideoRecord], reader: ClipReader) -> None:
        self.records = records
        self.reader = reader
        self.decoded = [reader(record.path)[0] for record in tqdm(records, desc=title, unit="clip", leave=False)]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return {
            "pixel_values": self.reader.normalise(self.decoded[position]),
            "labels": self.records[position].label,
        }


class AugmentedFrames(TrainingClips):
    """The same with our augmentation, new in each epoch."""

    visits = 0

    def __getitem__(self, position: Any) -> Any:
        self.visits += 1
        frames, record = super().__getitem__((self.visits, position))
        return {"pixel_values": frames, "labels": record.label}


def fine_tune_with_trainer(title: str, config: TrainingConfig, training: Dataset, test: "Frames") -> dict[str, Any]:
    """A row: top-1 as a fraction, and seconds of training."""
    num_classes = len(config.data.classes)
    torch.manual_seed(config.run.seed)
    model = VideoClassifier(CLIPModel.from_pretrained(config.model.backbone), num_classes)
    arguments = TrainingArguments(
        output_dir=f"{config.run.output_dir}-trainer",
        per_device_train_batch_size=config.recipe.batch_size,
        per_device_eval_batch_size=config.recipe.batch_size,
        num_train_epochs=config.recipe.epochs,
        learning_rate=TRAINER_LEARNING_RATE,
        seed=config.run.seed,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        logging_strategy="no",
        dataloader_num_workers=config.data.num_workers,
        # Workers count the epochs for the augmentation, so they must outlive them.
        dataloader_persistent_workers=config.data.num_workers > 0,
    )
    trainer = Trainer(model, arguments, train_dataset=training, eval_dataset=test)
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    predicted = trainer.predict(test)
    logits: Any = predicted.predictions
    top1 = float((np.asarray(logits).argmax(1) == predicted.label_ids).mean())
    return {"method": title, "top1": top1, "n": len(test), "seconds": round(seconds, 1)}


@torch.no_grad()
def linear_probe(config: TrainingConfig, parts: dict[str, Frames]) -> float:
    """Top-1 of logistic regression on the mean frame embeddings of the frozen start weights."""
    vision = CLIPModel.from_pretrained(config.model.backbone).vision_model.eval()
    features, labels = {}, {}
    for name, part in parts.items():
        rows = [vision(part[i]["pixel_values"]).pooler_output.mean(0) for i in tqdm(range(len(part)), desc=name)]
        features[name] = torch.stack(rows).numpy()
        labels[name] = [record.label for record in part.records]
    centre, spread = features["train"].mean(0), features["train"].std(0) + 1e-6
    probe = LogisticRegression(max_iter=5000).fit((features["train"] - centre) / spread, labels["train"])
    return float(probe.score((features["test"] - centre) / spread, labels["test"]))


def validation_set(options: DataOptions, groups: set[str], folder: Path) -> Path:
    """A folder with copies of the training clips in which these groups are the test part."""
    index = open_index(options)
    for record in index.part("train").records:
        part = "test" if record.group.rpartition("_g")[2] in groups else "train"
        copied = folder / part / index.class_names[record.label] / Path(record.path).name
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(record.path, copied)
    return folder


def keep_rows(path: Path, rows: list[dict[str, Any]], config: TrainingConfig, num_train: int) -> None:
    """Write the rows of a seed beside those of other seeds that are in the file already."""
    kept = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    new = {(row["run"], row["method"]) for row in rows}
    rows = [row for row in kept if (row["run"], row["method"]) not in new] + rows
    rows.sort(key=lambda row: row["run"])
    n = rows[0]["n"]
    official = config.data.dataset == "ucf101"
    place = f"UCF101 split {config.data.split}" if official else "validation groups of the training part"
    protocol = (
        f"{place}, {len(config.data.classes)} classes, {num_train} training "
        f"clips, {config.data.num_frames} frames of {SIDE} pixels, CLIP of 0.6 million parameters with random vision "
        f"weights, {config.recipe.epochs} epochs, domain with labels (inductive)"
    )
    contents = {
        "command": "python benchmarks/real_clips.py --seed RUN",
        "protocol": protocol,
        "n": n,
        "standard_error": round((0.4 * 0.6 / n) ** 0.5, 4),
        "options": {name: as_plain(config)[name] for name in ("augmentation", "recipe", "domain")},
        "trainer_learning_rate": TRAINER_LEARNING_RATE,
        "environment": environment(["benchmarks/real_clips.py"], []),
        "rows": rows,
    }
    write_results(path, contents)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--annotations", required=True)
    parser.add_argument("--seed", type=int, default=0, help="of the backbone and all training; names the rows")
    parser.add_argument(
        "--validation_groups", nargs="+", default=[], help="test on these groups of the training part instead"
    )
    parser.add_argument("--set", nargs="+", default=[], dest="overrides", help="options of train.py")
    parser.add_argument(
        "--only", choices=METHODS, nargs="+", default=METHODS, help="what is measured; default: everything"
    )
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    overrides = [f"data.data_dir={args.data_dir}", f"data.annotations={args.annotations}", f"run.seed={args.seed}"]
    overrides += [
        f"{place}-{args.seed}"
        for place in ("run.output_dir=runs/real_clips/ours", "model.backbone=runs/real_clips/clip")
    ]
    config = load_config(CONFIG, [*overrides, *args.overrides])
    if args.validation_groups:
        folder = Path(config.run.output_dir).parent / f"validation-{'-'.join(args.validation_groups)}"
        chosen = validation_set(config.data, set(args.validation_groups), folder)
        overrides += ["data.dataset=folder", f"data.data_dir={chosen}"]
    overrides += args.overrides
    config = load_config(CONFIG, overrides)
    index = open_index(config.data)
    templates = load_templates(config.data.templates)
    prompts = [prompt for of_class in class_prompts(index.class_names, templates) for prompt in of_class]
    build_backbone(Path(config.model.backbone), config.run.seed, prompts)
    views = f"{config.data.num_frames}x1x1"
    encoder = ClipEncoder.load(config.model.backbone, views, None, torch.float32, torch.device("cpu"))
    processor = encoder.processor
    parts = {name: Frames(name, index.part(name).records, encoder.reader) for name in ("train", "test")}
    rows: list[dict[str, Any]] = []
    if "ours" in args.only:
        start = time.perf_counter()
        if train(["--config", str(CONFIG), "--set", *overrides]):
            return 1
        seconds = time.perf_counter() - start
        own = json.loads((Path(config.run.output_dir) / "results.json").read_text(encoding="utf-8"))
        rows += [{"method": f"train.py: {row['method']}", "top1": row["top1"], "n": row["n"]} for row in own["rows"]]
        rows[-1]["seconds_with_tests"] = round(seconds, 1)
    if "probe" in args.only:
        rows.append({"method": "linear probe", "top1": linear_probe(config, parts), "n": len(parts["test"])})
    augmented = AugmentedFrames(
        parts["train"].records,
        index.class_names,
        processor,
        config.data.num_frames,
        config.augmentation,
        config.run.seed,
    )
    if "trainer" in args.only:
        rows.append(fine_tune_with_trainer("transformers.Trainer", config, parts["train"], parts["test"]))
    if "trainer_augmented" in args.only:
        rows.append(fine_tune_with_trainer("transformers.Trainer, our augmentation", config, augmented, parts["test"]))
    rows = [{"run": args.seed, **row} for row in rows]
    keep_rows(args.output, rows, config, len(parts["train"]))
    for row in rows:
        print(f"{row['method']:32} {100 * row['top1']:6.2f} %  of {row['n']} clips")
    return 0


if __name__ == "__main__":
    sys.exit(main())
