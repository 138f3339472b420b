"""An explanation as text, JSON and a picture.

print(report_text(explanation))
write_explanation("explained", "my-domain", explanation)  # my-domain.txt, my-domain.json, my-domain.png
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..embedding.embedding_cache import EmbeddingSet
from .explanation import EVIDENCE, ClassExplanation, ClipExplanation, Explanation, explain_domain
from .explanation_figure import explanation_figure
from .figures import save_figure
from .measurement import Plan, tasks
from .methods.dkd import fitted_head
from .report import write_results
from .tables import shortened, text_table


SHOWN = 10  # of each list


def explain_sets(
    folder: str | os.PathLike, sets: Mapping[str, EmbeddingSet], plan: Plan, domain_set: EmbeddingSet | None = None
) -> Iterator[Path]:
    """Fit a head on each set's first split, explain it on the test clips, and yield the files written."""
    for name, test_set in sets.items():
        split, task, labels = next(tasks(test_set, domain_set, plan))
        clip_names = test_set.metadata.get("names")
        explanation = explain_domain(
            fitted_head(task),
            task.test,
            task.text,
            test_set.class_names,
            None if clip_names is None else [clip_names[i] for i in split.test.tolist()],
            labels,
            title=f"{name}, {split.protocol}, seed {split.seed}, domain of {len(task.domain)} clips",
        )
        yield from write_explanation(folder, f"{name}-{split.protocol}-explanation", explanation)


def report_text(explanation: Explanation) -> str:
    """The report for a terminal: a few sentences and the top of each list; long names are cut."""
    e = explanation
    lines = [f"{e.title}: {e.num_clips} clips, {len(e.classes)} classes"]
    if e.accuracy_before is not None and e.accuracy_after is not None:
        gain = 100 * (e.accuracy_after - e.accuracy_before)
        lines.append(
            f"top-1: plain zero-shot {100 * e.accuracy_before:.2f} %, DKD {100 * e.accuracy_after:.2f} %, {gain:+.2f}"
        )
    lines += [
        f"DKD reads {e.num_changed} clips as another class than plain zero-shot",
        f"clips: moved with strength {e.strength:.3f}, cosine with the plain ones {e.video_cosine:.4f} (means)",
        f"class texts: cosine with the plain ones {e.text_cosine:.4f}, after their mean is taken off "
        f"{e.text_offset_cosine:.4f} (means)",
        f"class texts: trusted in the fit with {e.text_trust:g} of the encoder's logit scale",
        *_trust_curve(e),
        f"log density of the clips under the domain's mixture: {e.log_density_before:.1f} nats before, "
        f"{e.log_density_after:.1f} after (means)",
    ]
    missing = [shortened(name) for name in e.without_evidence]
    named = f": {'; '.join(missing[:SHOWN])}{' ...' if len(missing) > SHOWN else ''}" if missing else ""
    lines.append(f"no evidence in the domain (support below {EVIDENCE:g} sample): {len(missing)} classes{named}")
    lines += ["", _listed("classes, most support first", _class_table(e.classes[:SHOWN]), len(e.classes))]
    for title, confusions in (("confused less often", e.resolved), ("confused more often", e.created)):
        if e.accuracy_before is not None:
            rows = [
                (shortened(c.label), shortened(c.read_as), str(c.before), str(c.after)) for c in confusions[:SHOWN]
            ]
            table = text_table(("class", "read as", "zero-shot", "DKD"), rows, num_left=2)
            lines += ["", _listed(title, table, len(confusions))]
    changed = [(shortened(c.before), shortened(c.after), str(c.num_clips)) for c in e.changes[:SHOWN]]
    table = text_table(("plain zero-shot", "DKD", "clips"), changed, num_left=2)
    lines += ["", _listed("changes of the predicted class, right or wrong", table, len(e.changes))]
    lines += ["", _listed("clips that changed most", _clip_table(e.clips[:SHOWN]), len(e.clips))]
    return "\n".join(lines) + "\n"


def write_explanation(folder: str | os.PathLike, name: str, explanation: Explanation) -> Iterator[Path]:
    """Write name.txt, name.json and name.png into a folder, made if need be, and yield their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{kind}" for kind in ("txt", "json", "png")]
    paths[0].write_text(report_text(explanation), encoding="utf-8")
    write_results(paths[1], explanation.to_json())
    save_figure(explanation_figure(explanation), paths[2])
    yield from paths


def _trust_curve(e: Explanation) -> Iterator[str]:
    """What each lower factor would lose."""
    for c in e.trust_curve:
        halves = "are not compared" if c.disagreement is None else f"disagree on {100 * c.disagreement:.1f} %"
        lost = f"texts leave {100 * c.left_open:.1f} % undecided, halves {halves}"
        yield f"  with {c.trust:g} of it: {lost}; together less than {100 * e.trust_loss:.0f} % is little enough"


def _class_table(classes: Sequence[ClassExplanation]) -> str:
    """Moved: cosine of the text with the plain one, and after the mean text is taken off both."""
    header = (
        "class",
        "support",
        "share",
        "strength",
        "moved",
        "mean off",
        "read before",
        "after",
        "right before",
        "after",
    )
    rows = [
        (
            shortened(c.name),
            f"{c.support:.1f}",
            f"{c.share:.3f}",
            f"{c.strength:.3f}",
            f"{c.cosine:.3f}",
            f"{c.offset_cosine:.3f}",
            str(c.read_before),
            str(c.read_after),
            *("-" if share is None else f"{100 * share:.0f} %" for share in (c.accuracy_before, c.accuracy_after)),
        )
        for c in classes
    ]
    return text_table(header, rows, num_left=1)


def _clip_table(clips: Sequence[ClipExplanation]) -> str:
    header = ("clip", "plain zero-shot", "DKD", "class", "change", "strength", "cosine")
    rows = [
        (
            shortened(c.name, 48, keep_end=True),
            f"{shortened(c.before)} {c.confidence_before:.2f}",
            f"{shortened(c.after)} {c.confidence_after:.2f}",
            "unknown" if c.label is None else shortened(c.label),
            f"{c.change:.2f}",
            f"{c.strength:.2f}",
            f"{c.cosine:.3f}",
        )
        for c in clips
    ]
    return text_table(header, rows, num_left=4)


def _listed(title: str, table: str, total: int) -> str:
    """A table under its title, which says how much of it there is."""
    if not total:
        return f"{title}: none"
    return f"{title}{f', top {SHOWN}' if total > SHOWN else ''}\n{table}"
