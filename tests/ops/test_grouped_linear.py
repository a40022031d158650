"""The product with a matrix per group, below the doors of attention_pool and blstm."""

import pytest
import torch

from serfast import reference
from serfast.ops import linear
from serfast.ops.grouped_linear import grouped_linear

COUNTS = torch.tensor([3, 1, 140, 2, 5])
GROUPS = [[0, 0, 1, 1, 2], [2, 0, 2, 1, 0], [1, 1, 1, 1, 1]]


def example(dtype=torch.float32, n_in=7, n_out=5, counts=COUNTS):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(int(counts.sum()), n_in, generator=generator, dtype=torch.float64).to(dtype)
    return rows, torch.randn(3, n_out, n_in, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("fixed_order", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_every_utterance_meets_the_matrix_of_its_group(dtype, fixed_order, groups):
    rows, weights = example(dtype)
    got = grouped_linear(rows, weights, torch.tensor(groups), COUNTS, fixed_order=fixed_order)
    assert got.dtype == dtype
    for product, own, group in zip(got.split(COUNTS.tolist()), rows.split(COUNTS.tolist()), groups, strict=True):
        exact = reference.linear(own.double(), weights[group].double())
        torch.testing.assert_close(product, exact.to(dtype))
        if fixed_order:
            assert torch.equal(product, linear(own, weights[group]))


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("fixed_order", [True, False])
def test_gradients_and_their_gradients(fixed_order, groups):
    counts = torch.tensor([2, 1, 3, 1, 2])
    leaves = [*example(torch.float64, 3, 2, counts), torch.randn(3, 2, dtype=torch.float64)]
    for leaf in leaves:
        leaf.requires_grad_()

    def product(rows, weights, bias):
        return grouped_linear(rows, weights, torch.tensor(groups), counts, fixed_order=fixed_order, bias=bias)

    assert torch.autograd.gradcheck(product, leaves)
    assert torch.autograd.gradgradcheck(product, leaves)


@pytest.mark.parametrize("groups", GROUPS)
def test_a_group_has_the_bits_of_its_rows_alone(groups):
    rows, weights = example()
    bias, slopes = torch.randn(3, 5), torch.randn(len(rows), 5)
    leaves = [tensor.requires_grad_() for tensor in (rows, weights, bias)]
    product = grouped_linear(rows, weights, torch.tensor(groups), COUNTS, fixed_order=True, bias=bias)
    found = torch.autograd.grad(product, leaves, slopes)
    group_of_row = torch.tensor(groups).repeat_interleave(COUNTS)
    for group in range(3):
        own = group_of_row == group
        alone = [tensor.detach().requires_grad_() for tensor in (rows[own], weights[group], bias[group])]
        expected = linear(*alone)
        assert torch.equal(product[own], expected)
        of_rows, *of_weights = torch.autograd.grad(expected, alone, slopes[own])
        assert torch.equal(found[0][own], of_rows)
        assert all(torch.equal(grad[group], one) for grad, one in zip(found[1:], of_weights, strict=True))


@pytest.mark.parametrize("fixed_order", [True, False])
def test_registration_passes_opcheck(fixed_order):
    rows, weights = (tensor.requires_grad_() for tensor in example())
    partner = torch.tensor(GROUPS[1]), COUNTS
    for bias in (None, torch.randn(3, 5, requires_grad=True)):
        torch.library.opcheck(torch.ops.serfast.grouped_linear.default, (rows, weights, bias, *partner, fixed_order))
    torch.library.opcheck(torch.ops.serfast.grouped_sum.default, (rows, *partner, 3))
    slopes = torch.randn(len(rows), weights.shape[1], requires_grad=True)
    torch.library.opcheck(
        torch.ops.serfast.grouped_linear_grad_weights.default, (slopes, rows, *partner, 3, fixed_order)
    )


def test_group_that_does_not_exist_meets_the_nearest_that_does():
    rows, weights = example()
    got, expected = (
        grouped_linear(rows, weights, torch.tensor(groups), COUNTS, fixed_order=True)
        for groups in ([-4, 0, 9, 1, 2], [0, 0, 2, 1, 2])
    )
    assert torch.equal(got, expected)
