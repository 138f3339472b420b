"""Recognise files as they arrive in a folder; the domain learns from each, and each is done once, whatever happens.

for predictions in watch("camera", ["cooking", "washing up"], "seen.csv", model="openai/clip-vit-base-patch16"):
    print([prediction.label for prediction in predictions])

Everything that has to survive is in two places: embeddings in the cache, and the results, a table that only grows. A
clip is embedded, then learned from, then written down; a run that starts again goes on after what is written down, and
learns from that anew unless its domain says that it has.
"""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..domain_file import DOMAIN_FILE
from ..embedding.worker_processes import shared_accelerator
from .arrivals import Arrival, Arrivals
from .asked import Asked, Classes, PathLike, asked
from .clip_cache import ClipCache, default_cache_folder
from .clip_recognition import FITTED_HERE, DomainUse, EmbeddedClips, updated
from .doubts import same_text_doubts
from .encoder import Model
from .output_places import file_to_write, folder_to_fill
from .predictions import Prediction, predict
from .result_log import FORMATS, ResultLog, key, nanoseconds
from .saved_domain import HUB_SCHEME, SavedDomain, digest, is_on_hub, save_domain


# Arrivals that are embedded together, and from how many on workers are worth their start.
CLIPS_AT_ONCE, WORTH_WORKERS = 256, 32
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Waiting:
    """When a file has arrived, and for how long one looks.

    Attributes:
        interval: Seconds from look to look.
        settle: A file has arrived once it was the same for so many seconds and is open for writing nowhere.
        patience: One that cannot be read is waited for so many seconds, then written down as damaged.
        once: End when all that is there is done, without waiting for more; a damaged file is not waited for.
    """

    interval: float = 2.0
    settle: float = 3.0
    patience: float = 60.0
    once: bool = False


USUAL_WAITING = Waiting()


def watch(
    folder: PathLike,
    classes: Classes | None,
    output: PathLike,
    model: Model = None,
    *,
    templates: PathLike | None = None,
    descriptions: PathLike | None = None,
    use: DomainUse = FITTED_HERE,
    waiting: Waiting = USUAL_WAITING,
    cache_dir: PathLike | None = None,
    batch_size: int | None = None,
    num_workers: int = 2,
) -> Iterator[list[Prediction]]:
    """Recognise files as they arrive.

    Args:
        folder: Where they arrive, in sub-folders too.
        classes: As in `recognise`; so are `model`, `templates`, `descriptions`, `cache_dir` and `batch_size`.
        output: Table that ends in .csv or .jsonl, to which results are appended; what is in it is done.
        model: What embeds.
        templates: Prompt templates.
        descriptions: JSON file, instead of templates.
        use: `folder` is a domain to begin with, which goes on learning and is saved where it was, or in `save_to`; by
            default a new one begins. `labelled` and `update` have no meaning here.
        waiting: When a file has arrived.
        cache_dir: Where embeddings are kept.
        batch_size: Clips that are encoded together.
        num_workers: Decoding processes where many files arrive at once.

    Returns:
        Batch after batch of predictions of files that have arrived, given once they are written down.

    Raises:
        ValueError: As in `recognise`; another watch writes to `output`, or the folder is gone.
        OSError: The disk refuses; what is written down stays.
    """
    path = file_to_write("--output", output, FORMATS)
    arrivals = Arrivals(Path(folder), waiting.settle)
    arrivals.look()
    use.make_folder()
    domain = _domain_to_go_on_with(use)
    question = asked(classes, model, templates=templates, descriptions=descriptions, domain=domain)
    for doubt in same_text_doubts(question.question):
        logger.warning("note: %s", doubt)
    cache = ClipCache(cache_dir or default_cache_folder(), question.encoder)
    watcher = _Watcher(Path(folder), question, cache, use, ResultLog(path), batch_size, num_workers)
    return _results(watcher, arrivals, waiting)


def _domain_to_go_on_with(use: DomainUse) -> PathLike | None:
    """The domain in a folder, or on the Hub if it will be saved elsewhere; None: one is made."""
    if use.folder is None or (is_on_hub(use.folder) and use.save_to is not None):
        return use.folder
    if os.fspath(use.folder).startswith(HUB_SCHEME):
        raise ValueError(f"{os.fspath(use.folder)} is on the Hub; say with --save-domain where it goes on learning")
    if use.save_to is None:
        folder_to_fill("--domain", use.folder)
    return use.folder if (Path(use.folder) / DOMAIN_FILE).exists() else None


