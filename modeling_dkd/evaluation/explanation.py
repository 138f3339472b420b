"""What a fitted head has learned of its domain and what that does to videos and class texts, as a short report.

    head = DKDHead(config).fit(domain_video_embeds, text_embeds)
    explanation = explain_domain(head, video_embeds, text_embeds, class_names)

Everything is read off the head's outputs and its public buffers, beside plain zero-shot of the same embeddings.
explanation_report.py writes it as text, JSON and a picture.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..dkd_head import DKDHead
from ..embedding_inputs import SAME_CLASS_COSINE
from ..gaussian_mixture import GaussianMixture
from .protocols import pool


# A class with less support than one sample: the domain does not show that it occurs. With few domain samples it may.
EVIDENCE = 1.0
# How much of each list is kept.
KEPT = 50
CHUNK_SIZE = 4096
READERS = ("before", "after")  # plain zero-shot, DKD


@dataclass(frozen=True)
class ClassExplanation:
    """One class.

    Attributes:
        name: Printable.
        support: Domain samples that count for it, softly, a labelled one several times; 0 if the class was not fitted.
        share: Its weight in the mixture.
        strength: Weight with which its own samples moved its text, 0 to 1.
        cosine: Of its text as DKD moved it with the plain text.
        offset_cosine: The same after the mean over all texts is taken off both: what changed relative to the others.
        read_before: Clips that plain zero-shot reads as this class.
        read_after: Clips that DKD reads as this class.
        num_clips: Clips of this class; None where labels are unknown, as for the two accuracies.
        accuracy_before: Share of them that plain zero-shot gets right; None where there are none.
        accuracy_after: The same of DKD.
    """

    name: str
    support: float
    share: float
    strength: float
    cosine: float
    offset_cosine: float
    read_before: int
    read_after: int
    num_clips: int | None = None
    accuracy_before: float | None = None
    accuracy_after: float | None = None


@dataclass(frozen=True)
class Confusion:
    """Labelled clips of the class `label` that are read as `read_as`, under plain zero-shot and under DKD."""

    label: str
    read_as: str
    before: int
    after: int


@dataclass(frozen=True)
class Change:
    """How many clips plain zero-shot reads as `before` and DKD as `after`, right or wrong."""

    before: str
    after: str
    num_clips: int


@dataclass(frozen=True)
class ClipExplanation:
    """One clip.

    Attributes:
        name: Printable.
        before: Class that plain zero-shot reads, `confidence_before` its probability.
        after: Class that DKD reads, `confidence_after` its probability.
        label: Its class; None where it is unknown.
        change: Total variation distance between both distributions over the classes, 0 to 1.
        strength: Weight with which it was moved, 0 to 1.
        cosine: Of the clip as DKD moved it with the plain one.
    """

    name: str
    before: str
    confidence_before: float
    after: str
    confidence_after: float
    label: str | None
    change: float
    strength: float
    cosine: float


@dataclass(frozen=True)
class TrustCandidate:
    """A factor of the encoder's logit scale with which the texts could have been trusted in the fit.

    Attributes:
        trust: The factor, 0 to 1.
        left_open: Share of what there is to say about the domain's clips that the texts leave open with it.
        disagreement: Share of the clips that two halves of the domain, each fitted with it, give different classes;
            None where that was not looked at: the texts alone leave too much open, a lower factor was taken, or the
            domain cannot be halved.
    """

    trust: float
    left_open: float
    disagreement: float | None


@dataclass(frozen=True)
class Explanation:
    """The report; lists are sorted, most important first, and hold at most `KEPT` entries but for the classes.

    Attributes:
        title: What was explained.
        num_clips: Clips that were looked at.
        num_changed: Those whose class DKD changed.
        accuracy_before: Top-1 of plain zero-shot on the labelled clips; None where there are none.
        accuracy_after: The same of DKD.
        strength: Mean over the clips.
        video_cosine: Of moved with plain clips, mean.
        text_cosine: Of moved with plain class texts, mean.
        text_offset_cosine: The same after the mean text is taken off both.
        log_density_before: Of plain clips under the domain's mixture, mean, nats.
        log_density_after: Of moved clips.
        text_trust: Factor of the encoder's logit scale with which class texts were trusted in the fit.
        trust_curve: What could be chosen besides the encoder's own scale, largest factor first.
        trust_loss: What both shares of a factor together have to be less than for it to be chosen.
        classes: Every class, most support first.
        without_evidence: Classes with less support than one domain sample: the domain does not tell whether they
            occur, and their texts stay near plain CLIP.
        resolved: Confusions that became rarer; empty where labels are unknown.
        created: Confusions that became more frequent.
        changes: Changes of the predicted class.
        clips: Those with the largest change.
        log_densities: Before and after, (2, clips), for the figure.
        video_cosines: (clips,), for the figure.
    """

    title: str
    num_clips: int
    num_changed: int
    accuracy_before: float | None
    accuracy_after: float | None
    strength: float
    video_cosine: float
    text_cosine: float
    text_offset_cosine: float
    log_density_before: float
    log_density_after: float
    text_trust: float
    trust_curve: list[TrustCandidate]
    trust_loss: float
    classes: list[ClassExplanation]
    without_evidence: list[str]
    resolved: list[Confusion]
    created: list[Confusion]
    changes: list[Change]
    clips: list[ClipExplanation]
    log_densities: Tensor
    video_cosines: Tensor

    def to_json(self) -> dict:
        """Everything but the single values behind the figure, as JSON values."""
        return {name: value for name, value in asdict(self).items() if not isinstance(value, Tensor)}


@torch.no_grad()
def explain_domain(
    head: DKDHead,
    video_embeds: Tensor,
    text_embeds: Tensor,
    class_names: Sequence[str],
    clip_names: Sequence[str] | None = None,
    labels: Tensor | None = None,
    title: str = "DKD",
) -> Explanation:
    """Compare a fitted head with plain zero-shot on some clips, and describe its domain.

    Args:
        head: Fitted with class texts.
        video_embeds: (N, D) or (N, T, D), the domain's clips or any others.
        text_embeds: (K, D) or (K, P, D); need not be the fitted classes.
        class_names: K names.
        clip_names: N names; None numbers the clips.
        labels: (N,) int64, -1 for unknown; None: all unknown, and confusions are left out.
        title: What the report is headed with.

    Returns:
        The explanation; names in it are printable, whatever was given.

    Raises:
        ValueError: The head is not fitted with class texts, names or labels are not as many as what they name, or as
            in `DKDHead.forward`.
    """
    _check(head, video_embeds, text_embeds, class_names, clip_names, labels)
    names = [printable(name) for name in class_names]
    labels = torch.full((len(video_embeds),), -1) if labels is None else labels.cpu()
    seen = _look_at_clips(head, video_embeds, text_embeds)
    plain, moved = pool(text_embeds).cpu(), head(video_embeds[:1], text_embeds).text_embeds.cpu()
    cosines, offset_cosines = (plain * moved).sum(1), (_offsets(plain) * _offsets(moved)).sum(1)
    classes = _explain_classes(head, names, plain, cosines, offset_cosines, seen, labels)
    known = labels >= 0
    before, after = ((float((seen[key] == labels)[known].double().mean()) if known.any() else None) for key in READERS)
    resolved, created = _confusions(seen, labels, names)
    return Explanation(
        title=printable(title),
        num_clips=len(video_embeds),
        num_changed=int((seen["before"] != seen["after"]).sum()),
        accuracy_before=before,
        accuracy_after=after,
        strength=float(seen["strength"].mean()),
        video_cosine=float(seen["cosine"].mean()),
        text_cosine=float(cosines.mean()),
        text_offset_cosine=float(offset_cosines.mean()),
        log_density_before=float(seen["log_density_before"].double().mean()),
        log_density_after=float(seen["log_density_after"].double().mean()),
        text_trust=float(head.text_trust),
        trust_curve=_trust_curve(head),
        trust_loss=head.options.trust_loss,
        classes=sorted(classes, key=lambda of_class: -of_class.support),
        without_evidence=[of_class.name for of_class in classes if of_class.support < EVIDENCE],
        resolved=resolved,
        created=created,
        changes=_changes(seen, names),
        clips=_explain_clips(seen, names, clip_names, labels),
        log_densities=torch.stack([seen["log_density_before"], seen["log_density_after"]]),
        video_cosines=seen["cosine"],
    )


def printable(name: str) -> str:
    """The name with line breaks, control characters and the like written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(name))


