"""Options: validation, JSON round trip and digest."""

import json

import numpy as np
import pytest

from serfast.features import FeatureOptions
from serfast.features.options import _COLUMNS


def test_options_survive_json() -> None:
    options = FeatureOptions(mel_norm=None, top_db=80.0, voiced=True, hop_ms=12.5)
    assert FeatureOptions.from_dict(json.loads(json.dumps(options.to_dict()))) == options


def test_options_left_out_keep_their_defaults() -> None:
    assert FeatureOptions.from_dict({"n_mels": 64}) == FeatureOptions(n_mels=64)


def test_unknown_option_is_named() -> None:
    with pytest.raises(ValueError, match=r"options must only name sample_rate, .*, got 'n_mel'"):
        FeatureOptions.from_dict({"n_mel": 64})


def test_default_digest_is_frozen() -> None:
    # It changes only with FEATURES_VERSION or a new option: stores made before are then extracted again.
    assert FeatureOptions().digest() == "1a814bbb3ae1b98b592ac5bed2470208a42f83b2a74ac51aec7a758e101aa7a8"


def test_equal_options_digest_equally() -> None:
    assert FeatureOptions(window_ms=25).digest() == FeatureOptions(window_ms=25.0).digest()
    assert FeatureOptions(n_fft=np.int64(512)).digest() == FeatureOptions().digest()


def test_every_option_counts_in_the_digest() -> None:
    changed = {
        "sample_rate": 22050,
        "window_ms": 20.0,
        "hop_ms": 8.0,
        "window": "hann",
        "n_fft": 2048,
        "framing": "mirrored",
        "remove_mean": True,
        "pre_emphasis": 0.97,
        "n_mels": 41,
        "mel_low_hz": 0.0,
        "mel_high_hz": 7600.0,
        "mel_scale": "htk",
        "mel_sides": "mel",
        "mel_norm": None,
        "power": 1.0,
        "log_floor": 1e-8,
        "log_scale": "natural",
        "top_db": 80.0,
        "n_mfcc": 12,
        "dct_norm": None,
        "lifter": 22.0,
        "lifter_rule": "htk",
        "delta_width": 9,
        "delta_edge": "interp",
        "pitch_low_hz": 75.0,
        "pitch_high_hz": 600.0,
        "unvoiced": "zero",
        **dict.fromkeys(_COLUMNS, True),
    }
    assert changed.keys() == FeatureOptions().to_dict().keys()
    digests = {FeatureOptions(**{"n_fft": 1024, name: value}).digest() for name, value in changed.items()}
    assert len(digests) == len(changed)


def test_window_and_hop_count_samples() -> None:
    assert (FeatureOptions().n_window, FeatureOptions().hop) == (400, 160)
    assert FeatureOptions(sample_rate=22050, n_fft=1024).n_window == 551


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_rate": 4000}, "sample_rate must be at least 8000, got 4000"),
        ({"hop_ms": 0.01}, "hop_ms must hold at least one sample, got 0.01"),
        ({"hop_ms": -10}, "hop_ms must hold at least one sample, got -10.0"),
        ({"window_ms": 0}, "window_ms must hold at least two samples, got 0.0"),
        ({"window_ms": float("nan")}, "window_ms must be finite, got nan"),
        ({"window": "blackman"}, "window must be 'hamming' or 'hann' or 'povey', got 'blackman'"),
        ({"framing": "center"}, "framing must be 'centered' or 'whole_transforms' or .*, got 'center'"),
        ({"pre_emphasis": 1.5}, "pre_emphasis must lie in 0..1, got 1.5"),
        ({"lifter": -1}, "lifter must be at least 0, got -1.0"),
        ({"n_fft": 2, "window_ms": 0.125}, "n_fft must be at least 4, got 2"),
        ({"n_fft": 500}, "n_fft must be a power of two, got 500"),
        ({"n_fft": 0}, "n_fft must be a power of two, got 0"),
        ({"n_fft": 256}, r"n_fft must hold a window \(400 samples\), got 256"),
        ({"n_mels": 0}, "n_mels must be at least 1, got 0"),
        ({"mel_low_hz": -1}, "mel_low_hz must be at least 0, got -1.0"),
        ({"mel_high_hz": 9000}, "mel_high_hz must lie above .* at most 8000, half the sample rate, got 9000.0"),
        ({"mel_high_hz": 20}, r"mel_high_hz must lie above mel_low_hz \(20\)"),
        ({"mel_scale": "bark"}, "mel_scale must be 'slaney' or 'htk', got 'bark'"),
        ({"mel_norm": "htk"}, "mel_norm must be 'slaney' or None, got 'htk'"),
        ({"power": 3}, "power must be 1 or 2, got 3.0"),
        ({"n_mfcc": 41}, r"n_mfcc must lie in 1..n_mels \(40\), got 41"),
        ({"log_floor": 0}, "log_floor must be at least 1e-30, got 0.0"),
        ({"top_db": -1}, "top_db must be at least 0, got -1.0"),
        ({"delta_width": 4}, "delta_width must be odd and at least 3, got 4"),
        ({"delta_edge": "wrap"}, "delta_edge must be 'nearest' or 'interp', got 'wrap'"),
        ({"pitch_low_hz": 10}, "pitch_low_hz must be at least 20, got 10.0"),
        ({"pitch_high_hz": 60}, r"pitch_high_hz must lie above pitch_low_hz \(60\) and be at most 1000, got 60.0"),
        ({"unvoiced": "nan"}, "unvoiced must be 'interpolate' or 'zero', got 'nan'"),
    ],
)
def test_value_out_of_range_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureOptions(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_mels": 40.0}, "n_mels must be an integer, got 40.0"),
        ({"n_mfcc": True}, "n_mfcc must be an integer, got True"),
        ({"hop_ms": "10"}, "hop_ms must be a number, got '10'"),
        ({"remove_mean": 1}, "remove_mean must be True or False, got 1"),
    ],
)
def test_value_of_another_type_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        FeatureOptions(**changes)  # type: ignore[arg-type]
