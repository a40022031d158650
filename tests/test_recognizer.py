import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

import serfast
from serfast import FeatureStore, Recognizer

QUICK = {"n_units": 8, "n_epochs": 1, "batch_size": 16, "progress": False}


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    generator = np.random.default_rng(0)
    paths = []
    for number, seconds in enumerate((0.5, 2.0, 0.9, 0.1, 1.3)):
        paths.append(tmp_path / f"clip{number}.wav")
        time_s = np.arange(int(16000 * seconds)) / 16000
        voice = sum(np.sin(2 * np.pi * 120 * (number + 1) * harmonic * time_s) / harmonic for harmonic in range(1, 6))
        soundfile.write(paths[-1], 0.1 * voice + 0.01 * generator.standard_normal(len(time_s)), 16000)
    return paths


@pytest.fixture
def recognizer(tiny_store: FeatureStore, tmp_path: Path) -> Recognizer:
    serfast.train(tiny_store, output=tmp_path / "run", **QUICK)
    return Recognizer.load(tmp_path / "run")


def test_a_prediction_does_not_depend_on_its_batch(recognizer: Recognizer, clips: list[Path]):
    together = recognizer.predict(clips, batch_size=16)
    for batch_size, order in ((1, [0, 1, 2, 3, 4]), (2, [4, 2, 0, 1, 3])):
        others = recognizer.predict([clips[place] for place in order], batch_size=batch_size)
        for place, other in zip(order, others, strict=True):
            assert other.path == clips[place]
            assert other.logits == together[place].logits
            assert np.array_equal(other.attention_weights, together[place].attention_weights)


@pytest.mark.emodb
def test_predictions_of_real_recordings_do_not_depend_on_their_batch(recognizer: Recognizer, emodb_root: Path):
    recordings = sorted(emodb_root.glob("wav/*.wav"))[::12]
    together = recognizer.predict(recordings, batch_size=256)
    for batch_size, step in ((1, 1), (2, -1), (31, -1)):
        others = recognizer.predict(recordings[::step], batch_size=batch_size)[::step]
        for one, other in zip(together, others, strict=True):
            assert one.logits == other.logits
            assert np.array_equal(one.attention_weights, other.attention_weights)


def test_a_prediction_is_whole(recognizer: Recognizer, clips: list[Path]):
    prediction = recognizer.predict(clips)[1]
    assert sum(prediction.probabilities.values()) == pytest.approx(1)
    assert prediction.emotion == max(prediction.probabilities, key=prediction.probabilities.get)
    assert prediction.attention_weights.shape == prediction.times_s.shape == (201,)
    assert prediction.attention_weights.sum() == pytest.approx(1, abs=1e-5)
    assert math.isclose(prediction.times_s[-1], 2.0, abs_tol=0.01)


def test_a_recording_at_another_rate_in_stereo_is_read(recognizer: Recognizer, clips: list[Path], tmp_path: Path):
    samples, _ = soundfile.read(clips[1])
    soundfile.write(tmp_path / "stereo.flac", np.stack([np.repeat(samples, 3)] * 2, axis=1), 48000)
    assert len(recognizer.predict([tmp_path / "stereo.flac"])[0].times_s) == 201


def test_misuse_is_named(recognizer: Recognizer, tmp_path: Path):
    assert recognizer.predict([]) == []
    with pytest.raises(TypeError, match="paths must be a list of files, got the single path 'a.wav'"):
        recognizer.predict("a.wav")
    with pytest.raises(serfast.CorpusError, match="missing.wav"):
        recognizer.predict([tmp_path / "missing.wav"])
    with pytest.raises(serfast.CorpusError, match=r"must hold a trained model \(model.safetensors\), got none"):
        Recognizer.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        recognizer.predict(["a.wav"], batch_size=0)


def test_a_speaker_who_is_enrolled_gets_the_answers_of_the_cross_validation(tmp_path: Path):
    corpus = serfast.corpora.synthetic.generate(tmp_path / "corpus", n_speakers=4, n_utterances=4)
    result = serfast.cross_validate(corpus, output=tmp_path / "cv", normalisation="speaker", **QUICK)
    path_of = {utterance.key: utterance.path for utterance in corpus.utterances}
    for fold in result.folds[:2]:
        answered = {path_of[row.key]: row.probabilities for row in result.predictions if row.fold == fold.name}
        loaded = Recognizer.load(tmp_path / "cv" / "folds" / fold.name)
        found = loaded.enroll(list(answered)).predict(list(answered))
        assert {prediction.path: prediction.probabilities for prediction in found} == answered


