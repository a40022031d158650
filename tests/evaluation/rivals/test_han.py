import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from serfast import FeatureStore, TrainingOptions
from serfast.corpora import Fold
from serfast.corpora.folds import single
from serfast.evaluation.rivals import HanSegments
from serfast.evaluation.system import FoldContext, FoldOutcome
from serfast.features import StoreWriter
from serfast.models import ExtremeLearningMachine
from serfast.training import EpochRecord

TRAINING = TrainingOptions(n_epochs=4, patience=4, learning_rate=5e-3)
SYSTEM = HanSegments(n_frames=10, n_layers=2, n_units=16, n_hidden=30, training=TRAINING)


class StoppedError(Exception):
    pass


@pytest.fixture
def store(make_store: Callable[..., FeatureStore], tmp_path: Path) -> FeatureStore:
    return make_store(tmp_path / "store", n_speakers=4, n_utterances=12, options=SYSTEM.features)


@pytest.fixture
def fold(store: FeatureStore) -> Fold:
    (whole,) = single(store.corpus)
    return dataclasses.replace(whole, train=whole.train[12:], test=whole.train[:12])


def fit(
    store: FeatureStore,
    fold: Fold,
    folder: Path,
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
    system: HanSegments = SYSTEM,
) -> FoldOutcome:
    folder.mkdir(exist_ok=True)
    return system.fit(FoldContext(store, fold, folder, folder / "base", torch.device("cpu"), on_epoch, fold.name))


@pytest.mark.parametrize("last_epoch", [1, 3])
def test_a_run_stopped_between_epochs_goes_on_to_the_same_answers(
    store: FeatureStore, fold: Fold, tmp_path: Path, last_epoch: int
):
    def stop(record: EpochRecord) -> None:
        if record.epoch == last_epoch:
            raise StoppedError

    whole = fit(store, fold, tmp_path / "whole")
    with pytest.raises(StoppedError):
        fit(store, fold, tmp_path / "stopped", stop)
    epochs: list[int] = []
    resumed = fit(store, fold, tmp_path / "stopped", lambda record: epochs.append(record.epoch))
    assert epochs == list(range(last_epoch + 1, 5))
    assert np.array_equal(resumed.probabilities, whole.probabilities)
    assert (resumed.n_epochs, resumed.best_epoch, resumed.choices) == (4, whole.best_epoch, whole.choices)


def test_a_finished_network_is_not_trained_again(
    store: FeatureStore, fold: Fold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def stop(*_: object, **__: object) -> None:
        raise StoppedError

    whole = fit(store, fold, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(ExtremeLearningMachine, "fit", stop)
        with pytest.raises(StoppedError):
            fit(store, fold, tmp_path / "stopped")
    resumed = fit(store, fold, tmp_path / "stopped", lambda record: pytest.fail("an epoch was trained"))
    assert np.array_equal(resumed.probabilities, whole.probabilities)


def copied(store: FeatureStore, path: Path, names: tuple[str, ...], rows: Callable[[int], np.ndarray]) -> FeatureStore:
    writer = StoreWriter(path, store.options, names)
    keys = [utterance.key for utterance in store.corpus.utterances]
    for index, key in enumerate(keys):
        writer.append(key, store.sources[index], rows(index))
    changed = writer.finish(store.corpus, dict(zip(keys, store.sources, strict=True)), {})
    writer.close()
    return changed


def test_columns_are_found_by_name(store: FeatureStore, fold: Fold, tmp_path: Path):
    order = np.random.default_rng(0).permutation(len(store.feature_names))
    names = tuple(store.feature_names[place] for place in order)
    shuffled = copied(store, tmp_path / "shuffled", names, lambda index: store.utterance_rows(index)[:, order])
    expected = fit(store, fold, tmp_path / "a").probabilities
    assert np.array_equal(fit(shuffled, fold, tmp_path / "b").probabilities, expected)


def test_loudness_and_voicing_are_no_inputs(store: FeatureStore, fold: Fold, tmp_path: Path):
    energy, voiced = store.feature_names.index("log_energy"), store.feature_names.index("voiced")

    def louder(index: int) -> np.ndarray:
        rows = store.utterance_rows(index).copy()
        rows[:, energy] += np.float32(index % 5)
        rows[:, voiced] = 1 - rows[:, voiced]
        return rows

    changed = copied(store, tmp_path / "louder", store.feature_names, louder)
    expected = fit(store, fold, tmp_path / "a").probabilities
    np.testing.assert_allclose(fit(changed, fold, tmp_path / "b").probabilities, expected, rtol=1e-12)


def test_quiet_frames_are_never_read(store: FeatureStore, fold: Fold, tmp_path: Path):
    energy = store.feature_names.index("log_energy")

    def noisy(index: int, filler: float) -> np.ndarray:
        rows = np.repeat(store.utterance_rows(index), 2, axis=0)  # at least as many frames as a segment
        rows[:, energy] = -20
        rows[:10, energy] = 0
        rows[10:, :energy] = filler
        return rows

    system = dataclasses.replace(SYSTEM, share=1e-6)
    answers = []
    for filler in (0.0, 3.0):
        part = {index: filler if index in fold.test else 0.0 for index in range(len(store.lengths))}
        changed = copied(
            store, tmp_path / f"{filler}", store.feature_names, lambda index, part=part: noisy(index, part[index])
        )
        answers.append(fit(changed, fold, tmp_path / f"run{filler}", system=system).probabilities)
    assert np.array_equal(*answers)


def test_the_open_value_is_chosen_from_its_grid_and_returned(store: FeatureStore, fold: Fold, tmp_path: Path):
    for ridges in ((100.0, 0.01), (1.0,)):
        system = dataclasses.replace(SYSTEM, ridges=ridges)
        assert fit(store, fold, tmp_path / "run", system=system).choices["ridge"] in ridges


def test_the_seed_changes_the_answers(store: FeatureStore, fold: Fold, tmp_path: Path):
    other = dataclasses.replace(SYSTEM, training=dataclasses.replace(TRAINING, seed=1))
    first, second = fit(store, fold, tmp_path / "a"), fit(store, fold, tmp_path / "b", system=other)
    assert not np.allclose(first.probabilities, second.probabilities)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_frames", 0),
        ("share", 0.0),
        ("share", 1.5),
        ("n_layers", 0),
        ("n_units", 0),
        ("threshold", 1.0),
        ("n_hidden", 0),
        ("ridges", ()),
        ("ridges", (1.0, 0.0)),
    ],
)
def test_values_out_of_range_are_named(name: str, value: object):
    with pytest.raises(ValueError, match=f"{name} must .*, got "):
        HanSegments(**{name: value})


@pytest.mark.parametrize("option", [{"scheme": "greedy"}, {"noise": 0.1}, {"tempo_change": 0.1}, {"n_masked": 3}])
def test_training_that_segments_cannot_have_is_refused(option: dict):
    (name,) = option
    with pytest.raises(ValueError, match=rf"training\.{name} must be .* for segments, got "):
        HanSegments(training=TrainingOptions(**option))
