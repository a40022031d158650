import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from serfast import FeatureStore, TrainingOptions
from serfast.corpora.folds import single
from serfast.models import FrameClassifier
from serfast.ops import Lengths
from serfast.training import run_epochs
from serfast.training.classification import standardise
from serfast.training.ctc import CtcTask, count_regions, ctc_loss, frame_log_posteriors
from serfast.training.objective import Objective

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("voiced", "n_least", "n_regions"),
    [
        ([0, 1, 1, 0, 0, 1, 1, 1, 0], 2, 2),
        ([0, 1, 1, 0, 0, 1, 1, 1, 0], 3, 1),
        ([1, 1, 0, 1, 0, 1, 1], 1, 3),
        ([1, 1, 0, 1, 0, 1, 1], 2, 2),
        ([1, 1, 1, 1], 4, 1),
        ([1, 1, 1, 1], 5, 1),
        ([0, 0, 0], 1, 1),
        ([1], 1, 1),
        ([1, 0] * 5, 1, 5),
    ],
)
def test_regions_are_runs_of_voiced_frames_that_are_long_enough(voiced: list[int], n_least: int, n_regions: int):
    assert count_regions(np.array(voiced, dtype=np.float32), n_least=n_least) == n_regions


def negative_log_likelihood(posteriors: NDArray[np.float64], emotion: int, n_labels: int) -> float:
    """Sum the probabilities of all paths, one by one."""
    n_frames, n_classes = posteriors.shape
    total = 0.0
    for path in itertools.product(range(n_classes), repeat=n_frames):
        merged = [label for label, _ in itertools.groupby(path)]
        if [label for label in merged if label != n_classes - 1] == [emotion] * n_labels:
            total += math.prod(posteriors[frame, label] for frame, label in enumerate(path))
    return -math.log(total)


