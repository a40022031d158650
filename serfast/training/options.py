"""How a model is trained."""

from dataclasses import dataclass

from serfast.checks import flag, integer, number, require

__all__ = ["TrainingOptions"]

_LARGEST = 1e30  # what float32 tensors can still be scaled by


@dataclass(frozen=True)
class TrainingOptions:
    """Options of one training run.

    Attributes:
        n_epochs: epochs at most.
        patience: epochs without a better validation UA after which training stops.
        batch_size: utterances per step, of like length.
        learning_rate: step size of Adam.
        gradient_clip: largest norm of the whole gradient; a longer one is scaled down to it.
        class_weights: whether the loss weighs each emotion by the inverse of its share of the training part.
        seed: fixes initial weights, order of utterances and dropout.
    """

    n_epochs: int = 20
    patience: int = 6
    batch_size: int = 16
    learning_rate: float = 2e-3
    gradient_clip: float = 1.0
    class_weights: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_epochs", "patience", "batch_size"):
            require(name, "be at least 1", getattr(self, name), integer(name, getattr(self, name)) >= 1)
        for name in ("learning_rate", "gradient_clip"):
            value = number(name, getattr(self, name))
            require(name, f"be above 0 and at most {_LARGEST:g}", value, 0 < value <= _LARGEST)
        flag("class_weights", self.class_weights)
        require("seed", "lie in 0..2**63 - 1", self.seed, 0 <= integer("seed", self.seed) < 2**63)
