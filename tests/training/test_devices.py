"""Training on CUDA, real or emulated: what the CPU trains, alone, side by side and after a stop."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from serfast import FeatureStore, ModelOptions, TrainingOptions
from serfast.corpora.folds import leave_one_speaker_out
from serfast.training import TrainedModel, train_model, train_side_by_side

pytestmark = pytest.mark.usefixtures("full_precision_products")

MODEL = ModelOptions(n_units=16, pooling="eq8", pooling_dropout=0.3)
OPTIONS = TrainingOptions(n_epochs=3, batch_size=7, class_weights=True)
RANDOM = {"tempo_change": 0.1, "noise": 0.1, "offset": 0.1, "n_masked": 3, "label_smoothing": 0.1}


def ignore(record: object) -> None:
    del record


def train_on(device: torch.device, store: FeatureStore, folder: Path, **changes: object) -> list[TrainedModel]:
    """Two folds, each alone: whole models, then heads on their encoders."""
    trained, options = [], dataclasses.replace(OPTIONS, **changes)
    for fold in leave_one_speaker_out(store.corpus)[:2]:
        folders = [folder / f"{name}-{fold.name}" for name in ("joint", "greedy")]
        for place in folders:
            place.mkdir(parents=True)
        whole = train_model(store, fold, MODEL, options, folder=folders[0], device=device)
        greedy = dataclasses.replace(options, scheme="greedy")
        head = train_model(store, fold, MODEL, greedy, folder=folders[1], device=device, base=whole.model)
        trained += [whole, head]
    return trained


def assert_alike(one: TrainedModel, other: TrainedModel) -> None:
    for expected, found in zip(one.history, other.history, strict=True):
        assert found.loss == pytest.approx(expected.loss, abs=1e-3)
        assert found.validation_loss == pytest.approx(expected.validation_loss, abs=1e-3)


@pytest.fixture
def trained_on_the_cpu(tiny_store: FeatureStore, tmp_path: Path) -> list[TrainedModel]:
    """Trained before a device is emulated."""
    return train_on(torch.device("cpu"), tiny_store, tmp_path / "cpu")


def test_cuda_trains_what_the_cpu_trains(
    trained_on_the_cpu: list[TrainedModel], device: torch.device, tiny_store: FeatureStore, tmp_path: Path
):
    found = train_on(device, tiny_store, tmp_path / "cuda")
    for one, other in zip(trained_on_the_cpu, found, strict=True):
        assert_alike(one, other)


def test_training_goes_on_where_it_stopped(device: torch.device, tiny_store: FeatureStore, tmp_path: Path):
    class StopError(Exception):
        pass

    def stop(record: object) -> None:
        raise StopError

    fold = leave_one_speaker_out(tiny_store.corpus)[0]
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()

    def train(name: str, on_epoch: Callable[[object], None]) -> TrainedModel:
        folder = tmp_path / name
        return train_model(tiny_store, fold, MODEL, OPTIONS, folder=folder, device=device, on_epoch=on_epoch)

    with pytest.raises(StopError):
        train("parts", stop)
    made_again: list[object] = []
    assert_alike(train("whole", ignore), train("parts", made_again.append))
    assert len(made_again) == OPTIONS.n_epochs - 1


def test_folds_side_by_side_are_those_alone(device: torch.device, tiny_store: FeatureStore, tmp_path: Path):
    alone = train_on(device, tiny_store, tmp_path, **RANDOM, n_epochs=4)
    for place, scheme in enumerate(("joint", "greedy")):
        folders = [tmp_path / f"{scheme}-{number}" for number in range(2)]
        for folder in folders:
            folder.mkdir()
        together = train_side_by_side(
            tiny_store,
            leave_one_speaker_out(tiny_store.corpus)[:2],
            MODEL,
            dataclasses.replace(OPTIONS, **RANDOM, scheme=scheme, n_epochs=4),
            folders=folders,
            device=device,
            on_epochs=[ignore, ignore],
            bases=None if place == 0 else [whole.model for whole in alone[::2]],
        )
        for one, other in zip(alone[place::2], together, strict=True):
            assert_alike(one, other)
            weights = other.model.state_dict()
            for name, expected in one.model.state_dict().items():
                np.testing.assert_allclose(weights[name].cpu(), expected.cpu(), atol=1e-4, err_msg=name)
