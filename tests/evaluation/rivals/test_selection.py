from dataclasses import dataclass

import numpy as np

from serfast.evaluation.rivals.selection import select_by_validation


@dataclass(frozen=True)
class Fixed:
    predicted: tuple[int, ...]

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        return np.eye(3)[list(self.predicted)] * features


def select(answers: dict[float, tuple[int, ...]], truth: list[int]) -> float:
    value, classifier = select_by_validation(
        lambda value: Fixed(answers[value]), list(answers), np.ones((len(truth), 1)), np.array(truth)
    )
    assert classifier == Fixed(answers[value])
    return value


def test_the_mean_of_recalls_decides_and_not_the_share_of_right_answers():
    truth = [0, 0, 0, 0, 0, 0, 1, 2]
    frequent, rare = (0, 0, 0, 0, 0, 0, 0, 0), (0, 0, 1, 1, 1, 1, 1, 2)
    assert select({1.0: frequent, 2.0: rare}, truth) == 2.0
    assert select({2.0: rare, 1.0: frequent}, truth) == 2.0


def test_of_equals_the_first_is_taken():
    truth = [0, 1, 2]
    assert select({3.0: (1, 1, 1), 1.0: (0, 1, 0), 2.0: (0, 1, 1), 0.5: (0, 2, 1)}, truth) == 1.0


def test_an_emotion_that_the_validation_part_lacks_does_not_count():
    assert select({1.0: (0, 1, 1), 2.0: (0, 0, 1)}, [0, 0, 1]) == 2.0
