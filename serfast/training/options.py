"""How a model is trained."""

from dataclasses import dataclass

__all__ = ["TrainingOptions"]


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
    batch_size: int = 32
    learning_rate: float = 2e-3
    gradient_clip: float = 1.0
    class_weights: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_epochs", "patience", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "gradient_clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")
