"""How features are extracted: every choice, with the paper's values as defaults."""

import dataclasses
import hashlib
import json
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["FEATURES_VERSION", "FeatureOptions"]

FEATURES_VERSION = 1
"""Part of every digest. Raised whenever equal options give other features than before."""

_MIN_SAMPLE_RATE = 8000
_MAX_PITCH_HZ = 1000.0
_MIN_PITCH_HZ = 20.0
_CHOICES: dict[str, tuple[str | None, ...]] = {
    "window": ("hamming", "hann"),
    "mel_scale": ("slaney", "htk"),
    "mel_norm": ("slaney", None),
    "delta_edge": ("nearest", "interp"),
    "unvoiced": ("interpolate", "zero"),
}
_INTEGERS = ("sample_rate", "n_fft", "n_mels", "n_mfcc", "delta_width")
_NUMBERS = (
    "window_ms",
    "hop_ms",
    "mel_low_hz",
    "mel_high_hz",
    "power",
    "log_floor",
    "pitch_low_hz",
    "pitch_high_hz",
)
_FLAGS = ("center", "voiced", "log_energy")


@dataclass(frozen=True)
class FeatureOptions:
    """Choices of the extraction. Frame counts, padding and the MFCC follow librosa for equal options.

    Attributes:
        sample_rate: samples per second that are analysed; other recordings are resampled to it.
        window_ms: length of an analysis window; ``hop_ms`` is the step between windows, rounded to whole samples.
        window: "hamming" or "hann", periodic, in the middle of the ``n_fft`` samples that are transformed.
        n_fft: transform size, a power of two.
        center: True pads ``n_fft // 2`` zeros at both ends, so that frame t is centred on sample ``t * hop`` and an
            utterance of n samples has ``1 + n // hop`` frames. False: frame t starts at sample ``t * hop``, and
            there are ``1 + (n - n_fft) // hop`` frames.
        n_mels, mel_low_hz, mel_high_hz, mel_scale, mel_norm: the mel filters. Scale "slaney" or "htk"; norm "slaney"
            (filters of equal area) or None (of equal height).
        power: exponent of the magnitude spectrum, 1 or 2.
        n_mfcc: cepstral coefficients, C0 included, of the orthonormal DCT-II.
        log_floor: least mel energy before the logarithm. ``top_db`` also lifts everything to at most ``top_db``
            decibels below the utterance's loudest mel energy; None leaves it.
        delta_width: frames of a regression delta, odd. ``delta_edge`` "nearest" repeats the first and the last frame
            at the ends; "interp" repeats the first and the last complete delta there.
        pitch_low_hz, pitch_high_hz: range of the fundamental frequency.
        unvoiced: what ``log_f0``, the natural logarithm of hertz, holds in an unvoiced frame. "interpolate": a line
            in log F0 between the voiced neighbours, the nearest voiced value at the ends, and the logarithm of the
            geometric mean of the pitch range in an utterance without voiced frames. "zero": 0.
        voiced, log_energy: add a column: 1 in voiced frames; the natural logarithm of the window's mean square.

    Raises:
        TypeError: if a value is of another type.
        ValueError: if a value is out of range.
    """

    sample_rate: int = 16000
    window_ms: float = 25.0
    hop_ms: float = 10.0
    window: str = "hamming"
    n_fft: int = 512
    center: bool = True
    n_mels: int = 40
    mel_low_hz: float = 20.0
    mel_high_hz: float = 8000.0
    mel_scale: str = "slaney"
    mel_norm: str | None = "slaney"
    power: float = 2.0
    n_mfcc: int = 13
    log_floor: float = 1e-10
    top_db: float | None = None
    delta_width: int = 5
    delta_edge: str = "nearest"
    pitch_low_hz: float = 60.0
    pitch_high_hz: float = 500.0
    unvoiced: str = "interpolate"
    voiced: bool = False
    log_energy: bool = False

    def __post_init__(self) -> None:
        """Check every value; whole numbers are stored as int and the others as float, so that equals digest equally."""
        self._check_types()
        self._check_framing()
        self._check_spectrum()
        self._check_pitch()

    @property
    def n_window(self) -> int:
        """Samples of an analysis window."""
        return round(self.window_ms * self.sample_rate / 1000)

    @property
    def hop(self) -> int:
        """Samples between the starts of two windows."""
        return round(self.hop_ms * self.sample_rate / 1000)

    def to_dict(self) -> dict[str, Any]:
        """Every option by name, JSON-safe; :meth:`from_dict` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> "FeatureOptions":
        """Options from names and values; what is not named keeps its default.

        Raises:
            ValueError: if a name is no option.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in options:
            if name not in known:
                raise ValueError(f"options must only name {', '.join(known)}, got {name!r}")
        return cls(**options)

    def digest(self) -> str:
        """SHA-256 in hexadecimal of the options and of :data:`FEATURES_VERSION`: equal digests, equal features."""
        content = json.dumps({"features_version": FEATURES_VERSION, **self.to_dict()}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def _check_types(self) -> None:
        for name in _INTEGERS:
            object.__setattr__(self, name, _integer(name, getattr(self, name)))
        for name in _NUMBERS:
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        if self.top_db is not None:
            object.__setattr__(self, "top_db", _number("top_db", self.top_db))
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, got {getattr(self, name)!r}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                allowed = " or ".join(repr(choice) for choice in choices)
                raise ValueError(f"{name} must be {allowed}, got {getattr(self, name)!r}")

    def _check_framing(self) -> None:
        rate = self.sample_rate
        _require("sample_rate", f"be at least {_MIN_SAMPLE_RATE}", rate, rate >= _MIN_SAMPLE_RATE)
        _require("hop_ms", "hold at least one sample", self.hop_ms, self.hop >= 1)
        _require("window_ms", "hold at least two samples", self.window_ms, self.n_window >= 2)
        _require("n_fft", "be a power of two", self.n_fft, self.n_fft > 0 and self.n_fft & (self.n_fft - 1) == 0)
        _require("n_fft", f"hold a window ({self.n_window} samples)", self.n_fft, self.n_fft >= self.n_window)

    def _check_spectrum(self) -> None:
        nyquist_hz = self.sample_rate / 2
        _require("n_mels", "be at least 1", self.n_mels, self.n_mels >= 1)
        _require("mel_low_hz", "be at least 0", self.mel_low_hz, self.mel_low_hz >= 0)
        _require(
            "mel_high_hz",
            f"lie above mel_low_hz ({self.mel_low_hz:g}) and be at most {nyquist_hz:g}, half the sample rate",
            self.mel_high_hz,
            self.mel_low_hz < self.mel_high_hz <= nyquist_hz,
        )
        _require("power", "be 1 or 2", self.power, self.power in (1.0, 2.0))
        _require("n_mfcc", f"lie in 1..n_mels ({self.n_mels})", self.n_mfcc, 1 <= self.n_mfcc <= self.n_mels)
        _require("log_floor", "be at least 1e-30", self.log_floor, self.log_floor >= 1e-30)
        if self.top_db is not None:
            _require("top_db", "be at least 0", self.top_db, self.top_db >= 0)
        width = self.delta_width
        _require("delta_width", "be odd and at least 3", width, width >= 3 and width % 2 == 1)

    def _check_pitch(self) -> None:
        low_hz = self.pitch_low_hz
        _require("pitch_low_hz", f"be at least {_MIN_PITCH_HZ:g}", low_hz, low_hz >= _MIN_PITCH_HZ)
        _require(
            "pitch_high_hz",
            f"lie above pitch_low_hz ({low_hz:g}) and be at most {_MAX_PITCH_HZ:g}",
            self.pitch_high_hz,
            low_hz < self.pitch_high_hz <= _MAX_PITCH_HZ,
        )


def _integer(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    return int(value)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    _require(name, "be finite", value, math.isfinite(value))
    return float(value)


def _require(name: str, rule: str, value: object, holds: bool) -> None:
    if not holds:
        raise ValueError(f"{name} must {rule}, got {value!r}")
