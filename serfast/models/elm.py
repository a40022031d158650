"""The extreme learning machine: a random hidden layer, and output weights in closed form."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from serfast.checks import require
from serfast.models.softmax import softmax
from serfast.ops import linear

__all__ = ["ExtremeLearningMachine"]


@dataclass(frozen=True)
class ExtremeLearningMachine:
    r"""One random hidden layer of sigmoid units, and output weights that minimise a ridge regression.

    .. math:: h = \sigma(W x + b), \qquad
        B = \arg\min_B \sum_u \lVert B h_u - t_u \rVert^2 + \lambda \lVert B \rVert^2

    The target :math:`t_u` is 1 for the utterance's emotion and -1 for every other.

    Attributes:
        weights: :math:`W`, shape (unit, feature), float64, the standardisation of the features included.
        biases: :math:`b`, shape (unit,), float64, likewise.
        output_weights: :math:`B`, shape (emotion, unit), float64.

    Source: Huang, Zhu and Siew (2006), "Extreme learning machine: theory and applications"; the ridge is that of Huang,
    Zhou, Ding and Zhang (2012), "Extreme learning machine for regression and multiclass classification".
    """

    weights: NDArray[np.float64]
    biases: NDArray[np.float64]
    output_weights: NDArray[np.float64]

    @classmethod
    def fit(
        cls,
        features: NDArray[np.float64],
        labels: NDArray[np.int64],
        *,
        n_emotions: int,
        n_hidden: int,
        ridge: float,
        seed: int,
    ) -> "ExtremeLearningMachine":
        r"""Learn from utterances; equal arguments give equal machines.

        The hidden layer is drawn evenly from -1 to 1 for features that are standardised with the mean and deviation of
        ``features``, population deviation; one that never changes counts as 0.

        Args:
            features: of the training part alone, shape (utterance, feature), any floating type.
            labels: emotion of each utterance, shape (utterance,), in 0..n_emotions - 1.
            n_emotions: classes; one that is not in ``labels`` scores about -1.
            n_hidden: units of the random layer.
            ridge: weight :math:`\lambda` of the squared output weights, above 0.
            seed: fixes the random layer.

        Raises:
            ValueError: if there are no features, a shape does not fit, a label is out of range or the ridge is not
                above 0.
        """
        features = np.ascontiguousarray(features, dtype=np.float64)
        is_table = features.ndim == 2 and features.size > 0
        require("features", "have shape (utterance, feature), neither of them 0", features.shape, is_table)
        require("labels", f"have shape ({len(features)},)", labels.shape, labels.shape == (len(features),))
        in_range = labels.min() >= 0 and labels.max() < n_emotions
        require("labels", f"lie in 0..{n_emotions - 1}", (int(labels.min()), int(labels.max())), bool(in_range))
        require("ridge", "be above 0", ridge, ridge > 0)
        generator = np.random.default_rng(seed)
        random_weights = generator.uniform(-1, 1, (n_hidden, features.shape[1]))
        random_biases = generator.uniform(-1, 1, n_hidden)
        mean, deviation = features.mean(axis=0), features.std(axis=0)
        deviation[deviation <= 1e-9 * np.maximum(1.0, np.abs(mean))] = np.inf
        weights = random_weights / deviation
        biases = random_biases - weights @ mean
        hidden = _hidden(features, weights, biases)
        targets = np.where(labels[:, None] == np.arange(n_emotions), 1.0, -1.0)
        gram = hidden.T @ hidden + ridge * np.eye(n_hidden)
        return cls(weights, biases, np.linalg.solve(gram, hidden.T @ targets).T.copy())

    def scores(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores (utterance, emotion) of features (utterance, feature); the same bits in any batch."""
        hidden = _hidden(np.ascontiguousarray(features, dtype=np.float64), self.weights, self.biases)
        return linear(torch.from_numpy(hidden), torch.from_numpy(self.output_weights)).numpy()

    def probabilities(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Softmax of the scores, (utterance, emotion). They rank the emotions; nothing calibrates them."""
        return softmax(self.scores(features))


def _hidden(
    features: NDArray[np.float64], weights: NDArray[np.float64], biases: NDArray[np.float64]
) -> NDArray[np.float64]:
    # (utterance, feature) -> (utterance, unit)
    activations = linear(torch.from_numpy(features), torch.from_numpy(weights), torch.from_numpy(biases))
    return np.asarray((1 + np.tanh(activations.numpy() / 2)) / 2)
