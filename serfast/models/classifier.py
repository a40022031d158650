"""The paper's model: recurrent encoder, pooling over frames, decoder."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from serfast.checks import integer, number, require
from serfast.models.blstm import BLSTM
from serfast.models.decoder import Decoder
from serfast.models.lstm import LSTM
from serfast.models.pooling import DIRECTIONS, POOLINGS, AttentionPool, LastPool
from serfast.ops import BLSTM_PRECISIONS, Lengths

__all__ = ["EmotionClassifier", "EmotionHead", "ModelOptions"]


@dataclass(frozen=True)
class ModelOptions:
    """Shape of an :class:`EmotionClassifier`; the defaults are the paper's attention model.

    Attributes:
        pooling: "last", "mean", "eq8" or "eq9" (Huang and Narayanan 2016, section 3).
        direction: "both" for a bidirectional encoder; "forward" or "reverse" for one that reads each utterance from its
            first frame to its last, or the other way round.
        n_layers: LSTM layers.
        n_units: LSTM units per direction.
        n_attention: rows of the projection W of eq. 8; 0 for as many as the hidden vectors have.
        n_decoder: units of the decoder's hidden layer; 0 for none.
        encoder_dropout: dropout between the LSTM layers.
        pooling_dropout: dropout on the elements of the scaled vectors alpha_t h_t.
        decoder_dropout: dropout before the decoder's layers.
        precision: of products on CUDA, "high" (as TF32) or "highest" (float32), as :func:`serfast.ops.blstm` has them.
    """

    pooling: str = "eq9"
    direction: str = "both"
    n_layers: int = 2
    n_units: int = 128
    n_attention: int = 0
    n_decoder: int = 0
    encoder_dropout: float = 0.0
    pooling_dropout: float = 0.0
    decoder_dropout: float = 0.0
    precision: str = "high"

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {self.pooling!r}")
        if self.direction not in DIRECTIONS:
            raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}, got {self.direction!r}")
        if self.precision not in BLSTM_PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(BLSTM_PRECISIONS)}, got {self.precision!r}")
        for name, least in (("n_layers", 1), ("n_units", 1), ("n_attention", 0), ("n_decoder", 0)):
            value = integer(name, getattr(self, name))
            require(name, f"be at least {least}", value, value >= least)
        for name in ("encoder_dropout", "pooling_dropout", "decoder_dropout"):
            share = number(name, getattr(self, name))
            require(name, "be in [0, 1)", share, 0.0 <= share < 1.0)


class EmotionHead(nn.Module):
    """What follows the encoder: pooling over the frames of an utterance, then the decoder."""

    def __init__(self, n_hidden: int, n_emotions: int, options: ModelOptions) -> None:
        super().__init__()
        self.pooling: AttentionPool | LastPool
        if options.pooling == "last":
            self.pooling = LastPool(options.direction)
        else:
            n_attention = options.n_attention or None
            self.pooling = AttentionPool(
                n_hidden, options.pooling, n_attention=n_attention, dropout=options.pooling_dropout
            )
        self.decoder = Decoder(n_hidden, n_emotions, options.n_decoder, options.decoder_dropout)

    def forward(
        self, hidden: Tensor, lengths: Lengths, dropout_seeds: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Logits (batch, emotion) and attention weights (row,) or None, from packed hidden vectors (row, unit)."""
        context, attention_weights = self.pooling(hidden, lengths, dropout_seeds)
        return self.decoder(context), attention_weights


class EmotionClassifier(nn.Module):
    """Scores the emotions of utterances: recurrent encoder over frames, pooling to a context vector, decoder."""

    def __init__(self, n_features: int, n_emotions: int, options: ModelOptions) -> None:
        super().__init__()
        self.options = options
        self.encoder = make_encoder(n_features, options)
        self.head = EmotionHead(self.encoder.n_outputs, n_emotions, options)

    def forward(
        self, features: Tensor, lengths: Tensor | Lengths, dropout_seeds: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Score utterances.

        Args:
            features: packed (row, feature), or padded (batch, time, feature), whose padding is never read.
            lengths: frames of each utterance, (batch,), int64.
            dropout_seeds: (batch,), int64; they fix the pooling's dropout mask in training. Drawn when None.

        Returns:
            Logits (batch, emotion), and attention weights (row,), or (batch, time) and zero in the padding; None
            where the pooling has no weights ("last").
        """
        lengths = Lengths.of(lengths, features)
        if lengths.n_frames is None:
            logits, attention_weights = self.head(self.encoder(features, lengths), lengths, dropout_seeds)
            return logits, attention_weights
        valid = torch.arange(lengths.n_frames, device=features.device) < lengths.on_device[:, None]
        packed = Lengths.packed(lengths.lengths, device=features.device)
        logits, packed_weights = self(features[valid], packed, dropout_seeds)
        if packed_weights is None:
            return logits, None
        return logits, packed_weights.new_zeros(valid.shape).masked_scatter(valid, packed_weights)


def make_encoder(n_features: int, options: ModelOptions) -> BLSTM | LSTM:
    """The recurrent encoder of ``options``; its ``n_outputs`` are the hidden vectors' size."""
    shape = n_features, options.n_units, options.n_layers, options.encoder_dropout
    if options.direction == "both":
        return BLSTM(*shape, precision=options.precision)
    return LSTM(*shape, reverse=options.direction == "reverse", precision=options.precision)
