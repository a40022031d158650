"""All descriptors of an utterance, frame by frame."""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from serfast.features.compilation import kernel
from serfast.features.deltas import write_deltas
from serfast.features.descriptors import descriptors
from serfast.features.frames import n_frames, prepare_waveform
from serfast.features.options import DEFAULT_OPTIONS, FeatureOptions
from serfast.features.pitch import PitchPlan, PitchTrack, log_f0, make_pitch_plan, pitch_track
from serfast.features.spectrum import SpectrumPlan, log_mel_energies, make_spectrum_plan, write_cepstra

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
    options = options or DEFAULT_OPTIONS
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
    options = options or DEFAULT_OPTIONS
    samples = prepare_waveform(waveform, sample_rate, options)
    count = n_frames(len(samples), options)
    _check_slopes(count, options)
    plan = _plan(options)
    features = np.empty((count, (2 + options.delta_deltas) * (options.n_mfcc + 1)), dtype=np.float32)
    pitch, log_mel = _analyse(samples, plan, features)
    further = descriptors(samples, pitch, log_mel, options)
    return np.column_stack([features, *further]) if further else features


class _Plan(NamedTuple):
    n_static: int
    spectrum: SpectrumPlan
    pitch: PitchPlan
    interpolate_f0: bool
    log_f0_without_voice: float
    half_delta: int
    interpolate_deltas: bool


@lru_cache(maxsize=16)
def _plan(options: FeatureOptions) -> _Plan:
    return _Plan(
        n_static=options.n_mfcc + 1,
        spectrum=make_spectrum_plan(options),
        pitch=make_pitch_plan(options),
        interpolate_f0=options.unvoiced == "interpolate",
        log_f0_without_voice=0.5 * (math.log(options.pitch_low_hz) + math.log(options.pitch_high_hz)),
        half_delta=options.delta_width // 2,
        interpolate_deltas=options.delta_edge == "interp",
    )


def _check_slopes(count: int, options: FeatureOptions) -> None:
    if options.delta_edge == "interp" and count < options.delta_width:
        raise ValueError(
            f"waveform must have at least {options.delta_width} frames for interpolated edges, got {count}"
        )


@kernel()
def _analyse(
    samples: NDArray[np.float32], plan: _Plan, features: NDArray[np.float32]
) -> tuple[PitchTrack, NDArray[np.float32]]:
    # One call from samples to features (frame, static + slopes ...): threads then seldom wait for the interpreter.
    count, n_static = features.shape[0], plan.n_static
    pitch = pitch_track(samples, count, plan.pitch)
    log_mel = log_mel_energies(samples, count, plan.spectrum)
    block, slopes = np.empty((count, n_static), dtype=np.float32), np.empty((count, n_static), dtype=np.float32)
    write_cepstra(log_mel, plan.spectrum, block[:, : n_static - 1])
    log_f0(pitch.f0_hz, plan.interpolate_f0, plan.log_f0_without_voice, block[:, n_static - 1])
    features[:, :n_static] = block
    for first in range(n_static, features.shape[1], n_static):
        write_deltas(block, plan.half_delta, plan.interpolate_deltas, slopes)
        features[:, first : first + n_static] = slopes
        block, slopes = slopes, block
    return pitch, log_mel
