"""Spectra, mel energies and mel-frequency cepstral coefficients, 16 frames at a time.

Arrays are (group, position, lane): lane l of group g is frame ``16 * g + l``; what lies behind the last frame is void.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from serfast.features.fourier import Scratch, Transform, make_scratch, make_transform, spectra
from serfast.features.frames import analysis_window, n_frames, padded_samples
from serfast.features.lanes import LANES, load, logarithm, maximum, splat, store
from serfast.features.mel import dct_matrix, mel_filters
from serfast.features.options import FeatureOptions

__all__ = ["by_frame", "cepstra", "log_mel_energies", "mfcc", "power_spectra"]

_DCT_ROWS = 4  # coefficients that are summed side by side


class _Tables(NamedTuple):
    """What depends on the options only."""

    transform: Transform
    filters: NDArray[np.float32]  # (mel, bin)
    limits: NDArray[np.int64]  # (mel, 2): first bin of a filter and the bin behind its last
    dct: NDArray[np.float32]  # (coefficient, mel), rows of zeros behind the last
    row_sums: NDArray[np.float32]  # (coefficient)


def mfcc(samples: NDArray[np.float32], options: FeatureOptions) -> NDArray[np.float32]:
    r"""Mel-frequency cepstral coefficients of every frame.

    .. math:: c_t = L D \cdot 10 \log_{10} \max(F |X_t|^p, \epsilon)

    with the mel filters :math:`F`, the DCT-II :math:`D`, the lifter :math:`L` and the spectrum :math:`X_t` of the
    windowed frame; a natural logarithm without the factor 10 where ``options.log_scale`` says so.

    Args:
        samples: checked waveform (sample,) at the options' sample rate.
        options: the analysis; ``librosa.feature.mfcc``, or Kaldi, gives the same for equal options.

    Returns:
        Coefficients (frame, coefficient), float32, C0 first.

    Source: Davis and Mermelstein (1980); Young et al., The HTK Book, chapter 5.
    """
    coefficients = np.empty((n_frames(len(samples), options), options.n_mfcc), dtype=np.float32)
    cepstra(log_mel_energies(samples, options), options, coefficients)
    return coefficients


def log_mel_energies(samples: NDArray[np.float32], options: FeatureOptions) -> NDArray[np.float32]:
    """Logarithm of the energy in every mel band, at least that of the floor, shape (group, mel, lane)."""
    tables = _tables(options)
    count = n_frames(len(samples), options)
    log_mel = np.empty((-(-count // LANES), options.n_mels, LANES), dtype=np.float32)
    padded = padded_samples(samples, options, count)
    scale = 10 / np.log(10) if options.log_scale == "decibel" else 1.0
    numbers = np.array([options.log_floor, scale], dtype=np.float32)
    scratch = make_scratch(tables.transform)
    _fill_log_mel(padded, tables.transform, scratch, tables.filters, tables.limits, numbers, log_mel.reshape(-1))
    if options.top_db is not None:
        floor = by_frame(log_mel, count).max() - np.float32(options.top_db / (10 / np.log(10)) * scale)
        np.maximum(log_mel, floor, out=log_mel)
    return log_mel


def power_spectra(samples: NDArray[np.float32], options: FeatureOptions) -> NDArray[np.float32]:
    """Squared magnitude of every bin whatever ``options.power`` says, shape (group, bin, lane)."""
    count = n_frames(len(samples), options)
    transform = _tables(options).transform._replace(squared=True)
    powers = np.empty((-(-count // LANES), options.n_fft // 2 + 1, LANES), dtype=np.float32)
    _fill_powers(padded_samples(samples, options, count), transform, make_scratch(transform), powers.reshape(-1))
    return powers


def cepstra(log_mel: NDArray[np.float32], options: FeatureOptions, features: NDArray[np.float32]) -> None:
    """Write the cosine transform of ``log_mel`` (group, mel, lane) to the first columns of ``features`` (frame, _)."""
    tables = _tables(options)
    tile = np.empty(_DCT_ROWS * LANES, dtype=np.float32)
    _apply_dct(log_mel.reshape(-1), tables.dct, tables.row_sums, tile, features[:, : options.n_mfcc])


def by_frame(grouped: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Bring (group, position, lane) to (frame, position), ``count`` frames."""
    frames: NDArray[np.float32] = grouped.transpose(0, 2, 1).reshape(-1, grouped.shape[1])[:count]
    return frames


