import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import serfast
from serfast import FeatureStore, ModelOptions, TrainingOptions
from serfast.corpora.folds import single
from serfast.training import EpochRecord, TrainedModel, answer, base_options, greedy, memory, train_model
from serfast.training.greedy import cached_hidden

CPU = torch.device("cpu")
MODEL = ModelOptions(n_units=8, n_layers=2, pooling="eq8", pooling_dropout=0.3, n_decoder=6, decoder_dropout=0.2)
OPTIONS = TrainingOptions(scheme="greedy", n_epochs=4, batch_size=8, learning_rate=5e-3)


def train_both(store: FeatureStore, folder: Path, **changes: object) -> tuple[TrainedModel, TrainedModel]:
    """The base model and the greedy model on it."""
    on_epoch = changes.pop("on_epoch", None)
    options = dataclasses.replace(OPTIONS, **changes)
    fold, (base_model, base_training) = single(store.corpus)[0], base_options(MODEL, options)
    for stage in ("base", "greedy"):
        (folder / stage).mkdir(parents=True, exist_ok=True)
    base = train_model(store, fold, base_model, base_training, folder=folder / "base", device=CPU)
    top = train_model(
        store, fold, MODEL, options, folder=folder / "greedy", device=CPU, base=base.model, on_epoch=on_epoch
    )
    return base, top


def same_weights(one: TrainedModel, other: TrainedModel) -> bool:
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_the_base_is_the_plain_baseline_with_the_same_encoder():
    model = dataclasses.replace(MODEL, encoder_dropout=0.1)
    base, training = base_options(model, OPTIONS)
    assert base == ModelOptions(pooling="mean", n_units=8, n_layers=2, encoder_dropout=0.1)
    assert training.scheme == "joint"
    assert base_options(MODEL, TrainingOptions()) is None


def test_the_encoder_stays_as_it_was_and_the_head_is_trained(tiny_store: FeatureStore, tmp_path: Path):
    base, top = train_both(tiny_store, tmp_path)
    for name, tensor in base.model.encoder.state_dict().items():
        assert torch.equal(tensor, top.model.encoder.state_dict()[name]), name
    assert top.model.head.pooling.query.abs().max() > 0
    assert all(parameter.requires_grad for parameter in top.model.parameters())


@pytest.mark.parametrize("n_free", [10**12, 0], ids=["in memory", "memory-mapped"])
def test_cached_vectors_are_the_encoders_answers(
    tiny_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_free: int
):
    monkeypatch.setattr(memory, "_free_bytes", lambda device: n_free)
    base, _ = train_both(tiny_store, tmp_path / "run")
    indices = np.array([7, 3, 20, 11])
    (tmp_path / ".hidden-of-a-killed-run").mkdir()
    hidden_of = base.model.encoder
    with cached_hidden(hidden_of, base.source, indices, n_units=16, batch_size=3, folder=tmp_path, device=CPU) as cache:
        assert len(list(tmp_path.glob(".hidden-*/rows.npy"))) == (n_free == 0)
        for place, index in enumerate(indices):
            rows = torch.from_numpy(base.source.gather(np.array([index])))
            with torch.no_grad():
                alone = hidden_of(rows, torch.tensor([len(rows)]))
            cached, lengths = cache.batch(place, place + 1, CPU)
            assert torch.equal(cached, alone)
            assert lengths.lengths.tolist() == [len(rows)]
    assert not list(tmp_path.glob(".hidden-*"))


def test_a_cache_on_disk_trains_the_same_bits(
    tiny_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _, in_memory = train_both(tiny_store, tmp_path / "a")
    monkeypatch.setattr(memory, "_free_bytes", lambda device: 0)
    _, mapped = train_both(tiny_store, tmp_path / "b")
    assert same_weights(in_memory, mapped)


def test_validation_on_the_cache_is_that_of_the_whole_model(tiny_store: FeatureStore, tmp_path: Path):
    _, top = train_both(tiny_store, tmp_path)
    fold = single(tiny_store.corpus)[0]
    answers = answer(top.model, top.source, fold.validation, batch_size=5, device=CPU)
    truth = np.array(tiny_store.corpus.labels())[list(fold.validation)]
    assert (answers.predicted == truth).mean() == top.history[top.best_epoch - 1].validation_wa


def test_every_training_utterance_is_in_one_run_of_neighbours_per_epoch(tiny_store: FeatureStore, tmp_path: Path):
    task = greedy.HeadTask(None, None, 21, None, OPTIONS, CPU)
    orders = []
    for epoch in (1, 2):
        batches = task.batches(epoch)
        assert sorted(np.concatenate(batches)) == list(range(21))
        assert all(np.array_equal(batch, np.arange(batch[0], batch[-1] + 1)) for batch in batches)
        assert max(len(batch) for batch in batches) <= OPTIONS.batch_size
        orders.append([batch.tolist() for batch in batches])
    assert orders[0] != orders[1]


def test_one_by_one_keeps_the_attention_of_its_first_stage(tiny_store: FeatureStore, tmp_path: Path):
    learned = []

    def remember(record: EpochRecord) -> None:
        learned.append(record.epoch)

    _, top = train_both(tiny_store, tmp_path, scheme="one_by_one", on_epoch=remember)
    assert learned == [1, 2, 3, 4] * 2
    assert (tmp_path / "greedy" / "attention" / "metrics.jsonl").exists()
    _, jointly = train_both(tiny_store, tmp_path / "other")
    assert not torch.equal(top.model.head.pooling.query, jointly.model.head.pooling.query)


@pytest.mark.parametrize(("scheme", "n_seen"), [("greedy", 2), ("one_by_one", 2), ("one_by_one", 6)])
def test_an_interrupted_run_ends_with_the_same_bits(tiny_store: FeatureStore, tmp_path: Path, scheme: str, n_seen: int):
    seen = []

    def interrupt(record: EpochRecord) -> None:
        seen.append(record)
        if len(seen) == n_seen:
            raise KeyboardInterrupt

    _, whole = train_both(tiny_store, tmp_path / "whole", scheme=scheme)
    with pytest.raises(KeyboardInterrupt):
        train_both(tiny_store, tmp_path / "parts", scheme=scheme, on_epoch=interrupt)
    _, resumed = train_both(tiny_store, tmp_path / "parts", scheme=scheme)
    assert same_weights(whole, resumed)


def test_cross_validation_trains_the_base_once_and_keeps_it(tiny_store: FeatureStore, tmp_path: Path):
    options = {"n_units": 4, "n_epochs": 2, "pooling": "eq9", "scheme": "greedy", "progress": False}
    result = serfast.cross_validate(tiny_store, output=tmp_path / "run", **options)
    assert len(result.folds) == 6
    for fold in result.folds:
        base = serfast.Recognizer.load(tmp_path / "run" / "base" / "folds" / fold.name).model
        top = serfast.Recognizer.load(tmp_path / "run" / "folds" / fold.name).model
        assert base.options.pooling == "mean"
        assert top.options.pooling == "eq9"
        assert torch.equal(base.encoder.weight_hh_l0, top.encoder.weight_hh_l0)


def test_a_scheme_and_a_base_must_fit(make_store: Callable[..., FeatureStore], tmp_path: Path):
    store = make_store(tmp_path / "store")
    with pytest.raises(ValueError, match="base must be given for a greedy scheme"):
        train_model(store, single(store.corpus)[0], MODEL, OPTIONS, folder=tmp_path, device=CPU)
