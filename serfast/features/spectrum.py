"""Mel-frequency cepstral coefficients: framing, real FFT, mel filters, logarithm and DCT in one pass.

The kernels hold ``LANES`` frames side by side: every array is (position, lane) and each inner loop runs over the lanes
of a position, so that a scalar algorithm per frame becomes vector instructions without shuffles.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from serfast.features.frames import analysis_window, n_frames
from serfast.features.options import FeatureOptions

__all__ = ["dct_matrix", "mel_filters", "mfcc"]

LANES = 16  # frames per pass: the two FFT buffers of 512 samples then fill 64 KiB

_SLANEY_HZ_PER_MEL = 200 / 3
_SLANEY_LOG_START_HZ = 1000.0
_SLANEY_LOG_STEP = np.log(6.4) / 27


class _Tables(NamedTuple):
    """What depends on the options only."""

    window: NDArray[np.float32]  # (n_fft)
    twiddles: NDArray[np.float32]  # (2, n_fft / 2): cos and -sin of 2 pi k / n_fft
    filters: NDArray[np.float32]  # (mel, bin)
    limits: NDArray[np.int64]  # (mel, 2): first bin of a filter and the bin behind its last
    dct: NDArray[np.float64]  # (coefficient, mel)


def mfcc(samples: NDArray[np.float32], options: FeatureOptions) -> NDArray[np.float32]:
    r"""Mel-frequency cepstral coefficients of every frame.

    .. math:: c_t = D \cdot 10 \log_{10} \max(F |X_t|^p, \epsilon)

    with the mel filters :math:`F`, the orthonormal DCT-II :math:`D` and the spectrum :math:`X_t` of the windowed frame.

    Args:
        samples: checked waveform (sample,) at the options' sample rate.
        options: the analysis; ``librosa.feature.mfcc`` gives the same for equal options.

    Returns:
        Coefficients (frame, coefficient), float32, C0 first.

    Source: Davis and Mermelstein (1980); filters after Slaney, Auditory Toolbox (1998), or Young et al., The HTK Book.
    """
    tables = _tables(options)
    count = n_frames(len(samples), options)
    margin = options.n_fft // 2 if options.center else 0
    padded = np.pad(samples, margin)
    buffers = np.empty((4, options.n_fft // 2 * LANES), dtype=np.float32)
    spectrum = np.empty((options.n_fft // 2 + 1, LANES), dtype=np.float32)
    log_mel = np.empty((options.n_mels, -(-count // LANES) * LANES), dtype=np.float32)
    _mel_energies(padded, options.hop, count, options.power == 2.0, *tables[:4], buffers, spectrum, log_mel)
    _to_decibel(log_mel.reshape(-1), np.float32(options.log_floor))
    if options.top_db is not None:
        np.maximum(log_mel, log_mel[:, :count].max() - np.float32(options.top_db), out=log_mel)
    coefficients = np.empty((count, options.n_mfcc), dtype=np.float32)
    _apply_dct(log_mel, tables.dct, np.empty(LANES), coefficients)
    return coefficients


def mel_filters(options: FeatureOptions) -> NDArray[np.float64]:
    """Triangular filters on the bins of the transform, shape (mel, bin)."""
    low, high = _hz_to_mel(np.array([options.mel_low_hz, options.mel_high_hz]), options.mel_scale)
    corners_hz = _mel_to_hz(np.linspace(low, high, options.n_mels + 2), options.mel_scale)
    bins_hz = np.arange(options.n_fft // 2 + 1) * options.sample_rate / options.n_fft
    rising = (bins_hz - corners_hz[:-2, None]) / np.diff(corners_hz)[:-1, None]
    falling = (corners_hz[2:, None] - bins_hz) / np.diff(corners_hz)[1:, None]
    filters: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling))
    if options.mel_norm == "slaney":
        filters *= 2 / (corners_hz[2:] - corners_hz[:-2])[:, None]
    return filters


def dct_matrix(n_coefficients: int, n_mels: int) -> NDArray[np.float64]:
    """The first rows of the orthonormal DCT-II, shape (coefficient, mel)."""
    order = np.arange(n_coefficients)[:, None]
    angles = np.pi * order * (2 * np.arange(n_mels) + 1) / (2 * n_mels)
    matrix: NDArray[np.float64] = np.cos(angles) * np.sqrt(2 / n_mels)
    matrix[0] /= np.sqrt(2)
    return matrix


def _hz_to_mel(frequency_hz: NDArray[np.float64], scale: str) -> NDArray[np.float64]:
    if scale == "htk":
        return 2595 * np.log10(1 + frequency_hz / 700)
    above = _SLANEY_LOG_START_HZ / _SLANEY_HZ_PER_MEL + (
        np.log(np.maximum(frequency_hz, _SLANEY_LOG_START_HZ) / _SLANEY_LOG_START_HZ) / _SLANEY_LOG_STEP
    )
    return np.where(frequency_hz < _SLANEY_LOG_START_HZ, frequency_hz / _SLANEY_HZ_PER_MEL, above)


def _mel_to_hz(mel: NDArray[np.float64], scale: str) -> NDArray[np.float64]:
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    log_start = _SLANEY_LOG_START_HZ / _SLANEY_HZ_PER_MEL
    above = _SLANEY_LOG_START_HZ * np.exp(_SLANEY_LOG_STEP * (mel - log_start))
    return np.where(mel < log_start, mel * _SLANEY_HZ_PER_MEL, above)


@lru_cache(maxsize=16)
def _tables(options: FeatureOptions) -> _Tables:
    filters = mel_filters(options)
    passed = filters > 0
    first = np.argmax(passed, axis=1)
    behind = np.where(passed.any(axis=1), filters.shape[1] - np.argmax(passed[:, ::-1], axis=1), first)
    angle = 2 * np.pi * np.arange(options.n_fft // 2) / options.n_fft
    return _Tables(
        window=analysis_window(options).astype(np.float32),
        twiddles=np.stack([np.cos(angle), -np.sin(angle)]).astype(np.float32),
        filters=filters.astype(np.float32),
        limits=np.stack([first, behind], axis=1).astype(np.int64),
        dct=dct_matrix(options.n_mfcc, options.n_mels),
    )


@njit(cache=True, nogil=True)
def _mel_energies(
    padded: NDArray[np.float32],  # (sample)
    hop: int,
    count: int,
    squared: bool,
    window: NDArray[np.float32],
    twiddles: NDArray[np.float32],
    filters: NDArray[np.float32],
    limits: NDArray[np.int64],
    buffers: NDArray[np.float32],  # (4, n_fft / 2 * lane)
    spectrum: NDArray[np.float32],  # (bin, lane)
    mel_energies: NDArray[np.float32],  # (mel, frame), frames rounded up to whole passes
) -> None:
    lanes = spectrum.shape[1]
    for first in range(0, count, lanes):
        for lane in range(lanes):
            start = min(first + lane, count - 1) * hop
            _load_frame(padded[start : start + window.size], window, buffers[0, lane:], buffers[1, lane:], lanes)
        in_front = _complex_fft(buffers, twiddles, lanes)
        _real_spectrum(buffers[in_front], buffers[in_front + 1], twiddles, squared, spectrum)
        for mel in range(filters.shape[0]):
            energy = mel_energies[mel, first : first + lanes]
            energy[:] = 0
            for index in range(limits[mel, 0], limits[mel, 1]):
                weight, values = filters[mel, index], spectrum[index]
                for lane in range(energy.size):
                    energy[lane] += weight * values[lane]


@njit(cache=True, nogil=True)
def _load_frame(
    frame: NDArray[np.float32],
    window: NDArray[np.float32],
    real: NDArray[np.float32],
    imaginary: NDArray[np.float32],
    lanes: int,
) -> None:
    # Even samples become the real, odd ones the imaginary parts of a transform of half the size.
    for index in range(window.size // 2):
        real[index * lanes] = frame[2 * index] * window[2 * index]
        imaginary[index * lanes] = frame[2 * index + 1] * window[2 * index + 1]


@njit(cache=True, nogil=True)
def _complex_fft(buffers: NDArray[np.float32], twiddles: NDArray[np.float32], lanes: int) -> int:
    # Stockham's self-sorting radix-2 transform of rows 0 and 1 (real, imaginary); returns the row where the result is.
    # A stage halves transforms of `size` points, of which `stride / lanes` are interleaved. Each loop writes one output
    # and the slices are made here: otherwise the compiler does not vectorise, or counts references to the slices.
    size, stride, source = buffers.shape[1] // lanes, lanes, 0
    while size > 1:
        half, target = size // 2, 2 - source
        step = 2 * (twiddles.shape[1] // size)
        for point in range(half):
            low, high, to = point * stride, (point + half) * stride, 2 * point * stride
            cosine, sine = twiddles[0, point * step], twiddles[1, point * step]
            low_real, high_real = buffers[source, low : low + stride], buffers[source, high : high + stride]
            low_imaginary = buffers[source + 1, low : low + stride]
            high_imaginary = buffers[source + 1, high : high + stride]
            real, imaginary = buffers[target, to : to + stride], buffers[target + 1, to : to + stride]
            for index in range(stride):
                real[index] = low_real[index] + high_real[index]
            for index in range(stride):
                imaginary[index] = low_imaginary[index] + high_imaginary[index]
            real = buffers[target, to + stride : to + 2 * stride]
            imaginary = buffers[target + 1, to + stride : to + 2 * stride]
            for index in range(stride):
                difference = low_imaginary[index] - high_imaginary[index]
                real[index] = cosine * (low_real[index] - high_real[index]) - sine * difference
            for index in range(stride):
                difference = low_real[index] - high_real[index]
                imaginary[index] = cosine * (low_imaginary[index] - high_imaginary[index]) + sine * difference
        size, stride, source = half, 2 * stride, target
    return source


@njit(cache=True, nogil=True)
def _real_spectrum(
    real: NDArray[np.float32],  # (n_fft / 2 * lane)
    imaginary: NDArray[np.float32],
    twiddles: NDArray[np.float32],
    squared: bool,
    spectrum: NDArray[np.float32],  # (bin, lane)
) -> None:
    # X_k = (Z_k + conj Z_{n-k}) / 2 - i e^{-2 pi i k / 2n} (Z_k - conj Z_{n-k}) / 2 where n = n_fft / 2.
    n_points, lanes = spectrum.shape[0] - 1, spectrum.shape[1]
    half = np.float32(0.5)
    for index in range(n_points + 1):
        low, high = index % n_points * lanes, (n_points - index) % n_points * lanes
        cosine = twiddles[0, index] if index < n_points else np.float32(-1)
        sine = twiddles[1, index] if index < n_points else np.float32(0)
        a, b = real[low : low + lanes], real[high : high + lanes]
        c, d = imaginary[low : low + lanes], imaginary[high : high + lanes]
        values = spectrum[index]
        for lane in range(lanes):
            even_real, even_imaginary = half * (a[lane] + b[lane]), half * (c[lane] - d[lane])
            odd_real, odd_imaginary = half * (c[lane] + d[lane]), half * (b[lane] - a[lane])
            x = even_real + cosine * odd_real - sine * odd_imaginary
            y = even_imaginary + cosine * odd_imaginary + sine * odd_real
            values[lane] = x * x + y * y
        if not squared:
            for lane in range(lanes):
                values[lane] = np.sqrt(values[lane])


@njit(cache=True, nogil=True)
def _to_decibel(values: NDArray[np.float32], floor: float) -> None:
    # 10 log10, in place: the exponent from the bits, the logarithm of the mantissa m in [0.707, 1.414) from
    # 2 artanh((m - 1) / (m + 1)), whose series is within 1e-9 after five terms.
    bits = values.view(np.int32)
    for index in range(values.size):
        values[index] = max(values[index], floor)
    for index in range(values.size):
        exponent = (bits[index] - np.int32(0x3F3504F3)) >> np.int32(23)
        bits[index] -= exponent << np.int32(23)
        z = (values[index] - np.float32(1)) / (values[index] + np.float32(1))
        square = z * z
        series = np.float32(1 / 9)
        series = series * square + np.float32(1 / 7)
        series = series * square + np.float32(1 / 5)
        series = series * square + np.float32(1 / 3)
        series = series * square + np.float32(1)
        logarithm = np.float32(2) * z * series + np.float32(exponent) * np.float32(np.log(2))
        values[index] = np.float32(10 / np.log(10)) * logarithm


@njit(cache=True, nogil=True)
def _apply_dct(
    log_mel: NDArray[np.float32],  # (mel, frame), frames rounded up to whole passes
    dct: NDArray[np.float64],  # (coefficient, mel)
    row: NDArray[np.float64],  # (lane): C0 of many bands is large, float32 sums would lose its last digits
    coefficients: NDArray[np.float32],  # (frame, coefficient)
) -> None:
    count, lanes = coefficients.shape[0], row.size
    for first in range(0, count, lanes):
        for order in range(dct.shape[0]):
            row[:] = 0
            for mel in range(dct.shape[1]):
                weight, values = dct[order, mel], log_mel[mel, first : first + lanes]
                for lane in range(values.size):
                    row[lane] += weight * values[lane]
            for lane in range(min(lanes, count - first)):
                coefficients[first + lane, order] = row[lane]
