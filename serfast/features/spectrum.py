"""Spectra, mel energies and mel-frequency cepstral coefficients, 16 frames at a time.

Arrays are (group, position, lane): lane l of group g is frame ``16 * g + l``; what lies behind the last frame is void.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serfast.features.compilation import kernel
from serfast.features.fourier import Scratch, Transform, make_scratch, make_transform, spectra
from serfast.features.frames import Framing, analysis_window, make_framing, n_frames, padded_samples
from serfast.features.lanes import LANES, empty, largest, load, logarithm, maximum, splat, store
from serfast.features.mel import dct_matrix, mel_filters
from serfast.features.options import FeatureOptions

__all__ = [
    "SpectrumPlan",
    "by_frame",
    "log_mel_energies",
    "make_spectrum_plan",
    "mfcc",
    "power_spectra",
    "write_cepstra",
]

_DCT_ROWS = 4  # coefficients that are summed side by side
_DECIBEL = 10 / np.log(10)


class SpectrumPlan(NamedTuple):
    """What depends on the options only."""

    framing: Framing
    transform: Transform
    filters: NDArray[np.float32]  # (mel, bin)
    limits: NDArray[np.int64]  # (mel, 2): first bin of a filter and the bin behind its last
    floor: np.float32  # of an energy
    scale: np.float32  # factor of the natural logarithm
    range: np.float32  # from the loudest logarithm down to the least, infinite for none
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
    plan = make_spectrum_plan(options)
    count = n_frames(len(samples), options)
    coefficients = np.empty((count, options.n_mfcc), dtype=np.float32)
    write_cepstra(log_mel_energies(samples, count, plan), plan, coefficients)
    return coefficients


def power_spectra(samples: NDArray[np.float32], options: FeatureOptions) -> NDArray[np.float32]:
    """Squared magnitude of every bin whatever ``options.power`` says, shape (frame, bin)."""
    plan, count = make_spectrum_plan(options), n_frames(len(samples), options)
    transform = plan.transform._replace(squared=True)
    powers = np.empty((-(-count // LANES), options.n_fft // 2 + 1, LANES), dtype=np.float32)
    _fill_powers(padded_samples(samples, count, plan.framing), transform, make_scratch(transform), powers.reshape(-1))
    return by_frame(powers, count)


def by_frame(grouped: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Bring (group, position, lane) to (frame, position), ``count`` frames."""
    frames: NDArray[np.float32] = grouped.transpose(0, 2, 1).reshape(-1, grouped.shape[1])[:count]
    return frames


@lru_cache(maxsize=16)
def make_spectrum_plan(options: FeatureOptions) -> SpectrumPlan:
    """Tables of the analysis."""
    filters = mel_filters(options)
    passed = filters > 0
    first = np.argmax(passed, axis=1)
    behind = np.where(passed.any(axis=1), filters.shape[1] - np.argmax(passed[:, ::-1], axis=1), first)
    dct = np.zeros((-(-options.n_mfcc // _DCT_ROWS) * _DCT_ROWS, options.n_mels))
    dct[: options.n_mfcc] = dct_matrix(options)
    scale = _DECIBEL if options.log_scale == "decibel" else 1.0
    return SpectrumPlan(
        framing=make_framing(options),
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
        floor=np.float32(options.log_floor),
        scale=np.float32(scale),
        range=np.float32(np.inf if options.top_db is None else options.top_db / _DECIBEL * scale),
        dct=dct.astype(np.float32),
        row_sums=dct.sum(axis=1).astype(np.float32),
    )


@kernel()
def log_mel_energies(samples: NDArray[np.float32], count: int, plan: SpectrumPlan) -> NDArray[np.float32]:
    """Logarithm of the energy in every mel band, at least that of the floor, shape (group, mel, lane)."""
    n_groups, n_mels = (count + LANES - 1) // LANES, plan.limits.shape[0]
    log_mel: NDArray[np.float32] = empty(n_groups * n_mels * LANES)
    scratch = make_scratch(plan.transform)
    _fill_log_mel(padded_samples(samples, count, plan.framing), plan, scratch, log_mel)
    if plan.range < np.inf:
        _raise_to(log_mel, n_mels, count, plan.range)
    return log_mel.reshape(n_groups, n_mels, LANES)


@kernel()
def write_cepstra(log_mel: NDArray[np.float32], plan: SpectrumPlan, features: NDArray[np.float32]) -> None:
    """Write the cosine transform of ``log_mel`` (group, mel, lane) to the columns of ``features`` (frame, column)."""
    tile = empty(_DCT_ROWS * LANES)
    _apply_dct(log_mel.reshape(-1), plan.dct, plan.row_sums, tile, features)


@kernel()
def _raise_to(log_mel: NDArray[np.float32], n_mels: int, count: int, below: np.float32) -> None:
    # log_mel (group, mel, lane), in place: no value of the first `count` frames more than `below` under their loudest
    whole = count // LANES * n_mels * LANES
    loudest = np.float32(-np.inf)
    highest = splat(loudest)
    for at in range(0, whole, LANES):
        highest = maximum(highest, load(log_mel, at))
    for at in range(whole, log_mel.size, LANES):
        for lane in range(count % LANES):
            loudest = max(loudest, log_mel[at + lane])
    loudest = max(loudest, largest(highest))
    floor = splat(np.float32(loudest - below))
    for at in range(0, log_mel.size, LANES):
        store(log_mel, at, maximum(load(log_mel, at), floor))


@kernel()
def _fill_log_mel(
    padded: NDArray[np.float32],  # (sample)
    plan: SpectrumPlan,
    scratch: Scratch,
    log_mel: NDArray[np.float32],  # (group, mel, lane)
) -> None:
    limits, n_mels = plan.limits, plan.limits.shape[0]
    floor, scale = splat(plan.floor), splat(plan.scale)
    for group in range(log_mel.size // (n_mels * LANES)):
        spectra(padded, group, plan.transform, scratch)
        for mel in range(n_mels):
            first, behind = limits[mel, 0], limits[mel, 1]
            weights = plan.filters[mel, first:behind]
            energy, energy_odd = splat(np.float32(0)), splat(np.float32(0))
            for index in range(weights.size // 2):
                at = (first + 2 * index) * LANES
                energy = energy + splat(weights[2 * index]) * load(scratch.spectrum, at)
                energy_odd = energy_odd + splat(weights[2 * index + 1]) * load(scratch.spectrum, at + LANES)
            if weights.size & 1:
                energy = energy + splat(weights[weights.size - 1]) * load(scratch.spectrum, (behind - 1) * LANES)
            store(log_mel, (group * n_mels + mel) * LANES, scale * logarithm(maximum(energy + energy_odd, floor)))


@kernel()
def _fill_powers(
    padded: NDArray[np.float32], transform: Transform, scratch: Scratch, powers: NDArray[np.float32]
) -> None:
    # padded (sample) -> powers (group, bin, lane)
    for group in range(powers.size // scratch.spectrum.size):
        spectra(padded, group, transform, scratch)
        first = group * scratch.spectrum.size
        powers[first : first + scratch.spectrum.size] = scratch.spectrum


@kernel()
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
