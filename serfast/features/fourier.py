"""Spectra of overlapping frames: hops transposed, windowed and transformed 16 frames at a time.

Buffers are flat and hold (position, lane). The frames of a waveform overlap, so its hops are transposed, each sample
once: sample ``q * hop + n`` of frame t is sample n of hop t + q, which lies q lanes behind sample n of hop t.

Source: Gentleman and Sande (1966), Fast Fourier transforms: for fun and profit; Van Loan (1992), Computational
Frameworks for the FFT.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serfast.features.compilation import kernel
from serfast.features.lanes import LANES, empty, load, root, splat, store, zeros
from serfast.features.transposition import transpose

__all__ = ["Scratch", "Transform", "make_scratch", "make_transform", "spectra"]

_GAP = 3 * LANES  # between the parts of a buffer: the same row of two parts must not fall into the same cache set


class Transform(NamedTuple):
    """What the spectra depend on besides the samples."""

    window: NDArray[np.float32]  # (sample of a window)
    twiddles: NDArray[np.float32]  # (2, n_fft / 2): cos and -sin of 2 pi k / (n_fft / 2)
    half_twiddles: NDArray[np.float32]  # (2, n_fft / 2): cos and -sin of 2 pi k / n_fft
    places: NDArray[np.int64]  # (n_fft / 2): where the complex transform leaves its values, in samples of a buffer
    hop: int
    pre_emphasis: np.float32
    remove_mean: bool
    squared: bool


class Scratch(NamedTuple):
    """Buffers of one thread, flat."""

    starts: NDArray[np.int64]  # (lane): of hops
    hops: NDArray[np.float32]  # (sample of a hop, column of 16 hops, lane)
    points: NDArray[np.float32]  # (2, position, lane), with a gap: real and imaginary
    spectrum: NDArray[np.float32]  # (bin, lane)


def make_transform(
    window: NDArray[np.float64], n_fft: int, hop: int, *, pre_emphasis: float, remove_mean: bool, squared: bool
) -> Transform:
    """Prepare the transform of ``n_fft`` points, a power of two, at least 4, of frames weighted by ``window``."""
    angle = 2 * np.pi * np.arange(n_fft // 2) / (n_fft // 2)
    return Transform(
        window=window.astype(np.float32),
        twiddles=np.stack([np.cos(angle), -np.sin(angle)]).astype(np.float32),
        half_twiddles=np.stack([np.cos(angle / 2), -np.sin(angle / 2)]).astype(np.float32),
        places=_places(n_fft // 2) * LANES,
        hop=hop,
        pre_emphasis=np.float32(pre_emphasis),
        remove_mean=remove_mean,
        squared=squared,
    )


def _places(n_points: int) -> NDArray[np.int64]:
    # Value 4 k + r comes out where value k of part r does
    if n_points <= 2:
        return np.arange(n_points)
    quarter = n_points // 4
    return (np.arange(4) * quarter + _places(quarter)[:, None]).reshape(-1)


@kernel()
def make_scratch(transform: Transform) -> Scratch:
    """Buffers for :func:`spectra`."""
    n_points = transform.places.size
    n_rows = (transform.hop + LANES - 1) // LANES * LANES
    return Scratch(
        transform.hop * np.arange(LANES),
        zeros(n_rows * _n_columns(transform) * LANES),
        zeros(2 * (n_points * LANES + _GAP)),
        empty((n_points + 1) * LANES),
    )


@kernel()
def _n_columns(transform: Transform) -> int:
    # groups of 16 hops that 16 frames reach into
    return 1 + ((transform.window.size - 1) // transform.hop + LANES - 1) // LANES


@kernel()
def spectra(samples: NDArray[np.float32], group: int, transform: Transform, scratch: Scratch) -> None:
    # Power or magnitude of the 16 frames of a group -> scratch.spectrum; groups come in order, from 0.
    # samples (sample): frame t begins at t * hop; the last group and the hops that it reaches into are whole.
    hop = transform.hop
    n_columns = _n_columns(transform)
    pitch = n_columns * LANES
    first_new = 0
    if group > 0:
        first_new = n_columns - 1
        for row in range(hop):
            for column in range(n_columns - 1):
                at = row * pitch + column * LANES
                store(scratch.hops, at, load(scratch.hops, at + LANES))
    for column in range(first_new, n_columns):
        first = (group + column) * LANES * hop
        transpose(samples[first:], scratch.starts, hop, scratch.hops[column * LANES :], pitch)
    n_points = transform.twiddles.shape[1]
    region = n_points * LANES + _GAP
    _weigh(scratch.hops, pitch, transform, scratch.points, region)
    _complex_transform(scratch.points, region, transform.twiddles)
    _real_spectrum(scratch.points, region, transform, scratch.spectrum)


@kernel()
def _weigh(
    hops: NDArray[np.float32], pitch: int, transform: Transform, points: NDArray[np.float32], region: int
) -> None:
    # Even samples become the real, odd ones the imaginary parts of a transform of half the size.
    hop, window = transform.hop, transform.window
    mean = splat(np.float32(0))
    if transform.remove_mean:
        for first in range(0, window.size, hop):
            for row in range(min(hop, window.size - first)):
                mean = mean + load(hops, row * pitch + first // hop)
        mean = mean * splat(np.float32(1 / window.size))
    emphasis = splat(transform.pre_emphasis)
    before = load(hops, 0) - mean
    for first in range(0, window.size, hop):
        for row in range(min(hop, window.size - first)):
            index, value = first + row, load(hops, row * pitch + first // hop) - mean
            weighted = (value - emphasis * before) * splat(window[index])
            store(points, (index & 1) * region + (index >> 1) * LANES, weighted)
            before = value
    zero = splat(np.float32(0))
    for index in range(window.size, 2 * transform.twiddles.shape[1]):
        store(points, (index & 1) * region + (index >> 1) * LANES, zero)


@kernel()
def _complex_transform(points: NDArray[np.float32], region: int, twiddles: NDArray[np.float32]) -> None:
    # In place, of radix 4, then 2 where a factor is left: a stage splits each transform of `size` points into four.
    # Value k comes out at places[k].
    n_points = twiddles.shape[1]
    size = n_points
    while size > 4:
        quarter, step = size // 4, n_points // size
        across = quarter * LANES
        for point in range(quarter):
            cos_1, sin_1 = splat(twiddles[0, point * step]), splat(twiddles[1, point * step])
            cos_2, sin_2 = splat(twiddles[0, 2 * point * step]), splat(twiddles[1, 2 * point * step])
            cos_3, sin_3 = splat(twiddles[0, 3 * point * step]), splat(twiddles[1, 3 * point * step])
            for first in range(point, n_points, size):
                at = first * LANES
                sum_ac, difference_ac, sum_bd, difference_bd = _sums_and_differences(points, at, across)
                at_i = at + region
                sum_ac_i, difference_ac_i, sum_bd_i, difference_bd_i = _sums_and_differences(points, at_i, across)
                store(points, at, sum_ac + sum_bd)
                store(points, at_i, sum_ac_i + sum_bd_i)
                real, imaginary = difference_ac + difference_bd_i, difference_ac_i - difference_bd
                store(points, at + across, cos_1 * real - sin_1 * imaginary)
                store(points, at_i + across, cos_1 * imaginary + sin_1 * real)
                real, imaginary = sum_ac - sum_bd, sum_ac_i - sum_bd_i
                store(points, at + 2 * across, cos_2 * real - sin_2 * imaginary)
                store(points, at_i + 2 * across, cos_2 * imaginary + sin_2 * real)
                real, imaginary = difference_ac - difference_bd_i, difference_ac_i + difference_bd
                store(points, at + 3 * across, cos_3 * real - sin_3 * imaginary)
                store(points, at_i + 3 * across, cos_3 * imaginary + sin_3 * real)
        size = quarter
    if size == 4:  # twiddles of 1
        for at in range(0, n_points * LANES, 4 * LANES):
            sum_ac, difference_ac, sum_bd, difference_bd = _sums_and_differences(points, at, LANES)
            at_i = at + region
            sum_ac_i, difference_ac_i, sum_bd_i, difference_bd_i = _sums_and_differences(points, at_i, LANES)
            store(points, at, sum_ac + sum_bd)
            store(points, at_i, sum_ac_i + sum_bd_i)
            store(points, at + LANES, difference_ac + difference_bd_i)
            store(points, at_i + LANES, difference_ac_i - difference_bd)
            store(points, at + 2 * LANES, sum_ac - sum_bd)
            store(points, at_i + 2 * LANES, sum_ac_i - sum_bd_i)
            store(points, at + 3 * LANES, difference_ac - difference_bd_i)
            store(points, at_i + 3 * LANES, difference_ac_i + difference_bd)
    else:
        for part in (0, region):
            for at in range(part, part + n_points * LANES, 2 * LANES):
                low, high = load(points, at), load(points, at + LANES)
                store(points, at, low + high)
                store(points, at + LANES, low - high)


@kernel()
def _sums_and_differences(points: NDArray[np.float32], at: int, across: int) -> tuple[Any, Any, Any, Any]:
    # Of the first and third, and of the second and fourth quarter
    a, b = load(points, at), load(points, at + across)
    c, d = load(points, at + 2 * across), load(points, at + 3 * across)
    return a + c, a - c, b + d, b - d


@kernel()
def _real_spectrum(
    points: NDArray[np.float32],  # (2, position, lane): Z
    region: int,
    transform: Transform,
    spectrum: NDArray[np.float32],  # (bin, lane)
) -> None:
    # X_k = (Z_k + conj Z_{n-k}) / 2 - i e^{-2 pi i k / 2n} (Z_k - conj Z_{n-k}) / 2 where n = n_fft / 2; X_{n-k} is the
    # conjugate of the same with a minus.
    twiddles, places = transform.half_twiddles, transform.places
    n_points = places.size
    half = splat(np.float32(0.5))
    first, first_i = load(points, 0), load(points, region)
    store(spectrum, 0, (first + first_i) * (first + first_i))
    store(spectrum, n_points * LANES, (first - first_i) * (first - first_i))
    for index in range(1, n_points // 2 + 1):
        low, high = places[index], places[n_points - index]
        cosine, sine = splat(twiddles[0, index]), splat(twiddles[1, index])
        a, b = half * load(points, low), half * load(points, high)
        c, d = half * load(points, region + low), half * load(points, region + high)
        x, y = cosine * (c + d) - sine * (b - a), cosine * (b - a) + sine * (c + d)
        real, imaginary = a + b + x, c - d + y
        store(spectrum, index * LANES, real * real + imaginary * imaginary)
        real, imaginary = a + b - x, c - d - y
        store(spectrum, (n_points - index) * LANES, real * real + imaginary * imaginary)
    if not transform.squared:
        for at in range(0, spectrum.size, LANES):
            store(spectrum, at, root(load(spectrum, at)))
