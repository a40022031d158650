"""MFCC: known answers, and librosa and Kaldi as independent implementations."""

from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from serfast.features import FeatureOptions
from serfast.features.mel import dct_matrix, mel_filters
from serfast.features.spectrum import mfcc
from tests.features.voices import gliding_voice, steep_noise

FROZEN = np.load(Path(__file__).parent / "frozen" / "frozen.npz")

OPTIONS = {
    "paper": FeatureOptions(),
    "hann_htk": FeatureOptions(window="hann", mel_scale="htk", mel_norm=None),
    "magnitude": FeatureOptions(power=1.0, n_mels=64, n_mfcc=20, mel_low_hz=0.0),
    "not_centred": FeatureOptions(framing="whole_transforms"),
    "long_window": FeatureOptions(n_fft=2048, window_ms=64.0, hop_ms=12.5, n_mels=128, mel_high_hz=7600.0),
    "full_window": FeatureOptions(n_fft=256, window_ms=16.0, hop_ms=5.0, n_mels=23, n_mfcc=23),
    "top_db": FeatureOptions(top_db=40.0),
    "lifter": FeatureOptions(lifter=22, n_mfcc=20),
    "unscaled_dct": FeatureOptions(dct_norm=None, log_scale="natural"),
    "hop_of_half_a_pass": FeatureOptions(hop_ms=1.5, window_ms=30.0),
    "hop_longer_than_the_window": FeatureOptions(hop_ms=40.0),
    "odd_window": FeatureOptions(sample_rate=22050, n_fft=1024, mel_high_hz=11025.0),
}


def _librosa_mfcc(samples: NDArray[np.float32], options: FeatureOptions) -> NDArray[np.float32]:
    energies = librosa.feature.melspectrogram(
        y=samples,
        sr=options.sample_rate,
        n_fft=options.n_fft,
        win_length=options.n_window,
        hop_length=options.hop,
        window=options.window,
        center=options.framing == "centered",
        pad_mode="constant",
        power=options.power,
        n_mels=options.n_mels,
        fmin=options.mel_low_hz,
        fmax=options.mel_high_hz,
        htk=options.mel_scale == "htk",
        norm=options.mel_norm,
    )
    decibel = librosa.power_to_db(energies, amin=options.log_floor, top_db=options.top_db)
    natural = 10 / np.log(10) if options.log_scale == "natural" else 1
    return librosa.feature.mfcc(
        S=decibel / natural, n_mfcc=options.n_mfcc, norm=options.dct_norm, lifter=options.lifter
    ).T


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_mfcc_equals_librosa(options: FeatureOptions) -> None:
    samples = gliding_voice(options.sample_rate)
    np.testing.assert_allclose(mfcc(samples, options), _librosa_mfcc(samples, options), atol=1e-3, rtol=0)


def test_mfcc_equals_librosas_own_call() -> None:
    samples = gliding_voice(16000)
    expected = librosa.feature.mfcc(
        y=samples, sr=16000, n_mfcc=13, n_fft=512, win_length=400, hop_length=160, window="hamming", n_mels=40, fmin=20
    )
    np.testing.assert_allclose(mfcc(samples, FeatureOptions(top_db=80)), expected.T, atol=1e-3, rtol=0)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("n_samples", [512, 639, 640, 641, 1599, 1600, 1601, 2559, 2560, 2561, 5120])
def test_frames_are_counted_and_padded_as_librosa_does(n_samples: int, center: bool) -> None:
    samples = np.random.default_rng(n_samples).standard_normal(n_samples).astype(np.float32)
    options = FeatureOptions(framing="centered" if center else "whole_transforms")
    expected = _librosa_mfcc(samples, options)
    assert len(expected) == (1 + n_samples // 160 if center else 1 + (n_samples - 512) // 160)
    np.testing.assert_allclose(mfcc(samples, options), expected, atol=1e-3, rtol=0)


@pytest.mark.emodb
def test_mfcc_equals_librosa_on_speech(emodb_root: Path) -> None:
    for path in sorted((emodb_root / "wav").glob("*.wav"))[::50]:
        samples, sample_rate = soundfile.read(path, dtype="float32")
        options = FeatureOptions(sample_rate=sample_rate)
        np.testing.assert_allclose(mfcc(samples, options), _librosa_mfcc(samples, options), atol=1e-3, rtol=0)


@pytest.mark.parametrize("scale", ["slaney", "htk"])
@pytest.mark.parametrize("norm", ["slaney", None])
def test_filters_equal_librosa(scale: str, norm: str | None) -> None:
    options = FeatureOptions(mel_scale=scale, mel_norm=norm)
    expected = librosa.filters.mel(sr=16000, n_fft=512, n_mels=40, fmin=20, fmax=8000, htk=scale == "htk", norm=norm)
    np.testing.assert_allclose(mel_filters(options), expected, atol=1e-7)


def test_dct_is_orthonormal() -> None:
    matrix = dct_matrix(FeatureOptions(n_mfcc=40))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(40), atol=1e-12)