def _results(watcher: "_Watcher", arrivals: Arrivals, waiting: Waiting) -> Iterator[list[Prediction]]:
    """Look, take what has arrived, wait, and look again."""
    with watcher.log as log:
        watcher.learn_from_log()
        while True:
            arrived, coming = arrivals.look()
            new = [a for a in arrived if key(a.clip.name, a.changed, a.size) not in log.done]
            for start in range(0, len(new), CLIPS_AT_ONCE):
                patience = 0.0 if waiting.once else waiting.patience
                predictions = watcher.take(new[start : start + CLIPS_AT_ONCE], patience)
                if predictions:
                    yield predictions
            if waiting.once and not coming:
                return
            time.sleep(waiting.interval)


class _Watcher:
    """One run: what is known of the domain, and where results go."""

    def __init__(
        self,
        folder: Path,
        asked: Asked,
        cache: ClipCache,
        use: DomainUse,
        log: ResultLog,
        batch_size: int | None,
        num_workers: int,
    ) -> None:
        self.folder, self.encoder, self.question, self.domain = folder, *asked
        self.cache, self.use, self.log = cache, use, log
        self.batch_size, self.num_workers = batch_size, num_workers
        self._unreadable: dict[str, tuple[int, int]] = {}

    def learn_from_log(self) -> None:
        """Learn from what is written down and still in the cache, as if this were the run that wrote it."""
        known = self.cache.shards.known()
        root = os.path.abspath(self.folder)
        done = [
            f"{os.path.join(root, name)}|{size}|{nanoseconds(changed)}"
            for (name, changed, size), was_read in self.log.done.items()
            if was_read
        ]
        domain = self.domain
        same_classes = domain is not None and domain.class_names == self.question.class_names
        if domain is not None and same_classes and not float(domain.head.num_labelled):
            before = [identity for identity in known if digest(identity) in domain.learned]
            if len(before) == len(domain.learned):
                # All of them are still here: fitted anew it is what it was, while from a file only its sums go on.
                self.domain = None
                done = [*dict.fromkeys([*before, *done])]
        self._learn([identity for identity in done if identity in known])

    def take(self, arrived: Sequence[Arrival], patience: float) -> list[Prediction]:
        """Embed files, learn from them, write down what they are; what cannot be read yet is left for later."""
        wanted = [
            a for a in arrived if a.still_for >= patience or self._unreadable.get(a.clip.path) != (a.changed, a.size)
        ]
        if not wanted:
            return []
        workers = self.num_workers if len(wanted) >= WORTH_WORKERS else 0
        clips = [a.clip for a in wanted]
        run = self.cache.embed(
            clips, shared_accelerator(), self.batch_size, workers, progress_bar=len(clips) >= WORTH_WORKERS
        )
        sound = [clip for clip in clips if clip.path not in run.damaged]
        identities = [run.identities[clip.path] for clip in sound]
        self._learn(identities)
        found: dict[str, Prediction] = {}
        if sound:
            plain = self.encoder.new_head()
            head = plain if self.domain is None else self.domain.head
            embeds = self.cache.shards.gather(identities)
            names = [clip.name for clip in sound]
            for clip, prediction in zip(
                sound, predict(head, plain, embeds, self.question, names, self.use.reject_below), strict=True
            ):
                found[clip.path] = replace(prediction, path=clip.path, remark=run.remarks.get(clip.path, ""))
        results = []
        for arrival in wanted:
            path = arrival.clip.path
            _, size, changed = run.identities[path].rsplit("|", 2)
            if path in found:
                results.append((found[path], int(changed), int(size)))
            elif int(size) >= 0 and arrival.still_for >= patience:
                error = run.damaged[path]
                results.append((Prediction(arrival.clip.name, path, error=error), int(changed), int(size)))
            else:
                self._unreadable[path] = (arrival.changed, arrival.size)
        if results:
            self.log.add(results)
        return [prediction for prediction, _, _ in results]

    def _learn(self, identities: Sequence[str]) -> None:
        """Have the domain learn from clips, each once, and save it where it is wanted."""
        if not self.use.adapt or not identities:
            return
        embeds = self.cache.shards.gather(identities)
        clips = EmbeddedClips([""] * len(embeds), list(identities), embeds, torch.full((len(embeds),), -1))
        if self.domain is None:
            head = self.encoder.new_head()
            names, prompts = self.question.class_names, self.question.prompts
            head.fit(embeds, self.question.text_embeds, class_names=names)
            self.domain = SavedDomain(head, names, prompts, self.encoder.name, self.encoder.key)
            self.domain = self.domain.learned_from(identities)
        else:
            before = self.domain.learned
            self.domain = updated(self.domain, clips)
            if self.domain.learned == before:
                return
        target = self.use.save_to if self.use.save_to is not None else self.use.folder
        if target is not None:
            save_domain(target, self.domain)
