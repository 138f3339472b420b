"""Fine-tuning from top to bottom: clips, model, optimizer, epochs, tests, and the Hub repository at the end."""

import logging
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from ..data.hub_stream import hub_stream
from ..data.prompts import class_prompts, load_templates
from ..data.video_index import VideoIndex, VideoRecord
from ..embedding.clip_encoder import ClipEncoder
from ..evaluation.measurement import Measurement
from ..evaluation.report import environment, results, summarise
from ..evaluation.tables import set_table
from .checkpoints import Checkpoints, Progress
from .clips import (
    ClipBatch,
    TrainingClips,
    clips_of_an_epoch,
    domain_clips,
    epoch_batches,
    mix_clips,
    open_index,
    seeded_generator,
    training_loader,
)
from .config import TrainingConfig, as_plain
from .interpolation import interpolate, is_weight
from .measuring import SHARES, scores, test_rows
from .parameters import (
    MovingAverage,
    Tower,
    choose_trainable,
    find_tower,
    merged_state,
    optimizer_groups,
)
from .processes import (
    Stopped,
    StopRequest,
    only_run_in,
    require_free_output,
    start_processes,
    take_sharding_request,
)
from .recognizer import EmbeddedClips, Recognizer, embed_share, fit_domain_of, gather_clips, refuse_damaged
from .repository import describe_repository, save_best, save_repository
from .sharding import gathered, shard
from .step_bar import StepBar
from .streamed_clips import StreamedClips
from .zero import follow_weights, is_zero, start_engine


logger = logging.getLogger(__name__)

# CLIP keeps its scale at 100 or below.
MAX_LOGIT_SCALE = 100.0


@dataclass(frozen=True)
class Run:
    """Everything that lasts as long as the run."""

    config: TrainingConfig
    accelerator: Accelerator
    index: VideoIndex
    encoder: ClipEncoder
    recognizer: Recognizer
    wrapped: nn.Module
    optimizer: Any
    average: MovingAverage
    checkpoints: Checkpoints
    clips: TrainingClips
    steps_per_epoch: int
    max_log_scale: float

    @property
    def output(self) -> Path:
        """The repository that comes out."""
        return Path(self.config.run.output_dir)

    def embed(self, records: Sequence[VideoRecord], title: str) -> EmbeddedClips:
        """This process's share of the clips, embedded with the weights as they are, as while validating."""
        reader = replace(self.encoder.reader, views=f"{self.config.data.num_frames}x1x1")
        sizes = self.config.recipe.batch_size, self.config.data.num_workers
        embedded = embed_share(self.recognizer, records, reader, self.accelerator, *sizes, title)
        return refuse_damaged(embedded, self.accelerator, self.config.data.allow_missing)

    def fit_domain(self) -> None:
        """Fit the mixture to the training clips as the weights embed them now."""
        records = domain_clips(self.index, self.config).records
        with gathered(self.recognizer):
            share = self.embed(records, "embedding the domain")
            labels = share.labels(records) if self.config.domain.use_labels else None
            fit_domain_of(self.recognizer, share, labels, self.index.class_names, self.accelerator)


def train(config: TrainingConfig, resume: bool, command: Sequence[str] = ()) -> None:
    """Run a configuration to its end.

    Args:
        config: All options.
        resume: Go on from the newest checkpoint in the output folder, or begin where there is none.
        command: What is written into the results as the command that made them.

    Raises:
        ValueError: Something that the user has to change.
        Stopped: A signal came; a checkpoint has been written.
    """
    sharded = take_sharding_request(config)
    accelerator = start_processes(config)
    with StopRequest() as stop, only_run_in(Path(config.run.output_dir), accelerator):
        run = prepare(config, accelerator, resume, sharded and accelerator.num_processes > 1)
        progress = (run.checkpoints.resume(as_plain(config)) if resume else None) or begin(run)
        describe(run, progress)
        if config.run.trackers:
            accelerator.init_trackers("dkd")
        for epoch in range(progress.epoch, config.recipe.epochs):
            train_epoch(run, progress, epoch, stop)
            finish_epoch(run, progress)
        finish(run, command)
        for tracker in accelerator.trackers:
            tracker.finish()


