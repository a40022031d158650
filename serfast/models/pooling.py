"""Pooling: from the hidden vectors of an utterance's frames to one context vector."""

import torch
from torch import Tensor, nn

from serfast.ops import Groups, Lengths, attention_pool

__all__ = ["DIRECTIONS", "POOLINGS", "AttentionPool", "LastPool"]

POOLINGS = ("last", "mean", "eq8", "eq9")
DIRECTIONS = ("both", "forward", "reverse")


class AttentionPool(nn.Module):
    r"""Attention-weighted mean of the frames of each utterance, padding never read.

    The scores of frames are :math:`w^\top \tanh(W h_t)` (``"eq8"``), :math:`w^\top h_t` (``"eq9"``) or all alike
    (``"mean"``). The query w starts at 0: training sets out from the mean.

    Args:
        n_units: size of the hidden vectors.
        scoring: "eq8", "eq9" or "mean".
        n_attention: rows of W for "eq8"; ``n_units`` when None.
        dropout: share of the elements of the scaled vectors :math:`\alpha_t h_t` that is dropped in training.
        n_groups: models side by side, such as folds or seeds: every parameter gets a leading axis (group, ...), and
            ``forward`` takes the group of each utterance. None for one model, without that axis.

    Raises:
        ValueError: if ``scoring`` is unknown, or ``n_groups`` below 1 or given to a mean, which has no parameters.

    Source: Huang and Narayanan (2016), eq. 8 and eq. 9.
    """

    def __init__(
        self,
        n_units: int,
        scoring: str = "eq9",
        *,
        n_attention: int | None = None,
        dropout: float = 0.0,
        n_groups: int | None = None,
    ) -> None:
        super().__init__()
        if scoring not in ("eq8", "eq9", "mean"):
            raise ValueError(f"scoring must be one of eq8, eq9, mean, got {scoring!r}")
        if n_groups is not None and (n_groups < 1 or scoring == "mean"):
            rule = "None for a mean" if scoring == "mean" else "at least 1"
            raise ValueError(f"n_groups must be {rule}, got {n_groups}")
        lead = () if n_groups is None else (n_groups,)
        n_scored = (n_attention or n_units) if scoring == "eq8" else n_units
        self.query = nn.Parameter(torch.zeros(*lead, n_scored)) if scoring != "mean" else None
        self.projection = nn.Parameter(torch.empty(*lead, n_scored, n_units)) if scoring == "eq8" else None
        if self.projection is not None:
            for matrix in self.projection.detach().view(-1, n_scored, n_units):
                nn.init.xavier_uniform_(matrix)
        self.dropout = dropout

    def forward(
        self,
        hidden: Tensor,
        lengths: Tensor | Lengths,
        seed: Tensor | int | None = None,
        group: Tensor | Groups | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Pool ``hidden``, packed (row, unit) or padded (batch, time, unit), as :func:`serfast.ops.attention_pool`.

        ``seed`` fixes the dropout mask of training; one is drawn from torch's generator when None. ``group`` (batch,)
        names the parameters of each utterance where there are ``n_groups``.
        """
        return attention_pool(
            hidden,
            lengths,
            self.query,
            self.projection,
            dropout=self.dropout,
            training=self.training,
            seed=seed,
            group=group,
        )


class LastPool(nn.Module):
    """The last state of each direction: that of the last frame forward, of the first frame reversed.

    Args:
        direction: of the encoder: "both" (forward half of the hidden vectors, then the reverse half), "forward" or
            "reverse".
    """

    def __init__(self, direction: str = "both") -> None:
        super().__init__()
        self.direction = direction

    def forward(
        self,
        hidden: Tensor,
        lengths: Lengths,
        seed: Tensor | int | None = None,
    ) -> tuple[Tensor, None]:
        """Context vectors (batch, unit) from packed hidden vectors (row, unit); there are no weights."""
        first_rows = lengths.first_rows
        last_rows = first_rows + lengths.on_device - 1
        if self.direction == "forward":
            return hidden[last_rows], None
        if self.direction == "reverse":
            return hidden[first_rows], None
        onward, reverse = hidden.chunk(2, dim=1)
        return torch.cat([onward[last_rows], reverse[first_rows]], dim=1), None
