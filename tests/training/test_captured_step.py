import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from serfast import FeatureStore, ModelOptions, TrainingOptions
from serfast.corpora.folds import single
from serfast.ops import Lengths
from serfast.training import EpochRecord
from serfast.training.batches import NO_EMOTION, StepInputs
from serfast.training.captured_step import CapturedSteps, Graphs, fill, room_for
from serfast.training.classification import ClassificationTask, new_task
from serfast.training.greedy import HeadTask
from serfast.training.loop import PackedTask, captured, make_steps, run_epochs, training_steps

CPU = torch.device("cpu")
MODEL = ModelOptions(n_units=8, pooling="eq8", pooling_dropout=0.3, n_decoder=6)
OPTIONS = TrainingOptions(n_epochs=4, batch_size=7, class_weights=True, label_smoothing=0.1)


@contextmanager
def new_tasks(store: FeatureStore, folder: Path, model: ModelOptions, options: TrainingOptions) -> Iterator[list]:
    """A classifier, and the head of a classifier on cached hidden vectors."""
    fold = single(store.corpus)[0]
    whole, other = (new_task(store, fold, model, options, CPU)[0] for _ in range(2))
    with other.head_task(other.model, folder) as head:
        yield [whole, head]


def gradients(task: ClassificationTask | HeadTask, inputs: StepInputs) -> tuple[Tensor, list[Tensor]]:
    task.model.train()
    task.model.zero_grad()
    loss = task.loss_of(inputs)
    loss.backward()
    own = (parameter.grad for parameter in task.model.parameters() if parameter.grad is not None)
    return loss.detach(), [gradient.clone() for gradient in own]


def some_inputs(task: ClassificationTask | HeadTask) -> list[StepInputs]:
    return [task.inputs(batch, 1) for batch in task.batches(1)]


def filled(inputs: StepInputs, *, n_idle: int, n_spare: int) -> StepInputs:
    room = room_for(inputs, len(inputs.lengths.lengths) + n_idle, inputs.lengths.n_rows + n_spare)
    fill(room, [inputs])
    return room


def test_a_batch_that_fills_its_bucket_gives_the_same_bits(tiny_store: FeatureStore, tmp_path: Path):
    with new_tasks(tiny_store, tmp_path, MODEL, OPTIONS) as tasks:
        for task in tasks:
            for inputs in some_inputs(task)[:3]:
                loss, expected = gradients(task, inputs)
                found_loss, found = gradients(task, filled(inputs, n_idle=0, n_spare=0))
                assert torch.equal(loss, found_loss)
                assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


@pytest.mark.parametrize("class_weights", [False, True])
@pytest.mark.parametrize(
    "model",
    [
        MODEL,
        ModelOptions(n_units=8, pooling="eq9"),
        ModelOptions(n_units=8, pooling="mean", direction="reverse"),
        ModelOptions(n_units=8, pooling="last"),
    ],
    ids=["eq8", "eq9", "reverse", "last"],
)
def test_idle_utterances_change_no_gradient(
    tiny_store: FeatureStore, tmp_path: Path, model: ModelOptions, class_weights: bool
):
    options = dataclasses.replace(OPTIONS, class_weights=class_weights)
    with new_tasks(tiny_store, tmp_path, model, options) as tasks:
        for task in tasks:
            with torch.no_grad():  # so that the weights of the frames differ
                for parameter in task.model.parameters():
                    parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
            for inputs in some_inputs(task)[:3]:
                loss, expected = gradients(task, inputs)
                full = filled(inputs, n_idle=4, n_spare=37)
                found_loss, found = gradients(task, full)
                assert abs(float(loss - found_loss)) <= 1e-6
                for one, other in zip(expected, found, strict=True):
                    assert (one - other).abs().max() <= 1e-6 * max(1.0, float(one.abs().max()))
                rows = full.rows.requires_grad_()
                (of_rows,) = torch.autograd.grad(task.loss_of(full), rows)
                assert of_rows[: inputs.lengths.n_rows].any()
                assert not of_rows[inputs.lengths.n_rows :].any()


def test_nothing_is_left_of_the_batch_before(tiny_store: FeatureStore, tmp_path: Path):
    with new_tasks(tiny_store, tmp_path, MODEL, OPTIONS) as (task, _):
        batches = task.batches(1)
        few, many = task.inputs(batches[0][:2], 1), task.inputs(batches[0], 1)
        shape = len(many.lengths.lengths) + 2, many.lengths.n_rows + 30
        fresh, used = room_for(few, *shape), room_for(few, *shape)
        fill(fresh, [few])
        fill(used, [dataclasses.replace(many, rows=torch.full_like(many.rows, torch.nan))])
        before = [tensor.data_ptr() for tensor in (used.rows, used.lengths.on_device, used.seeds, used.truth)]
        fill(used, [few])
        assert before == [tensor.data_ptr() for tensor in (used.rows, used.lengths.on_device, used.seeds, used.truth)]
        for one, other in ((fresh, used), (fresh.lengths, used.lengths)):
            for field in dataclasses.fields(one):
                value = getattr(one, field.name)
                assert not isinstance(value, Tensor) or torch.equal(value, getattr(other, field.name)), field.name
        assert torch.equal(gradients(task, fresh)[0], gradients(task, used)[0])


