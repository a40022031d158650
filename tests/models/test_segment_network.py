import numpy as np
import pytest
import torch

from serfast.models import SegmentNetwork


def make_network(**sizes: int) -> SegmentNetwork:
    torch.manual_seed(0)
    return SegmentNetwork(30, 4, **sizes).eval()


def make_segments(n_segments: int) -> torch.Tensor:
    return torch.randn(n_segments, 30, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("n_layers", [1, 3])
def test_logits_are_rectified_layers_and_a_linear_one(n_layers: int):
    network, segments = make_network(n_layers=n_layers, n_units=17), make_segments(9)
    matrices = [parameter.detach().double().numpy() for parameter in network.parameters()]
    assert [matrix.shape for matrix in matrices[::2]] == [(17, 30), *[(17, 17)] * (n_layers - 1), (4, 17)]
    expected = segments.double().numpy()
    for place, (weight, bias) in enumerate(zip(matrices[::2], matrices[1::2], strict=True)):
        expected = (np.maximum(expected, 0) if place > 0 else expected) @ weight.T + bias
    for training in (False, True):
        found = network.train(training)(segments).detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@torch.inference_mode()
def test_logits_have_the_same_bits_in_any_batch():
    network, segments = make_network(), make_segments(65)
    together = network(segments)
    assert torch.equal(torch.cat([network(segment[None]) for segment in segments]), together)
    assert torch.equal(network(segments.flip(0)).flip(0), together)