def _check(
    head: DKDHead,
    video_embeds: Tensor,
    text_embeds: Tensor,
    class_names: Sequence[str],
    clip_names: Sequence[str] | None,
    labels: Tensor | None,
) -> None:
    """Refuse what does not fit together; embeddings themselves are checked by the head."""
    if not head.is_fitted or not bool(head.anchored):
        raise ValueError("only a head fitted with class texts can be explained: fit(video_embeds, text_embeds) first")
    for what, count, texts in (
        ("class_names", len(text_embeds), class_names),
        ("clip_names", len(video_embeds), clip_names),
    ):
        if texts is not None and len(texts) != count:
            raise ValueError(f"{what} has {len(texts)} names for {count} embeddings")
    if labels is not None and (labels.shape != (len(video_embeds),) or labels.is_floating_point()):
        raise ValueError(f"labels must be whole numbers of shape ({len(video_embeds)},), got {tuple(labels.shape)}")
    if labels is not None and len(labels) and not -1 <= int(labels.min()) <= int(labels.max()) < len(text_embeds):
        raise ValueError(f"labels must be from -1 (unknown) to {len(text_embeds) - 1}, one of them is not")


def _look_at_clips(head: DKDHead, video_embeds: Tensor, text_embeds: Tensor) -> dict[str, Tensor]:
    """What is known of each clip, (N,) each; in chunks, so that nothing of size N x K is kept."""
    texts, mixture = pool(text_embeds), GaussianMixture(head.weights, head.means, head.variances)
    parts: list[dict[str, Tensor]] = []
    for chunk in video_embeds.split(CHUNK_SIZE):
        output, plain = head(chunk, text_embeds), pool(chunk)
        before = (head.logit_scale * plain @ texts.T).softmax(1)
        after = output.logits_per_video.softmax(1)
        confidence = {f"confidence_{key}": p.max(1).values for key, p in zip(READERS, (before, after), strict=True)}
        parts.append(
            confidence
            | {
                "before": before.argmax(1),
                "after": after.argmax(1),
                "change": 0.5 * (before - after).abs().sum(1),
                "strength": output.strength,
                "cosine": (plain * output.video_embeds).sum(1),
                "log_density_before": mixture.log_density(plain),
                "log_density_after": mixture.log_density(output.video_embeds),
            }
        )
    return {key: torch.cat([part[key] for part in parts]).cpu() for key in parts[0]}


