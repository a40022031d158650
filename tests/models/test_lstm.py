import pytest
import torch

from serfast.models.lstm import LSTM
from serfast.ops import Lengths

LENGTHS = torch.tensor([9, 1, 23, 4])


def of_torch(reference: torch.nn.LSTM, rows: torch.Tensor, *, reverse: bool) -> torch.Tensor:
    pieces = []
    for piece in torch.split(rows, LENGTHS.tolist()):
        hidden, _ = reference(piece.flip(0) if reverse else piece)
        pieces.append(hidden.flip(0) if reverse else hidden)
    return torch.cat(pieces)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("n_units", [5, 32])
def test_it_is_torchs_lstm_on_each_utterance_alone(reverse: bool, n_units: int):
    torch.manual_seed(0)
    model = LSTM(7, n_units, 2, reverse=reverse)
    reference = torch.nn.LSTM(7, n_units, 2)
    reference.load_state_dict(model.state_dict())
    rows = torch.randn(int(LENGTHS.sum()), 7)
    hidden, expected = model(rows, LENGTHS), of_torch(reference, rows, reverse=reverse)
    assert hidden.shape == (len(rows), n_units)
    torch.testing.assert_close(hidden, expected, atol=2e-6, rtol=2e-5)
    slopes = torch.randn_like(hidden)
    hidden.backward(slopes)
    expected.backward(slopes)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, reference.get_parameter(name).grad, atol=1e-4, rtol=1e-4)


def test_it_costs_one_direction():
    """Twice as many sums would have been kept of both."""
    model, rows = LSTM(7, 16, 1), torch.randn(int(LENGTHS.sum()), 7)
    saved: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        model(rows, LENGTHS)
    assert max(tensor.shape[-1] for tensor in saved if len(tensor) == len(rows)) == 4 * 16


@pytest.mark.parametrize("reverse", [False, True])
def test_an_utterance_has_the_same_bits_alone_and_in_a_padded_batch(reverse: bool):
    torch.manual_seed(0)
    model = LSTM(7, 16, 2, reverse=reverse).eval()
    rows = torch.randn(int(LENGTHS.sum()), 7)
    packed = model(rows, Lengths.packed(LENGTHS))
    padded = torch.full((4, 25, 7), float("nan"))
    for number, piece in enumerate(torch.split(rows, LENGTHS.tolist())):
        padded[number, : len(piece)] = piece
    together = model(padded, LENGTHS)
    for number, (piece, expected) in enumerate(
        zip(torch.split(rows, LENGTHS.tolist()), torch.split(packed, LENGTHS.tolist()), strict=True)
    ):
        assert torch.equal(model(piece, LENGTHS[number : number + 1]), expected)
        assert torch.equal(together[number, : len(piece)], expected)
