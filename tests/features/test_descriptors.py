"""Further descriptors: formulas, librosa, and Praat's frozen answers."""

from pathlib import Path

import librosa
import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from serfast.features import FeatureOptions, extract, feature_names, track_pitch
from serfast.features.deltas import deltas
from serfast.features.options import _COLUMNS
from tests.features.voices import PERTURBATIONS, RATE, gliding_voice, pulsed_voice

OPTIONS = FeatureOptions(**dict.fromkeys(_COLUMNS, True))
FROZEN = np.load(Path(__file__).parent / "frozen" / "frozen.npz")


def _columns(waveform: NDArray[np.float32], options: FeatureOptions = OPTIONS) -> dict[str, NDArray[np.float32]]:
    return dict(zip(feature_names(options), extract(waveform, RATE, options).T, strict=True))


def _spectra(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.abs(librosa.stft(waveform, n_fft=512, win_length=400, hop_length=160, window="hamming"))


def test_every_column_is_finite_and_named() -> None:
    for waveform in (gliding_voice(), np.zeros(RATE, np.float32), np.full(400, 0.5, np.float32)):
        columns = _columns(waveform)
        assert len(columns) == 42 + 9 + 40 + 257
        assert all(np.isfinite(column).all() for column in columns.values())


def test_each_option_adds_its_columns_and_changes_no_other() -> None:
    everything = _columns(gliding_voice())
    for name in _COLUMNS:
        alone = _columns(gliding_voice(), FeatureOptions(**{name: True}))
        assert len(alone) > 28
        for column, values in alone.items():
            np.testing.assert_array_equal(values, everything[column])


def test_delta_deltas_are_deltas_of_deltas() -> None:
    features = extract(gliding_voice(), RATE, FeatureOptions(delta_deltas=True))
    np.testing.assert_array_equal(features[:, 28:42], deltas(features[:, 14:28]))


def test_zero_crossing_rate_equals_librosa() -> None:
    waveform = np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    expected = librosa.feature.zero_crossing_rate(np.pad(waveform, 200), frame_length=400, hop_length=160, center=False)
    rate = _columns(waveform)["zero_crossing_rate"]
    np.testing.assert_allclose(rate[2:-2], expected[0][2 : len(rate) - 2] * 400 / 399, rtol=1e-5)


def test_spectral_centroid_equals_librosa() -> None:
    waveform = gliding_voice()[: RATE // 2]
    expected = librosa.feature.spectral_centroid(S=_spectra(waveform), sr=RATE, n_fft=512)[0]
    np.testing.assert_allclose(_columns(waveform)["spectral_centroid"], expected, rtol=1e-4)


def test_number_of_threads_changes_no_bit() -> None:
    waveform = np.random.default_rng(0).standard_normal(18 * RATE).astype(np.float32)
    columns = {}
    for n_threads in (1, 2):
        with threadpool_limits(n_threads):
            columns[n_threads] = _columns(waveform)
    for name, column in columns[1].items():
        np.testing.assert_array_equal(columns[2][name], column, err_msg=name)


def test_spectral_flux_is_the_distance_of_scaled_magnitudes() -> None:
    waveform = gliding_voice()[: RATE // 2]
    shares = _spectra(waveform) / _spectra(waveform).sum(axis=0)
    expected = np.linalg.norm(np.diff(shares, axis=1), axis=0)
    flux = _columns(waveform)["spectral_flux"]
    assert flux[0] == 0
    np.testing.assert_allclose(flux[1:], expected, atol=1e-5)


def test_log_spectra_equal_librosa() -> None:
    waveform = gliding_voice()
    features = extract(waveform, RATE, FeatureOptions(log_mel=True, log_power=True))
    power = _spectra(waveform) ** 2
    mel = librosa.filters.mel(sr=RATE, n_fft=512, n_mels=40, fmin=20, fmax=8000) @ power
    for columns, expected in ((features[:, 28:68], mel), (features[:, 68:], power)):
        loud = expected.T > 1e-7  # single bins below hold little but rounding
        np.testing.assert_allclose(columns[loud], 10 * np.log10(expected.T[loud]), atol=1e-2)
        assert columns.min() == pytest.approx(-100)


@pytest.mark.parametrize("snr_db", [5, 10, 20, 30])
def test_harmonics_to_noise_is_the_ratio_that_was_mixed(snr_db: int) -> None:
    phase = 2 * np.pi * np.cumsum(np.full(2 * RATE, 120.3)) / RATE
    voice = sum(np.cos(order * phase + order**2) / np.sqrt(order) for order in range(1, 40))
    noise = np.random.default_rng(0).standard_normal(len(voice)) * voice.std() * 10 ** (-snr_db / 20)
    column = _columns((0.05 * (voice + noise)).astype(np.float32))["harmonics_to_noise"]
    assert column[10:-10].mean() == pytest.approx(snr_db, abs=0.3)


def test_harmonics_to_noise_is_least_where_unvoiced() -> None:
    columns = _columns(gliding_voice())
    assert (columns["harmonics_to_noise"][columns["voiced"] == 0] == -20).all()


@pytest.mark.parametrize("number", [0, 1])
def test_jitter_and_shimmer_are_near_praats(number: int) -> None:
    columns = _columns(pulsed_voice(*PERTURBATIONS[number]))
    jitter, shimmer = FROZEN["praat_jitter_shimmer"][number]
    inside = slice(10, -10)
    assert columns["jitter"][inside].mean() == pytest.approx(jitter, rel=0.15)
    assert columns["shimmer"][inside].mean() == pytest.approx(shimmer, rel=0.15)


def test_a_regular_voice_has_neither_jitter_nor_shimmer() -> None:
    columns = _columns(pulsed_voice(0, 0))
    assert columns["jitter"].max() < 0.003
    assert columns["shimmer"][10:-10].max() < 0.01


def test_voicing_probability_agrees_with_the_decision() -> None:
    columns = _columns(gliding_voice())
    probability, voiced = columns["voicing_probability"], columns["voiced"] > 0
    assert 0 <= probability.min() <= probability.max() <= 1
    assert probability[voiced].mean() > 0.9
    assert probability[~voiced].mean() < 0.2
    np.testing.assert_array_equal(voiced, track_pitch(gliding_voice(), RATE).voiced)
