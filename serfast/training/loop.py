"""Training of one model on one fold: epochs, model selection, checkpoints, resumption."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (torch's own name)

from serfast import atomic, metrics
from serfast.corpora import Fold
from serfast.features import FeatureStore, Normaliser
from serfast.models import EmotionClassifier, ModelOptions
from serfast.training.batches import dropout_seeds, load_batch, shuffled_batches
from serfast.training.checkpoint import load_tensors, merge_tensors, save_tensors, select_tensors
from serfast.training.inference import answer
from serfast.training.options import TrainingOptions

__all__ = ["EpochRecord", "TrainedModel", "train_model"]

CHECKPOINT, METRICS = "checkpoint.safetensors", "metrics.jsonl"


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch brought: mean training loss, scores on the validation part, and the time it took."""

    epoch: int
    loss: float
    validation_loss: float
    validation_ua: float
    validation_wa: float
    validation_macro_f1: float
    best: bool
    seconds: float


@dataclass(frozen=True)
class TrainedModel:
    """The selected epoch's model in evaluation mode, the normaliser of its training part, and the epochs that ran."""

    model: EmotionClassifier
    normaliser: Normaliser
    history: tuple[EpochRecord, ...]
    best_epoch: int


@dataclass
class _State:
    model: EmotionClassifier
    optimizer: torch.optim.Adam
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[EpochRecord] = field(default_factory=list)

    @property
    def best_epoch(self) -> int:
        return max((record.epoch for record in self.history if record.best), default=0)

    def finished(self, options: TrainingOptions) -> bool:
        n_epochs = len(self.history)
        return n_epochs >= options.n_epochs or n_epochs - self.best_epoch >= options.patience


def train_model(
    store: FeatureStore,
    fold: Fold,
    model_options: ModelOptions,
    options: TrainingOptions,
    *,
    folder: Path,
    device: torch.device,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> TrainedModel:
    """Train on the training part of ``fold`` and select the epoch with the best UA on its validation part.

    Ties go to the lower validation loss. After every epoch the whole state is written to ``folder``; called again
    with the same arguments, training goes on behind the last complete epoch and, on the CPU, ends with the same bits
    as a run that was never interrupted.
    """
    normaliser = Normaliser.fit(store, fold.train)
    state = _initial_state(store, model_options, options, device)
    checkpoint = folder / CHECKPOINT
    if checkpoint.exists():
        _restore(state, checkpoint)
    weights = _class_weights(store, fold, device) if options.class_weights else None
    while not state.finished(options):
        started = time.monotonic()
        loss = _train_epoch(state, store, normaliser, fold, options, weights, device)
        record = _validate(state, store, normaliser, fold, options, device, loss=loss, started=started)
        state.history.append(record)
        if record.best:
            state.best = {name: tensor.detach().clone() for name, tensor in state.model.state_dict().items()}
        _save(state, checkpoint)
        if on_epoch is not None:
            on_epoch(record)
    state.model.load_state_dict(state.best)
    return TrainedModel(state.model.eval(), normaliser, tuple(state.history), state.best_epoch)


def _initial_state(
    store: FeatureStore, model_options: ModelOptions, options: TrainingOptions, device: torch.device
) -> _State:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        model = EmotionClassifier(len(store.feature_names), len(store.corpus.emotions), model_options)
    model.to(device)
    return _State(model, torch.optim.Adam(model.parameters(), lr=options.learning_rate))


def _train_epoch(
    state: _State,
    store: FeatureStore,
    normaliser: Normaliser,
    fold: Fold,
    options: TrainingOptions,
    class_weights: Tensor | None,
    device: torch.device,
) -> float:
    epoch = len(state.history) + 1
    batches = shuffled_batches(fold.train, store.lengths, options.batch_size, seed=options.seed, epoch=epoch)
    labels = _labels(store)
    total = torch.zeros((), device=device)
    state.model.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(np.random.SeedSequence([options.seed, epoch]).generate_state(1)[0]))
        for indices in batches:
            batch = load_batch(store, normaliser, indices, device)
            seeds = dropout_seeds(options.seed, epoch, indices).to(device)
            logits, _ = state.model(batch.features, batch.lengths, seeds)
            truth = torch.from_numpy(labels[indices]).to(device)
            loss = F.cross_entropy(logits, truth, weight=class_weights)
            state.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(state.model.parameters(), options.gradient_clip)
            state.optimizer.step()
            total += loss.detach() * len(indices)
    return float(total) / len(fold.train)


def _validate(
    state: _State,
    store: FeatureStore,
    normaliser: Normaliser,
    fold: Fold,
    options: TrainingOptions,
    device: torch.device,
    *,
    loss: float,
    started: float,
) -> EpochRecord:
    if not np.isfinite(loss):
        raise ValueError(f"learning_rate must keep the loss finite, got loss {loss} at rate {options.learning_rate}")
    answers = answer(state.model, store, normaliser, fold.validation, batch_size=options.batch_size, device=device)
    truth = _labels(store)[list(fold.validation)]
    confusion = metrics.confusion_matrix(truth, answers.predicted, len(store.corpus.emotions))
    validation_ua = float(metrics.ua(confusion))
    validation_loss = float(F.cross_entropy(torch.from_numpy(answers.logits), torch.from_numpy(truth)))
    ranks = [(record.validation_ua, -record.validation_loss) for record in state.history]
    return EpochRecord(
        epoch=len(state.history) + 1,
        loss=loss,
        validation_loss=validation_loss,
        validation_ua=validation_ua,
        validation_wa=float(metrics.wa(confusion)),
        validation_macro_f1=float(metrics.macro_f1(confusion)),
        best=not ranks or (validation_ua, -validation_loss) > max(ranks),
        seconds=time.monotonic() - started,
    )


def _labels(store: FeatureStore) -> NDArray[np.int64]:
    return np.array(store.corpus.labels(), dtype=np.int64)


def _class_weights(store: FeatureStore, fold: Fold, device: torch.device) -> Tensor:
    # Inverse shares, 1 on average over the utterances; an emotion that is never trained weighs nothing.
    counts = np.bincount(_labels(store)[list(fold.train)], minlength=len(store.corpus.emotions))
    weights = np.where(counts > 0, len(fold.train) / (np.count_nonzero(counts) * np.maximum(counts, 1)), 0.0)
    return torch.tensor(weights, dtype=torch.float32, device=device)


def _save(state: _State, checkpoint: Path) -> None:
    moments = {
        f"{index}.{name}": tensor
        for index, slots in state.optimizer.state_dict()["state"].items()
        for name, tensor in slots.items()
    }
    tensors = merge_tensors(model=state.model.state_dict(), best=state.best, optimizer=moments)
    history = [asdict(record) for record in state.history]
    # The metrics first: a stop in between repeats the epoch and its line, and loses neither.
    lines = "".join(json.dumps(record) + "\n" for record in history)
    atomic.write_bytes(checkpoint.with_name(METRICS), lines.encode())
    save_tensors(checkpoint, tensors, {"history": history})


def _restore(state: _State, checkpoint: Path) -> None:
    tensors, facts = load_tensors(checkpoint)
    state.model.load_state_dict(select_tensors(tensors, "model"))
    state.best = select_tensors(tensors, "best")
    state.history = [EpochRecord(**record) for record in facts["history"]]
    slots: dict[int, dict[str, Any]] = {}
    for name, tensor in select_tensors(tensors, "optimizer").items():
        index, slot = name.split(".")
        slots.setdefault(int(index), {})[slot] = tensor
    state.optimizer.load_state_dict({**state.optimizer.state_dict(), "state": slots})
