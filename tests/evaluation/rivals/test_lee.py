import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from serfast import FeatureStore, TrainingOptions
from serfast.corpora import Fold
from serfast.corpora.folds import single
from serfast.evaluation.rivals import LeeCtc
from serfast.evaluation.system import FoldContext, FoldOutcome
from serfast.training import EpochRecord

TRAINING = TrainingOptions(n_epochs=4, patience=4, learning_rate=5e-3)
SYSTEM = LeeCtc(n_layers=1, n_units=8, n_voiced=3, n_hidden=(10, 20), ridges=(1.0, 0.1), training=TRAINING)


@pytest.fixture
def store(make_store: Callable[..., FeatureStore], tmp_path: Path) -> FeatureStore:
    return make_store(tmp_path / "store", n_speakers=4, options=SYSTEM.features)


@pytest.fixture
def fold(store: FeatureStore) -> Fold:
    (whole,) = single(store.corpus)
    return dataclasses.replace(whole, train=whole.train[9:], test=whole.train[:9])


def fit(
    store: FeatureStore,
    fold: Fold,
    folder: Path,
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
    system: LeeCtc = SYSTEM,
) -> FoldOutcome:
    folder.mkdir(exist_ok=True)
    return system.fit(FoldContext(store, fold, folder, folder / "base", torch.device("cpu"), on_epoch, fold.name))


def with_column(store: FeatureStore, name: str, values: np.ndarray) -> FeatureStore:
    """The same store, with ``values`` (row,) in the column ``name``."""
    changed, rows = dataclasses.replace(store), np.array(store.rows)
    rows[:, store.feature_names.index(name)] = values
    vars(changed)["rows"] = rows
    return changed


@pytest.mark.parametrize("last_epoch", [1, 3])
def test_a_run_stopped_between_epochs_goes_on_to_the_same_answers(
    store: FeatureStore, fold: Fold, tmp_path: Path, last_epoch: int
):
    class StopError(Exception):
        pass

    def stop(record: EpochRecord) -> None:
        if record.epoch == last_epoch:
            raise StopError

    whole = fit(store, fold, tmp_path / "whole")
    with pytest.raises(StopError):
        fit(store, fold, tmp_path / "stopped", stop)
    epochs: list[int] = []
    resumed = fit(store, fold, tmp_path / "stopped", lambda record: epochs.append(record.epoch))
    assert epochs == list(range(last_epoch + 1, 5))
    assert np.array_equal(resumed.probabilities, whole.probabilities)
    assert (resumed.n_epochs, resumed.best_epoch, resumed.choices) == (4, whole.best_epoch, whole.choices)


def test_voicing_decides_how_often_an_emotion_is_borne_and_nothing_else(
    store: FeatureStore, fold: Fold, tmp_path: Path
):
    n_rows = len(store.rows)
    silent, sung = (with_column(store, "voiced", np.full(n_rows, flag)) for flag in (0, 1))
    once = fit(silent, fold, tmp_path / "silent").probabilities
    assert np.array_equal(fit(sung, fold, tmp_path / "sung").probabilities, once)
    often = with_column(store, "voiced", np.arange(n_rows) % 5 < SYSTEM.n_voiced)
    assert not np.allclose(fit(often, fold, tmp_path / "often").probabilities, once)
    short = with_column(store, "voiced", np.arange(n_rows) % 5 < SYSTEM.n_voiced - 1)
    assert np.array_equal(fit(short, fold, tmp_path / "short").probabilities, once)


def test_energy_is_no_input(store: FeatureStore, fold: Fold, tmp_path: Path):
    expected = fit(store, fold, tmp_path / "a").probabilities
    louder = with_column(store, "log_energy", np.arange(len(store.rows)) % 7)
    assert np.array_equal(fit(louder, fold, tmp_path / "b").probabilities, expected)


def test_open_values_are_chosen_from_their_grids_and_returned(store: FeatureStore, fold: Fold, tmp_path: Path):
    assert set(fit(store, fold, tmp_path / "run").choices) == {"n_hidden", "ridge"}
    only = dataclasses.replace(SYSTEM, n_hidden=(7,), ridges=(0.5,))
    assert fit(store, fold, tmp_path / "run", system=only).choices == {"n_hidden": 7, "ridge": 0.5}


def test_the_seed_changes_the_answers(store: FeatureStore, fold: Fold, tmp_path: Path):
    other = dataclasses.replace(SYSTEM, training=dataclasses.replace(TRAINING, seed=1))
    first, second = fit(store, fold, tmp_path / "a"), fit(store, fold, tmp_path / "b", system=other)
    assert not np.allclose(first.probabilities, second.probabilities)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_layers", 0),
        ("n_units", 0),
        ("n_voiced", 0),
        ("threshold", 1.0),
        ("n_hidden", ()),
        ("n_hidden", (10, 0)),
        ("ridges", ()),
        ("ridges", (1.0, -1.0)),
    ],
)
def test_values_out_of_range_are_named(name: str, value: object):
    with pytest.raises(ValueError, match=f"{name} must .*, got "):
        LeeCtc(**{name: value})


@pytest.mark.parametrize("option", [{"scheme": "greedy"}, {"class_weights": True}, {"label_smoothing": 0.1}])
def test_training_that_label_sequences_cannot_have_is_refused(option: dict):
    (name,) = option
    with pytest.raises(ValueError, match=rf"training\.{name} must be .* for label sequences, got "):
        LeeCtc(training=TrainingOptions(**option))
