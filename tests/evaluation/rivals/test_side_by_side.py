import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from serfast import FeatureStore, ModelOptions, Result, TrainingOptions
from serfast.corpora.folds import leave_one_speaker_out
from serfast.evaluation.fold_reports import FoldReport
from serfast.evaluation.rivals import GhoshBottleneck, HanSegments, LeeCtc
from serfast.models import BLSTM
from serfast.ops import Groups, Lengths
from serfast.training import EpochRecord

N_EPOCHS, N_FOLDS = 3, 4
PLAIN = TrainingOptions(n_epochs=N_EPOCHS, patience=N_EPOCHS, batch_size=6, learning_rate=5e-3)
RANDOM = dataclasses.replace(PLAIN, noise=0.1, tempo_change=0.1, averaging=0.9)
SYSTEMS = {
    "han": HanSegments(n_frames=10, share=0.5, n_layers=2, n_units=16, n_hidden=30, training=PLAIN),
    "lee": LeeCtc(n_layers=2, n_units=8, n_voiced=4, n_hidden=(10, 20), training=RANDOM),
    "ghosh": GhoshBottleneck(
        n_units=(16, 6),
        pretraining=PLAIN,
        model=ModelOptions(pooling="mean", n_units=8, n_decoder=8, encoder_dropout=0.2, decoder_dropout=0.2),
        training=RANDOM,
    ),
}
N_STAGES = {"han": 1, "lee": 1, "ghosh": 3}
every_system = pytest.mark.parametrize("name", SYSTEMS)
RunSystem = Callable[..., Result]


@pytest.fixture
def store(make_store: Callable[..., FeatureStore], tmp_path: Path, name: str) -> FeatureStore:
    return make_store(tmp_path / "store", n_speakers=N_FOLDS, n_utterances=12, options=SYSTEMS[name].features)


def records(run: Path, fold: str) -> list[dict]:
    """The epochs of all stages of a fold."""
    files = sorted((run / "folds" / fold).rglob("metrics.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def assert_alike(one: Result, other: Result) -> None:
    for expected, found in zip(one.predictions, other.predictions, strict=True):
        assert (found.key, found.fold) == (expected.key, expected.fold)
        assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-3)
        ranked = sorted(expected.probabilities.values())
        assert found.predicted == expected.predicted or ranked[-1] - ranked[-2] < 1e-3


@every_system
def test_answers_are_those_of_folds_one_after_another(run: RunSystem, store: FeatureStore, tmp_path: Path, name: str):
    alone = run(SYSTEMS[name], store, tmp_path / "alone")
    started = time.monotonic()
    together = run(SYSTEMS[name], store, tmp_path / "together", side_by_side=True)
    assert 0 < together.training_seconds < time.monotonic() - started
    assert together == Result.load(tmp_path / "together")
    assert_alike(alone, together)
    for one, other in zip(alone.folds, together.folds, strict=True):
        assert (other.n_epochs, other.best_epoch, other.choices) == (one.n_epochs, one.best_epoch, one.choices)
        epochs, expected = records(tmp_path / "together", other.name), records(tmp_path / "alone", one.name)
        assert len(epochs) == N_EPOCHS * N_STAGES[name]
        assert [record["loss"] for record in epochs] == pytest.approx([record["loss"] for record in expected], abs=1e-4)
        assert other.seconds >= sum(record["seconds"] for record in epochs)
    assert not list((tmp_path / "together").rglob("checkpoint.safetensors"))


@every_system
def test_all_folds_are_in_the_same_epoch_of_the_same_stage(
    run: RunSystem, store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    told: list[tuple[int, str]] = []
    monkeypatch.setattr(FoldReport, "epoch", lambda report, record: told.append((record.epoch, report.path.stem)))
    run(SYSTEMS[name], store, tmp_path / "run", side_by_side=True)
    n_steps = {-(-len(fold.train) // PLAIN.batch_size) for fold in leave_one_speaker_out(store.corpus)}
    assert len(n_steps) == 1
    of_stage = [(epoch, str(fold)) for epoch in range(1, N_EPOCHS + 1) for fold in range(N_FOLDS)]
    assert told == of_stage * N_STAGES[name]


@pytest.mark.parametrize("name", ["lee", "ghosh"])
def test_encoders_run_once_for_all_folds(
    run: RunSystem, store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    members: list[int] = []
    encode = BLSTM.forward

    def counted(self: BLSTM, hidden: torch.Tensor, lengths: Lengths, *group: Groups) -> torch.Tensor:
        if torch.is_grad_enabled():
            members.append(len(group[0].groups.unique()) if group else 0)
        return encode(self, hidden, lengths, *group)

    monkeypatch.setattr(BLSTM, "forward", counted)
    run(SYSTEMS[name], store, tmp_path / "run", side_by_side=True)
    n_layers, n_train = 2, len(leave_one_speaker_out(store.corpus)[0].train)
    assert members == [N_FOLDS] * (n_layers * N_EPOCHS * -(-n_train // RANDOM.batch_size))


@pytest.mark.parametrize(
    ("name", "n_before"),
    [("han", 0), ("lee", 0), ("ghosh", 0), ("ghosh", N_FOLDS * N_EPOCHS), ("ghosh", 2 * N_FOLDS * N_EPOCHS)],
)
def test_a_stopped_run_goes_on_and_may_change_its_way(
    run: RunSystem, store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, n_before: int
):
    system, n_epochs = SYSTEMS[name], 0
    whole = run(system, store, tmp_path / "whole", side_by_side=True)

    def interrupt(report: FoldReport, record: EpochRecord) -> None:
        nonlocal n_epochs
        n_epochs += 1
        if n_epochs == n_before + 6:
            raise KeyboardInterrupt

    for side_by_side in (True, False):
        output, n_epochs = tmp_path / str(side_by_side), 0
        with monkeypatch.context() as patch:
            patch.setattr(FoldReport, "epoch", interrupt)
            with pytest.raises(KeyboardInterrupt):
                run(system, store, output, side_by_side=True)
        assert sum(len(records(output, fold.name)) for fold in whole.folds) == n_before + 6
        told: list[EpochRecord] = []
        with monkeypatch.context() as patch:
            patch.setattr(FoldReport, "epoch", lambda report, record, told=told: told.append(record))
            resumed = run(system, store, output, side_by_side=side_by_side)
        assert len(told) == N_FOLDS * N_EPOCHS * N_STAGES[name] - n_before - 6
        assert_alike(whole, resumed)


@every_system
def test_a_fold_whose_loss_is_not_finite_is_named(run: RunSystem, store: FeatureStore, tmp_path: Path, name: str):
    huge = dataclasses.replace(SYSTEMS[name].training, learning_rate=1e30, weight_decay=1e30)
    system = dataclasses.replace(SYSTEMS[name], training=huge)
    for side_by_side in (True, False):
        with pytest.raises(ValueError, match="^fold speaker_s0: learning_rate must keep the loss finite"):
            run(system, store, tmp_path / str(side_by_side), side_by_side=side_by_side)
