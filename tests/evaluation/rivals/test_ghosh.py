import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from serfast import FeatureStore, ModelOptions, TrainingOptions
from serfast.corpora import Fold
from serfast.corpora.folds import single
from serfast.evaluation.rivals import GhoshBottleneck
from serfast.evaluation.system import FoldContext, FoldOutcome
from serfast.training import EpochRecord

N_EPOCHS = 3
TRAINING = TrainingOptions(n_epochs=N_EPOCHS, patience=N_EPOCHS, learning_rate=5e-3)
SYSTEM = GhoshBottleneck(
    n_units=(16, 5),
    pretraining=TRAINING,
    model=ModelOptions(pooling="mean", n_layers=1, n_units=6, n_decoder=4),
    training=TRAINING,
)
N_ALL_EPOCHS = (len(SYSTEM.n_units) + 1) * N_EPOCHS


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
    system: GhoshBottleneck = SYSTEM,
) -> FoldOutcome:
    folder.mkdir(exist_ok=True)
    return system.fit(FoldContext(store, fold, folder, folder / "base", torch.device("cpu"), on_epoch, fold.name))


@pytest.mark.parametrize("n_done", range(1, N_ALL_EPOCHS))
def test_a_run_stopped_between_any_epochs_goes_on_to_the_same_answers(
    store: FeatureStore, fold: Fold, tmp_path: Path, n_done: int
):
    class StopError(Exception):
        pass

    reported: list[EpochRecord] = []

    def stop(record: EpochRecord) -> None:
        reported.append(record)
        if len(reported) == n_done:
            raise StopError

    whole = fit(store, fold, tmp_path / "whole")
    with pytest.raises(StopError):
        fit(store, fold, tmp_path / "stopped", stop)
    resumed = fit(store, fold, tmp_path / "stopped", reported.append)
    assert [record.epoch for record in reported] == [*range(1, N_EPOCHS + 1)] * (N_ALL_EPOCHS // N_EPOCHS)
    assert np.array_equal(resumed.probabilities, whole.probabilities)
    assert (resumed.n_epochs, resumed.best_epoch) == (N_EPOCHS, whole.best_epoch)


def test_only_spectra_are_read(store: FeatureStore, fold: Fold, tmp_path: Path):
    expected = fit(store, fold, tmp_path / "a").probabilities
    for first_name, equal in (("mfcc_0", True), ("log_power_0", False)):
        changed, rows = dataclasses.replace(store), np.array(store.rows)
        first = store.feature_names.index(first_name)
        rows[:, first : first + 28] = np.random.default_rng(0).standard_normal((len(rows), 28))
        vars(changed)["rows"] = rows
        found = fit(changed, fold, tmp_path / first_name).probabilities
        assert np.array_equal(found, expected) == equal


def test_labels_do_not_reach_the_autoencoder(store: FeatureStore, fold: Fold, tmp_path: Path):
    labels = [utterance.emotion for utterance in store.corpus.utterances]
    shuffled = tuple(
        dataclasses.replace(utterance, emotion=label)
        for utterance, label in zip(store.corpus.utterances, labels[::-1], strict=True)
    )
    relabelled = dataclasses.replace(store, corpus=dataclasses.replace(store.corpus, utterances=shuffled))
    records: list[EpochRecord] = []
    for name, seen in (("a", store), ("b", relabelled)):
        fit(seen, fold, tmp_path / name, records.append)
    losses = [record.validation_loss for record in records]
    n_pretraining = N_ALL_EPOCHS - N_EPOCHS
    assert losses[:n_pretraining] == losses[N_ALL_EPOCHS : N_ALL_EPOCHS + n_pretraining]
    assert losses[n_pretraining:N_ALL_EPOCHS] != losses[N_ALL_EPOCHS + n_pretraining :]


def test_the_seed_changes_every_stage(store: FeatureStore, fold: Fold, tmp_path: Path):
    other = dataclasses.replace(SYSTEM, training=dataclasses.replace(TRAINING, seed=1))
    records: tuple[list[EpochRecord], list[EpochRecord]] = ([], [])
    fit(store, fold, tmp_path / "a", records[0].append)
    fit(store, fold, tmp_path / "b", records[1].append, system=other)
    for one, another in zip(*records, strict=True):
        assert one.validation_loss != another.validation_loss


def test_options_of_both_stages_name_the_run():
    every = {}
    for value in SYSTEM.to_dict().values():
        for name in value if isinstance(value, dict) else ():
            assert name not in every
            every[name] = value[name]
    assert every["pretraining_n_epochs"] == every["n_epochs"] == N_EPOCHS
    assert (every["autoencoder_n_units"], every["n_units"]) == ([16, 5], 6)


@pytest.mark.parametrize(
    ("name", "value"), [("n_units", ()), ("n_units", (10, 0)), ("corruption", 1.0), ("corruption", -0.1)]
)
def test_values_out_of_range_are_named(name: str, value: object):
    with pytest.raises(ValueError, match=f"{name} must .*, got "):
        GhoshBottleneck(**{name: value})


@pytest.mark.parametrize("option", [{"scheme": "greedy"}, {"class_weights": True}, {"noise": 0.1}, {"n_masked": 3}])
def test_pretraining_that_an_autoencoder_cannot_have_is_refused(option: dict):
    (name,) = option
    with pytest.raises(ValueError, match=rf"pretraining\.{name} must be .* for an autoencoder, got "):
        GhoshBottleneck(pretraining=TrainingOptions(**option))


def test_stages_that_do_not_fit_each_other_are_refused():
    with pytest.raises(ValueError, match=r"training\.scheme must be 'joint' over frozen codes, got 'greedy'"):
        GhoshBottleneck(training=TrainingOptions(scheme="greedy"))
    for name, default, value in (("normalisation", "'training'", "speaker"), ("seed", "0", 1)):
        with pytest.raises(
            ValueError, match=rf"pretraining\.{name} must be {default}, for that of training counts, got"
        ):
            GhoshBottleneck(pretraining=TrainingOptions(**{name: value}))