def test_silence_is_the_floor_in_every_band() -> None:
    coefficients = mfcc(np.zeros(1600, np.float32), FeatureOptions(log_floor=1e-10))
    np.testing.assert_allclose(coefficients[:, 0], -100 * np.sqrt(40), rtol=1e-5)
    np.testing.assert_allclose(coefficients[:, 1:], 0, atol=1e-3)


@pytest.mark.parametrize("tone_hz", [200.0, 1000.0, 3300.0, 7000.0])
def test_tone_is_loudest_in_the_bands_that_pass_it(tone_hz: float) -> None:
    options = FeatureOptions(n_mfcc=40, mel_norm=None)
    samples = np.sin(2 * np.pi * tone_hz * np.arange(16000) / 16000).astype(np.float32)
    decibel = mfcc(samples, options)[50] @ dct_matrix(options)
    passing = mel_filters(options)[:, round(tone_hz / 16000 * 512)]
    assert passing[np.argmax(decibel)] > 0


def test_twice_the_amplitude_adds_six_decibels_to_every_band() -> None:
    options = FeatureOptions(n_mfcc=40)
    samples = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    difference = (mfcc(2 * samples, options) - mfcc(samples, options)) @ dct_matrix(options)
    np.testing.assert_allclose(difference, 20 * np.log10(2), atol=1e-3)


def test_filters_straight_in_mel_need_corners_that_single_precision_tells_apart() -> None:
    options = FeatureOptions.kaldi(mel_low_hz=7999.9999)
    with pytest.raises(ValueError, match=r"mel_high_hz must lie further above mel_low_hz \(7999.9999\) for 23 mel"):
        mfcc(gliding_voice(), options)


def test_filters_of_slaneys_scale_may_be_straight_in_mel() -> None:
    options = FeatureOptions(mel_sides="mel", mel_norm=None, mel_low_hz=0.0, mel_high_hz=8000.0)
    passed = mel_filters(options).sum(axis=0)[6:230]  # between the first and the last centre
    np.testing.assert_allclose(passed, 1, atol=1e-12)  # neighbours fall and rise alike


KALDI = {
    "kaldi": (gliding_voice, FeatureOptions.kaldi()),
    "kaldi_mirrored": (gliding_voice, FeatureOptions.kaldi(framing="mirrored")),
    "kaldi_forty_bands": (gliding_voice, FeatureOptions.kaldi(n_mels=40, n_mfcc=40, mel_high_hz=7600.0)),
    "kaldi_many_bands": (gliding_voice, FeatureOptions.kaldi(n_mels=64, n_mfcc=40)),
    "kaldi_steep": (steep_noise, FeatureOptions.kaldi()),  # another order of rounding differs by 8e-3
}


@pytest.mark.parametrize("name", KALDI)
def test_mfcc_equals_kaldi(name: str) -> None:
    signal, options = KALDI[name]
    np.testing.assert_allclose(mfcc(signal(), options), FROZEN[name], atol=1e-4, rtol=0)


@pytest.mark.emodb
def test_mfcc_equals_kaldi_on_speech(emodb_root: Path) -> None:
    for name, frame, expected in zip(*(FROZEN[f"emodb_{part}"] for part in ("names", "frames", "kaldi")), strict=True):
        samples, _ = soundfile.read(emodb_root / "wav" / name, dtype="float32")
        coefficients = mfcc(samples, FeatureOptions.kaldi())[frame]
        np.testing.assert_allclose(coefficients, expected, atol=1e-4, rtol=0, err_msg=name)


@pytest.mark.parametrize("n_samples", [400, 401, 479, 480, 799, 800, 801])
def test_mirrored_frames_repeat_the_waveform_backwards(n_samples: int) -> None:
    samples = np.random.default_rng(n_samples).standard_normal(n_samples).astype(np.float32)
    mirrored = np.concatenate([samples[:120][::-1], samples, samples[::-1][:400]])
    whole = mfcc(mirrored, FeatureOptions(framing="whole_windows"))
    coefficients = mfcc(samples, FeatureOptions(framing="mirrored"))
    assert len(coefficients) == (n_samples + 80) // 160
    np.testing.assert_allclose(coefficients, whole[: len(coefficients)], atol=1e-4)


def test_pre_emphasis_and_mean_belong_to_the_window() -> None:
    samples = gliding_voice() + np.float32(0.1)
    options = FeatureOptions(framing="whole_windows", remove_mean=True, pre_emphasis=0.9, n_mfcc=40)
    window = samples[1600:2000].astype(np.float64)
    window -= window.mean()
    emphasised = window - 0.9 * np.concatenate([window[:1], window[:-1]])
    weight = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(400) / 400)
    power = np.abs(np.fft.rfft(emphasised * weight, 512)) ** 2
    decibel = 10 * np.log10(mel_filters(options) @ power)
    np.testing.assert_allclose(mfcc(samples, options)[10] @ dct_matrix(options), decibel, atol=1e-2)
