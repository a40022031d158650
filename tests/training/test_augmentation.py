from pathlib import Path

import numpy as np
import pytest
import torch

import serfast
from serfast import FeatureStore, TrainingOptions
from serfast.ops import Lengths
from serfast.training.augmentation import augment, stretch
from serfast.training.batches import Batch

LENGTHS = torch.tensor([50, 1, 7, 300])


def make_batch() -> Batch:
    torch.manual_seed(0)
    return Batch(torch.randn(int(LENGTHS.sum()), 5), Lengths.packed(LENGTHS), np.arange(4))


def split(features: torch.Tensor, lengths: Lengths) -> list[torch.Tensor]:
    return list(torch.split(features, lengths.lengths.tolist()))


def test_nothing_asked_changes_nothing():
    batch = make_batch()
    features, lengths = augment(batch, TrainingOptions())
    assert features is batch.features
    assert lengths is batch.lengths


def test_stretching_a_line_gives_the_line_from_the_same_first_to_the_same_last_frame():
    ramps = torch.cat([torch.linspace(number, 10.0 + number, int(n)) for number, n in enumerate(LENGTHS)])[:, None]
    factors = torch.tensor([1.5, 0.3, 0.5, 0.9])
    features, lengths = stretch(ramps, Lengths.packed(LENGTHS), factors)
    assert lengths.lengths.tolist() == [75, 1, 4, 270]
    for number, (piece, n_before) in enumerate(zip(split(features, lengths), LENGTHS, strict=True)):
        last = 10.0 + number if n_before > 1 else float(number)
        expected = torch.linspace(number, last, len(piece))
        torch.testing.assert_close(piece[:, 0], expected, atol=1e-4, rtol=0)


def test_a_factor_of_one_is_the_identity_and_numpy_agrees_elsewhere():
    batch = make_batch()
    same, _ = stretch(batch.features, batch.lengths, torch.ones(4))
    assert torch.equal(same, batch.features)
    features, lengths = stretch(batch.features, batch.lengths, torch.tensor([1.2, 1.0, 2.0, 0.77]))
    for before, after in zip(split(batch.features, batch.lengths), split(features, lengths), strict=True):
        places = np.linspace(0, len(before) - 1, len(after))
        for column in range(5):
            expected = np.interp(places, np.arange(len(before)), before[:, column].numpy())
            np.testing.assert_allclose(after[:, column].numpy(), expected, atol=1e-5)


def test_tempo_changes_stay_in_their_range():
    batch = make_batch()
    found = [augment(batch, TrainingOptions(tempo_change=0.2))[1].lengths for _ in range(50)]
    factors = torch.stack(found)[:, 3] / 300
    assert factors.min() >= 0.79
    assert factors.max() <= 1.21
    assert factors.std() > 0.05


def test_noise_has_its_deviation_and_an_offset_is_constant_over_an_utterance():
    batch = make_batch()
    noisy, _ = augment(batch, TrainingOptions(noise=0.3))
    assert (noisy - batch.features).std() == pytest.approx(0.3, rel=0.1)
    shifted, _ = augment(batch, TrainingOptions(offset=0.5))
    for piece in split(shifted - batch.features, batch.lengths):
        torch.testing.assert_close(piece, piece[:1].expand_as(piece), atol=1e-5, rtol=0)
    assert (shifted - batch.features).std() > 0.2


def test_one_span_of_at_most_so_many_frames_becomes_the_mean():
    batch = make_batch()
    longest = 0
    for _ in range(100):
        masked, _ = augment(batch, TrainingOptions(n_masked=20))
        for before, after in zip(split(batch.features, batch.lengths), split(masked, batch.lengths), strict=True):
            hidden = (after == 0).all(dim=1)
            assert torch.equal(after[~hidden], before[~hidden])
            places = hidden.nonzero()[:, 0]
            assert len(places) <= min(20, len(before) // 2)
            if len(places):
                assert int(places[-1] - places[0]) + 1 == len(places)
            longest = max(longest, len(places))
    assert longest == 20


def test_augmented_training_differs_and_is_repeatable(tiny_store: FeatureStore, tmp_path: Path):
    options = {"n_units": 4, "n_epochs": 2, "progress": False}
    changes = {"tempo_change": 0.1, "noise": 0.2, "offset": 0.1, "n_masked": 5}

    def run(name: str, **more: float) -> list[dict[str, float]]:
        result = serfast.cross_validate(tiny_store, output=tmp_path / name, **options, **more)
        return [row.probabilities for row in result.predictions]

    first = run("first", **changes)
    assert first == run("second", **changes)
    assert first != run("plain")
