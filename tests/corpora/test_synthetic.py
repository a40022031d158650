"""The synthetic corpus: the same bytes each time, voices with the pitch they should have, and safe regeneration."""

import json
import re
import wave
from pathlib import Path

import numpy as np
import pytest

from serfast.corpora import PROTOCOLS, Corpus, load_corpus, synthetic
from serfast.errors import CorpusError

SMALL = {"n_speakers": 2, "n_utterances": 8}


def content(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def samples(path: Path) -> np.ndarray:
    with wave.open(str(path)) as sound:
        assert (sound.getframerate(), sound.getsampwidth(), sound.getnchannels()) == (16_000, 2, 1)
        return np.frombuffer(sound.readframes(sound.getnframes()), "<i2") / 32768


def pitch_hz(waveform: np.ndarray) -> float:
    """Median over the louder frames of the strongest autocorrelation lag between 60 and 500 Hz."""
    frames = np.lib.stride_tricks.sliding_window_view(waveform, 1024)[::160]
    frames = frames[(frames**2).mean(axis=1) > np.median((frames**2).mean(axis=1))]
    power = np.abs(np.fft.rfft(frames * np.hanning(1024), 2048)) ** 2
    lags = np.fft.irfft(power)[:, 32:267]
    return float(np.median(16_000 / (32 + lags.argmax(axis=1))))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    synthetic.generate(folder, n_speakers=6, n_utterances=16)
    return folder


@pytest.fixture(scope="module")
def corpus(root: Path) -> Corpus:
    return synthetic.load(root)


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        synthetic.generate(tmp_path / name, seed=seed, **SMALL)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert content(tmp_path / "a") != content(tmp_path / "c")


def test_the_corpus_is_balanced_and_fits_every_speaker_protocol(corpus, root):
    assert corpus.name == "synthetic"
    assert corpus.counts() == {"anger": 24, "happiness": 24, "neutral": 24, "sadness": 24}
    assert corpus.speakers == ("f1", "f2", "f3", "m1", "m2", "m3")
    assert corpus.sessions == ("1", "2", "3")
    assert load_corpus("synthetic", root) == corpus
    for name in ("leave_one_speaker_out", "leave_one_session_out", "paper", "single"):
        assert PROTOCOLS[name](corpus)


def test_utterances_last_one_to_two_and_a_half_seconds_and_are_not_clipped(corpus):
    waveforms = [samples(item.path) for item in corpus.utterances]
    assert all(1.0 <= len(waveform) / 16_000 <= 2.5 for waveform in waveforms)
    assert all(0.02 < np.abs(waveform).max() < 0.97 for waveform in waveforms)


def test_women_and_men_have_their_pitch_and_emotions_their_loudness(corpus):
    pitch: dict[tuple[str | None, str], list[float]] = {}
    energy: dict[str, list[float]] = {}
    for item in corpus.utterances:
        waveform = samples(item.path)
        pitch.setdefault((item.gender, item.emotion), []).append(pitch_hz(waveform))
        energy.setdefault(item.emotion, []).append(float(10 * np.log10((waveform**2).mean())))
    level = {key: np.mean(values) for key, values in pitch.items()}
    loudness = {emotion: np.mean(values) for emotion, values in energy.items()}
    assert 170 < level["female", "neutral"] < 240
    assert 90 < level["male", "neutral"] < 140
    for gender in ("female", "male"):
        assert level[gender, "neutral"] < min(level[gender, "anger"], level[gender, "happiness"])
    assert loudness["sadness"] < loudness["neutral"] < loudness["happiness"] < loudness["anger"]
    assert min(energy["anger"]) < max(energy["neutral"])  # they overlap


def test_a_complete_corpus_is_reused(tmp_path):
    synthetic.generate(tmp_path, **SMALL)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    synthetic.generate(tmp_path, **SMALL)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}


def test_an_interrupted_corpus_is_made_again(tmp_path, monkeypatch):
    synthetic.generate(tmp_path / "whole", **SMALL)
    speak, n_spoken = synthetic._speak, iter(range(5))
    monkeypatch.setattr(synthetic, "_speak", lambda *arguments: (next(n_spoken), speak(*arguments))[1])
    with pytest.raises(StopIteration):
        synthetic.generate(tmp_path / "cut", **SMALL)
    monkeypatch.undo()
    with pytest.raises(CorpusError, match=r"must hold a complete synthetic corpus, got none: manifest\.csv is missing"):
        synthetic.load(tmp_path / "cut")
    synthetic.generate(tmp_path / "cut", **SMALL)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_a_corpus_that_lost_a_file_or_has_another_seed_is_made_again(tmp_path):
    synthetic.generate(tmp_path / "a", **SMALL)
    synthetic.generate(tmp_path / "b", seed=3, n_speakers=4, n_utterances=5)
    next((tmp_path / "b" / "wav").iterdir()).unlink()
    synthetic.generate(tmp_path / "b", seed=3, n_speakers=4, n_utterances=5)
    synthetic.generate(tmp_path / "b", **SMALL)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert json.loads((tmp_path / "b" / "synthetic.json").read_text())["seed"] == 0


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "manifest.csv").write_text("mine")
    with pytest.raises(CorpusError, match="folder must be empty or hold a synthetic corpus, got something else"):
        synthetic.generate(tmp_path, **SMALL)
    assert content(tmp_path) == {"manifest.csv": b"mine"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_speakers": 3}, "n_speakers must be even and at least 2, got 3"),
        ({"n_speakers": 0}, "n_speakers must be even and at least 2, got 0"),
        ({"n_utterances": 3}, "n_utterances must be at least 4, got 3"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        synthetic.generate(tmp_path, **arguments)


def test_loading_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(CorpusError, match=r"synthetic\.json is missing; generate it first"):
        synthetic.load(tmp_path)
