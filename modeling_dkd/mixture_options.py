"""Every constant of the method, what it means and its unit; what `DKDHead(config, options=...)` takes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MixtureOptions:
    """Constants of the mixture and of what is read from it; the defaults are those of all published figures.

    Attributes:
        num_rounds: EM rounds at most, the first of which knows the texts only, >= 1.
        anchor_samples: Pseudo-samples that hold a class mean at its anchor, > 0.
        doubtful_size: Size below which the samples of a class are rather taken for those of others, relative to the
            typical size and times the classes that do not occur for each one that does.
        doubtful_power: How sharp that is. A long tail, whose classes have samples of their own, makes the size about
            1; a quarter of the classes occurring alone, about 3.
        temperature: T with plenty of samples, >= 1.
        shared_classes: What all classes share counts as so many classes more: in T, for the place and the axes of the
            domain have to be known from the same samples as the means; in what is bias of texts, for with few classes
            a difference between them says how alike they are to just these.
        labelled_samples: Labelled samples a class with which T is 1, where all are labelled; with fewer it goes with
            the square, for means of one or two samples say little against the texts.
        labelled_weight: Unlabelled samples that a labelled one is worth.
        text_trusts: Factors of the logit scale that are tried besides 1, the encoder's word, while a domain is fitted,
            each in (0, 1); none: its word stands.
        trust_loss: The least of them is taken that loses less than this share of what there is to say about a sample.
        debiased_share: Share of the classes' differences in the mean and the log spread of their logits that counts
            as bias, with many classes, 0 to 1.
        frequency_variance: Prior variance v of the log class frequencies, nats^2.
        unlabelled_covariance_share: Largest share of the samples' own covariance in S where no class is known: with
            guessed classes it contains differences between them, which S must not explain away.
        equal_variance_share: Share of the diagonal of S that is the same for all axes, with many samples: what is
            known of the axes of the fitted classes is not all true of new ones.
        overconfidence: By how much the posterior claims more than it knows, where each class has many samples: text
            and mixture are two readings of one embedding, and what they say is added up as if they were independent.
            It goes with the square of the classes' strength: with few samples a class, a temperature that is high for
            their sake has divided most of it already.
        expected_gain: Share of the changed predictions that is expected to be gained by the change: the least that
            confidence rises by.
        sample_size: Videos, evenly spread over the domain, on which trusts and the confidence of texts are compared.
        new_class_anchor: Share of the way from the domain's mean to its anchor that the mean of a class that was not
            fitted is taken to go.
        new_class_log_prior: Its log prior, nats: else nearly all videos would go to fitted classes, whose means are
            known better. Where their texts are trusted less it is so much less.
    """

    num_rounds: int = 10
    anchor_samples: float = 2.5
    doubtful_size: float = 0.25
    doubtful_power: float = 3.0
    temperature: float = 10.0
    shared_classes: float = 10.0
    labelled_samples: float = 10.0
    labelled_weight: float = 2.0
    text_trusts: tuple[float, ...] = (0.1,)
    trust_loss: float = 0.3
    debiased_share: float = 0.5
    frequency_variance: float = 0.2
    unlabelled_covariance_share: float = 0.25
    equal_variance_share: float = 0.25
    overconfidence: float = 4.0
    expected_gain: float = 0.5
    sample_size: int = 1024
    new_class_anchor: float = 0.5
    new_class_log_prior: float = 4.0

    def debiased_share_of(self, num_classes: int) -> float:
        """Share of the differences between the texts of so many classes that counts as bias."""
        return self.debiased_share * self.common_share_of(num_classes)

    def common_share_of(self, num_classes: int) -> float:
        """Share of what so many classes have in common that is not theirs alone but of all classes."""
        return num_classes / (num_classes + self.shared_classes)