def _trust_curve(head: DKDHead) -> list[TrustCandidate]:
    """What could have been chosen; a head that was loaded does not know it."""
    choice = head.trust_choice
    if choice is None:
        return []
    trusts = sorted(choice.left_open, reverse=True)
    return [TrustCandidate(trust, choice.left_open[trust], choice.disagreement.get(trust)) for trust in trusts]


def _offsets(texts: Tensor) -> Tensor:
    """Unit offsets from the mean text; zero for a single one."""
    return normalize(texts - texts.mean(0), dim=-1)


def _explain_classes(
    head: DKDHead,
    names: list[str],
    texts: Tensor,
    cosines: Tensor,
    offset_cosines: Tensor,
    seen: dict[str, Tensor],
    labels: Tensor,
) -> list[ClassExplanation]:
    """Every class in the given order."""
    index, known = _fitted_classes(head, texts)
    support, share, strength = (
        torch.where(known, values.cpu()[index], 0.0).tolist()
        for values in (head.counts, head.weights, head.class_strength)
    )
    read = {key: torch.bincount(seen[key], minlength=len(names)).tolist() for key in READERS}
    labelled = labels >= 0
    num_clips = torch.bincount(labels[labelled], minlength=len(names))
    right = {key: torch.bincount(labels[labelled & (seen[key] == labels)], minlength=len(names)) for key in READERS}
    accuracy = {key: (counts / num_clips).tolist() for key, counts in right.items()}
    explained = []
    for k, name in enumerate(names):
        counted = int(num_clips[k])
        explained.append(
            ClassExplanation(
                name=name,
                support=support[k],
                share=share[k],
                strength=strength[k],
                cosine=float(cosines[k]),
                offset_cosine=float(offset_cosines[k]),
                read_before=read["before"][k],
                read_after=read["after"][k],
                num_clips=counted if labelled.any() else None,
                accuracy_before=accuracy["before"][k] if counted else None,
                accuracy_after=accuracy["after"][k] if counted else None,
            )
        )
    return explained