def prepare(config: TrainingConfig, accelerator: Accelerator, resume: bool, sharded: bool = False) -> Run:
    """Everything that the first step needs; `sharded` shares out the trained weights between the processes."""
    output = Path(config.run.output_dir)
    require_free_output(output, resume)
    # Clips: which there are, and how they are read.
    index = open_index(config.data, config.domain.num_clips)
    for note in index.notes:
        accelerator.print(f"note: {note}")
    train_records = index.part("train").records
    num_clips = clips_of_an_epoch(config, len(train_records), accelerator.num_processes)
    # Model: the same weights in every process.
    torch.manual_seed(config.run.seed)
    encoder = load_encoder(config, accelerator)
    recognizer = build_recognizer(config, encoder, index)
    video, text = find_towers(config, encoder, recognizer, train_records[0])
    choose_trainable(encoder.model, video, text, config.recipe)
    if config.recipe.activation_checkpointing:
        backbone: Any = encoder.model.backbone
        # The newer name where transformers has it.
        getattr(backbone, "activation_checkpointing_enable", backbone.gradient_checkpointing_enable)()
    # Optimizer, and what accelerate makes of both.
    if sharded:
        blocks = [encoder.model.backbone.get_submodule(tower.blocks) for tower in (video, text) if tower is not None]
        shard(recognizer, [block for of_tower in blocks for block in of_tower.children()], accelerator)
    optimizer: Any = torch.optim.AdamW(optimizer_groups(encoder.model, video, text, config.recipe))
    wrapped: nn.Module = recognizer
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        wrapped, optimizer = start_engine(recognizer, optimizer, accelerator)
    elif sharded:
        optimizer = accelerator.prepare(optimizer)
    else:
        wrapped, optimizer = accelerator.prepare(recognizer, optimizer)
    trained = {name: p for name, p in encoder.model.named_parameters() if p.requires_grad}
    average = MovingAverage(trained, config.recipe.ema_decay)
    checkpoints = Checkpoints(output / "checkpoints", accelerator, trained, encoder.model.head, optimizer, average)
    clips = TrainingClips(
        train_records,
        index.class_names,
        encoder.processor,
        config.data.num_frames,
        config.augmentation,
        config.run.seed,
    )
    # From here on every process has its own random numbers.
    torch.manual_seed(config.run.seed + accelerator.process_index)
    return Run(
        config,
        accelerator,
        index,
        encoder,
        recognizer,
        wrapped,
        optimizer,
        average,
        checkpoints,
        clips,
        num_clips // config.recipe.effective_batch(accelerator.num_processes),
        max(math.log(MAX_LOGIT_SCALE), encoder.model.head.log_logit_scale.item()),
    )


def load_encoder(config: TrainingConfig, accelerator: Accelerator) -> ClipEncoder:
    """The weights that the run starts from, with an unfitted head."""
    options, device = config.model, accelerator.device
    encoder = ClipEncoder.load(options.backbone, config.data.test_views, options.revision, torch.float32, device)
    if options.attn_implementation is not None:
        try:
            encoder.model.backbone.set_attn_implementation(options.attn_implementation)
        except (ImportError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"model.attn_implementation={options.attn_implementation} is not possible: {reason}"
            ) from error
    if options.temporal_layers and encoder.model.temporal is None:
        with torch.random.fork_rng():
            torch.manual_seed(config.run.seed)  # the same wherever a run loads its start
            encoder.model.add_temporal_transformer(options.temporal_layers, config.data.num_frames)
    encoder.model.head.reset()
    encoder.processor.num_frames = config.data.num_frames
    if config.domain.video_strength is not None:
        encoder.model.config.video_strength = config.domain.video_strength
        encoder.model.config.check()
    return encoder


def build_recognizer(config: TrainingConfig, encoder: ClipEncoder, index: VideoIndex) -> Recognizer:
    """The encoders with the prompts of the data set's classes."""
    prompts = class_prompts(index.class_names, load_templates(config.data.templates))
    tokens = encoder.processor(text=prompts).to(encoder.model.device)
    return Recognizer(encoder.model, dict(tokens), config.recipe.train_text_encoder)


