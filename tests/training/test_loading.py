import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from serfast import FeatureStore, ModelOptions, TrainingOptions
from serfast.corpora.folds import leave_one_speaker_out, single
from serfast.training import TrainedModel, classification, greedy, loading, memory, train_model, train_side_by_side
from serfast.training.batches import load_batch
from serfast.training.classification import new_task
from serfast.training.loading import BatchLoader, HeldRows, ReadAhead, batch_loader

CPU = torch.device("cpu")
LOADERS = [BatchLoader, HeldRows, ReadAhead]
MODEL = ModelOptions(n_units=8, encoder_dropout=0.2, pooling_dropout=0.3)
OPTIONS = TrainingOptions(n_epochs=2, batch_size=7, tempo_change=0.1, noise=0.1)


@pytest.fixture
def store(make_store: Callable[..., FeatureStore], tmp_path: Path) -> FeatureStore:
    """Utterances that are neither in the order of the file nor all that it holds."""
    whole = make_store(tmp_path / "store")
    return whole.restrict([number for number in range(53, -1, -1) if number % 5])


class CountedSource:
    """A source that knows which thread read which utterances."""

    def __init__(self, store: FeatureStore) -> None:
        self.store, self.lengths = store, store.lengths
        self.read: list[tuple[list[int], bool]] = []

    def gather(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        self.read.append((list(indices), threading.current_thread() is threading.main_thread()))
        return self.store.gather(indices)


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("expects", [True, False])
def test_batches_are_the_rows_of_the_source(store: FeatureStore, kind: type[BatchLoader], expects: bool):
    batches = [np.array([3, 0, 17]), np.array([42]), np.array([5, 5]), np.arange(len(store.lengths))[::-1].copy()]
    loader = kind(store, CPU)
    if expects:
        loader.expect(batches)
    for indices in batches:
        batch, expected = loader.load(indices), load_batch(store, indices, CPU)
        assert torch.equal(batch.features, expected.features)
        assert torch.equal(batch.lengths.lengths, expected.lengths.lengths)
        assert torch.equal(batch.lengths.first_rows, expected.lengths.first_rows)
        assert np.array_equal(batch.indices, indices)
    assert np.array_equal(loader.lengths, store.lengths)


def test_the_next_batch_is_read_in_a_thread_while_one_is_used(store: FeatureStore):
    source = CountedSource(store)
    loader = ReadAhead(source, CPU)
    wanted = [np.array([number]) for number in range(4)]
    loader.expect(wanted)
    loader.load(wanted[0])
    loader._next[1].result()
    assert source.read == [([0], False), ([1], False)]
    loader.load(np.array([9]))  # not expected: read at once, and what comes next stays
    loader.load(wanted[1])
    loader._next[1].result()
    assert source.read[2:] == [([9], True), ([2], False)]


def test_an_error_of_the_reading_thread_reaches_the_step(store: FeatureStore):
    class Broken(CountedSource):
        def gather(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
            raise OSError("the disk is gone")

    loader = ReadAhead(Broken(store), CPU)
    loader.expect([np.array([1])])
    with pytest.raises(OSError, match="the disk is gone"):
        loader.load(np.array([1]))


def test_held_rows_are_read_once_and_in_pieces(store: FeatureStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loading, "_FILLED_AT_A_TIME", 10)
    source = CountedSource(store)
    loader = HeldRows(source, CPU)
    read = [index for indices, _ in source.read[1:] for index in indices]
    assert read == list(range(len(store.lengths)))
    assert max(len(indices) for indices, _ in source.read) == 10
    n_reads = len(source.read)
    assert torch.equal(loader.load(np.array([12, 1])).features, load_batch(store, np.array([12, 1]), CPU).features)
    assert len(source.read) == n_reads


def train_all(store: FeatureStore, folder: Path) -> list[TrainedModel]:
    """A joint model, a greedy one on it, and two folds side by side."""
    fold, greedy_options = single(store.corpus)[0], dataclasses.replace(OPTIONS, scheme="greedy")
    folders = [folder / name for name in ("joint", "greedy", "first", "second")]
    for place in folders:
        place.mkdir(parents=True)
    joint = train_model(store, fold, MODEL, OPTIONS, folder=folders[0], device=CPU)
    head = train_model(store, fold, MODEL, greedy_options, folder=folders[1], device=CPU, base=joint.model)
    folds = leave_one_speaker_out(store.corpus)[:2]
    told = [lambda record: None] * 2
    both = train_side_by_side(store, folds, MODEL, OPTIONS, folders=folders[2:], device=CPU, on_epochs=told)
    return [joint, head, *both]


@pytest.mark.parametrize("kind", [HeldRows, ReadAhead])
@pytest.mark.parametrize("normalisation", ["training", "speaker"])
def test_training_gets_the_same_bits_from_each(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[BatchLoader], normalisation: str
):
    monkeypatch.setattr(f"{__name__}.OPTIONS", dataclasses.replace(OPTIONS, normalisation=normalisation))
    plain = train_all(store, tmp_path / "plain")
    made = []

    def forced(source: object, device: torch.device, *, once: bool = False) -> BatchLoader:
        made.append(kind(source, device))
        return made[-1]

    for module in (classification, greedy):
        monkeypatch.setattr(module, "batch_loader", forced)
    for one, other in zip(plain, train_all(store, tmp_path / "forced"), strict=True):
        assert [record.loss for record in other.history] == [record.loss for record in one.history]
        assert [record.validation_loss for record in other.history] == [
            record.validation_loss for record in one.history
        ]
        for mine, expected in zip(other.model.parameters(), one.model.parameters(), strict=True):
            assert torch.equal(mine, expected)
    assert len(made) == 4


def test_training_reads_ahead_all_that_it_reads(store: FeatureStore):
    fold = single(store.corpus)[0]
    task, _ = new_task(store, fold, MODEL, OPTIONS, CPU)
    source = CountedSource(store)
    task = dataclasses.replace(task, source=source)
    task.__dict__["loader"] = ReadAhead(source, CPU)
    for batch in task.batches(1):
        task.loss(batch, 1)
    task.validate()
    assert not any(in_main for _, in_main in source.read)
    assert sorted(index for indices, _ in source.read for index in indices) == sorted(fold.train + fold.validation)


def test_the_cpu_reads_and_a_gpu_holds_what_fits(store: FeatureStore, monkeypatch: pytest.MonkeyPatch):
    n_bytes = 4 * 28 * int(store.lengths.sum())
    gpu = torch.device("meta")  # no GPU is needed to decide
    for n_free, kind in ((2 * n_bytes, HeldRows), (2 * n_bytes - 1, ReadAhead)):
        monkeypatch.setattr(memory, "_free_bytes", lambda device, n_free=n_free: n_free)
        assert type(batch_loader(store, gpu)) is kind
        assert type(batch_loader(store, gpu, once=True)) is ReadAhead
        assert type(batch_loader(store, CPU)) is BatchLoader
