"""Pooling: from the hidden vectors of an utterance's frames to one context vector."""

import torch
from torch import Tensor, nn

from serfast.ops import Lengths, attention_pool

__all__ = ["POOLINGS", "AttentionPool", "LastPool", "make_pooling"]

POOLINGS = ("last", "mean", "eq8", "eq9")


class AttentionPool(nn.Module):
    r"""Attention-weighted mean of the frames of each utterance, padding never read.

    The scores of frames are :math:`w^\top \tanh(W h_t)` (``"eq8"``), :math:`w^\top h_t` (``"eq9"``) or all alike
    (``"mean"``). The query w starts at 0: training sets out from the mean.

    Args:
        n_units: size of the hidden vectors.
        scoring: "eq8", "eq9" or "mean".
        n_attention: rows of W for "eq8"; ``n_units`` when None.
        dropout: share of the elements of the scaled vectors :math:`\alpha_t h_t` that is dropped in training.

    Source: Huang and Narayanan (2016), eq. 8 and eq. 9.
    """

    def __init__(
        self, n_units: int, scoring: str = "eq9", *, n_attention: int | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if scoring not in ("eq8", "eq9", "mean"):
            raise ValueError(f"scoring must be one of eq8, eq9, mean, got {scoring!r}")
        n_scored = (n_attention or n_units) if scoring == "eq8" else n_units
        self.query = nn.Parameter(torch.zeros(n_scored)) if scoring != "mean" else None
        self.projection = nn.Parameter(torch.empty(n_scored, n_units)) if scoring == "eq8" else None
        if self.projection is not None:
            nn.init.xavier_uniform_(self.projection)
        self.dropout = dropout

    def forward(
        self, hidden: Tensor, lengths: Tensor | Lengths, seed: Tensor | int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Pool ``hidden``, packed (row, unit) or padded (batch, time, unit), as :func:`serfast.ops.attention_pool`.

        ``seed`` fixes the dropout mask of training; one is drawn from torch's generator when None.
        """
        return attention_pool(
            hidden,
            lengths,
            self.query,
            self.projection,
            dropout=self.dropout,
            training=self.training,
            seed=seed,
        )


class LastPool(nn.Module):
    """The last state of each direction: forward half of the last frame, reverse half of the first."""

    def forward(
        self,
        hidden: Tensor,
        lengths: Lengths,
        seed: Tensor | int | None = None,
    ) -> tuple[Tensor, None]:
        """Context vectors (batch, 2 * unit) from packed hidden vectors (row, 2 * unit); there are no weights."""
        n_units = hidden.shape[1] // 2
        first_rows = lengths.first_rows
        last_rows = first_rows + lengths.on_device - 1
        return torch.cat([hidden[last_rows, :n_units], hidden[first_rows, n_units:]], dim=1), None


def make_pooling(name: str, n_units: int, *, n_attention: int | None, dropout: float) -> AttentionPool | LastPool:
    """The pooling called ``name``, one of ``POOLINGS``, over hidden vectors of ``n_units``."""
    if name == "last":
        return LastPool()
    return AttentionPool(n_units, name, n_attention=n_attention, dropout=dropout)
