"""A trained model's answers for utterances."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from serfast.features import FrameSource
from serfast.models import EmotionClassifier, softmax
from serfast.training.batches import load_batch, ordered_batches

__all__ = ["Answers", "answer"]


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


@torch.inference_mode()
def answer(
    model: EmotionClassifier,
    source: FrameSource,
    indices: Sequence[int],
    *,
    batch_size: int,
    device: torch.device,
) -> Answers:
    """Run ``model`` in evaluation mode over utterances of a standardised source, at least one, and answer in order."""
    was_training = model.training
    model.eval()
    chosen = np.asarray(indices, dtype=np.int64)
    lengths = source.lengths[chosen]
    logits: dict[int, NDArray[np.float32]] = {}
    weights: dict[int, NDArray[np.float32] | None] = {}
    for places in ordered_batches(range(len(chosen)), lengths, batch_size):
        batch = load_batch(source, chosen[places], device)
        batch_logits, batch_weights = model(batch.features, batch.lengths)
        logits.update(zip(places.tolist(), batch_logits.cpu().numpy(), strict=True))
        pieces: list[NDArray[np.float32] | None] = [None] * len(places)
        if batch_weights is not None:
            pieces = list(np.split(batch_weights.cpu().numpy(), np.cumsum(lengths[places])[:-1]))
        weights.update(zip(places.tolist(), pieces, strict=True))
    model.train(was_training)
    in_order = range(len(chosen))
    return Answers(np.stack([logits[place] for place in in_order]), [weights[place] for place in in_order])
