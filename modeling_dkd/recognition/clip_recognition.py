"""Clips that nobody has labelled to labels: embed each once, fit the domain to them, compare them with the classes.

found = recognise(["clips"], ["archery", "surfing"], model="openai/clip-vit-base-patch16")
for prediction in found.predictions:
    print(prediction.clip, prediction.label, prediction.confidence)
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from ..configuration_dkd import DKDCLIPConfig
from ..data.counting import counted
from ..dkd_head import DKDHead
from ..embedding.cache_arrays import split_pair
from ..embedding.embedding_cache import EmbeddingSet, read_embeddings, read_with_texts
from ..embedding.worker_processes import shared_accelerator, start_server
from ..withheld_classes import without_small_classes
from .asked import Classes, PathLike, asked, none_readable
from .classes import read_classes, read_labels
from .clip_cache import ClipCache, default_cache_folder
from .clip_listing import Clip, Listing, list_clips
from .doubts import doubts_about, require_different_texts, without_log_of_same_texts
from .encoder import Encoder, Model
from .predictions import Prediction, Question, Recognition, predict
from .saved_domain import SavedDomain, digest, is_on_hub, load_domain, make_room, save_domain


@dataclass(frozen=True)
class DomainUse:
    """Which domain clips are recognised with.

    Attributes:
        folder: A saved one; None: it is fitted to the clips themselves.
        adapt: Whether a domain is used at all; False is plain zero-shot.
        update: Whether the saved one learns from those clips that it has not learned from yet.
        save_to: Folder for the domain that was used; None: not saved, but an updated one where it was.
        labelled: CSV (clip, label) of clips whose class is known, which take part in the fit.
        reject_below: Clips whose `known` is below it get no label, 0 to 1.
        min_clips: Save the domain without anything of classes that fewer clips show, see `without_small_classes`.
    """

    folder: PathLike | None = None
    adapt: bool = True
    update: bool = False
    save_to: PathLike | None = None
    labelled: PathLike | None = None
    reject_below: float = 0.0
    min_clips: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.reject_below <= 1:
            raise ValueError(f"--reject-below {self.reject_below:g}: known is a probability, give 0 to 1")
        if self.min_clips is not None and (self.save_to is None or self.folder is not None):
            raise ValueError("--min-clips is for a domain that is fitted now and saved; give --save-domain DIR")
        if self.update and self.save_to is None and is_on_hub(self.folder):
            raise ValueError(f"{self.folder} is on the Hub; say with --save-domain where the updated domain goes")
        if self.update and self.folder is None:
            raise ValueError("--update goes on with a saved domain; name it with --domain")
        if self.labelled is not None and self.folder is not None:
            raise ValueError("--labelled clips take part in a fit, and --domain is fitted already; give one of them")
        if not self.adapt:
            options = {"--domain": self.folder, "--save-domain": self.save_to, "--labelled": self.labelled}
            given = [name for name, value in options.items() if value is not None]
            if given:
                raise ValueError(f"--no-adapt uses no domain; leave out {given[0]}")

    def make_folder(self) -> None:
        """Make the folder that a domain is saved in, or say why it cannot be."""
        if self.save_to is not None:
            make_room(self.save_to)


FITTED_HERE = DomainUse()


def recognise(
    paths: Sequence[PathLike],
    classes: Classes | None = None,
    model: Model = None,
    *,
    templates: PathLike | None = None,
    descriptions: PathLike | None = None,
    use: DomainUse = FITTED_HERE,
    cache_dir: PathLike | None = None,
    batch_size: int | None = None,
    num_workers: int = 2,
) -> Recognition:
    """Recognise clips that nobody has labelled.

    Args:
        paths: Files, folders, lists and tables, as in `list_clips`.
        classes: A file with one class a line, names with commas between them, or a list; None: those of the domain.
        model: What embeds: what `load_encoder` gives, or the name that it takes.
        templates: Prompt templates, as in `load_templates`; None: the domain's or the encoder's own.
        descriptions: JSON file with descriptions of the classes, instead of templates.
        use: Which domain is used; by default one that is fitted to these clips.
        cache_dir: Where embeddings are kept; None: `default_cache_folder()`.
        batch_size: Clips that are decoded and encoded together; None: what suits the encoder.
        num_workers: Decoding processes. With any, a script needs its `if __name__ == "__main__":`.

    Returns:
        Predictions of all clips, those that could not be read among them. Where several processes were launched, each
        calls this and gets it.

    Raises:
        ValueError: What the user has to change: no clips, classes or model, a domain of another encoder, no clip that
            can be read.
        OSError: The disk refuses; what was embedded is kept.
    """
    start_server(num_workers)
    accelerator = shared_accelerator()
    use.make_folder()  # before the work, not after it
    listing = _same_on_all(accelerator, paths)
    encoder, question, stored = asked(
        classes,
        model,
        templates=templates,
        descriptions=descriptions,
        domain=use.folder,
        device=accelerator.device,
    )
    labels = {} if use.labelled is None else read_labels(use.labelled, listing.clips, question.class_names)
    cache = ClipCache(cache_dir or default_cache_folder(), encoder)
    run = cache.embed(listing.clips, accelerator, batch_size, num_workers)
    sound = [clip for clip in listing.clips if clip.path not in run.damaged]
    if not sound:
        raise none_readable({clip.name: run.damaged[clip.path] for clip in listing.clips})
    embedded = EmbeddedClips(
        [clip.name for clip in sound],
        [run.identities[clip.path] for clip in sound],
        cache.gather(sound),
        torch.tensor([labels.get(clip.path, -1) for clip in sound]),
    )
    found = recognise_embedded(embedded, question, encoder.new_head(), encoder.name, encoder.key, use, stored)
    save(found, use, embedded, accelerator.is_main_process)
    by_path = {clip.path: p for clip, p in zip(sound, found.predictions, strict=True)}
    predictions = [
        replace(by_path[clip.path], path=clip.path, remark=run.remarks.get(clip.path, ""))
        if clip.path in by_path
        else Prediction(clip.name, clip.path, error=run.damaged[clip.path])
        for clip in listing.clips
    ]
    doubts = [*found.doubts, *_cut_prompts(encoder, question), *listing.notes]
    return replace(found, predictions=predictions, doubts=doubts, num_embedded=run.num_embedded)


@dataclass(frozen=True)
class EmbeddedClips:
    """Clips as they are compared.

    Attributes:
        names: N names, as tables give them.
        identities: What each is known by.
        video_embeds: (N, P, D) float32.
        labels: Class of each, -1 where unknown, (N,) int64.
    """

    names: list[str]
    identities: list[str]
    video_embeds: Tensor
    labels: Tensor


def recognise_embedded(
    clips: EmbeddedClips,
    question: Question,
    plain: DKDHead,
    encoder: str,
    encoder_key: dict,
    use: DomainUse = FITTED_HERE,
    stored: SavedDomain | None = None,
) -> Recognition:
    """Recognise clips that are embedded already.

    Args:
        clips: At least one.
        question: The classes.
        plain: A head for these embeddings without a domain.
        encoder: Name of what embedded them.
        encoder_key: All that its embeddings depend on.
        use: Which domain is used.
        stored: The domain in `use.folder`.

    Raises:
        ValueError: The classes are all one text, or the embeddings do not fit the domain.
    """
    require_different_texts(question, encoder)
    described, domain, num_fitted = "none: plain zero-shot", None, None
    if stored is not None:
        domain = updated(stored, clips) if use.update else stored
        learned = len(domain.learned) - len(stored.learned)
        described = f"the one in {os.fspath(use.folder or '')}" + (
            f", updated with {counted(learned, 'clip')}" if use.update else ""
        )
    elif use.adapt:
        head = DKDHead(plain.config).eval()
        head.encoder = plain.encoder
        labels = clips.labels if (clips.labels >= 0).any() else None
        with without_log_of_same_texts():
            head.fit(clips.video_embeds, question.text_embeds, labels, class_names=question.class_names)
        domain = SavedDomain(head, question.class_names, question.prompts, encoder, encoder_key)
        domain = domain.learned_from(clips.identities)
        num_fitted = len(clips.names)
        num_labelled = int((clips.labels >= 0).sum())
        described = "fitted to " + ("this clip" if num_fitted == 1 else f"these {counted(num_fitted, 'clip')}")
        described += f", {num_labelled} labelled" if num_labelled else ""
    head = plain if domain is None else domain.head
    found = predict(head, plain, clips.video_embeds, question, clips.names, use.reject_below)
    doubts = doubts_about(found, question, num_fitted, use.reject_below)
    return Recognition(found, question.class_names, encoder, domain, described, doubts)


def updated(domain: SavedDomain, clips: EmbeddedClips) -> SavedDomain:
    """The domain after it has learned from those clips that it has not learned from yet."""
    new = [row for row, identity in enumerate(clips.identities) if digest(identity) not in domain.learned]
    if new:
        domain.head.update(clips.video_embeds[new])
    return domain.learned_from(clips.identities[row] for row in new)


def save(found: Recognition, use: DomainUse, clips: EmbeddedClips, is_main_process: bool = True) -> None:
    """Write the domain that was used where it is wanted; one to share without classes of few clips."""
    target = use.save_to if use.save_to is not None else use.folder if use.update else None
    if target is None or found.domain is None or not is_main_process:
        return
    domain = found.domain
    if use.min_clips is not None:
        head = without_small_classes(domain.head, use.min_clips, clips.video_embeds, clips.labels)
        domain = replace(domain, head=head)
    save_domain(target, domain)


def recognise_embeddings(
    file: PathLike, classes: Classes | None = None, *, use: DomainUse = FITTED_HERE
) -> Recognition:
    """Recognise clips whose embeddings are in a file; nothing is decoded or encoded.

    Args:
        file: A cache (.safetensors) or .npz with class texts, or FILE+TEXTFILE, with :NAME=ARRAY,... behind a file
            whose arrays have other names, as evaluate.py takes them. Labels in it are not looked at.
        classes: Some of the file's classes, as in `recognise`; None: all.
        use: Which domain is used; `labelled` names clips as the file does.

    Raises:
        ValueError: The file has no class texts, or not these classes, or as in `recognise`.
    """
    found = _read(os.fspath(file))
    if found.text_embeds is None:
        raise ValueError(f"{os.fspath(file)} has no class texts; write FILE+TEXTFILE to take them from another file")
    names = found.class_names if classes is None else read_classes(classes)
    lacking = [name for name in names if name not in found.class_names]
    if lacking:
        raise ValueError(f"{os.fspath(file)} has no texts of {lacking[0]!r}; it has {', '.join(found.class_names)}")
    texts = found.text_embeds if found.text_embeds.dim() == 3 else found.text_embeds[:, None]
    videos = found.video_embeds if found.video_embeds.dim() == 3 else found.video_embeds[:, None]
    question = Question(names, texts[[found.class_names.index(name) for name in names]])
    clip_names = list(found.metadata.get("names") or [f"clip {row}" for row in range(len(videos))])
    labels = torch.full((len(videos),), -1)
    if use.labelled is not None:
        given = read_labels(use.labelled, [Clip(name, name) for name in clip_names], names)
        labels = torch.tensor([given.get(name, -1) for name in clip_names])
    encoder = str(found.metadata.get("backbone", os.path.basename(os.fspath(file))))
    key = {name: found.metadata.get(name) for name in ("backbone", "revision", "frames", "preprocessing")}
    scale = float(found.metadata.get("logit_scale", 100.0))
    plain = DKDHead(DKDCLIPConfig(projection_dim=videos.shape[-1], logit_scale=scale)).eval()
    stored = None if use.folder is None else load_domain(use.folder)
    clips = EmbeddedClips(clip_names, clip_names, videos, labels)
    done = recognise_embedded(clips, question, plain, encoder, key, use, stored)
    save(done, use, clips)
    return done


def _read(file: str) -> EmbeddingSet:
    """Embeddings of FILE or FILE+TEXTFILE, either with the names of its arrays behind it."""
    clips, texts = split_pair(file)
    if texts is None:
        return read_embeddings(clips.path, **clips.arrays)
    return read_with_texts(clips.path, texts.path, clips.arrays, texts.arrays)


def _same_on_all(accelerator: Accelerator, paths: Sequence[PathLike]) -> Listing:
    """The clips, looked for by one process: files may come while others look."""
    found: list[Listing] = [list_clips(paths) if accelerator.is_main_process else Listing([], [])]
    if accelerator.num_processes > 1:
        broadcast_object_list(found)
    return found[0]


def _cut_prompts(encoder: Encoder, question: Question) -> list[str]:
    prompts = sorted({prompt for row in question.prompts or () for prompt in row})
    cut = encoder.num_cut(prompts)
    return (
        [f"{cut} of {counted(len(prompts), 'prompt')} too long for the text encoder and cut; shorten them"]
        if cut
        else []
    )
