import numpy as np

from serfast.models import posterior_statistics

LENGTHS = np.array([4, 1, 30])


def make_posteriors() -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.full(3, 0.4), int(LENGTHS.sum()))


def test_statistics_of_known_posteriors():
    posteriors = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.1, 0.25, 0.65], [0.5, 0.15, 0.35], [0.2, 0.3, 0.5]])
    found = posterior_statistics(posteriors, np.array([4, 1]))
    first = [0.7, 0.6, 0.65, 0.1, 0.15, 0.1, 0.35, 0.3, 0.35, 0.5, 0.5, 0.75]
    second = [0.2, 0.3, 0.5] * 3 + [0, 1, 1]  # a posterior at the threshold does not exceed it
    np.testing.assert_allclose(found, [first, second], rtol=1e-12)


def test_statistics_of_each_emotion_and_utterance_alone():
    posteriors = make_posteriors()
    found = posterior_statistics(posteriors, LENGTHS, threshold=0.5)
    last = 0
    for utterance, length in enumerate(LENGTHS):
        first, last = last, last + length
        for emotion in range(3):
            series = sorted(posteriors[first:last, emotion].tolist())
            share = sum(value > 0.5 for value in series) / length
            expected = [series[-1], series[0], sum(series) / length, share]
            np.testing.assert_allclose(found[utterance, emotion::3], expected, rtol=1e-12)


def test_other_utterances_change_nothing():
    posteriors = make_posteriors()
    together = posterior_statistics(posteriors, LENGTHS)
    assert np.array_equal(together[1:2], posterior_statistics(posteriors[4:5], LENGTHS[1:2]))
    assert np.array_equal(together[2:], posterior_statistics(posteriors[5:], LENGTHS[2:]))
