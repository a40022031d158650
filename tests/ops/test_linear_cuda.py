"""linear on CUDA, real or emulated: the reference's values, and the rows around a row that must not change its bits."""

import pytest
import torch

from serfast import reference
from serfast.ops import linear

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SHAPES = [(1, 1, 1), (7, 5, 3), (31, 28, 64), (129, 256, 65), (100, 300, 200), (1000, 512, 130)]


def example(device, n_rows, n_in, n_out, dtype):
    generator = torch.Generator().manual_seed(n_in)
    rows = torch.randn(n_rows, n_in, generator=generator, dtype=torch.float64)
    weight = torch.randn(n_out, n_in, generator=generator, dtype=torch.float64) / n_in**0.5
    bias = torch.randn(n_out, generator=generator, dtype=torch.float64)
    return tuple(tensor.to(device, dtype) for tensor in (rows, weight, bias))


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_matches_the_reference_within_the_error_budget(device, dtype, shape, has_bias):
    tensors = tuple(tensor.cpu() for tensor in example(device, *shape, dtype))[: 3 if has_bias else 2]
    outputs = linear(*(tensor.to(device) for tensor in tensors))
    exact = reference.linear(*(tensor.double() for tensor in tensors))
    assert outputs.dtype == dtype
    if dtype == torch.float64:
        torch.testing.assert_close(outputs.cpu(), exact, rtol=1e-12, atol=1e-12)
        return
    plain = torch.nn.functional.linear(*tensors)
    terms = reference.linear(*(tensor.double().abs() for tensor in tensors)).max()
    error, rival = ((result.cpu().double() - exact).abs().max() for result in (outputs, plain))
    assert error <= 2 * rival + 4 * torch.finfo(dtype).eps * terms


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n_in", "n_out"), [(28, 100), (256, 256), (513, 7), (512, 130)])
def test_row_has_the_same_bits_among_any_others(device, n_in, n_out, dtype):
    rows, weight, bias = example(device, 300, n_in, n_out, dtype)
    together = linear(rows, weight, bias)
    for begin in range(0, 269, 7):  # places in a tile of rows, and the blocks' edges
        for count in (1, 2, 31):
            assert torch.equal(linear(rows[begin : begin + count], weight, bias), together[begin : begin + count])
    for first in (0, 1, 4, n_out - 1):
        assert torch.equal(linear(rows, weight[first:], bias[first:]), together[:, first:])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_rows_take_a_float32_weight(device, dtype):
    rows, weight, bias = example(device, 9, 20, 6, torch.float32)
    rows = rows.to(dtype)
    assert torch.equal(linear(rows, weight, bias), linear(rows.float(), weight, bias).to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_are_those_of_torch(device, dtype):
    leaves = [tensor.requires_grad_() for tensor in example(device, 50, 24, 9, dtype)]
    slopes = torch.randn(50, 9, device=device, dtype=dtype)
    got = torch.autograd.grad(linear(*leaves), leaves, slopes)
    exact = torch.autograd.grad(
        torch.nn.functional.linear(*(leaf.double() for leaf in leaves)), leaves, slopes.double()
    )
    for result, truth in zip(got, exact, strict=True):
        assert result.dtype == dtype
        assert (result - truth).abs().max() <= 16 * torch.finfo(dtype).eps * truth.abs().max()


def test_no_rows_and_non_contiguous_rows_are_accepted(device):
    rows, weight, bias = example(device, 12, 16, 6, torch.bfloat16)
    assert linear(rows[:0], weight).shape == (0, 6)
    assert torch.equal(linear(rows.T.clone().T, weight.T.clone().T, bias), linear(rows, weight, bias))


@pytest.mark.cuda
@torch.no_grad()
def test_a_captured_graph_replays_with_other_rows(cuda):
    rows, weight, bias = example(cuda, 40, 64, 10, torch.bfloat16)
    linear(rows, weight, bias)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = linear(rows, weight, bias)
    rows.copy_(rows.flip(0))
    graph.replay()
    assert torch.equal(captured, linear(rows, weight, bias))


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_opcheck(cuda, dtype):
    rows, weight, bias = (tensor.requires_grad_() for tensor in example(cuda, 4, 8, 5, dtype))
    torch.library.opcheck(torch.ops.serfast.linear.default, (rows, weight, bias.detach().float()))
