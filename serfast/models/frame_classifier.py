"""A classifier of frames: recurrent encoder, then a linear layer on every hidden vector."""

import torch
from torch import Tensor, nn

from serfast.models.blstm import BLSTM
from serfast.models.decoder import Decoder
from serfast.ops import Lengths

__all__ = ["FrameClassifier"]


class FrameClassifier(nn.Module):
    """Scores the classes of every frame of utterances, each frame in the light of its whole utterance.

    Args:
        n_features: numbers per input frame.
        n_classes: classes of a frame.
        n_units: LSTM units per direction.
        n_layers: bidirectional LSTM layers.
        dropout: dropout between the LSTM layers.
    """

    def __init__(
        self, n_features: int, n_classes: int, *, n_units: int = 128, n_layers: int = 2, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.encoder = BLSTM(n_features, n_units, n_layers, dropout)
        self.decoder = Decoder(self.encoder.n_outputs, n_classes)

    def forward(self, features: Tensor, lengths: Lengths) -> Tensor:
        """Log posteriors (row, class) of packed features (row, feature); in evaluation, the same bits in any batch."""
        return self.classify(self.encoder(features, lengths))

    def classify(self, hidden: Tensor) -> Tensor:
        """Log posteriors (row, class) of the encoder's hidden vectors (row, unit)."""
        return torch.log_softmax(self.decoder(hidden), dim=1)
