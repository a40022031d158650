"""Where the utterances of a batch are."""

import dataclasses

import pytest
import torch

from serfast.ops import Lengths


def test_packed_utterances_lie_end_to_end():
    lengths = Lengths.packed(torch.tensor([3, 1, 5]))
    assert lengths.first_rows.tolist() == [0, 3, 4]
    assert (lengths.n_rows, lengths.n_frames) == (9, None)


def test_padded_utterances_start_at_multiples_of_the_frames():
    lengths = Lengths.padded(torch.tensor([3, 1, 5]), 6)
    assert lengths.first_rows.tolist() == [0, 6, 12]
    assert (lengths.n_rows, lengths.n_frames) == (18, 6)


def test_of_takes_the_layout_from_the_data():
    lengths = torch.tensor([2, 3])
    assert Lengths.of(lengths, torch.zeros(5, 7)).n_frames is None
    assert Lengths.of(lengths, torch.zeros(2, 4, 7)).n_frames == 4
    checked = Lengths.packed(lengths)
    assert Lengths.of(checked, torch.zeros(5, 7)) is checked


def test_values_cannot_change_after_the_check():
    lengths = torch.tensor([2, 3])
    checked = Lengths.packed(lengths)
    lengths[0] = 9
    assert checked.lengths.tolist() == checked.on_device.tolist() == [2, 3]
    with pytest.raises(dataclasses.FrozenInstanceError):
        checked.n_rows = 9
