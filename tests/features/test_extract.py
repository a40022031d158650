"""The descriptors together: names, columns, input formats, refusals."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

import serfast
from serfast.features import FeatureOptions, extract, feature_names, frame_times_s, track_pitch
from serfast.features.deltas import deltas
from serfast.features.options import _COLUMNS
from serfast.features.spectrum import mfcc

RATE = 16000


def _voice_like(n_samples: int = RATE) -> NDArray[np.float32]:
    phase = 2 * np.pi * np.cumsum(np.geomspace(120, 240, n_samples)) / RATE
    waveform = sum(np.sin(order * phase) / order for order in range(1, 20))
    waveform = waveform + 0.01 * np.random.default_rng(0).standard_normal(n_samples)
    return (0.1 * waveform * (np.arange(n_samples) < 0.7 * n_samples)).astype(np.float32)


def test_the_paper_has_28_columns() -> None:
    names = feature_names()
    assert len(names) == 28
    assert names[:2] == ("mfcc_0", "mfcc_1")
    assert names[13:15] == ("log_f0", "delta_mfcc_0")
    assert names[27] == "delta_log_f0"


def test_further_columns_come_last() -> None:
    assert feature_names(FeatureOptions(voiced=True, log_energy=True))[28:] == ("voiced", "log_energy")


def test_columns_hold_what_their_names_say() -> None:
    options = FeatureOptions(voiced=True, log_energy=True)
    waveform = _voice_like()
    features = extract(waveform, RATE, options)
    column = dict(zip(feature_names(options), features.T, strict=True))
    pitch = track_pitch(waveform, RATE, options)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features[:, :13], mfcc(waveform, options))
    np.testing.assert_allclose(column["log_f0"][pitch.voiced], np.log(pitch.f0_hz[pitch.voiced]), rtol=1e-6)
    np.testing.assert_array_equal(features[:, 14:28], deltas(features[:, :14]))
    np.testing.assert_array_equal(column["voiced"], pitch.voiced)
    window = waveform[50 * 160 - 200 : 50 * 160 + 200].astype(np.float64)
    assert column["log_energy"][50] == pytest.approx(np.log(np.mean(window**2)), rel=1e-5)


def test_energy_without_centring_is_that_of_the_window() -> None:
    waveform = _voice_like()
    features = extract(waveform, RATE, FeatureOptions(framing="whole_transforms", log_energy=True))
    window = waveform[30 * 160 + 56 : 30 * 160 + 456].astype(np.float64)
    assert features[30, -1] == pytest.approx(np.log(np.mean(window**2)), rel=1e-5)


def test_the_same_input_gives_the_same_bits() -> None:
    waveform = _voice_like()
    assert extract(waveform, RATE).tobytes() == extract(waveform.copy(), RATE).tobytes()


def test_threads_do_not_disturb_each_other() -> None:
    waveforms = [_voice_like(8000 + 160 * number) for number in range(16)]
    expected = [extract(waveform, RATE).tobytes() for waveform in waveforms]
    with ThreadPoolExecutor(4) as pool:
        assert [
            features.tobytes() for features in pool.map(lambda waveform: extract(waveform, RATE), waveforms)
        ] == expected


def test_the_waveform_is_left_alone() -> None:
    waveform = _voice_like()
    before = waveform.copy()
    extract(waveform, RATE)
    np.testing.assert_array_equal(waveform, before)


def test_sample_formats_agree() -> None:
    pcm = (_voice_like() * 32767).astype(np.int16)
    np.testing.assert_array_equal(extract(pcm.astype(">i2"), RATE), extract(pcm, RATE))
    expected = extract(pcm.astype(np.float32) / 32768, RATE)
    np.testing.assert_array_equal(extract(pcm, RATE), expected)
    np.testing.assert_array_equal(extract(pcm.astype(np.float64) / 32768, RATE), expected)
    np.testing.assert_array_equal(extract(list(pcm / 32768), RATE), expected)
    np.testing.assert_array_equal(extract(np.repeat(pcm, 2)[::2], RATE), expected)


def test_another_sample_rate_is_resampled() -> None:
    pytest.importorskip("soxr")
    time_s = np.arange(48000) / 48000
    waveform = 0.1 * sum(np.sin(2 * np.pi * 150 * order * time_s) / order for order in range(1, 20))
    expected = extract(waveform[::3], RATE)  # harmonics end below 3 kHz: nothing to fold
    features = extract(waveform, 48000)
    assert features.shape == expected.shape == (101, 28)
    np.testing.assert_allclose(features[5:-5, 13], np.log(150), atol=1e-3)
    np.testing.assert_allclose(features[5:-5, 0], expected[5:-5, 0], rtol=0.05)


def test_silence_is_finite_and_unvoiced() -> None:
    options = FeatureOptions(voiced=True, log_energy=True)
    features = extract(np.zeros(RATE, np.float32), RATE, options)
    assert np.isfinite(features).all()
    assert not features[:, 28].any()
    np.testing.assert_allclose(features[:, 13], np.log(np.sqrt(60 * 500)), rtol=1e-6)
    np.testing.assert_allclose(features[:, 29], np.log(1e-10), rtol=1e-6)
    np.testing.assert_allclose(features[:, 14:28], 0, atol=1e-5)


@pytest.mark.parametrize("n_samples", [400, 401, 479, 480, 481, 16000])
def test_every_column_has_one_row_per_frame(n_samples: int) -> None:
    options = FeatureOptions(voiced=True, log_energy=True)
    features = extract(_voice_like()[:n_samples], RATE, options)
    assert features.shape == (1 + n_samples // 160, 30)
    times_s = track_pitch(_voice_like()[:n_samples], RATE).times_s
    np.testing.assert_array_equal(times_s, frame_times_s(len(features), options))
    np.testing.assert_allclose(times_s, 0.01 * np.arange(len(features)))


@settings(deadline=None)
@given(arrays(np.float32, st.integers(400, 900), elements=st.floats(-(2.0**39), 2.0**39, width=32)))
def test_any_finite_waveform_gives_finite_features(waveform: NDArray[np.float32]) -> None:
    features = extract(waveform, RATE, FeatureOptions(voiced=True, log_energy=True))
    assert features.shape == (1 + len(waveform) // 160, 30)
    assert np.isfinite(features).all()


@settings(deadline=None)  # the first example loads the kernels
@given(
    kind=st.sampled_from(["silence", "offset", "clipped", "impulse", "square", "quiet", "noise"]),
    sample_rate=st.sampled_from([8000, 11025, 16000, 22050, 44100, 48000, 96000, 192000]),
    duration_s=st.floats(0.03, 0.5),
    as_int16=st.booleans(),
)
def test_any_recording_gives_finite_features(kind: str, sample_rate: int, duration_s: float, as_int16: bool) -> None:
    count = int(duration_s * sample_rate)
    noise = np.random.default_rng(count).standard_normal(count)
    waveform = {
        "silence": np.zeros(count),
        "offset": np.full(count, 0.7),
        "clipped": np.clip(100 * noise, -1, 1),
        "impulse": np.eye(1, count, count // 2)[0],
        "square": np.sign(np.sin(np.arange(count) / 10)),
        "quiet": 1e-5 * noise,
        "noise": 0.2 * noise,
    }[kind]
    samples = (waveform * 32767).astype(np.int16) if as_int16 else waveform.astype(np.float32)
    features = extract(samples, sample_rate, FeatureOptions(**dict.fromkeys(_COLUMNS, True)))
    assert np.isfinite(features).all()


@pytest.mark.parametrize("n_samples", [1, 160])
def test_less_than_a_window_is_refused(n_samples: int) -> None:
    with pytest.raises(ValueError, match=f"must hold at least one analysis window .400 samples.*, got {n_samples}"):
        extract(np.ones(n_samples), RATE)


def test_an_hour_is_analysed() -> None:
    waveform = np.tile(_voice_like(), 3600)
    features = extract(waveform, RATE)
    assert features.shape == (360001, 28)
    assert np.isfinite(features).all()
    np.testing.assert_allclose(features[200_100:200_200, :13], features[100:200, :13], atol=1e-3)


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (np.zeros((2, 16000)), r"waveform must have shape \(sample,\), one channel, got shape \(2, 16000\)"),
        (np.float32(0), r"waveform must have shape \(sample,\), one channel, got shape \(\)"),
        ([], r"waveform must hold at least one analysis window \(400 samples at 16000 Hz\), got 0"),
        (np.zeros(123), r"waveform must hold at least one analysis window \(400 samples at 16000 Hz\), got 123"),
        (np.where(np.arange(800) == 7, np.nan, 0), "waveform must be finite and .*, got nan at sample 7"),
        (np.where(np.arange(800) == 9, -np.inf, 0), "waveform must be finite and .*, got -inf at sample 9"),
        (np.full(800, 1e300), "waveform must be finite and at most 1e.12 in magnitude, got inf at sample 0"),
    ],
)
def test_waveform_that_cannot_be_analysed_is_refused(waveform: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        extract(waveform, RATE)  # type: ignore[arg-type]


def test_short_waveform_of_another_rate_is_refused_in_its_own_samples() -> None:
    with pytest.raises(ValueError, match=r"analysis window \(1200 samples at 48000 Hz\), got 1199"):
        extract(np.zeros(1199), 48000)


def test_without_centring_a_whole_transform_is_needed() -> None:
    with pytest.raises(ValueError, match=r"analysis window \(512 samples at 16000 Hz\), got 511"):
        extract(np.zeros(511), RATE, FeatureOptions(framing="whole_transforms"))


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.complex64, bool])
def test_other_sample_types_are_refused(dtype: type) -> None:
    with pytest.raises(TypeError, match=f"waveform must hold floats or int16, got {np.dtype(dtype)}"):
        extract(np.zeros(800, dtype), RATE)


@pytest.mark.parametrize("sample_rate", [0, -16000])
def test_sample_rate_must_be_positive(sample_rate: int) -> None:
    with pytest.raises(ValueError, match=f"sample_rate must be positive, got {sample_rate}"):
        extract(np.zeros(800), sample_rate)


def test_importing_features_neither_needs_torch_nor_changes_the_environment() -> None:
    code = (
        "import os, sys; before = dict(os.environ); import serfast.features;"
        "assert 'torch' not in sys.modules; assert 'soxr' not in sys.modules; assert dict(os.environ) == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_compiling_is_said_once_and_what_was_compiled_is_kept(tmp_path: Path) -> None:
    code = (
        "import numpy, serfast.features.deltas as deltas;"
        "deltas.deltas(numpy.ones((9, 2), 'f4')); deltas.deltas(numpy.ones((9, 2), 'f4'), width=3)"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    said = [
        subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True, text=True).stderr
        for _ in range(2)
    ]
    assert said == ["serfast: compiling feature kernels, once for this machine ...\n", ""]


def test_kernels_are_kept_in_the_users_folder_where_the_package_cannot_be_written(tmp_path: Path) -> None:
    package = tmp_path / "site" / "serfast"
    shutil.copytree(Path(serfast.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "features" / "__pycache__").touch()  # a file: nothing can be written into it
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment |= {"PYTHONPATH": str(tmp_path / "site"), "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    code = (
        "import numpy, serfast.features.deltas as deltas;"
        "deltas.deltas(numpy.ones((9, 2), 'f4')); print(deltas.__file__)"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True, text=True)
    assert found.stdout.strip() == str(package / "features" / "deltas.py")
    assert list((tmp_path / "numba").glob("*/deltas.*.nbi"))
