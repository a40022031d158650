"""A trained model's answers for utterances."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from serfast.features import Normaliser
from serfast.models import EmotionClassifier
from serfast.training.batches import FrameSource, load_batch, ordered_batches

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


@torch.inference_mode()
def answer(
    model: EmotionClassifier,
    source: FrameSource,
    normaliser: Normaliser,
    indices: Sequence[int],
    *,
    batch_size: int,
    device: torch.device,
) -> Answers:
    """Run ``model`` in evaluation mode over the utterances ``indices`` and answer in their order."""
    was_training = model.training
    model.eval()
    place_of = {index: place for place, index in enumerate(indices)}
    logits: dict[int, NDArray[np.float32]] = {}
    weights: list[NDArray[np.float32] | None] = [None] * len(indices)
    for chosen in ordered_batches(indices, source.lengths, batch_size):
        batch = load_batch(source, normaliser, chosen, device)
        batch_logits, batch_weights = model(batch.features, batch.lengths)
        places = [place_of[int(index)] for index in chosen]
        logits.update(zip(places, batch_logits.cpu().numpy(), strict=True))
        if batch_weights is not None:
            ends = np.cumsum(source.lengths[chosen])[:-1]
            for place, utterance_weights in zip(places, np.split(batch_weights.cpu().numpy(), ends), strict=True):
                weights[place] = utterance_weights
    model.train(was_training)
    return Answers(np.stack([logits[place] for place in range(len(indices))]), weights)