@lru_cache(maxsize=16)
def _tables(options: FeatureOptions) -> _Tables:
    filters = mel_filters(options)
    passed = filters > 0
    first = np.argmax(passed, axis=1)
    behind = np.where(passed.any(axis=1), filters.shape[1] - np.argmax(passed[:, ::-1], axis=1), first)
    dct = np.zeros((-(-options.n_mfcc // _DCT_ROWS) * _DCT_ROWS, options.n_mels))
    dct[: options.n_mfcc] = dct_matrix(options)
    return _Tables(
        transform=make_transform(
            analysis_window(options),
            options.n_fft,
            options.hop,
            pre_emphasis=options.pre_emphasis,
            remove_mean=options.remove_mean,
            squared=options.power == 2.0,
        ),
        filters=filters.astype(np.float32),
        limits=np.stack([first, behind], axis=1).astype(np.int64),
        dct=dct.astype(np.float32),
        row_sums=dct.sum(axis=1).astype(np.float32),
    )


@njit(cache=True, nogil=True)
def _fill_log_mel(
    padded: NDArray[np.float32],  # (sample)
    transform: Transform,
    scratch: Scratch,
    filters: NDArray[np.float32],
    limits: NDArray[np.int64],
    numbers: NDArray[np.float32],  # floor of an energy, factor of the natural logarithm
    log_mel: NDArray[np.float32],  # (group, mel, lane)
) -> None:
    n_mels = limits.shape[0]
    floor, scale = splat(numbers[0]), splat(numbers[1])
    for group in range(log_mel.size // (n_mels * LANES)):
        spectra(padded, group, transform, scratch)
        for mel in range(n_mels):
            first, behind = limits[mel, 0], limits[mel, 1]
            weights = filters[mel, first:behind]
            energy, energy_odd = splat(np.float32(0)), splat(np.float32(0))
            for index in range(weights.size // 2):
                at = (first + 2 * index) * LANES
                energy = energy + splat(weights[2 * index]) * load(scratch.spectrum, at)
                energy_odd = energy_odd + splat(weights[2 * index + 1]) * load(scratch.spectrum, at + LANES)
            if weights.size & 1:
                energy = energy + splat(weights[weights.size - 1]) * load(scratch.spectrum, (behind - 1) * LANES)
            store(log_mel, (group * n_mels + mel) * LANES, scale * logarithm(maximum(energy + energy_odd, floor)))


@njit(cache=True, nogil=True)
def _fill_powers(
    padded: NDArray[np.float32], transform: Transform, scratch: Scratch, powers: NDArray[np.float32]
) -> None:
    # padded (sample) -> powers (group, bin, lane)
    for group in range(powers.size // scratch.spectrum.size):
        spectra(padded, group, transform, scratch)
        first = group * scratch.spectrum.size
        powers[first : first + scratch.spectrum.size] = scratch.spectrum


@njit(cache=True, nogil=True)
def _apply_dct(
    log_mel: NDArray[np.float32],  # (group, mel, lane)
    dct: NDArray[np.float32],  # (coefficient, mel), whole blocks of _DCT_ROWS rows
    row_sums: NDArray[np.float32],  # (coefficient)
    tile: NDArray[np.float32],  # (_DCT_ROWS, lane)
    coefficients: NDArray[np.float32],  # (frame, coefficient)
) -> None:
    # The first band is taken off before the sums and added behind them: C0 of many quiet bands is large, and would lose
    # its last digits.
    n_mels, (count, n_mfcc) = dct.shape[1], coefficients.shape
    for frame in range(0, count, LANES):
        values = log_mel[frame * n_mels : (frame + LANES) * n_mels]
        offset = load(values, 0)
        for order in range(0, n_mfcc, _DCT_ROWS):
            sum_0, sum_1 = offset * splat(row_sums[order]), offset * splat(row_sums[order + 1])
            sum_2, sum_3 = offset * splat(row_sums[order + 2]), offset * splat(row_sums[order + 3])
            for mel in range(n_mels):
                value = load(values, mel * LANES) - offset
                sum_0 = sum_0 + splat(dct[order, mel]) * value
                sum_1 = sum_1 + splat(dct[order + 1, mel]) * value
                sum_2 = sum_2 + splat(dct[order + 2, mel]) * value
                sum_3 = sum_3 + splat(dct[order + 3, mel]) * value
            store(tile, 0, sum_0)
            store(tile, LANES, sum_1)
            store(tile, 2 * LANES, sum_2)
            store(tile, 3 * LANES, sum_3)
            for row in range(min(_DCT_ROWS, n_mfcc - order)):
                for lane in range(min(LANES, count - frame)):
                    coefficients[frame + lane, order + row] = tile[row * LANES + lane]
