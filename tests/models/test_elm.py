import numpy as np
import pytest

from serfast.models import ExtremeLearningMachine


def make_clusters(n_utterances: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, n_utterances)
    centres = np.array([[0.0, 0, 40, 0, 0, 7], [2, 0, 40, 0, 0, 7], [0, 2, 40, 0, 0, 7]])
    scales = np.array([0.5, 0.5, 0.1, 1, 1, 0])
    return centres[labels] + scales * generator.standard_normal((n_utterances, 6)), labels


def fit(features: np.ndarray, labels: np.ndarray, **changes: float) -> ExtremeLearningMachine:
    options = {"n_emotions": 3, "n_hidden": 20, "ridge": 0.5, "seed": 0}
    return ExtremeLearningMachine.fit(features, labels, **{**options, **changes})


def hidden_layer(machine: ExtremeLearningMachine, features: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-(features @ machine.weights.T + machine.biases)))


@pytest.mark.parametrize("ridge", [1e-3, 0.5, 100.0])
def test_output_weights_solve_the_ridge_regression(ridge: float):
    features, labels = make_clusters(50)
    machine = fit(features, labels, ridge=ridge)
    targets = np.full((50, 3), -1.0)
    targets[np.arange(50), labels] = 1
    # Ridge regression is least squares with one more equation per unknown.
    left = np.concatenate([hidden_layer(machine, features), np.sqrt(ridge) * np.eye(20)])
    solution = np.linalg.lstsq(left, np.concatenate([targets, np.zeros((20, 3))]), rcond=None)[0]
    np.testing.assert_allclose(machine.output_weights, solution.T, rtol=1e-7, atol=1e-9)


def test_scores_are_the_products_of_hidden_layer_and_output_weights():
    machine = fit(*make_clusters(50))
    unseen, _ = make_clusters(7, seed=1)
    expected = hidden_layer(machine, unseen) @ machine.output_weights.T
    np.testing.assert_allclose(machine.scores(unseen), expected, rtol=1e-9, atol=1e-12)
    exponentials = np.exp(expected)
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(machine.probabilities(unseen), probabilities, rtol=1e-9)


def test_clusters_are_told_apart():
    unseen, labels = make_clusters(300, seed=1)
    scores = fit(*make_clusters(200), n_hidden=60).scores(unseen)
    assert (scores.argmax(axis=1) == labels).mean() > 0.9


def test_scale_and_offset_of_a_feature_change_nothing():
    features, labels = make_clusters(50)
    unseen, _ = make_clusters(20, seed=1)
    scales, offsets = np.array([1e-3, 1, 10, 1e4, 1, 1]), np.array([0, 5, -3, 1e3, 0, 2])
    moved = fit(features * scales + offsets, labels).scores(unseen * scales + offsets)
    np.testing.assert_allclose(moved, fit(features, labels).scores(unseen), rtol=1e-6, atol=1e-8)


def test_a_feature_that_never_changes_in_training_is_never_read():
    features, labels = make_clusters(50)
    unseen, _ = make_clusters(20, seed=1)
    changed = unseen.copy()
    changed[:, 5] = 1e6
    machine = fit(features, labels)
    assert np.array_equal(machine.scores(unseen), machine.scores(changed))


def test_an_answer_has_the_same_bits_in_any_batch():
    machine = fit(*make_clusters(50), n_hidden=37)
    unseen, _ = make_clusters(33, seed=1)
    together = machine.probabilities(unseen)
    alone = np.concatenate([machine.probabilities(row[None]) for row in unseen])
    assert np.array_equal(together, alone)
    assert np.array_equal(machine.probabilities(unseen[::-1]), together[::-1])


def test_the_seed_alone_fixes_the_random_layer():
    features, labels = make_clusters(50)
    first, again, other = (fit(features, labels, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first.scores(features), again.scores(features))
    assert not np.allclose(first.weights, other.weights)


def test_an_emotion_without_utterances_is_never_the_answer():
    features, labels = make_clusters(50)
    scores = fit(features, labels, n_emotions=4).scores(features)
    assert scores.shape == (50, 4)
    assert 3 not in scores.argmax(axis=1)


def test_a_stronger_ridge_shortens_the_output_weights():
    features, labels = make_clusters(50)
    norms = [np.linalg.norm(fit(features, labels, ridge=ridge).output_weights) for ridge in (1e-3, 1e-1, 1e1, 1e3)]
    assert norms == sorted(norms, reverse=True)


def test_wrong_arguments_are_named():
    features, labels = make_clusters(50)
    with pytest.raises(ValueError, match=r"features must have shape \(utterance, feature\).*, got \(0, 6\)"):
        fit(features[:0], labels[:0])
    with pytest.raises(ValueError, match=r"labels must have shape \(50,\), got \(49,\)"):
        fit(features, labels[1:])
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.1, got \(0, 2\)"):
        fit(features, labels, n_emotions=2)
    with pytest.raises(ValueError, match="ridge must be above 0, got 0"):
        fit(features, labels, ridge=0.0)