def find_towers(
    config: TrainingConfig, encoder: ClipEncoder, recognizer: Recognizer, record: VideoRecord
) -> tuple[Tower, Tower | None]:
    """The video encoder, and the text encoder where it is trained."""
    model = encoder.model
    num_frames = encoder.processor.clip_frames or 1
    first_clip = encoder.reader.normalise(encoder.reader(record)[0][None, :num_frames]).to(model.device)
    video = find_tower(model.backbone, lambda: model.get_video_features(first_clip))
    if not config.recipe.train_text_encoder:
        return video, None
    return video, find_tower(model.backbone, lambda: model.get_text_features(**recognizer.tokens))


def begin(run: Run) -> Progress:
    """The state before the first step: the domain of the weights as they come."""
    progress = Progress(num_processes=run.accelerator.num_processes, config=as_plain(run.config))
    if run.config.recipe.epochs:
        run.fit_domain()
        run.checkpoints.save(progress)
    return progress


def describe(run: Run, progress: Progress) -> None:
    """Say in a few lines what is going to happen."""
    recipe, accelerator = run.config.recipe, run.accelerator
    trained = sum(p.numel() for p in run.recognizer.parameters() if p.requires_grad)
    total = sum(p.numel() for p in run.recognizer.parameters())
    effective = recipe.effective_batch(accelerator.num_processes)
    shared = ", trained weights shared out" if isinstance(run.wrapped, FSDPModule) else ""
    shared += ", AdamW's state shared out" if is_zero(run.optimizer) else ""
    streamed = run.config.data.clips_per_epoch
    clips = f"{streamed} streamed" if streamed else len(run.clips)
    accelerator.print(
        f"{run.index.dataset}: {clips} training clips, {len(run.index.part('test').records)} test clips, "
        f"{len(run.index.class_names)} classes\n"
        f"{run.config.model.backbone}: {trained:,} of {total:,} parameters are trained ({recipe.trainable})\n"
        f"effective batch {effective} = {recipe.batch_size} clips x {recipe.accumulation_steps} passes x "
        f"{accelerator.num_processes} processes on {accelerator.device.type}{shared}; "
        f"{run.steps_per_epoch * recipe.epochs} steps in {recipe.epochs} epochs"
        + (f"; going on after step {progress.step}" if progress.step else "")
    )


def train_epoch(run: Run, progress: Progress, epoch: int, stop: StopRequest) -> None:
    """The rest of one epoch, checkpointed from time to time and at its end."""
    recipe, accelerator, head = run.config.recipe, run.accelerator, run.encoder.model.head
    batches = rest_of_epoch(run, epoch, progress.batch)
    bar = StepBar(accelerator, run.optimizer, progress.step, run.steps_per_epoch * recipe.epochs)
    totals, saved_at = torch.zeros(4, device=accelerator.device), time.monotonic()
    names: list[str] = []
    run.wrapped.train()
    for batch in batches:
        with accelerator.accumulate(run.wrapped):
            loss, counts = batch_loss(run, batch.to(accelerator.device), progress)
            set_learning_rate(run, progress.step)
            accelerator.backward(loss)  # DeepSpeed steps in here
            if accelerator.sync_gradients and recipe.max_grad_norm:
                accelerator.clip_grad_norm_(run.wrapped.parameters(), recipe.max_grad_norm)
            run.optimizer.step()
            run.optimizer.zero_grad()
        progress.batch += 1
        totals, names = totals + counts, names + batch.names
        if batch.damaged:
            report_damaged(run, batch)
        if not accelerator.sync_gradients:
            continue
        progress.step += 1
        with torch.no_grad():
            head.log_logit_scale.clamp_(max=run.max_log_scale)
        follow_weights(run.optimizer)
        run.average.update()
        # One message a step between processes: sums, and who wants a checkpoint or the end.
        due = time.monotonic() - saved_at >= 60 * run.config.run.checkpoint_minutes and accelerator.is_main_process
        told = torch.cat([totals, totals.new_tensor([float(due), float(bool(stop))])])
        told = accelerator.reduce(told, "sum").cpu()
        check_step(run, told, names)
        bar.advance(told)
        if run.config.domain.refit_steps and progress.step % run.config.domain.refit_steps == 0:
            run.fit_domain()
        if told[4] or told[5]:
            saved = run.checkpoints.save(progress)
            saved_at = time.monotonic()
        if told[5]:
            bar.close()
            raise stopped(run, progress, stop, saved)
        totals, names = torch.zeros_like(totals), []
    bar.close()
    run.checkpoints.save(progress)
    if run.accelerator.reduce(torch.tensor(float(bool(stop)), device=accelerator.device), "sum"):
        raise stopped(run, progress, stop, saved=True)


