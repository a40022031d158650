import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from serfast import FeatureStore, TrainingOptions
from serfast.corpora import Fold
from serfast.corpora.folds import single
from serfast.features import FrameSource
from serfast.models import StackedAutoencoder
from serfast.training import EpochRecord
from serfast.training.autoencoding import EncodedSource, train_autoencoders
from serfast.training.classification import standardise
from serfast.training.loop import run_in_turn

CPU = torch.device("cpu")
OPTIONS = TrainingOptions(n_epochs=12, patience=12, batch_size=2, learning_rate=5e-3)


@pytest.fixture
def store(make_store: Callable[..., FeatureStore], tmp_path: Path) -> FeatureStore:
    """A store whose frames lie near three of 28 dimensions."""
    store = make_store(tmp_path / "store", separation=0.0)
    generator = np.random.default_rng(3)
    loadings = generator.standard_normal((3, 28))
    rows = generator.standard_normal((len(store.rows), 3)) @ loadings + 0.1 * np.asarray(store.rows)
    vars(store)["rows"] = rows.astype(np.float32)
    return store


def prepare(store: FeatureStore) -> tuple[StackedAutoencoder, FrameSource, Fold]:
    fold = single(store.corpus)[0]
    torch.manual_seed(0)
    return StackedAutoencoder(28, [12, 4], corruption=0.1), standardise(store, fold, "training")[1], fold


def train(
    autoencoder: StackedAutoencoder,
    source: FrameSource,
    fold: Fold,
    folder: Path,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> None:
    run = partial(run_in_turn, on_epochs=[on_epoch])
    train_autoencoders([autoencoder], [source], [fold], [OPTIONS], folders=[folder], device=CPU, run=run)


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_unseen_frames_are_restored_better_than_by_their_mean(store: FeatureStore, tmp_path: Path):
    autoencoder, source, fold = prepare(store)
    train(autoencoder, source, fold, tmp_path)
    rows = torch.from_numpy(source.gather(np.array(fold.validation)))
    with torch.no_grad():
        restored = autoencoder.decode(autoencoder.encode(rows))
    unexplained = (restored - rows).square().mean() / (rows - rows.mean(dim=0)).square().mean()
    assert unexplained < 0.4


def test_codes_are_those_of_the_frames_whatever_is_gathered_with_them(store: FeatureStore):
    autoencoder, source, _ = prepare(store)
    encoded = EncodedSource(source, autoencoder, CPU)
    assert np.array_equal(encoded.lengths, store.lengths)
    indices = np.array([5, 40, 2])
    whole = encoded.gather(indices)
    assert whole.shape == (store.lengths[indices].sum(), 4)
    assert np.array_equal(whole, np.concatenate([encoded.gather(np.array([index])) for index in indices]))
    with torch.no_grad():
        expected = autoencoder.eval().encode(torch.from_numpy(source.gather(indices)))
    assert np.array_equal(whole, expected.numpy())


def test_each_layer_keeps_the_epoch_that_restored_validation_best(store: FeatureStore, tmp_path: Path):
    autoencoder, source, fold = prepare(store)
    train(autoencoder, source, fold, tmp_path)
    rows = torch.from_numpy(source.gather(np.array(fold.validation)))
    for depth, layer in enumerate(autoencoder.layers):
        lines = (tmp_path / f"layer_{depth + 1}" / "metrics.jsonl").read_text().splitlines()
        losses = [json.loads(line)["validation_loss"] for line in lines]
        assert len(losses) == OPTIONS.n_epochs
        with torch.no_grad():
            inputs = autoencoder.encode(rows, depth=depth)
            assert min(losses) == pytest.approx(float((layer(inputs) - inputs).square().mean()), rel=1e-5)


def test_a_stopped_training_does_no_finished_layer_again_and_ends_with_the_same_bits(
    store: FeatureStore, tmp_path: Path
):
    class StopError(Exception):
        pass

    n_epochs = 0

    def stop(record: EpochRecord) -> None:
        nonlocal n_epochs
        n_epochs += 1
        if n_epochs == OPTIONS.n_epochs + 3:
            raise StopError

    whole, source, fold = prepare(store)
    train(whole, source, fold, tmp_path / "whole")
    with pytest.raises(StopError):
        train(prepare(store)[0], source, fold, tmp_path / "stopped", stop)
    resumed, reported = prepare(store)[0], []
    train(resumed, source, fold, tmp_path / "stopped", reported.append)
    assert [record.epoch for record in reported] == list(range(4, OPTIONS.n_epochs + 1))
    assert same_weights(whole, resumed)
