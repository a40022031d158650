from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from serfast import FeatureStore, TrainingOptions
from serfast.corpora.folds import leave_one_speaker_out
from serfast.features import ColumnSource, FeatureOptions, SegmentSource, feature_names
from serfast.models import SegmentNetwork, StackedAutoencoder
from serfast.training import EpochRecord
from serfast.training.autoencoding import LayerTask
from serfast.training.batches import NO_EMOTION
from serfast.training.captured_step import CapturedSteps, Graphs
from serfast.training.classification import standardise
from serfast.training.joint_steps import CapturedJointSteps
from serfast.training.loop import captured, make_steps, run_in_turn, training_steps
from serfast.training.objective import Objective
from serfast.training.row_steps import RowTask, run_rows_side_by_side
from serfast.training.segments import SegmentTask

CPU = torch.device("cpu")
OPTIONS = TrainingOptions(n_epochs=6, patience=6, batch_size=5, learning_rate=5e-3, class_weights=True, averaging=0.9)
N_FOLDS = 3


@pytest.fixture
def store(make_store: Callable[..., FeatureStore], tmp_path: Path) -> FeatureStore:
    return make_store(tmp_path / "store", n_speakers=N_FOLDS, n_utterances=10, options=FeatureOptions(log_energy=True))


def segment_tasks(store: FeatureStore, device: torch.device = CPU) -> list[RowTask]:
    inputs, energy = (ColumnSource(store, store.feature_names, names) for names in (feature_names(), ["log_energy"]))
    source = SegmentSource(inputs, energy, n_frames=8, share=0.3)
    tasks = []
    for fold in leave_one_speaker_out(store.corpus):
        torch.manual_seed(0)
        network = SegmentNetwork(8 * 28, 3, n_layers=1, n_units=12).to(device)
        tasks.append(SegmentTask(network, source, fold, Objective(store, fold, OPTIONS, device), OPTIONS, device))
    return tasks


def layer_tasks(store: FeatureStore, device: torch.device = CPU) -> list[RowTask]:
    """Second layers of autoencoders whose first ones stay as they are."""
    tasks = []
    for fold in leave_one_speaker_out(store.corpus):
        torch.manual_seed(0)
        stack = StackedAutoencoder(len(store.feature_names), [12, 4], corruption=0.0).eval().to(device)
        _, source = standardise(store, fold, "training")
        tasks.append(LayerTask(stack.layers[1], stack, 1, source, fold, OPTIONS, device))
    return tasks


def in_folders(folder: Path) -> list[Path]:
    folders = [folder / str(place) for place in range(N_FOLDS)]
    for place in folders:
        place.mkdir(parents=True)
    return folders


def train_captured(task: RowTask, folder: Path, graphs: Graphs) -> tuple[EpochRecord, ...]:
    make = partial(captured, task, CapturedSteps(OPTIONS.batch_size, graphs))
    return make_steps(training_steps(task, OPTIONS, folder=folder, device=CPU), make)


def assert_alike(
    ways: Sequence[tuple[Sequence[RowTask], Sequence[Sequence[EpochRecord]]]],
) -> None:
    expected_tasks, expected = ways[0]
    for tasks, histories in ways[1:]:
        for task, other, history, other_history in zip(expected_tasks, tasks, expected, histories, strict=True):
            losses = [(record.loss, record.validation_loss) for record in history]
            found = [(record.loss, record.validation_loss) for record in other_history]
            np.testing.assert_allclose(found, losses, atol=1e-4)
            for one, same in zip(task.model.parameters(), other.model.parameters(), strict=True):
                np.testing.assert_allclose(same.detach().cpu().numpy(), one.detach().numpy(), atol=1e-4)


@pytest.mark.parametrize("make_tasks", [segment_tasks, layer_tasks])
def test_tasks_are_trained_alike_alone_together_and_captured(
    store: FeatureStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plain_calls: Callable[[], Graphs],
    make_tasks: Callable[[FeatureStore], list[RowTask]],
):
    ignore: list[Callable[[EpochRecord], None]] = [lambda record: None] * N_FOLDS
    names = [str(place) for place in range(N_FOLDS)]
    alone, together, graph_alone, graph_together = (make_tasks(store) for _ in range(4))
    ways = [(alone, run_in_turn(alone, in_folders(tmp_path / "alone"), on_epochs=ignore))]
    folders = in_folders(tmp_path / "together")
    ways.append((together, run_rows_side_by_side(together, folders, names=names, on_epochs=ignore)))
    graphs = plain_calls()
    folders = in_folders(tmp_path / "graph-alone")
    histories = [train_captured(task, folder, graphs) for task, folder in zip(graph_alone, folders, strict=True)]
    ways.append((graph_alone, histories))
    assert graphs.n_replays > graphs.n_captures > 0
    monkeypatch.setattr("serfast.training.row_steps.packed_steps", lambda of, _: CapturedJointSteps(of, plain_calls))
    folders = in_folders(tmp_path / "graph-together")
    ways.append((graph_together, run_rows_side_by_side(graph_together, folders, names=names, on_epochs=ignore)))
    assert_alike(ways)


@pytest.mark.parametrize("make_tasks", [segment_tasks, layer_tasks])
def test_rows_without_a_label_count_for_nothing(
    store: FeatureStore, make_tasks: Callable[[FeatureStore], list[RowTask]]
):
    task = make_tasks(store)[0]
    task.model.eval()
    inputs = task.inputs(np.array([3, 0, 17]), 1)
    labels = torch.repeat_interleave(inputs.truth, inputs.lengths.lengths)
    more = torch.cat([inputs.rows, 100 + inputs.rows[:7]]), torch.cat([labels, torch.full((7,), NO_EMOTION)])
    torch.testing.assert_close(task.rows_loss(*more), task.rows_loss(inputs.rows, labels))
    torch.testing.assert_close(task.loss_of(inputs), task.rows_loss(inputs.rows, labels))


@pytest.mark.cuda
@pytest.mark.parametrize("make_tasks", [segment_tasks, layer_tasks])
def test_a_gpu_trains_what_the_cpu_trains(
    cuda: torch.device,
    store: FeatureStore,
    tmp_path: Path,
    make_tasks: Callable[[FeatureStore, torch.device], list[RowTask]],
):
    ignore: list[Callable[[EpochRecord], None]] = [lambda record: None] * N_FOLDS
    names = [str(place) for place in range(N_FOLDS)]
    on_cpu, alone, together = make_tasks(store, CPU), make_tasks(store, cuda), make_tasks(store, cuda)
    ways = [
        (on_cpu, run_in_turn(on_cpu, in_folders(tmp_path / "cpu"), on_epochs=ignore)),
        (alone, run_in_turn(alone, in_folders(tmp_path / "alone"), on_epochs=ignore)),
    ]
    folders = in_folders(tmp_path / "together")
    ways.append((together, run_rows_side_by_side(together, folders, names=names, on_epochs=ignore)))
    assert_alike(ways)