def rest_of_epoch(run: Run, epoch: int, done: int) -> Iterator[ClipBatch]:
    """The batches of this process that an epoch still has after `done` of them."""
    data, size, seed = run.config.data, run.config.recipe.batch_size, run.config.run.seed
    share = run.accelerator.process_index, run.accelerator.num_processes
    last = run.steps_per_epoch * run.config.recipe.accumulation_steps
    if data.clips_per_epoch:
        place = str(data.data_dir)
        stream = hub_stream(place, "train")
        return StreamedClips(stream, place, run.clips, size, epoch, share).batches(done, last, data.num_workers)
    batches = epoch_batches(len(run.clips), size, epoch, seed, *share)
    return training_loader(run.clips, batches[done:last], data.num_workers)


def batch_loss(run: Run, batch: ClipBatch, progress: Progress) -> tuple[Tensor, Tensor]:
    """Loss of a batch, and its counts (4,) float32: summed loss, hits of plain CLIP, clips, unreadable clips.

    Both stay on the device, so that nothing waits for it before the backward pass is on its way.
    """
    recipe, weight = run.config.recipe, run.config.domain.loss_weight
    generator = seeded_generator(run.config.run.seed, progress.epoch, progress.batch, run.accelerator.process_index)
    num_classes = len(run.index.class_names)
    pixel_values, targets = mix_clips(batch.pixel_values, batch.labels, num_classes, recipe, generator)
    with run.accelerator.autocast():
        plain, moved = run.wrapped(pixel_values)
    plain_losses, moved_losses = (
        cross_entropy(logits, targets, reduction="none", label_smoothing=recipe.label_smoothing)
        for logits in (plain, moved)
    )
    loss = (torch.lerp(plain_losses, moved_losses, weight) * batch.weights).mean()
    hits = ((plain.argmax(1) == batch.labels) * batch.weights).sum()
    size, lost = len(batch.labels), (1 - batch.weights).sum()
    return loss, torch.stack([loss.detach().float() * size, hits, hits.new_full((), size), lost])


def set_learning_rate(run: Run, step: int) -> None:
    """Linear warm-up, then half a cosine down to 0."""
    factor = schedule(step, run.steps_per_epoch * run.config.recipe.epochs, run.config.recipe.warmup_share)
    for group in run.optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def schedule(step: int, num_steps: int, warmup_share: float) -> float:
    """Factor on the peak learning rate at a step, counted from 0.

    A function of the step, so that resuming has no scheduler to restore; transformers' own starts at a rate of 0.
    """
    num_warmup = math.ceil(warmup_share * num_steps)
    if step < num_warmup:
        return (step + 1) / num_warmup
    return 0.5 * (1 + math.cos(math.pi * (step - num_warmup) / max(1, num_steps - num_warmup)))


def check_step(run: Run, told: Tensor, names: list[str]) -> None:
    """Stop every process alike when the loss is not finite or a clip cannot be read."""
    loss, damaged = float(told[0]), int(told[3])
    if math.isfinite(loss) and (not damaged or run.config.data.allow_missing):
        return
    if math.isfinite(loss):
        raise ValueError(
            f"{damaged} training clips cannot be read (named above); leave them out with --set data.allow_missing=true"
        )
    every = gather_object(names)
    raise ValueError(
        f"the loss is {loss} in a batch of the clips {', '.join(every)}; look at these, or lower recipe.learning_rate "
        "and start anew: the last checkpoint is from before"
    )


