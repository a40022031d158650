"""linear: values, gradients, and the rows around a row that must not change its bits."""

import os
import re
import subprocess
import sys

import pytest
import torch

from serfast import reference
from serfast.ops import cpu_capability, linear
from serfast.ops.linear import weight_gradient

SHAPES = [(1, 1, 1), (7, 5, 3), (31, 28, 64), (13, 256, 65), (100, 300, 200)]


def example(n_rows, n_in, n_out, dtype=torch.float32):
    generator = torch.Generator().manual_seed(n_in)
    rows = torch.randn(n_rows, n_in, generator=generator, dtype=torch.float64)
    weight = torch.randn(n_out, n_in, generator=generator, dtype=torch.float64) / n_in**0.5
    bias = torch.randn(n_out, generator=generator, dtype=torch.float64)
    return rows.to(dtype), weight.to(dtype), bias.to(dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_matches_the_reference_within_the_error_budget(dtype, shape):
    rows, weight, bias = example(*shape, dtype)
    outputs = linear(rows, weight, bias)
    exact = reference.linear(rows.double(), weight.double(), bias.double())
    if dtype == torch.float64:
        torch.testing.assert_close(outputs, exact, rtol=1e-12, atol=1e-12)
        return
    plain = torch.nn.functional.linear(rows, weight, bias)
    terms = reference.linear(rows.double().abs(), weight.double().abs(), bias.double().abs()).max()
    assert outputs.dtype == dtype
    error, rival = ((result.double() - exact).abs().max() for result in (outputs, plain))
    assert error <= 2 * rival + 4 * torch.finfo(dtype).eps * terms


def test_half_rows_take_a_float32_weight():
    rows, weight, bias = example(9, 20, 6)
    got = linear(rows.bfloat16(), weight, bias)
    assert torch.equal(got, linear(rows.bfloat16().float(), weight, bias).bfloat16())


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n_in", "n_out"), [(28, 100), (256, 256), (513, 7)])
def test_row_has_the_same_bits_among_any_others(n_in, n_out, dtype, n_threads):
    rows, weight, bias = example(300, n_in, n_out, dtype)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        together = linear(rows, weight, bias)
        torch.set_num_threads(n_threads)
        for begin in range(97):  # every place in a tile of rows, and the blocks' edges
            for count in (1, 2, 31):
                assert torch.equal(linear(rows[begin : begin + count], weight, bias), together[begin : begin + count])
        assert torch.equal(linear(rows[:256], weight, bias), together[:256])
        assert torch.equal(linear(rows.reshape(3, 100, n_in), weight, bias).reshape(300, n_out), together)
    finally:
        torch.set_num_threads(before)


def test_output_has_the_same_bits_beside_any_other_outputs():
    rows, weight, bias = example(17, 64, 130)
    together = linear(rows, weight, bias)
    for first in (0, 1, 63, 64, 129):
        assert torch.equal(linear(rows, weight[first:], bias[first:]), together[:, first:])


def test_non_contiguous_input_and_no_rows_are_accepted():
    rows, weight, bias = example(12, 10, 6)
    assert torch.equal(linear(rows.T.clone().T, weight.T.clone().T, bias), linear(rows, weight, bias))
    assert linear(rows[:0], weight).shape == (0, 6)


def test_gradcheck():
    leaves = [tensor.requires_grad_() for tensor in example(4, 3, 5, torch.float64)]
    assert torch.autograd.gradcheck(linear, leaves)
    assert torch.autograd.gradgradcheck(linear, leaves)


def test_opcheck():
    rows, weight, bias = (tensor.requires_grad_() for tensor in example(4, 3, 5))
    torch.library.opcheck(torch.ops.serfast.linear.default, (rows, weight, bias))
    torch.library.opcheck(torch.ops.serfast.linear.default, (rows, weight, None))


def test_compiles_into_one_graph():
    rows, weight, bias = example(6, 8, 5)
    assert torch.equal(torch.compile(linear, fullgraph=True)(rows, weight, bias), linear(rows, weight, bias))


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "rows must be float32, float64, bfloat16 or float16, got torch.int64", ("long", None, None)),
        (ValueError, "weight must have shape (n_out, 3) to match rows, got (5, 4)", (None, (5, 4), None)),
        (ValueError, "weight must have shape (n_out, 3) to match rows, got (3,)", (None, (3,), None)),
        (ValueError, "bias must have shape (5,) to match weight, got (4,)", (None, (5, 3), (4,))),
        (TypeError, "weight must be torch.float64 to go with rows, got torch.float32", ("double", (5, 3), None)),
        (
            TypeError,
            "weight must be torch.bfloat16 or torch.float32 to go with rows, got torch.float64",
            ("bfloat16", (5, 3), "double"),
        ),
    ],
)
def test_misuse_is_named(error, message, arguments):
    kind, weight_shape, bias_shape = arguments
    rows = torch.zeros(2, 3)
    rows = getattr(rows, kind)() if kind else rows
    weight = torch.zeros(weight_shape or (5, 3))
    if bias_shape == "double":
        weight, bias_shape = weight.double(), None
    with pytest.raises(error, match=re.escape(message)):
        linear(rows, weight, None if bias_shape is None else torch.zeros(bias_shape))


@pytest.mark.parametrize("level", ["generic", "avx2", "avx512"])
def test_each_instruction_set_matches_the_reference(level):
    levels = ["generic", "avx2", "avx512"]
    if levels.index(level) > levels.index(cpu_capability()):
        pytest.skip(f"this processor, or SERFAST_CPU_CAPABILITY, has no {level}")
    environment = os.environ | {"SERFAST_CPU_CAPABILITY": level, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", __file__, "-k", "budget or bits"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-2000:]


@pytest.mark.parametrize(("n_rows", "n_out", "n_in"), [(1, 1, 1), (300, 7, 70), (1000, 65, 28), (129, 256, 130)])
def test_weight_gradient_errs_less_than_torch_allows(n_rows: int, n_out: int, n_in: int):
    generator = torch.Generator().manual_seed(0)
    slopes, rows = torch.randn(n_rows, n_out, generator=generator), torch.randn(n_rows, n_in, generator=generator)
    exact = slopes.double().T @ rows.double()
    budget = 2 * (slopes.T @ rows - exact).abs().max() + 4 * torch.finfo(torch.float32).eps * exact.abs().max()
    assert (weight_gradient(slopes, rows) - exact).abs().max() <= budget
    torch.testing.assert_close(weight_gradient(slopes.double(), rows.double()), exact)


def test_weight_gradient_takes_a_slice_of_columns():
    slopes, rows = torch.randn(200, 24), torch.randn(200, 9)
    torch.testing.assert_close(weight_gradient(slopes[:, 8:17], rows), slopes[:, 8:17].T @ rows, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(weight_gradient(slopes.T.contiguous().T, rows), slopes.T @ rows, rtol=1e-4, atol=1e-4)


def test_gradients_of_gradients_are_right():
    rows, weight = torch.randn(5, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    assert torch.autograd.gradgradcheck(linear, (rows.requires_grad_(), weight.requires_grad_()))
    torch.library.opcheck(torch.ops.serfast.linear_grad_weight.default, (torch.randn(6, 4), torch.randn(6, 3)))
