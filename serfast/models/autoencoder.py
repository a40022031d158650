"""A stacked denoising autoencoder of single frames."""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (torch's own name)

from serfast.ops import linear

__all__ = ["DenoisingLayer", "StackedAutoencoder"]


class DenoisingLayer(nn.Module):
    r"""One layer of a stack: a code of a frame, and the frame back from its code.

    .. math:: c = s(W x + b), \qquad \hat x = V c + d, \qquad s(a) = a / (1 + |a|)

    In training a share of the elements of x is dropped first, and the others are scaled up to keep the mean.

    Args:
        n_features: numbers per frame.
        n_units: numbers per code.
        corruption: share of the elements that is dropped in training.
    """

    def __init__(self, n_features: int, n_units: int, corruption: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(corruption)
        self.encoder = nn.Linear(n_features, n_units)
        self.decoder = nn.Linear(n_units, n_features)

    def encode(self, rows: Tensor) -> Tensor:
        """Codes (row, unit) of frames (row, feature); in evaluation, the same bits in any batch."""
        return F.softsign(self._affine(self.encoder, self.dropout(rows)))

    def decode(self, codes: Tensor) -> Tensor:
        """Frames (row, feature) from codes (row, unit)."""
        return self._affine(self.decoder, codes)

    def forward(self, rows: Tensor) -> Tensor:
        """Frames (row, feature), there and back."""
        return self.decode(self.encode(rows))

    def _affine(self, layer: nn.Linear, rows: Tensor) -> Tensor:
        return layer(rows) if self.training else linear(rows, layer.weight, layer.bias)


class StackedAutoencoder(nn.Module):
    """Denoising layers, each of which encodes the codes of the one below.

    Args:
        n_features: numbers per frame.
        n_units: numbers per code of each layer; the last is the bottleneck.
        corruption: share of the elements of each layer's input that is dropped in training.

    Source: Vincent, Larochelle, Lajoie, Bengio and Manzagol (2010), "Stacked denoising autoencoders".
    """

    def __init__(self, n_features: int, n_units: Sequence[int], corruption: float) -> None:
        super().__init__()
        sizes = pairwise([n_features, *n_units])
        layers = nn.ModuleList(DenoisingLayer(n_inputs, n_outputs, corruption) for n_inputs, n_outputs in sizes)
        self.layers = cast("Sequence[DenoisingLayer]", layers)  # torch types the members of a list as plain modules

    def encode(self, rows: Tensor, *, depth: int | None = None) -> Tensor:
        """Codes (row, unit) of frames (row, feature) behind the first ``depth`` layers, or behind all."""
        for layer in self.layers[:depth]:
            rows = layer.encode(rows)
        return rows

    def decode(self, codes: Tensor) -> Tensor:
        """Frames (row, feature) from bottleneck codes (row, unit)."""
        for layer in reversed(self.layers):
            codes = layer.decode(codes)
        return codes
