import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score, recall_score

from serfast import metrics

EMOTIONS = ("anger", "boredom", "disgust", "fear")


def random_answers(seed: int, n_utterances: int = 60, right: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, len(EMOTIONS), n_utterances)
    predicted = np.where(
        generator.random(n_utterances) < right, truth, generator.integers(0, len(EMOTIONS), n_utterances)
    )
    return truth, predicted


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_scikit_learn(seed: int):
    truth, predicted = random_answers(seed)
    scores = metrics.score(truth, predicted, ["s"] * len(truth), EMOTIONS)
    assert scores.ua == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert scores.wa == pytest.approx(accuracy_score(truth, predicted))
    assert scores.macro_f1 == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert np.array_equal(scores.confusion, confusion_matrix(truth, predicted, labels=range(4)))


def test_an_emotion_absent_from_the_truth_is_left_out_and_named():
    truth, predicted = random_answers(1)
    present = truth != 2
    truth, predicted = truth[present], predicted[present]
    assert (predicted == 2).any()
    scores = metrics.score(truth, predicted, ["s"] * len(truth), EMOTIONS)
    kept = [0, 1, 3]
    assert scores.absent == ("disgust",)
    assert list(scores.recalls) == ["anger", "boredom", "fear"]
    assert scores.ua == pytest.approx(recall_score(truth, predicted, labels=kept, average="macro"))
    assert scores.macro_f1 == pytest.approx(f1_score(truth, predicted, labels=kept, average="macro"))


def test_ua_and_wa_differ_as_they_should_on_unequal_classes():
    truth, predicted = [0] * 90 + [1] * 10, [0] * 100
    scores = metrics.score(truth, predicted, ["s"] * 100, EMOTIONS[:2])
    assert (scores.ua, scores.wa) == (0.5, 0.9)


def test_intervals_are_refused_below_five_speakers():
    truth, predicted = random_answers(0)
    assert metrics.score(truth, predicted, [str(n % 4) for n in range(60)], EMOTIONS).intervals == {}
    assert set(metrics.score(truth, predicted, [str(n % 5) for n in range(60)], EMOTIONS).intervals) == {
        "ua",
        "wa",
        "macro_f1",
    }


def test_interval_of_wa_has_the_width_of_theory_for_equal_speakers():
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 4, 4000)
    predicted = np.where(generator.random(4000) < 0.7, truth, (truth + 1) % 4)
    interval = metrics.score(truth, predicted, [str(n % 400) for n in range(4000)], EMOTIONS).intervals["wa"]
    # Speakers of ten alike utterances: resampling both levels doubles the variance of resampling utterances alone.
    expected = 2 * 1.96 * math.sqrt(2 * 0.7 * 0.3 / 4000)
    assert interval.high - interval.low == pytest.approx(expected, rel=0.15)


def test_interval_is_wider_when_speakers_differ():
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 4, 1000)
    speakers = np.arange(1000) % 10
    alike = np.where(generator.random(1000) < 0.5, truth, (truth + 1) % 4)
    differing = np.where(speakers < 5, truth, (truth + 1) % 4)
    widths = []
    for predicted in (alike, differing):
        interval = metrics.score(truth, predicted, [str(s) for s in speakers], EMOTIONS).intervals["wa"]
        widths.append(interval.high - interval.low)
    assert widths[1] > 3 * widths[0]


def test_permuted_labels_score_chance_within_the_interval():
    truth, predicted = random_answers(3, n_utterances=400, right=1.0)
    shuffled = np.random.default_rng(0).permutation(predicted)
    interval = metrics.score(truth, shuffled, [str(n % 10) for n in range(400)], EMOTIONS).intervals["ua"]
    assert interval.low < 0.25 < interval.high


def test_misuse_is_named():
    with pytest.raises(ValueError, match="equally long and not empty, got 2, 1 and 2"):
        metrics.score([0, 1], [0], ["s", "s"], EMOTIONS)
    with pytest.raises(ValueError, match="predicted must hold indices from 0 to 3, got 0 to 4"):
        metrics.score([0, 1], [0, 4], ["s", "s"], EMOTIONS)
