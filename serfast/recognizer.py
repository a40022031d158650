"""A trained model with all it needs to name the emotion of a recording."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from serfast.errors import CorpusError
from serfast.features import FeatureOptions, FeatureStore, Normaliser, extract_file, frame_times_s
from serfast.models import EmotionClassifier, ModelOptions
from serfast.ops import resolve_device
from serfast.training import Answers, answer
from serfast.training.checkpoint import load_tensors, merge_tensors, save_tensors, select_tensors

__all__ = ["Prediction", "Recognizer"]

MODEL = "model.safetensors"


@dataclass(frozen=True)
class Prediction:
    """The model's answer for one recording.

    ``probabilities`` and ``logits`` map every emotion to its value. ``attention_weights`` (frame,) sum to 1 and belong
    to the frames centred at ``times_s`` (frame,), in seconds; None for a model that pools without weights.
    """

    path: Path
    emotion: str
    probabilities: dict[str, float]
    logits: dict[str, float]
    attention_weights: NDArray[np.float32] | None
    times_s: NDArray[np.float64]

    def to_dict(self) -> dict[str, Any]:
        """All of it, JSON-safe."""
        weights = None if self.attention_weights is None else self.attention_weights.tolist()
        return {
            "path": str(self.path),
            "emotion": self.emotion,
            "probabilities": self.probabilities,
            "logits": self.logits,
            "attention_weights": weights,
            "times_s": self.times_s.tolist(),
        }


@dataclass(frozen=True)
class Recognizer:
    """A trained classifier, the normaliser of its training part, and the options its features need."""

    model: EmotionClassifier
    normaliser: Normaliser
    emotions: tuple[str, ...]
    feature_options: FeatureOptions
    model_options: ModelOptions
    device: torch.device

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "auto") -> "Recognizer":
        """Load the model of a training run, or of one fold of a cross-validation.

        Raises:
            CorpusError: if ``folder`` holds no model or one of another version of serfast; for a whole cross-validation
                the error lists its folds.
        """
        folder = Path(folder)
        if not (folder / MODEL).is_file():
            folds = sorted(path.parent.name for path in folder.glob(f"folds/*/{MODEL}"))
            remedy = f": it is a cross-validation, name one of its folds: {', '.join(folds)}" if folds else ""
            raise CorpusError(f"{folder} must hold a trained model ({MODEL}), got none{remedy}")
        tensors, facts = load_tensors(folder / MODEL)
        try:
            model_options, emotions = ModelOptions(**facts["model"]), tuple(facts["emotions"])
            options, digest = FeatureOptions.from_dict(facts["features"]), facts["features_digest"]
        except (KeyError, TypeError, ValueError) as error:
            raise CorpusError(f"{folder / MODEL} must be a model of this version of serfast, got {error}") from error
        if digest != options.digest():
            raise CorpusError(f"{folder / MODEL} must expect features of this version of serfast, got other ones")
        normaliser = Normaliser(
            **{name: tensor.numpy() for name, tensor in select_tensors(tensors, "normaliser").items()}
        )
        model = EmotionClassifier(len(normaliser.mean), len(emotions), model_options)
        model.load_state_dict(select_tensors(tensors, "model"))
        where = resolve_device(device)
        return cls(model.to(where).eval(), normaliser, emotions, options, model_options, where)

    def save(self, folder: Path) -> None:
        """Write the one file that :meth:`load` reads."""
        normaliser = {name: torch.from_numpy(value) for name, value in vars(self.normaliser).items()}
        tensors = merge_tensors(model=self.model.state_dict(), normaliser=normaliser)
        facts = {
            "emotions": list(self.emotions),
            "features": self.feature_options.to_dict(),
            "features_digest": self.feature_options.digest(),
            "model": asdict(self.model_options),
        }
        save_tensors(folder / MODEL, tensors, facts)

    def predict(self, paths: Sequence[str | Path], *, batch_size: int = 16) -> list[Prediction]:
        """Name the emotion of each recording. The answer for one does not depend on the others or on ``batch_size``.

        Raises:
            CorpusError: naming the file, if a recording cannot be read.
        """
        if isinstance(paths, (str, Path)):
            raise TypeError(f"paths must be a list of files, got the single path {str(paths)!r}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if not paths:
            return []
        clips = _Clips([extract_file(Path(path), self.feature_options) for path in paths])
        answers = answer(
            self.model, clips, self.normaliser, range(len(paths)), batch_size=batch_size, device=self.device
        )
        return [
            self._prediction(Path(path), answers, place, int(clips.lengths[place])) for place, path in enumerate(paths)
        ]

    def answer_store(self, store: FeatureStore, indices: Sequence[int], *, batch_size: int = 16) -> Answers:
        """Answers for utterances of a feature store, in the order of ``indices``.

        Raises:
            ValueError: if the store's features were made with other options than the model's.
        """
        if store.options.digest() != self.feature_options.digest():
            raise ValueError(f"store {store.path} must hold features of the model's options, got {store.options}")
        return answer(self.model, store, self.normaliser, indices, batch_size=batch_size, device=self.device)

    def _prediction(self, path: Path, answers: Answers, place: int, n_frames: int) -> Prediction:
        def by_emotion(values: NDArray[Any]) -> dict[str, float]:
            return dict(zip(self.emotions, values[place].tolist(), strict=True))

        return Prediction(
            path=path,
            emotion=self.emotions[answers.predicted[place]],
            probabilities=by_emotion(answers.probabilities),
            logits=by_emotion(answers.logits),
            attention_weights=answers.attention_weights[place],
            times_s=frame_times_s(n_frames, self.feature_options),
        )


class _Clips:
    # Features of recordings in memory, read like a store.
    def __init__(self, features: list[NDArray[np.float32]]) -> None:
        self._features = features
        self.lengths = np.array([len(clip) for clip in features], dtype=np.int64)

    def gather(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.concatenate([self._features[index] for index in indices])
