"""What the demo shows first: clips recognised as if nobody had labelled them, and found by a text, both to look at.

The embeddings are those that the demo measures with; the labels are looked at only to say how much was right.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..embedding.embedding_cache import EmbeddingSet
from ..recognition.clip_recognition import EmbeddedClips, recognise_embedded
from ..recognition.clip_search import Row, SearchIndex, query_embedder
from ..recognition.encoder import load_encoder
from ..recognition.predictions import Question, Recognition
from ..recognition.report import write_report
from ..recognition.thumbnails import Picture, write_sheet
from .clips import class_prompts


QUERY = "growing"
NUM_FOUND = 10
REPORT_FOLDER, SHEET_FILE, CLASSES_FILE = "report", "search.html", "actions.txt"


@dataclass(frozen=True)
class DemoRecognition:
    """What came out, shares as fractions.

    Attributes:
        num_clips: Clips that were recognised, N.
        num_changed: Of these, clips whose label the domain changed.
        right_before: Share of the N that plain zero-shot labels right.
        right_after: The same with the domain, fitted to these clips.
        found_before: Share of the first `NUM_FOUND` clips that show what was asked, by plain cosines, mean over texts.
        found_after: The same with the domain.
    """

    num_clips: int
    num_changed: int
    right_before: float
    right_after: float
    found_before: float
    found_after: float


def recognise_and_search(embedded: EmbeddingSet, clips: Path, output: Path) -> DemoRecognition:
    """Recognise clips of the demo, and write the report, a sheet of what a text finds, and the list of classes.

    Args:
        embedded: Embeddings (N, T, D) of the clips in the folder, their texts, and labels to count what is right.
        clips: Folder of the N files that `embedded.metadata["names"]` names.
        output: Where the report, the sheet and the list go.
    """
    assert embedded.text_embeds is not None
    encoder = load_encoder()
    names = embedded.class_names
    (output / CLASSES_FILE).write_text("\n".join(names) + "\n", encoding="utf-8")
    paths = [str((clips / name).resolve()) for name in embedded.metadata["names"]]
    question = Question(names, embedded.text_embeds, class_prompts())
    unlabelled = EmbeddedClips(paths, paths, embedded.video_embeds, torch.full_like(embedded.labels, -1))
    found = recognise_embedded(unlabelled, question, encoder.new_head(), encoder.name, encoder.key)
    found = replace(found, predictions=[replace(p, path=p.clip) for p in found.predictions], num_embedded=len(paths))
    report = output / REPORT_FOLDER
    write_report(
        report,
        found,
        shlex.join(["dkd", "recognise", str(clips), "--classes", str(output / CLASSES_FILE), "--report", str(report)]),
    )
    assert found.domain is not None
    with torch.inference_mode():
        plain, moved = (
            head(embedded.video_embeds, question.text_embeds) for head in (encoder.new_head(), found.domain.head)
        )
    index = SearchIndex(
        [Row(path, path) for path in paths],
        moved.video_embeds.numpy(),
        found.domain.head,
        query_embedder(encoder, question, ()),
    )
    write_sheet(
        [Picture(m.path, None, Path(m.clip).name, f"{m.score:.3f}") for m in index.search(QUERY, NUM_FOUND)],
        output / SHEET_FILE,
        QUERY,
    )
    return DemoRecognition(
        len(paths),
        sum(p.is_changed for p in found.predictions),
        *shares_right(found, [names[k] for k in embedded.labels.tolist()]),
        *(share_found(o.video_embeds @ o.text_embeds.T, embedded.labels) for o in (plain, moved)),
    )


def shares_right(found: Recognition, truth: Sequence[str]) -> tuple[float, float]:
    """Share of the clips whose label is right, of plain zero-shot and with the domain."""
    pairs = list(zip(found.predictions, truth, strict=True))
    before = sum(p.zero_shot_label == label for p, label in pairs)
    return before / len(pairs), sum(p.label == label for p, label in pairs) / len(pairs)


def share_found(similarity: Tensor, labels: Tensor) -> float:
    """Of the first clips for each text, the share that shows its class, mean over the texts.

    Args:
        similarity: Of clips and texts (N, K).
        labels: Class of each clip (N,) int64.
    """
    best = similarity.topk(min(NUM_FOUND, len(labels)), dim=0).indices
    return (labels[best] == torch.arange(similarity.shape[1])).double().mean().item()
