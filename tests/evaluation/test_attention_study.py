import csv
import dataclasses
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import serfast
from serfast import FeatureStore, Recognizer, Result
from serfast.evaluation import UtterancePrediction
from serfast.evaluation.attention_study import (
    AttentionFrames,
    AttentionStudy,
    UtteranceAttention,
    annotation_options,
    attention_frames,
    pearson,
    study_attention,
)
from serfast.ops import Lengths

QUICK = {"n_units": 8, "n_layers": 1, "n_epochs": 2, "learning_rate": 1e-2, "progress": False}


@dataclasses.dataclass(frozen=True)
class Case:
    result: Result
    features: FeatureStore
    annotations: FeatureStore


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("study")
    serfast.corpora.synthetic.generate(folder / "corpus", n_speakers=4, n_utterances=4)
    corpus = serfast.load_corpus("synthetic", folder / "corpus")
    features = serfast.extract_corpus(corpus, folder / "features")
    annotations = serfast.extract_corpus(corpus, folder / "annotations", annotation_options(features.options))
    return Case(serfast.cross_validate(features, output=folder / "run", **QUICK), features, annotations)


def frames_of(weights: object, **series: object) -> AttentionFrames:
    weights = np.asarray(weights, dtype=np.float64)
    given = {"raw_energy": weights, "hidden_energy": weights, "voiced": np.ones(len(weights), dtype=bool), **series}
    prediction = UtterancePrediction("f", "k", "s", "anger", "anger", {})
    times_s = np.arange(len(weights)) / 100
    return AttentionFrames(prediction, times_s, weights, **{name: np.asarray(value) for name, value in given.items()})


def test_attention_that_follows_energy_correlates_fully_and_reversed_fully_the_other_way():
    weights = np.array([0.1, 0.2, 0.3, 0.4])
    found = UtteranceAttention.of(frames_of(weights, raw_energy=7 * weights + 3, hidden_energy=weights[::-1]))
    assert found.correlation_raw == pytest.approx(1)
    assert found.correlation_hidden == pytest.approx(-1)


@pytest.mark.parametrize("series", [[0.25] * 4, [0.0] * 4, [0.1, 0.1 + 1e-9, 0.1, 0.1]])
def test_a_constant_series_and_a_single_frame_have_no_correlation(series: object):
    changing = np.arange(4.0)
    assert pearson(np.asarray(series), changing) is None
    assert pearson(changing, np.asarray(series)) is None
    found = UtteranceAttention.of(frames_of([1.0]))
    assert found.correlation_raw is None
    assert found.correlation_hidden is None
    assert found.positions == pytest.approx([1.0] * 10)


def test_correlation_is_that_of_the_standard_library():
    first, second = np.random.default_rng(0).standard_normal((2, 50))
    assert pearson(first, second) == pytest.approx(statistics.correlation(first, second))


def test_relative_attention_is_split_by_voicing_and_position():
    voiced = [True, True, False, False]
    found = UtteranceAttention.of(frames_of([0.4, 0.2, 0.3, 0.1], voiced=voiced))
    assert found.voiced == pytest.approx(4 * 0.3)
    assert found.unvoiced == pytest.approx(4 * 0.2)
    # Parts of 0.4 frames: the third takes half of the first frame and half of the second, and so on.
    assert found.positions == pytest.approx([1.6, 1.6, 1.2, 0.8, 0.8, 1.2, 1.2, 0.8, 0.4, 0.4])
    assert UtteranceAttention.of(frames_of([0.5, 0.5], voiced=[True, True])).unvoiced is None


@pytest.mark.parametrize("n_frames", [1, 3, 10, 57, 200])
def test_even_attention_is_one_everywhere_and_parts_always_average_one(n_frames: int):
    assert UtteranceAttention.of(frames_of(np.full(n_frames, 1 / n_frames))).positions == pytest.approx([1.0] * 10)
    weights = np.random.default_rng(n_frames).dirichlet(np.ones(n_frames))
    assert np.mean(UtteranceAttention.of(frames_of(weights)).positions) == pytest.approx(1)
    if n_frames % 10 == 0:
        by_part = weights.reshape(10, -1).mean(axis=1) * n_frames
        assert UtteranceAttention.of(frames_of(weights)).positions == pytest.approx(by_part)


def test_means_by_emotion_count_utterances_alike_and_leave_out_what_is_undefined():
    def utterance(emotion: str, voiced: float | None, positions: float) -> UtteranceAttention:
        prediction = UtterancePrediction("f", "k", "s", emotion, "anger", {})
        return UtteranceAttention(prediction, 5, None, None, voiced, 0.5, (positions,) * 10)

    utterances = (utterance("joy", 1.0, 0.5), utterance("joy", 2.0, 1.5), utterance("fear", None, 1.0))
    study = AttentionStudy("x", ("anger", "fear", "joy"), utterances)
    assert study.by_voicing() == {"fear": (None, 0.5), "joy": (1.5, 0.5)}
    assert {emotion: values.tolist() for emotion, values in study.by_position().items()} == {
        "fear": [1.0] * 10,
        "joy": [1.0] * 10,
    }


