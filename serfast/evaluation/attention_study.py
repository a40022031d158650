"""What attention listens to: its weights against frame energy, voicing and position in the utterance.

Frame energy is the mean square of an analysis window of the raw signal, or the squared norm of a hidden vector.

Source: Huang and Narayanan (2016), section 5, figures 3 and 4.
"""

import csv
import io
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from serfast import atomic
from serfast.evaluation.fold import fold_folder
from serfast.evaluation.protocol import SINGLE, recording_ids
from serfast.evaluation.results import Result, UtterancePrediction, read_json
from serfast.evaluation.run_folder import SPLITS
from serfast.features import FeatureOptions, FeatureStore, FrameSource, frame_times_s
from serfast.recognizer import Recognizer
from serfast.training.batches import load_batch

__all__ = [
    "N_POSITIONS",
    "AttentionFrames",
    "AttentionStudy",
    "UtteranceAttention",
    "annotation_options",
    "attention_frames",
    "pearson",
    "study_attention",
]

N_POSITIONS = 10
"""Parts of equal length into which an utterance is cut."""

BATCH_SIZE = 16
LEAST_VARIATION = 1e-5
"""A series that varies by less than this share of its largest value is constant to the precision of float32."""


@dataclass(frozen=True)
class AttentionFrames:
    """The frames of one scored utterance: what the model of its fold weighs them with, and what they are.

    All series have shape (frame,). ``raw_energy`` is the mean square of the frame's analysis window, ``hidden_energy``
    the squared norm of its hidden vector; ``times_s`` are the frames' centres in seconds.
    """

    prediction: UtterancePrediction
    times_s: NDArray[np.float64]
    attention_weights: NDArray[np.float64]
    raw_energy: NDArray[np.float64]
    hidden_energy: NDArray[np.float64]
    voiced: NDArray[np.bool_]


@dataclass(frozen=True)
class UtteranceAttention:
    """What attention does in one utterance.

    Correlations are Pearson's, between the attention weights and the frame energy, None where undefined. Relative
    attention is a frame's weight times the number of frames: 1 is an even share. ``voiced`` and ``unvoiced`` are its
    means over such frames, None where there are none, and ``positions`` its means over ten equal parts of the
    utterance, in order; a frame that two parts share counts to each by its share.
    """

    prediction: UtterancePrediction
    n_frames: int
    correlation_raw: float | None
    correlation_hidden: float | None
    voiced: float | None
    unvoiced: float | None
    positions: tuple[float, ...]

    @classmethod
    def of(cls, frames: AttentionFrames) -> "UtteranceAttention":
        """Sum up the frames of one utterance."""
        weights = frames.attention_weights
        relative = weights / weights.mean()
        return cls(
            prediction=frames.prediction,
            n_frames=len(weights),
            correlation_raw=pearson(weights, frames.raw_energy),
            correlation_hidden=pearson(weights, frames.hidden_energy),
            voiced=_mean(relative[frames.voiced]),
            unvoiced=_mean(relative[~frames.voiced]),
            positions=_by_position(relative),
        )


