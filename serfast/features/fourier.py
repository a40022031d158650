"""Spectra of overlapping frames: hops transposed, windowed and transformed 16 frames at a time.

Buffers are flat and hold (position, lane). The frames of a waveform overlap, so its hops are transposed, each sample
once: sample ``q * hop + n`` of frame t is sample n of hop t + q, which lies q lanes behind sample n of hop t.

Bands that are 80 dB below the loudest hold the rounding of single precision, and two transforms that are both right
differ there. So sums are taken in the order of kaldi-native-fbank 1.23.0 (KISS FFT, as its x86-64 package is compiled),
and products are rounded by themselves: with Kaldi's options a frame has its spectrum to the last bit.

Source: Cooley and Tukey (1965), An algorithm for the machine calculation of complex Fourier series; Van Loan (1992),
Computational Frameworks for the FFT.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serfast.features.compilation import kernel
from serfast.features.lanes import LANES, empty, load, product, root, splat, store, zeros
from serfast.features.transposition import transpose

__all__ = ["Scratch", "Transform", "make_scratch", "make_transform", "spectra"]

_GAP = 3 * LANES  # between the parts of a buffer: the same row of two parts must not fall into the same cache set


class Transform(NamedTuple):
    """What the spectra depend on besides the samples."""

    window: NDArray[np.float32]  # (sample of a window), halved
    twiddles: NDArray[np.float32]  # (block of a stage behind the first, 6): cosines and sines of three angles
    half_twiddles: NDArray[np.float32]  # (n_fft / 4, 2): cosine and sine of -pi / 2 - 2 pi (k + 1) / n_fft
    places: NDArray[np.int64]  # (n_fft / 2): where the complex transform leaves its values, in samples of a buffer
    first_radix: int  # 2 or 4, of the first stage
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
    twiddles, places = _tables(n_fft // 2)
    angles = -np.pi / 2 - 2 * np.pi * np.arange(1, n_fft // 4 + 1) / n_fft
    return Transform(
        window=(window / 2).astype(np.float32),
        twiddles=twiddles,
        half_twiddles=np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32),
        places=places * LANES,
        first_radix=_first_radix(n_fft // 2),
        hop=hop,
        pre_emphasis=np.float32(pre_emphasis),
        remove_mean=remove_mean,
        squared=squared,
    )


def _first_radix(n_points: int) -> int:
    return 4 if n_points.bit_length() % 2 else 2


def _tables(n_points: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    # Twiddles of the stages behind the first, and where a transform in place leaves value k. A stage takes the points
    # of a block a quarter of the block apart: it makes values k, k + n, k + 2 n and k + 3 n from value k of four
    # transforms of n points.
    places, twiddles = np.zeros(1, dtype=np.int64), [np.empty((0, 6))]
    while len(places) < n_points:
        n_ready = len(places)
        if n_ready > 1:
            turns = np.argsort(places)[:, None] * np.arange(1, 4) / (4 * n_ready)
            twiddles.append(np.stack([np.cos(2 * np.pi * turns), -np.sin(2 * np.pi * turns)], axis=2).reshape(-1, 6))
        radix = 4 if n_ready > 1 else _first_radix(n_points)
        places = (places + n_points // (radix * n_ready) * np.arange(radix)[:, None]).reshape(-1)
    return np.concatenate(twiddles).astype(np.float32), places


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
    row_step = n_columns * LANES
    first_new = 0
    if group > 0:
        first_new = n_columns - 1
        for row in range(hop):
            for column in range(n_columns - 1):
                at = row * row_step + column * LANES
                store(scratch.hops, at, load(scratch.hops, at + LANES))
    for column in range(first_new, n_columns):
        first = (group + column) * LANES * hop
        transpose(samples[first:], scratch.starts, hop, scratch.hops[column * LANES :], row_step)
    region = transform.places.size * LANES + _GAP
    _weigh(scratch.hops, row_step, transform, scratch.points, region)
    _complex_transform(scratch.points, region, transform)
    _real_spectrum(scratch.points, region, transform, scratch.spectrum)


@kernel()
def _weigh(
    hops: NDArray[np.float32], row_step: int, transform: Transform, points: NDArray[np.float32], region: int
) -> None:
    # Even samples become the real, odd ones the imaginary parts of a transform of half the size.
    hop, window = transform.hop, transform.window
    mean = splat(np.float32(0))
    if transform.remove_mean:
        for first in range(0, window.size, hop):
            for row in range(min(hop, window.size - first)):
                mean = mean + load(hops, row * row_step + first // hop)
        mean = mean / splat(np.float32(window.size))
    emphasis = splat(transform.pre_emphasis)
    before = load(hops, 0) - mean
    for first in range(0, window.size, hop):
        for row in range(min(hop, window.size - first)):
            index, value = first + row, load(hops, row * row_step + first // hop) - mean
            emphasised = value - product(emphasis, before)
            store(points, (index & 1) * region + (index >> 1) * LANES, emphasised * splat(window[index]))
            before = value
    zero = splat(np.float32(0))
    for index in range(window.size, 2 * transform.places.size):
        store(points, (index & 1) * region + (index >> 1) * LANES, zero)


@kernel()
def _complex_transform(points: NDArray[np.float32], region: int, transform: Transform) -> None:
    # In place; value k comes out at places[k]. The order of the sums is Kaldi's: a - c + d is not a - (c - d).
    n_points, twiddles = transform.places.size, transform.twiddles
    if transform.first_radix == 4:
        _first_quarters(points, region, n_points // 4 * LANES)
    else:
        _first_halves(points, region, n_points // 2 * LANES)
    size = n_points // transform.first_radix
    first_row = 0
    while size > 1:
        across = size // 4 * LANES
        for block in range(n_points // size):
            row = first_row + block
            cos_1, sin_1 = splat(twiddles[row, 0]), splat(twiddles[row, 1])
            cos_2, sin_2 = splat(twiddles[row, 2]), splat(twiddles[row, 3])
            cos_3, sin_3 = splat(twiddles[row, 4]), splat(twiddles[row, 5])
            for at in range(block * size * LANES, block * size * LANES + across, LANES):
                at_i = at + region
                x, x_i = load(points, at + across), load(points, at_i + across)
                b, b_i = product(cos_1, x) - product(sin_1, x_i), product(cos_1, x_i) + product(sin_1, x)
                x, x_i = load(points, at + 2 * across), load(points, at_i + 2 * across)
                c_plus, c_minus = product(cos_2, x), product(sin_2, x_i)
                c_i = product(cos_2, x_i) + product(sin_2, x)
                x, x_i = load(points, at + 3 * across), load(points, at_i + 3 * across)
                d_plus, d_minus = product(cos_3, x), product(sin_3, x_i)
                d_i = product(cos_3, x_i) + product(sin_3, x)
                a, a_i = load(points, at), load(points, at_i)
                sum_ac, sum_bd = a + c_plus - c_minus, b - d_minus + d_plus
                store(points, at, sum_ac + sum_bd)
                store(points, at + 2 * across, sum_ac - sum_bd)
                difference_ac, difference_bd = a + c_minus - c_plus, b - d_plus + d_minus
                store(points, at + across, difference_ac + b_i - d_i)
                store(points, at + 3 * across, difference_ac + d_i - b_i)
                sum_ac, sum_bd = a_i + c_i, b_i + d_i
                store(points, at_i, sum_ac + sum_bd)
                store(points, at_i + 2 * across, sum_ac - sum_bd)
                difference_ac = a_i - c_i
                store(points, at_i + across, difference_ac - difference_bd)
                store(points, at_i + 3 * across, difference_ac + difference_bd)
        first_row += n_points // size
        size //= 4


@kernel()
def _first_quarters(points: NDArray[np.float32], region: int, across: int) -> None:
    # As every stage of radix 4, with twiddles of 1
    for at in range(0, across, LANES):
        at_i = at + region
        b, b_i = load(points, at + across), load(points, at_i + across)
        d, d_i = load(points, at + 3 * across), load(points, at_i + 3 * across)
        a, c = load(points, at), load(points, at + 2 * across)
        store(points, at, a + c + (b + d))
        store(points, at + across, a - c + b_i - d_i)
        store(points, at + 2 * across, a + c - (b + d))
        store(points, at + 3 * across, a - c + d_i - b_i)
        a, c = load(points, at_i), load(points, at_i + 2 * across)
        store(points, at_i, a + c + (b_i + d_i))
        store(points, at_i + across, a - c - (b - d))
        store(points, at_i + 2 * across, a + c - (b_i + d_i))
        store(points, at_i + 3 * across, a - c + (b - d))


@kernel()
def _first_halves(points: NDArray[np.float32], region: int, across: int) -> None:
    for part in (0, region):
        for at in range(part, part + across, LANES):
            a, b = load(points, at), load(points, at + across)
            store(points, at, a + b)
            store(points, at + across, a - b)


@kernel()
def _real_spectrum(
    points: NDArray[np.float32],  # (2, position, lane): Z of the halved window
    region: int,
    transform: Transform,
    spectrum: NDArray[np.float32],  # (bin, lane)
) -> None:
    # X_k = Z_k + conj Z_{n-k} - i e^{-2 pi i k / 2n} (Z_k - conj Z_{n-k}) where n = n_fft / 2; X_{n-k} is the conjugate
    # of the same with a minus.
    twiddles, places = transform.half_twiddles, transform.places
    n_points = places.size
    two = splat(np.float32(2))
    real, imaginary = two * load(points, 0), two * load(points, region)
    store(spectrum, 0, (real + imaginary) * (real + imaginary))
    store(spectrum, n_points * LANES, (real - imaginary) * (real - imaginary))
    for index in range(1, n_points // 2 + 1):
        low, high = places[index], places[n_points - index]
        cosine, sine = splat(twiddles[index - 1, 0]), splat(twiddles[index - 1, 1])
        a, b = load(points, low), load(points, high)
        c, d = load(points, region + low), load(points, region + high)
        x_plus, x_minus = product(a - b, cosine), product(c + d, sine)
        y = product(a - b, sine) + product(c + d, cosine)
        real, imaginary = a + b + x_plus - x_minus, c - d + y
        store(spectrum, index * LANES, real * real + imaginary * imaginary)
        real, imaginary = a + b + x_minus - x_plus, y - (c - d)
        store(spectrum, (n_points - index) * LANES, real * real + imaginary * imaginary)
    if not transform.squared:
        for at in range(0, spectrum.size, LANES):
            store(spectrum, at, root(load(spectrum, at)))
