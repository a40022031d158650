"""How features are extracted: every choice, with the paper's values as defaults."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serfast.checks import flag, integer, number, require

__all__ = ["DEFAULT_OPTIONS", "FEATURES_VERSION", "FeatureOptions"]

FEATURES_VERSION = 10
"""Part of every digest. Raised whenever equal options give other features than before."""

_MIN_SAMPLE_RATE = 8000
_MAX_PITCH_HZ = 1000.0
_MIN_PITCH_HZ = 20.0
_CHOICES: dict[str, tuple[str | None, ...]] = {
    "window": ("hamming", "hann", "povey"),
    "framing": ("centered", "whole_transforms", "whole_windows", "mirrored"),
    "mel_scale": ("slaney", "htk"),
    "mel_sides": ("hertz", "mel"),
    "log_scale": ("decibel", "natural"),
    "dct_norm": ("ortho", None),
    "lifter_rule": ("librosa", "htk"),
    "mel_norm": ("slaney", None),
    "delta_edge": ("nearest", "interp"),
    "unvoiced": ("interpolate", "zero"),
}
_INTEGERS = ("sample_rate", "n_fft", "n_mels", "n_mfcc", "delta_width")
_NUMBERS = (
    "window_ms",
    "hop_ms",
    "pre_emphasis",
    "mel_low_hz",
    "mel_high_hz",
    "power",
    "log_floor",
    "lifter",
    "pitch_low_hz",
    "pitch_high_hz",
)
_FLOAT32_EPSILON = 2.0**-23
_COLUMNS = (
    "delta_deltas",
    "voiced",
    "log_energy",
    "zero_crossing_rate",
    "voicing_probability",
    "harmonics_to_noise",
    "jitter",
    "shimmer",
    "spectral_centroid",
    "spectral_flux",
    "log_mel",
    "log_power",
)
_FLAGS = ("remove_mean", *_COLUMNS)


@dataclass(frozen=True)
class FeatureOptions:
    """Choices of the extraction. Frame counts, padding and the MFCC follow librosa, or Kaldi, for equal options.

    Attributes:
        sample_rate: samples per second that are analysed; other recordings are resampled to it.
        window_ms: length of an analysis window; ``hop_ms`` is the step between windows, rounded to whole samples.
        window: "hamming" or "hann", periodic, or "povey", a symmetric Hann window to the power of 0.85.
        n_fft: transform size, a power of two, at least a window.
        framing: which frames an utterance of n samples has. "centered": frame t is centred on sample ``t * hop``, zeros
            lie beyond both ends, and there are ``1 + n // hop`` frames. "whole_transforms": the ``n_fft`` samples about
            each window lie inside, ``1 + (n - n_fft) // hop`` frames. These are librosa's ``center`` True and False.
            "whole_windows": each window lies inside, ``1 + (n - window) // hop`` frames. "mirrored": frame t is centred
            on sample ``t * hop + hop // 2``, the mirror image lies beyond both ends, ``(n + hop // 2) // hop``
            frames. These are Kaldi's ``snip_edges`` True and False.
        remove_mean: take each window's mean from it.
        pre_emphasis: share of the sample before that is taken from each sample of a window; 0 takes none.
        n_mels, mel_low_hz, mel_high_hz, mel_scale, mel_norm: the mel filters. Scale "slaney" or "htk"; norm "slaney"
            (filters of equal area) or None (of equal height). Their sides are straight lines in "hertz", or in "mel" as
            Kaldi's are: ``mel_sides``.
        power: exponent of the magnitude spectrum, 1 or 2.
        log_floor: least mel energy before the logarithm, which ``log_scale`` makes "decibel" (10 log10) or "natural".
            ``top_db`` also lifts everything to at most ``top_db`` decibels below the utterance's loudest mel energy;
            None leaves it.
        n_mfcc: cepstral coefficients, C0 included, of the DCT-II, "ortho" or unscaled: ``dct_norm``.
        lifter: period of the sine that scales the coefficients, 0 for none. ``lifter_rule``: C0 is at place 1 of the
            sine ("librosa") or at place 0 ("htk", as in Kaldi).
        delta_width: frames of a regression delta, odd. ``delta_edge`` "nearest" repeats the first and the last frame
            at the ends; "interp" repeats the first and the last complete delta there.
        pitch_low_hz, pitch_high_hz: range of the fundamental frequency.
        unvoiced: what ``log_f0``, the natural logarithm of hertz, holds in an unvoiced frame. "interpolate": a line
            in log F0 between the voiced neighbours, the nearest voiced value at the ends, and the logarithm of the
            geometric mean of the pitch range in an utterance without voiced frames. "zero": 0.
        delta_deltas: add the deltas of the deltas.
        voiced, log_energy, zero_crossing_rate, voicing_probability, harmonics_to_noise, jitter, shimmer,
            spectral_centroid, spectral_flux: add a column, as :mod:`serfast.features.descriptors` defines it.
        log_mel, log_power: add the logarithm of every mel band, or of every bin of the power spectrum.

    Raises:
        TypeError: if a value is of another type.
        ValueError: if a value is out of range.
    """

    sample_rate: int = 16000
    window_ms: float = 25.0
    hop_ms: float = 10.0
    window: str = "hamming"
    n_fft: int = 512
    framing: str = "centered"
    remove_mean: bool = False
    pre_emphasis: float = 0.0
    n_mels: int = 40
    mel_low_hz: float = 20.0
    mel_high_hz: float = 8000.0
    mel_scale: str = "slaney"
    mel_sides: str = "hertz"
    mel_norm: str | None = "slaney"
    power: float = 2.0
    log_floor: float = 1e-10
    log_scale: str = "decibel"
    top_db: float | None = None
    n_mfcc: int = 13
    dct_norm: str | None = "ortho"
    lifter: float = 0.0
    lifter_rule: str = "librosa"
    delta_width: int = 5
    delta_edge: str = "nearest"
    pitch_low_hz: float = 60.0
    pitch_high_hz: float = 500.0
    unvoiced: str = "interpolate"
    delta_deltas: bool = False
    voiced: bool = False
    log_energy: bool = False
    zero_crossing_rate: bool = False
    voicing_probability: bool = False
    harmonics_to_noise: bool = False
    jitter: bool = False
    shimmer: bool = False
    spectral_centroid: bool = False
    spectral_flux: bool = False
    log_mel: bool = False
    log_power: bool = False

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

    @classmethod
    def kaldi(cls, **changes: Any) -> "FeatureOptions":
        """Options of Kaldi's ``compute-mfcc-feats`` without dither and energy; ``changes`` are made to them.

        Windows and hops are rounded to whole samples; Kaldi cuts them off, which differs at sample rates such as
        11,025 Hz.

        Kaldi reads samples scaled to 16 bits: C0 is larger by ``log(32768^2) * sqrt(n_mels)`` there.
        """
        kaldi: dict[str, Any] = {
            "window": "povey",
            "framing": "whole_windows",
            "remove_mean": True,
            "pre_emphasis": 0.97,
            "n_mels": 23,
            "mel_scale": "htk",
            "mel_sides": "mel",
            "mel_norm": None,
            "log_floor": _FLOAT32_EPSILON,
            "log_scale": "natural",
            "lifter": 22.0,
            "lifter_rule": "htk",
        }
        return cls(**{**kaldi, **changes})

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
            object.__setattr__(self, name, integer(name, getattr(self, name)))
        for name in _NUMBERS:
            object.__setattr__(self, name, number(name, getattr(self, name)))
        if self.top_db is not None:
            object.__setattr__(self, "top_db", number("top_db", self.top_db))
        for name in _FLAGS:
            flag(name, getattr(self, name))
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                allowed = " or ".join(repr(choice) for choice in choices)
                raise ValueError(f"{name} must be {allowed}, got {getattr(self, name)!r}")

    def _check_framing(self) -> None:
        rate = self.sample_rate
        require("sample_rate", f"be at least {_MIN_SAMPLE_RATE}", rate, rate >= _MIN_SAMPLE_RATE)
        require("hop_ms", "hold at least one sample", self.hop_ms, self.hop >= 1)
        require("window_ms", "hold at least two samples", self.window_ms, self.n_window >= 2)
        require("n_fft", "be a power of two", self.n_fft, self.n_fft > 0 and self.n_fft & (self.n_fft - 1) == 0)
        require("n_fft", "be at least 4", self.n_fft, self.n_fft >= 4)
        require("n_fft", f"hold a window ({self.n_window} samples)", self.n_fft, self.n_fft >= self.n_window)

    def _check_spectrum(self) -> None:
        nyquist_hz = self.sample_rate / 2
        require("n_mels", "be at least 1", self.n_mels, self.n_mels >= 1)
        require("mel_low_hz", "be at least 0", self.mel_low_hz, self.mel_low_hz >= 0)
        require(
            "mel_high_hz",
            f"lie above mel_low_hz ({self.mel_low_hz:g}) and be at most {nyquist_hz:g}, half the sample rate",
            self.mel_high_hz,
            self.mel_low_hz < self.mel_high_hz <= nyquist_hz,
        )
        require("power", "be 1 or 2", self.power, self.power in (1.0, 2.0))
        require("n_mfcc", f"lie in 1..n_mels ({self.n_mels})", self.n_mfcc, 1 <= self.n_mfcc <= self.n_mels)
        require("pre_emphasis", "lie in 0..1", self.pre_emphasis, 0 <= self.pre_emphasis <= 1)
        require("lifter", "be at least 0", self.lifter, self.lifter >= 0)
        require("log_floor", "be at least 1e-30", self.log_floor, self.log_floor >= 1e-30)
        if self.top_db is not None:
            require("top_db", "be at least 0", self.top_db, self.top_db >= 0)
        width = self.delta_width
        require("delta_width", "be odd and at least 3", width, width >= 3 and width % 2 == 1)

    def _check_pitch(self) -> None:
        low_hz = self.pitch_low_hz
        require("pitch_low_hz", f"be at least {_MIN_PITCH_HZ:g}", low_hz, low_hz >= _MIN_PITCH_HZ)
        require(
            "pitch_high_hz",
            f"lie above pitch_low_hz ({low_hz:g}) and be at most {_MAX_PITCH_HZ:g}",
            self.pitch_high_hz,
            low_hz < self.pitch_high_hz <= _MAX_PITCH_HZ,
        )


DEFAULT_OPTIONS = FeatureOptions()
"""Made once: checking the options takes as long as analysing a tenth of a second."""