@dataclass(frozen=True)
class AttentionStudy:
    """What attention does in every scored utterance of a run; ``emotions`` are the classes in the model's order."""

    corpus: str
    emotions: tuple[str, ...]
    utterances: tuple[UtteranceAttention, ...]

    def by_voicing(self) -> dict[str, tuple[float | None, float | None]]:
        """Mean relative attention of voiced and of unvoiced frames by true emotion, each utterance counting alike."""
        return {
            emotion: (_mean(_known(item.voiced for item in own)), _mean(_known(item.unvoiced for item in own)))
            for emotion, own in self._by_emotion().items()
        }

    def by_position(self) -> dict[str, NDArray[np.float64]]:
        """Mean relative attention in each of ten parts of the utterance, (position,), by true emotion."""
        return {
            emotion: np.mean([item.positions for item in own], axis=0) for emotion, own in self._by_emotion().items()
        }

    def write_csv(self, path: Path) -> None:
        """Write one line per utterance; what is undefined is empty."""
        text = io.StringIO()
        records = [_record(item) for item in self.utterances]
        writer = csv.DictWriter(text, records[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        atomic.write_bytes(path, text.getvalue().encode())

    def _by_emotion(self) -> dict[str, list[UtteranceAttention]]:
        grouped = {
            emotion: [item for item in self.utterances if item.prediction.emotion == emotion]
            for emotion in self.emotions
        }
        return {emotion: own for emotion, own in grouped.items() if own}


def annotation_options(options: FeatureOptions) -> FeatureOptions:
    """Options that add to the same frames what the study needs to know of them: energy and voicing."""
    return replace(options, log_energy=True, voiced=True)


def study_attention(
    result: Result, features: FeatureStore, annotations: FeatureStore, *, device: str = "auto"
) -> AttentionStudy:
    """Study the attention weights of every scored utterance of a finished run.

    Arguments and errors are those of :func:`attention_frames`.
    """
    frames = attention_frames(result, features, annotations, device=device)
    return AttentionStudy(result.corpus, result.emotions, tuple(UtteranceAttention.of(item) for item in frames))


def attention_frames(
    result: Result,
    features: FeatureStore,
    annotations: FeatureStore,
    *,
    keys: Collection[str] | None = None,
    device: str = "auto",
) -> Iterator[AttentionFrames]:
    """The frames of scored utterances, weighed by the model of their fold.

    Args:
        result: a finished run of a model with attention weights.
        features: the store that the run was made from.
        annotations: a store of the same recordings, extracted with :func:`annotation_options`; its energies are exact
            to 2e-6, and those below 1e-10 are 1e-10.
        keys: of which utterances; all when None.
        device: "auto", "cpu" or "cuda".

    Raises:
        ValueError: if a store was extracted with other options or lacks a recording that the run scored, or the model
            pools without weights.
        CorpusError: if the run's folder holds no models.
    """
    expected = annotation_options(features.options)
    if annotations.options != expected:
        raise ValueError(f"annotations must be extracted with {expected}, got {annotations.options}")
    scored = [item for item in result.predictions if keys is None or item.key in keys]
    _check_recordings(result, scored, features, "features")
    _check_recordings(result, scored, annotations, "annotations")
    for fold in result.folds:
        folder = result.output if result.protocol == SINGLE else fold_folder(result.output, fold.name)
        own = [item for item in scored if item.fold == fold.name]
        if own:
            yield from _fold_frames(Recognizer.load(folder, device=device), own, features, annotations)


def pearson(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Pearson's correlation of two series (frame,); None if one is constant, to the precision of float32."""
    for series in (first, second):
        if np.ptp(series) <= LEAST_VARIATION * np.abs(series).max():
            return None
    return float(np.clip(np.corrcoef(first, second)[0, 1], -1.0, 1.0))


@torch.inference_mode()
def _energy_and_weights(
    recognizer: Recognizer, source: FrameSource, indices: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    # squared norms of the hidden vectors and attention weights, both (row,)
    batch = load_batch(source, indices, recognizer.device)
    hidden = recognizer.model.encoder(batch.features, batch.lengths)
    _, weights = recognizer.model.head(hidden, batch.lengths)
    if weights is None:
        raise ValueError(f"the model must pool with attention weights, got pooling {recognizer.model.options.pooling}")
    return torch.linalg.vecdot(hidden, hidden).cpu().numpy(), weights.cpu().numpy()


def _fold_frames(
    recognizer: Recognizer,
    scored: Sequence[UtterancePrediction],
    features: FeatureStore,
    annotations: FeatureStore,
) -> Iterator[AttentionFrames]:
    source, places, annotated = recognizer.standardised(features), _places(features), _places(annotations)
    log_energy, voiced = (annotations.feature_names.index(name) for name in ("log_energy", "voiced"))
    for first in range(0, len(scored), BATCH_SIZE):
        part = scored[first : first + BATCH_SIZE]
        indices = np.array([places[item.key] for item in part])
        cuts = np.cumsum(source.lengths[indices])[:-1]
        energies, weights = (np.split(rows, cuts) for rows in _energy_and_weights(recognizer, source, indices))
        for place, item in enumerate(part):
            rows = annotations.utterance_rows(annotated[item.key])
            yield AttentionFrames(
                prediction=item,
                times_s=frame_times_s(len(rows), features.options),
                attention_weights=weights[place].astype(np.float64),
                raw_energy=np.exp(rows[:, log_energy].astype(np.float64)),
                hidden_energy=energies[place].astype(np.float64),
                voiced=rows[:, voiced] > 0,
            )


def _places(store: FeatureStore) -> dict[str, int]:
    return {utterance.key: place for place, utterance in enumerate(store.corpus.utterances)}


def _check_recordings(result: Result, scored: Sequence[UtterancePrediction], store: FeatureStore, name: str) -> None:
    trained_on = read_json(result.output / SPLITS)["sources"]
    held = dict(zip(_places(store), recording_ids(store), strict=True))
    other = [item.key for item in scored if item.key not in held or held[item.key] != trained_on[item.key]]
    if other:
        raise ValueError(f"{name} must hold the recordings that the run scored, got none or another for {other[0]}")


def _by_position(relative: NDArray[np.float64]) -> tuple[float, ...]:
    # the integral of a step function over ten equal parts
    heard = np.concatenate([[0.0], np.cumsum(relative)]) / len(relative)
    at_borders = np.interp(np.linspace(0, 1, N_POSITIONS + 1), np.linspace(0, 1, len(heard)), heard)
    return tuple((N_POSITIONS * np.diff(at_borders)).tolist())


def _known(values: Iterator[float | None]) -> NDArray[np.float64]:
    return np.array([value for value in values if value is not None])


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None


def _record(item: UtteranceAttention) -> dict[str, object]:
    prediction = item.prediction
    return {
        "key": prediction.key,
        "fold": prediction.fold,
        "speaker": prediction.speaker,
        "emotion": prediction.emotion,
        "predicted": prediction.predicted,
        "correct": int(prediction.predicted == prediction.emotion),
        "n_frames": item.n_frames,
        "correlation_raw": item.correlation_raw,
        "correlation_hidden": item.correlation_hidden,
        "attention_voiced": item.voiced,
        "attention_unvoiced": item.unvoiced,
        **{f"attention_part_{place}": value for place, value in enumerate(item.positions, start=1)},
    }
