"""How a model is trained."""

from dataclasses import dataclass

from serfast.checks import flag, integer, number, require
from serfast.features import NORMALISATIONS

__all__ = ["TrainingOptions"]

SCHEMES = ("joint", "greedy", "one_by_one")
SELECTIONS = ("best", "last")
SCHEDULES = ("constant", "one_cycle")
_CHOICES = {"scheme": SCHEMES, "selection": SELECTIONS, "schedule": SCHEDULES, "normalisation": NORMALISATIONS}
_LARGEST = 1e30  # what float32 tensors can still be scaled by


@dataclass(frozen=True)
class TrainingOptions:
    """Options of one training run.

    Attributes:
        scheme: "joint": the whole model at once. "greedy": first the model that pools with the mean; then, on its
            frozen hidden vectors, which augmentation does not reach, pooling and decoder. "one_by_one": as greedy, but
            the pooling is trained with a linear decoder and then frozen too, before the decoder is trained. Source of
            both: Huang and Narayanan (2016), section 3.
        n_epochs: epochs of a stage at most.
        patience: epochs without a better validation UA after which a stage ends.
        selection: which epoch's weights are kept: that of the "best" validation UA, or the "last".
        batch_size: utterances per step, of like length.
        learning_rate: largest step size of AdamW.
        schedule: "constant", or "one_cycle": up to ``learning_rate`` over the first 30 % of ``n_epochs`` and down to
            nearly 0 at their end, along cosines. Source: Smith and Topin (2018).
        weight_decay: share of each weight, times the step size, that is taken off in every step.
        gradient_clip: largest norm of the whole gradient; a longer one is scaled down to it.
        averaging: decay per step of an exponential mean of the weights, which then is what is validated and kept; 0
            for none.
        class_weights: whether the loss weighs each emotion by the inverse of its share of the training part.
        label_smoothing: share of the target that is spread evenly over all emotions.
        normalisation: whose statistics standardise the features: those of the fold's "training" part, or each
            "speaker"'s own (which uses unlabelled recordings of test speakers: transductive).
        tempo_change: utterances are stretched in time by a factor drawn evenly from 1 - this to 1 + this.
        noise: deviation of the noise added to each standardised feature of each frame.
        offset: deviation of the shift added to each standardised feature of an utterance.
        n_masked: frames at most of one span of each utterance that is set to 0, the mean.
        seed: fixes initial weights, order of utterances, augmentation and dropout.
    """

    scheme: str = "joint"
    n_epochs: int = 20
    patience: int = 6
    selection: str = "best"
    batch_size: int = 16
    learning_rate: float = 2e-3
    schedule: str = "constant"
    weight_decay: float = 0.0
    gradient_clip: float = 1.0
    averaging: float = 0.0
    class_weights: bool = False
    label_smoothing: float = 0.0
    normalisation: str = "training"
    tempo_change: float = 0.0
    noise: float = 0.0
    offset: float = 0.0
    n_masked: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        for name in ("n_epochs", "patience", "batch_size"):
            require(name, "be at least 1", getattr(self, name), integer(name, getattr(self, name)) >= 1)
        require("n_masked", "be at least 0", self.n_masked, integer("n_masked", self.n_masked) >= 0)
        for name in ("learning_rate", "gradient_clip"):
            value = number(name, getattr(self, name))
            require(name, f"be above 0 and at most {_LARGEST:g}", value, 0 < value <= _LARGEST)
        for name in ("weight_decay", "noise", "offset"):
            value = number(name, getattr(self, name))
            require(name, f"be at least 0 and at most {_LARGEST:g}", value, 0 <= value <= _LARGEST)
        for name in ("averaging", "label_smoothing", "tempo_change"):
            value = number(name, getattr(self, name))
            require(name, "be in [0, 1)", value, 0 <= value < 1)
        flag("class_weights", self.class_weights)
        require("seed", "lie in 0..2**63 - 1", self.seed, 0 <= integer("seed", self.seed) < 2**63)