def _fitted_classes(head: DKDHead, texts: Tensor) -> tuple[Tensor, Tensor]:
    """Which fitted class each text (K, D) is, and whether it is one at all, (K,) each."""
    fitted = head.fitted_texts.cpu()
    if fitted.shape == texts.shape and torch.allclose(fitted, texts, atol=1e-5):
        # The usual case; two classes with one text keep their own support.
        return torch.arange(len(texts)), torch.ones(len(texts), dtype=torch.bool)
    best = (texts @ fitted.T).max(1)
    return best.indices, best.values >= SAME_CLASS_COSINE


def _confusions(seen: dict[str, Tensor], labels: Tensor, names: list[str]) -> tuple[list[Confusion], list[Confusion]]:
    """Confusions of labelled clips that became rarer and those that became more frequent, largest change first."""
    counts: dict[tuple[int, int], list[int]] = {}
    for position, key in enumerate(READERS):
        wrong = (labels >= 0) & (seen[key] != labels)
        for pair in zip(labels[wrong].tolist(), seen[key][wrong].tolist(), strict=True):
            counts.setdefault(pair, [0, 0])[position] += 1
    ordered = sorted(counts.items(), key=lambda item: item[1][1] - item[1][0])
    found = [Confusion(names[a], names[b], *count) for (a, b), count in ordered]
    resolved = [confusion for confusion in found if confusion.after < confusion.before]
    created = [confusion for confusion in reversed(found) if confusion.after > confusion.before]
    return resolved[:KEPT], created[:KEPT]


def _changes(seen: dict[str, Tensor], names: list[str]) -> list[Change]:
    """Changes of the predicted class, most frequent first."""
    changed = seen["before"] != seen["after"]
    pairs = torch.stack([seen[key][changed] for key in READERS], dim=1)
    if not len(pairs):
        return []
    unique, counts = pairs.unique(dim=0, return_counts=True)
    order = counts.argsort(descending=True, stable=True)[:KEPT]
    return [Change(names[a], names[b], int(counts[i])) for i in order.tolist() for a, b in [unique[i].tolist()]]


def _explain_clips(
    seen: dict[str, Tensor], names: list[str], clip_names: Sequence[str] | None, labels: Tensor
) -> list[ClipExplanation]:
    """The clips with the largest change."""
    chosen = seen["change"].argsort(descending=True, stable=True)[:KEPT].tolist()
    return [
        ClipExplanation(
            name=printable(clip_names[i]) if clip_names is not None else f"clip {i}",
            before=names[int(seen["before"][i])],
            confidence_before=float(seen["confidence_before"][i]),
            after=names[int(seen["after"][i])],
            confidence_after=float(seen["confidence_after"][i]),
            label=names[int(labels[i])] if labels[i] >= 0 else None,
            change=float(seen["change"][i]),
            strength=float(seen["strength"][i]),
            cosine=float(seen["cosine"][i]),
        )
        for i in chosen
    ]
