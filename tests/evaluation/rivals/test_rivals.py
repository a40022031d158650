"""What every rival system must do alike."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from serfast import FeatureStore, ModelOptions, Result, TrainingOptions
from serfast.corpora import Fold
from serfast.evaluation.protocol import make_protocol
from serfast.evaluation.rivals import FunctionalsSvm, GhoshBottleneck, HanSegments, LeeCtc
from serfast.evaluation.system import FoldContext, FoldOutcome, System
from serfast.features import StoreWriter

TRAINING = TrainingOptions(n_epochs=6, learning_rate=5e-3)
MORE_STEPS = dataclasses.replace(TRAINING, batch_size=4, learning_rate=1e-2)
SYSTEMS = {
    "han": HanSegments(n_frames=10, share=0.5, n_layers=2, n_units=16, n_hidden=30, training=TRAINING),
    "svm": FunctionalsSvm(),
    "lee": LeeCtc(n_layers=1, n_units=8, n_voiced=4, training=MORE_STEPS),
    "ghosh": GhoshBottleneck(
        n_units=(16, 6),
        pretraining=MORE_STEPS,
        model=ModelOptions(pooling="mean", n_layers=1, n_units=8, n_decoder=8),
        training=MORE_STEPS,
    ),
}
every_system = pytest.mark.parametrize("system", SYSTEMS.values(), ids=SYSTEMS)
StoreMaker = Callable[..., FeatureStore]
RunSystem = Callable[..., Result]


def fit(system: System, store: FeatureStore, fold: Fold, folder: Path) -> FoldOutcome:
    folder.mkdir(exist_ok=True)
    return system.fit(
        FoldContext(store, fold, folder, folder / "base", torch.device("cpu"), lambda record: None, fold.name)
    )


def first_fold(store: FeatureStore) -> Fold:
    return make_protocol("leave_one_speaker_out", store).folds[0]


def rewritten(store: FeatureStore, path: Path, change: Callable[[str, np.ndarray], np.ndarray]) -> FeatureStore:
    """The same corpus, with ``change(key, features)`` for the features of every utterance."""
    writer = StoreWriter(path, store.options, store.feature_names)
    keys = [utterance.key for utterance in store.corpus.utterances]
    for index, key in enumerate(keys):
        writer.append(key, store.sources[index], change(key, store.utterance_rows(index).copy()))
    changed = writer.finish(store.corpus, dict(zip(keys, store.sources, strict=True)), {})
    writer.close()
    return changed


@every_system
def test_a_separable_corpus_is_learned_and_one_without_differences_is_not(
    run: RunSystem, system: System, make_store: StoreMaker, tmp_path: Path
):
    clear = make_store(tmp_path / "clear", separation=1.5, n_utterances=15, options=system.features)
    assert run(system, clear, tmp_path / "a").pooled.ua > 0.9
    empty = make_store(tmp_path / "empty", separation=0.0, n_utterances=15, options=system.features)
    interval = run(system, empty, tmp_path / "b").pooled.intervals["ua"]
    assert interval.low < 1 / 3 < interval.high


@every_system
def test_a_finished_run_is_read_back_and_another_system_is_refused(
    run: RunSystem, system: System, make_store: StoreMaker, tmp_path: Path
):
    store = make_store(tmp_path / "store", n_speakers=3, options=system.features)
    first = run(system, store, tmp_path / "run")
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("fold.json")}
    assert run(system, store, tmp_path / "run") == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("fold.json")} == stamps
    stored = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert stored["system"] == json.loads(json.dumps(system.to_dict()))["system"]
    for other in SYSTEMS.values():
        if other != system:
            with pytest.raises(ValueError, match="must be empty or hold a run of the same recipe"):
                run(other, store, tmp_path / "run")


@every_system
def test_equal_systems_give_equal_answers(system: System, make_store: StoreMaker, tmp_path: Path):
    store = make_store(tmp_path / "store", n_speakers=4, options=system.features)
    torch.manual_seed(1)
    first = fit(system, store, first_fold(store), tmp_path / "a")
    torch.manual_seed(2)
    np.random.seed(3)  # noqa: NPY002 (what a library without a seed of ours would draw from)
    again = fit(dataclasses.replace(system), store, first_fold(store), tmp_path / "b")
    assert np.array_equal(first.probabilities, again.probabilities)
    assert first.choices == again.choices
    np.testing.assert_allclose(first.probabilities.sum(axis=1), 1, rtol=1e-12)


@every_system
def test_answers_depend_on_the_utterance_alone(system: System, make_store: StoreMaker, tmp_path: Path):
    store = make_store(tmp_path / "store", n_speakers=4, options=system.features)
    fold = first_fold(store)
    together = fit(system, store, fold, tmp_path / "run").probabilities
    backwards = fit(system, store, dataclasses.replace(fold, test=fold.test[::-1]), tmp_path / "run")
    assert np.array_equal(backwards.probabilities[::-1], together)
    for place in (0, len(fold.test) - 1):
        alone = fit(system, store, dataclasses.replace(fold, test=fold.test[place : place + 1]), tmp_path / "run")
        assert np.array_equal(alone.probabilities[0], together[place])


@every_system
def test_nothing_is_learned_from_the_test_part(system: System, make_store: StoreMaker, tmp_path: Path):
    store = make_store(tmp_path / "store", n_speakers=4, options=system.features)
    fold = first_fold(store)
    spoilt = {store.corpus.utterances[index].key for index in fold.test[1:]}
    changed = rewritten(store, tmp_path / "changed", lambda key, rows: 50 * rows + 9 if key in spoilt else rows)
    expected = fit(system, store, fold, tmp_path / "a")
    found = fit(system, changed, fold, tmp_path / "b")
    assert np.array_equal(found.probabilities[0], expected.probabilities[0])
    assert not np.array_equal(found.probabilities[1:], expected.probabilities[1:])


@every_system
def test_each_speakers_own_statistics_take_out_what_is_the_speakers(
    system: System, make_store: StoreMaker, tmp_path: Path
):
    store = make_store(tmp_path / "store", n_speakers=4, separation=1.5, n_utterances=15, options=system.features)
    if isinstance(system, FunctionalsSvm):
        system = dataclasses.replace(system, normalisation="speaker")
    else:
        own = dataclasses.replace(system.training, normalisation="speaker")
        system = dataclasses.replace(system, training=own)
    shifted = ("mfcc_0", "mfcc_1", "mfcc_2", "log_power_0", "log_power_1")
    columns = [place for place, name in enumerate(store.feature_names) if name in shifted]

    def shift(key: str, rows: np.ndarray) -> np.ndarray:
        rows[:, columns] += 16 * int(key[1])  # a power of two, so that nothing is lost to rounding but the last bits
        return rows

    fold = first_fold(store)
    expected = fit(system, store, fold, tmp_path / "a").probabilities
    found = fit(system, rewritten(store, tmp_path / "changed", shift), fold, tmp_path / "b").probabilities
    assert np.array_equal(found.argmax(axis=1), expected.argmax(axis=1))


@every_system
def test_a_fold_without_a_test_part_is_answered_on_its_validation_part(
    system: System, make_store: StoreMaker, tmp_path: Path
):
    store = make_store(tmp_path / "store", n_speakers=4, options=system.features)
    fold = first_fold(store)
    outcome = fit(system, store, dataclasses.replace(fold, test=()), tmp_path / "a")
    expected = fit(system, store, dataclasses.replace(fold, test=fold.validation), tmp_path / "b")
    assert np.array_equal(outcome.probabilities, expected.probabilities)
