"""All descriptors of an utterance, frame by frame."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from serfast.features.deltas import deltas
from serfast.features.descriptors import descriptors
from serfast.features.frames import prepare_waveform
from serfast.features.options import FeatureOptions
from serfast.features.pitch import log_f0, pitch_track
from serfast.features.spectrum import cepstra, log_mel_energies

__all__ = ["extract", "feature_names"]

_SINGLE = (
    "voiced",
    "log_energy",
    "zero_crossing_rate",
    "voicing_probability",
    "harmonics_to_noise",
    "jitter",
    "shimmer",
    "spectral_centroid",
    "spectral_flux",
)


def feature_names(options: FeatureOptions | None = None) -> tuple[str, ...]:
    """Name of each column of :func:`extract`: coefficients, log F0, their deltas, then the columns asked for."""
    options = options or FeatureOptions()
    static = (*(f"mfcc_{order}" for order in range(options.n_mfcc)), "log_f0")
    names = [*static, *(f"delta_{name}" for name in static)]
    if options.delta_deltas:
        names += [f"delta_delta_{name}" for name in static]
    names += [name for name in _SINGLE if getattr(options, name)]
    if options.log_mel:
        names += [f"log_mel_{band}" for band in range(options.n_mels)]
    if options.log_power:
        names += [f"log_power_{place}" for place in range(options.n_fft // 2 + 1)]
    return tuple(names)


def extract(waveform: ArrayLike, sample_rate: int, options: FeatureOptions | None = None) -> NDArray[np.float32]:
    """Low-level descriptors of every frame of an utterance.

    Args:
        waveform: mono samples (sample,), floats in [-1, 1], or int16, which is divided by 32768.
        sample_rate: samples per second of ``waveform``; resampled if ``options.sample_rate`` is another.
        options: the choices; the defaults of :class:`FeatureOptions`, the paper's, when None.

    Returns:
        Features (frame, feature), float32, finite, columns named by :func:`feature_names`. The same input gives the
        same bits.

    Raises:
        TypeError: if ``waveform`` holds neither floats nor int16.
        ValueError: if ``waveform`` is not one-dimensional, not finite or shorter than one analysis window, or if
            ``sample_rate`` is not positive.
    """
    options = options or FeatureOptions()
    samples = prepare_waveform(waveform, sample_rate, options)
    pitch = pitch_track(samples, options)
    log_mel = log_mel_energies(samples, options)
    static = np.empty((len(pitch.f0_hz), options.n_mfcc + 1), dtype=np.float32)
    cepstra(log_mel, options, static)
    static[:, -1] = log_f0(pitch.f0_hz, options)
    slopes = deltas(static, width=options.delta_width, edge=options.delta_edge)
    columns = [static, slopes]
    if options.delta_deltas:
        columns.append(deltas(slopes, width=options.delta_width, edge=options.delta_edge))
    return np.column_stack(columns + descriptors(samples, pitch, log_mel, options))
