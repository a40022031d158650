"""A matrix product in plain PyTorch, summed in the order that the operator promises."""

import torch
from torch import Tensor

__all__ = ["linear"]


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    r"""Multiply every row with a matrix, adding one product after the other.

    .. math:: y_{ro} = b_o + \sum_i x_{ri} w_{oi}

    Args:
        rows: :math:`x`, shape (..., n_in), any floating dtype; half types are summed in float32.
        weight: :math:`w`, shape (n_out, n_in).
        bias: :math:`b`, shape (n_out,); None for zero.

    Returns:
        Products (..., n_out) in the type of ``rows``.
    """
    computed = torch.promote_types(rows.dtype, torch.float32)
    sums = torch.zeros(*rows.shape[:-1], len(weight), dtype=computed, device=rows.device)
    if bias is not None:
        sums = sums + bias.to(computed)
    for place in range(weight.shape[1]):
        sums = torch.addcmul(sums, rows[..., place, None].to(computed), weight[:, place].to(computed))
    return sums.to(rows.dtype)