@pytest.mark.parametrize("batch_size", [1, 5, 16, 64])
def test_buckets_are_few_and_hardly_longer_than_their_batches(batch_size: int, plain_calls: Callable[[], Graphs]):
    wanted: list[StepInputs] = []
    seen: list[tuple[StepInputs, StepInputs]] = []
    generator = np.random.default_rng(0)
    steps = CapturedSteps(batch_size, plain_calls())

    def note(room: StepInputs) -> Tensor:
        seen.append((wanted[-1], snapshot(room)))
        return torch.zeros(())

    for _ in range(300):
        longest = generator.integers(100, 1600)
        counts = torch.from_numpy(generator.integers(longest // 2, longest + 1, batch_size))
        rows = torch.ones(int(counts.sum()), 2)
        inputs = StepInputs(rows, Lengths.packed(counts), torch.ones_like(counts), torch.zeros_like(counts))
        wanted.append(inputs)
        steps.make([inputs], note)
    shapes = {(len(full.truth), len(full.rows)) for _, full in seen}
    assert len(shapes) <= 4 * 5 + 2  # four to each doubling of a range of 50 to 1600 rows per utterance
    for inputs, full in seen:
        n_utterances, n_rows = len(inputs.truth), len(inputs.rows)
        idle = full.lengths.lengths[n_utterances:]
        assert torch.equal(full.lengths.lengths[:n_utterances], inputs.lengths.lengths)
        assert int(full.lengths.lengths.sum()) == len(full.rows)
        assert idle.min() >= 1
        assert idle.max() <= n_rows / n_utterances + 2
        assert len(full.rows) <= 1.25 * (n_rows + len(idle)) + 1
        assert (full.truth[n_utterances:] == NO_EMOTION).all()
    spare = [len(full.rows) / len(inputs.rows) - 1 for inputs, full in seen]
    assert np.mean(spare) < 0.15


def snapshot(room: StepInputs) -> StepInputs:
    """As it is now: it will be written again."""
    return StepInputs(room.rows.clone(), Lengths.packed(room.lengths.lengths), room.seeds.clone(), room.truth.clone())


def test_a_bucket_is_captured_at_its_third_use_and_then_replayed(plain_calls: Callable[[], Graphs]):
    graphs = plain_calls()
    steps = CapturedSteps(3, graphs)
    counts = torch.tensor([5, 6, 7])
    inputs = StepInputs(torch.ones(18, 2), Lengths.packed(counts), counts, counts)
    found = [
        float(steps.make([dataclasses.replace(inputs, rows=number * inputs.rows)], lambda room: room.rows.sum()))
        for number in range(6)
    ]
    assert found == [36.0 * number for number in range(6)]
    assert (graphs.n_runs, graphs.n_captures, graphs.n_replays) == (2, 1, 4)


def trained(task: PackedTask, folder: Path, make: Callable[..., Tensor]) -> tuple[EpochRecord, ...]:
    folder.mkdir(exist_ok=True)
    return make_steps(training_steps(task, task.options, folder=folder, device=CPU), make)


@pytest.mark.parametrize(
    "changes", [{}, {"averaging": 0.9, "schedule": "one_cycle", "weight_decay": 0.1, "noise": 0.1}]
)
def test_captured_training_is_plain_training(
    tiny_store: FeatureStore, tmp_path: Path, changes: dict[str, object], plain_calls: Callable[[], Graphs]
):
    options = dataclasses.replace(OPTIONS, **changes)
    with (
        new_tasks(tiny_store, tmp_path, MODEL, options) as expected,
        new_tasks(tiny_store, tmp_path, MODEL, options) as found,
    ):
        for place, (one, other) in enumerate(zip(expected, found, strict=True)):
            folders = [tmp_path / f"{name}-{place}" for name in ("plain", "captured")]
            folders[0].mkdir()
            plain = run_epochs(one, options, folder=folders[0], device=CPU)
            graphs = plain_calls()
            make = partial(captured, other, CapturedSteps(options.batch_size, graphs))
            history = trained(other, folders[1], make)
            assert graphs.n_replays >= graphs.n_runs > graphs.n_captures > 1
            for record, truth in zip(history, plain, strict=True):
                assert record.loss == pytest.approx(truth.loss, abs=1e-6)
                assert record.validation_loss == pytest.approx(truth.validation_loss, abs=1e-5)


def test_captured_training_goes_on_to_the_same_bits_where_it_stopped(
    tiny_store: FeatureStore, tmp_path: Path, plain_calls: Callable[[], Graphs]
):
    model = dataclasses.replace(MODEL, encoder_dropout=0.2, decoder_dropout=0.2)
    options = dataclasses.replace(OPTIONS, noise=0.1, tempo_change=0.1)
    weights = []
    for name, all_epochs in (("whole", [4]), ("parts", [2, 4])):
        for n_epochs in all_epochs:
            task, _ = new_task(tiny_store, single(tiny_store.corpus)[0], model, options, CPU)
            task = dataclasses.replace(task, options=dataclasses.replace(options, n_epochs=n_epochs))
            make = partial(captured, task, CapturedSteps(options.batch_size, plain_calls()))
            trained(task, tmp_path / name, make)
        weights.append(task.model.state_dict())
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
