import pytest
import torch

from serfast.models import FrameClassifier
from serfast.ops import Lengths

LENGTHS = (9, 1, 30, 4)


@pytest.fixture
def model() -> FrameClassifier:
    torch.manual_seed(0)
    return FrameClassifier(6, 4, n_units=5, n_layers=2).eval()


def packed() -> torch.Tensor:
    return torch.randn(sum(LENGTHS), 6, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_posteriors_of_a_frame_sum_to_one(model: FrameClassifier):
    posteriors = model(packed(), Lengths.packed(torch.tensor(LENGTHS))).exp()
    assert posteriors.shape == (sum(LENGTHS), 4)
    torch.testing.assert_close(posteriors.sum(dim=1), torch.ones(sum(LENGTHS)))


@torch.no_grad()
def test_posteriors_are_those_of_torchs_recurrent_network(model: FrameClassifier):
    recurrent = torch.nn.LSTM(6, 5, 2, bidirectional=True)
    recurrent.load_state_dict(model.encoder.state_dict())
    output = model.decoder.layers[-1]
    answers = model(packed(), Lengths.packed(torch.tensor(LENGTHS))).split(LENGTHS)
    for rows, found in zip(packed().split(LENGTHS), answers, strict=True):
        expected = torch.nn.functional.linear(recurrent(rows)[0], output.weight, output.bias).log_softmax(dim=1)
        torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_an_utterance_has_the_same_posteriors_in_any_batch(model: FrameClassifier):
    rows = packed().split(LENGTHS)
    together = model(packed(), Lengths.packed(torch.tensor(LENGTHS))).split(LENGTHS)
    for utterance, expected in zip(rows, together, strict=True):
        assert torch.equal(model(utterance, Lengths.packed(torch.tensor([len(utterance)]))), expected)
