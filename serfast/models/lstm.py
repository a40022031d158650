"""A recurrent encoder of one direction: stacked LSTM layers over packed rows."""

import math

import torch
from torch import Tensor, nn

from serfast.ops import Groups, Lengths, blstm

__all__ = ["LSTM"]

_KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class LSTM(nn.Module):
    """LSTM layers that read every utterance from its own first frame to its last, or the other way round.

    Parameters have the names and shapes of ``torch.nn.LSTM(n_features, n_units, n_layers)``. Reversed, hidden vectors
    stay at their frames: that of the first frame has seen the whole utterance.

    Args:
        n_features: numbers per input frame.
        n_units: units of every layer.
        n_layers: layers, each reading the one below in the same direction.
        dropout: share of the outputs of every layer but the last that is dropped in training.
        reverse: read from the last frame to the first.
        precision: of products on CUDA, "high" or "highest", as :func:`serfast.ops.blstm` has them.
    """

    def __init__(
        self,
        n_features: int,
        n_units: int,
        n_layers: int = 2,
        dropout: float = 0.0,
        *,
        reverse: bool = False,
        precision: str = "high",
    ) -> None:
        super().__init__()
        self.n_layers = n_layers
        self.n_outputs = n_units
        self.reverse = reverse
        self.precision = precision
        self.dropout = nn.Dropout(dropout)
        bound = 1 / math.sqrt(n_units)
        for depth in range(n_layers):
            n_inputs = n_features if depth == 0 else n_units
            for kind, columns in zip(_KINDS, ((n_inputs,), (n_units,), (), ()), strict=True):
                tensor = torch.empty(4 * n_units, *columns)
                self.register_parameter(f"{kind}_l{depth}", nn.Parameter(tensor.uniform_(-bound, bound)))

    def forward(self, features: Tensor, lengths: Tensor | Lengths, group: Tensor | Groups | None = None) -> Tensor:
        """Encode features, packed (row, feature) or padded (batch, time, feature), into ``n_units`` per frame.

        ``group`` (batch,) names the parameters of each utterance where they have a leading axis (group, ...).
        """
        lengths = Lengths.of(lengths, features)
        suffix = "_reverse" if self.reverse else ""
        hidden = features
        for depth in range(self.n_layers):
            # By getattr: torch.func.functional_call lends tensors that are no parameters.
            weights: dict[str, Tensor] = {f"{kind}_l0{suffix}": getattr(self, f"{kind}_l{depth}") for kind in _KINDS}
            dropped = self.dropout(hidden) if depth > 0 else hidden
            hidden = blstm(dropped, lengths, weights, group=group, precision=self.precision)
        return hidden
