"""DKDHead: the plug-and-play part that moves video and text embeddings toward the domain's mixture.

    head = DKDHead(DKDCLIPConfig(projection_dim=512))
    head.fit(domain_video_embeds, class_text_embeds)
    output = head(video_embeds, class_text_embeds)

It knows nothing of encoders: embeddings go in, and come out moved, with their cosines as logits. Before a domain is
fitted it is plain CLIP. What is fitted lives in buffers, is saved with the model or alone, and goes on learning from a
stream.

| | shape | |
|---|---|---|
| `video_embeds` | (B, D) or (B, T, D) | frames as particles |
| `text_embeds` | (K, D) or (K, P, D) | prompts as particles |
| `output.logits_per_video` | (B, K) | scale times cosine of the moved embeddings |
| `output.video_embeds`, `output.text_embeds` | (B, D), (K, D) | moved, unit norm; the cosine serves search too |
| `output.strength`, `output.known` | (B,) | how far a video went; whether it is of a class asked |

A text moves along the score of its own component of the mixture (class_mixture.py) until its cosine with a video is
the posterior (text_frame.py). A video x moves along the score of sum_k r_k N(x; mean_k, S), r being its posterior, by

    strength = video_strength * sum_k r_k class_strength_k * min(1, D / |x - sum_k r_k mean_k|^2_S)

Both by one step of SVGD (svgd.py). Whether x is of any class: known_classes.py.
"""

import copy
import math
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from .class_mixture import ClassMixture, fit_class_mixture, gather_statistics, maximise
from .domain_file import FORMAT_VERSION, StoredDomain, check_tensors, no_domain, read_domain, write_domain
from .domain_statistics import AllReduce, DomainStatistics, OlderSamples, Videos, spread_samples, sum_second_moments
from .embedding_inputs import (
    SAME_CLASS_COSINE,
    PooledShards,
    as_particles,
    check_class_names,
    checked_labels,
    in_pieces,
    tell_same_classes,
)
from .encoder_identity import EncoderIdentity
from .fitted_buffers import (
    BUFFER_AXES,
    FRAME_FIELDS,
    MIXTURE_FIELDS,
    STATISTICS_FIELDS,
    UNFITTED,
    are_shares,
    buffer_shapes,
)
from .gaussian_mixture import fit_gaussian_mixture
from .known_classes import KnownModel, fit_known, known_directions
from .mixture_options import MixtureOptions
from .precision import full_precision, has_values, posterior_of, where_float64_is
from .recent_samples import RECENT_SAMPLES, RecentSamples
from .svgd import Kernel, svgd
from .text_frame import TextFrame, common_norm, filled, place_fitted_texts, place_new_texts, without_axis
from .text_prior import TextPrior, debias_texts, sum_logits
from .text_trust import Debias, TrustChoice, TrustedFit, fit_best_trust
from .withheld_classes import without_small_classes


# transformers and huggingface_hub, whose import takes a second, are for those who make a configuration or load and
# share a domain.
if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

    from .configuration_dkd import DKDCLIPConfig


# How many numbers of a tensor of videos are kept ready from round to round.
KEPT_NUMBERS = 2**26
NO_VIDEO = "video_embeds has no shard; give at least one video."


class DKDHeadOutput(NamedTuple):
    """What `DKDHead` returns, float32.

    Attributes:
        logits_per_video: Logit scale times cosine of the moved embeddings plus the bias, (B, K).
        video_embeds: Moved videos, unit norm, (B, D).
        text_embeds: Moved class texts, unit norm, (K, D).
        strength: Weight with which each video was moved, 0 to 1, (B,).
        known: Probability that each video is of one of the classes asked, 0 to 1, (B,). Before a domain is fitted
            (1 + the largest plain cosine) / 2, which ranks videos but is no probability.
    """

    logits_per_video: Tensor | None = None
    video_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    strength: Tensor | None = None
    known: Tensor | None = None


