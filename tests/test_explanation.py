import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

import serfast
from serfast import FeatureStore, Recognizer

QUICK = {"n_units": 8, "n_layers": 1, "n_epochs": 1, "progress": False}


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    # Half a second of silence, a second of a voice at 150 Hz.
    time_s = np.arange(16000) / 16000
    voice = sum(np.sin(2 * np.pi * 150 * harmonic * time_s) / harmonic for harmonic in range(1, 8))
    soundfile.write(tmp_path / "clip.wav", np.concatenate([np.zeros(8000), 0.1 * voice]), 16000)
    return tmp_path / "clip.wav"


def test_an_explanation_holds_the_prediction_beside_what_was_heard(
    tiny_store: FeatureStore, tmp_path: Path, clip: Path
):
    serfast.train(tiny_store, output=tmp_path / "run", **QUICK)
    explanation = serfast.explain(tmp_path / "run", clip)
    prediction = Recognizer.load(tmp_path / "run").predict([clip])[0]
    assert explanation.prediction.probabilities == prediction.probabilities
    assert np.array_equal(explanation.prediction.attention_weights, prediction.attention_weights)
    assert explanation.pooling == "eq9"
    assert explanation.duration_s == 1.5
    assert explanation.f0_hz.shape == prediction.times_s.shape
    spoken = (prediction.times_s > 0.6) & (prediction.times_s < 1.4)
    assert explanation.f0_hz[spoken] == pytest.approx(150, rel=0.02)
    assert (explanation.f0_hz[prediction.times_s < 0.4] == 0).all()


def test_its_json_has_times_in_seconds_and_no_f0_where_unvoiced(tiny_store: FeatureStore, tmp_path: Path, clip: Path):
    serfast.train(tiny_store, output=tmp_path / "run", **QUICK)
    explanation = serfast.explain(Recognizer.load(tmp_path / "run"), str(clip))
    stored = json.loads(json.dumps(explanation.to_dict(), allow_nan=False))
    assert stored["path"] == str(clip)
    assert stored["duration_s"] == 1.5
    assert stored["times_s"] == pytest.approx([0.01 * frame for frame in range(151)])
    assert len(stored["f0_hz"]) == len(stored["attention_weights"]) == 151
    assert stored["f0_hz"][10] is None
    assert stored["f0_hz"][100] == pytest.approx(150, rel=0.02)
    assert sum(stored["probabilities"].values()) == pytest.approx(1)


def test_a_clip_at_another_rate_is_heard_as_the_model_hears_it(tiny_store: FeatureStore, tmp_path: Path, clip: Path):
    serfast.train(tiny_store, output=tmp_path / "run", **QUICK)
    samples, _ = soundfile.read(clip)
    soundfile.write(tmp_path / "fast.flac", np.repeat(samples, 3), 48000)
    explanation = serfast.explain(tmp_path / "run", tmp_path / "fast.flac")
    assert explanation.sample_rate == 16000
    assert explanation.duration_s == pytest.approx(1.5, abs=0.001)
    assert explanation.f0_hz.shape == explanation.prediction.attention_weights.shape


def test_a_model_without_attention_is_explained_without_weights(tiny_store: FeatureStore, tmp_path: Path, clip: Path):
    serfast.train(tiny_store, output=tmp_path / "run", pooling="last", **QUICK)
    explanation = serfast.explain(tmp_path / "run", clip)
    assert explanation.prediction.attention_weights is None
    assert explanation.to_dict()["attention_weights"] is None
    assert explanation.pooling == "last"


def test_a_model_that_needs_the_speaker_says_so(tiny_store: FeatureStore, tmp_path: Path, clip: Path):
    serfast.train(tiny_store, output=tmp_path / "run", normalisation="speaker", **QUICK)
    with pytest.raises(ValueError, match="must know the speaker"):
        serfast.explain(tmp_path / "run", clip)
    recognizer = Recognizer.load(tmp_path / "run").enroll([clip])
    assert sum(serfast.explain(recognizer, clip).prediction.probabilities.values()) == pytest.approx(1)


def test_what_cannot_be_read_is_named(tiny_store: FeatureStore, tmp_path: Path, clip: Path):
    with pytest.raises(serfast.CorpusError, match=r"nowhere must hold a trained model"):
        serfast.explain(tmp_path / "nowhere", clip)
    serfast.train(tiny_store, output=tmp_path / "run", **QUICK)
    with pytest.raises(serfast.CorpusError, match=r"missing.wav"):
        serfast.explain(tmp_path / "run", tmp_path / "missing.wav")
