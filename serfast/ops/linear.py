"""A matrix product whose bits do not depend on how many rows there are: for evaluation."""

from typing import Any

import torch
from torch import Tensor

from serfast.ops._library import LIBRARY

__all__ = ["linear"]

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

LIBRARY.define(
    "linear(Tensor rows, Tensor weight, Tensor? bias) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    r"""Multiply every row with a matrix, in an order of summation that the other rows do not change.

    .. math:: y_{ro} = b_o + \sum_i x_{ri} w_{oi}

    Each sum is one chain over i, ascending from :math:`b_o`. A row gets the same bits alone, at any place of any batch
    and on any number of threads, which ``torch.nn.functional.linear`` does not promise. The product of half types is
    summed in float32. Gradients flow to all three by torch's own products; so does a second derivative.

    Args:
        rows: :math:`x`, shape (..., n_in); float32, float64, bfloat16 or float16.
        weight: :math:`w`, shape (n_out, n_in), of the type of ``rows``, or float32 beside half types.
        bias: :math:`b`, shape (n_out,), of either type; None for zero.

    Returns:
        Products (..., n_out) in the type of ``rows``.

    Raises:
        TypeError: if a dtype is not supported or does not go with that of ``rows``.
        ValueError: if a shape does not fit ``rows``, or a device differs.

    Source: Higham, "Accuracy and Stability of Numerical Algorithms" (2002), 3.1, for the error of one chain. Reference:
    ``serfast.reference``.
    """
    _check(rows, weight, bias)
    computed = torch.float64 if rows.dtype == torch.float64 else torch.float32
    outputs: Tensor = torch.ops.serfast.linear(
        rows.reshape(-1, rows.shape[-1]).to(computed),
        weight.to(computed),
        None if bias is None else bias.to(computed),
    )
    return outputs.to(rows.dtype).reshape(*rows.shape[:-1], weight.shape[0])


def _check(rows: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if rows.dtype not in _DTYPES:
        raise TypeError(f"rows must be float32, float64, bfloat16 or float16, got {rows.dtype}")
    if rows.dim() == 0 or rows.shape[-1] == 0:
        raise ValueError(f"rows must have shape (..., n_in), got {tuple(rows.shape)}")
    if weight.dim() != 2 or weight.shape[0] == 0 or weight.shape[1] != rows.shape[-1]:
        raise ValueError(f"weight must have shape (n_out, {rows.shape[-1]}) to match rows, got {tuple(weight.shape)}")
    _check_like("weight", weight, rows)
    if bias is not None:
        if tuple(bias.shape) != (weight.shape[0],):
            raise ValueError(f"bias must have shape ({weight.shape[0]},) to match weight, got {tuple(bias.shape)}")
        _check_like("bias", bias, rows)


def _check_like(name: str, tensor: Tensor, rows: Tensor) -> None:
    allowed = {rows.dtype, torch.float32} if rows.dtype in (torch.bfloat16, torch.float16) else {rows.dtype}
    if tensor.dtype not in allowed:
        wanted = " or ".join(sorted(str(dtype) for dtype in allowed))
        raise TypeError(f"{name} must be {wanted} to go with rows of {rows.dtype}, got {tensor.dtype}")
    if tensor.device != rows.device:
        raise ValueError(f"{name} must be on {rows.device} like rows, got {tensor.device}")


def _shape(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return rows.new_empty(rows.shape[0], weight.shape[0])


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    rows, weight, _ = inputs
    ctx.save_for_backward(rows, weight)


def _backward(ctx: Any, grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    rows, weight = ctx.saved_tensors
    needs_rows, needs_weight, needs_bias = ctx.needs_input_grad
    return (
        grad_outputs @ weight if needs_rows else None,
        grad_outputs.T @ rows if needs_weight else None,
        grad_outputs.sum(0) if needs_bias else None,
    )


torch.library.register_fake("serfast::linear", _shape, lib=LIBRARY)
torch.library.register_autograd("serfast::linear", _backward, setup_context=_save, lib=LIBRARY)
