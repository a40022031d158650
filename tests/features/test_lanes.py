"""Values of 16 lanes: what each operation says, against NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

from serfast.features.lanes import (
    LANES,
    empty,
    even_lanes,
    inverse_root,
    largest,
    load,
    local_maxima,
    logarithm,
    lowest_bit,
    maximum,
    minimum,
    odd_lanes,
    product,
    root,
    splat,
    store,
    zeros,
)
from serfast.features.transposition import transpose

Values = NDArray[np.float32]


@njit
def _operate(left: Values, right: Values, results: NDArray[np.float32]) -> None:
    a, b = load(left, 0), load(right, 0)
    store(results[0], 0, a + b)
    store(results[1], 0, a - b)
    store(results[2], 0, a * b)
    store(results[3], 0, a / b)
    store(results[4], 0, maximum(a, b))
    store(results[5], 0, minimum(a, b))
    store(results[6], 0, root(b))
    store(results[7], 0, logarithm(b))
    store(results[8], 0, splat(np.float32(3.5)))
    store(results[9], 0, even_lanes(a, b))
    store(results[10], 0, odd_lanes(a, b))
    results[11, 0] = largest(a)


def test_operations_equal_numpy() -> None:
    generator = np.random.default_rng(0)
    left = generator.standard_normal(LANES).astype(np.float32)
    right = np.exp(generator.uniform(-60, 60, LANES)).astype(np.float32)
    results = np.zeros((12, LANES), dtype=np.float32)
    _operate(left, right, results)
    expected = [
        left + right,
        left - right,
        left * right,
        left / right,
        np.maximum(left, right),
        np.minimum(left, right),
    ]
    expected += [np.sqrt(right), np.log(right), np.full(LANES, 3.5)]
    expected += [np.concatenate([left, right])[first::2] for first in range(2)]
    np.testing.assert_allclose(results[:11], expected, rtol=3e-7, atol=1e-7)
    assert results[11, 0] == left.max()


@njit
def _difference(left: Values, right: Values, taken: Values, result: Values) -> None:
    store(result, 0, product(load(left, 0), load(right, 0)) - load(taken, 0))


def test_product_is_rounded_before_a_difference() -> None:
    generator = np.random.default_rng(0)
    left, right = generator.standard_normal((2, LANES)).astype(np.float32)
    result = np.empty(LANES, dtype=np.float32)
    _difference(left, right, left * right, result)
    np.testing.assert_array_equal(result, 0)


@njit
def _apply(operation: Callable[[Any], Any], values: Values, results: Values) -> None:
    for at in range(0, values.size, LANES):
        store(results, at, operation(load(values, at)))


@pytest.mark.parametrize(
    ("operation", "exact", "rtol", "atol"),
    [(logarithm, np.log, 3e-7, 1e-7), (inverse_root, lambda value: value**-0.5, 8e-7, 0.0)],
    ids=["logarithm", "inverse_root"],
)
def test_functions_are_right_to_a_few_ulp(
    operation: Callable[[Any], Any], exact: Callable[[NDArray[np.float64]], Any], rtol: float, atol: float
) -> None:
    values = np.geomspace(1e-37, 1e37, 16000).astype(np.float32)
    results = np.empty_like(values)
    _apply(operation, values, results)
    np.testing.assert_allclose(results, exact(values.astype(np.float64)), rtol=rtol, atol=atol)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 4000, 100_003])
def test_arrays_begin_where_a_cache_line_does(count: int) -> None:
    kept = [array for _ in range(5) for array in (empty(count), zeros(count))]
    for array in kept:
        assert array.shape == (count,)
        assert array.dtype == np.float32
        assert array.flags["C_CONTIGUOUS"]
        assert array.ctypes.data % 64 == 0
    for place, array in enumerate(kept):
        array[:] = place
    assert all((array == place).all() for place, array in enumerate(kept))
    assert not zeros(count).any()


@njit
def _peak_lanes(before: Values, value: Values, after: Values) -> list[int]:
    bits = local_maxima(load(before, 0), load(value, 0), load(after, 0), splat(np.float32(0.3)))
    lanes = [-1]
    while bits:
        lanes.append(lowest_bit(bits))
        bits &= bits - 1
    return lanes


def test_peaks_are_maxima_above_the_least() -> None:
    before, value, after = np.zeros((3, LANES), dtype=np.float32)
    value[[0, 3, 7, 9, 15]] = [0.5, 0.2, 0.4, 0.6, 0.3]
    after[9] = 0.6  # of two equal neighbours the later is the peak
    before[7] = 0.4
    assert _peak_lanes(before, value, after)[1:] == [0, 7, 15]


@pytest.mark.parametrize(("hop", "n_rows"), [(160, 160), (80, 288), (5, 48), (1, 16)])
def test_segments_are_transposed(hop: int, n_rows: int) -> None:
    samples = np.random.default_rng(1).standard_normal(LANES * hop + n_rows + LANES).astype(np.float32)
    rows = np.empty((n_rows, 2 * LANES), dtype=np.float32)
    transpose(samples, hop * np.arange(LANES), n_rows, rows.reshape(-1), 2 * LANES)
    expected = [[samples[lane * hop + row] for lane in range(LANES)] for row in range(n_rows)]
    np.testing.assert_array_equal(rows[:, :LANES], expected)
