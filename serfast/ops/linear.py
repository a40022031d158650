"""A matrix product whose bits do not depend on how many rows there are, and its gradients."""

from typing import Any

import torch
from torch import Tensor

from serfast.ops._checks import DTYPES, check_type_and_device
from serfast.ops._library import LIBRARY

__all__ = ["linear", "multiplied_type", "weight_gradient"]

LIBRARY.define("linear_grad_weight(Tensor grad_outputs, Tensor rows) -> Tensor", tags=(torch.Tag.pt2_compliant_tag,))
LIBRARY.define(
    "linear(Tensor rows, Tensor weight, Tensor? bias) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    r"""Multiply every row with a matrix, in an order of summation that the other rows do not change.

    .. math:: y_{ro} = b_o + \sum_i x_{ri} w_{oi}

    Each sum is one chain over i, ascending from :math:`b_o`. A row gets the same bits alone, at any place of any batch
    and on any number of threads, which ``torch.nn.functional.linear`` does not promise. The product of half types is
    summed in float32; on CUDA by tensor cores, 16 products at a time in ascending order and :math:`b_o` last. Gradients
    flow to all three, and through them again.

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
    multiplied = multiplied_type(rows, weight)
    outputs: Tensor = torch.ops.serfast.linear(
        rows.reshape(-1, rows.shape[-1]).to(multiplied),
        weight.to(multiplied),
        None if bias is None else bias.to(torch.promote_types(multiplied, torch.float32)),
    )
    return outputs.to(rows.dtype).reshape(*rows.shape[:-1], weight.shape[0])


def multiplied_type(rows: Tensor, weight: Tensor) -> torch.dtype:
    """The type that rows and weight are multiplied in: tensor cores take half types, where both are of one."""
    if _is_on_cuda(rows) and rows.dtype == weight.dtype:
        return rows.dtype
    return torch.promote_types(rows.dtype, torch.float32)


def _is_on_cuda(tensor: Tensor) -> bool:
    return tensor.device.type == "cuda"


def _check(rows: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if rows.dtype not in DTYPES:
        raise TypeError(f"rows must be float32, float64, bfloat16 or float16, got {rows.dtype}")
    if rows.dim() == 0 or rows.shape[-1] == 0:
        raise ValueError(f"rows must have shape (..., n_in), got {tuple(rows.shape)}")
    if weight.dim() != 2 or weight.shape[0] == 0 or weight.shape[1] != rows.shape[-1]:
        raise ValueError(f"weight must have shape (n_out, {rows.shape[-1]}) to match rows, got {tuple(weight.shape)}")
    check_type_and_device("weight", weight, "rows", rows)
    if bias is not None:
        if tuple(bias.shape) != (weight.shape[0],):
            raise ValueError(f"bias must have shape ({weight.shape[0]},) to match weight, got {tuple(bias.shape)}")
        check_type_and_device("bias", bias, "rows", rows)


def weight_gradient(grad_outputs: Tensor, rows: Tensor) -> Tensor:
    """Sum over all rows of the outer products of ``grad_outputs`` (row, n_out) and ``rows`` (row, n_in): (n_out, n_in).

    Equal batches give equal bits. On CUDA the product is torch's.
    """
    if _is_on_cuda(rows):
        return grad_outputs.T @ rows
    product: Tensor = torch.ops.serfast.linear_grad_weight(grad_outputs, rows)
    return product


def _shape(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return rows.new_empty(rows.shape[0], weight.shape[0])


def _weight_shape(grad_outputs: Tensor, rows: Tensor) -> Tensor:
    return rows.new_empty(grad_outputs.shape[1], rows.shape[1])


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    rows, weight, _ = inputs
    ctx.save_for_backward(rows, weight)


def _backward(ctx: Any, grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    rows, weight = ctx.saved_tensors
    needs_rows, needs_weight, needs_bias = ctx.needs_input_grad
    return (
        _times_matrix(grad_outputs, weight) if needs_rows else None,
        weight_gradient(grad_outputs, rows) if needs_weight else None,
        grad_outputs.sum(0, dtype=torch.promote_types(grad_outputs.dtype, torch.float32)) if needs_bias else None,
    )


def _save_factors(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _factors_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    grad_outputs, rows = ctx.saved_tensors
    return _times_matrix(rows, grad.T), _times_matrix(grad_outputs, grad)


def _times_matrix(rows: Tensor, matrix: Tensor) -> Tensor:
    """``rows @ matrix``, by our product on the CPU, where it is the faster one."""
    if _is_on_cuda(rows):
        return rows @ matrix
    product: Tensor = torch.ops.serfast.linear(rows, matrix.T, None)
    return product


torch.library.register_fake("serfast::linear", _shape, lib=LIBRARY)
torch.library.register_fake("serfast::linear_grad_weight", _weight_shape, lib=LIBRARY)
torch.library.register_autograd("serfast::linear", _backward, setup_context=_save, lib=LIBRARY)
torch.library.register_autograd(
    "serfast::linear_grad_weight", _factors_backward, setup_context=_save_factors, lib=LIBRARY
)
