"""The recurrent encoder: stacked bidirectional LSTM layers over packed rows."""

import math

import torch
from torch import Tensor, nn

from serfast.ops import BLSTM_WEIGHTS, Groups, Lengths, blstm

__all__ = ["BLSTM"]


class BLSTM(nn.Module):
    """Bidirectional LSTM layers in which every utterance starts and stops at its own length.

    Parameters have the names and shapes of ``torch.nn.LSTM(n_features, n_units, n_layers, bidirectional=True)``:
    ``load_state_dict(lstm.state_dict())`` takes its weights over, and the other way round.

    Args:
        n_features: numbers per input frame.
        n_units: units per direction; the output has ``2 * n_units``.
        n_layers: layers, each reading both directions of the one below.
        dropout: share of the outputs of every layer but the last that is dropped in training.
        n_groups: models side by side, such as folds or seeds: every parameter gets a leading axis (group, ...), and
            ``forward`` takes the group of each utterance. None for one model, without that axis.
        precision: of products on CUDA, "high" or "highest", as :func:`serfast.ops.blstm` has them.

    Raises:
        ValueError: if ``n_groups`` is below 1.
    """

    def __init__(
        self,
        n_features: int,
        n_units: int,
        n_layers: int = 2,
        dropout: float = 0.0,
        *,
        n_groups: int | None = None,
        precision: str = "high",
    ) -> None:
        super().__init__()
        if n_groups is not None and n_groups < 1:
            raise ValueError(f"n_groups must be at least 1, got {n_groups}")
        lead = () if n_groups is None else (n_groups,)
        self.n_layers = n_layers
        self.precision = precision
        self.n_outputs = 2 * n_units
        self.dropout = nn.Dropout(dropout)
        bound = 1 / math.sqrt(n_units)
        for depth in range(n_layers):
            n_inputs = n_features if depth == 0 else 2 * n_units
            columns = {"weight_ih": (n_inputs,), "weight_hh": (n_units,), "bias_ih": (), "bias_hh": ()}
            for name in BLSTM_WEIGHTS:
                tensor = torch.empty(*lead, 4 * n_units, *columns[name.partition("_l0")[0]])
                self.register_parameter(_name(name, depth), nn.Parameter(tensor.uniform_(-bound, bound)))

    def forward(self, features: Tensor, lengths: Tensor | Lengths, group: Tensor | Groups | None = None) -> Tensor:
        """Encode features, packed (row, feature) or padded (batch, time, feature), as :func:`serfast.ops.blstm`.

        ``group`` (batch,) names the parameters of each utterance where there are ``n_groups``.
        """
        lengths = Lengths.of(lengths, features)
        hidden = features
        for depth in range(self.n_layers):
            dropped = self.dropout(hidden) if depth > 0 else hidden
            hidden = blstm(dropped, lengths, self._layer_weights(depth), group=group, precision=self.precision)
        return hidden

    def _layer_weights(self, depth: int) -> dict[str, Tensor]:
        # By getattr: torch.func.functional_call lends tensors that are no parameters.
        return {name: getattr(self, _name(name, depth)) for name in BLSTM_WEIGHTS}


def _name(name: str, depth: int) -> str:
    return name.replace("_l0", f"_l{depth}")