def test_only_a_model_that_needs_a_speaker_enrolls_one(
    recognizer: Recognizer, tiny_store: FeatureStore, tmp_path: Path, clips: list[Path]
):
    with pytest.raises(ValueError, match="to enroll recordings, got one that has a normaliser"):
        recognizer.enroll(clips)
    serfast.train(tiny_store, output=tmp_path / "speaker", normalisation="speaker", **QUICK)
    enrolled = Recognizer.load(tmp_path / "speaker").enroll(clips[:2])
    with pytest.raises(ValueError, match="to enroll recordings, got one that has a normaliser"):
        enrolled.enroll(clips[2:])
    with pytest.raises(ValueError, match="at least one recording to enroll, got none"):
        Recognizer.load(tmp_path / "speaker").enroll([])


def test_another_corpus_is_scored_and_a_seen_one_refused(tmp_path: Path):
    corpora = []
    for name, seed in (("first", 0), ("second", 1)):
        serfast.corpora.synthetic.generate(tmp_path / name, seed=seed, n_speakers=4, n_utterances=8)
        corpora.append(serfast.load_corpus("synthetic", tmp_path / name))
    serfast.train(corpora[0], output=tmp_path / "run", **QUICK)
    scores = serfast.evaluate(tmp_path / "run", corpora[1], progress=False)
    assert scores.n_utterances == len(corpora[1].utterances)
    with pytest.raises(
        ValueError, match=r"must not hold recordings that the model was trained or selected on, got \d+"
    ):
        serfast.evaluate(tmp_path / "run", corpora[0], progress=False)
    segments = [
        dataclasses.replace(utterance, key=f"{utterance.key}#0-1", end_s=1.0) for utterance in corpora[0].utterances
    ]
    with pytest.raises(ValueError, match="must not hold recordings that the model was trained or selected on, got 32"):
        serfast.evaluate(tmp_path / "run", dataclasses.replace(corpora[0], utterances=tuple(segments)), progress=False)


@pytest.mark.parametrize("place", ["folds/{}", "base/folds/{}", "folds/{}/candidates/seed-1", "base"])
def test_every_model_of_a_run_is_scored_on_what_it_has_not_seen(tmp_path: Path, place: str):
    corpus = serfast.corpora.synthetic.generate(tmp_path / "corpus", n_speakers=4, n_utterances=8)
    speaker = corpus.utterances[0].speaker
    options = {**QUICK, **({"seed": [0, 1]} if "candidates" in place else {"scheme": "greedy"})}
    if place == "base":
        other = serfast.corpora.synthetic.generate(tmp_path / "other", seed=1, n_speakers=2, n_utterances=8)
        serfast.train(corpus, output=tmp_path / "run", **options)
    else:
        own = tuple(item for item in corpus.utterances if item.speaker == speaker)
        other = dataclasses.replace(corpus, utterances=own)
        serfast.cross_validate(corpus, output=tmp_path / "run", **options)
    model = tmp_path / "run" / place.format(f"speaker_{speaker}")
    assert serfast.evaluate(model, other, progress=False).n_utterances == len(other.utterances)
    with pytest.raises(ValueError, match="must not hold recordings that the model was trained or selected on"):
        serfast.evaluate(model, corpus, progress=False)


def test_a_model_without_the_splits_of_its_run_is_not_scored(tmp_path: Path):
    corpus = serfast.corpora.synthetic.generate(tmp_path / "corpus", n_speakers=2, n_utterances=4)
    serfast.train(corpus, output=tmp_path / "run", **QUICK)
    (tmp_path / "run" / "splits.json").unlink()
    with pytest.raises(serfast.CorpusError, match=r"must lie in the folder of the run .*, got one without splits.json"):
        serfast.evaluate(tmp_path / "run", corpus, progress=False)


def test_scores_on_another_corpus_that_use_each_speakers_recordings_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    first, second = (
        serfast.corpora.synthetic.generate(tmp_path / str(seed), seed=seed, n_speakers=2, n_utterances=4)
        for seed in (0, 1)
    )
    for normalisation in ("speaker", "training"):
        serfast.train(first, output=tmp_path / normalisation, normalisation=normalisation, **QUICK)
        serfast.evaluate(tmp_path / normalisation, second)
        assert ("transductive" in capsys.readouterr().err) == (normalisation == "speaker")