class DKDHead(nn.Module):
    """Compares videos with class texts after both have been moved toward a domain; plain CLIP until one is fitted.

    It knows nothing of encoders. All that is fitted lives in persistent float32 buffers, which stay float32 whatever
    dtype the model is cast to. Everything is computed in float32 with autocast off.

    Attributes (buffers, K components):
        weights: Share of the domain's samples per component, (K,); all 0 means not fitted.
        means: (K, D).
        variances: (D,), shared by the components; with class texts the diagonal of their covariance.
        counts: Samples per component, (K,).
        anchor_weights: Pseudo-samples at the anchor of each class, (K,).
        class_strength: Weight with which each fitted class's own samples moved its text, 0 to 1, (K,).
        text_trust: Factor of the logit scale with which texts were trusted in the fit, (); `trust_choice` says why,
            until the head is saved.

    Attributes (kept in the file of a domain):
        class_names: Names of the fitted classes, None where none were given.
        encoder: Whose embeddings the domain is of; None where that is not known. A model's `fit_domain` tells it.
        min_clips: Nothing of the clips of classes with fewer clips is in the head; 0 where no class was withheld.

    Args:
        config: `projection_dim`, `logit_scale`, `logit_bias`, `num_components` and the options of the movement;
            copied, for `fit` writes into it.
        options: Constants of the mixture; None: the defaults.
        prior: What debiases the texts: from texts (K, D), `sum_logits` of the domain and the options to a `TextPrior`.
            New classes at inference are scaled by their length, as without a domain.
        svgd_kernel: Kernel between particles as a function, see `svgd.kernel_and_slope`; None: the configuration's.

    `options`, `prior` and `svgd_kernel` are not saved: a head that is loaded is given them anew.
    """

    logit_bias: Tensor
    format_version: Tensor
    weights: Tensor
    means: Tensor
    variances: Tensor
    precision: Tensor
    counts: Tensor
    anchor_weights: Tensor
    log_frequency: Tensor
    domain_mean: Tensor
    mean_direction: Tensor
    anchor_scale: Tensor
    temperature: Tensor
    anchored: Tensor
    fitted_texts: Tensor
    text_scale: Tensor
    text_bias: Tensor
    text_trust: Tensor
    unit_axis: Tensor
    norm_axis: Tensor
    text_centre: Tensor
    text_norm: Tensor
    text_bases: Tensor
    text_targets: Tensor
    class_strength: Tensor
    known_directions: Tensor
    known_slope: Tensor
    known_offset: Tensor
    known_floor: Tensor
    num_samples: Tensor
    num_labelled: Tensor
    prior_counts: Tensor
    sums: Tensor
    second_moments: Tensor
    logit_sums: Tensor

    def __init__(
        self,
        config: "DKDCLIPConfig",
        options: MixtureOptions | None = None,
        prior: Debias = debias_texts,
        svgd_kernel: Kernel | None = None,
    ) -> None:
        super().__init__()
        self.config = copy.deepcopy(config)
        self.options = options or MixtureOptions()
        self.prior = prior
        self.svgd_kernel = svgd_kernel
        self.log_logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale), dtype=torch.float32).log())
        self.register_buffer("logit_bias", torch.tensor(float(config.logit_bias), dtype=torch.float32))
        self.class_names: list[str] | None = None
        self.encoder: EncoderIdentity | None = None
        self.min_clips = 0
        self.trust_choice: TrustChoice | None = None
        self._recent: RecentSamples | None = None
        self._make_buffers(config.num_components)

    def _make_buffers(self, num_components: int) -> None:
        """Buffers of an unfitted head with room for so many components."""
        values = UNFITTED | {"format_version": float(FORMAT_VERSION)}
        shapes = buffer_shapes(num_components, self.config.projection_dim)
        for name, shape in {**shapes, "format_version": ()}.items():
            self.register_buffer(
                name, torch.full(shape, values[name], dtype=torch.float32, device=self.logit_bias.device)
            )

    def _apply(self, fn: Any, recurse: bool = True) -> "DKDHead":
        """Move between devices, but keep float32: a domain rounded to bfloat16 is another one."""

        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_dtype, recurse)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, strict: bool, *found: list[str]
    ) -> None:
        """Take over a whole domain of any size, and nothing of what is only part of one."""
        stored = {name: state_dict[prefix + name] for name in self.state_dict() if prefix + name in state_dict}
        if stored.keys() & BUFFER_AXES.keys():
            try:
                num_components = self.check_domain(stored, "the state dict")
            except ValueError as error:
                found[-1].append(str(error))  # torch raises what stands there, strict or not
                return
            if num_components != len(self.weights):
                self._make_buffers(num_components)
            self.config.num_components = num_components
            self.class_names = self.encoder = None
            self.trust_choice = self._recent = None  # of the domain before
            self.min_clips = 0
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *found)

    def check_domain(self, tensors: dict[str, Tensor], source: str) -> int:
        """Number of components of what is a whole domain in this head's space; raises for anything else."""
        means, dim = tensors.get("means"), self.config.projection_dim
        sizes = tuple(means.shape) if means is not None and means.dim() == 2 else (0, dim)
        if sizes[1] != dim:
            raise ValueError(f"{source} has embeddings of {sizes[1]} dimensions, but this head has {dim}.")
        divisors = [name for name, value in UNFITTED.items() if value > 0]
        shapes = {name: tuple(tensor.shape) for name, tensor in self.state_dict().items()}
        check_tensors(tensors, shapes | buffer_shapes(sizes[0], dim), divisors, source)
        if has_values(tensors["weights"]) and not are_shares(tensors["weights"]):
            raise no_domain(source, "has weights that are no shares of a whole")
        return sizes[0]

    @property
    def logit_scale(self) -> Tensor:
        """The factor of cosines, (), whose logarithm is what is trained."""
        return self.log_logit_scale.exp()

    @property
    def is_fitted(self) -> bool:
        """Whether a domain has been fitted or loaded."""
        return bool(self.weights.sum() > 0)

    @torch.no_grad()
    @where_float64_is
    def fit(
        self,
        video_embeds: Videos,
        text_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        num_components: int | None = None,
        all_reduce: AllReduce | None = None,
        class_names: Sequence[str] | None = None,
    ) -> "DKDHead":
        """Learn a domain from its embeddings, from nothing: what was fitted before is forgotten.

        With class texts the mixture has one component per class. Without, its components are unknown groups: it
        describes the domain (`weights`, `means`, `variances`), but what it would do to classes that come later is not
        reliably good, so embeddings stay where they are and the head is plain CLIP.

        Args:
            video_embeds: (N, D) or (N, T, D) with frames as particles, any float dtype, not necessarily unit norm; N
                may be smaller than K. Or shards, an iterable of such tensors that is passed over once a round, as a
                list or `EmbeddingShards` but no generator is: what is held besides the data does not grow with N.
            text_embeds: (K, D) or (K, P, D) with prompts as particles, one row per class; None: classes unknown.
            labels: (N,), int64, class of each video, -1 for unlabelled, one tensor for all shards; None: unlabelled.
            num_components: Without texts, how many components; None: the root of half of the samples.
            all_reduce: Sums a tensor over processes, each of which calls this with its own part of the videos and the
                same texts, and gets the same head; None: all videos are here.
            class_names: One name a class, for messages and for the file of the domain; None: classes have numbers.

        Returns:
            This head.

        Raises:
            ValueError: Wrong shape or D, a value that is not finite, a zero embedding, no video, no class, a label
                out of range (the message names it), or names that are not as many as the texts.
        """
        videos: Iterable[Tensor] = PooledShards(video_embeds, self._pooled)
        if isinstance(video_embeds, Tensor) and video_embeds.numel() <= KEPT_NUMBERS:
            videos = [self._pooled(video_embeds, "video_embeds")]
        if text_embeds is None:
            if labels is not None:
                raise ValueError("labels need text_embeds that say what the classes are.")
            if all_reduce is not None:
                raise ValueError("processes can share a fit only with text_embeds; gather the videos in one of them.")
            return self._fit_unknown_classes(list(videos), num_components)
        texts = self._pooled(text_embeds, "text_embeds")
        check_class_names(class_names, text_embeds.shape)
        if num_components not in (None, len(texts)):
            raise ValueError(
                f"num_components is {num_components}, but there is one component for each of {len(texts)} texts."
            )
        scale, options = float(self.logit_scale), self.options
        with torch.autocast(texts.device.type, enabled=False):
            total = all_reduce or (lambda sums: sums)
            own_samples = sum(len(shard) for shard in videos)
            labels = checked_labels(labels, own_samples, len(texts)).to(texts.device)
            tell_same_classes(texts, class_names)
            num_samples = int(total(torch.tensor(own_samples, dtype=torch.float64, device=texts.device)))
            if not num_samples:
                raise ValueError(NO_VIDEO)
            choice, fitted = fit_best_trust(videos, labels, texts, num_samples, scale, options, self.prior, total)
            sample = spread_samples(videos, options.sample_size, num_samples)
            self._store(texts, fitted, sample, total)
        self.trust_choice = choice
        if isinstance(videos, list) and len(videos[0]) <= RECENT_SAMPLES and all_reduce is None:
            weight = float(self.num_samples)
            self._recent = RecentSamples(videos[0], labels, None, weight, weight)
        self.class_names = None if class_names is None else list(class_names)
        return self

    @torch.no_grad()
    @where_float64_is
    def update(self, video_embeds: Tensor) -> "DKDHead":
        """Go on learning from the next batch of a stream; memory does not grow with its length.

        The last 4096 videos are kept in memory, never in a file, and looked at again whenever the domain has grown by
        an eighth: up to so many the head becomes what `fit` to all of them makes. Of those before, and of a domain
        that was loaded, the statistics go on, and the frequencies of the classes stay.

        Args:
            video_embeds: (N, D) or (N, T, D), unlabelled.

        Returns:
            This head.

        Raises:
            ValueError: The head was not fitted with class texts, or as in `fit`.
        """
        if not self.is_fitted or not bool(self.anchored):
            raise ValueError("update goes on from a fit with class texts; call fit(video_embeds, text_embeds) first.")
        videos = self._pooled(video_embeds, "video_embeds")
        scale, options, mixture = float(self.logit_scale), self.options, self._mixture()
        with torch.autocast(videos.device.type, enabled=False):
            choice, texts, trust = self.trust_choice, self.fitted_texts, float(self.text_trust)
            logit_sums = self.logit_sums.double() + sum_logits(videos, texts, scale, options, trust)
            prior = self.prior(texts, logit_sums, options).trusted(trust)
            recent = self._recent_samples().followed_by(videos, mixture, prior, scale, options)
            is_due, labels = recent.is_due(), recent.labels
            if is_due and recent.older is None:
                choice, fitted = fit_best_trust(recent.videos, labels, texts, len(labels), scale, options, self.prior)
            elif is_due:
                # What older samples left was gathered under this trust.
                parts = fit_class_mixture(recent.videos, prior, labels, scale, options, older=recent.older)
                fitted = TrustedFit(logit_sums, prior, *parts)
            else:
                labels = torch.full((len(videos),), -1, device=videos.device)
                statistics = self._statistics() + gather_statistics(mixture, prior, videos, labels, scale, options)
                added = sum_second_moments(videos, labels, texts, options)
                # S, whose factorisation is what costs, T and the frequencies wait for the next fit.
                moved = maximise(mixture, prior, statistics, None, options)
                mixture = replace(moved, log_frequency=mixture.log_frequency)
                second_moments = self.second_moments.double() + added
                fitted = TrustedFit(logit_sums, prior, mixture, statistics, second_moments)
            if is_due:
                recent = replace(recent, num_fitted=recent.num_samples)
            sample = spread_samples(recent.videos, options.sample_size, len(recent.videos))
            self._store(texts, fitted, sample)
        self._recent, self.trust_choice = recent, choice
        return self

    def reset(self) -> "DKDHead":
        """Forget the domain: plain CLIP again."""
        self.config.num_components = self.min_clips = 0
        self.class_names = self.encoder = None
        self.trust_choice = self._recent = None
        self._make_buffers(0)
        return self

    def save_pretrained(
        self, folder: str | Path, class_names: list[str] | None = None, *, min_clips: int | None = None
    ) -> None:
        """Write the fitted domain alone, with the head's options, as one safetensors file in `folder`.

        Args:
            folder: Made if need be.
            class_names: Names of the K classes, kept in the file's metadata; None: this head's own, if any.
            min_clips: Write a domain in which classes of fewer clips are withheld, see `without_small_classes`, for
                the mean of few clips tells what they are; None: this head as it is. To be asked after `fit`, as long
                as the head holds the clips.

        Raises:
            ValueError: Nothing is fitted, the names are not as many as the components, or classes cannot be withheld.
            OSError: The disk refuses; a domain that was there before stays.
        """
        names = class_names if class_names is not None else self.class_names
        if not self.is_fitted:
            raise ValueError("there is no fitted domain to save; call fit first.")
        if names is not None and len(names) != len(self.weights):
            raise ValueError(f"class_names has {len(names)} names for {len(self.weights)} components.")
        self.write_config()
        stored = self.config.to_dict()
        options = {name: stored[name] for name in self.config.head_options()}
        shared = self if min_clips is None else without_small_classes(self, min_clips)
        write_domain(folder, StoredDomain(shared.state_dict(), options, names, self.encoder, shared.min_clips))

    def push_to_hub(
        self,
        repo_id: str,
        *,
        class_names: list[str] | None = None,
        min_clips: int | None = None,
        private: bool | None = None,
        revision: str | None = None,
        commit_message: str | None = None,
        create_pr: bool = False,
        token: str | bool | None = None,
    ) -> "CommitInfo":
        """Share the fitted domain as a repository of its own: the file of `save_pretrained`, a card and its picture.

        Args:
            repo_id: As owner/name; made where it is not there.
            class_names: As in `save_pretrained`.
            min_clips: As in `save_pretrained`.
            private: Of a repository that is made; None: what its owner set.
            revision: Branch to write to; None: the main one.
            commit_message: Of the commit.
            create_pr: Open a pull request instead.
            token: Access token; None: the one of `hf auth login` or HF_TOKEN.

        Returns:
            The commit, whose `oid` can be pinned.

        Raises:
            ValueError: As `save_pretrained`, the repository is a model, or the Hub refuses.
            OSError: The Hub cannot be asked.
        """
        from .domain_card import write_domain_card
        from .domain_hub import HubOptions, send_domain

        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, class_names, min_clips=min_clips)
            write_domain_card(folder, repo_id)
            options = HubOptions(revision, token)
            return send_domain(folder, repo_id, private, options, commit_message, create_pr)

    def write_config(self) -> None:
        """Have the configuration say what the head is now: a trained scale and bias, the number of components."""
        for name, value in (("logit_scale", self.log_logit_scale.detach()), ("logit_bias", self.logit_bias)):
            configured = torch.tensor(float(getattr(self.config, name)), dtype=torch.float32)
            is_log = name == "logit_scale"
            # Left alone where it is the same in float32, for 100.0 must not become 99.99999.
            if not value.is_meta and float(value) != float(configured.log() if is_log else configured):
                setattr(self.config, name, math.exp(float(value)) if is_log else float(value))
        self.config.num_components = len(self.weights)

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        **options: Any,
    ) -> "DKDHead":
        """The fitted head that `save_pretrained` or `push_to_hub` wrote, with its logit scale, options and names.

        Args:
            name_or_folder: Where the file is: a folder, or a repository of the Hub as owner/name.
            revision: Branch, tag or commit of the repository.
            token: Access token; None: the one of `hf auth login` or HF_TOKEN.
            cache_dir: Where files of the Hub are kept; None: the usual place.
            local_files_only: Take what is in the cache and ask nobody.
            **options: Options of `DKDCLIPConfig` that override the stored ones, such as `video_strength`.

        Returns:
            A head on the CPU.

        Raises:
            ValueError: The file is missing or no whole domain of this version, the repository is missing, may not be
                seen or is none of a domain, or an option is none.
            OSError: The Hub cannot be asked, and the file is not in the cache.
        """
        from .configuration_dkd import DKDCLIPConfig
        from .domain_hub import HubOptions, domain_path

        path, source = domain_path(name_or_folder, HubOptions(revision, token, cache_dir, local_files_only))
        domain = read_domain(path, source)
        tensors, stored, names = domain.tensors, domain.options, domain.class_names
        known = DKDCLIPConfig.head_options()
        if unknown := sorted(options.keys() - set(known)):
            raise ValueError(f"DKDHead has no option {unknown[0]!r}; it has {', '.join(known)}.")
        try:
            head = cls(DKDCLIPConfig(**{name: stored[name] for name in known if name in stored} | options))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{source} cannot be used: {error}") from error
        num_components = head.check_domain(tensors, source)
        if unknown := sorted(tensors.keys() - head.state_dict().keys()):
            raise no_domain(source, f"holds {unknown[0]!r}")
        if names is not None and len(names) != num_components:
            raise ValueError(f"{source} has {len(names)} class names for {num_components} components.")
        state_names = {"logit_scale": "log_logit_scale", "logit_bias": "logit_bias"}
        given = {state: head.state_dict()[state] for name, state in state_names.items() if name in options}
        head.load_state_dict(tensors | given)
        head.class_names, head.encoder, head.min_clips = names, domain.encoder, domain.min_clips
        if not head.is_fitted:
            raise no_domain(source, "is not fitted")
        return head

    def forward(self, video_embeds: Tensor, text_embeds: Tensor) -> DKDHeadOutput:
        """Move both branches and compare them; a result does not depend on what else is in the batch.

        A text within cosine 0.999 of a fitted class is that class; of identical fitted texts the first, second, ...
        stand for the first, second, ... of the identical texts asked. Any other text is a new class, which takes part
        with its debiased text, not far from plain CLIP.

        Args:
            video_embeds: (B, D) or (B, T, D) with frames as particles, any float dtype.
            text_embeds: (K, D) or (K, P, D) with prompts as particles; any classes in any order.

        Returns:
            Logits, moved embeddings, strength and `known`, float32.

        Raises:
            ValueError: Wrong shape or D, a value that is not finite, or a zero embedding.
        """
        dim = self.config.projection_dim
        with full_precision(self.logit_bias):
            prompts = as_particles(text_embeds, "text_embeds", dim)
            texts = self._move_texts(prompts)
            parts = []
            for piece, name in in_pieces(video_embeds, "video_embeds"):
                frames = as_particles(piece, name, dim)
                parts.append((*self._move_videos(frames), self._known(frames.mean(1), prompts.mean(1))))
            videos, strength, known = (torch.cat(part) for part in zip(*parts, strict=True))
            logits = self.logit_scale * videos @ texts.T + self.logit_bias
        return DKDHeadOutput(logits, videos, texts, strength, known)

    def _move_videos(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (B, T, D) to moved videos (B, D) and the strengths (B,)."""
        videos = frames.mean(1)
        if len(self.weights) == 0:
            return videos, torch.zeros_like(videos[:, 0])
        targets, strength = self._video_targets(videos)
        moved = self._svgd(frames, targets, strength)
        return normalize(without_axis(moved.mean(1), self.norm_axis), dim=-1), strength

    def _video_targets(self, videos: Tensor) -> tuple[Tensor, Tensor]:
        """Where videos (B, D) are moved to, (B, D), and which share of the way, (B,)."""
        # Posterior of the fitted classes, which the fitted texts carry whole.
        fitted = self.text_bases + self.class_strength[:, None] * (self.text_targets - self.text_bases)
        assigned = posterior_of(self.logit_scale * videos @ fitted.T)
        targets = assigned @ self.means
        # How well supported its classes are, and how far out it lies for a sample of the domain.
        support = assigned @ self.class_strength
        distances = ((videos - targets).square() / self.variances).sum(1)
        typicality = (videos.shape[1] / distances.clamp_min(1e-6)).clamp(max=1)
        return targets, self.config.video_strength * support * typicality

    def _move_texts(self, prompts: Tensor) -> Tensor:
        """Prompts (K, P, D) to moved texts (K, D)."""
        texts = prompts.mean(1)
        if len(self.weights) == 0:
            return texts
        index, known = self._match(texts)
        scale = self.logit_scale
        fitted = self.fitted_texts, self.text_scale, self._mixture(), self._frame()
        bases, scales = place_new_texts(texts, *fitted, scale, self.options)
        bases = torch.where(known, self.text_bases[index], bases)
        scales = torch.where(known, self.text_scale[index, None], scales)
        strength = torch.where(known[:, 0], self.class_strength[index], 0.0)
        # What a base does with an offset, it does with the offsets of single prompts.
        offsets = scales[:, None] * (prompts - texts[:, None])
        scores = self.anchor_scale * self._mixture().precision_times(offsets)
        placed = bases[:, None] + offsets + scores / (self.temperature * scale)
        moved = self._svgd(placed, torch.where(known, self.text_targets[index], bases), strength)
        placed = filled(without_axis(moved.mean(1), self.norm_axis), self._frame())
        return torch.where(self.anchored > 0, normalize(placed, dim=-1), texts)

    def _known(self, videos: Tensor, texts: Tensor) -> Tensor:
        """Probability that videos (B, D) are of one of the classes of texts (J, D), (B,)."""
        by_cosine = (1 + (videos @ texts.T).amax(1)) / 2
        num_classes = len(self.weights)
        if num_classes == 0:
            return by_cosine
        index, fitted = self._match(texts)
        second_moment = self.second_moments / self.num_samples.clamp_min(1e-6)
        new = known_directions(texts, self.fitted_texts, self.domain_mean, second_moment, self.options)
        fitted_scores, new_scores = (
            (videos - self.domain_mean) @ directions.T for directions in (self.known_directions, new)
        )
        # A text that is a fitted class stands for this and counts once; no score is so low.
        scores = torch.cat([fitted_scores, new_scores.masked_fill(fitted.T, -1e4)], 1)
        asked = torch.zeros_like(self.weights).index_add(0, index, fitted[:, 0].float()).clamp(max=1)
        known = self._known_model().probability(scores, torch.cat([asked, torch.ones_like(texts[:, 0])]))
        return torch.where(self.anchored > 0, known, by_cosine)

    def _svgd(self, particles: Tensor, targets: Tensor, strength: Tensor) -> Tensor:
        """Particles (B, P, D) that have gone `strength` (B,) of the way to N(targets, S), targets (B, D)."""
        num_steps = self.config.num_svgd_steps
        return svgd(
            particles,
            score=lambda points: (targets[:, None] - points) / self.variances,
            num_steps=num_steps,
            step_size=1 - (1 - strength[:, None, None]).pow(1 / num_steps),
            kernel=self.svgd_kernel or self.config.svgd_kernel,
            variances=self.variances,
        )

    def _match(self, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Fitted class of each text (K,), int64, and whether it is one at all (K, 1)."""
        if has_values(texts) and texts.equal(self.fitted_texts):
            # The usual question, without comparing each text with each class.
            return torch.arange(len(texts), device=texts.device), torch.ones_like(texts[:, :1], dtype=torch.bool)
        cosines = texts @ self.fitted_texts.T
        best = cosines.amax(1, keepdim=True)
        # The i-th text among identical ones takes the i-th of the fitted classes that are equally near.
        rank = (texts @ texts.T > 1 - 1e-6).tril(-1).sum(1, keepdim=True, dtype=torch.int32)
        num_tied = (cosines >= best - 1e-6).cumsum(1, dtype=torch.int32)
        rank = torch.minimum(rank, num_tied[:, -1:] - 1)
        # Counted, not searched: the graph of an exported head has no operator for a search.
        index = (num_tied <= rank).sum(1)
        return index, best >= SAME_CLASS_COSINE

    def _fit_unknown_classes(self, shards: list[Tensor], num_components: int | None) -> "DKDHead":
        """Describe the domain by an unanchored mixture."""
        if not shards:
            raise ValueError(NO_VIDEO)
        videos = torch.cat(shards)
        if num_components is None:
            # A rule of thumb (Mardia, Kent & Bibby 1979, "Multivariate Analysis", 13.1).
            num_components = max(1, round((len(videos) / 2) ** 0.5))
        mixture, _ = fit_gaussian_mixture(videos, num_components)
        self._make_buffers(num_components)
        counts = mixture.weights * len(videos)
        fitted = {"weights": mixture.weights, "means": mixture.means, "variances": mixture.variances, "counts": counts}
        self._set_buffers({name: self.get_buffer(name) for name in BUFFER_AXES} | fitted)
        self.class_names = None
        return self

    def _store(
        self,
        texts: Tensor,
        fit: TrustedFit,
        sample: Tensor | None,
        all_reduce: AllReduce = lambda sums: sums,
    ) -> None:
        """Write what was fitted, and place the class texts."""
        prior, mixture = fit.prior, fit.mixture
        fitted = vars(mixture) | vars(fit.statistics)
        fitted |= {"logit_sums": fit.logit_sums, "second_moments": fit.second_moments}
        fitted["text_trust"] = torch.tensor(prior.trust)
        fitted |= {"weights": mixture.counts / mixture.counts.sum(), "class_strength": mixture.class_strength}
        fitted |= {"fitted_texts": texts, "text_scale": prior.scale, "text_bias": prior.bias}
        fitted["anchored"] = torch.ones(())
        sample = texts[:0] if sample is None else sample
        second_moment = (fit.second_moments / fit.statistics.num_samples).float()
        directions = known_directions(texts, texts, mixture.domain_mean, second_moment, self.options)
        fitted |= {"known_directions": directions}
        known = fit_known((sample - mixture.domain_mean) @ directions.T, all_reduce)
        fitted |= {f"known_{name}": value for name, value in vars(known).items()}
        scale, frame = float(self.logit_scale), place_fitted_texts(texts, prior, mixture, float(self.logit_scale))
        self._set_buffers(fitted | vars(frame))
        # How far a video is moved does not depend on how confident the texts are, but confidence depends on it.
        targets, strength = self._video_targets(sample)
        # A single particle goes straight to its target.
        moved = normalize(without_axis(torch.lerp(sample, targets, strength[:, None]), frame.norm_axis), dim=-1)
        given = (texts, prior, mixture, frame, scale, self.options, sample, moved, all_reduce)
        self._set_buffers(fitted | vars(replace(frame, text_norm=common_norm(*given))))

    def recent_clips(self) -> tuple[Tensor, Tensor]:
        """All clips that the domain is of, (N, D), and their labels, (N,), -1 for unlabelled.

        Raises:
            ValueError: They are not at hand: it was loaded, or is of more clips than a head holds.
        """
        recent = self._recent
        if recent is None or recent.older is not None:
            raise ValueError(
                "the clips that this domain was fitted to are not at hand any more, so that none can be left out; fit "
                "it again and ask for min_clips then, or give without_small_classes their embeddings."
            )
        return recent.videos, recent.labels

    def _recent_samples(self) -> RecentSamples:
        """Samples to look at again; a domain that was loaded, or is too large, has none."""
        if self._recent is not None:
            return self._recent
        num_samples = float(self.num_samples)
        older = OlderSamples(self._statistics(), self.second_moments.double(), self.log_frequency)
        none = self.means[:0]
        return RecentSamples(none, torch.empty(0, dtype=torch.int64).to(none.device), older, num_samples, num_samples)

    def _statistics(self) -> DomainStatistics:
        """What was summed up of all samples, from the buffers."""
        return DomainStatistics(*(self.get_buffer(name).double() for name in STATISTICS_FIELDS))

    def _mixture(self) -> ClassMixture:
        """The fitted mixture from the buffers."""
        return ClassMixture(*(self.get_buffer(name) for name in MIXTURE_FIELDS))

    def _prior(self) -> TextPrior:
        """The fitted texts debiased, from the buffers."""
        prior = self.prior(self.fitted_texts, self.logit_sums.double(), self.options)
        return prior.trusted(float(self.text_trust))

    def _frame(self) -> TextFrame:
        """The fitted frame of the texts from the buffers."""
        return TextFrame(*(self.get_buffer(name) for name in FRAME_FIELDS))

    def _known_model(self) -> KnownModel:
        """What `known` is read from, from the buffers."""
        return KnownModel(self.known_slope, self.known_offset, self.known_floor)

    def _set_buffers(self, tensors: dict[str, Tensor]) -> None:
        """Replace the fitted buffers, in float32 and on this head's device."""
        self.trust_choice = self._recent = None
        self.min_clips = 0
        # A domain fitted under inference_mode can still take part in training.
        with torch.inference_mode(False):
            for name in BUFFER_AXES:
                self.register_buffer(name, tensors[name].to(self.logit_bias.device, torch.float32, copy=True))
        self.config.num_components = len(self.weights)

    def _pooled(self, embeds: Tensor, name: str) -> Tensor:
        """Checked embeddings for fitting, (N, D): unit norm, particles averaged."""
        return as_particles(embeds, name, self.config.projection_dim).mean(1).to(self.logit_bias.device)
