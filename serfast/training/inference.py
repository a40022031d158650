"""A trained model's answers for utterances."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from serfast.features import FrameSource
from serfast.models import EmotionClassifier, EmotionEnsemble, softmax
from serfast.training.batches import ordered_batches
from serfast.training.loading import BatchLoader

__all__ = ["Answers", "answer", "answer_loaded"]


@dataclass(frozen=True)
class Answers:
    """Logits (utterance, emotion) and, per utterance, attention weights (frame,) or None without attention."""

    logits: NDArray[np.float32]
    attention_weights: list[NDArray[np.float32] | None]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Index of the emotion with the largest logit, (utterance,)."""
        return np.asarray(self.logits.argmax(axis=1))

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Softmax of the logits, (utterance, emotion)."""
        return softmax(self.logits)


def answer(
    model: EmotionClassifier | EmotionEnsemble,
    source: FrameSource,
    indices: Sequence[int],
    *,
    batch_size: int,
    device: torch.device,
) -> Answers:
    """Run ``model`` in evaluation mode over utterances of a standardised source, at least one, and answer in order."""
    return answer_loaded(model, BatchLoader(source, device), indices, batch_size=batch_size)


@torch.inference_mode()
def answer_loaded(
    model: EmotionClassifier | EmotionEnsemble, loader: BatchLoader, indices: Sequence[int], *, batch_size: int
) -> Answers:
    """As :func:`answer`, for utterances of the source of ``loader``."""
    was_training = model.training
    model.eval()
    chosen = np.asarray(indices, dtype=np.int64)
    lengths = loader.lengths[chosen]
    batches = ordered_batches(range(len(chosen)), lengths, batch_size)
    loader.expect([chosen[places] for places in batches])
    logits: dict[int, NDArray[np.float32]] = {}
    weights: dict[int, NDArray[np.float32] | None] = {}
    for places in batches:
        batch = loader.load(chosen[places])
        batch_logits, batch_weights = model(batch.features, batch.lengths)
        logits.update(zip(places.tolist(), batch_logits.cpu().numpy(), strict=True))
        pieces: list[NDArray[np.float32] | None] = [None] * len(places)
        if batch_weights is not None:
            pieces = list(np.split(batch_weights.cpu().numpy(), np.cumsum(lengths[places])[:-1]))
        weights.update(zip(places.tolist(), pieces, strict=True))
    model.train(was_training)
    in_order = range(len(chosen))
    return Answers(np.stack([logits[place] for place in in_order]), [weights[place] for place in in_order])
