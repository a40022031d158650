"""Several classifiers that answer as one."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from serfast.models.classifier import EmotionClassifier, ModelOptions
from serfast.ops import Lengths

__all__ = ["EmotionEnsemble"]


class EmotionEnsemble(nn.Module):
    """Classifiers of one shape, whose probabilities and attention weights are averaged.

    It answers what an :class:`EmotionClassifier` answers, and is not trained. Its logits are the logarithms of the mean
    probabilities.
    """

    def __init__(self, classifiers: Sequence[EmotionClassifier]) -> None:
        super().__init__()
        self.classifiers = tuple(classifiers)
        self.members = nn.ModuleList(classifiers)  # what PyTorch finds their weights by

    @property
    def options(self) -> ModelOptions:
        """The shape of each classifier."""
        return self.classifiers[0].options

    def forward(self, features: Tensor, lengths: Tensor | Lengths) -> tuple[Tensor, Tensor | None]:
        """Logits and attention weights, as :meth:`EmotionClassifier.forward`."""
        return _mean([classifier(features, lengths) for classifier in self.classifiers])

    def encoder(self, features: Tensor, lengths: Lengths) -> Tensor:
        """Packed hidden vectors (row, unit): those of the classifiers beside each other."""
        return torch.cat([classifier.encoder(features, lengths) for classifier in self.classifiers], dim=1)

    def head(self, hidden: Tensor, lengths: Lengths) -> tuple[Tensor, Tensor | None]:
        """Logits (batch, emotion) and attention weights (row,) or None, from packed hidden vectors (row, unit)."""
        parts = hidden.chunk(len(self.classifiers), dim=1)
        return _mean([own.head(part, lengths) for own, part in zip(self.classifiers, parts, strict=True)])


def _mean(answers: Sequence[tuple[Tensor, Tensor | None]]) -> tuple[Tensor, Tensor | None]:
    log_probabilities = torch.stack([logits for logits, _ in answers]).log_softmax(dim=2)
    logits = log_probabilities.logsumexp(dim=0) - math.log(len(answers))
    weights = [weights for _, weights in answers if weights is not None]
    return logits, torch.stack(weights).mean(dim=0) if weights else None
