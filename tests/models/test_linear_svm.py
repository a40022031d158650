import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from serfast.models import LinearSvm


def make_clusters(n_utterances: int, *, n_emotions: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, n_emotions, n_utterances)
    features = generator.standard_normal((n_utterances, 6)) * [1, 1, 1, 50, 0.01, 0] + [0, 0, 0, 300, 1, 7]
    features[np.arange(n_utterances), labels] += 2
    return features, labels


def test_scores_are_those_of_the_library_on_standardised_features():
    features, labels = make_clusters(200)
    unseen, _ = make_clusters(50, seed=1)
    found = LinearSvm.fit(features, labels, n_emotions=3, cost=0.03).scores(unseen)
    pipeline = make_pipeline(StandardScaler(), LinearSVC(C=0.03, dual=False, class_weight="balanced"))
    np.testing.assert_allclose(found, pipeline.fit(features, labels).decision_function(unseen), rtol=1e-9, atol=1e-9)


def test_two_emotions_share_the_margin_between_them():
    features, labels = make_clusters(200, n_emotions=2)
    found = LinearSvm.fit(features, labels, n_emotions=2, cost=0.03)
    pipeline = make_pipeline(StandardScaler(), LinearSVC(C=0.03, dual=False, class_weight="balanced"))
    distances = pipeline.fit(features, labels).decision_function(features)
    np.testing.assert_allclose(found.probabilities(features)[:, 1], 1 / (1 + np.exp(-distances)), rtol=1e-9)


def test_an_emotion_without_utterances_has_no_probability():
    features, labels = make_clusters(200)
    kept = labels != 1
    for n_emotions in (3, 4):
        whole = LinearSvm.fit(features[kept], labels[kept], n_emotions=n_emotions, cost=0.03).probabilities(features)
        assert np.array_equal(whole.min(axis=0) > 0, [True, False, True, False][:n_emotions])
        assert (whole.argmax(axis=1) == labels)[kept].mean() > 0.8


def test_a_rare_emotion_counts_as_much_as_a_frequent_one():
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], [400, 20])
    features = generator.standard_normal((420, 1)) + labels[:, None]
    found = LinearSvm.fit(features, labels, n_emotions=2, cost=0.1).scores(features).argmax(axis=1)
    assert min((found == labels)[labels == emotion].mean() for emotion in (0, 1)) > 0.55


def test_scale_and_offset_of_a_feature_change_nothing():
    features, labels = make_clusters(100)
    scales, offsets = np.array([1e-3, 1, 10, 1e4, 1, 1]), np.array([0, 5, -3, 1e3, 0, 2])
    found = LinearSvm.fit(features * scales + offsets, labels, n_emotions=3, cost=0.03)
    expected = LinearSvm.fit(features, labels, n_emotions=3, cost=0.03).scores(features)
    np.testing.assert_allclose(found.scores(features * scales + offsets), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("n_emotions", [2, 3])
def test_an_answer_has_the_same_bits_in_any_batch(n_emotions: int):
    features, labels = make_clusters(100, n_emotions=n_emotions)
    machine = LinearSvm.fit(features, labels, n_emotions=n_emotions, cost=0.03)
    together = machine.probabilities(features)
    assert np.array_equal(np.concatenate([machine.probabilities(row[None]) for row in features]), together)
    assert np.array_equal(machine.probabilities(features[::-1]), together[::-1])
