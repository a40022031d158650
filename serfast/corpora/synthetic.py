"""A small corpus made on the spot: synthetic voices that speak four emotions, to try everything without a download.

A voice is a source and a filter. Glottal pulses (the derivative of Rosenberg's polynomial flow, with jitter and
shimmer) pass formant resonators that move from vowel to vowel; noise makes fricatives and breath. Each emotion shifts
pitch, range, contour, tempo, energy, spectral tilt and breathiness, most on a few emphasised syllables, and by amounts
that differ between speakers and utterances, so that emotions overlap as they do in speech.

Source: Fant, Acoustic Theory of Speech Production (1960); Rosenberg, JASA 49 (1971); Klatt, JASA 67 (1980).
"""

import json
import wave
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from serfast.corpora import csv_manifest
from serfast.corpora.corpus import Corpus
from serfast.errors import CorpusError

__all__ = ["generate", "load"]

_VERSION = 1
_SAMPLE_RATE = 16_000
_CONTROL = 80  # samples per control frame: 5 ms
_SPECTRUM = 512  # samples of the response to a pulse: formants have died away after 32 ms
_NOISE_WINDOW = 256
_Z = np.exp(-2j * np.pi * np.arange(_SPECTRUM // 2 + 1) / _SPECTRUM)  # (frequency,), the delay of one sample
_VOWELS_HZ = np.array(  # F1 to F3 of men, Peterson and Barney (1952)
    [[730, 1090, 2440], [530, 1840, 2480], [270, 2290, 3010], [570, 840, 2410], [300, 870, 2240], [640, 1190, 2390]]
)
_UPPER_FORMANTS_HZ = (3500.0, 4500.0)
_BANDWIDTHS_HZ = np.array([80.0, 90.0, 120.0, 180.0, 250.0])
_FRICATIVES_HZ = np.array([2500.0, 3800.0, 5500.0])  # centres of sh, f, s
_PULSE_GAIN = 0.1
_NOISE_FLOOR = 2e-4
_EDGE_S = 0.1  # of near silence before the first syllable and after the last
_MAX_FRAMES = 500  # 2.5 s
_OPTIONS_FILE, _MANIFEST_FILE = "synthetic.json", "manifest.csv"
_MANIFEST_HEADER = "file,emotion,speaker,gender,session"

_Floats: TypeAlias = NDArray[np.float64]
_Ints: TypeAlias = NDArray[np.int64]
_Bools: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class _Expression:
    """What an emotion does to a voice, in full strength on an emphasised syllable."""

    pitch_st: float  # semitones above the speaker's own level
    range_st: float  # semitones of an accent
    fall_st: float  # semitones from the first syllable to the last
    tempo: float  # logarithm of the factor on the speaking rate
    energy_db: float
    tilt: float  # -1: soft, 1: pressed
    breath: float  # -1: clear, 1: breathy
    smile: float  # logarithm of the factor on the formants
    pause: float  # probability of a pause after a syllable


_EXPRESSIONS = {
    "anger": _Expression(4.5, 4.5, 4.0, 0.14, 7.0, 1.0, -0.6, 0.00, 0.03),
    "happiness": _Expression(5.5, 7.0, -2.0, 0.08, 3.5, 0.2, 0.1, 0.07, 0.05),
    "neutral": _Expression(0.0, 2.5, 2.5, 0.00, 0.0, 0.0, 0.0, 0.00, 0.05),
    "sadness": _Expression(-1.5, 0.8, 1.5, -0.25, -6.0, -0.9, 1.0, -0.02, 0.16),
}


# Standard deviations of every field of an expression: between utterances, and between speakers.
_SPREAD = np.array([0.7, 0.6, 0.9, 0.05, 1.0, 0.12, 0.12, 0.010, 0.015])
_STYLE_SPREAD = 0.5 * _SPREAD


@dataclass(frozen=True)
class _Voice:
    """A speaker."""

    f0_hz: float
    tract: float  # factor on the formants of a man
    rate: float  # syllables per second
    tilt: float
    breath: float
    gain_db: float
    strength: float  # how much emotion shows


@dataclass(frozen=True)
class _Tracks:
    """What the synthesiser follows, one value per control frame of 5 ms."""

    f0_hz: _Floats  # (frame,)
    formants_hz: _Floats  # (frame, formant)
    voicing: _Floats  # (frame,), amplitude of the pulses
    breath: _Floats  # (frame,), amplitude of the noise at the glottis
    friction: _Floats  # (frame,), amplitude of the noise in the mouth
    friction_hz: _Floats  # (frame,)
    tilt: _Floats  # (frame,), -1: soft, 1: pressed


def generate(root: str | Path, *, seed: int = 0, n_speakers: int = 6, n_utterances: int = 40) -> Corpus:
    """Write the corpus as 16 kHz WAV files with a manifest, and load it; the same arguments give the same bytes.

    A complete corpus of the same arguments is loaded as it is; another one, or an interrupted one, is replaced.

    Args:
        root: an empty or new folder, or that of an earlier call.
        seed: which corpus, at least 0.
        n_speakers: half women, half men; even, at least 2.
        n_utterances: of each speaker, at least 4: the emotions in turn.

    Raises:
        ValueError: if an argument is out of range.
        CorpusError: if the folder holds something else.
    """
    if n_speakers < 2 or n_speakers % 2:
        raise ValueError(f"n_speakers must be even and at least 2, got {n_speakers}")
    if n_utterances < len(_EXPRESSIONS):
        raise ValueError(f"n_utterances must be at least {len(_EXPRESSIONS)}, got {n_utterances}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    root = Path(root)
    made_by = {"version": _VERSION, "seed": seed, "n_speakers": n_speakers, "n_utterances": n_utterances}
    options = json.dumps(made_by, indent=2) + "\n"
    if not _is_complete(root, options, n_speakers * n_utterances):
        _clear(root)
        _write(root, options, seed, n_speakers, n_utterances)
    return load(root)


def load(root: str | Path) -> Corpus:
    """Load a corpus that ``generate`` wrote.

    Raises:
        CorpusError: if the folder does not hold a complete one.
    """
    root = Path(root)
    for name in (_OPTIONS_FILE, _MANIFEST_FILE):
        if not (root / name).is_file():
            raise CorpusError(
                f"{root}: folder must hold a complete synthetic corpus, got none: {name} is missing; generate it first"
            )
    return replace(csv_manifest.load(root / _MANIFEST_FILE), name="synthetic")


def _is_complete(root: Path, options: str, n_files: int) -> bool:
    if not ((root / _OPTIONS_FILE).is_file() and (root / _MANIFEST_FILE).is_file()):
        return False
    is_same = (root / _OPTIONS_FILE).read_text(encoding="utf-8") == options
    return is_same and len(list((root / "wav").glob("*.wav"))) == n_files


def _clear(root: Path) -> None:
    """Remove an earlier corpus, the manifest first; refuse a folder that holds something else."""
    if root.exists() and not (root / _OPTIONS_FILE).is_file() and (not root.is_dir() or any(root.iterdir())):
        raise CorpusError(f"{root}: folder must be empty or hold a synthetic corpus, got something else")
    (root / _MANIFEST_FILE).unlink(missing_ok=True)
    for path in (root / "wav").glob("*.wav"):
        path.unlink()


def _write(root: Path, options: str, seed: int, n_speakers: int, n_utterances: int) -> None:
    """Write a corpus: first the options, by which an interrupted one is known, last and at once the manifest."""
    root.mkdir(parents=True, exist_ok=True)
    (root / _OPTIONS_FILE).write_text(options, encoding="utf-8")
    (root / "wav").mkdir(exist_ok=True)
    lines = [_MANIFEST_HEADER]
    for speaker, voice in enumerate(_voices(seed, n_speakers)):
        lines += _record(root, seed, speaker, voice, n_utterances)
    partial = root / f"{_MANIFEST_FILE}.partial"
    partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    partial.replace(root / _MANIFEST_FILE)


def _record(root: Path, seed: int, speaker: int, voice: _Voice, n_utterances: int) -> list[str]:
    """Write a speaker's utterances; return their lines of the manifest."""
    gender, session = ("female", "male")[speaker % 2], str(speaker // 2 + 1)
    name = gender[0] + session
    style = np.random.default_rng([seed, speaker])
    habits = {emotion: _STYLE_SPREAD * style.standard_normal(len(_SPREAD)) for emotion in _EXPRESSIONS}
    lines = []
    for index in range(n_utterances):
        emotion = list(_EXPRESSIONS)[index % len(_EXPRESSIONS)]
        waveform = _speak(np.random.default_rng([seed, speaker, index]), voice, emotion, habits[emotion])
        file = f"wav/{name}_{index:03d}_{emotion}.wav"
        with wave.open(str(root / file), "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(_SAMPLE_RATE)
            sound.writeframes(np.round(waveform * 32767).astype("<i2").tobytes())
        lines.append(f"{file},{emotion},{name},{gender},{session}")
    return lines


def _voices(seed: int, n_speakers: int) -> list[_Voice]:
    """Women and men in turn."""
    rng = np.random.default_rng(seed)
    return [
        _Voice(
            f0_hz=(205.0, 115.0)[speaker % 2] * 2 ** (rng.uniform(-2.5, 2.5) / 12),
            tract=(1.15, 1.0)[speaker % 2] * rng.uniform(0.95, 1.05),
            rate=rng.uniform(4.2, 5.4),
            tilt=rng.uniform(-0.2, 0.2),
            breath=rng.uniform(-0.3, 0.3),
            gain_db=rng.uniform(-8.0, -5.0),
            strength=rng.uniform(0.9, 1.15),
        )
        for speaker in range(n_speakers)
    ]


def _speak(rng: np.random.Generator, voice: _Voice, emotion: str, habits: _Floats) -> _Floats:
    """One utterance, shape (sample,), in [-1, 1]."""
    strength = voice.strength * rng.uniform(0.75, 1.2)
    neutral, full = (np.array(astuple(_EXPRESSIONS[name])) for name in ("neutral", emotion))
    shown = neutral + strength * (full - neutral) + _SPREAD * rng.standard_normal(len(_SPREAD)) + habits
    tracks = _plan(rng, voice, _Expression(*shown.tolist()))
    n_samples = len(tracks.f0_hz) * _CONTROL
    waveform = _pulses(rng, tracks, n_samples) + _noise(rng, tracks, n_samples)
    waveform = waveform * 10 ** (voice.gain_db / 20) + _NOISE_FLOOR * rng.standard_normal(n_samples)
    return np.tanh(waveform)


def _plan(rng: np.random.Generator, voice: _Voice, shown: _Expression) -> _Tracks:
    """Lay out syllables and let every track follow them."""
    rate = voice.rate * np.exp(shown.tempo)
    n_syllables = int(np.ceil(rng.uniform(1.1, 1.8) * rate))
    place = np.linspace(0.0, 1.0, n_syllables)
    emphasis = np.exp(-(((np.arange(n_syllables) - rng.uniform(0, n_syllables - 1)) / 1.2) ** 2))
    weight = 0.6 + 0.7 * emphasis  # how much of the emotion each syllable shows
    pitch_st = weight * shown.pitch_st + shown.range_st * (emphasis - 0.3) + shown.fall_st * (0.5 - place)
    pitch_st = pitch_st + 0.3 * abs(shown.range_st) * rng.standard_normal(n_syllables)
    level_db = weight * shown.energy_db + 4.0 * emphasis - 3.0 * place + rng.normal(0.0, 1.0, n_syllables)
    tilt, breath = voice.tilt + weight * shown.tilt, voice.breath + weight * shown.breath
    formants_hz = voice.tract * np.exp(shown.smile) * _VOWELS_HZ[rng.integers(len(_VOWELS_HZ), size=n_syllables)]
    formants_hz = formants_hz * np.exp(rng.normal(0.0, 0.04, formants_hz.shape))
    upper_hz = voice.tract * np.tile(_UPPER_FORMANTS_HZ, (n_syllables, 1))
    is_fricative, frames = _timing(rng, rate, emphasis, shown.pause)
    level = 10 ** (level_db / 20)

    def follow(vowels: _Floats, window: int, onsets: _Floats | None = None, pauses: _Floats | None = None) -> _Floats:
        values = np.stack([vowels if part is None else part for part in (onsets, vowels, pauses)], axis=1)
        track = np.repeat(np.concatenate([values[0, 2:], values.ravel()]), frames)[:_MAX_FRAMES]
        kernel = np.hanning(window + 3)[1:-1]
        return np.convolve(np.pad(track, window // 2, mode="edge"), kernel / kernel.sum(), mode="valid")

    none = np.zeros(n_syllables)
    return _Tracks(
        f0_hz=voice.f0_hz * 2 ** (follow(pitch_st, 20) / 12),
        formants_hz=np.stack([follow(track, 14) for track in np.hstack([formants_hz, upper_hz]).T], axis=1),
        voicing=follow(level, 6, onsets=none, pauses=none),
        breath=follow(0.01 * level * np.exp(1.2 * breath), 6, onsets=0.02 * level * ~is_fricative, pauses=none),
        friction=follow(none, 4, onsets=0.05 * level * is_fricative),
        friction_hz=follow(_FRICATIVES_HZ[rng.integers(len(_FRICATIVES_HZ), size=n_syllables)], 4),
        tilt=follow(tilt, 10),
    )


def _timing(rng: np.random.Generator, rate: float, emphasis: _Floats, pause: float) -> tuple[_Bools, _Ints]:
    """Which onsets are fricatives, and control frames: before all, then onset, vowel and pause of each syllable."""
    n_syllables = len(emphasis)
    onset = rng.choice(3, n_syllables, p=(0.40, 0.35, 0.25))  # a fricative, a stop, or the vowel at once
    onset_s = np.array([0.45, 0.25, 0.0])[onset] / rate * np.exp(rng.normal(0.0, 0.2, n_syllables))
    vowel_s = (0.62 + 0.25 * emphasis) / rate * np.exp(rng.normal(0.0, 0.25, n_syllables))
    pause_s = np.where(rng.random(n_syllables) < pause, rng.uniform(0.08, 0.25, n_syllables), 0.0)
    pause_s[-1] = _EDGE_S
    seconds = np.concatenate([[_EDGE_S], np.stack([onset_s, vowel_s, pause_s], axis=1).ravel()])
    return onset == 0, np.round(seconds * _SAMPLE_RATE / _CONTROL).astype(np.int64)


def _pulses(rng: np.random.Generator, tracks: _Tracks, n_samples: int) -> _Floats:
    """The voiced part: the response of the vocal tract to every glottal pulse, laid where the pulse is."""
    control = np.arange(len(tracks.f0_hz)) * _CONTROL
    samples = np.arange(n_samples)
    cycles = np.cumsum(np.interp(samples, control, tracks.f0_hz)) / _SAMPLE_RATE
    pulses = np.arange(1, int(cycles[-1]))
    starts = np.interp(pulses + rng.normal(0.0, 0.004, len(pulses)), cycles, samples)
    f0_hz, voicing, tilt = (np.interp(starts, control, track) for track in (tracks.f0_hz, tracks.voicing, tracks.tilt))
    formants_hz = np.stack([np.interp(starts, control, track) for track in tracks.formants_hz.T], axis=1)
    open_samples = np.clip(0.62 - 0.12 * tilt, 0.4, 0.9) * _SAMPLE_RATE / f0_hz
    first = np.floor(starts).astype(np.int64)
    phase = (np.arange(_SPECTRUM) - (starts - first)[:, None]) / open_samples[:, None]  # (pulse, sample)
    flow = np.where((phase >= 0) & (phase < 1), 2 * phase - 3 * phase**2, 0.0)
    flow *= (voicing * (1 + rng.normal(0.0, 0.04, len(pulses))))[:, None]
    pole = np.clip(0.55 - 0.28 * tilt, 0.1, 0.92)[:, None]
    spectrum = np.fft.rfft(flow) * (1 - pole) / (1 - pole * _Z) * _tract(formants_hz)
    return _PULSE_GAIN * _lay(np.fft.irfft(spectrum, _SPECTRUM), first, n_samples)


def _noise(rng: np.random.Generator, tracks: _Tracks, n_samples: int) -> _Floats:
    """The unvoiced part: breath through the vocal tract, and fricatives."""
    hop = _NOISE_WINDOW // 2
    first = np.arange(0, n_samples, hop)
    frames = np.minimum((first + hop) // _CONTROL, len(tracks.breath) - 1)
    white = rng.standard_normal((len(first), _NOISE_WINDOW)) * np.hanning(_NOISE_WINDOW + 1)[:-1]
    hz = np.fft.rfftfreq(_SPECTRUM, 1 / _SAMPLE_RATE)
    centre_hz = tracks.friction_hz[frames][:, None]
    mouth = np.exp(-0.5 * ((hz - centre_hz) / (0.25 * centre_hz)) ** 2)
    throat = _tract(tracks.formants_hz[frames])
    shaped = tracks.friction[frames][:, None] * mouth + tracks.breath[frames][:, None] * throat
    return _lay(np.fft.irfft(np.fft.rfft(white, _SPECTRUM) * shaped, _SPECTRUM), first, n_samples)


def _tract(formants_hz: _Floats) -> NDArray[np.complex128]:
    """Frequency response of a cascade of resonators; formants (position, formant) -> (position, frequency)."""
    response = np.ones((len(formants_hz), len(_Z)), np.complex128)
    for centre_hz, bandwidth_hz in zip(formants_hz.T, _BANDWIDTHS_HZ, strict=True):
        radius = np.exp(-np.pi * bandwidth_hz / _SAMPLE_RATE)
        b = (-2 * radius * np.cos(2 * np.pi * centre_hz / _SAMPLE_RATE))[:, None]
        response *= (1 + b + radius**2) / (1 + b * _Z + radius**2 * _Z**2)
    return response


def _lay(responses: _Floats, first: _Ints, n_samples: int) -> _Floats:
    """Add up responses (position, sample), each from its own first sample on."""
    waveform = np.zeros(n_samples + _SPECTRUM)
    for start, response in zip(first.tolist(), responses, strict=True):
        waveform[start : start + _SPECTRUM] += response
    return waveform[:n_samples]
