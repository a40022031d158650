import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from serfast import FeatureStore, ModelOptions, TrainingOptions
from serfast.corpora.folds import leave_one_speaker_out
from serfast.training import train_side_by_side
from serfast.training.batches import StepInputs, load_batch
from serfast.training.captured_step import CapturedSteps, CudaGraphs, Graphs
from serfast.training.classification import ClassificationTask, new_task
from serfast.training.greedy import HeadTask
from serfast.training.joint_steps import CapturedJointSteps
from serfast.training.loading import BatchLoader, HeldRows, ReadAhead
from serfast.training.loop import EpochRecord, captured, make_steps, training_steps

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("cuda", "full_precision_products")]

CUDA = torch.device("cuda")
MODEL = ModelOptions(n_units=16, pooling="eq8", pooling_dropout=0.3)
OPTIONS = TrainingOptions(n_epochs=3, batch_size=7, class_weights=True)
RANDOM = {"tempo_change": 0.1, "noise": 0.1, "offset": 0.1, "n_masked": 3, "label_smoothing": 0.1}


@contextmanager
def no_wait() -> Iterator[None]:
    """Raise where the host waits for the device."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def ignore(record: object) -> None:
    del record


@pytest.mark.parametrize("kind", [BatchLoader, HeldRows, ReadAhead])
def test_rows_get_to_the_device_as_they_are(tiny_store: FeatureStore, kind: type[BatchLoader]):
    batches = [np.array([3, 0, 17]), np.array([42]), np.array([5, 5])]
    loader = kind(tiny_store, CUDA)
    loader.expect(batches)
    for indices in batches:
        batch, expected = loader.load(indices), load_batch(tiny_store, indices, torch.device("cpu"))
        assert batch.features.device.type == "cuda"
        assert torch.equal(batch.features.cpu(), expected.features)
        assert torch.equal(batch.lengths.first_rows.cpu(), expected.lengths.first_rows)


def steps(task: ClassificationTask | HeadTask) -> None:
    task.model.train()
    for batch in task.batches(1):
        task.loss(batch, 1).backward()


def test_no_step_waits_for_the_device(tiny_store: FeatureStore, tmp_path: Path):
    fold = leave_one_speaker_out(tiny_store.corpus)[0]
    options = dataclasses.replace(OPTIONS, **RANDOM)
    task, _ = new_task(tiny_store, fold, dataclasses.replace(MODEL, encoder_dropout=0.2), options, CUDA)
    with task.head_task(task.model, tmp_path) as head:
        for waiting in (task, head):
            steps(waiting)
            with no_wait():
                steps(waiting)


class CountedGraphs(CudaGraphs):
    n_replays = 0

    def capture(self, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        graph = super().capture(function)

        def replay() -> Tensor:
            self.n_replays += 1
            return graph()

        return replay


def train_with(graphs: Graphs, task: ClassificationTask | HeadTask, folder: Path) -> tuple[EpochRecord, ...]:
    folder.mkdir(parents=True)
    make = partial(captured, task, CapturedSteps(task.options.batch_size, graphs))
    return make_steps(training_steps(task, task.options, folder=folder, device=CUDA), make)


@pytest.mark.parametrize("pooling", ["last", "mean", "eq8", "eq9"])
def test_graphs_do_what_calls_do_with_the_same_random_numbers(
    tiny_store: FeatureStore, tmp_path: Path, pooling: str, plain_calls: Callable[[], Graphs]
):
    model = ModelOptions(n_units=16, pooling=pooling, encoder_dropout=0.2, n_decoder=8, decoder_dropout=0.2)
    schedule = {"schedule": "one_cycle", "averaging": 0.9, "weight_decay": 0.1}
    options = dataclasses.replace(OPTIONS, n_epochs=6, patience=6, **schedule, **RANDOM)
    found = []
    for name in ("graphs", "calls"):
        task, _ = new_task(tiny_store, leave_one_speaker_out(tiny_store.corpus)[0], model, options, CUDA)
        graphs = CountedGraphs(CUDA) if name == "graphs" else plain_calls()
        found.append(train_with(graphs, task, tmp_path / name))
        with task.head_task(task.model, tmp_path / name) as head:
            found[-1] += train_with(graphs, head, tmp_path / name / "head")
        assert name == "calls" or graphs.n_replays > 6
    for one, other in zip(*found, strict=True):
        assert one.loss == pytest.approx(other.loss, abs=1e-3)
        assert one.validation_loss == pytest.approx(other.validation_loss, abs=1e-3)


def test_no_replay_waits_for_the_device(tiny_store: FeatureStore, tmp_path: Path):
    fold = leave_one_speaker_out(tiny_store.corpus)[0]
    task, _ = new_task(tiny_store, fold, MODEL, dataclasses.replace(OPTIONS, noise=0.1, offset=0.1), CUDA)

    def whole(inputs: StepInputs) -> Tensor:
        loss = task.loss_of(inputs)
        loss.backward()
        return loss.detach()

    captured_steps = CapturedSteps(OPTIONS.batch_size, CudaGraphs(CUDA))
    for number in range(4):
        with no_wait() if number == 3 else nullcontext():
            for batch in task.batches(1):
                captured_steps.make([task.inputs(batch, 1)], whole)


def test_no_joint_step_waits_for_the_device(tiny_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    n_steps = 0

    class WatchedSteps(CapturedJointSteps):
        def __call__(self, *arguments: object) -> Tensor:
            nonlocal n_steps
            n_steps += 1
            with no_wait() if n_steps > 3 else nullcontext():  # two plain calls, a capture
                return super().__call__(*arguments)

    def watched(losses_of: Callable[..., list[Tensor]], device: torch.device) -> WatchedSteps:
        return WatchedSteps(losses_of, partial(CudaGraphs, device))

    monkeypatch.setattr("serfast.training.side_by_side.packed_steps", watched)
    folds = leave_one_speaker_out(tiny_store.corpus)[:2]
    folders = [tmp_path / fold.name for fold in folds]
    for folder in folders:
        folder.mkdir()
    options = dataclasses.replace(OPTIONS, n_epochs=6, patience=6, batch_size=64)  # an epoch is one step
    train_side_by_side(tiny_store, folds, MODEL, options, folders=folders, device=CUDA, on_epochs=[ignore, ignore])
    assert n_steps == 6
