"""All descriptors of an utterance, frame by frame."""

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from serfast.features.deltas import deltas
from serfast.features.frames import n_frames, padded_samples, prepare_waveform
from serfast.features.options import FeatureOptions
from serfast.features.pitch import log_f0, pitch_track
from serfast.features.spectrum import cepstra, log_mel_energies

__all__ = ["extract", "feature_names"]

_ENERGY_FLOOR = 1e-10


def feature_names(options: FeatureOptions | None = None) -> tuple[str, ...]:
    """Name of each column of :func:`extract`: coefficients, log F0, their deltas, then the columns asked for."""
    options = options or FeatureOptions()
    static = (*(f"mfcc_{order}" for order in range(options.n_mfcc)), "log_f0")
    further = tuple(name for name in ("voiced", "log_energy") if getattr(options, name))
    return (*static, *(f"delta_{name}" for name in static), *further)


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
    f0_hz = pitch_track(samples, options).f0_hz
    static = np.empty((len(f0_hz), options.n_mfcc + 1), dtype=np.float32)
    cepstra(log_mel_energies(samples, options), options, static)
    static[:, -1] = log_f0(f0_hz, options)
    columns = [static, deltas(static, width=options.delta_width, edge=options.delta_edge)]
    if options.voiced:
        columns.append((f0_hz > 0).astype(np.float32)[:, None])
    if options.log_energy:
        columns.append(_log_energy(samples, options)[:, None])
    return np.concatenate(columns, axis=1)


def _log_energy(samples: NDArray[np.float32], options: FeatureOptions) -> NDArray[np.float32]:
    """Natural logarithm of the mean square of each frame's window, which is not weighted; at least log(1e-10)."""
    energy = np.empty(n_frames(len(samples), options), dtype=np.float32)
    _mean_squares(padded_samples(samples, options, len(energy)), options.n_window, options.hop, energy)
    column: NDArray[np.float32] = np.log(np.maximum(energy, np.float32(_ENERGY_FLOOR)))
    return column


@njit(cache=True, nogil=True)
def _mean_squares(padded: NDArray[np.float32], window: int, hop: int, energy: NDArray[np.float32]) -> None:
    # padded (sample) -> energy (frame)
    for frame in range(energy.size):
        total = 0.0
        for value in padded[frame * hop : frame * hop + window]:
            total += np.float64(value) * np.float64(value)
        energy[frame] = total / window