def test_the_loss_counts_every_path_to_the_labels():
    lengths, emotions, n_labels = [5, 3, 6, 1], [1, 0, 1, 2], [2, 2, 3, 1]
    logits = torch.randn(sum(lengths), 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_posteriors = logits.log_softmax(dim=1)
    packed = Lengths.packed(torch.tensor(lengths))
    loss = ctc_loss(log_posteriors, packed, torch.tensor(emotions), torch.tensor(n_labels))
    utterances = [rows.exp().numpy() for rows in log_posteriors.split(lengths)]
    expected = [
        negative_log_likelihood(rows, emotion, n) / n
        for rows, emotion, n in zip(utterances, emotions, n_labels, strict=True)
    ]
    assert float(loss) == pytest.approx(np.mean(expected))


def test_labels_that_an_utterance_has_no_room_for_are_left_out():
    log_posteriors = torch.randn(9, 3, generator=torch.Generator().manual_seed(1)).log_softmax(dim=1)
    lengths, emotions = Lengths.packed(torch.tensor([5, 4])), torch.tensor([0, 1])
    cut = ctc_loss(log_posteriors, lengths, emotions, torch.tensor([40, 3]))
    assert math.isfinite(float(cut))
    assert torch.equal(cut, ctc_loss(log_posteriors, lengths, emotions, torch.tensor([3, 2])))


def test_other_utterances_change_neither_loss_nor_gradient():
    generator = torch.Generator().manual_seed(2)
    utterances = [torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in (7, 20, 3)]
    emotions, n_labels = torch.tensor([2, 0, 1]), torch.tensor([2, 5, 1])
    together = [rows.clone().requires_grad_() for rows in utterances]
    loss = ctc_loss(
        torch.cat(together).log_softmax(dim=1), Lengths.packed(torch.tensor([7, 20, 3])), emotions, n_labels
    )
    loss.backward()
    alone = [rows.clone().requires_grad_() for rows in utterances]
    losses = []
    for place, rows in enumerate(alone):
        lengths = Lengths.packed(torch.tensor([len(rows)]))
        chosen = slice(place, place + 1)
        losses.append(ctc_loss(rows.log_softmax(dim=1), lengths, emotions[chosen], n_labels[chosen]) / 3)
        losses[-1].backward()
    torch.testing.assert_close(loss, sum(losses))
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def train(
    store: FeatureStore, n_labels: NDArray[np.int64], folder: Path, **changes: object
) -> tuple[FrameClassifier, list[NDArray[np.float32]]]:
    options = TrainingOptions(n_epochs=25, patience=25, batch_size=8, learning_rate=1e-2)
    options = dataclasses.replace(options, **changes)
    fold = single(store.corpus)[0]
    source = standardise(store, fold, "training")[1]
    torch.manual_seed(0)
    model = FrameClassifier(len(store.feature_names), len(store.corpus.emotions) + 1, n_units=12, n_layers=1)
    folder.mkdir()
    objective = Objective(store, fold, options, CPU)
    task = CtcTask(model, source, fold, torch.from_numpy(n_labels), objective, options, CPU)
    run_epochs(task, options, folder=folder, device=CPU)
    return model, frame_log_posteriors(model, source, fold.validation, batch_size=4, device=CPU)


def labels_read_off(log_posteriors: NDArray[np.float32]) -> list[int]:
    """The likeliest class of every frame, repetitions merged, Null taken out."""
    null = log_posteriors.shape[1] - 1
    return [int(label) for label, _ in itertools.groupby(log_posteriors.argmax(axis=1)) if label != null]


def test_as_many_labels_are_read_off_as_regions_of_the_emotion_were_heard(
    make_store: Callable[..., FeatureStore], tmp_path: Path
):
    # The emotion is heard in bursts between silences: which frames they fill is never said.
    store = make_store(tmp_path / "store", n_utterances=18, separation=0.0)
    generator, labels = np.random.default_rng(0), store.corpus.labels()
    rows = np.array(store.rows)
    n_bursts = generator.integers(1, 4, len(labels))
    for index, first in enumerate(store.first_rows):
        length = store.lengths[index]
        n_bursts[index] = min(n_bursts[index], length // 5)
        frames = 0.1 * generator.standard_normal((length, rows.shape[1]))
        for burst in range(n_bursts[index]):
            start = burst * (length // n_bursts[index]) + 1
            frames[start : start + 2, labels[index]] += 3
        rows[first : first + length] = frames
    vars(store)["rows"] = rows.astype(np.float32)
    found = train(store, n_bursts, tmp_path / "run")[1]
    validation = single(store.corpus)[0].validation
    expected = [[labels[index]] * n_bursts[index] for index in validation]
    n_right = sum(labels_read_off(rows) == labels for rows, labels in zip(found, expected, strict=True))
    assert n_right >= 0.9 * len(validation)


def test_posteriors_come_in_the_order_asked_for_whatever_the_batches(tiny_store: FeatureStore, tmp_path: Path):
    fold = single(tiny_store.corpus)[0]
    source = standardise(tiny_store, fold, "training")[1]
    model = train(tiny_store, np.ones(len(tiny_store.lengths), dtype=np.int64), tmp_path / "run", n_epochs=1)[0]
    indices = [17, 3, 40, 8, 22]
    whole = frame_log_posteriors(model, source, indices, batch_size=5, device=CPU)
    assert [len(rows) for rows in whole] == tiny_store.lengths[indices].tolist()
    for batch_size in (1, 2):
        again = frame_log_posteriors(model, source, indices, batch_size=batch_size, device=CPU)
        assert all(np.array_equal(a, b) for a, b in zip(whole, again, strict=True))


def test_utterances_shortened_in_training_still_have_a_loss(tiny_store: FeatureStore, tmp_path: Path):
    n_labels = (tiny_store.lengths + 1) // 2
    model, _ = train(tiny_store, n_labels, tmp_path / "run", n_epochs=2, tempo_change=0.9)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
