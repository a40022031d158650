"""Segments of a waveform side by side: the lanes of a frame kernel."""

import numpy as np
from numpy.typing import NDArray

from serfast.features.compilation import kernel
from serfast.features.lanes import LANES, interleave_high, interleave_low, load, store

__all__ = ["transpose"]


@kernel()
def transpose(
    samples: NDArray[np.float32],
    hop: int,
    n_rows: int,
    tile: NDArray[np.float32],  # (2, lane, lane)
    rows: NDArray[np.float32],
    pitch: int,
) -> None:
    # samples[lane * hop + row] -> rows[row * pitch + lane], for `n_rows` rows rounded up to LANES: 16 segments of the
    # samples, which may overlap, side by side. Four perfect shuffles transpose 16 x 16 values.
    half = LANES * LANES // 2
    for first in range(0, n_rows, LANES):
        for lane in range(LANES // 2):
            low, high = load(samples, lane * hop + first), load(samples, (lane + LANES // 2) * hop + first)
            store(tile, 2 * lane * LANES, interleave_low(low, high))
            store(tile, (2 * lane + 1) * LANES, interleave_high(low, high))
        source, target = 0, 2 * half
        for _ in range(2):
            for row in range(0, half, LANES):
                low, high = load(tile, source + row), load(tile, source + half + row)
                store(tile, target + 2 * row, interleave_low(low, high))
                store(tile, target + 2 * row + LANES, interleave_high(low, high))
            source, target = target, source
        for row in range(LANES // 2):
            low, high = load(tile, source + row * LANES), load(tile, source + half + row * LANES)
            store(rows, (first + 2 * row) * pitch, interleave_low(low, high))
            store(rows, (first + 2 * row + 1) * pitch, interleave_high(low, high))
