import dataclasses
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import serfast
from serfast import FeatureStore, ModelOptions, TrainingOptions
from serfast.corpora.folds import leave_one_speaker_out
from serfast.models import BLSTM, AttentionPool, EmotionClassifier
from serfast.ops import Groups, Lengths
from serfast.training import EpochRecord, TrainedModel, answer, greedy, train_model, train_side_by_side
from serfast.training.captured_step import Graphs
from serfast.training.joint_steps import CapturedJointSteps

CPU = torch.device("cpu")
MODEL = ModelOptions(n_units=8, encoder_dropout=0.2, pooling_dropout=0.3, decoder_dropout=0.2, n_decoder=6)
OPTIONS = TrainingOptions(
    n_epochs=6,
    patience=2,
    batch_size=5,
    learning_rate=1e-2,
    schedule="one_cycle",
    weight_decay=0.01,
    gradient_clip=0.5,
    averaging=0.9,
    class_weights=True,
    label_smoothing=0.1,
    tempo_change=0.1,
    noise=0.1,
    n_masked=3,
)
QUICK = {"n_units": 8, "n_epochs": 3, "batch_size": 6, "encoder_dropout": 0.2, "progress": False}


@pytest.fixture
def store(make_store: Callable[..., FeatureStore], tmp_path: Path) -> FeatureStore:
    """Four speakers with fewer and fewer utterances: folds of different sizes."""
    whole = make_store(tmp_path / "store", n_speakers=4, n_utterances=18)
    dropped = [9 * number for number in range(8)]
    return whole.restrict(index for index in range(40 + 18) if index not in dropped)


def both_ways(
    store: FeatureStore, folder: Path, model: ModelOptions, options: TrainingOptions, n_folds: int = 3
) -> tuple[list[TrainedModel], list[TrainedModel]]:
    folds = leave_one_speaker_out(store.corpus)[:n_folds]
    names = [f"{way}-{fold.name}" for way in ("alone", "together") for fold in folds]
    folders = [folder / name for name in names]
    for place in folders:
        place.mkdir(parents=True)
    bases = None if options.scheme == "joint" else untrained(store, model, n_folds)
    alone = [
        train_model(store, fold, model, options, folder=place, device=CPU, base=base)
        for fold, place, base in zip(folds, folders[:n_folds], bases or [None] * n_folds, strict=True)
    ]
    together = train_side_by_side(
        store, folds, model, options, folders=folders[n_folds:], device=CPU, on_epochs=[ignore] * n_folds, bases=bases
    )
    return alone, together


