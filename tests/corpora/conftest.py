"""What tests of corpora share: files by the thousand, and recordings whose pitch is known."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from serfast import extract_corpus
from serfast.corpora import Corpus

TONE_HZ = 200.0


@pytest.fixture
def grow() -> Callable[[Path, Iterable[str]], Path]:
    """Make files below a folder, each with its own content."""

    def grow_files(root: Path, names: Iterable[str]) -> Path:
        root.mkdir(parents=True, exist_ok=True)
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        return root

    return grow_files


@pytest.fixture
def sound() -> Callable[..., None]:
    """Write half a second of a voice-like tone of 200 Hz; the second channel is half as loud."""

    def write(path: Path, *, sample_rate: int, n_channels: int = 1, container: str = "WAV") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        phase = 2 * np.pi * TONE_HZ * np.arange(sample_rate // 2) / sample_rate
        voice = sum(0.2 / harmonic * np.sin(harmonic * phase) for harmonic in range(1, 8))
        channels = np.stack([voice, 0.5 * voice][:n_channels], axis=1)
        soundfile.write(path, channels, sample_rate, format=container, subtype="PCM_16")

    return write


@pytest.fixture
def heard_hz(tmp_path: Path) -> Callable[[Corpus], list[float]]:
    """The median F0 of every utterance, from its extracted features."""

    def extract(corpus: Corpus) -> list[float]:
        store = extract_corpus(corpus, tmp_path / "store", jobs=1)
        assert not store.broken
        column = store.feature_names.index("log_f0")
        return [
            float(np.exp(np.median(store.utterance_rows(index)[:, column]))) for index in range(len(corpus.utterances))
        ]

    return extract