def report_damaged(run: Run, batch: ClipBatch) -> None:
    """Name the clips of a batch that could not be read."""
    for name, reason in batch.damaged.items():
        how = "left out" if run.config.data.allow_missing else "asked for"
        tqdm.write(f"warning: clip {name} ({how}): {reason}")


def stopped(run: Run, progress: Progress, stop: StopRequest, saved: bool) -> Stopped:
    """What to raise once a checkpoint is there."""
    kept = f"checkpoint written to {run.checkpoints.folder}" if saved else "but no checkpoint could be written"
    return Stopped(stop.signal_number, f"stopped after step {progress.step}, {kept}; go on with --resume")


def finish_epoch(run: Run, progress: Progress) -> None:
    """Count the epoch; where it is time, refit the domain to the new weights, validate and keep the best."""
    done = progress.epoch + 1
    if done % run.config.run.validation_epochs == 0 or done == run.config.recipe.epochs:
        validate(run, progress)
    progress.epoch, progress.batch = done, 0
    run.checkpoints.save(progress)


def validate(run: Run, progress: Progress) -> None:
    """Refit the domain to the weights as they are, measure them on the test clips and keep the best."""
    run.average.swap()
    run.fit_domain()
    records = run.index.part("test").records
    with gathered(run.recognizer):
        embedded = gather_clips(run.embed(records, "validating"))
        found = scores(run.recognizer, embedded, embedded.labels(records))
    if found["top1"] > progress.best_top1:
        progress.best_epoch, progress.best_top1 = progress.epoch, found["top1"]
        model = run.encoder.model
        weights = merged_state(model)
        if run.accelerator.is_main_process:
            save_best(model, weights, run.encoder.processor, run.index.class_names, run.output / "best")
    run.average.swap()
    if run.config.recipe.ema_decay:
        run.fit_domain()  # training goes on with the weights themselves
    progress.history.append({"epoch": progress.epoch + 1, "step": progress.step, **found})
    run.accelerator.log({f"validation/{name}": value for name, value in found.items()}, step=progress.step)
    run.accelerator.print(
        f"epoch {progress.epoch + 1}: top-1 {found['top1']:.2%} (without the domain {found['plain_top1']:.2%}), "
        f"top-5 {found['top5']:.2%}, mean class {found['mean_class']:.2%}"
    )


def finish(run: Run, command: Sequence[str]) -> None:
    """Test the fine-tuned weights, those of the start and the middle, and leave the repository."""
    run.average.swap()
    tuned = {name: t for name, t in merged_state(run.encoder.model).items() if is_weight(name)}
    run.average.swap()
    config, accelerator = run.config, run.accelerator
    encoder = load_encoder(config, accelerator)
    recognizer = build_recognizer(config, encoder, run.index)
    start = {name: t.clone() for name, t in encoder.model.state_dict().items() if is_weight(name)}
    saved_share = config.run.interpolation if config.recipe.epochs else 0.0
    # The one that is saved comes last, so that the model is left as it goes into the repository.
    shares = [share for share in SHARES if share != saved_share and config.recipe.epochs]
    measured: list[Measurement] = []
    for share in [*shares, saved_share]:
        encoder.model.load_state_dict(interpolate(start, tuned, share), strict=False)
        measured += test_rows(config, run.index, encoder, recognizer, share, accelerator)
    if accelerator.is_main_process:
        save_repository(encoder.model, encoder.processor, run.index.class_names, run.output)
        described = environment(["train.py", *command], []) | {"seed": config.run.seed, "config": as_plain(config)}
        lines = summarise(measured)
        contents = results(measured, lines, described)
        # Until the card is there the run is unfinished, also one without steps, which has no checkpoint.
        run.checkpoints.folder.mkdir(exist_ok=True)
        describe_repository(config, run.index.class_names, contents, run.output)
        print(f"{set_table(lines)}\nsaved: {run.output}")
        shutil.rmtree(run.checkpoints.folder, ignore_errors=True)
    accelerator.wait_for_everyone()