def untrained(store: FeatureStore, model: ModelOptions, n_models: int) -> list[EmotionClassifier]:
    """Different encoders to freeze."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        shape = len(store.feature_names), len(store.corpus.emotions)
        return [EmotionClassifier(*shape, dataclasses.replace(model, pooling="mean")) for _ in range(n_models)]


def ignore(record: EpochRecord) -> None:
    del record


def assert_alike(one: TrainedModel, other: TrainedModel) -> None:
    others = other.model.state_dict()
    for name, expected in one.model.state_dict().items():
        np.testing.assert_allclose(others[name].numpy(), expected.numpy(), atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("pooling", "direction"),
    [("eq9", "both"), ("eq8", "both"), ("mean", "both"), ("last", "both"), ("last", "forward"), ("eq9", "reverse")],
)
def test_each_fold_is_trained_as_it_is_alone(store: FeatureStore, tmp_path: Path, pooling: str, direction: str):
    model = dataclasses.replace(MODEL, pooling=pooling, direction=direction)
    for one, other in zip(*both_ways(store, tmp_path, model, OPTIONS), strict=True):
        assert_alike(one, other)
        assert len(one.history) == len(other.history)
        for alone, together in zip(one.history, other.history, strict=True):
            assert together.loss == pytest.approx(alone.loss, abs=1e-4)
            assert (together.validation_ua, together.best) == (alone.validation_ua, alone.best)


@pytest.mark.parametrize("scheme", ["greedy", "one_by_one"])
@pytest.mark.parametrize("pooling", ["eq9", "eq8", "mean", "last"])
def test_each_head_is_trained_as_it_is_alone(store: FeatureStore, tmp_path: Path, pooling: str, scheme: str):
    model = dataclasses.replace(MODEL, pooling=pooling)
    options = dataclasses.replace(OPTIONS, scheme=scheme, n_epochs=6, patience=6)
    alone, together = both_ways(store, tmp_path, model, options)
    for fold, one, other in zip(leave_one_speaker_out(store.corpus), alone, together, strict=False):
        assert_alike(one, other)
        assert len(one.history) * len(fold.train) // options.batch_size >= 20
        assert all(parameter.requires_grad for parameter in other.model.parameters())
        assert [record.best for record in other.history] == [record.best for record in one.history]
        mine, expected = (
            answer(trained.model, trained.source, fold.test, batch_size=4, device=CPU).probabilities
            for trained in (other, one)
        )
        np.testing.assert_allclose(mine, expected, atol=1e-4)
    for one, other in pairwise(together):
        assert not torch.equal(one.model.head.decoder.layers[-1].weight, other.model.head.decoder.layers[-1].weight)


def test_heads_share_their_steps(store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    members: list[int] = []
    pool = AttentionPool.forward

    def counted(self: AttentionPool, hidden: torch.Tensor, lengths: Lengths, *rest: Groups) -> object:
        if self.training and len(rest) == 2:
            members.append(len(rest[1].groups.unique()))
        return pool(self, hidden, lengths, *rest)

    monkeypatch.setattr(AttentionPool, "forward", counted)
    options = dataclasses.replace(OPTIONS, scheme="greedy", n_epochs=2)
    both_ways(store, tmp_path, MODEL, options)
    tasks = [
        greedy.HeadTask(None, None, len(fold.train), None, options, CPU)
        for fold in leave_one_speaker_out(store.corpus)[:3]
    ]
    n_steps = [sum(len(task.batches(epoch)) for epoch in (1, 2)) for task in tasks]
    assert members == [sum(step < own for own in n_steps) for step in range(max(n_steps))]


def test_folds_share_their_steps_and_one_that_stops_leaves(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    members: list[int] = []
    encode = BLSTM.forward

    def counted(self: BLSTM, hidden: torch.Tensor, lengths: Lengths, *group: Groups) -> torch.Tensor:
        members.extend(len(own.groups.unique()) for own in group)
        return encode(self, hidden, lengths, *group)

    monkeypatch.setattr(BLSTM, "forward", counted)
    options = dataclasses.replace(OPTIONS, n_epochs=12)
    _, together = both_ways(store, tmp_path, MODEL, options, n_folds=4)
    folds = leave_one_speaker_out(store.corpus)
    n_steps = [
        len(trained.history) * -(-len(fold.train) // options.batch_size)
        for fold, trained in zip(folds, together, strict=True)
    ]
    assert len(set(n_steps)) > 1
    expected = [sum(step < own for own in n_steps) for step in range(max(n_steps)) for _ in range(MODEL.n_layers)]
    assert members == expected


@pytest.mark.parametrize(
    ("pooling", "scheme"), [("eq8", "joint"), ("eq9", "joint"), ("last", "joint"), ("eq8", "one_by_one")]
)
def test_captured_steps_are_the_plain_ones(
    store: FeatureStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plain_calls: Callable[[], Graphs],
    pooling: str,
    scheme: str,
):
    made: list[Graphs] = []

    def graphs() -> Graphs:
        made.append(plain_calls())
        return made[-1]

    monkeypatch.setattr("serfast.training.side_by_side.packed_steps", lambda of, _: CapturedJointSteps(of, graphs))
    model = dataclasses.replace(MODEL, pooling=pooling, encoder_dropout=0.0, decoder_dropout=0.0)
    options = dataclasses.replace(OPTIONS, scheme=scheme)
    alone, together = both_ways(store, tmp_path, model, options)
    for one, other in zip(alone, together, strict=True):
        assert_alike(one, other)
        assert [record.best for record in other.history] == [record.best for record in one.history]
    n_runs, n_captures, n_replays = (
        sum(getattr(own, name) for own in made) for name in ("n_runs", "n_captures", "n_replays")
    )
    assert n_replays > n_runs > n_captures > 1
    n_stages = 2 if scheme == "one_by_one" else 1
    assert n_stages < len(made) <= 3 * n_stages  # three folds, then two, then one


@pytest.mark.parametrize("scheme", ["joint", "greedy", "one_by_one"])
def test_a_stopped_training_goes_on_to_the_same_weights(store: FeatureStore, tmp_path: Path, scheme: str):
    class StopError(Exception):
        pass

    n_seen = 0

    def stop(record: EpochRecord) -> None:
        nonlocal n_seen
        n_seen += 1
        if n_seen == (8 if scheme == "one_by_one" else 2):  # there in the second stage
            raise StopError

    folds = leave_one_speaker_out(store.corpus)[:3]
    options = dataclasses.replace(OPTIONS, scheme=scheme, patience=6)
    bases = None if scheme == "joint" else untrained(store, MODEL, 3)
    _, whole = both_ways(store, tmp_path, MODEL, options)
    folders = [tmp_path / f"stopped-{fold.name}" for fold in folds]
    for folder in folders:
        folder.mkdir()

    def train(on_epoch: Callable[[EpochRecord], None]) -> list[TrainedModel]:
        return train_side_by_side(
            store,
            folds,
            MODEL,
            options,
            folders=folders,
            device=CPU,
            on_epochs=[ignore, on_epoch, ignore],
            bases=bases,
        )

    with pytest.raises(StopError):
        train(stop)
    n_epochs = [len((folder / "metrics.jsonl").read_text().splitlines()) for folder in folders]
    assert n_epochs[1] == 2
    resumed = train(ignore)
    for one, other in zip(whole, resumed, strict=True):
        assert_alike(one, other)
        assert [record.epoch for record in other.history] == [record.epoch for record in one.history]


def test_other_random_numbers_and_the_callers_stream_are_left_alone(store: FeatureStore, tmp_path: Path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    both_ways(store, tmp_path, MODEL, dataclasses.replace(OPTIONS, n_epochs=1))
    assert torch.equal(torch.rand(3), expected)


def test_what_cannot_be_trained_side_by_side_is_refused(store: FeatureStore, tmp_path: Path):
    with pytest.raises(ValueError, match="jobs must be None with side_by_side, got 2"):
        serfast.cross_validate(store, output=tmp_path / "b", side_by_side=True, jobs=2, **QUICK)
    with pytest.raises(TypeError, match="side_by_side must be True or False, got 'yes'"):
        serfast.cross_validate(store, output=tmp_path / "c", side_by_side="yes", **QUICK)
    huge = {**QUICK, "learning_rate": 1e30, "weight_decay": 1e30}
    with pytest.raises(ValueError, match="fold speaker_s0: learning_rate must keep the loss finite"):
        serfast.cross_validate(store, output=tmp_path / "d", side_by_side=True, **huge)
    options = TrainingOptions(scheme="greedy")
    with pytest.raises(ValueError, match="bases must be given for a greedy scheme and for no other, got scheme 'greed"):
        train_side_by_side(store, [], MODEL, options, folders=[], device=CPU, on_epochs=[])
