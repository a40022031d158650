"""The recurrent encoder: stacked bidirectional LSTM layers over packed rows."""

import torch
from torch import Tensor, nn

from serfast.ops import Lengths

__all__ = ["BLSTM"]


class BLSTM(nn.Module):
    """Bidirectional LSTM layers in which every utterance starts and stops at its own length.

    Each direction of a layer is a one-directional ``torch.nn.LSTM`` on a padded batch. The reverse one reads every
    utterance flipped within its own length: padding lies behind the last frame in both, so no state ever sees it.

    Args:
        n_features: numbers per input frame.
        n_units: units per direction; the output has ``2 * n_units``.
        n_layers: layers, each reading both directions of the one below.
        dropout: share of the outputs of every layer but the last that is dropped in training.
    """

    def __init__(self, n_features: int, n_units: int, n_layers: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        sizes = [n_features] + [2 * n_units] * (n_layers - 1)
        self.onward = nn.ModuleList(nn.LSTM(size, n_units, batch_first=True) for size in sizes)
        self.reverse = nn.ModuleList(nn.LSTM(size, n_units, batch_first=True) for size in sizes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor, lengths: Lengths) -> Tensor:
        """Encode packed features (row, feature) into hidden vectors (row, 2 * n_units): forward half, reverse half."""
        onward_places, reverse_places = _places(lengths, features.device)
        hidden = features
        for depth, (onward, reverse) in enumerate(zip(self.onward, self.reverse, strict=True)):
            layer_input = self.dropout(hidden) if depth > 0 else hidden
            halves = [
                _run_packed(onward, layer_input, onward_places, lengths),
                _run_packed(reverse, layer_input, reverse_places, lengths),
            ]
            hidden = torch.cat(halves, dim=1)
        return hidden


def _places(lengths: Lengths, device: torch.device) -> tuple[Tensor, Tensor]:
    # Where each packed row lies in the (batch * time) rows of a padded batch: in its own order, and flipped.
    counts = lengths.lengths
    utterance = torch.repeat_interleave(torch.arange(len(counts)), counts)
    frame = torch.arange(int(counts.sum())) - torch.repeat_interleave(torch.cumsum(counts, 0) - counts, counts)
    first = utterance * lengths.max_length
    return (first + frame).to(device), (first + counts[utterance] - 1 - frame).to(device)


def _run_packed(lstm: nn.Module, rows: Tensor, places: Tensor, lengths: Lengths) -> Tensor:
    n_utterances = len(lengths.lengths)
    padded = rows.new_zeros(n_utterances * lengths.max_length, rows.shape[1]).index_copy(0, places, rows)
    hidden: Tensor = lstm(padded.view(n_utterances, lengths.max_length, -1))[0]
    return hidden.flatten(0, 1).index_select(0, places)
