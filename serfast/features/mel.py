"""Mel filters and the cosine transform of cepstra."""

import numpy as np
from numpy.typing import NDArray

from serfast.features.options import FeatureOptions

__all__ = ["dct_matrix", "mel_filters"]

_SLANEY_HZ_PER_MEL = 200 / 3
_SLANEY_LOG_START_HZ = 1000.0
_SLANEY_LOG_STEP = np.log(6.4) / 27


def mel_filters(options: FeatureOptions) -> NDArray[np.float64]:
    """Triangular filters on the bins of the transform, shape (mel, bin).

    Source: Slaney, Auditory Toolbox (1998); Young et al., The HTK Book; Kaldi for sides straight in mel.
    """
    low, high = _hz_to_mel(np.array([options.mel_low_hz, options.mel_high_hz]), options.mel_scale)
    corners_mel = np.linspace(low, high, options.n_mels + 2)
    corners_hz = _mel_to_hz(corners_mel, options.mel_scale)
    bins_hz = np.arange(options.n_fft // 2 + 1) * options.sample_rate / options.n_fft
    corners: NDArray[np.floating]
    bins: NDArray[np.floating]
    if options.mel_sides == "hertz":
        corners, bins = corners_hz, bins_hz
    elif options.mel_scale == "htk":
        corners, bins = _kaldi_corners(options), _kaldi_mel(bins_hz)
    else:
        corners, bins = corners_mel, _hz_to_mel(bins_hz, options.mel_scale)
    rising = (bins - corners[:-2, None]) / np.diff(corners)[:-1, None]
    falling = (corners[2:, None] - bins) / np.diff(corners)[1:, None]
    filters: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling)).astype(np.float64)
    if options.mel_norm == "slaney":
        filters *= 2 / (corners_hz[2:] - corners_hz[:-2])[:, None]
    return filters


def dct_matrix(options: FeatureOptions) -> NDArray[np.float64]:
    """The first rows of the DCT-II, liftered, shape (coefficient, mel)."""
    order = np.arange(options.n_mfcc)[:, None]
    angles = np.pi * order * (2 * np.arange(options.n_mels) + 1) / (2 * options.n_mels)
    if options.dct_norm == "ortho":
        matrix: NDArray[np.float64] = np.cos(angles) * np.sqrt(2 / options.n_mels)
        matrix[0] /= np.sqrt(2)
    else:
        matrix = 2 * np.cos(angles)
    if options.lifter > 0:
        first = 1 if options.lifter_rule == "librosa" else 0
        matrix *= 1 + options.lifter / 2 * np.sin(np.pi * (order + first) / options.lifter)
    return matrix


def _hz_to_mel(frequency_hz: NDArray[np.float64], scale: str) -> NDArray[np.float64]:
    if scale == "htk":
        return 2595 * np.log10(1 + frequency_hz / 700)
    above = _SLANEY_LOG_START_HZ / _SLANEY_HZ_PER_MEL + (
        np.log(np.maximum(frequency_hz, _SLANEY_LOG_START_HZ) / _SLANEY_LOG_START_HZ) / _SLANEY_LOG_STEP
    )
    return np.where(frequency_hz < _SLANEY_LOG_START_HZ, frequency_hz / _SLANEY_HZ_PER_MEL, above)


def _kaldi_corners(options: FeatureOptions) -> NDArray[np.float32]:
    low, high = _kaldi_mel(np.array([options.mel_low_hz, options.mel_high_hz]))
    step = (high - low) / np.float32(options.n_mels + 1)
    corners: NDArray[np.float32] = low + np.arange(options.n_mels + 2, dtype=np.float32) * step
    if not (np.diff(corners) > 0).all():
        raise ValueError(
            f"mel_high_hz must lie further above mel_low_hz ({options.mel_low_hz}) for {options.n_mels} mel filters, "
            f"got {options.mel_high_hz}"
        )
    return corners


def _kaldi_mel(frequency_hz: NDArray[np.float64]) -> NDArray[np.float32]:
    # As _hz_to_mel, rounded where Kaldi rounds it: other small weights at the ends of filters would differ by 0.4 %.
    ratio = 1 + frequency_hz.astype(np.float32) / np.float32(700)
    mel: NDArray[np.float32] = np.float32(1127) * np.log(ratio.astype(np.float64)).astype(np.float32)
    return mel


def _mel_to_hz(mel: NDArray[np.float64], scale: str) -> NDArray[np.float64]:
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    log_start = _SLANEY_LOG_START_HZ / _SLANEY_HZ_PER_MEL
    above = _SLANEY_LOG_START_HZ * np.exp(_SLANEY_LOG_STEP * (mel - log_start))
    return np.where(mel < log_start, mel * _SLANEY_HZ_PER_MEL, above)
