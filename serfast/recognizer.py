"""A trained model with all it needs to name the emotion of a recording."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from serfast.errors import CorpusError
from serfast.features import (
    FeatureOptions,
    FeatureStore,
    Normaliser,
    StandardisedSource,
    extract_file,
    feature_names,
    frame_times_s,
    speaker_source,
)
from serfast.models import EmotionClassifier, EmotionEnsemble, ModelOptions
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
    """A trained classifier or ensemble, the normaliser of its training part, and the options its features need.

    ``normaliser`` is None where training standardised each speaker's recordings by their own statistics; then
    :meth:`enroll` must come before :meth:`predict`.
    """

    model: EmotionClassifier | EmotionEnsemble
    normaliser: Normaliser | None
    emotions: tuple[str, ...]
    feature_options: FeatureOptions
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
            model_options, n_models = ModelOptions(**facts["model"]), int(facts["n_models"])
            emotions = tuple(facts["emotions"])
            options, digest = FeatureOptions.from_dict(facts["features"]), facts["features_digest"]
        except (KeyError, TypeError, ValueError) as error:
            raise CorpusError(f"{folder / MODEL} must be a model of this version of serfast, got {error}") from error
        if digest != options.digest():
            raise CorpusError(f"{folder / MODEL} must expect features of this version of serfast, got other ones")
        statistics = {name: tensor.numpy() for name, tensor in select_tensors(tensors, "normaliser").items()}
        normaliser = Normaliser(**statistics) if statistics else None
        shape = len(feature_names(options)), len(emotions), model_options
        classifiers = [EmotionClassifier(*shape) for _ in range(n_models)]
        model = classifiers[0] if n_models == 1 else EmotionEnsemble(classifiers)
        model.load_state_dict(select_tensors(tensors, "model"))
        where = resolve_device(device)
        return cls(model.to(where).eval(), normaliser, emotions, options, where)

    def save(self, folder: Path) -> None:
        """Write the one file that :meth:`load` reads."""
        statistics = {} if self.normaliser is None else vars(self.normaliser)
        normaliser = {name: torch.from_numpy(value) for name, value in statistics.items()}
        tensors = merge_tensors(model=self.model.state_dict(), normaliser=normaliser)
        facts = {
            "emotions": list(self.emotions),
            "features": self.feature_options.to_dict(),
            "features_digest": self.feature_options.digest(),
            "model": asdict(self.model.options),
            "n_models": len(self.model.classifiers) if isinstance(self.model, EmotionEnsemble) else 1,
        }
        save_tensors(folder / MODEL, tensors, facts)

    def enroll(self, paths: Sequence[str | Path]) -> "Recognizer":
        """A recognizer for one speaker, whose recordings it standardises with the statistics of these.

        They need no label; the more of them and the more emotions in them, the better. For another speaker begin with
        the recognizer as it was loaded.

        Raises:
            ValueError: if no recording is given, or there is a normaliser already: of the training part, which the
                model was made for, or of a speaker.
            CorpusError: naming the file, if a recording cannot be read.
        """
        if self.normaliser is not None:
            raise ValueError(
                "the recognizer must be one as loaded that was trained with normalisation 'speaker' to enroll "
                "recordings, got one that has a normaliser"
            )
        clips = self._read(paths)
        if not len(clips.lengths):
            raise ValueError("paths must name at least one recording to enroll, got none")
        return replace(self, normaliser=Normaliser.fit(clips, range(len(clips.lengths))))

    def predict(self, paths: Sequence[str | Path], *, batch_size: int = 16) -> list[Prediction]:
        """Name the emotion of each recording. The answer for one does not depend on the others or on ``batch_size``.

        Raises:
            ValueError: if the model standardises each speaker's recordings and none were enrolled.
            CorpusError: naming the file, if a recording cannot be read.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if self.normaliser is None:
            raise ValueError(
                "the recognizer must know the speaker, got one trained with normalisation 'speaker': "
                "call enroll with recordings of that speaker first"
            )
        clips = self._read(paths)
        if not len(clips.lengths):
            return []
        standardised = StandardisedSource(clips, [self.normaliser])
        answers = answer(self.model, standardised, range(len(paths)), batch_size=batch_size, device=self.device)
        return [
            self._prediction(Path(path), answers, place, int(clips.lengths[place])) for place, path in enumerate(paths)
        ]

    def standardised(self, store: FeatureStore) -> StandardisedSource:
        """The utterances of a feature store as the model reads them.

        Without a normaliser each speaker's recordings in the store are standardised by their own statistics.

        Raises:
            ValueError: if the store's features were made with other options than the model's, or the model needs to
                know the speakers and an utterance has none.
        """
        if store.options.digest() != self.feature_options.digest():
            raise ValueError(f"store {store.path} must hold features of the model's options, got {store.options}")
        return speaker_source(store) if self.normaliser is None else StandardisedSource(store, [self.normaliser])

    def answer_store(self, store: FeatureStore, indices: Sequence[int], *, batch_size: int = 16) -> Answers:
        """Answers for utterances of a feature store, in the order of ``indices``.

        Raises:
            ValueError: as :meth:`standardised`.
        """
        return answer(self.model, self.standardised(store), indices, batch_size=batch_size, device=self.device)

    def _read(self, paths: Sequence[str | Path]) -> "_Clips":
        if isinstance(paths, (str, Path)):
            raise TypeError(f"paths must be a list of files, got the single path {str(paths)!r}")
        return _Clips([extract_file(Path(path), self.feature_options) for path in paths])

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
