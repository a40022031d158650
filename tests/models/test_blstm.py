import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from serfast.models import BLSTM
from serfast.ops import Lengths


def packed_pytorch(blstm: BLSTM, utterances: list[torch.Tensor]) -> torch.Tensor:
    """Hidden rows of torch.nn.LSTM with the same weights, by way of PackedSequence."""
    n_layers, n_units = len(blstm.onward), blstm.onward[0].hidden_size
    lstm = nn.LSTM(utterances[0].shape[1], n_units, n_layers, batch_first=True, bidirectional=True).to(
        utterances[0].dtype
    )
    state = {}
    for depth in range(n_layers):
        for suffix, half in (("", blstm.onward[depth]), ("_reverse", blstm.reverse[depth])):
            for name, weight in half.state_dict().items():
                state[name.replace("_l0", f"_l{depth}") + suffix] = weight
    lstm.load_state_dict(state)
    lengths = torch.tensor([len(utterance) for utterance in utterances])
    packed = pack_padded_sequence(
        pad_sequence(utterances, batch_first=True), lengths, batch_first=True, enforce_sorted=False
    )
    hidden, _ = pad_packed_sequence(lstm(packed)[0], batch_first=True)
    return torch.cat([hidden[place, :length] for place, length in enumerate(lengths)])


def make_batch(lengths: list[int], dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(length, 5, generator=generator, dtype=dtype) for length in lengths]


def test_equals_packed_pytorch_with_the_same_weights():
    torch.manual_seed(0)
    blstm = BLSTM(5, 7, n_layers=2).double()
    utterances = make_batch([4, 1, 9, 6])
    hidden = blstm(torch.cat(utterances), Lengths.packed(torch.tensor([4, 1, 9, 6])))
    torch.testing.assert_close(hidden, packed_pytorch(blstm, utterances))


def test_gradients_equal_packed_pytorch():
    torch.manual_seed(0)
    blstm = BLSTM(5, 3, n_layers=2).double()
    utterances = [utterance.requires_grad_() for utterance in make_batch([3, 8, 2])]
    weight = torch.randn(13, 6, dtype=torch.float64)
    ours = torch.autograd.grad(
        (blstm(torch.cat(utterances), Lengths.packed(torch.tensor([3, 8, 2]))) * weight).sum(), utterances
    )
    theirs = torch.autograd.grad((packed_pytorch(blstm, utterances) * weight).sum(), utterances)
    for grad, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(grad, expected)


def test_an_utterance_is_encoded_alike_alone_and_in_a_batch():
    torch.manual_seed(0)
    blstm = BLSTM(5, 16)
    utterances = make_batch([40, 3, 77, 12], torch.float32)
    together = blstm(torch.cat(utterances), Lengths.packed(torch.tensor([40, 3, 77, 12])))
    alone = [blstm(utterance, Lengths.packed(torch.tensor([len(utterance)]))) for utterance in utterances]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-6, rtol=0)


def test_dropout_lies_between_layers_and_only_in_training():
    torch.manual_seed(0)
    features, lengths = make_batch([30], torch.float32)[0], Lengths.packed(torch.tensor([30]))
    blstm = BLSTM(5, 8, dropout=0.5)
    assert not torch.equal(blstm(features, lengths), blstm(features, lengths))
    blstm.eval()
    assert torch.equal(blstm(features, lengths), blstm(features, lengths))
    one_layer = BLSTM(5, 8, n_layers=1, dropout=0.5)
    assert torch.equal(one_layer(features, lengths), one_layer(features, lengths))
