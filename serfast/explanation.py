"""Why a model named an emotion: one recording's waveform, pitch and attention on one time axis."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serfast import audio
from serfast.features import track_pitch
from serfast.recognizer import Prediction, Recognizer

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True, eq=False)
class Explanation:
    """A prediction beside the recording that it is for.

    Attributes:
        prediction: emotion, probabilities and attention weights (frame,), which are None for a model without them, and
            the centres of the frames in seconds.
        pooling: how the model pools frames.
        waveform: what the model heard (sample,), at ``sample_rate``.
        sample_rate: samples per second.
        f0_hz: fundamental frequency of every frame (frame,), 0 where unvoiced.
    """

    prediction: Prediction
    pooling: str
    waveform: NDArray[np.float32]
    sample_rate: int
    f0_hz: NDArray[np.float32]

    @property
    def duration_s(self) -> float:
        """Length of the recording in seconds."""
        return len(self.waveform) / self.sample_rate

    def to_dict(self) -> dict[str, Any]:
        """All but the waveform, JSON-safe; ``f0_hz`` is None where unvoiced."""
        return {
            **self.prediction.to_dict(),
            "pooling": self.pooling,
            "duration_s": self.duration_s,
            "f0_hz": [float(value) if value > 0 else None for value in self.f0_hz],
        }


def explain(model: Recognizer | str | Path, path: str | Path) -> Explanation:
    """Explain a model's answer for the recording ``path``.

    Args:
        model: a recognizer, or the folder of a training run or of one fold, which is loaded. A recognizer that was
            trained with normalisation "speaker" must have the speaker enrolled.
        path: the recording.

    Raises:
        ValueError: if the model needs to know the speaker and none was enrolled.
        CorpusError: if the folder holds no model or the recording cannot be read.
    """
    recognizer = model if isinstance(model, Recognizer) else Recognizer.load(model)
    (prediction,) = recognizer.predict([path])
    options = recognizer.feature_options
    clip = audio.read(path, sample_rate=options.sample_rate)
    pitch = track_pitch(clip.waveform, clip.sample_rate, options)
    return Explanation(prediction, recognizer.model.options.pooling, clip.waveform, clip.sample_rate, pitch.f0_hz)