def test_every_scored_utterance_is_weighed_by_the_model_of_its_fold(case: Case):
    frames = list(attention_frames(case.result, case.features, case.annotations))
    assert [item.prediction for item in frames] == list(case.result.predictions)
    place = {utterance.key: index for index, utterance in enumerate(case.features.corpus.utterances)}
    for item in frames[::5]:
        index = place[item.prediction.key]
        recognizer = Recognizer.load(case.result.output / "folds" / item.prediction.fold)
        answers = recognizer.answer_store(case.features, [index])
        assert recognizer.emotions[answers.predicted[0]] == item.prediction.predicted
        assert np.array_equal(answers.attention_weights[0], item.attention_weights.astype(np.float32))
        rows = torch.from_numpy(recognizer.normaliser.apply(case.features.utterance_rows(index)))
        with torch.no_grad():
            hidden = recognizer.model.encoder(rows, Lengths.packed(torch.tensor([len(rows)]))).numpy()
        assert item.hidden_energy == pytest.approx((hidden.astype(np.float64) ** 2).sum(axis=1), rel=1e-5)


def test_raw_energy_and_voicing_are_those_of_the_recording(case: Case):
    frames = next(attention_frames(case.result, case.features, case.annotations))
    utterance = next(item for item in case.features.corpus.utterances if item.key == frames.prediction.key)
    samples, rate = soundfile.read(utterance.path)
    assert rate == 16000
    padded = np.pad(samples, 400)
    expected = [np.mean(padded[400 + frame * 160 - 200 :][:400] ** 2) for frame in range(len(frames.times_s))]
    assert frames.raw_energy == pytest.approx(np.maximum(expected, 1e-10), rel=5e-6)
    assert np.array_equal(frames.voiced, serfast.features.track_pitch(samples, rate).voiced)
    assert frames.times_s[-1] == pytest.approx(0.01 * (len(expected) - 1))


def test_the_csv_holds_one_line_per_utterance(case: Case, tmp_path: Path):
    study = study_attention(case.result, case.features, case.annotations)
    study.write_csv(tmp_path / "attention.csv")
    with (tmp_path / "attention.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(case.result.predictions)
    for row, item in zip(rows, study.utterances, strict=True):
        assert {name: row[name] for name in ("key", "fold", "speaker", "emotion", "predicted")} == {
            "key": item.prediction.key,
            "fold": item.prediction.fold,
            "speaker": item.prediction.speaker,
            "emotion": item.prediction.emotion,
            "predicted": item.prediction.predicted,
        }
        assert row["correct"] == str(int(item.prediction.predicted == item.prediction.emotion))
        assert int(row["n_frames"]) == item.n_frames
        assert float(row["correlation_raw"]) == item.correlation_raw
        assert float(row["correlation_hidden"]) == item.correlation_hidden
        assert float(row["attention_voiced"]) == item.voiced
        assert [float(row[f"attention_part_{place}"]) for place in range(1, 11)] == list(item.positions)


def test_chosen_utterances_only(case: Case):
    keys = [case.result.predictions[place].key for place in (9, 2)]
    found = {
        frames.prediction.key for frames in attention_frames(case.result, case.features, case.annotations, keys=keys)
    }
    assert found == set(keys)


def test_the_mean_has_even_attention_and_no_correlation(tiny_store: FeatureStore, tmp_path: Path, annotate: Callable):
    result = serfast.train(tiny_store, output=tmp_path / "run", pooling="mean", **QUICK)
    study = study_attention(result, tiny_store, annotate(tiny_store, tmp_path / "annotations"))
    assert len(study.utterances) == len(result.predictions)
    for item in study.utterances:
        assert item.correlation_raw is None
        assert item.correlation_hidden is None
        assert item.positions == pytest.approx([1.0] * 10)


def test_a_study_that_does_not_fit_the_run_is_refused(
    case: Case, tiny_store: FeatureStore, tmp_path: Path, annotate: Callable
):
    with pytest.raises(
        ValueError, match="annotations must be extracted with .*log_energy=True.*, got .*log_energy=False"
    ):
        study_attention(case.result, case.features, case.features)
    with pytest.raises(
        ValueError, match="annotations must hold the recordings that the run scored, got none or another"
    ):
        study_attention(case.result, case.features, case.annotations.restrict(range(5)))
    other = dataclasses.replace(case.features, sources=case.features.sources[::-1])
    with pytest.raises(ValueError, match="features must hold the recordings that the run scored"):
        study_attention(case.result, other, case.annotations)
    result = serfast.train(tiny_store, output=tmp_path / "run", pooling="last", **QUICK)
    with pytest.raises(ValueError, match="the model must pool with attention weights, got pooling last"):
        study_attention(result, tiny_store, annotate(tiny_store, tmp_path / "annotations"))


@pytest.fixture
def annotate() -> Callable[[FeatureStore, Path], FeatureStore]:
    def write(store: FeatureStore, path: Path) -> FeatureStore:
        options = annotation_options(store.options)
        names = serfast.feature_names(options)
        writer = serfast.features.StoreWriter(path, options, names)
        keys = [utterance.key for utterance in store.corpus.utterances]
        for key, source, length in zip(keys, store.sources, store.lengths, strict=True):
            writer.append(key, source, np.random.default_rng(0).standard_normal((length, len(names))))
        annotations = writer.finish(store.corpus, dict(zip(keys, store.sources, strict=True)), {})
        writer.close()
        return annotations

    return write
