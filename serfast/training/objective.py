"""What an emotion classifier is trained to do on one fold: its labels, its loss, its validation."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (torch's own name)

from serfast import metrics
from serfast.corpora import Fold
from serfast.features import FeatureStore
from serfast.training.batches import NO_EMOTION
from serfast.training.inference import Answers
from serfast.training.loop import Validation
from serfast.training.options import TrainingOptions

__all__ = ["Objective"]


class Objective:
    """Cross entropy of the emotions of a store's utterances, weighted and smoothed as ``options`` say."""

    def __init__(self, store: FeatureStore, fold: Fold, options: TrainingOptions, device: torch.device) -> None:
        self.labels = np.array(store.corpus.labels(), dtype=np.int64)
        self.n_emotions = len(store.corpus.emotions)
        self._device = device
        self._smoothing = options.label_smoothing
        self._class_weights = self._balanced(fold.train) if options.class_weights else np.ones(self.n_emotions)
        # NO_EMOTION is the index of the last one, which is 0.
        weights = torch.tensor([*self._class_weights, 0.0], dtype=torch.float32, device=device)
        self._weights = weights if options.class_weights else None

    def truth(self, indices: NDArray[np.int64]) -> Tensor:
        """Emotions (batch,) of the utterances ``indices``, on the device."""
        return torch.from_numpy(self.labels[indices]).to(self._device, non_blocking=True)

    def loss(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Mean loss of logits (batch, emotion) of utterances whose emotions are ``truth`` (batch,).

        Those of NO_EMOTION count for nothing.
        """
        cross_entropy = partial(F.cross_entropy, label_smoothing=self._smoothing, ignore_index=NO_EMOTION)
        if self._weights is None:
            return cross_entropy(logits, truth)
        # Divided here: for the mean of weighted, smoothed losses torch waits for the GPU.
        summed = cross_entropy(logits, truth, weight=self._weights[:-1], reduction="sum")
        return summed / self._weights[truth].sum()

    def weights(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """What each of the utterances ``indices`` weighs in their mean loss, (batch,)."""
        return self._class_weights[self.labels[indices]]

    def validate(self, answers: Answers, indices: Sequence[int]) -> Validation:
        """Plain mean cross entropy and confusion of answers for the utterances ``indices``."""
        truth = self.labels[list(indices)]
        loss = float(F.cross_entropy(torch.from_numpy(answers.logits), torch.from_numpy(truth)))
        return Validation(loss, metrics.confusion_matrix(truth, answers.predicted, self.n_emotions))

    def _balanced(self, train: Sequence[int]) -> NDArray[np.float64]:
        # Inverse shares, 1 on average over the utterances; an emotion that is never trained weighs nothing.
        counts = np.bincount(self.labels[list(train)], minlength=self.n_emotions)
        return np.where(counts > 0, len(train) / (np.count_nonzero(counts) * np.maximum(counts, 1)), 0.0)
