"""A matrix product with a matrix for every group of rows. Compiled graphs take it whole, whatever the groups."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from serfast.ops._library import LIBRARY
from serfast.ops.linear import multiplied_type, weight_gradient

__all__ = ["grouped_linear"]

LIBRARY.define(
    "grouped_linear(Tensor rows, Tensor weights, Tensor? biases, Tensor groups, Tensor counts, bool fixed_order)"
    " -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)
LIBRARY.define(
    "grouped_sum(Tensor rows, Tensor groups, Tensor counts, SymInt n_groups) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)
LIBRARY.define(
    "grouped_linear_grad_weights(Tensor grad_outputs, Tensor rows, Tensor groups, Tensor counts, SymInt n_groups,"
    " bool fixed_order) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def grouped_linear(
    rows: Tensor, weights: Tensor, groups: Tensor, counts: Tensor, *, fixed_order: bool, bias: Tensor | None = None
) -> Tensor:
    r"""Multiply the rows of each utterance with the matrix of its group.

    .. math:: y_{ro} = b_{g(r) o} + \sum_i x_{ri} w_{g(r) o i}

    Neighbouring utterances of one group share a product. Gradients flow to all three, and through them again; those of
    weights and bias are, to the bit, what a group's rows alone would give.

    Args:
        rows: :math:`x`, shape (row, n_in), of any type that :func:`serfast.ops.linear` takes.
        weights: :math:`w`, shape (group, n_out, n_in), of the type of ``rows``, or float32 beside half types.
        groups: of each utterance, shape (utterance,), int64, on the CPU.
        counts: rows of each utterance, shape (utterance,), int64, on the CPU; they sum to the rows there are.
        fixed_order: sum as :func:`serfast.ops.linear` does, so that a row gets the same bits among any others. The
            products are torch's otherwise.
        bias: :math:`b`, shape (group, n_out), of the type of ``weights``; None for zero.

    Returns:
        Products (row, n_out) in the type of ``rows``.
    """
    multiplied = multiplied_type(rows, weights) if fixed_order else rows.dtype
    summed = torch.promote_types(multiplied, torch.float32) if fixed_order else rows.dtype
    products: Tensor = torch.ops.serfast.grouped_linear(
        rows.to(multiplied),
        weights.to(multiplied),
        None if bias is None else bias.to(summed),
        groups,
        counts,
        fixed_order,
    )
    return products.to(rows.dtype)


def _runs(groups: Tensor, counts: Tensor, n_groups: int) -> Iterator[tuple[int, slice]]:
    """The group and the rows of each run of neighbouring utterances of one group."""
    members, sizes = groups.clamp(0, n_groups - 1).unique_consecutive(return_counts=True)
    begin = 0
    for member, end in zip(members.tolist(), counts.cumsum(0)[sizes.cumsum(0) - 1].tolist(), strict=True):
        yield member, slice(begin, end)
        begin = end


def _members(groups: Tensor, counts: Tensor, n_groups: int) -> Iterator[tuple[int, slice | Tensor]]:
    """Each group that has rows, and the places of all of them."""
    runs: dict[int, list[slice]] = {}
    for member, run in _runs(groups, counts, n_groups):
        runs.setdefault(member, []).append(run)
    for member, own in runs.items():
        yield member, own[0] if len(own) == 1 else torch.cat([torch.arange(run.start, run.stop) for run in own])


def _products(
    rows: Tensor, weights: Tensor, biases: Tensor | None, groups: Tensor, counts: Tensor, fixed_order: bool
) -> Tensor:
    products = rows.new_empty(len(rows), weights.shape[1])
    for member, run in _runs(groups, counts, len(weights)):
        matrix, bias = weights[member], None if biases is None else biases[member]
        if fixed_order:
            products[run] = torch.ops.serfast.linear(rows[run], matrix, bias)
        else:
            products[run] = rows[run] @ matrix.T if bias is None else torch.addmm(bias, rows[run], matrix.T)
    return products


def _grad_weights(
    grad_outputs: Tensor, rows: Tensor, groups: Tensor, counts: Tensor, n_groups: int, fixed_order: bool
) -> Tensor:
    sums = rows.new_zeros(n_groups, grad_outputs.shape[1], rows.shape[1])
    for member, places in _members(groups, counts, n_groups):
        slopes, own = grad_outputs[places], rows[places]
        sums[member] = weight_gradient(slopes, own) if fixed_order else slopes.T @ own
    return sums


def _sum(rows: Tensor, groups: Tensor, counts: Tensor, n_groups: int) -> Tensor:
    sums = rows.new_zeros(n_groups, rows.shape[1])
    for member, places in _members(groups, counts, n_groups):
        sums[member] = rows[places].sum(0)
    return sums


def _shape(
    rows: Tensor, weights: Tensor, biases: Tensor | None, groups: Tensor, counts: Tensor, fixed_order: bool
) -> Tensor:
    return rows.new_empty(rows.shape[0], weights.shape[1])


def _weights_shape(
    grad_outputs: Tensor, rows: Tensor, groups: Tensor, counts: Tensor, n_groups: int, fixed_order: bool
) -> Tensor:
    return rows.new_empty(n_groups, grad_outputs.shape[1], rows.shape[1])


def _sum_shape(rows: Tensor, groups: Tensor, counts: Tensor, n_groups: int) -> Tensor:
    return rows.new_empty(n_groups, rows.shape[1])


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    rows, weights, _, groups, counts, ctx.fixed_order = inputs
    ctx.save_for_backward(rows, weights, groups, counts)


def _backward(ctx: Any, grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
    rows, weights, groups, counts = ctx.saved_tensors
    needs_rows, needs_weights, needs_biases, *_ = ctx.needs_input_grad
    partner, n_groups = (groups, counts), weights.shape[0]
    return (
        _times_matrices(grad_outputs, weights, groups, counts, ctx.fixed_order) if needs_rows else None,
        torch.ops.serfast.grouped_linear_grad_weights(grad_outputs, rows, *partner, n_groups, ctx.fixed_order)
        if needs_weights
        else None,
        torch.ops.serfast.grouped_sum(grad_outputs, *partner, n_groups) if needs_biases else None,
        None,
        None,
        None,
    )


def _save_factors(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, _, ctx.fixed_order = inputs
    ctx.save_for_backward(*tensors)


def _factors_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
    grad_outputs, rows, groups, counts = ctx.saved_tensors
    return (
        _times_matrices(rows, grad.mT, groups, counts, ctx.fixed_order),
        _times_matrices(grad_outputs, grad, groups, counts, ctx.fixed_order),
        None,
        None,
        None,
        None,
    )


def _save_partner(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    rows, groups, counts, _ = inputs
    ctx.save_for_backward(rows.new_empty(len(rows), 0), groups, counts)


def _sum_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    # A product without columns is its bias: each row gets the slope of its group.
    no_columns, groups, counts = ctx.saved_tensors
    no_matrices = grad[:, :, None].expand(-1, -1, 0)
    return torch.ops.serfast.grouped_linear(no_columns, no_matrices, grad, groups, counts, False), None, None, None


def _times_matrices(rows: Tensor, matrices: Tensor, groups: Tensor, counts: Tensor, fixed_order: bool) -> Tensor:
    """``rows @ matrices[group]``: a gradient, so the order of its sums may be torch's where that is faster."""
    ours = fixed_order and rows.device.type == "cpu"
    product: Tensor = torch.ops.serfast.grouped_linear(rows, matrices.mT, None, groups, counts, ours)
    return product


LIBRARY.impl("grouped_linear", _products, "CompositeExplicitAutograd")
LIBRARY.impl("grouped_linear_grad_weights", _grad_weights, "CompositeExplicitAutograd")
LIBRARY.impl("grouped_sum", _sum, "CompositeExplicitAutograd")
torch.library.register_fake("serfast::grouped_linear", _shape, lib=LIBRARY)
torch.library.register_fake("serfast::grouped_linear_grad_weights", _weights_shape, lib=LIBRARY)
torch.library.register_fake("serfast::grouped_sum", _sum_shape, lib=LIBRARY)
torch.library.register_autograd("serfast::grouped_linear", _backward, setup_context=_save, lib=LIBRARY)
torch.library.register_autograd(
    "serfast::grouped_linear_grad_weights", _factors_backward, setup_context=_save_factors, lib=LIBRARY
)
torch.library.register_autograd("serfast::grouped_sum", _sum_backward, setup_context=_save_partner, lib=LIBRARY)
