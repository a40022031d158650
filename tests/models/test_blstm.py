import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

from serfast.models import BLSTM
from serfast.ops import Lengths

LENGTHS = [4, 1, 9, 6]


def make_pair(n_layers: int, dtype: torch.dtype = torch.float64) -> tuple[BLSTM, nn.LSTM]:
    """Our encoder and torch's with the same weights."""
    torch.manual_seed(0)
    lstm = nn.LSTM(5, 7, n_layers, batch_first=True, bidirectional=True, dtype=dtype)
    ours = BLSTM(5, 7, n_layers).to(dtype)
    ours.load_state_dict(lstm.state_dict())
    return ours, lstm


def packed_hidden(lstm: nn.LSTM, rows: Tensor) -> Tensor:
    padded, _ = pad_packed_sequence(lstm(pack_sequence(rows.split(LENGTHS), enforce_sorted=False))[0], batch_first=True)
    return torch.cat([hidden[:n] for hidden, n in zip(padded, LENGTHS, strict=True)])


def test_takes_over_the_weights_of_torch_and_gives_them_back():
    for n_layers in (1, 2, 3):
        ours, lstm = make_pair(n_layers)
        rows = torch.randn(sum(LENGTHS), 5, dtype=torch.float64)
        torch.testing.assert_close(ours(rows, torch.tensor(LENGTHS)), packed_hidden(lstm, rows))
        lstm.load_state_dict(ours.state_dict())


def test_gradients_equal_packed_torch():
    ours, lstm = make_pair(2)
    rows = torch.randn(sum(LENGTHS), 5, dtype=torch.float64, requires_grad=True)
    slopes = torch.randn(sum(LENGTHS), 14, dtype=torch.float64)
    expected = torch.autograd.grad((packed_hidden(lstm, rows) * slopes).sum(), [rows, *lstm.parameters()])
    found = torch.autograd.grad((ours(rows, torch.tensor(LENGTHS)) * slopes).sum(), [rows, *ours.parameters()])
    for grad, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(grad, truth)


def test_starts_from_weights_of_the_size_of_torchs():
    ours, lstm = BLSTM(28, 64), nn.LSTM(28, 64, 2, bidirectional=True)
    for (name, mine), (other, theirs) in zip(ours.named_parameters(), lstm.named_parameters(), strict=True):
        assert name == other
        assert abs(mine.std() / theirs.std() - 1) < 0.2
        assert mine.abs().max() <= 1 / 8


def test_dropout_lies_between_layers_and_only_in_training():
    features, lengths = torch.randn(30, 5), Lengths.packed(torch.tensor([30]))
    blstm = BLSTM(5, 8, dropout=0.5)
    assert not torch.equal(blstm(features, lengths), blstm(features, lengths))
    blstm.eval()
    assert torch.equal(blstm(features, lengths), blstm(features, lengths))
    one_layer = BLSTM(5, 8, n_layers=1, dropout=0.5)
    assert torch.equal(one_layer(features, lengths), one_layer(features, lengths))


def test_a_group_is_a_model_of_its_own_to_the_bit():
    torch.manual_seed(0)
    grouped, alone = BLSTM(5, 7, n_groups=3), [BLSTM(5, 7) for _ in range(3)]
    grouped.load_state_dict(
        {name: torch.stack([model.state_dict()[name] for model in alone]) for name in grouped.state_dict()}
    )
    rows, group = torch.randn(sum(LENGTHS), 5), torch.tensor([2, 0, 2, 1])
    hidden = grouped(rows, torch.tensor(LENGTHS), group)
    slopes = torch.randn_like(hidden)
    gradients = dict(
        zip(grouped.state_dict(), torch.autograd.grad((hidden * slopes).sum(), grouped.parameters()), strict=True)
    )
    group_of_row = group.repeat_interleave(torch.tensor(LENGTHS))
    for member, model in enumerate(alone):
        own = group_of_row == member
        expected = model(rows[own], torch.tensor(LENGTHS)[group == member])
        assert torch.equal(hidden[own], expected)
        (expected * slopes[own]).sum().backward()
        for name, parameter in model.named_parameters():
            assert torch.equal(gradients[name][member], parameter.grad), name


def test_groups_start_from_weights_of_their_own():
    weight = BLSTM(28, 64, n_groups=2).get_parameter("weight_hh_l0")
    assert weight.shape == (2, 256, 64)
    assert not torch.equal(weight[0], weight[1])
    with pytest.raises(ValueError, match="n_groups must be at least 1, got 0"):
        BLSTM(5, 7, n_groups=0)
