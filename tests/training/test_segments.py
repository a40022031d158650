import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

from serfast import FeatureStore, TrainingOptions
from serfast.corpora import Fold
from serfast.corpora.folds import single
from serfast.features import ColumnSource, FeatureOptions, SegmentSource, feature_names
from serfast.models import SegmentNetwork
from serfast.training import EpochRecord, run_epochs
from serfast.training.objective import Objective
from serfast.training.segments import SegmentTask, segment_posteriors

CPU = torch.device("cpu")
OPTIONS = TrainingOptions(n_epochs=4, patience=4, learning_rate=3e-3)


@pytest.fixture
def store(make_store: Callable[..., FeatureStore], tmp_path: Path) -> FeatureStore:
    return make_store(tmp_path / "store", separation=0.4, n_utterances=12, options=FeatureOptions(log_energy=True))


def cut(store: FeatureStore) -> SegmentSource:
    inputs, energy = (ColumnSource(store, store.feature_names, names) for names in (feature_names(), ["log_energy"]))
    return SegmentSource(inputs, energy, n_frames=8, share=0.3)


def make_network() -> SegmentNetwork:
    torch.manual_seed(0)
    return SegmentNetwork(8 * 28, 3, n_layers=1, n_units=12)


def train(store: FeatureStore, fold: Fold, folder: Path, **changes: object) -> tuple[SegmentNetwork, list[EpochRecord]]:
    options = dataclasses.replace(OPTIONS, **changes)
    network = make_network()
    objective = Objective(store, fold, options, CPU)
    task = SegmentTask(network, cut(store), fold, objective, options, CPU)
    return network, list(run_epochs(task, options, folder=folder, device=CPU))


def posteriors_of(network: SegmentNetwork, store: FeatureStore, index: int) -> np.ndarray:
    with torch.inference_mode():
        return network(torch.from_numpy(cut(store).gather(np.array([index])))).double().softmax(dim=1).numpy()


def test_the_mean_posterior_of_an_utterance_selects_the_epoch(store: FeatureStore, tmp_path: Path):
    (fold,) = single(store.corpus)
    network, history = train(store, fold, tmp_path)
    assert not network.training
    (best,) = [record for record in history if record.best][-1:]
    means = np.stack([posteriors_of(network, store, index).mean(axis=0) for index in fold.validation])
    truth = np.array(store.corpus.labels())[list(fold.validation)]
    assert best.validation_ua == pytest.approx(balanced_accuracy_score(truth, means.argmax(axis=1)))
    assert best.validation_loss == pytest.approx(-np.log(means[np.arange(len(truth)), truth]).mean(), rel=1e-5)
    assert best.validation_ua == max(record.validation_ua for record in history)


def test_every_segment_carries_the_emotion_of_its_utterance(store: FeatureStore, tmp_path: Path):
    (fold,) = single(store.corpus)
    _, (record,) = train(store, fold, tmp_path, n_epochs=1, learning_rate=1e-30, batch_size=len(fold.train))
    labels, network = store.corpus.labels(), make_network().eval()
    losses = [-np.log(posteriors_of(network, store, index)[:, labels[index]]) for index in fold.train]
    assert record.loss == pytest.approx(np.concatenate(losses).mean(), rel=1e-5)


def test_posteriors_do_not_depend_on_the_batch(store: FeatureStore, tmp_path: Path):
    network, source = make_network().eval(), cut(store)
    indices = [5, 40, 2, 0, 71, 33, 7]
    expected = np.concatenate([posteriors_of(network, store, index) for index in indices])
    for batch_size in (1, 3, 7, 100):
        found = segment_posteriors(network, source, indices, batch_size=batch_size, device=CPU)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        assert np.array_equal(found, segment_posteriors(network, source, indices, batch_size=2, device=CPU))
