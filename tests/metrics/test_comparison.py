import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serfast import metrics


def noisy(truth: np.ndarray, n_seeds: int, right: float, n_emotions: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    wrong = generator.integers(0, n_emotions, (n_seeds, len(truth)))
    return np.where(generator.random((n_seeds, len(truth))) < right, truth, wrong)


def test_equal_answers_differ_by_nothing_whatever_the_order_of_their_seeds():
    truth = np.arange(90) % 3
    answers = noisy(truth, 3, 0.6, 3, seed=0)
    speakers = [str(n % 6) for n in range(90)]
    for other in (answers, answers[[2, 0, 1]]):
        found = metrics.compare(truth, answers, other, speakers, 3)
        for difference in (found.ua, found.wa):
            assert difference.value == pytest.approx(0, abs=1e-12)
            assert (difference.interval.low, difference.interval.high) == (0, 0)
            assert difference.p == 1


def test_five_speakers_of_one_utterance_follow_the_binomial_distribution():
    # Four speakers gain an utterance, one loses it: with k draws of that one the difference is (5 - 2 k) / 5.
    truth = np.zeros(5, dtype=np.int64)
    first, second = np.array([[0, 0, 0, 0, 1]]), np.array([[1, 1, 1, 1, 0]])
    found = metrics.compare(truth, first, second, list("abcde"), 2)
    at_least_three = sum(math.comb(5, k) * 0.2**k * 0.8 ** (5 - k) for k in (3, 4, 5))
    for difference in (found.ua, found.wa):
        assert difference.value == pytest.approx(3 / 5)
        assert difference.p == pytest.approx(2 * at_least_three, abs=0.025)
        assert difference.interval.low == pytest.approx((5 - 2 * 3) / 5)
        assert difference.interval.high == pytest.approx(1)


def test_the_order_of_the_two_systems_turns_the_sign_and_nothing_else():
    truth = np.arange(200) % 4
    first, second = noisy(truth, 2, 0.7, 4, seed=1), noisy(truth, 3, 0.6, 4, seed=2)
    speakers = [str(n % 8) for n in range(200)]
    there, back = metrics.compare(truth, first, second, speakers, 4), metrics.compare(truth, second, first, speakers, 4)
    assert there.ua.value == pytest.approx(-back.ua.value)
    assert there.ua.p == pytest.approx(back.ua.p, abs=0.05)
    assert there.wa.interval.low == pytest.approx(-back.wa.interval.high, abs=0.02)


def test_pairing_finds_a_small_gain_that_separate_intervals_hide():
    truth = np.arange(400) % 4
    worse = noisy(truth, 1, 0.5, 4, seed=3)
    better = worse.copy()
    better[0, ::7] = truth[::7]
    speakers = [str(n % 10) for n in range(400)]
    found = metrics.compare(truth, better, worse, speakers, 4)
    assert found.wa.value > 0
    assert found.wa.p < 0.05
    intervals = [metrics.bootstrap_intervals(truth, answers, speakers, 4)["wa"] for answers in (better, worse)]
    assert intervals[0].low < intervals[1].high


def test_intervals_are_those_of_drawing_speakers_and_utterances_one_by_one():
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 3, 60)
    first, second = noisy(truth, 2, 0.8, 3, seed=4), noisy(truth, 3, 0.5, 3, seed=5)
    speakers = generator.integers(0, 6, 60)
    ua, wa = [], []
    for _ in range(4000):
        drawn = np.concatenate(
            [
                generator.choice(np.flatnonzero(speakers == speaker), (speakers == speaker).sum())
                for speaker in generator.choice(6, 6)
            ]
        )
        present = [emotion for emotion in range(3) if (truth[drawn] == emotion).any()]

        def scores(answers: np.ndarray, drawn: np.ndarray = drawn, present: list = present) -> tuple[float, float]:
            right = answers[:, drawn] == truth[drawn]
            return np.mean([right[:, truth[drawn] == emotion].mean() for emotion in present]), right.mean()

        ua.append(scores(first)[0] - scores(second)[0])
        wa.append(scores(first)[1] - scores(second)[1])
    found = metrics.compare(truth, first, second, [str(speaker) for speaker in speakers], 3)
    for difference, expected in ((found.ua, ua), (found.wa, wa)):
        assert difference.interval.low == pytest.approx(np.quantile(expected, 0.025), abs=0.025)
        assert difference.interval.high == pytest.approx(np.quantile(expected, 0.975), abs=0.025)


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says():
    # Ten speakers whose gain varies; the true gain of WA is 0.1.
    n_covered, n_trials = 0, 200
    for trial in range(n_trials):
        generator = np.random.default_rng(trial)
        speakers = np.repeat(np.arange(10), 20)
        gain = np.repeat(generator.normal(0.1, 0.1, 10), 20)
        truth = np.zeros(200, dtype=np.int64)
        first = (generator.random((1, 200)) > 0.5 + gain).astype(np.int64)
        second = (generator.random((1, 200)) > 0.5).astype(np.int64)
        interval = metrics.compare(truth, first, second, [str(speaker) for speaker in speakers], 2).wa.interval
        n_covered += interval.low <= 0.1 <= interval.high
    assert 0.90 <= n_covered / n_trials <= 0.99


def test_fewer_than_five_speakers_and_other_utterances_are_refused():
    truth, answers = np.zeros(8, dtype=np.int64), np.zeros((1, 8), dtype=np.int64)
    with pytest.raises(ValueError, match="speakers must be at least 5 for a paired test, got 4"):
        metrics.compare(truth, answers, answers, [str(n % 4) for n in range(8)], 2)
    with pytest.raises(ValueError, match=r"must hold 8 utterances, got \(8, 7, 8\)"):
        metrics.compare(truth, answers, answers[:, :7], [str(n) for n in range(8)], 2)


def test_holm_corrects_as_by_hand():
    # Sorted: 4 * 0.005, 3 * 0.01, 2 * 0.03, and 1 * 0.04, which may not fall below its predecessor.
    assert metrics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert metrics.holm([0.9, 0.6]) == [1, 1]
    assert metrics.holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.5))
def test_holm_rejects_what_the_stepwise_procedure_rejects(p_values: list[float], level: float):
    rejected, rest = set(), dict(enumerate(p_values))
    while rest:
        smallest = min(rest, key=rest.get)
        if rest[smallest] * len(rest) > level:
            break
        rejected.add(smallest)
        del rest[smallest]
    assert {place for place, p in enumerate(metrics.holm(p_values)) if p <= level} == rejected
